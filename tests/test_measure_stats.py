from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.measure import stats

TIMES = st.integers(min_value=0, max_value=10**12)
LAUNCHES = st.lists(st.lists(TIMES, min_size=1, max_size=40), min_size=1, max_size=12)


def test_quantile_is_the_least_sample_that_enough_do_not_exceed() -> None:
    ordered = np.arange(1, 101)
    assert stats.quantile(ordered, Fraction(9, 10)) == 90
    assert stats.quantile(ordered, Fraction(99, 100)) == 99
    # In floats 0.07 * 100 is a hair above 7, and a careless ceil would give 8.
    assert stats.quantile(ordered, Fraction(7, 100)) == 7


def test_median_of_an_even_count_is_the_middle_twos_mean_rounded_down() -> None:
    assert stats.median([1, 2, 5, 100]) == 3
    assert stats.median([7]) == 7


def test_order_interval_needs_six_values() -> None:
    assert stats.order_interval([1, 2, 3, 4, 5]) is None
    assert stats.order_interval([6, 1, 5, 2, 4, 3]) == (1, 6)


@pytest.mark.parametrize(
    ("count", "rank"),
    # Conover, Practical Nonparametric Statistics, table of the sign test's critical values.
    [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (15, 4), (20, 6), (25, 8)],
)
def test_order_interval_takes_the_ranks_of_the_tables(count: int, rank: int) -> None:
    values = list(range(1, count + 1))
    assert stats.order_interval(values) == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", [6, 10, 17])
def test_order_interval_covers_the_median_at_least_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(7)
    # A skewed distribution, as latencies are; its median is exp(13).
    samples = np.exp(13 + generator.normal(size=(4000, count))).astype(np.int64)
    intervals = [stats.order_interval(row.tolist()) for row in samples]
    inside = sum(low <= np.exp(13) <= high for low, high in filter(None, intervals))
    assert inside / len(samples) > 0.94  # 95% less three standard errors of 4,000 trials


def test_bootstrap_over_launches_covers_where_pooling_would_not() -> None:
    generator = np.random.default_rng(11)
    covered = pooled_covered = 0
    trials = 40
    for _ in range(trials):
        # Launches differ by 5%, runs within one by 0.5%: as on real devices.
        levels = 1e6 * (1 + 0.05 * generator.normal(size=12))
        launches = [
            (level * (1 + 0.005 * generator.normal(size=50))).astype(int).tolist()
            for level in levels
        ]
        low, high = stats.bootstrap_interval(launches, Fraction(1, 2), num_resamples=150)
        covered += low <= 1e6 <= high
        pooled = np.concatenate(launches)
        one = stats.bootstrap_interval([pooled.tolist()], Fraction(1, 2), num_resamples=150)
        pooled_covered += one[0] <= 1e6 <= one[1]
    assert covered / trials >= 0.85
    assert pooled_covered / trials < 0.7


@pytest.mark.parametrize(
    # The normal distribution's share below sqrt(n / (n - 1)) times t's 97.5% point.
    ("num_launches", "tail"),
    [(1, 0.025), (6, 0.00243), (10, 0.00856), (30, 0.01878), (1000, 0.02480)],
)
def test_intervals_of_few_launches_reach_further(num_launches: int, tail: float) -> None:
    assert stats.tail_share(num_launches) == pytest.approx(tail, rel=0.01)


def test_few_launches_hold_p90_as_often_as_they_say() -> None:
    generator = np.random.default_rng(13)
    # Launches differ by 2%, runs within one by 3%, skewed.
    levels = 1e6 * np.exp(0.02 * generator.normal(size=(20_000, 1)))
    runs = (levels * (1 + 0.03 * generator.exponential(size=(20_000, 20)))).astype(int)
    truth = stats.quantile(np.sort(runs.ravel()), stats.P90)
    trials, covered = 60, 0
    for _ in range(trials):
        drawn = runs[generator.choice(len(runs), 8, replace=False)].tolist()
        low, high = stats.bootstrap_interval(drawn, stats.P90, num_resamples=200)
        covered += low <= truth <= high
    assert covered / trials >= 0.93


