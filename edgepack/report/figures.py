"""Latency plots: the distribution of runs, the launches, and several measurements side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edgepack.report.axes import Axis, Frame, draw_frame, lay_out, linear_axis, log_axis
from edgepack.report.headline import model_title
from edgepack.report.labels import device_name
from edgepack.report.placement import draw_labels, line_boxes
from edgepack.report.rows import quantile
from edgepack.report.summary import BenchmarkSummary
from edgepack.report.svg import (
    ACCENT,
    FAINT,
    WARN,
    Plot,
    Point,
    diamond,
    dot,
    line,
    picture,
    plot_label,
    polyline,
    rectangle,
)
from edgepack.report.units import count, duration_scale, latency, latency_interval, unit_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS: Final = 201
_TAIL: Final = 0.995
_MAXIMUM_LAUNCHES: Final = 40
_LONGEST_LABEL: Final = 18
_HEIGHT: Final = 236.0
# The slowest takes so many times the quickest that a linear axis would hide one of them.
_MANY_TIMES: Final = 20
_PERCENT: Final = Axis(
    low=0.0,
    high=104.0,
    ticks=((0.0, "0"), (25.0, "25"), (50.0, "50"), (75.0, "75"), (100.0, "100%")),
    name="share of runs",
)


def plot_distribution(benchmark: BenchmarkSummary) -> Plot | None:
    """Plot the share of runs that are done by a time, launch by launch and together."""
    series = _series(benchmark)
    figures = benchmark.latency
    if figures is None or not series:
        return None
    unit, _ = duration_scale(figures.median_ns)
    factor = unit_factor(unit)
    pooled = np.sort(np.concatenate(series)) / factor
    low, high, beyond = _window(pooled)
    across = linear_axis(low, high, name=f"latency, {unit}")
    frame = lay_out(across, _PERCENT, height=_HEIGHT)
    parts = draw_frame(frame)
    parts += _band(frame, figures.median_ci95_ns, factor)
    for launch in series[:_MAXIMUM_LAUNCHES]:
        parts.append(polyline(_curve(frame, launch / factor), color=FAINT, width=1.0))
    whole = _curve(frame, pooled)
    parts.append(polyline(whole, color=ACCENT, width=2.2))
    labels = []
    for name, value, level in (
        ("p50", figures.median_ns, 50),
        ("p90", figures.p90_ns, 90),
        ("p99", figures.p99_ns, 99),
    ):
        if value is None or not low <= value / factor <= high:
            continue
        at = frame.at(value / factor, level)
        parts.append(dot(at, radius=3.5, color=ACCENT))
        labels.append((at, f"{name} {latency(value)}"))
    bounds = (frame.left, frame.top, frame.right, frame.bottom)
    parts += draw_labels(labels, bounds=bounds, obstacles=line_boxes(whole, half_width=2.0))
    tail = f" {count(beyond, 'run lies', 'runs lie')} beyond the axis." if beyond else ""
    return Plot(
        svg=picture(parts, height=frame.height),
        caption=f"Share of runs done by a time: each launch (thin) and all of them (thick).{tail}",
        description=(
            f"Cumulative distribution of {count(benchmark.num_runs, 'run')} in "
            f"{count(len(series), 'launch', 'launches')}: {_median_text(benchmark)}, from "
            f"{latency(figures.min_ns)} to {latency(figures.max_ns)}."
        ),
    )


def plot_launches(benchmark: BenchmarkSummary) -> Plot | None:
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
    ends = [end / factor for end in figures.median_ci95_ns or ()]
    low = min([float(each[0]) for each in quantiles] + ends)
    high = max([float(each[-1]) for each in quantiles] + ends)
    margin = 0.05 * (high - low)
    frame = lay_out(
        linear_axis(low - margin, high + margin, name=f"latency, {unit}"),
        _numbered_rows(len(shown)),
        height=max(_HEIGHT, 70.0 + 14.0 * len(shown)),
    )
    parts = draw_frame(frame, rows=True)
    parts += _band(frame, figures.median_ci95_ns, factor)
    for row, ((p5, p25, p50, p75, p95), doubtful) in enumerate(
        zip(quantiles, marked, strict=True), start=1
    ):
        color = WARN if doubtful else ACCENT
        parts.append(line(frame.at(p5, row), frame.at(p95, row), color=FAINT, width=1.4))
        middle = frame.at(p25, row), frame.at(p75, row)
        parts.append(line(*middle, color=color, width=4.5, opacity=0.45))
        parts.append(_mark(frame.at(p50, row), color=color, radius=3.6, doubtful=doubtful))
    medians = [quantile(sorted(e.samples_ns), 0.5) for e in benchmark.launches if e.samples_ns]
    num_doubtful = sum(marked)
    caption = "Each launch: median, middle half (thick) and p5 to p95 (thin)"
    if figures.median_ci95_ns is not None:
        caption += "; the band is the median's 95% interval"
    if num_doubtful:
        caption += ". A diamond marks a doubtful launch"
    if len(series) > len(shown):
        caption += f". The first {len(shown)} of {len(series)} launches are shown"
    return Plot(
        svg=picture(parts, height=frame.height),
        caption=f"{caption}.",
        description=(
            f"Medians of {count(len(medians), 'launch', 'launches')}: from "
            f"{latency(min(medians))} to {latency(max(medians))}; "
            f"{count(num_doubtful, 'launch is', 'launches are')} marked as doubtful."
        ),
    )


def plot_comparison(
    benchmarks: Sequence[BenchmarkSummary], *, without_xnnpack: bool = False
) -> Plot | None:
    """Plot the medians of several measurements with their intervals; None for fewer than two.

    Args:
        benchmarks: all there are, for their numbers.
        without_xnnpack: whether to show those whose runtime has no XNNPACK; the others otherwise.
    """
    timed = [(each, each.latency) for each in benchmarks if each.latency is not None]
    numbered = [
        (row, each, figures)
        for row, (each, figures) in enumerate(timed, start=1)
        if each.lacks_xnnpack is without_xnnpack
    ]
    measured = [(each, figures) for _, each, figures in numbered]
    if len(measured) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    medians = sorted(figures.median_ns for _, figures in measured)
    unit, _ = duration_scale(medians[len(medians) // 2])
    factor = unit_factor(unit)
    values = [
        value / factor
        for _, figures in measured
        for value in (figures.median_ns, *(figures.median_ci95_ns or ()))
    ]
    name = f"median latency, {unit}"
    low, high = min(values), max(values)
    # A median of 0 ns, of a clock too coarse, has no place on a logarithmic axis.
    if low > 0 and medians[-1] > _MANY_TIMES * medians[0]:
        margin = (high / low) ** 0.05
        across = log_axis(low / margin, high * margin, name=name)
    else:
        across = linear_axis(0.0, 1.04 * high, name=name)
    names = tuple(
        (
            float(row),
            f"{number}. "
            + plot_label(device_name(each.device), longest=_LONGEST_LABEL, otherwise=""),
        )
        for row, (number, each, _) in enumerate(numbered, start=1)
    )
    upright = Axis(low=len(measured) + 0.6, high=0.4, ticks=names)
    frame = lay_out(across, upright, height=60.0 + 34.0 * len(measured))
    parts = draw_frame(frame, rows=True)
    for row, (each, figures) in enumerate(measured, start=1):
        doubtful = each.verdict != "valid"
        color = WARN if doubtful else ACCENT
        if figures.median_ci95_ns is not None:
            ends = [frame.at(end / factor, row) for end in figures.median_ci95_ns]
            parts.append(polyline(ends, color=color, width=2.2))
        at = frame.at(figures.median_ns / factor, row)
        parts.append(_mark(at, color=color, radius=4.5, doubtful=doubtful))
    told = [f"{model_title(e)} on {device_name(e.device)}: {_median_text(e)}" for e, _ in measured]
    caption = "Medians with their 95% intervals, numbered as in the table."
    if without_xnnpack:
        caption += " These runtimes have no XNNPACK."
    if any(each.verdict != "valid" for each, _ in measured):
        caption += " A diamond marks a doubtful measurement."
    svg = picture(parts, height=frame.height)
    return Plot(svg=svg, caption=caption, description="; ".join(told) + ".")


def _curve(frame: Frame, samples: "NDArray[np.float64]") -> list[Point]:
    """Give the share of samples done by a time as a line, up to the axis's end."""
    levels = np.linspace(0, 1, _POINTS)
    times = np.quantile(samples, levels)
    end = frame.across.high
    inside = times <= end
    points = [
        frame.at(time, level * 100)
        for time, level in zip(times[inside].tolist(), levels[inside].tolist(), strict=True)
    ]
    if not inside.all():
        at_end = float(np.interp(end, times, levels))
        points.append(frame.at(end, at_end * 100))
    return points


def _band(frame: Frame, interval_ns: tuple[float, float] | None, factor: int) -> list[str]:
    """Write the band that an interval covers, as far as the axis reaches."""
    if interval_ns is None:
        return []
    low, high = (min(max(end / factor, frame.across.low), frame.across.high) for end in interval_ns)
    corners = (frame.x(low), frame.top), (frame.x(high), frame.bottom)
    return [rectangle(*corners, color=ACCENT, opacity=0.18)]


def _mark(at: Point, *, color: str, radius: float, doubtful: bool) -> str:
    if doubtful:
        return diamond(at, radius=1.25 * radius, color=color)
    return dot(at, radius=radius, color=color)


def _numbered_rows(num_rows: int) -> Axis:
    """Make an upright axis of numbered rows, the first on top."""
    step = 1 if num_rows <= 12 else 5  # noqa: PLR2004 - rows that fit without crowding
    shown = [row for row in range(1, num_rows + 1) if row == 1 or row % step == 0]
    ticks = tuple((float(row), str(row)) for row in shown)
    return Axis(low=num_rows + 0.7, high=0.3, ticks=ticks, name="launch")


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
