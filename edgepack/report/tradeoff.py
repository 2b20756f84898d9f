"""What a variant costs against what it keeps: size against latency, size against fidelity."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from edgepack.report.headline import chosen_row
from edgepack.report.labels import device_name, plain
from edgepack.report.rows import Standing, standing
from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.svg import (
    ACCENT,
    MUTED,
    WARN,
    Plot,
    draw,
    new_axes,
    plot_label,
    plot_style,
)
from edgepack.report.units import (
    EXACT_DB,
    decibels,
    duration_scale,
    file_size,
    latency,
    unit_factor,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in pixels."""

Ends = tuple[float, float] | None
"""An interval on the upright axis."""

_LONGEST_LABEL: Final = 24
# NaN answers read -300 dB, which would squeeze all else together.
_LOWEST_DB: Final = -10.0
_OUTSIDE_COST: Final = 10.0


class Measure(StrEnum):
    """What stands on the upright axis."""

    LATENCY = "latency"
    FIDELITY = "fidelity"


def plot_tradeoff(pack: PackSummary, *, measure: Measure, key: str) -> Plot | None:
    """Plot variants by size and latency or fidelity; None with fewer than two to compare."""
    by_latency = measure is Measure.LATENCY
    rows = [
        row
        for row in pack.variants
        if row.num_bytes is not None and (row.median_ns if by_latency else row.sqnr_db) is not None
    ]
    if len(rows) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    sizes, size_unit = _sizes(rows)
    values, ends, axis_name = _latencies(rows) if by_latency else _fidelities(rows)
    with plot_style(key):
        figure, axes = new_axes(height_inches=3.6)
        axes.margins(x=0.16, y=0.18)
        if not by_latency and pack.min_sqnr_db is not None:
            axes.axhline(pack.min_sqnr_db, color=WARN, linewidth=1.2, linestyle=(0, (4, 3)))
            floor = f"floor {pack.min_sqnr_db:g} dB"
            anchor = (1.0, pack.min_sqnr_db)
            axes.annotate(
                floor,
                anchor,
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                xytext=(-2, 4),
                ha="right",
                color=WARN,
            )
        for row, x, y, end in zip(rows, sizes, values, ends, strict=True):
            _point(axes, row, at=(x, y), ends=end, chosen=pack.chosen)
        axes.set_xlabel(f"model size, {size_unit}")
        axes.set_ylabel(axis_name)
        axes.grid(visible=True, axis="both")
        if by_latency:
            axes.set_ylim(bottom=0)
        texts = [
            plot_label(
                row.recipe, longest=_LONGEST_LABEL, otherwise=f"row {pack.variants.index(row) + 1}"
            )
            for row in rows
        ]
        _label(figure, axes, list(zip(sizes, values, strict=True)), texts)
        svg = draw(figure, key=key)
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
    return Plot(svg=svg, caption=caption, description="; ".join(told) + ending)


def _sizes(rows: Sequence[VariantRow]) -> tuple[list[float], str]:
    largest = max(row.num_bytes or 0 for row in rows)
    unit = file_size(largest).split()[1]
    factor = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}[unit]
    return [(row.num_bytes or 0) / factor for row in rows], unit


def _latencies(rows: Sequence[VariantRow]) -> tuple[list[float], list[Ends], str]:
    unit, _ = duration_scale(max(row.median_ns or 0.0 for row in rows))
    factor = unit_factor(unit)
    values = [(row.median_ns or 0.0) / factor for row in rows]
    ends: list[Ends] = [
        (row.median_ci95_ns[0] / factor, row.median_ci95_ns[1] / factor)
        if row.median_ci95_ns
        else None
        for row in rows
    ]
    return values, ends, f"median latency, {unit}"


