"""What launches of two models show: differences that are there, and none that are not."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import MeasureError
from edgepack.measure.contrast import Contrast, Difference, contrast

RUNS = 64


def launches(
    seed: int, *, count: int = 10, median_ns: float = 1e6, between: float = 0.01
) -> list[list[int]]:
    """Make launches whose medians differ by `between`, and runs that differ within each."""
    random = np.random.default_rng(seed)
    middles = median_ns * np.exp(random.normal(0, between, count))
    return [
        (middle * np.exp(random.gamma(1.5, 0.02, RUNS))).astype(np.int64).tolist()
        for middle in middles
    ]


def test_a_large_difference_is_shown_with_its_size() -> None:
    found = contrast(launches(1), launches(2, median_ns=1.34e6), is_paired=True)
    assert found.difference is Difference.FASTER
    assert found.speedup == pytest.approx(1.34, abs=0.03)
    low, high = found.speedup_ci95
    assert low < 1.34 < high
    assert high - low < 0.08
    assert found.text == f"{found.speedup:.2f}x faster (95%: {low:.2f} to {high:.2f})"
    slower = contrast(launches(2, median_ns=1.34e6), launches(1), is_paired=True)
    assert slower.difference is Difference.SLOWER
    assert slower.text.startswith("1.3")
    assert "x slower (95%: 1.3" in slower.text


def test_the_same_model_shows_no_difference_and_how_many_launches_would_show_two_percent() -> None:
    found = contrast(launches(3, between=0.004), launches(4, between=0.004), is_paired=True)
    assert found.difference is Difference.NONE
    low, high = found.speedup_ci95
    assert found.text == (
        f"no difference shown ({found.speedup:.3f}x, 95%: {low:.3f} to {high:.3f})"
    )
    assert found.num_more is not None
    many = contrast(
        launches(3, count=400, between=0.004), launches(4, count=400, between=0.004), is_paired=True
    )
    assert many.num_more == 0


def test_false_differences_are_rare_and_five_percent_is_found() -> None:
    trials = 200
    false = found = covered = 0
    for seed in range(trials):
        same = _pair(seed, ratio=1.0)
        false += same.difference is not Difference.NONE
        covered += same.speedup_ci95[0] <= 1 <= same.speedup_ci95[1]
        found += _pair(seed + trials, ratio=1.05).difference is Difference.FASTER
    assert false <= 0.05 * trials
    assert found >= 0.90 * trials
    assert covered >= 0.92 * trials


def _pair(seed: int, *, ratio: float) -> Contrast:
    ours, theirs = (launches(2 * seed + side, between=0.01) for side in (0, 1))
    return contrast(
        ours, [[int(ratio * each) for each in launch] for launch in theirs], is_paired=True
    )


def test_what_changes_slowly_cancels_in_pairs() -> None:
    # The device warms up: every launch is 3% slower than the last.
    heat = [1.03**place for place in range(12)]
    ours, theirs = launches(5, count=12, between=0.003), launches(6, count=12, between=0.003)
    heated = [
        [[int(factor * each) for each in launch] for factor, launch in zip(heat, side, strict=True)]
        for side in (ours, theirs)
    ]
    paired, apart = (contrast(*heated, is_paired=is_paired) for is_paired in (True, False))
    width, wider = (each.speedup_ci95[1] - each.speedup_ci95[0] for each in (paired, apart))
    assert 5 * width < wider


def test_a_model_that_differs_from_itself_shows_nothing() -> None:
    jumpy = [[1_000_000] * RUNS, [1_080_000] * RUNS] * 5
    found = contrast(jumpy, [[1_050_000] * RUNS] * 10, is_paired=True)
    assert found.margin == pytest.approx(0.08)
    assert found.difference is Difference.NONE
    assert found.num_more is None


def test_how_many_more_launches_are_about_as_many_as_it_takes() -> None:
    """Of a model whose launches differ by 2%, about 60 show a difference of 2% every other time."""
    trials = [
        contrast(
            *(_launches_of(np.random.default_rng([seed, side])) for side in (0, 1)), is_paired=True
        )
        for seed in range(20)
    ]
    told = sorted(each.num_more for each in trials if each.num_more is not None)
    assert len(told) == len(trials)
    assert 30 <= told[len(told) // 2] <= 120
    assert told[-1] <= 500


def _launches_of(random: np.random.Generator) -> list[list[int]]:
    return [[int(middle)] * 8 for middle in 1e6 * np.exp(random.normal(0, 0.02, 10))]


@given(
    st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), min_size=6, max_size=8),
    st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), min_size=6, max_size=8),
)
def test_any_launches_are_compared(ours: list[list[int]], theirs: list[list[int]]) -> None:
    found = contrast(ours, theirs, is_paired=False)
    again = contrast(ours, theirs, is_paired=False)
    assert found == again
    low, high = found.speedup_ci95
    assert 0 < low <= high
    assert math.isfinite(high)
    assert found.margin >= 0.01


def test_too_few_launches_are_refused() -> None:
    with pytest.raises(MeasureError) as caught:
        contrast(launches(1, count=5), launches(2), is_paired=False)
    assert caught.value.message == ("a comparison needs 6 launches of each, but there are 5")
    with pytest.raises(MeasureError, match="as many launches of both, taken in turns, not 8 and 7"):
        contrast(launches(1, count=8), launches(2, count=7), is_paired=True)
    with pytest.raises(MeasureError, match="but one is empty"):
        contrast([[]] * 6, launches(2), is_paired=False)


def test_few_launches_reach_as_far_as_students_t() -> None:
    """With six, the ends lie where a t of 5 degrees has 2.5% beyond, 2.571 deviations."""
    medians = [[int(1e6 * (1 + 0.01 * z))] * RUNS for z in (-1.2, -0.7, -0.2, 0.2, 0.7, 1.2)]
    steady = [[1_000_000] * RUNS] * 6
    low, high = contrast(steady, medians, is_paired=True).speedup_ci95
    assert low == pytest.approx(1 - 0.012, abs=2e-4)
    assert high == pytest.approx(1 + 0.012, abs=2e-4)
    assert NormalDist().cdf(-2.571 * math.sqrt(6 / 5)) < 0.005
