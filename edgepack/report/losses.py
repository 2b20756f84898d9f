"""What the chosen variant keeps and loses against float, row by row, and how it was made."""

from collections.abc import Iterator

from edgepack.report.labels import plain
from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.units import (
    ABSENT,
    DASH,
    count,
    decibel_ends,
    decibels,
    share,
    share_interval,
)

LossRow = tuple[str, str, str]
"""A figure's name, the figure, and its interval with what else belongs to it."""


def loss_rows(row: VariantRow, pack: PackSummary) -> tuple[LossRow, ...]:
    """Give each figure of a variant's fidelity with its 95% interval and its floor."""
    if row.sqnr_db is None:
        return ()
    rows = [*_sqnr_rows(row, pack)]
    if row.top1_agreement is not None:
        floor = "" if pack.min_agreement is None else f"at least {100 * pack.min_agreement:g}%"
        ends = row.top1_agreement_ci95
        spread = "" if ends is None else f"95%: {share_interval(ends)}"
        rows.append(("agreement", share(row.top1_agreement), _join(spread, floor)))
    rows += [*_accuracy_rows(row, pack), *_metric_rows(row, pack)]
    if pack.num_samples is not None:
        rows.append(("judged on", count(pack.num_samples, "sample"), ""))
    return tuple(rows)


def drop_points(row: VariantRow) -> tuple[str, str]:
    """Write the accuracy that a variant lost, in percentage points, and the interval's ends."""
    if row.drop_points is None:
        return "", ""
    ends = "" if row.drop_points_ci95 is None else _ends(row.drop_points_ci95, ".1f")
    return f"{_signless(row.drop_points, '.1f')} points lost", ends


def drop_metric(row: VariantRow) -> tuple[str, str]:
    """Write what a variant lost of the user's own metric, and the interval's ends."""
    if row.metric is None or row.metric.drop is None:
        return "", ""
    ends = "" if row.metric.drop_ci95 is None else _ends(row.metric.drop_ci95, ".3g")
    return f"{_signless(row.metric.drop, '.3g')} lost", ends


def account(row: VariantRow) -> tuple[str, ...]:
    """Give what the passes did to a variant, and what its zeros are worth where it has some."""
    zeros = () if row.zero_share is None else (f"{share(row.zero_share)} of the weights are zero",)
    return (*row.done, *zeros, *row.storage)


def _sqnr_rows(row: VariantRow, pack: PackSummary) -> Iterator[LossRow]:
    if row.sqnr_db is None:
        return
    floor = "" if pack.min_sqnr_db is None else f"at least {pack.min_sqnr_db:g} dB"
    spread = "" if row.sqnr_ci95_db is None else f"95%: {decibel_ends(row.sqnr_ci95_db)}"
    yield "SQNR", decibels(row.sqnr_db), _join(spread, floor)
    if row.worst_channel_sqnr_db is not None:
        worst = plain(row.worst_channel, longest=80)
        yield "worst channel", decibels(row.worst_channel_sqnr_db), worst


def _accuracy_rows(row: VariantRow, pack: PackSummary) -> Iterator[LossRow]:
    if row.accuracy is None:
        return
    spread = "" if row.accuracy_ci95 is None else f"95%: {share_interval(row.accuracy_ci95)}"
    reference = pack.reference_accuracy
    beside = "" if reference is None else f"float {share(reference)}"
    yield "accuracy", share(row.accuracy), _join(spread, beside)
    lost, ends = drop_points(row)
    if lost:
        yield "accuracy lost", lost.removesuffix(" lost"), _drop_remark(ends, pack)


def _metric_rows(row: VariantRow, pack: PackSummary) -> Iterator[LossRow]:
    if row.metric is None:
        return
    value = ABSENT if row.metric.value is None else f"{row.metric.value:.4g}"
    reference = pack.reference_metric
    name = plain(pack.metric or "", longest=80)
    yield "metric", value, _join(name, "" if reference is None else f"float {reference:.4g}")
    lost, ends = drop_metric(row)
    if lost:
        yield "metric lost", lost.removesuffix(" lost"), _drop_remark(ends, pack)


def _drop_remark(ends: str, pack: PackSummary) -> str:
    limit = pack.max_drop_points
    return _join(
        f"95%: {ends}" if ends else "no interval", "" if limit is None else f"at most {limit:g}"
    )


def _ends(interval: tuple[float, float], form: str) -> str:
    # A dash would stand beside the minus of what was gained.
    low, high = (_signless(each, form) for each in interval)
    return f"{low} to {high}" if interval[0] < 0 else f"{low}{DASH}{high}"


def _signless(value: float, form: str) -> str:
    """Write a number without the sign of a zero that was rounded."""
    text = f"{value:{form}}"
    return text.removeprefix("-") if float(text) == 0 else text


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