def test_bootstrap_is_the_same_for_the_same_samples() -> None:
    launches = [[10 * i + j for j in range(30)] for i in range(6)]
    first = stats.bootstrap_interval(launches, stats.P90, num_resamples=100)
    assert first == stats.bootstrap_interval(launches, stats.P90, num_resamples=100)


def test_summary_of_a_known_run() -> None:
    launches = [[100 + i] * 10 for i in range(10)]
    summary = stats.summarize(launches)
    assert summary.median_ns == 104
    assert summary.median_ci95_ns == (101, 108)
    assert (summary.min_ns, summary.max_ns) == (100, 109)
    assert summary.mean_ns == pytest.approx(104.5)
    assert summary.std_ns == pytest.approx(np.std(np.repeat(np.arange(10), 10), ddof=1))
    assert summary.p90_ns == 108
    assert summary.p99_ns == 109
    assert summary.cv == 0
    assert summary.drift == 0
    assert summary.spread == pytest.approx(9 / 104)
    assert summary.p99_ci95_ns is None
    assert dict(summary.unavailable) == {"p99_ci95_ns": "needs 368 samples, but there are 100"}


def test_what_few_samples_cannot_tell_is_named_as_unavailable() -> None:
    summary = stats.summarize([[5, 6, 7]] * 5)
    assert (summary.median_ns, summary.p90_ns) == (6, 7)
    assert (summary.p99_ns, summary.median_ci95_ns, summary.p90_ci95_ns) == (None, None, None)
    assert dict(summary.unavailable) == {
        "median_ci95_ns": "needs 6 launches, but there are 5",
        "p90_ci95_ns": "needs 6 launches, but there are 5",
        "p99_ci95_ns": "needs 6 launches, but there are 5",
        "p99_ns": "needs 100 samples, but there are 15",
    }


def test_nothing_to_summarize_is_refused() -> None:
    for launches in ([], [[1], []]):
        with pytest.raises(ValueError, match="launches that each hold a sample"):
            stats.summarize(launches)


def test_drift_and_variation_of_constructed_launches() -> None:
    assert stats.drift([100] * 50 + [110] * 50) == pytest.approx(0.10)
    assert stats.drift([110] * 50 + [99] * 50) == pytest.approx(-0.10)
    assert stats.drift([1]) == 0
    assert stats.variation([90, 110]) == pytest.approx(np.std([90, 110], ddof=1) / 100)
    assert stats.variation([5]) == 0


@settings(max_examples=20, deadline=None)
@given(LAUNCHES)
def test_figures_stand_in_their_order(launches: list[list[int]]) -> None:
    summary = stats.summarize(launches)
    pooled = sorted(sample for launch in launches for sample in launch)
    assert summary.min_ns == pooled[0] <= summary.p90_ns <= summary.max_ns == pooled[-1]
    assert summary.min_ns <= summary.median_ns <= summary.max_ns
    assert summary.p90_ns in pooled
    assert (summary.p99_ns is not None) == (len(pooled) >= 100)
    for interval, figure in (
        (summary.median_ci95_ns, summary.median_ns),
        (summary.p90_ci95_ns, summary.p90_ns),
    ):
        assert (interval is None) or interval[0] <= interval[1]
        assert interval is None or pooled[0] <= interval[0] <= interval[1] <= pooled[-1], figure
    if summary.median_ci95_ns is not None:
        assert summary.median_ci95_ns[0] <= summary.median_ns <= summary.median_ci95_ns[1]


@settings(deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=40), st.integers(min_value=1, max_value=1000))
def test_a_slower_clock_scales_every_time(samples: list[int], factor: int) -> None:
    scaled = [factor * each for each in samples]
    ordered, slower = np.sort(np.asarray(samples)), np.sort(np.asarray(scaled))
    assert stats.quantile(slower, stats.P90) == factor * stats.quantile(ordered, stats.P90)
    # The mean of two middle samples is rounded down before scaling here, after it there.
    assert abs(stats.median(scaled) - factor * stats.median(samples)) <= factor
    assert stats.variation(scaled) == pytest.approx(stats.variation(samples))
