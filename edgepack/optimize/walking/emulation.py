"""Numbers as a narrower representation would stand for them, still in float32; pure numpy."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# The least scale of ai-edge-quantizer 0.10, so that channels of zeros have one too.
_LEAST: Final = 1e-9


def round_symmetric(
    weights: NDArray[np.float32], *, axis: int, num_bits: int
) -> NDArray[np.float32]:
    """Give weights as symmetric integers with one scale a channel stand for them.

    The lowest integer is left out, and halves go to the even one, as ai-edge-quantizer 0.10
    does.

    Args:
        weights: of any shape.
        axis: of the channels.
        num_bits: of an integer, 2 or more.
    """
    others = tuple(each for each in range(weights.ndim) if each != axis)
    largest = 2 ** (num_bits - 1) - 1
    bounds = np.max(np.abs(weights), axis=others, keepdims=True)
    scales = np.maximum(bounds, _LEAST).astype(np.float64) / largest
    steps = np.clip(np.rint(weights / scales), -largest, largest)
    return np.asarray(steps * scales, dtype=np.float32)


def round_half(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give weights as float16 stands for them; beyond its range its largest number."""
    largest = float(np.finfo(np.float16).max)
    return np.clip(weights, -largest, largest).astype(np.float16).astype(np.float32)


def round_affine(
    array: NDArray[Any], *, low: float, high: float, num_bits: int
) -> NDArray[np.float32]:
    """Give values as integers of a range stand for them; those outside get its ends.

    Args:
        array: of any shape.
        low: the range's end, 0 or below, so that zero is one of the integers.
        high: its other end, 0 or above.
        num_bits: of an integer.
    """
    largest = 2**num_bits - 1
    scale = max((high - low) / largest, _LEAST)
    zero = round(-low / scale)
    steps = np.clip(np.rint(array / scale) + zero, 0, largest)
    return np.asarray((steps - zero) * scale, dtype=np.float32)
