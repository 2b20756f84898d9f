"""Second moments of layers' inputs and wanted outputs, and least squares from them; pure numpy.

Samples fall into two halves by turns, so that how far a fit may be trusted is judged on samples
that it has not seen: rows of one image are alike, and there are often fewer images than inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# Of each input's own second moment: how strongly weights are held where they were.
_TRUSTS: Final = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
_TINY: Final = 1e-12
MAXIMUM_INPUTS: Final = 4608
"""Most inputs of a layer whose second moments are summed up: 170 MB of them, 512 maps in 3x3."""

# Inputs kept until they are summed up.
_NUM_WAITING: Final = 2**21
_HALVES: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """Sums over rows, for each group of channels.

    Attributes:
        num_rows: how many were summed.
        inputs: (groups, in) sums.
        outputs: (groups, out) sums of what is wanted.
        products: (groups, in, in) sums of inputs by inputs.
        crosses: (groups, in, out) sums of inputs by what is wanted.
        squares: (groups, out) sums of squares of what is wanted.
    """

    num_rows: int
    inputs: NDArray[np.float64]
    outputs: NDArray[np.float64]
    products: NDArray[np.float64]
    crosses: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            num_rows=self.num_rows + other.num_rows,
            inputs=self.inputs + other.inputs,
            outputs=self.outputs + other.outputs,
            products=self.products + other.products,
            crosses=self.crosses + other.crosses,
            squares=self.squares + other.squares,
        )

    def centered(self) -> "Moments":
        """Give the moments about the means, which a bias takes care of."""
        count = max(self.num_rows, 1)
        mean_in, mean_out = self.inputs / count, self.outputs / count
        return Moments(
            num_rows=self.num_rows,
            inputs=self.inputs,
            outputs=self.outputs,
            products=self.products - count * mean_in[:, :, None] * mean_in[:, None, :],
            crosses=self.crosses - count * mean_in[:, :, None] * mean_out[:, None, :],
            squares=self.squares - count * mean_out**2,
        )


class Accumulator:
    """Moments of one layer while its samples go by."""

    def __init__(self) -> None:
        self._halves: list[Moments | None] = [None] * _HALVES
        self._waiting: list[list[tuple[Floats, Floats]]] = [[] for _ in range(_HALVES)]
        self._num_samples = 0

    def add(self, inputs: Floats, wanted: Floats) -> None:
        """Add one sample's rows: (groups, rows, in) and (groups, rows, out)."""
        half = self._num_samples % _HALVES
        self._num_samples += 1
        # One product of many rows is quicker than many of few.
        self._waiting[half].append((inputs, wanted))
        if sum(each.size for each, _ in self._waiting[half]) >= _NUM_WAITING:
            self._sum_up(half)

    def halves(self) -> tuple[Moments, ...]:
        """Give the halves that have samples."""
        for half in range(_HALVES):
            self._sum_up(half)
        return tuple(half for half in self._halves if half is not None)

    def _sum_up(self, half: int) -> None:
        if not self._waiting[half]:
            return
        inputs, wanted = (
            np.concatenate(arrays, axis=1) for arrays in zip(*self._waiting[half], strict=True)
        )
        self._waiting[half].clear()
        part = _multiply(inputs, wanted)
        known = self._halves[half]
        self._halves[half] = part if known is None else known + part


def _multiply(inputs: Floats, wanted: Floats) -> Moments:
    """Sum up float32 rows about near means, and move the sums back to zero in float64.

    An input that varies little about a large mean would lose its variance, in float32, to the
    square of that mean: what is left need not be positive definite.
    """
    # As products, which are many times as quick as sums along the middle axis.
    count = inputs.shape[1]
    ones = np.ones((1, 1, count), np.float32)
    mean_in, mean_out = ((ones @ each)[:, 0] / np.float32(count) for each in (inputs, wanted))
    inputs = inputs - mean_in[:, np.newaxis]
    wanted = wanted - mean_out[:, np.newaxis]
    turned = inputs.transpose(0, 2, 1)
    left, right = mean_in.astype(np.float64), mean_out.astype(np.float64)
    # The means are rounded, so that sums about them are not quite zero.
    rest_in, rest_out = ((ones @ each)[:, 0].astype(np.float64) for each in (inputs, wanted))
    return Moments(
        num_rows=count,
        inputs=rest_in + count * left,
        outputs=rest_out + count * right,
        products=(turned @ inputs).astype(np.float64)
        + _outer(left, rest_in)
        + _outer(rest_in, left)
        + count * _outer(left, left),
        crosses=(turned @ wanted).astype(np.float64)
        + _outer(left, rest_out)
        + _outer(rest_in, right)
        + count * _outer(left, right),
        squares=np.square(wanted).sum(axis=1, dtype=np.float64)
        + 2 * right * rest_out
        + count * right**2,
    )


