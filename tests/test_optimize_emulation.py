"""Numbers as narrower ones stand for them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgepack.optimize.walking.emulation import round_affine, round_half, round_symmetric

WEIGHTS = arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@given(weights=WEIGHTS, num_bits=st.sampled_from([2, 4, 8]))
def test_symmetric_integers_are_at_most_half_a_step_off(weights: np.ndarray, num_bits: int) -> None:
    rounded = round_symmetric(weights, axis=0, num_bits=num_bits)
    steps = np.abs(weights).max(axis=1, keepdims=True) / (2 ** (num_bits - 1) - 1)
    assert rounded.dtype == np.float32
    assert np.all(np.abs(rounded - weights) <= 0.5001 * steps + 1e-8)


@given(weights=WEIGHTS)
def test_symmetric_integers_stay_themselves(weights: np.ndarray) -> None:
    once = round_symmetric(weights, axis=1, num_bits=8)
    assert np.allclose(round_symmetric(once, axis=1, num_bits=8), once, rtol=1e-5, atol=1e-8)


def test_each_channel_has_a_scale_of_its_own() -> None:
    weights = np.array([[1.0, 0.4], [100.0, 0.4]], np.float32)
    rounded = round_symmetric(weights, axis=0, num_bits=4)
    assert np.allclose(rounded, [[1.0, 3 / 7], [100.0, 0.0]])


def test_float16_does_not_become_infinite() -> None:
    values = np.array([1e6, -1e6, 1 / 3], np.float32)
    assert round_half(values).tolist() == [65504.0, -65504.0, 0.333251953125]


@given(
    values=arrays(np.float32, (7,), elements=st.floats(-50, 50, width=32)),
    low=st.floats(-40, 0),
    high=st.floats(0.001, 40),
)
def test_zero_is_one_of_the_integers_of_a_range(
    values: np.ndarray, low: float, high: float
) -> None:
    step = (high - low) / 255
    rounded = round_affine(values, low=low, high=high, num_bits=8)
    assert round_affine(np.zeros(1), low=low, high=high, num_bits=8).tolist() == [0.0]
    # The zero point is rounded too, so the ends may lie half a step beside those asked for.
    inside = np.clip(values, low, high)
    assert np.all(np.abs(rounded - inside) <= 1.01 * step + 1e-5)
