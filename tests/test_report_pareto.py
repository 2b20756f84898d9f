from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from edgepack.report.html import render_page
from edgepack.report.merits import Cost, Worth
from edgepack.report.pareto import plot_pareto
from edgepack.report.summary import DeployReport, MetricFigures
from edgepack.report.svg import FONT_SIZE, text_width
from tests.fixtures.report import HOSTILE, pack, search_pack

if TYPE_CHECKING:
    from pathlib import Path

    from edgepack.report.summary import PackSummary
    from tests.fixtures.browser import Browser

SVG = "{http://www.w3.org/2000/svg}"
PANELS = [(cost, worth) for cost in Cost for worth in Worth]


def draw(packed: PackSummary, cost: Cost = Cost.LATENCY, worth: Worth = Worth.SQNR) -> ET.Element:
    plot = plot_pareto(packed, cost=cost, worth=worth)
    assert plot is not None
    return ET.fromstring(plot.svg)  # noqa: S314 - our own figure


def texts(picture: ET.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{SVG}text")]


def titles(picture: ET.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{SVG}title")]


def style_of(picture: ET.Element, recipe: str) -> list[str]:
    """Give the styles of the circles that mark a candidate."""
    for group in picture.iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        if title is not None and (title.text or "").split("\n")[0].endswith(f" {recipe}"):
            return [each.get("style", "") for each in group.iter(f"{SVG}circle")]
    raise AssertionError(recipe)


def test_shapes_tell_what_colors_tell() -> None:
    picture = draw(search_pack())
    chosen = style_of(picture, search_pack().chosen)
    assert len(chosen) == 2  # a ring around a dot
    assert chosen[0].startswith("fill:none")
    assert style_of(picture, "float32") == ["fill:var(--accent)"]
    (outside,) = style_of(picture, "dynamic_range")
    assert outside.startswith("fill:none;stroke:var(--warn)")
    sizes = {
        each.get("r")
        for group in picture.iter(f"{SVG}g")
        for each in group.iter(f"{SVG}circle")
        if each.get("style") == "fill:var(--muted)"
    }
    assert sizes == {"2.8"}


def test_every_candidate_with_figures_is_drawn_and_tells_them_to_the_pointer() -> None:
    picture = draw(search_pack())
    assert len(titles(picture)) == 40
    (title,) = [each for each in titles(picture) if "float16" in each]
    assert title == ("4. float16\nfloat16\n8.65 ms\n9.36 MB\n71.0 dB\nagreement >99.9%")


def test_few_candidates_have_their_names() -> None:
    shown = texts(draw(pack(), Cost.SIZE))
    assert {"1. int8", "2. dynamic_range", "3. float32", "4. float16"} <= set(shown)
    assert "5. int8+prune0.5" in shown
    assert "floor 20 dB" in shown


def test_floors_are_lines() -> None:
    assert "floor 20 dB" in texts(draw(search_pack()))
    assert "floor 88%" in texts(draw(search_pack(), worth=Worth.ANSWERS))
    labeled = replace(
        pack(),
        variants=tuple(replace(e, accuracy=e.top1_agreement) for e in pack().variants),
        min_sqnr_db=None,
        min_agreement=None,
        max_drop_points=1.5,
        reference_accuracy=0.99,
    )
    assert "floor 97.5%" in texts(draw(labeled, worth=Worth.ANSWERS))
    assert "accuracy, %" in texts(draw(labeled, worth=Worth.ANSWERS))
    assert not [each for each in texts(draw(labeled)) if "floor" in each]


def test_the_users_own_metric_stands_before_agreement() -> None:
    packed = replace(
        search_pack(),
        min_sqnr_db=None,
        min_agreement=None,
        max_drop_points=0.02,
        metric="score.py:mean_iou",
        reference_metric=0.71,
        variants=tuple(
            replace(
                each,
                metric=MetricFigures(
                    value=0.71 * (each.top1_agreement or 0.0), drop=0.01, drop_ci95=(-0.004, 0.02)
                ),
            )
            for each in search_pack().variants
            if each.skipped_reason is None
        ),
    )
    picture = draw(packed, worth=Worth.ANSWERS)
    assert "metric score.py:mean_iou" in texts(picture)
    assert "floor 0.69" in texts(picture)
    plot = plot_pareto(packed, cost=Cost.SIZE, worth=Worth.ANSWERS)
    assert plot is not None
    assert "float32: 18.6 MB, 0.71" in plot.description
    page = render_page(DeployReport(title="m", pack=packed))
    assert "at most 0.02 of the metric lost" in page
    assert "the metric is score.py:mean_iou, and below it what is lost" in page
    assert "0.01 lost" in page
    assert "-0.004 to 0.02" in page


def test_what_lies_far_off_squeezes_nothing() -> None:
    picture = draw(search_pack())
    shown = texts(picture)
    assert "> 14" in shown  # the 189 ms of int16x8
    assert [each for each in shown if each.startswith("> 2")]  # float16's 71 dB and exact
    plot = plot_pareto(search_pack(), cost=Cost.LATENCY, worth=Worth.SQNR)
    assert plot is not None
    assert "Beyond a thin dashed line the axis is cut." in plot.caption
    assert "40. int16x8: 189 ms, 17.0 dB" in plot.description
    assert "1. " in plot.description.split(";")[0]
    assert plot.description.split(";")[0].endswith("(chosen)")


def _boxes(picture: ET.Element) -> list[tuple[str, tuple[float, float, float, float]]]:
    boxes = []
    for each in picture.iter(f"{SVG}text"):
        x, y = float(each.get("x", "")), float(each.get("y", ""))
        width = text_width(each.text or "")
        style = each.get("style", "")
        left = x - width if "end" in style else x - width / 2 if "middle" in style else x
        boxes.append((each.text or "", (left, y - 0.8 * FONT_SIZE, left + width, y)))
    return boxes


def overlaps(
    boxes: list[tuple[str, tuple[float, float, float, float]]],
) -> list[tuple[str, str]]:
    return [
        (name, other_name)
        for index, (name, one) in enumerate(boxes)
        for other_name, other in boxes[index + 1 :]
        if min(one[2], other[2]) - max(one[0], other[0]) > 0.01
        and min(one[3], other[3]) - max(one[1], other[1]) > 0.01
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_candidates", [2, 8, 40, 120])
@pytest.mark.parametrize(("cost", "worth"), PANELS)
def test_labels_never_overlap(cost: Cost, worth: Worth, num_candidates: int, seed: int) -> None:
    picture = draw(search_pack(num_candidates=num_candidates, seed=seed), cost, worth)
    boxes = _boxes(picture)
    assert overlaps(boxes) == []
    assert all(box[0] >= -0.5 and box[2] <= 440.5 for _, box in boxes)


@pytest.mark.parametrize("seed", range(6))
def test_the_chosen_one_is_always_labeled(seed: int) -> None:
    for cost, worth in PANELS:
        shown = texts(draw(search_pack(num_candidates=60, seed=seed), cost, worth))
        assert [each for each in shown if each == "1" or each.startswith("1. ")]


def test_candidates_that_are_all_good_are_told_apart() -> None:
    # Float32, float16 and two integer schemes of a small network, and one at the floor's edge.
    figures = (
        ("float32", 158_000, (7_230.0, 10_490.0), 300.0),
        ("float16", 82_500, (9_900.0, 10_900.0), 72.3),
        ("int8+refined", 47_800, (8_300.0, 12_200.0), 40.8),
        ("dynamic_range+refined", 45_300, (9_200.0, 15_200.0), 45.2),
        ("float32+structured0.1", 132_000, (7_560.0, 7_930.0), 19.98),
    )
    packed = replace(
        pack(chosen="float32"),
        variants=tuple(
            replace(
                pack().variants[0],
                recipe=recipe,
                num_bytes=num_bytes,
                median_ns=sum(ends) / 2,
                median_ci95_ns=ends,
                sqnr_db=sqnr_db,
                top1_agreement=0.99,
                within_budget=sqnr_db > 20,
            )
            for recipe, num_bytes, ends, sqnr_db in figures
        ),
    )
    for cost in Cost:
        shown = texts(draw(packed, cost))
        assert "40" in shown  # a tick: the axis reaches to the good ones
        assert "1. float32" in shown
        for number in "1234":
            assert [each for each in shown if each.startswith(f"{number}.") or each == number]
    assert overlaps(_boxes(draw(packed))) == []


def test_hostile_names_fall_back_to_their_numbers() -> None:
    rows = list(pack().variants)
    rows[3] = replace(rows[3], recipe=HOSTILE, passes=HOSTILE)
    rows[1] = replace(rows[1], recipe="שלום")
    rows[2] = replace(rows[2], recipe="$\\frac{")
    plot = plot_pareto(
        replace(pack(), variants=tuple(rows), chosen=HOSTILE), cost=Cost.SIZE, worth=Worth.SQNR
    )
    assert plot is not None
    shown = texts(ET.fromstring(plot.svg))  # noqa: S314 - our own figure
    assert "4" in shown
    assert "2. $\\frac{" in shown
    assert "<script" not in plot.svg
    assert "\x1b" not in plot.svg
    assert "\u202e" not in plot.svg


def test_nothing_to_compare_is_no_plot() -> None:
    one = replace(pack(), variants=pack().variants[:1])
    untimed = replace(pack(), variants=tuple(replace(e, median_ns=None) for e in pack().variants))
    for worth in Worth:
        assert plot_pareto(one, cost=Cost.SIZE, worth=worth) is None
        assert plot_pareto(untimed, cost=Cost.LATENCY, worth=worth) is None
        assert plot_pareto(untimed, cost=Cost.SIZE, worth=worth) is not None


def test_equal_candidates_and_none_inside_can_be_drawn() -> None:
    base = pack().variants[4]
    same = replace(pack(), variants=(base, replace(base, recipe="twin")), chosen="twin")
    zero = replace(
        same,
        variants=tuple(replace(each, median_ns=0.0, median_ci95_ns=None) for each in same.variants),
        min_sqnr_db=None,
        min_agreement=None,
    )
    for packed in (same, zero):
        for cost, worth in PANELS:
            plot = plot_pareto(packed, cost=cost, worth=worth)
            assert plot is not None
            assert "nan" not in plot.svg


def test_the_same_candidates_give_the_same_bytes() -> None:
    first = plot_pareto(search_pack(), cost=Cost.SIZE, worth=Worth.SQNR)
    assert first == plot_pareto(search_pack(), cost=Cost.SIZE, worth=Worth.SQNR)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1100])
def test_browser_draws_no_label_over_another(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_page(DeployReport(title="s", pack=search_pack())), encoding="utf-8")
    browser.open(path, width=width)
    pictures = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => [...s.querySelectorAll('text')]"
        ".map(e => {const b = e.getBBox(); "
        "return [e.textContent, b.x, b.y + 2, b.x + b.width, b.y + b.height - 2]}))"
    )
    assert isinstance(pictures, list)
    assert len(pictures) == 4
    for picture in pictures:
        assert overlaps([(name, tuple(box)) for name, *box in picture]) == []
