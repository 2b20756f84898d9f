"""Least squares from moments, held to what the weights were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.optimize.walking.moments import Accumulator, choose_trust, fit


def summed(inputs: np.ndarray, wanted: np.ndarray, num_samples: int) -> Accumulator:
    sums = Accumulator()
    for rows, aims in zip(
        np.array_split(inputs, num_samples, axis=1),
        np.array_split(wanted, num_samples, axis=1),
        strict=True,
    ):
        sums.add(rows, aims)
    return sums


@given(st.integers(0, 30), st.integers(1, 3), st.integers(2, 9))
def test_what_is_linear_is_found(seed: int, num_groups: int, num_samples: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.normal(1, 1, (num_groups, 5000, 4)).astype(np.float32)
    truth = random.normal(size=(num_groups, 3, 4))
    wanted = inputs @ truth.transpose(0, 2, 1) + 0.7
    halves = summed(inputs, wanted.astype(np.float32), num_samples).halves()
    weights, bias = fit(halves, np.zeros((num_groups, 3, 4)), has_bias=True)
    assert bias is not None
    np.testing.assert_allclose(weights, truth, atol=2e-3)
    np.testing.assert_allclose(bias, np.full((num_groups, 3), 0.7), atol=1e-2)


def test_without_a_bias_there_is_none() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1, 500, 4)).astype(np.float32)
    weights, bias = fit(
        summed(inputs, inputs[:, :, :1], 4).halves(), np.zeros((1, 1, 4)), has_bias=False
    )
    assert bias is None
    np.testing.assert_allclose(weights[0, 0], [1, 0, 0, 0], atol=1e-3)


def test_few_samples_leave_the_weights_nearly_where_they_were() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1, 20, 200)).astype(np.float32)
    truth = random.normal(size=(1, 3, 200))
    noise = random.normal(size=(1, 20, 3))
    wanted = inputs @ truth.transpose(0, 2, 1) + 3 * noise
    weights, _ = fit(summed(inputs, wanted.astype(np.float32), 20).halves(), truth, has_bias=True)
    assert np.abs(weights - truth).max() < 0.2 * np.abs(truth).max()


def test_one_sample_alone_is_not_trusted() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1, 50, 4)).astype(np.float32)
    halves = summed(inputs, inputs[:, :, :1], 1).halves()
    assert len(halves) == 1
    assert choose_trust(halves, np.ones((1, 1, 4)), np.arange(3)) == 1.0
    weights, _ = fit(halves, np.zeros((1, 1, 4)), has_bias=True)
    assert weights[0, 0, 0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("num_rows", "expected"), [(20_000, 1e-3), (30, 0.1)])
def test_the_fewer_the_rows_the_less_they_are_trusted(num_rows: int, expected: float) -> None:
    random = np.random.default_rng(0)
    inputs = (random.normal(size=(1, num_rows, 40)) @ random.normal(size=(40, 40))).astype(
        np.float32
    )
    halves = summed(inputs, inputs[:, :, :0], 10).halves()
    trust = choose_trust(halves, random.normal(size=(1, 5, 40)), np.arange(30))
    assert trust <= expected if num_rows > 1000 else trust >= expected


@given(st.integers(0, 30), st.floats(0, 1e4))
def test_what_varies_little_about_a_large_mean_keeps_its_variance(seed: int, mean: float) -> None:
    random = np.random.default_rng(seed)
    inputs = (mean + random.normal(size=(2, 3000, 5))).astype(np.float32)
    wanted = (inputs[:, :, :2] - mean + 3 * mean).astype(np.float32)
    (first, second) = summed(inputs, wanted, 6).halves()
    total = (first + second).centered()
    exact_in = inputs - inputs.astype(np.float64).mean(axis=1, keepdims=True)
    exact_out = wanted - wanted.astype(np.float64).mean(axis=1, keepdims=True)
    turned = exact_in.transpose(0, 2, 1)
    np.testing.assert_allclose(total.products / 3000, turned @ exact_in / 3000, atol=2e-5)
    np.testing.assert_allclose(total.crosses / 3000, turned @ exact_out / 3000, atol=2e-5)
    np.testing.assert_allclose(total.squares, np.square(exact_out).sum(axis=1), rtol=1e-4)
    assert np.linalg.eigvalsh(total.products).min() > 0
