"""What each layer costs, on the terminal and as a page."""

from edgepack.optimize.ranking.layer_costs import Precision
from edgepack.report.sensitivity import (
    WORDS,
    rank_shown,
    render_sensitivity,
    sensitivity_page,
)
from edgepack.report.terminal import render_text
from tests.fixtures.sensitivity import layer_cost, made_up

MANY = made_up(*(layer_cost(f"conv_{i}", output_db=50.0 - i) for i in range(30)))


def test_the_worst_come_first_and_the_rest_is_summed() -> None:
    ranked = rank_shown(MANY, Precision.INT8)
    assert [each.layer for each in ranked.shown[:2]] == ["conv_29", "conv_28"]
    assert (len(ranked.shown), len(ranked.others)) == (20, 10)
    lines = render_text(render_sensitivity(MANY, Precision.INT8)).splitlines()
    first = next(line for line in lines if "conv_29" in line)
    assert "21.0 dB" in first
    rest = next(line for line in lines if "10 others together" in line)
    # 41 to 50 dB: their energies add up to that of one at 34.6 dB.
    assert "34.6 dB" in rest
    assert "1,000" in rest


def test_the_worst_bar_is_the_longest() -> None:
    lines = render_text(render_sensitivity(MANY, Precision.INT8)).splitlines()
    lengths = [line.count("█") for line in lines if "conv_" in line]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_what_it_took_is_said() -> None:
    text = " ".join(render_text(render_sensitivity(MANY, Precision.INT8)).split())
    assert "8 samples; took 2.5 runs of the model over them, one layer at a time takes 30" in text


def test_names_from_outside_are_harmless() -> None:
    found = made_up(
        *(layer_cost("<b>\x1b[31m", output_db=10.0, scheme=precision) for precision in Precision)
    )
    page = sensitivity_page(found, name="<i>model", tool_version="1")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "\x1b" not in page
    assert "\x1b" not in render_text(render_sensitivity(found, Precision.INT8))


def test_the_page_has_every_precision_and_no_script() -> None:
    found = made_up(
        *(layer_cost("conv", output_db=10.0, scheme=precision) for precision in Precision)
    )
    page = sensitivity_page(found, name="model.tflite", tool_version="1.2")
    assert list(WORDS) == [
        Precision.INT8,
        Precision.WEIGHT_ONLY_INT8,
        Precision.WEIGHT_ONLY_INT4,
        Precision.FLOAT16,
    ]
    for words in WORDS.values():
        assert f"<h2>{words}</h2>" in page
    assert page.count("<svg") == 4
    assert "default-src 'none'" in page
    assert "<script" not in page
