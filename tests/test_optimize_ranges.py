import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgepack.optimize.quantizing.ranges import (
    EMPTY,
    Histogram,
    add_values,
    find_best_range,
    find_range,
    measure_error,
)
from edgepack.optimize.recipes.recipe import RangeMethod

METHODS = [method for method in RangeMethod if method is not RangeMethod.BEST]
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
ARRAYS = arrays(np.float32, st.integers(1, 200), elements=FLOATS)


def _collect(*portions: np.ndarray) -> Histogram:
    histogram = EMPTY
    for portion in portions:
        histogram = add_values(histogram, portion)
    return histogram


def _alike(first: Histogram, second: Histogram) -> bool:
    return (
        (first.exponent, first.first, first.num_zeros, first.low, first.high)
        == (second.exponent, second.first, second.num_zeros, second.low, second.high)
    ) and np.array_equal(first.counts, second.counts)


def _normal(seed: int = 0, size: int = 100_000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


@given(values=ARRAYS, cut=st.integers(0, 200), seed=st.integers(0, 9))
def test_order_and_portions_do_not_matter(values: np.ndarray, cut: int, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    assert _alike(_collect(values), _collect(shuffled[:cut], shuffled[cut:]))


@given(values=ARRAYS)
def test_every_value_is_counted_in_few_bins(values: np.ndarray) -> None:
    histogram = _collect(values)
    assert histogram.num_values == values.size
    assert len(histogram.counts) <= 4096
    assert (histogram.low, histogram.high) == (values.min(), values.max())


@given(values=ARRAYS)
def test_each_value_lies_within_half_a_bin_of_a_center(values: np.ndarray) -> None:
    histogram = _collect(values)
    for value in values[values != 0]:
        nearest = np.abs(histogram.centers - float(value)).min()
        assert nearest <= 0.5 * 2.0**histogram.exponent * (1 + 1e-9)


def test_memory_does_not_grow_with_what_is_seen() -> None:
    histogram = _collect(*(_normal(seed) * 10.0**seed for seed in range(8)))
    assert histogram.counts.nbytes <= 4096 * 8
    assert histogram.num_values == 800_000


def test_what_is_not_finite_or_a_mask_sets_no_range() -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf, -3.4e38, 2.0], np.float32)
    histogram = _collect(values)
    assert (histogram.low, histogram.high, histogram.num_values) == (1.0, 2.0, 2)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20)  # a search of hundreds of steps each
