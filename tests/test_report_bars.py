"""Bars, drawn and written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.report.bars import Bar, character_bar, plot_bars


def _bar(name: str, length: float, strong: float = 0.0) -> Bar:
    return Bar(name=name, length=length, strong=strong, value="12.5 dB", title=f"about {name}")


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0.0, ""), (1e-6, "▏"), (0.5, "██"), (0.53125, "██▏"), (1.0, "████"), (7.0, "████")],
)
def test_characters_are_as_long_as_the_value(length: float, expected: str) -> None:
    assert character_bar(length, width=4) == expected


@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_a_longer_value_has_no_shorter_bar(first: float, second: float) -> None:
    lower, higher = sorted((first, second))
    assert len(character_bar(lower, width=9)) <= len(character_bar(higher, width=9))


def test_the_picture_shows_every_name_value_and_title_as_text() -> None:
    names = ["conv", "<script>", "a" * 90]
    plot = plot_bars(
        [_bar(name, 1 / (place + 1)) for place, name in enumerate(names)],
        caption="c",
        description="d",
    )
    assert plot is not None
    shown = re.findall(r"<text [^>]*>([^<]*)</text>", plot.svg)
    assert shown[0] == "conv"
    assert shown[2] == "&lt;script&gt;"
    assert shown.count("12.5 dB") == 3
    assert "about &lt;script&gt;" in plot.svg
    # A long name loses its middle, so that room is left for its bar.
    assert len(shown[4]) < 30


def test_bars_are_proportional_and_stay_in_the_picture() -> None:
    plot = plot_bars([_bar("a", 1.0, 0.5), _bar("b", 0.25)], caption="c", description="d")
    assert plot is not None
    widths = [float(each) for each in re.findall(r'<rect [^>]*width="([\d.]+)"', plot.svg)]
    assert widths[1] == pytest.approx(widths[0] / 2, abs=0.02)
    assert widths[2] == pytest.approx(widths[0] / 4, abs=0.02)
    lefts = [float(each) for each in re.findall(r'<rect x="([\d.]+)"', plot.svg)]
    assert max(lefts) + max(widths) < 440


def test_no_bars_make_no_picture() -> None:
    assert plot_bars([], caption="c", description="d") is None
