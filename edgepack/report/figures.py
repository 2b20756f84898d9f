"""Latency plots: the distribution of runs, the launches, and several measurements side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edgepack.report.headline import model_title
from edgepack.report.labels import device_name
from edgepack.report.rows import quantile
from edgepack.report.summary import BenchmarkSummary
from edgepack.report.svg import ACCENT, FAINT, WARN, Plot, draw, new_axes, plot_label, plot_style
from edgepack.report.units import count, duration_scale, latency, latency_interval, unit_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS: Final = 201
_TAIL: Final = 0.995
_MAXIMUM_LAUNCHES: Final = 40
_LONGEST_LABEL: Final = 18


def plot_distribution(benchmark: BenchmarkSummary, *, key: str) -> Plot | None:
    """Plot the share of runs that are done by a time, launch by launch and together."""
    series = _series(benchmark)
    figures = benchmark.latency
    if figures is None or not series:
        return None
    unit, _ = duration_scale(figures.median_ns)
    factor = unit_factor(unit)
    pooled = np.sort(np.concatenate(series)) / factor
    low, high, beyond = _window(pooled)
    shares = np.linspace(0, 1, _POINTS)
    with plot_style(key):
        figure, axes = new_axes(height_inches=3.4)
        for launch in series[:_MAXIMUM_LAUNCHES]:
            quantiles = np.quantile(launch / factor, shares)
            axes.plot(quantiles, shares * 100, color=FAINT, linewidth=1.0, zorder=2)
        if figures.median_ci95_ns is not None:
            ends = [each / factor for each in figures.median_ci95_ns]
            axes.axvspan(ends[0], ends[1], color=ACCENT, alpha=0.18, linewidth=0, zorder=1)
        whole = np.quantile(pooled, shares)
        axes.plot(whole, shares * 100, color=ACCENT, linewidth=2.2, zorder=3)
        for name, value, level in (
            ("p50", figures.median_ns, 50),
            ("p90", figures.p90_ns, 90),
            ("p99", figures.p99_ns, 99),
        ):
            if value is None or not low <= value / factor <= high:
                continue
            axes.plot([value / factor], [level], "o", color=ACCENT, markersize=5, zorder=4)
            axes.annotate(
                f"{name}  {latency(value)}",
                (value / factor, level),
                textcoords="offset points",
                xytext=(8, -11),
                zorder=5,
            )
        axes.set_xlim(low, high)
        axes.set_ylim(0, 104)
        axes.set_yticks([0, 25, 50, 75, 100], labels=["0", "25", "50", "75", "100%"])
        axes.set_xlabel(f"latency, {unit}")
        axes.grid(visible=True, axis="both")
        svg = draw(figure, key=key)
    spread = _median_text(benchmark)
    tail = f" {count(beyond, 'run lies', 'runs lie')} beyond the axis." if beyond else ""
    return Plot(
        svg=svg,
        caption=f"Share of runs done by a time: each launch (thin) and all of them (thick).{tail}",
        description=(
            f"Cumulative distribution of {count(benchmark.num_runs, 'run')} in "
            f"{count(len(series), 'launch', 'launches')}: {spread}, from "
            f"{latency(figures.min_ns)} to {latency(figures.max_ns)}."
        ),
    )


def plot_launches(benchmark: BenchmarkSummary, *, key: str) -> Plot | None:
    """Plot each launch's spread: p5 to p95, the middle half, and the median."""
    series = _series(benchmark)
    figures = benchmark.latency
    if figures is None or not series:
        return None
    unit, _ = duration_scale(figures.median_ns)
    factor = unit_factor(unit)
    shown = series[:_MAXIMUM_LAUNCHES]
    marked = [bool(e.marks) for e in benchmark.launches if e.samples_ns][:_MAXIMUM_LAUNCHES]
    quantiles = [np.quantile(e / factor, (0.05, 0.25, 0.5, 0.75, 0.95)) for e in shown]
    with plot_style(key):
        figure, axes = new_axes(height_inches=max(3.4, 0.9 + 0.21 * len(shown)))
        if figures.median_ci95_ns is not None:
            ends = [each / factor for each in figures.median_ci95_ns]
            axes.axvspan(ends[0], ends[1], color=ACCENT, alpha=0.18, linewidth=0, zorder=1)
        for row, (p5, p25, p50, p75, p95) in enumerate(quantiles, start=1):
            color = WARN if marked[row - 1] else ACCENT
            axes.plot([p5, p95], [row, row], color=FAINT, linewidth=1.4, zorder=2)
            axes.plot([p25, p75], [row, row], color=color, linewidth=4.5, alpha=0.45, zorder=3)
            marker = "D" if marked[row - 1] else "o"
            axes.plot([p50], [row], marker, color=color, markersize=5.5, zorder=4)
        axes.set_ylim(len(shown) + 0.7, 0.3)
        rows = range(1, len(shown) + 1)
        step = 1 if len(shown) <= 12 else 5  # noqa: PLR2004 - rows that fit without crowding
        axes.set_yticks([row for row in rows if row == 1 or row % step == 0])
        axes.set_ylabel("launch")
        axes.set_xlabel(f"latency, {unit}")
        axes.margins(x=0.06)
        axes.grid(visible=True, axis="x")
        svg = draw(figure, key=key)
    medians = [quantile(sorted(e.samples_ns), 0.5) for e in benchmark.launches if e.samples_ns]
    doubtful = sum(marked)
    caption = "Each launch: median, middle half (thick) and p5 to p95 (thin)"
    if figures.median_ci95_ns is not None:
        caption += "; the band is the median's 95% interval"
    if doubtful:
        caption += ". A diamond marks a doubtful launch"
    if len(series) > len(shown):
        caption += f". The first {len(shown)} of {len(series)} launches are shown"
    return Plot(
        svg=svg,
        caption=f"{caption}.",
        description=(
            f"Medians of {count(len(medians), 'launch', 'launches')}: from "
            f"{latency(min(medians))} to {latency(max(medians))}; "
            f"{count(doubtful, 'launch is', 'launches are')} marked as doubtful."
        ),
    )


