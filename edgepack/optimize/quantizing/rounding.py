"""Rounding weights to integers so that a layer's output stays, not each weight; pure numpy.

Arrays are batched over groups of channels: weights (groups, out, in), second moments of the
inputs (groups, in, in).
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.optimize.recipes.recipe import RangeMethod
from edgepack.optimize.walking.surgeon import inverse_factor

Floats = NDArray[np.floating[Any]]

LARGEST: Final = 127
"""Symmetric int8: -128 is left out, as ai-edge-quantizer 0.10 does."""

_TINY: Final = 1e-12
# Of the mean diagonal, as in GPTQ's own code.
_DAMPING: Final = 0.01
_BLOCK: Final = 128
# Shares of the largest weight that are tried as the end of the range.
_CLIPS: Final = np.linspace(1.0, 0.6, 33)


def find_bounds(
    weights: Floats,
    *,
    method: RangeMethod,
    moments: Floats | None = None,
    is_shared: bool = False,
) -> NDArray[np.float64]:
    """Give the largest magnitude that each output channel's integers reach, (groups, out).

    Args:
        weights: (groups, out, in).
        method: minmax; mse, the end of least squared error among 33 (weighted by the inputs'
            second moments when they are given, so that it is the output's error; Nagel et al.,
            arXiv:2106.08295, 3.1); octav, the fixed point of Sakr et al. (arXiv:2206.06501),
            equation 12 for 8 bits.
        moments: (groups, in, in).
        is_shared: whether all channels share one scale: the bounds are then the same.

    Raises:
        ValueError: a method that is for activations only.
    """
    largest: NDArray[np.float64] = np.maximum(
        np.max(np.abs(weights), axis=2), _TINY, dtype=np.float64
    )
    if is_shared:
        largest = np.full_like(largest, largest.max())
    match method:
        case RangeMethod.MINMAX:
            return largest
        case RangeMethod.MSE:
            return _search_bounds(weights, largest, moments, is_shared=is_shared)
        case RangeMethod.OCTAV if is_shared:
            bound = _iterate_bounds(weights.reshape(1, 1, -1), largest.max(keepdims=True))
            return np.full_like(largest, bound[0, 0])
        case RangeMethod.OCTAV:
            return _iterate_bounds(weights, largest)
        case _:
            raise ValueError(f"{method.value} is no range of weights")


def _search_bounds(
    weights: Floats, largest: NDArray[np.float64], moments: Floats | None, *, is_shared: bool
) -> NDArray[np.float64]:
    diagonal = np.ones(()) if moments is None else np.diagonal(moments, axis1=1, axis2=2)
    importance = diagonal if moments is None else diagonal[:, np.newaxis, :]
    best, errors = largest.copy(), np.full(largest.shape, np.inf)
    for clip in _CLIPS:
        bounds = largest * clip
        noise = round_nearest(weights, bounds) - weights
        error = np.sum(np.square(noise) * importance, axis=2)
        if is_shared:
            error = np.full_like(error, error.sum())
        better = error < errors
        best, errors = np.where(better, bounds, best), np.where(better, error, errors)
    return best


def _iterate_bounds(weights: Floats, largest: NDArray[np.float64]) -> NDArray[np.float64]:
    magnitudes = np.abs(weights).astype(np.float64)
    bounds: NDArray[np.float64] = np.mean(magnitudes, axis=2)
    for _ in range(30):
        outside = magnitudes > bounds[..., np.newaxis]
        above = np.sum(np.where(outside, magnitudes, 0.0), axis=2)
        num_outside, num_inside = outside.sum(axis=2), (~outside & (magnitudes > 0)).sum(axis=2)
        bounds = above / np.maximum(4.0**-8 / 3 * num_inside + num_outside, _TINY)
    return np.asarray(np.clip(bounds, _TINY, largest))


def round_nearest(weights: Floats, bounds: Floats) -> NDArray[np.float64]:
    """Give weights as the nearest multiples of `bounds / 127` within the bounds."""
    scales = (bounds / LARGEST)[..., np.newaxis]
    return np.asarray(np.clip(np.rint(weights / scales), -LARGEST, LARGEST) * scales)


def round_gptq(weights: Floats, bounds: Floats, moments: Floats) -> NDArray[np.float64]:
    """Give weights rounded one input after the other, each making up for those before.

    GPTQ (Frantar et al., arXiv:2210.17323), with the inputs in order of falling second moment
    (its `act_order`), which leaves most inputs to make up for the weightiest ones. Weights that
    are zero stay so: pruning took them out.

    Args:
        weights: (groups, out, in).
        bounds: (groups, out), as `find_bounds` gives them.
        moments: (groups, in, in), symmetric.
    """
    num_in = weights.shape[2]
    diagonal = np.diagonal(moments, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    left = np.take_along_axis(weights.astype(np.float64), order[:, np.newaxis, :], axis=2)
    damped = np.take_along_axis(
        np.take_along_axis(moments.astype(np.float64), order[:, :, np.newaxis], axis=1),
        order[:, np.newaxis, :],
        axis=2,
    )
    kept = left != 0
    mean = np.maximum(diagonal.mean(axis=1), _TINY)
    damped[:, np.arange(num_in), np.arange(num_in)] += (_DAMPING * mean)[:, np.newaxis]
    upper = inverse_factor(damped)
    scales = (bounds / LARGEST)[..., np.newaxis]
    result = np.empty_like(left)
    for start in range(0, num_in, _BLOCK):
        stop = min(start + _BLOCK, num_in)
        errors = np.empty((*left.shape[:2], stop - start))
        for column in range(start, stop):
            value = left[:, :, column : column + 1]
            rounded = np.clip(np.rint(value / scales), -LARGEST, LARGEST) * scales
            rounded *= kept[:, :, column : column + 1]
            result[:, :, column] = rounded[..., 0]
            error = (value - rounded) / upper[:, column, column][:, np.newaxis, np.newaxis]
            left[:, :, column:stop] -= error * upper[:, np.newaxis, column, column:stop]
            errors[:, :, column - start] = error[..., 0]
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(result, back[:, np.newaxis, :], axis=2)
