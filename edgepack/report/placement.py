"""Labels placed beside their points so that none covers another, a point or a line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from edgepack.report.svg import FONT_SIZE, INK, MUTED, Point, line, text, text_width

if TYPE_CHECKING:
    from edgepack.report.svg import Anchor

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in a picture's units; down is more."""

_DISTANCES: Final = (1.0, 2.0, 4.0, 7.0)
_NEAR: Final = (1.0, 1.5)
# Where a label that must stand somewhere is looked for, with a line that leads to it.
_FAR: Final = (2.2, 3.0, 4.0, 5.5, 7.0, 9.0, 11.0)
_LEADER_STEPS: Final = 10
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
    return [
        _beside(at, label, (left, top, left + width, top + height))
        for (at, label), (left, top), (width, height) in zip(labels, places, sizes, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What may stand beside a point.

    Attributes:
        at: the point.
        texts: what is tried, the best first.
        color: of the text.
        is_needed: whether it is led to by a line when there is no room beside the point.
    """

    at: Point
    texts: tuple[str, ...]
    color: str = INK
    is_needed: bool = False


def draw_fitting(
    labels: Sequence[Label], *, bounds: Box, obstacles: Sequence[Box] = ()
) -> list[str]:
    """Write the labels that fit; none covers another, a point or an obstacle.

    The first labels get the best places. Those for which there is no room are left out. A line
    that leads to a label may cross obstacles, which are lines themselves, and nothing else.
    """
    half = _GAP / 2
    anchors = [each.at for each in labels]
    points = [(x - half, y - half, x + half, y + half) for x, y in anchors]
    taken: list[Box] = list(points)
    texts: list[str] = []
    leaders: list[str] = []
    for label, own in zip(labels, points, strict=True):
        found = _find_place(
            label, own, taken=taken, obstacles=obstacles, anchors=anchors, bounds=bounds
        )
        if found is None:
            continue
        content, box, leader = found
        taken += [box, *line_boxes(leader, half_width=0.5)]
        if leader:
            leaders.append(line(leader[0], leader[-1], color=MUTED, width=0.8))
        texts.append(_beside(label.at, content, box, color=label.color))
    return [*leaders, *texts]


def _find_place(
    label: Label,
    own: Box,
    *,
    taken: Sequence[Box],
    obstacles: Sequence[Box],
    anchors: Sequence[Point],
    bounds: Box,
) -> tuple[str, Box, tuple[Point, ...]] | None:
    """Find room for a label: its text, its box and the line that leads there, if any."""
    x, y = label.at
    others = [box for box in taken if box != own]
    covered = (*taken, *obstacles)
    sizes = [(content, text_width(content)) for content in label.texts]
    for content, width in sizes:
        for distance in _NEAR:
            for box in _sides(x, y, width, _LINE, distance * _GAP):
                if _is_free(box, covered, bounds) and _is_nearest(label.at, box, anchors):
                    return content, box, ()
    for content, width in sizes if label.is_needed else ():
        for distance in _FAR:
            for box in _sides(x, y, width, _LINE, distance * _GAP):
                leader = _leader(label.at, box)
                steps = line_boxes(leader[1:], half_width=0.5)
                if _is_free(box, covered, bounds) and all(
                    _overlap(step, other) == 0 for step in steps for other in others
                ):
                    return content, box, leader
    return None


def _is_free(box: Box, taken: Sequence[Box], bounds: Box) -> bool:
    return _outside(box, bounds) <= 0 and all(_overlap(box, other) == 0 for other in taken)


def _is_nearest(at: Point, box: Box, anchors: Sequence[Point]) -> bool:
    """Tell whether a box is nearer to its own point than to any other, so that it names none."""
    own = _distance(at, box)
    return all(_distance(each, box) > own for each in anchors if each != at)


def _distance(at: Point, box: Box) -> float:
    return math.dist(at, _nearest_on(at, box))


def _nearest_on(at: Point, box: Box) -> Point:
    return min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3])


def _leader(start: Point, box: Box) -> tuple[Point, ...]:
    """Give the points of a straight line to the nearest place on a box."""
    end = _nearest_on(start, box)
    return tuple(
        (
            start[0] + (end[0] - start[0]) * step / _LEADER_STEPS,
            start[1] + (end[1] - start[1]) * step / _LEADER_STEPS,
        )
        for step in range(_LEADER_STEPS + 1)
    )


def _beside(at: Point, content: str, box: Box, *, color: str = INK) -> str:
    """Write a text in its box; in a narrower font than estimated it keeps near its point."""
    anchor: Anchor = "middle"
    x = (box[0] + box[2]) / 2
    if box[0] >= at[0]:
        anchor, x = "start", box[0]
    elif box[2] <= at[0]:
        anchor, x = "end", box[2]
    return text((x, (box[1] + box[3]) / 2), content, anchor=anchor, color=color)


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