def plot_comparison(benchmarks: Sequence[BenchmarkSummary], *, key: str) -> Plot | None:
    """Plot the medians of several measurements with their intervals; None for fewer than two."""
    measured = [each for each in benchmarks if each.latency is not None]
    if len(measured) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    medians = [each.latency.median_ns for each in measured if each.latency]
    unit, _ = duration_scale(sorted(medians)[len(medians) // 2])
    factor = unit_factor(unit)
    logarithmic = max(medians) > 20 * max(min(medians), 1)
    with plot_style(key):
        figure, axes = new_axes(height_inches=1.0 + 0.5 * len(measured))
        for row, each in enumerate(measured, start=1):
            if each.latency is None:
                continue
            valid = each.verdict == "valid"
            color = ACCENT if valid else WARN
            if each.latency.median_ci95_ns is not None:
                ends = [end / factor for end in each.latency.median_ci95_ns]
                axes.plot(ends, [row, row], color=color, linewidth=2.2)
            marker = "o" if valid else "D"
            axes.plot([each.latency.median_ns / factor], [row], marker, color=color, markersize=7)
        names = [
            f"{i}  " + plot_label(device_name(each.device), longest=_LONGEST_LABEL, otherwise="")
            for i, each in enumerate(measured, start=1)
        ]
        axes.set_yticks(range(1, len(measured) + 1), labels=names)
        axes.set_ylim(len(measured) + 0.6, 0.4)
        if logarithmic:
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
            axes.set_xlim(right=axes.get_xlim()[1] * 1.02)
        axes.set_xlabel(f"median latency, {unit}")
        axes.grid(visible=True, axis="x")
        svg = draw(figure, key=key)
    told = [f"{model_title(e)} on {device_name(e.device)}: {_median_text(e)}" for e in measured]
    caption = "Medians with their 95% intervals, numbered as in the table."
    if any(each.verdict != "valid" for each in measured):
        caption += " A diamond marks a doubtful measurement."
    return Plot(svg=svg, caption=caption, description="; ".join(told) + ".")


def _series(benchmark: BenchmarkSummary) -> "list[NDArray[np.float64]]":
    return [
        np.asarray(launch.samples_ns, dtype=np.float64)
        for launch in benchmark.launches
        if launch.samples_ns
    ]


def _window(pooled: "NDArray[np.float64]") -> tuple[float, float, int]:
    """Choose an axis that a few stray runs do not squeeze; count what lies beyond it."""
    low, tail, high = (float(each) for each in np.quantile(pooled, (0.0, _TAIL, 1.0)))
    if high - low > 2 * (tail - low):
        high = tail + 0.1 * (tail - low)
    margin = 0.03 * (high - low) or 0.01 * high or 1.0
    return low - margin, high + margin, int(np.count_nonzero(pooled > high))


def _median_text(benchmark: BenchmarkSummary) -> str:
    figures = benchmark.latency
    if figures is None:
        return "not measured"
    interval = figures.median_ci95_ns
    text = f"median {latency(figures.median_ns, interval_ns=interval)}"
    if interval is not None:
        text += f", 95% interval {latency_interval(interval, value_ns=figures.median_ns)}"
    return text
