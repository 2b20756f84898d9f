"""What a candidate costs and what it keeps of the float model, as numbers that can be drawn."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.svg import plot_label

_LONGEST_NAME: Final = 24


class Cost(StrEnum):
    """What stands across: less is better."""

    LATENCY = "latency"
    SIZE = "size"


class Worth(StrEnum):
    """What stands upward: more is better."""

    SQNR = "sqnr"
    ANSWERS = "answers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """By what answers are judged: the user's own metric, else labels, else the float model.

    Attributes:
        name: what an axis of them is called.
        floor: least value inside the floors; None without one.
        is_percent: whether values are shares in percent.
    """

    name: str
    floor: float | None
    is_percent: bool


def judge_answers(pack: PackSummary) -> Answers:
    """Tell by what answers are judged."""
    lost = pack.max_drop_points
    if pack.metric is not None:
        name = f"metric {plot_label(pack.metric, longest=_LONGEST_NAME, otherwise='')}"
        reference = pack.reference_metric
        floor = None if lost is None or reference is None else reference - lost
        return Answers(name=name, floor=floor, is_percent=False)
    if any(row.accuracy is not None for row in pack.variants):
        accuracy = pack.reference_accuracy
        floor = None if lost is None or accuracy is None else 100 * accuracy - lost
        return Answers(name="accuracy, %", floor=floor, is_percent=True)
    floor = None if pack.min_agreement is None else 100 * pack.min_agreement
    return Answers(name="top-1 agreement with float, %", floor=floor, is_percent=True)


def cost_of(row: VariantRow, cost: Cost) -> float | None:
    """Give the median latency in ns, or the size in bytes."""
    return row.median_ns if cost is Cost.LATENCY else row.num_bytes


def worth_of(row: VariantRow, worth: Worth, pack: PackSummary) -> float | None:
    """Give SQNR in dB, the metric's value, or right or agreeing answers in percent."""
    if worth is Worth.SQNR:
        return row.sqnr_db
    if pack.metric is not None:
        return None if row.metric is None else row.metric.value
    value = row.top1_agreement if row.accuracy is None else row.accuracy
    return None if value is None else 100 * value


def worth_ends(row: VariantRow, worth: Worth, pack: PackSummary) -> tuple[float, float] | None:
    """Give the ends of the interval of `_worth`."""
    if worth is Worth.SQNR:
        return row.sqnr_ci95_db
    if pack.metric is not None:
        if row.metric is None or row.metric.drop_ci95 is None or pack.reference_metric is None:
            return None
        low, high = row.metric.drop_ci95
        return pack.reference_metric - high, pack.reference_metric - low
    ends = row.top1_agreement_ci95 if row.accuracy is None else row.accuracy_ci95
    return None if ends is None else (100 * ends[0], 100 * ends[1])