def _fidelities(rows: Sequence[VariantRow]) -> tuple[list[float], list[Ends], str]:
    """Give SQNRs; an exact one stands a little above the best of the others, and says so."""
    finite = [row.sqnr_db for row in rows if row.sqnr_db is not None and row.sqnr_db < EXACT_DB]
    top = max([*finite, 40.0]) * 1.15
    values = [min(max(row.sqnr_db or 0.0, _LOWEST_DB), top) for row in rows]
    return values, [None] * len(rows), "SQNR to float, dB"


def _point(
    axes: "Axes", row: VariantRow, *, at: tuple[float, float], ends: Ends, chosen: str
) -> None:
    state = standing(row, chosen=chosen)
    best = state in {Standing.CHOSEN, Standing.CHOSEN_OUTSIDE}
    color = ACCENT if best else MUTED
    if ends is not None:
        axes.plot([at[0], at[0]], ends, color=color, linewidth=1.6, zorder=3)
    # A ring is wider than a dot, so that it still shows around a variant at the same place.
    axes.plot(
        [at[0]],
        [at[1]],
        "o",
        markersize=(8.5 if best else 6.0) if row.within_budget else 11.0,
        markerfacecolor=color if row.within_budget else "none",
        markeredgecolor=color if row.within_budget else WARN,
        markeredgewidth=1.4,
        zorder=5 if best else 4,
    )


def _label(
    figure: "Figure", axes: "Axes", points: list[tuple[float, float]], texts: list[str]
) -> None:
    """Write each label where it covers no point and no other label."""
    # A first layout fixes the axes, so that pixels mean what they will in the picture.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    drawn = [axes.text(x, y, text) for (x, y), text in zip(points, texts, strict=True)]
    extents = [each.get_window_extent() for each in drawn]
    anchors = [tuple(axes.transData.transform(point)) for point in points]
    area = axes.get_window_extent()
    places = place_labels(
        [(float(x), float(y)) for x, y in anchors],
        [(float(each.width), float(each.height)) for each in extents],
        bounds=(area.x0, area.y0, area.x1, area.y1),
        gap=9.0,
    )
    for each, place in zip(drawn, places, strict=True):
        each.set_verticalalignment("bottom")
        x, y = axes.transData.inverted().transform(place)
        each.set_position((float(x), float(y)))


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    bounds: Box,
    gap: float,
) -> tuple[tuple[float, float], ...]:
    """Place a box of each size beside its anchor so that none covers another or an anchor.

    Tries eight sides at growing distance, the nearest first. Boxes that fit nowhere take the
    place that overlaps least. All values in pixels; bounds are (left, bottom, right, top).

    Returns:
        The lower left corner of each box.
    """
    half = gap / 2
    points = [(x - half, y - half, x + half, y + half) for x, y in anchors]
    placed: list[Box] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        best = (math.inf, (x, y, x, y))
        for distance in (gap, 2 * gap, 4 * gap, 7 * gap):
            for box in _sides(x, y, width, height, distance):
                cost = sum(_overlap(box, other) for other in (*placed, *points)) + 10 * _outside(
                    box, bounds
                )
                if cost < best[0]:
                    best = (cost, box)
            if best[0] == 0:
                break
        placed.append(best[1])
    return tuple((left, bottom) for left, bottom, _, _ in placed)


def _sides(x: float, y: float, width: float, height: float, distance: float) -> tuple[Box, ...]:
    corners = (
        (x + distance, y - height / 2),
        (x - distance - width, y - height / 2),
        (x - width / 2, y + distance),
        (x - width / 2, y - distance - height),
        (x + distance * 0.7, y + distance * 0.7),
        (x + distance * 0.7, y - distance * 0.7 - height),
        (x - distance * 0.7 - width, y + distance * 0.7),
        (x - distance * 0.7 - width, y - distance * 0.7 - height),
    )
    return tuple((left, bottom, left + width, bottom + height) for left, bottom in corners)


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _outside(box: Box, bounds: Box) -> float:
    inside = _overlap(box, bounds)
    return (box[2] - box[0]) * (box[3] - box[1]) - inside
