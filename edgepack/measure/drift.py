"""Whether a launch's times rise or fall while it is timed, and what to do about it; pure."""

from collections.abc import Sequence
from typing import Final

from edgepack.measure import stats
from edgepack.measure.launch import LatencyLaunch

MAXIMUM_DRIFT: Final = 0.03
_LEAST_SAMPLES: Final = 16  # halves of fewer than 8 differ by chance


def drift(launch: LatencyLaunch) -> float:
    """Give by which share the second half's median is above the first's; 0 of too few runs."""
    return stats.drift(launch.samples_ns) if len(launch.samples_ns) >= _LEAST_SAMPLES else 0.0


def find_drift(launches: Sequence[LatencyLaunch]) -> tuple[str, ...]:
    """Say how many launches drift and what to do, which the end of their warm-up tells."""
    drifts = [(drift(launch), launch.is_steady) for launch in launches]
    drifting = [(each, steady) for each, steady in drifts if abs(each) > MAXIMUM_DRIFT]
    if not drifting:
        return ()
    furthest, _ = max(drifting, key=lambda pair: abs(pair[0]))
    unsteady = sum(steady is False for _, steady in drifting)
    if unsteady:
        remedy = f"{unsteady} of their warm-ups did not become steady in a third of a launch's "
        remedy += "time, so give more of it (--max-seconds), "
    elif all(steady for _, steady in drifting):
        remedy = "they were steady before, so warm-up does not help: stop other programs, "
    else:
        remedy = "warm up longer, "
    text = (
        f"{len(drifting)} of {len(launches)} launches drift by more than {MAXIMUM_DRIFT:.0%} "
        f"between their halves (furthest {furthest:+.1%}): {remedy}cool the device, and fix its "
        "governor to performance"
    )
    return (text,)
