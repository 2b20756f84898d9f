import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepack.optimize.pruning.prune import prune_array
from edgepack.optimize.walking.surgeon import inverse_factor, prune_obs

Floats = NDArray[np.float64]


def _problem(*, groups: int, num_out: int, num_in: int, seed: int) -> tuple[Floats, Floats]:
    """Give weights, and the moments of inputs that depend on each other."""
    generator = np.random.default_rng(seed)
    sources = generator.normal(size=(groups, 4 * num_in, max(1, num_in // 3)))
    inputs = sources @ generator.normal(size=(groups, max(1, num_in // 3), num_in))
    inputs += 0.5 * generator.normal(size=inputs.shape)
    moments = inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1]
    return generator.normal(size=(groups, num_out, num_in)), moments


def _error(weights: Floats, target: Floats, moments: Floats) -> float:
    difference = weights - target
    return float(np.einsum("goi,gij,goj->", difference, moments, difference))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_output_s_error_is_far_below_that_of_pruning_by_magnitude(share: float) -> None:
    target, moments = _problem(groups=1, num_out=24, num_in=200, seed=1)
    pruned = prune_obs(target, moments, share)
    plain = prune_array(target, share)
    assert _error(pruned, target, moments) < 0.5 * _error(plain, target, moments)


def test_the_remaining_weights_are_those_of_least_error() -> None:
    target, moments = _problem(groups=1, num_out=6, num_in=40, seed=2)
    moments += 0.03 * np.trace(moments[0]) / 40 * np.eye(40)
    pruned = prune_obs(target, moments, 0.5)
    best = np.zeros_like(pruned)
    for row in range(6):
        kept = np.flatnonzero(pruned[0, row])
        right = target[0, row] @ moments[0][:, kept]
        best[0, row, kept] = np.linalg.solve(moments[0][np.ix_(kept, kept)], right)
    assert _error(pruned, target, moments) < 1.02 * _error(best, target, moments)


@settings(max_examples=30)
@given(
    groups=st.integers(1, 3),
    num_out=st.integers(1, 5),
    num_in=st.sampled_from([1, 2, 7, 130]),
    share=st.floats(0.0, 0.99),
    seed=st.integers(0, 9),
)
def test_exactly_the_share_is_zero(
    groups: int, num_out: int, num_in: int, share: float, seed: int
) -> None:
    target, moments = _problem(groups=groups, num_out=num_out, num_in=num_in, seed=seed)
    moments += 0.03 * np.eye(num_in)
    pruned = prune_obs(target, moments, share)
    assert np.sum(pruned == 0) == np.sum(prune_array(target, share) == 0)
    assert np.all(np.isfinite(pruned))


def test_inputs_that_never_vary_lose_their_weights_first() -> None:
    target, moments = _problem(groups=1, num_out=4, num_in=10, seed=3)
    moments[:, :5], moments[:, :, :5] = 0.0, 0.0
    moments += 1e-6 * np.eye(10)
    pruned = prune_obs(target, moments, 0.5)
    assert not pruned[0, :, :5].any()
    np.testing.assert_allclose(pruned[0, :, 5:], target[0, :, 5:], rtol=1e-4)


def test_the_factor_is_that_of_the_inverse() -> None:
    _, moments = _problem(groups=2, num_out=1, num_in=12, seed=4)
    upper = inverse_factor(moments)
    np.testing.assert_allclose(
        upper.transpose(0, 2, 1) @ upper, np.linalg.inv(moments), rtol=1e-6, atol=1e-9
    )
    assert not np.tril(upper, -1).any() or np.abs(np.tril(upper, -1)).max() < 1e-9
