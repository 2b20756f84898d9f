"""What of a plan had no room in its time, and how much time would have room for all of it; pure."""

import math
from collections.abc import Sequence
from typing import Final

from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.plan import MAXIMUM_SECONDS, BenchmarkPlan
from edgepack.measure.stats import median

_NEAR: Final = 0.9  # of the planned seconds: a launch ends before a run that would end too late
_SLACK: Final = 1.1
_STEP_SECONDS: Final = 5


def find_shortfall(
    plan: BenchmarkPlan,
    launches: Sequence[LatencyLaunch],
    *,
    fitted: BenchmarkPlan,
    has_failed: bool,
) -> str | None:
    """Say which launches, runs or seconds of a plan were left out, and what to give for them.

    Args:
        plan: what was asked for.
        launches: what was done.
        fitted: the plan as it was carried out, with the time that was left for this model.
        has_failed: whether a launch failed, so that those after it were left out for that.

    Returns:
        None when nothing was left out.
    """
    runs = min(len(launch.samples_ns) for launch in launches)
    seconds = min(launch.wall_ns for launch in launches) / 1e9
    planned, done = [], []
    if len(launches) < plan.num_launches and not has_failed:
        planned.append(f"{plan.num_launches} launches")
        done.append(str(len(launches)))
    if runs < plan.min_runs:
        planned.append(f"{plan.min_runs} runs a launch")
        done.append(str(runs))
    if seconds < _NEAR * plan.min_seconds and runs < fitted.max_samples:
        planned.append(f"{plan.min_seconds:g} s a launch")
        done.append(f"{seconds:.2g} s")
    if not planned:
        return None
    text = f"of {' and '.join(planned)} only {' and '.join(done)} fit into {plan.max_seconds:g} s"
    wanted = _seconds_for(plan, launches) / fitted.max_seconds * plan.max_seconds
    # More than what there was, whatever the estimate says of a device that is slow only at times.
    rounded = _STEP_SECONDS * math.ceil(max(wanted, plan.max_seconds + 1) / _STEP_SECONDS)
    return f"{text}: give --max-seconds {rounded}" if rounded <= MAXIMUM_SECONDS else text


def _seconds_for(plan: BenchmarkPlan, launches: Sequence[LatencyLaunch]) -> float:
    """Give what all launches and runs of a plan would take, at the speed of those that were."""
    run = median([median(launch.samples_ns) for launch in launches]) / 1e9
    least = max(plan.warmup_seconds, plan.warmup_runs * run)
    warmup = max(least, *(launch.num_warmup_runs * run for launch in launches))
    timed = max(plan.min_seconds, plan.min_runs * max(each.stride for each in launches) * run)
    first = max(launch.first_ns for launch in launches) / 1e9
    return plan.num_launches * _SLACK * max(first + warmup + timed, 3 * least)