@given(values=ARRAYS, num_bits=st.sampled_from([8, 16]))
def test_every_range_holds_zero_and_lies_within_what_was_seen(
    method: RangeMethod, values: np.ndarray, num_bits: int
) -> None:
    low, high = find_range(_collect(values), method, num_bits=num_bits)
    assert min(values.min(), 0.0) <= low <= 0.0 <= high <= max(values.max(), 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_seen_and_zeros_alone_give_the_empty_range(method: RangeMethod) -> None:
    assert find_range(EMPTY, method) == (0.0, 0.0)
    assert find_range(_collect(np.zeros(9)), method) == (0.0, 0.0)


@settings(max_examples=20)  # a search of hundreds of steps each
@given(values=ARRAYS, num_bits=st.sampled_from([8, 16]))
def test_no_range_has_a_lower_error_than_the_search_starts_with(
    values: np.ndarray, num_bits: int
) -> None:
    histogram = _collect(values)
    found = find_range(histogram, RangeMethod.MSE, num_bits=num_bits)
    whole = find_range(histogram, RangeMethod.MINMAX, num_bits=num_bits)
    assert measure_error(histogram, *found, num_bits=num_bits) <= measure_error(
        histogram, *whole, num_bits=num_bits
    )


def test_the_error_is_that_of_the_values_themselves() -> None:
    values = _normal()
    low, high = -2.0, 3.0
    step = (high - low) / 255
    point = np.rint(-128 - low / step)
    integers = np.clip(np.rint(values.astype(np.float64) / step) + point, -128, 127)
    error = float(np.mean((values - (integers - point) * step) ** 2))
    assert measure_error(_collect(values), low, high) == pytest.approx(error, rel=0.01)


def test_exact_zeros_have_no_error() -> None:
    values = np.concatenate([np.zeros(1000), [1.0, 255.0]])
    assert measure_error(_collect(values), 0.0, 255.0) == pytest.approx(0.0, abs=1e-5)


def test_the_best_bound_of_a_normal_distribution_is_the_known_one() -> None:
    # Banner et al. 2019, section 4: 3.92 standard deviations at 8 bits for a Gaussian; Sakr's
    # recursion solves the same equation.
    histogram = _collect(_normal(size=1_000_000))
    _, high = find_range(histogram, RangeMethod.OCTAV)
    assert high == pytest.approx(3.92, abs=0.1)
    low, high = find_range(histogram, RangeMethod.MSE)
    assert -low == pytest.approx(3.92, abs=0.25)
    assert high == pytest.approx(3.92, abs=0.25)


def test_octav_solves_its_own_equation() -> None:
    values = np.random.default_rng(0).laplace(size=100_000)
    histogram = _collect(values)
    _, bound = find_range(histogram, RangeMethod.OCTAV)
    magnitudes = np.abs(values)
    beyond = magnitudes > bound
    span = (histogram.high - histogram.low) / max(histogram.high, -histogram.low)
    noise = span**2 / 12 * 4.0**-8
    assert magnitudes[beyond].sum() / (noise * (~beyond).sum() + beyond.sum()) == pytest.approx(
        bound, rel=0.01
    )


def test_the_percentile_leaves_out_the_tails_alone() -> None:
    values = np.concatenate([np.linspace(0, 1, 1_000_000), [1000.0] * 20, [-500.0] * 20])
    low, high = find_range(_collect(values), RangeMethod.PERCENTILE)
    # 40 of a million values are fewer than the 1 in 10,000 that both tails may lose.
    assert -0.5 < low <= 0.0
    assert 1.0 <= high < 1.5


def test_a_percentile_of_what_a_relu_gave_keeps_zero_as_its_end() -> None:
    assert find_range(_collect(np.maximum(_normal(), 0)), RangeMethod.PERCENTILE)[0] == 0.0


def test_divergence_cuts_off_a_lonely_outlier() -> None:
    values = np.concatenate([np.abs(_normal()), [400.0]])
    _, high = find_range(_collect(values), RangeMethod.KL)
    assert 3.0 < high < 40.0


@pytest.mark.parametrize("method", [RangeMethod.KL, RangeMethod.OCTAV, RangeMethod.MSE])
def test_sixteen_bits_keep_nearly_all_of_a_normal_distribution(method: RangeMethod) -> None:
    histogram = _collect(_normal())
    low, high = find_range(histogram, method, num_bits=16)
    assert min(high / histogram.high, low / histogram.low) > 0.9


def test_best_is_no_range_of_one_histogram() -> None:
    with pytest.raises(ValueError, match="best is a choice among ranges"):
        find_range(_collect(_normal()), RangeMethod.BEST)


def test_ranges_scale_with_the_values() -> None:
    for method in METHODS:
        first = find_range(_collect(_normal()), method)
        second = find_range(_collect(_normal() * 1024), method)
        assert all(
            math.isclose(one * 1024, other, rel_tol=1e-6)
            for one, other in zip(first, second, strict=True)
        )


def test_a_weight_counts_a_value_so_many_times() -> None:
    values = _normal(size=100)
    weights = np.random.default_rng(1).integers(0, 5, size=100)
    assert np.array_equal(
        add_values(EMPTY, values, weights).counts.sum(),
        _collect(np.repeat(values, weights)).counts.sum(),
    )
    whole = np.full(100, 3)
    assert _alike(add_values(EMPTY, values, whole), _collect(np.repeat(values, 3)))


def test_the_best_range_serves_the_channel_that_matters() -> None:
    # The loud channel is read by small weights: its outliers may be cut off.
    loud, quiet = _normal(0) * 100, _normal(1)
    values = np.concatenate([loud, quiet])
    weights = np.concatenate([np.full(loud.size, 0), np.full(quiet.size, 1000)])
    histogram, weighted = _collect(values), add_values(EMPTY, values, weights)
    low, high = find_best_range(histogram, weighted)
    assert -10 < low < high < 10
    assert find_best_range(histogram, None) == find_range(histogram, RangeMethod.OCTAV)
