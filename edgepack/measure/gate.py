"""Limits against what was measured: the checks of a gate, each with its figures; pure.

What cannot be judged is no pass: a limit without its figure, a latency above its limit on a device
that was disturbed, a baseline of other conditions. A disturbed device is only ever slower, so a
latency within its limit passes all the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Final

import numpy as np

from edgepack.bundle.archive import Bundle
from edgepack.device.wire.sections import clean_text
from edgepack.errors import MeasureError
from edgepack.fidelity import Fidelity
from edgepack.measure.contrast import TOLD_APART, Contrast, Difference, contrast
from edgepack.measure.likeness import find_unlike
from edgepack.measure.record import Measurement
from edgepack.measure.stats import quantile
from edgepack.measure.validity import DISTURBED
from edgepack.profile import Limits

_P95: Final = Fraction(95, 100)


class Verdict(StrEnum):
    """What a check found."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One limit and what was measured.

    Attributes:
        name: what is limited, such as `p95 latency`.
        verdict: what was found.
        is_beyond: whether the figure is beyond the limit, whatever that is worth.
        text: the figure and the limit, or why it cannot be judged.
    """

    name: str
    verdict: Verdict
    text: str
    is_beyond: bool = False


def check_limits(
    limits: Limits,
    measurement: Measurement,
    *,
    bundle: Bundle | None = None,
    baselines: Sequence[Measurement] = (),
) -> tuple[Check, ...]:
    """Check a measurement against each limit there is.

    Args:
        limits: None is no limit.
        measurement: taken on the device.
        bundle: what was measured; None for a bare model, of which neither the bundle's size nor
            the accuracy it lost are known.
        baselines: earlier measurements; the one of the same model, by its name and recipe, on the
            same device is what `slowdown` is of.
    """
    return tuple(_checks(limits, measurement, bundle, baselines))


def _checks(
    limits: Limits,
    measurement: Measurement,
    bundle: Bundle | None,
    baselines: Sequence[Measurement],
) -> Iterator[Check]:
    if limits.p95_ms is not None:
        yield _check_p95(measurement, limits.p95_ms)
    if limits.peak_memory_mib is not None:
        peak = measurement.peak_memory_bytes
        figure = None if peak is None else peak / 2**20
        lacking = "the device did not tell it"
        yield _check("peak memory", figure, limits.peak_memory_mib, "MiB", lacking=lacking)
    if limits.bundle_mib is not None:
        figure = None if bundle is None else bundle.num_bytes / 2**20
        yield _check("bundle size", figure, limits.bundle_mib, "MiB", lacking="there is no bundle")
    if limits.accuracy_drop is not None:
        yield _check_drop(bundle, limits.accuracy_drop)
    if limits.slowdown is not None:
        yield _check_slowdown(measurement, baselines, limits.slowdown)


def _check(name: str, figure: float | None, limit: float, unit: str, *, lacking: str) -> Check:
    if figure is None:
        text = f"{name} cannot be judged: {lacking}"
        return Check(name=name, verdict=Verdict.UNKNOWN, text=text)
    if figure > limit:
        text = f"{name} {_exact(figure, limit)} {unit} exceeds the limit of {limit:g} {unit}"
        return Check(name=name, verdict=Verdict.FAILED, text=text, is_beyond=True)
    text = f"{name} {figure:.4g} {unit} is within the limit of {limit:g} {unit}"
    return Check(name=name, verdict=Verdict.PASSED, text=text)


def _exact(figure: float, limit: float) -> str:
    """Give a figure with as many digits as tell it from its limit."""
    short = f"{figure:.4g}"
    return short if float(short) > limit else repr(figure)


def _check_p95(measurement: Measurement, limit: float) -> Check:
    samples = np.sort(np.concatenate([np.array(e.samples_ns) for e in measurement.launches]))
    check = _check("p95 latency", quantile(samples, _P95) / 1e6, limit, "ms", lacking="")
    verdict = measurement.validity.verdict
    if check.verdict is Verdict.FAILED and verdict in DISTURBED:
        reason = f"{check.text}, but the device was {verdict.value}: let it be and measure again"
        return replace(check, verdict=Verdict.UNKNOWN, text=reason)
    return check


def _check_drop(bundle: Bundle | None, limit: float) -> Check:
    fidelity = None if bundle is None else bundle.manifest.fidelity
    lacking = "there is no bundle"
    if fidelity is not None:
        lacking = "the bundle was packed without labels and without a metric"
    return _check("accuracy drop", _drop(fidelity), limit, "points", lacking=lacking)


def _drop(fidelity: Fidelity | None) -> float | None:
    if fidelity is None:
        return None
    return fidelity.drop_points if fidelity.metric is None else fidelity.metric.drop


def _check_slowdown(
    measurement: Measurement, baselines: Sequence[Measurement], limit: float
) -> Check:
    name = "slowdown"
    verdict, text = Verdict.UNKNOWN, ""
    baseline = _find_baseline(measurement, baselines)
    if isinstance(baseline, str):
        text = baseline
    elif unlike := find_unlike(measurement, baseline):
        text = "the baseline was measured under other conditions: " + "; ".join(unlike)
    else:
        try:
            found = contrast(
                measurement.launch_samples_ns, baseline.launch_samples_ns, is_paired=False
            )
        except MeasureError as error:
            text = error.message
        else:
            verdict, text = _judge_contrast(found, limit)
    if verdict is Verdict.UNKNOWN:
        text = f"{name} cannot be judged: {text}"
    return Check(name=name, verdict=verdict, text=text, is_beyond=verdict is Verdict.FAILED)


def _judge_contrast(found: Contrast, limit: float) -> tuple[Verdict, str]:
    is_shown = found.difference is not Difference.NONE
    text = f"{found.text} than the baseline" if is_shown else found.text
    if found.difference is Difference.SLOWER and 1 / found.speedup > 1 + limit:
        return Verdict.FAILED, f"{text}; the limit is {1 + limit:.4g}x"
    # A slowdown beyond the limit may hide in an interval that reaches so far.
    if 1 / found.speedup_ci95[0] > 1 + max(limit, TOLD_APART):
        is_hopeless = found.num_more is None
        more = "a quieter device" if is_hopeless else "more launches, on a quieter device"
        beyond = f", which may be beyond the limit of {1 + limit:.4g}x" if is_shown else ""
        return Verdict.UNKNOWN, f"{text}{beyond}; it takes {more}"
    return Verdict.PASSED, text


def _find_baseline(measurement: Measurement, baselines: Sequence[Measurement]) -> Measurement | str:
    """Give the earlier measurement of the same model on the same device, or why there is none."""
    here = [each for each in baselines if each.device_name == measurement.device_name]
    if not here:
        return "there is no baseline of this device"
    model = (measurement.model.name, measurement.model.recipe)
    same = [each for each in here if (each.model.name, each.model.recipe) == model]
    if len(same) == 1:
        return same[0]
    if same:
        return "there are several baselines of this model, and nothing says which one is meant"
    models = (each.model for each in here)
    others = (f"{each.name} ({each.recipe})" if each.recipe else each.name for each in models)
    listed = clean_text(", ".join(dict.fromkeys(others)), limit=200)
    return f"there is no baseline of this model, only of {listed}"
