"""Floors: what a variant must keep of the float model, and what it misses; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgepack.errors import UsageError
from edgepack.fidelity import Fidelity, MetricFidelity, OutputFidelity
from edgepack.optimize.judging.findings import Finding, FindingKind, Severity

DEFAULT_DROP: Final = 1.0
"""Percentage points of accuracy that may be lost where there are labels and nothing was asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Floors:
    """What a variant must keep of the float model.

    Attributes:
        min_sqnr_db: least SQNR of every output.
        min_agreement: least top-1 agreement of every class output.
        max_drop: most that may be lost: percentage points of accuracy, or points of the user's own
            metric. It needs labels or that metric, and stands in place of the other two; None is
            no such limit.
        is_confident: whether the unfavorable end of each figure's 95% interval is judged, and not
            the figure itself.
        is_default: whether none of the three was asked for, so that labels make accuracy the floor.
    """

    min_sqnr_db: float = 20.0
    min_agreement: float = 0.9
    max_drop: float | None = None
    is_confident: bool = False
    is_default: bool = False


def settle_floors(floors: Floors, *, has_labels: bool) -> Floors:
    """Give the floors for samples with or without labels: what was asked for stays."""
    if floors.is_default and has_labels:
        return replace(floors, max_drop=DEFAULT_DROP)
    return floors


def judge(
    fidelity: Fidelity, floors: Floors, *, findings: Sequence[Finding] = ()
) -> tuple[str, ...]:
    """Say why a variant is outside the floors; an empty tuple when it is inside.

    The float model itself is not to be judged: with few samples not even it is shown to agree with
    itself on others.

    Raises:
        UsageError: a limit on what is lost, without labels or a metric to measure it by.
    """
    reasons = [
        f"output {output.output!r} holds {output.num_non_finite} NaN or infinite values"
        for output in fidelity.outputs
        if output.num_non_finite
    ]
    reasons += [
        each.text
        for each in findings
        if each.severity is Severity.FAULT and each.kind is not FindingKind.NON_FINITE
    ]
    if floors.max_drop is not None:
        return (*reasons, *_judge_drop(fidelity, floors.max_drop, floors))
    for output in fidelity.outputs:
        reasons += _judge_output(output, floors, fidelity.num_samples)
    return tuple(reasons)


def _judge_drop(fidelity: Fidelity, limit: float, floors: Floors) -> Iterator[str]:
    metric = fidelity.metric
    if metric is not None:
        yield from _judge_metric(metric, limit, floors, fidelity.num_samples)
        return
    drop, interval = fidelity.drop_points, fidelity.drop_points_ci95
    if drop is None or fidelity.accuracy is None:
        raise UsageError(
            "--max-drop limits the accuracy lost, but without labels there is no accuracy",
            remedy="Give labels with --labels or in the data, your own metric with --metric, or "
            "use --min-sqnr and --min-agreement.",
        )
    text = (
        f"accuracy {100 * fidelity.accuracy:.1f}% is {drop:.1f} points below the float model's"
        f"{_between(interval, '.1f')}"
    )
    if drop > limit:
        yield f"{text}, above {limit:g}"
    elif floors.is_confident and (interval is None or interval[1] > limit):
        yield f"{text}: {_not_shown(fidelity.num_samples)} lose at most {limit:g}"


def _judge_metric(
    metric: MetricFidelity, limit: float, floors: Floors, num_samples: int
) -> Iterator[str]:
    if metric.drop is None or metric.candidate is None:
        yield f"metric {metric.name} gives no finite number"
        return
    text = (
        f"metric {metric.name}: {metric.candidate:.4g} is {metric.drop:.4g} below the float "
        f"model's {metric.reference:.4g}{_between(metric.drop_ci95, '.4g')}"
    )
    if metric.drop > limit:
        yield f"{text}, above {limit:g}"
    elif floors.is_confident and (metric.drop_ci95 is None or metric.drop_ci95[1] > limit):
        yield f"{text}: {_not_shown(num_samples)} lose at most {limit:g}"


def _judge_output(output: OutputFidelity, floors: Floors, num_samples: int) -> Iterator[str]:
    label, confident = f"output {output.output!r}", floors.is_confident
    if not output.num_non_finite and not output.is_index:
        low = output.sqnr_ci95_db
        text = f"{label}: SQNR {output.sqnr_db:.1f} dB{_between(low, '.1f')}"
        if output.sqnr_db < floors.min_sqnr_db:
            yield f"{text} is below {floors.min_sqnr_db:g} dB"
        elif confident and (low is None or low[0] < floors.min_sqnr_db):
            yield f"{text}: {_not_shown(num_samples)} reach {floors.min_sqnr_db:g} dB"
    agreement, interval = output.top1_agreement, output.top1_agreement_ci95
    if agreement is None:
        return
    percent = None if interval is None else (100 * interval[0], 100 * interval[1])
    text = f"{label}: top-1 agreement {100 * agreement:.1f}%{_between(percent, '.1f')}"
    if agreement < floors.min_agreement:
        yield f"{text} is below {100 * floors.min_agreement:g}%"
    elif confident and (interval is None or interval[0] < floors.min_agreement):
        yield f"{text}: {_not_shown(num_samples)} reach {100 * floors.min_agreement:g}%"


def _not_shown(num_samples: int) -> str:
    return f"with {num_samples} sample{'' if num_samples == 1 else 's'} it is not shown to"


def _between(interval: tuple[float, float] | None, form: str) -> str:
    if interval is None:
        return ""
    return f" (95%: {interval[0]:{form}} to {interval[1]:{form}})"
