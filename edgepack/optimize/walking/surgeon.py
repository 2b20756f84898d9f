"""Taking single weights out of a layer, and letting the others make up for them; pure numpy.

The squared error of a layer's output is a quadratic form of its weights, so what a weight's
absence costs, and how the rest must change, follows from the second moments of its inputs
(Optimal Brain Surgeon, Hassibi & Stork 1993). Here as in SparseGPT (Frantar & Alistarh,
arXiv:2301.00774): column after column, the choice made block by block for all rows together.
Then each row's remaining weights are solved for at once, which SparseGPT leaves out for
language models' sake and which layers of this size allow.

Arrays are batched over groups of channels: weights (groups, out, in), moments (groups, in, in).
"""

from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

PRUNED_OPS: Final = frozenset({"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
"""What is pruned; a depthwise filter's nine weights save few bytes and cost much."""

_BLOCK: Final = 128
# Solving to the end gives no better model, and takes minutes.
_NUM_STEPS: Final = 10
_TINY: Final = 1e-30


def prune_obs(target: Floats, moments: Floats, share: float) -> NDArray[np.float64]:
    """Give weights of which floor(share * n) are zero and the output's error is least.

    Args:
        target: (groups, out, in) weights with the least error when none is zero.
        moments: (groups, in, in) of the inputs, positive definite.
        share: 0 to below 1, of the weights of all groups together.
    """
    pruned, zero = _prune_columns(target, moments, share)
    return settle(pruned, target, moments, zero)


def _prune_columns(
    target: Floats, moments: Floats, share: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give the weights after SparseGPT, and which of them are zero."""
    left = target.astype(np.float64)
    num_groups, num_out, num_in = left.shape
    upper = inverse_factor(moments.astype(np.float64))
    diagonal = np.diagonal(upper, axis1=1, axis2=2)
    zero = np.zeros(left.shape, np.bool_)
    num_zero = int(Decimal(repr(share)) * left.size)
    done = 0
    for start in range(0, num_in, _BLOCK):
        stop = min(start + _BLOCK, num_in)
        # Each block gives its part; what rounding leaves over is the next one's.
        wanted = num_zero * stop // num_in - done
        done += wanted
        costs = np.square(left[:, :, start:stop] / diagonal[:, np.newaxis, start:stop])
        order = np.argsort(costs, axis=None, kind="stable")[:wanted]
        chosen = np.zeros(costs.size, np.bool_)
        chosen[order] = True
        zero[:, :, start:stop] = chosen.reshape(costs.shape)
        errors = np.zeros((num_groups, num_out, stop - start))
        for column in range(start, stop):
            value = np.where(zero[:, :, column], left[:, :, column], 0.0)
            error = value / diagonal[:, np.newaxis, column]
            left[:, :, column:stop] -= (
                error[..., np.newaxis] * upper[:, np.newaxis, column, column:stop]
            )
            errors[:, :, column - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    left[zero] = 0.0
    return left, zero


def settle(
    start: Floats, target: Floats, moments: Floats, zero: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Give remaining weights whose output is nearer to the target's than it was at the start.

    Conjugate gradients for all rows at once, scaled by the diagonal; each step lessens each
    row's squared error.

    Args:
        start: (groups, out, in), zero where `zero` says.
        target: (groups, out, in).
        moments: (groups, in, in), positive definite.
        zero: (groups, out, in), the weights that stay zero.
    """
    matrix = moments.astype(np.float32)
    scale = 1.0 / np.diagonal(matrix, axis1=1, axis2=2)[:, np.newaxis, :]
    solved = start.astype(np.float32)
    residual = np.where(zero, 0.0, (target - start).astype(np.float32) @ matrix)
    ahead = residual * scale
    direction, size = ahead, np.sum(residual * ahead, axis=2, keepdims=True)
    for _ in range(_NUM_STEPS):
        image = np.where(zero, 0.0, direction @ matrix)
        length = size / np.maximum(np.sum(direction * image, axis=2, keepdims=True), _TINY)
        solved += length * direction
        residual -= length * image
        ahead = residual * scale
        before, size = size, np.sum(residual * ahead, axis=2, keepdims=True)
        direction = ahead + size / np.maximum(before, _TINY) * direction
    return solved.astype(np.float64)


def inverse_factor(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the upper Cholesky factor U of the inverse, U.T @ U = inverse, (groups, in, in)."""
    # Of the matrix turned around both ways, whose inverse's factor is this one, turned back.
    turned = np.linalg.cholesky(moments[:, ::-1, ::-1])
    identity = np.broadcast_to(np.eye(moments.shape[1]), moments.shape)
    return np.asarray(np.linalg.solve(turned, identity))[:, ::-1, ::-1]