def _outer(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(left[:, :, np.newaxis] * right[:, np.newaxis, :])


def sum_up(halves: Sequence[Moments]) -> Moments:
    """Give the moments of all samples."""
    return halves[0] if len(halves) == 1 else halves[0] + halves[1]


def fit(
    halves: tuple[Moments, ...], weights: Floats, *, has_bias: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Give the weights, (groups, out, in), and bias, (groups, out), that come nearest.

    Least squares that hold each weight where it was by a share of its input's second moment;
    the share is the one that does best on the half of the samples that it was not fitted to.

    Args:
        halves: what to fit to.
        weights: (groups, out, in) as they were.
        has_bias: whether a bias may make up for means.
    """
    prior = weights.astype(np.float64).transpose(0, 2, 1)
    seen = [half.centered() if has_bias else half for half in halves]
    total = sum_up(halves)
    trust = _best_trust(seen, prior) if len(seen) == _HALVES else _TRUSTS[-1]
    solved = _solve(total.centered() if has_bias else total, prior, trust)
    bias = None
    if has_bias:
        count = max(total.num_rows, 1)
        bias = (total.outputs - np.einsum("gi,gio->go", total.inputs, solved)) / count
    return solved.transpose(0, 2, 1), bias


def choose_trust(halves: tuple[Moments, ...], weights: Floats, kept: NDArray[np.intp]) -> float:
    """Give the share by which moments of a layer must be held back to foretell other samples.

    Judged by how well weights of some inputs, fitted to stand for all, do on the other half.

    Args:
        halves: of the layer's inputs.
        weights: (1, out, in).
        kept: the inputs that remain.
    """
    if len(halves) < _HALVES:
        return _TRUSTS[-1]
    matrix = weights[0].astype(np.float64)
    prior = matrix[np.newaxis][:, :, kept].transpose(0, 2, 1)
    parts = []
    for half in (each.centered() for each in halves):
        reads = half.products[0] @ matrix.T
        parts.append(
            Moments(
                num_rows=half.num_rows,
                inputs=half.inputs,
                outputs=half.outputs,
                products=half.products[:, kept][:, :, kept],
                crosses=reads[np.newaxis, kept],
                squares=np.einsum("oi,io->o", matrix, reads)[np.newaxis],
            )
        )
    return _best_trust(parts, prior)


def _best_trust(halves: Sequence[Moments], prior: Floats) -> float:
    """Give the trust whose fit to either half does best on the other.

    From the most cautious on, until it gets worse: with fewer rows than inputs the other end is
    no better than chance.
    """
    least, best = np.inf, _TRUSTS[-1]
    for trust in reversed(_TRUSTS):
        loss = sum(
            _loss(test, _solve(train, prior, trust)) for train, test in (halves, halves[::-1])
        )
        if loss > least:
            break
        least, best = loss, trust
    return best


def _solve(moments: Moments, prior: Floats, trust: float) -> NDArray[np.float64]:
    """Give (groups, in, out) with the least error, held to the prior."""
    diagonal = np.diagonal(moments.products, axis1=1, axis2=2)
    mean = np.maximum(diagonal.mean(axis=1, keepdims=True), _TINY)
    # An input that never varies must not leave the matrix singular.
    held = trust * diagonal + 1e-6 * mean
    damped = moments.products.copy()
    places = np.arange(damped.shape[1])
    damped[:, places, places] += held
    return np.asarray(np.linalg.solve(damped, moments.crosses + held[:, :, np.newaxis] * prior))


def _loss(moments: Moments, solved: Floats) -> float:
    """Give the squared error of weights on moments."""
    reads = moments.products @ solved
    return float(
        np.sum(moments.squares) - 2 * np.sum(moments.crosses * solved) + np.sum(reads * solved)
    )
