"""Whether a measurement can be believed, and if not, what to do; pure.

A launch is marked when its coefficient of variation reaches 10% (pyperf's bound), when its
second half is more than 3% slower or quicker than its first, when its clock fell by more than
5% between launches or within one, when its board said that it was held back (`throttling`), when it
got less than 90% of a core's time, or when other work or a quota took too much (`disturbance`).
Fewer launches than an interval needs count as noisy too, and so does a median that is known less
precisely than was asked for. The verdict is the gravest of `throttled`, `contended`, `noisy` and
`valid`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median_low
from typing import Final

from edgepack._fields import Fields
from edgepack.device.survey.state import DeviceState
from edgepack.measure import stats
from edgepack.measure.cooling import TOLERANCE_C, Rest, sum_up
from edgepack.measure.disturbance import find_disturbances, mark
from edgepack.measure.drift import MAXIMUM_DRIFT, drift, find_drift
from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.rounds import reach
from edgepack.measure.throttling import (
    active_flags,
    find_throttling,
    lost_clock,
    top_clock,
)

MAXIMUM_VARIATION: Final = 0.10
MAXIMUM_SPREAD: Final = 0.10
MINIMUM_CPU_SHARE: Final = 0.90


class VerdictName(StrEnum):
    """What a measurement is worth, best first."""

    VALID = "valid"
    NOISY = "noisy"
    CONTENDED = "contended"
    THROTTLED = "throttled"


DISTURBED: Final = frozenset({VerdictName.THROTTLED, VerdictName.CONTENDED})
"""Verdicts of a device that was slower than it is by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Validity:
    """Whether a measurement can be believed.

    Attributes:
        verdict: the gravest finding.
        reasons: every finding, with what to do; empty when valid.
        marks: for each launch what is doubtful about it.
    """

    verdict: VerdictName
    reasons: tuple[str, ...]
    marks: tuple[tuple[str, ...], ...]


def judge(
    launches: Sequence[LatencyLaunch],
    *,
    before: DeviceState,
    after: DeviceState,
    num_threads: int,
    num_cores: int | None,
    board: str | None = None,
    precision: float | None = None,
    is_sustained: bool = False,
    rests: Sequence[Rest] = (),
) -> Validity:
    """Judge a measurement by its launches and the device's state before and after.

    Args:
        launches: all of them.
        before: state before the first launch.
        after: state after the last.
        num_threads: threads inference ran with.
        num_cores: the device's cores; None when unknown.
        board: what the device says it is; None when unknown.
        precision: how far the median's interval was to reach at most, as a share.
        is_sustained: whether one launch went on to see what heat does: its drift is the result.
        rests: waits for the device to cool, before each launch.
    """
    findings: list[tuple[VerdictName, str]] = []
    findings += [
        (VerdictName.THROTTLED, text)
        for text in find_throttling(launches, before=before, after=after, board=board)
    ]
    findings += _contention(launches, before, num_threads, num_cores)
    findings += _noise(launches) if not is_sustained else []
    findings += _imprecision(launches, precision)
    findings += _warmth(rests, before)
    top_khz = top_clock(launches)
    marks = tuple(
        (*_marks(launch, top_khz), *mark(launch, num_threads=num_threads)) for launch in launches
    )
    order = list(VerdictName)
    verdict = max((name for name, _ in findings), key=order.index, default=VerdictName.VALID)
    return Validity(verdict=verdict, reasons=tuple(text for _, text in findings), marks=marks)


def _marks(launch: LatencyLaunch, top_khz: int | None) -> tuple[str, ...]:
    marks: list[str] = []
    variation, drifted = stats.variation(launch.samples_ns), drift(launch)
    if variation >= MAXIMUM_VARIATION:
        marks.append(f"varies by {variation:.0%}")
    if abs(drifted) > MAXIMUM_DRIFT:
        marks.append(f"drifts by {drifted:+.1%}")
    if lost_clock(launch, top_khz):
        marks.append("clock fell")
    marks.extend(active_flags(launch))
    if _cpu_share(launch) < MINIMUM_CPU_SHARE:
        marks.append(f"got {_cpu_share(launch):.0%} of a core")
    return tuple(marks)


def _cpu_share(launch: LatencyLaunch) -> float:
    return launch.cpu_ns / launch.wall_ns if launch.wall_ns else 1.0


