from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgepack.report.axes import Axis, draw_frame, lay_out, linear_axis, log_axis, round_ticks
from edgepack.report.svg import WIDTH


def test_ticks_are_round() -> None:
    assert round_ticks(0.0, 1.0, num_ticks=5) == (
        *((0.0, "0.0"), (0.2, "0.2"), (0.4, "0.4"), (0.6, "0.6"), (0.8, "0.8"), (1.0, "1.0")),
    )
    assert [text for _, text in round_ticks(1.232, 1.261, num_ticks=6)] == [
        *("1.235", "1.240", "1.245", "1.250", "1.255", "1.260"),
    ]
    assert [text for _, text in round_ticks(800, 4200, num_ticks=6)] == [
        *("1,000", "2,000", "3,000", "4,000"),
    ]


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(5, 10))
def test_ticks_lie_inside_and_are_told_apart(low: float, width: float, num_ticks: int) -> None:
    high = low + width
    ticks = round_ticks(low, high, num_ticks=num_ticks)
    assert 2 <= len(ticks) <= num_ticks + 1
    assert all(low - 1e-6 * width <= value <= high + 1e-6 * width for value, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)
    assert [float(text.replace(",", "")) for _, text in ticks] == pytest.approx(
        [value for value, _ in ticks], abs=1e-9
    )


@pytest.mark.parametrize("value", [0.0, 1.25, 1e12, -3.0])
def test_a_range_of_one_value_has_an_axis_around_it(value: float) -> None:
    axis = linear_axis(value, value, name="latency, ms")
    assert axis.low < value < axis.high
    assert len(axis.ticks) >= 2


def test_a_logarithmic_axis_has_its_factors_evenly_apart() -> None:
    axis = log_axis(0.08, 40.0, name="ms")
    assert [text for _, text in axis.ticks] == [
        *("0.1", "0.2", "0.5", "1", "2", "5", "10", "20"),
    ]
    assert axis.share(10) - axis.share(1) == pytest.approx(axis.share(1) - axis.share(0.1))
    wide = log_axis(0.5, 50_000.0, name="ms")
    assert [text for _, text in wide.ticks] == ["1", "10", "100", "1,000", "10,000"]


def test_rows_may_count_downward() -> None:
    rows = Axis(low=3.5, high=0.5, ticks=((1.0, "1"), (2.0, "2"), (3.0, "3")))
    frame = lay_out(linear_axis(0, 1, name="ms"), rows, height=200)
    assert frame.top < frame.y(1) < frame.y(2) < frame.y(3) < frame.bottom


@given(st.floats(0, 1e6), st.floats(1e-5, 1e7))
def test_frames_lie_inside_the_picture_and_their_texts_apart(low: float, width: float) -> None:
    assume(width > 1e-6 * low)
    across = linear_axis(low, low + width, name="latency, ms")
    frame = lay_out(across, linear_axis(low, low + width, name="dB"), height=236)
    assert 0 < frame.left < frame.right < WIDTH
    assert 0 < frame.top < frame.bottom < 236
    places = [frame.x(value) for value, _ in frame.across.ticks]
    assert places == sorted(places)
    assert len(places) >= 1
    svg = "".join(draw_frame(frame))
    assert "latency, ms" in svg
    assert "nan" not in svg
