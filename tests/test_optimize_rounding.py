"""Rounding weights so that the output stays; pure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepack.optimize.quantizing.rounding import LARGEST, find_bounds, round_gptq, round_nearest
from edgepack.optimize.recipes.recipe import RangeMethod

sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 140))


def draw_layer(
    size: tuple[int, int, int], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give weights and second moments of inputs that depend on each other."""
    num_groups, num_out, num_in = size
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(num_groups, num_in, num_in))
    rows = random.normal(size=(num_groups, 2 * num_in, num_in)) @ mixed
    moments = rows.transpose(0, 2, 1) @ rows / rows.shape[1]
    return random.normal(size=(num_groups, num_out, num_in)), moments


def output_error(change: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    error: NDArray[np.float64] = np.einsum("goi,gij,goj->go", change, moments, change)
    return error


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31), st.sampled_from(["minmax", "mse", "octav"]))
def test_every_weight_is_a_multiple_of_its_channels_step(
    size: tuple[int, int, int], seed: int, method: str
) -> None:
    weights, moments = draw_layer(size, seed)
    bounds = find_bounds(weights, method=RangeMethod(method), moments=moments)
    assert np.all(bounds > 0)
    assert np.all(bounds <= np.max(np.abs(weights), axis=2) * (1 + 1e-12))
    for rounded in (round_nearest(weights, bounds), round_gptq(weights, bounds, moments)):
        steps = rounded / (bounds / LARGEST)[..., np.newaxis]
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        assert np.max(np.abs(steps)) <= LARGEST + 1e-6


@pytest.mark.parametrize("method", ["minmax", "mse", "octav"])
def test_channels_that_share_a_scale_have_one_bound(method: str) -> None:
    weights, moments = draw_layer((3, 4, 50), 2)
    weights[1] *= 5.0
    bounds = find_bounds(weights, method=RangeMethod(method), moments=moments, is_shared=True)
    assert bounds.shape == (3, 4)
    assert np.ptp(bounds) == 0
    largest = float(np.max(np.abs(weights)))
    assert 0.2 * largest < bounds[0, 0] <= largest
    rounded = round_nearest(weights, bounds)
    assert (
        output_error(rounded - weights, moments).sum() < 1e-3 * output_error(weights, moments).sum()
    )


def test_gptq_loses_less_of_the_output_than_rounding_to_nearest() -> None:
    weights, moments = draw_layer((2, 32, 96), 3)
    bounds = find_bounds(weights, method=RangeMethod.MINMAX)
    nearest = output_error(round_nearest(weights, bounds) - weights, moments)
    gptq = output_error(round_gptq(weights, bounds, moments) - weights, moments)
    assert gptq.sum() < 0.5 * nearest.sum()


def test_gptq_of_independent_inputs_is_rounding_to_nearest() -> None:
    weights, _ = draw_layer((1, 8, 20), 5)
    bounds = find_bounds(weights, method=RangeMethod.MINMAX)
    moments = np.eye(20)[np.newaxis]
    np.testing.assert_allclose(round_gptq(weights, bounds, moments), round_nearest(weights, bounds))


def test_least_squares_bound_of_a_channel_with_an_outlier_is_below_it() -> None:
    weights = np.concatenate([np.random.default_rng(0).normal(size=5000), [20.0]]).reshape(1, 1, -1)
    least = find_bounds(weights, method=RangeMethod.MSE)
    octav = find_bounds(weights, method=RangeMethod.OCTAV)
    widest = find_bounds(weights, method=RangeMethod.MINMAX)
    errors = [
        float(np.sum((round_nearest(weights, each) - weights) ** 2)) for each in (least, widest)
    ]
    assert float(least[0, 0]) < float(widest[0, 0])
    assert errors[0] < errors[1]
    assert 3.0 < float(octav[0, 0]) <= 20.0


def test_inputs_that_are_never_there_decide_nothing() -> None:
    weights = np.array([[[1.0, -0.5, 40.0]]])
    moments = np.diag([1.0, 1.0, 0.0])[np.newaxis]
    bounds = find_bounds(weights, method=RangeMethod.MSE, moments=moments)
    assert float(bounds[0, 0]) < 40.0


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = np.zeros((1, 2, 3))
    for method in (RangeMethod.MINMAX, RangeMethod.MSE, RangeMethod.OCTAV):
        bounds = find_bounds(weights, method=method)
        assert np.all(bounds > 0)
        assert not round_gptq(weights, bounds, np.zeros((1, 3, 3))).any()


def test_a_method_for_activations_is_refused() -> None:
    with pytest.raises(ValueError, match="kl is no range of weights"):
        find_bounds(np.ones((1, 1, 1)), method=RangeMethod.KL)


def test_pruned_weights_stay_zero() -> None:
    generator = np.random.default_rng(8)
    weights = generator.normal(size=(1, 4, 20))
    weights[generator.uniform(size=weights.shape) < 0.6] = 0
    inputs = generator.normal(size=(1, 100, 5)) @ generator.normal(size=(1, 5, 20))
    moments = inputs.transpose(0, 2, 1) @ inputs / 100
    rounded = round_gptq(weights, find_bounds(weights, method=RangeMethod.MINMAX), moments)
    assert not rounded[weights == 0].any()
    assert np.mean(rounded != 0) > 0.3