def _noise(launches: Sequence[LatencyLaunch]) -> list[tuple[VerdictName, str]]:
    found: list[str] = []
    count = len(launches)
    if count < stats.MINIMUM_LAUNCHES:
        few = "1 launch is" if count == 1 else f"{count} launches are"
        found.append(
            f"{few} too few to say how far off the median may be: time at least "
            f"{stats.MINIMUM_LAUNCHES}"
        )
    variations = [stats.variation(launch.samples_ns) for launch in launches]
    wild = sum(each >= MAXIMUM_VARIATION for each in variations)
    if wild:
        found.append(
            f"{wild} of {count} launches vary by {MAXIMUM_VARIATION:.0%} or more (up to "
            f"{max(variations):.0%} of the mean): stop other programs on the device, fix its "
            "governor to performance, and time more runs"
        )
    found += find_drift(launches)
    medians = [stats.median(launch.samples_ns) for launch in launches]
    middle = stats.median(medians)
    spread = (max(medians) - min(medians)) / middle if middle else 0.0
    if spread > MAXIMUM_SPREAD:
        found.append(
            f"the launches' medians range over {spread:.0%} of their median, more than "
            f"{MAXIMUM_SPREAD:.0%}: measure with more launches on a device left alone"
        )
    return [(VerdictName.NOISY, text) for text in found]


def _imprecision(
    launches: Sequence[LatencyLaunch], precision: float | None
) -> list[tuple[VerdictName, str]]:
    reached = None if precision is None else reach([[each.samples_ns for each in launches]])
    if precision is not None and len(launches) < stats.MINIMUM_LAUNCHES:
        few = f"how well the median is known cannot be told, and ±{precision:.2%} was asked for: "
        return [(VerdictName.NOISY, f"{few}give more time (--max-seconds)")]
    if precision is None or reached is None or reached <= precision:
        return []
    text = (
        f"the median is known to ±{reached:.2%} after {len(launches)} launches, not to the "
        f"±{precision:.2%} asked for: give more time (--max-seconds), or leave the device alone"
    )
    return [(VerdictName.NOISY, text)]


def _warmth(rests: Sequence[Rest], before: DeviceState) -> list[tuple[VerdictName, str]]:
    cooling = sum_up(rests, began_c=before.temperature_c)
    if cooling is None or not cooling.num_warm:
        return []
    text = (
        f"{cooling.num_warm} of {cooling.num_rests} launches began more than {TOLERANCE_C:g} °C "
        f"above the {cooling.goal_c:.0f} °C of before: let the device cool longer (--cooldown), "
        "or give it a fan"
    )
    return [(VerdictName.NOISY, text)]


def _contention(
    launches: Sequence[LatencyLaunch],
    before: DeviceState,
    num_threads: int,
    num_cores: int | None,
) -> list[tuple[VerdictName, str]]:
    found: list[str] = []
    starved = [share for share in map(_cpu_share, launches) if share < MINIMUM_CPU_SHARE]
    if starved:
        found.append(
            f"{len(starved)} of {len(launches)} launches got less than {MINIMUM_CPU_SHARE:.0%} of "
            f"a core's time (down to {min(starved):.0%}): stop other programs on the device"
        )
    if num_cores is not None:
        runnable = [
            each.num_runnable
            for launch in launches
            for each in (launch.before, *launch.timed_conditions)
            if each.num_runnable is not None
        ]
        # What ran meanwhile is better evidence than the last minute's average, which the push
        # and the provisioning before the measurement have raised.
        if runnable:
            others = max(0, median_low(runnable) - 1)
            # Where it is held to some cores, others may run on the rest; see `disturbance`.
            used = min(num_threads, *(each.num_cores or num_cores for each in launches))
            if others + used > num_cores:
                found.append(
                    f"{others} other threads ran on {num_cores} cores beside the model's "
                    f"{num_threads}: stop other programs on the device"
                )
        elif before.load_1min is not None and before.load_1min + num_threads > num_cores + 0.5:
            found.append(
                f"the load was {before.load_1min:.1f} on {num_cores} cores before the model's "
                f"{num_threads} threads started: stop other programs on the device"
            )
    found += find_disturbances(launches, num_threads=num_threads)
    return [(VerdictName.CONTENDED, text) for text in found]


def to_json(validity: Validity) -> dict[str, object]:
    """Give a validity as JSON values; `read_validity` is its inverse."""
    return {
        "verdict": validity.verdict.value,
        "reasons": list(validity.reasons),
        "marks": [list(marks) for marks in validity.marks],
    }


def read_validity(fields: Fields) -> Validity:
    """Read a validity from a table of a larger record, noting faults in `fields`."""
    marks = fields.raw("marks")
    read: list[tuple[str, ...]] = []
    if isinstance(marks, list) and all(isinstance(each, list) for each in marks):
        read = [Fields({"marks": each}, faults=fields.faults).texts("marks") for each in marks]
    else:
        fields.fault("marks", "expected a list of lists")
    validity = Validity(
        verdict=fields.choice("verdict", VerdictName),
        reasons=fields.texts("reasons"),
        marks=tuple(read),
    )
    fields.close()
    return validity
