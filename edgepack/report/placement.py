"""Labels placed beside their points so that none covers another, a point or a line."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from edgepack.report.svg import FONT_SIZE, Point, text, text_width

if TYPE_CHECKING:
    from edgepack.report.svg import Anchor

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in a picture's units; down is more."""

_DISTANCES: Final = (1.0, 2.0, 4.0, 7.0)
_OUTSIDE_COST: Final = 10.0
_GAP: Final = 9.5
_LINE: Final = 1.25 * FONT_SIZE


def draw_labels(
    labels: Sequence[tuple[Point, str]], *, bounds: Box, obstacles: Sequence[Box] = ()
) -> list[str]:
    """Write each label beside its point, clear of obstacles where there is room."""
    anchors = [at for at, _ in labels]
    sizes = [(text_width(label), _LINE) for _, label in labels]
    places = place_labels(anchors, sizes, bounds=bounds, gap=_GAP, obstacles=obstacles)
    parts = []
    for (at, label), (left, top), (width, height) in zip(labels, places, sizes, strict=True):
        # In a narrower font than estimated, a label keeps near the point it names.
        anchor: Anchor = "middle"
        x = left + width / 2
        if left >= at[0]:
            anchor, x = "start", left
        elif left + width <= at[0]:
            anchor, x = "end", left + width
        parts.append(text((x, top + height / 2), label, anchor=anchor))
    return parts


def place_labels(
    anchors: Sequence[Point],
    sizes: Sequence[tuple[float, float]],
    *,
    bounds: Box,
    gap: float,
    obstacles: Sequence[Box] = (),
) -> tuple[Point, ...]:
    """Place a box of each size beside its anchor so that none covers another or an anchor.

    Tries eight sides at growing distance, the nearest first. Boxes that fit nowhere take the
    place that overlaps least.

    Returns:
        The upper left corner of each box.
    """
    half = gap / 2
    points = [(x - half, y - half, x + half, y + half) for x, y in anchors]
    placed: list[Box] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        best = (math.inf, (x, y, x, y))
        for distance in _DISTANCES:
            for box in _sides(x, y, width, height, distance * gap):
                covered = sum(_overlap(box, other) for other in (*placed, *points, *obstacles))
                cost = covered + _OUTSIDE_COST * _outside(box, bounds)
                if cost < best[0]:
                    best = (cost, box)
            if best[0] == 0:
                break
        placed.append(best[1])
    return tuple((left, top) for left, top, _, _ in placed)


def line_boxes(points: Sequence[Point], *, half_width: float) -> tuple[Box, ...]:
    """Give boxes that cover a line through points."""
    return tuple(
        (
            min(one[0], other[0]) - half_width,
            min(one[1], other[1]) - half_width,
            max(one[0], other[0]) + half_width,
            max(one[1], other[1]) + half_width,
        )
        for one, other in pairwise(points)
    )


def _sides(x: float, y: float, width: float, height: float, distance: float) -> tuple[Box, ...]:
    near = 0.7 * distance
    corners = (
        (x + distance, y - height / 2),
        (x - distance - width, y - height / 2),
        (x - width / 2, y - distance - height),
        (x - width / 2, y + distance),
        (x + near, y - near - height),
        (x + near, y + near),
        (x - near - width, y - near - height),
        (x - near - width, y + near),
    )
    return tuple((left, top, left + width, top + height) for left, top in corners)


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _outside(box: Box, bounds: Box) -> float:
    inside = _overlap(box, bounds)
    return (box[2] - box[0]) * (box[3] - box[1]) - inside
