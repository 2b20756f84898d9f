"""What a variant costs against what it keeps: size against latency, size against fidelity."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from edgepack.report.axes import Axis, Frame, draw_frame, lay_out, linear_axis
from edgepack.report.headline import chosen_row
from edgepack.report.labels import device_name, plain
from edgepack.report.placement import Box, draw_labels, line_boxes
from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.svg import (
    ACCENT,
    FONT_SIZE,
    MUTED,
    WARN,
    Plot,
    Point,
    dashed_line,
    dot,
    picture,
    plot_label,
    polyline,
    ring,
    text,
    text_width,
)
from edgepack.report.units import (
    EXACT_DB,
    decibels,
    duration_scale,
    file_size,
    latency,
    unit_factor,
)

Ends = tuple[float, float] | None
"""An interval on the upright axis."""

_LONGEST_LABEL: Final = 24
# NaN answers read -300 dB, which would squeeze all else together.
_LOWEST_DB: Final = -10.0
_HEIGHT: Final = 246.0


class Measure(StrEnum):
    """What stands on the upright axis."""

    LATENCY = "latency"
    FIDELITY = "fidelity"


def plot_tradeoff(pack: PackSummary, *, measure: Measure) -> Plot | None:
    """Plot variants by size and latency or fidelity; None with fewer than two to compare."""
    by_latency = measure is Measure.LATENCY
    rows = [
        row
        for row in pack.variants
        if row.num_bytes is not None and (row.median_ns if by_latency else row.sqnr_db) is not None
    ]
    if len(rows) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    across, sizes = _sizes(rows)
    upright, values, ends = _latencies(rows) if by_latency else _fidelities(rows, pack)
    frame = lay_out(across, upright, height=_HEIGHT)
    parts = draw_frame(frame)
    obstacles: list[Box] = []
    if not by_latency and pack.min_sqnr_db is not None:
        floor, covered = _floor(frame, pack.min_sqnr_db)
        parts += floor
        obstacles += covered
    points = [frame.at(*each) for each in zip(sizes, values, strict=True)]
    for row, at, end in sorted(
        zip(rows, points, ends, strict=True), key=lambda drawn: drawn[0].recipe == pack.chosen
    ):
        color = ACCENT if row.recipe == pack.chosen else MUTED
        if end is not None:
            bar = [(at[0], frame.y(each)) for each in end]
            parts.append(polyline(bar, color=color, width=1.6))
            obstacles += line_boxes(bar, half_width=2.0)
        parts.append(_point(row, at=at, color=color))
    texts = [
        plot_label(
            row.recipe, longest=_LONGEST_LABEL, otherwise=f"row {pack.variants.index(row) + 1}"
        )
        for row in rows
    ]
    bounds = (frame.left, frame.top, frame.right, frame.bottom)
    parts += draw_labels(list(zip(points, texts, strict=True)), bounds=bounds, obstacles=obstacles)
    caption = "Size against " + (
        f"median latency on {device_name(pack.latency_on or 'local:')}, with its 95% "
        "interval; nearer the lower left is better."
        if by_latency
        else "fidelity to the float model; nearer the upper left is better."
    )
    caption += " A ring: outside the floors."
    best = chosen_row(pack)
    told = [
        f"{plain(row.recipe, longest=64)}: {file_size(row.num_bytes or 0)}, "
        + (latency(row.median_ns or 0) if by_latency else decibels(row.sqnr_db or 0))
        for row in rows
    ]
    ending = f". Chosen: {plain(best.recipe, longest=64)}." if best else "."
    svg = picture(parts, height=frame.height)
    return Plot(svg=svg, caption=caption, description="; ".join(told) + ending)


def _sizes(rows: Sequence[VariantRow]) -> tuple[Axis, list[float]]:
    largest = max(row.num_bytes or 0 for row in rows)
    unit = file_size(largest).split()[1]
    factor = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}[unit]
    sizes = [(row.num_bytes or 0) / factor for row in rows]
    margin = 0.12 * (max(sizes) - min(sizes))
    low = max(0.0, min(sizes) - margin)
    return linear_axis(low, max(sizes) + margin, name=f"model size, {unit}"), sizes


def _latencies(rows: Sequence[VariantRow]) -> tuple[Axis, list[float], list[Ends]]:
    unit, _ = duration_scale(max(row.median_ns or 0.0 for row in rows))
    factor = unit_factor(unit)
    values = [(row.median_ns or 0.0) / factor for row in rows]
    ends: list[Ends] = [
        (row.median_ci95_ns[0] / factor, row.median_ci95_ns[1] / factor)
        if row.median_ci95_ns
        else None
        for row in rows
    ]
    top = max([*values, *(end[1] for end in ends if end is not None)])
    return linear_axis(0.0, 1.15 * top, name=f"median latency, {unit}"), values, ends


def _fidelities(
    rows: Sequence[VariantRow], pack: PackSummary
) -> tuple[Axis, list[float], list[Ends]]:
    """Give SQNRs; an exact one stands a little above the best of the others, and says so."""
    finite = [row.sqnr_db for row in rows if row.sqnr_db is not None and row.sqnr_db < EXACT_DB]
    top = max([*finite, 40.0]) * 1.15
    values = [min(max(row.sqnr_db or 0.0, _LOWEST_DB), top) for row in rows]
    shown = [*values, *([pack.min_sqnr_db] if pack.min_sqnr_db is not None else [])]
    margin = 0.12 * (max(shown) - min(shown))
    axis = linear_axis(min(shown) - margin, max(shown) + margin, name="SQNR to float, dB")
    return axis, values, [None] * len(rows)


def _floor(frame: Frame, floor_db: float) -> tuple[list[str], tuple[Box, ...]]:
    """Write the floor's line and its name, and give what they cover."""
    ends = frame.at(frame.across.low, floor_db), frame.at(frame.across.high, floor_db)
    name = f"floor {floor_db:g} dB"
    x, y = ends[1]
    high = y - 1.25 * FONT_SIZE
    parts = [
        dashed_line(*ends, color=WARN, width=1.2),
        text((x, (y + high) / 2), name, color=WARN, anchor="end"),
    ]
    return parts, (*line_boxes(ends, half_width=1.0), (x - text_width(name), high, x, y))


def _point(row: VariantRow, *, at: Point, color: str) -> str:
    # A ring is wider than a dot, so that it still shows around a variant at the same place.
    if not row.within_budget:
        return ring(at, radius=6.0, color=WARN)
    return dot(at, radius=5.0 if color == ACCENT else 3.6, color=color)
