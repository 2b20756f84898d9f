"""What a variant keeps and loses: each drop with its interval, in the table, the page and below."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from edgepack.report.html import render_page
from edgepack.report.losses import drop_metric, drop_points, loss_rows
from edgepack.report.summary import DeployReport, MetricFigures, PackSummary, VariantRow
from edgepack.report.terminal import render_pack, render_text
from tests.fixtures.report import pack

_NAMES = [
    *("SQNR", "worst channel", "agreement", "accuracy", "accuracy lost", "judged on"),
]


def _change(packed: PackSummary, change: Callable[[VariantRow], VariantRow]) -> PackSummary:
    rows = tuple(change(row) if row.recipe == packed.chosen else row for row in packed.variants)
    return replace(packed, variants=rows)


def _labeled() -> PackSummary:
    """Give a pack judged by labels, whose chosen variant lost some accuracy."""
    packed = _change(
        replace(pack(), max_drop_points=2.0, min_sqnr_db=None, min_agreement=None),
        lambda row: replace(
            row,
            sqnr_ci95_db=(33.1, 35.3),
            worst_channel_sqnr_db=26.74,
            worst_channel="channel 3 of axis 1 of output 'probabilities'",
            accuracy=0.9612,
            accuracy_ci95=(0.9489, 0.9712),
            drop_points=1.36,
            drop_points_ci95=(-0.21, 2.68),
        ),
    )
    return replace(packed, reference_accuracy=0.9748)


def _measured() -> PackSummary:
    """Give a pack judged by the user's own metric."""
    figures = MetricFigures(value=0.9123, drop=0.0077, drop_ci95=(0.0021, 0.0133))
    packed = _change(pack(), lambda row: replace(row, metric=figures))
    return replace(
        packed,
        metric="score.py:f1",
        reference_metric=0.92,
        max_drop_points=0.01,
        min_sqnr_db=None,
        min_agreement=None,
    )


def _lines(packed: PackSummary) -> list[str]:
    return render_text(render_pack(packed), width=80).splitlines()


def _chosen(packed: PackSummary) -> VariantRow:
    return next(row for row in packed.variants if row.recipe == packed.chosen)


def test_every_figure_of_the_chosen_one_has_its_interval() -> None:
    packed = _labeled()
    rows = loss_rows(_chosen(packed), packed)
    assert rows == (
        ("SQNR", "34.2 dB", "95%: 33.1–35.3"),  # noqa: RUF001 - a range's dash
        ("worst channel", "26.7 dB", "channel 3 of axis 1 of output 'probabilities'"),
        ("agreement", "99.6%", "95%: 98.9–99.8%"),  # noqa: RUF001 - as above
        ("accuracy", "96.1%", "95%: 94.9–97.1%, float 97.5%"),  # noqa: RUF001 - as above
        ("accuracy lost", "1.4 points", "95%: -0.2 to 2.7, at most 2"),
        ("judged on", "898 samples", ""),
    )


def test_the_terminal_shows_them_below_the_chosen_one_at_80_columns() -> None:
    lines = _lines(_labeled())
    assert max(map(len, lines)) <= 80
    start = next(i for i, line in enumerate(lines) if line.startswith("  chosen: "))
    shown = lines[start + 1 : start + 7]
    assert [re.split(r"\s{2,}", line.strip())[0] for line in shown] == _NAMES
    assert shown[4] == "  accuracy lost   1.4 points  95%: -0.2 to 2.7, at most 2"


def test_the_users_metric_is_shown_with_what_was_lost() -> None:
    packed = _measured()
    text = "\n".join(_lines(packed))
    assert re.search(r"recipe +size +packed +SQNR +metric", text)
    assert re.search(r"int8 .* 0\.9123 .* chosen", text)
    rows = {name: (value, remark) for name, value, remark in loss_rows(_chosen(packed), packed)}
    assert rows["metric"] == ("0.9123", "score.py:f1, float 0.92")
    assert rows["metric lost"] == ("0.0077", "95%: 0.0021–0.0133, at most 0.01")  # noqa: RUF001 - as above


def test_floors_stand_beside_what_they_are_about() -> None:
    packed = replace(pack(), min_sqnr_db=20.0, min_agreement=0.9)
    rows = {name: remark for name, _, remark in loss_rows(_chosen(packed), packed)}
    assert rows["SQNR"] == "at least 20 dB"
    assert rows["agreement"].endswith(", at least 90%")


@pytest.mark.parametrize(
    ("drop", "interval", "words"),
    [
        (None, None, ("", "")),
        (1.0, None, ("1.0 points lost", "")),
        (-0.02, (-0.04, 1.2), ("0.0 points lost", "0.0 to 1.2")),
        (-1.5, (-3.0, 0.1), ("-1.5 points lost", "-3.0 to 0.1")),
    ],
)
def test_points_lost(
    drop: float | None, interval: tuple[float, float] | None, words: tuple[str, str]
) -> None:
    row = VariantRow(recipe="int8", drop_points=drop, drop_points_ci95=interval)
    assert drop_points(row) == words


def test_a_metric_without_an_interval_says_so() -> None:
    figures = MetricFigures(value=0.9, drop=0.02)
    row = replace(_chosen(pack()), metric=figures)
    assert drop_metric(row) == ("0.02 lost", "")
    rows = {name: remark for name, _, remark in loss_rows(row, replace(pack(), metric="m:f"))}
    assert rows["metric lost"] == "no interval"


def test_a_variant_that_was_not_built_has_no_figures() -> None:
    assert loss_rows(VariantRow(recipe="int8", skipped_reason="no data"), pack()) == ()


def test_the_page_has_every_drop_with_its_interval() -> None:
    page = render_page(DeployReport(title="t", pack=_labeled()))
    assert (
        '96.1%<span class="interval">94.9–97.1%</span>'  # noqa: RUF001 - as above
        '<span class="interval">1.4 points lost</span>'
        '<span class="interval">-0.2 to 2.7</span>'
    ) in page
    assert "below each accuracy, its interval, and what is lost against float with its own" in page
    page = render_page(DeployReport(title="t", pack=_measured()))
    assert (
        '0.9123<span class="interval">0.0077 lost</span><span class="interval">0.0021–0.0133</span>'  # noqa: RUF001 - as above
    ) in page


def test_what_passes_did_and_why_no_sparse_kernel_is_used_is_printed() -> None:
    reasons = ("3 computed densely by XNNPACK: it computes with int8, not float32",)
    packed = _change(
        pack(),
        lambda row: replace(
            row, done=("fusion: 3 constants folded",), zero_share=0.7, storage=reasons
        ),
    )
    text = " ".join(render_text(render_pack(packed), width=80).split())
    assert (
        "- fusion: 3 constants folded - 70.0% of the weights are zero - 3 computed densely by"
        in (text)
    )
    page = render_page(DeployReport(title="t", pack=packed))
    assert "fusion: 3 constants folded" in page
    assert reasons[0] in page
