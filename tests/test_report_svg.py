from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.report.svg import FONT_SIZE, picture, plot_label, polyline, text, text_width
from tests.fixtures.report import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.browser import Browser


@given(st.text(max_size=60))
def test_any_label_is_well_formed_and_comes_back(name: str) -> None:
    label = plot_label(name, longest=24, otherwise="row 1")
    assert len(label) <= 24
    root = ET.fromstring(picture([text((10, 10), label)], height=100))  # noqa: S314 - our own figure
    assert root[0].text == label


def test_markup_in_a_label_is_shown_and_not_obeyed() -> None:
    svg = picture([text((0, 0), plot_label(HOSTILE, longest=24, otherwise=""))], height=10)
    assert "<script" not in svg
    assert "&lt;script" in svg


@pytest.mark.parametrize("name", ["שלום", "مرحبا int8", "", "   "])
def test_a_label_that_would_turn_around_or_is_empty_has_a_stand_in(name: str) -> None:
    assert plot_label(name, longest=24, otherwise="row 3") == "row 3"


def test_numbers_are_short_and_never_negative_zero() -> None:
    svg = polyline([(-0.001, 1 / 3), (-0.002, 1 / 3), (12.0, 100.0)], color="none", width=1)
    assert 'd="M0 0.33L12 100"' in svg


@pytest.mark.browser
def test_texts_are_no_wider_than_estimated(browser: Browser, tmp_path: Path) -> None:
    samples = [
        *("int8+prune0.5", "dynamic_range", "float32", "p99 17.8 µs", "floor 20 dB", "WWWW@@%"),
        *("".join(map(chr, range(33 + i, min(33 + i + 12, 127)))) for i in range(0, 94, 12)),
        *("模型一号", "modèle_été", "Ω-модель", "🚀 fast"),
    ]
    style = f"font-size:{FONT_SIZE}px"
    page = tmp_path / "texts.html"
    page.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><div style="font-family:DejaVu Sans;{style}">'
        + picture([text((0, 20), each) for each in samples], height=40),
        encoding="utf-8",
    )
    browser.open(page)
    widths = browser.evaluate(
        "[...document.querySelectorAll('text')].map(e => e.getComputedTextLength())"
    )
    assert isinstance(widths, list)
    for sample, width in zip(samples, widths, strict=True):
        assert 0 < width <= text_width(sample) + 0.5, sample
        assert text_width(sample) < 1.7 * width + FONT_SIZE, sample
