"""Launches of one model, or of several in turns, until there are enough of them, or one fails.

With a precision asked for, more launches follow the planned ones until the interval is that narrow
or the time is over. A rule that stops at the first narrow interval it sees stops at those that are
narrow by chance (Chow and Robbins 1965, Ann. Math. Stat. 36), so it looks only after each fifth
more launches.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edgepack.errors import DeviceError, MeasureError
from edgepack.measure.contrast import contrast
from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.stats import MINIMUM_LAUNCHES, MOST_LAUNCHES, median, order_interval

_GROWTH: Final = 5  # a look after every fifth more launches


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """How many rounds there are; a round is one launch of each model.

    Attributes:
        num_rounds: at least.
        precision: how far the interval may reach to either side, as a share; None is as far as it
            does after `num_rounds`.
        max_seconds: by the clock from the first launch on, after which none is added for the
            precision; a quick model's launches take longer to start than to run.
    """

    num_rounds: int
    precision: float | None
    max_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """What was launched.

    Attributes:
        launches: of each model, as many of each.
        ended_early: which launch failed, and why, so that those before it are all there are; None
            when none failed.
    """

    launches: tuple[tuple[LatencyLaunch, ...], ...]
    ended_early: str | None


def take_rounds(
    take: Callable[[int], LatencyLaunch],
    plan: RoundPlan,
    *,
    num_models: int,
    on_round: Callable[[int, int], None],
    clock: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Launch models in turns, A B, B A, A B and so on: neither always comes after the other's heat.

    Once there are enough rounds for an interval, a launch that fails ends it, and the rounds before
    are kept: a link that was lost says nothing against what came over it.

    Args:
        take: launches the model of that place.
        plan: how many rounds.
        num_models: one, or two to be compared.
        on_round: called with each round's number and how many are wanted by now.
        clock: gives seconds.

    Raises:
        MeasureError, DeviceError: as `take`, while there are too few rounds.
    """
    taken: list[list[LatencyLaunch]] = [[] for _ in range(num_models)]
    wanted, start = plan.num_rounds, clock()
    while len(taken[0]) < wanted:
        done = len(taken[0])
        on_round(done + 1, wanted)
        places = range(num_models)
        try:
            for place in places if done % 2 == 0 else reversed(places):
                taken[place].append(take(place))
        except (MeasureError, DeviceError) as error:
            if done < MINIMUM_LAUNCHES:
                raise
            ended = f"launch {done + 1} of {wanted} failed, and the {done} before it are kept: "
            return Rounds(
                launches=tuple(tuple(each[:done]) for each in taken),
                ended_early=ended + error.message,
            )
        if done + 1 == wanted:
            wanted += _count_more(taken, plan, spent_seconds=clock() - start)
    return Rounds(launches=tuple(map(tuple, taken)), ended_early=None)


def _count_more(
    taken: Sequence[Sequence[LatencyLaunch]], plan: RoundPlan, *, spent_seconds: float
) -> int:
    if plan.precision is None:
        return 0
    reached = reach([[launch.samples_ns for launch in each] for each in taken])
    if reached is not None and reached <= plan.precision:
        return 0
    count = len(taken[0])
    # Where the time had room for fewer than an interval needs, these come first.
    more = max(min(-(-count // _GROWTH), MOST_LAUNCHES - count), MINIMUM_LAUNCHES - count)
    fitting = (plan.max_seconds / max(spent_seconds, 1e-9) - 1) * count
    return max(0, more if more <= fitting else int(fitting))


def reach(sides: Sequence[Sequence[Sequence[int]]]) -> float | None:
    """Give how far the 95% interval reaches to its further side, as a share of the figure.

    Args:
        sides: the launches' samples in ns of one model, whose median is the figure, or of two
            that took turns, whose speed-up it is.

    Returns:
        None when there are too few launches for an interval.
    """
    if len(sides[0]) < MINIMUM_LAUNCHES:
        return None
    if len(sides) == 1:
        medians = [median(each) for each in sides[0]]
        middle, interval = median(medians), order_interval(medians)
        if interval is None or middle == 0:
            return None
        return max(interval[1] - middle, middle - interval[0]) / middle
    return contrast(sides[0], sides[1], is_paired=True).reach
