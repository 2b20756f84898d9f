from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.report.placement import line_boxes, place_labels

coordinate = st.floats(0, 400)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_labels_never_cover_each_other_while_there_is_room(
    anchors: list[tuple[float, float]],
) -> None:
    sizes = [(60.0, 12.0)] * len(anchors)
    places = place_labels(anchors, sizes, bounds=(-200, -200, 600, 600), gap=9.0)
    boxes = [(x, y, x + 60.0, y + 12.0) for x, y in places]
    for index, one in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart = (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )
            assert apart


def test_a_label_keeps_off_a_line() -> None:
    boxes = line_boxes(((0, 50), (100, 50)), half_width=1)
    anchors = ((50.0, 50.0),)
    ((_, top),) = place_labels(
        anchors, ((40.0, 12.0),), bounds=(0, 0, 100, 100), gap=8.0, obstacles=boxes
    )
    assert top + 12 <= 49 or top >= 51


def test_a_label_stays_inside_at_the_edge() -> None:
    ((left, _),) = place_labels(((98.0, 50.0),), ((40.0, 12.0),), bounds=(0, 0, 100, 100), gap=8.0)
    assert left + 40 <= 98
