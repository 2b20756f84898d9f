"""Launches until there are enough of them."""

from collections.abc import Callable

import numpy as np
import pytest

from edgepack.errors import DeviceTimeoutError, EdgePackError, MeasureError
from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.rounds import RoundPlan, reach, take_rounds
from edgepack.measure.stats import MOST_LAUNCHES
from tests.fixtures.measure import make_launch


def steady(_: int) -> LatencyLaunch:
    return make_launch([1_000_000] * 20)


def wild(seed: int, deviation: float) -> Callable[[int], LatencyLaunch]:
    generator = np.random.default_rng(seed)

    def take(_: int) -> LatencyLaunch:
        middle = int(1_000_000 * (1 + deviation * generator.standard_normal()))
        return make_launch([middle] * 20)

    return take


def count(take: Callable[[int], LatencyLaunch], plan: RoundPlan, *, num_models: int = 1) -> int:
    seconds = 0.0

    def each(place: int) -> LatencyLaunch:
        nonlocal seconds
        seconds += 1
        return take(place)

    taken = take_rounds(
        each, plan, num_models=num_models, on_round=lambda *_: None, clock=lambda: seconds
    )
    assert len({len(each) for each in taken.launches}) == 1
    assert taken.ended_early is None
    return len(taken.launches[0])


def test_without_a_precision_the_plan_is_carried_out() -> None:
    assert count(wild(1, 0.1), RoundPlan(num_rounds=3, precision=None, max_seconds=1)) == 3


def test_a_steady_device_needs_no_more_than_an_interval_takes() -> None:
    assert count(steady, RoundPlan(num_rounds=3, precision=0.01, max_seconds=10**6)) == 6


@pytest.mark.parametrize(("max_seconds", "num_launches"), [(3, 3), (4.5, 4), (6, 6)])
def test_an_interval_is_not_worth_more_than_the_time(max_seconds: float, num_launches: int) -> None:
    """The plan was fitted to three launches; each takes a second."""
    plan = RoundPlan(num_rounds=3, precision=0.01, max_seconds=max_seconds)
    assert count(steady, plan) == num_launches


@pytest.mark.parametrize("seed", range(5))
def test_launches_are_added_until_the_median_is_known(seed: int) -> None:
    kept: list[LatencyLaunch] = []
    take = wild(seed, 0.1)

    def keep(place: int) -> LatencyLaunch:
        kept.append(take(place))
        return kept[-1]

    plan = RoundPlan(num_rounds=10, precision=0.02, max_seconds=10**6)
    assert count(keep, plan) > 10
    reached = reach([[launch.samples_ns for launch in kept]])
    assert reached is not None
    assert reached <= 0.02


def test_the_time_ends_it() -> None:
    plan = RoundPlan(num_rounds=10, precision=0.0001, max_seconds=40)
    assert count(wild(2, 0.1), plan) == 40


def test_there_is_an_end_even_so() -> None:
    plan = RoundPlan(num_rounds=900, precision=0.0001, max_seconds=10**6)
    assert count(wild(3, 0.5), plan) == MOST_LAUNCHES


def test_two_models_take_turns_until_their_ratio_is_known() -> None:
    order: list[int] = []
    common = np.random.default_rng(4)
    drifts: list[float] = []

    def take(place: int) -> LatencyLaunch:
        if len(order) % 2 == 0:  # what changes slowly changes for both of a round
            drifts.append(1 + 0.2 * common.standard_normal())
        order.append(place)
        return make_launch([int(1_000_000 * (1 + place / 4) * abs(drifts[-1]) + 1)] * 20)

    plan = RoundPlan(num_rounds=8, precision=0.02, max_seconds=10**6)
    assert count(take, plan, num_models=2) == 8
    assert order[:8] == [0, 1, 1, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("error", [MeasureError, DeviceTimeoutError])
@pytest.mark.parametrize("num_models", [1, 2])
def test_a_failed_launch_ends_it_and_takes_only_its_own_round(
    num_models: int, error: type[EdgePackError]
) -> None:
    num_taken = 0

    def take(place: int) -> LatencyLaunch:
        nonlocal num_taken
        num_taken += 1
        if num_taken == 8 * num_models:  # the last one of the eighth round
            raise error("it was too hot.", remedy="Cool it.")
        return make_launch([1_000_000 * (1 + place)] * 20)

    plan = RoundPlan(num_rounds=10, precision=None, max_seconds=60)
    taken = take_rounds(take, plan, num_models=num_models, on_round=lambda *_: None)
    assert [len(each) for each in taken.launches] == [7] * num_models
    assert [each[0].samples_ns[0] // 1_000_000 for each in taken.launches] == [1, 2][:num_models]
    assert taken.ended_early == (
        "launch 8 of 10 failed, and the 7 before it are kept: it was too hot."
    )


def test_a_failed_launch_among_the_first_is_an_error() -> None:
    num_taken = 0

    def take(_: int) -> LatencyLaunch:
        nonlocal num_taken
        num_taken += 1
        if num_taken == 6:
            raise MeasureError("it was too hot.", remedy="Cool it.")
        return make_launch([1_000_000] * 20)

    plan = RoundPlan(num_rounds=10, precision=None, max_seconds=60)
    with pytest.raises(MeasureError, match=r"it was too hot\."):
        take_rounds(take, plan, num_models=1, on_round=lambda *_: None)
