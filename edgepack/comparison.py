"""Sums over two arrays that figures of fidelity are made of; `edgepack.fidelity` defines those."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.shares import jackknife_interval

LIMIT_DB: Final = 300.0


class Judgement(StrEnum):
    """By what an output of a converted model was found to be its source's.

    `SQNR`: the ratio of signal to difference. `ROUNDING`: it differs by no more than rounding
    of the size of value it was computed from. `EQUAL`: its integers or truth values are the
    same. `CONSTANT` and `SATURATED`: it agrees, but is the same on all inputs that were tried,
    or nothing but 0 and 1, so that a wrong model's might agree as well.
    """

    SQNR = "sqnr"
    ROUNDING = "rounding"
    EQUAL = "equal"
    CONSTANT = "constant"
    SATURATED = "saturated"


@dataclass(slots=True)
class Sums:
    """Running sums of one output; per channel of the last axis where it has channels.

    `num_unusable` counts the values that are not finite on both sides.
    """

    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    candidate: float = 0.0
    product: float = 0.0
    max_abs_error: float = 0.0
    num_non_finite: int = 0
    num_elements: int = 0
    num_unusable: int = 0

    def merge(self, other: "Sums") -> None:
        """Add the sums of other samples of the same output."""
        self.signal += other.signal
        self.noise += other.noise
        self.candidate += other.candidate
        self.product += other.product
        self.max_abs_error = max(self.max_abs_error, other.max_abs_error)
        self.num_non_finite += other.num_non_finite
        self.num_elements += other.num_elements
        self.num_unusable += other.num_unusable

    @property
    def is_vacuous(self) -> bool:
        """Whether there were values, but none that is finite on both sides."""
        return 0 < self.num_elements == self.num_unusable


def add_arrays(sums: Sums, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
    """Add a pair of arrays of one shape to the sums."""
    ours = np.asarray(reference, dtype=np.float64)
    theirs = np.asarray(candidate, dtype=np.float64)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    sums.num_elements += finite.size
    sums.num_unusable += finite.size - int(np.count_nonzero(finite))
    if not finite.all():
        alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        sums.num_non_finite += int(np.sum(~finite & ~alike))
        ours, theirs = np.where(finite, ours, 0.0), np.where(finite, theirs, 0.0)
    if ours.size == 0:
        return
    difference = ours - theirs
    shape = (-1, sums.signal.size)
    sums.signal += np.sum(np.square(ours).reshape(shape), axis=0)
    sums.noise += np.sum(np.square(difference).reshape(shape), axis=0)
    sums.candidate += float(np.sum(np.square(theirs)))
    sums.product += float(np.sum(ours * theirs))
    sums.max_abs_error = max(sums.max_abs_error, float(np.max(np.abs(difference))))


def ratio_db(signal: float, noise: float) -> float:
    """Give the ratio of two powers in dB, kept within the limits."""
    if noise == 0:
        return LIMIT_DB
    if signal == 0:
        return -LIMIT_DB
    # The difference of logarithms, as the quotient may overflow.
    ratio = 10.0 * (math.log10(signal) - math.log10(noise))
    return min(LIMIT_DB, max(-LIMIT_DB, ratio))


def ratio_interval_db(
    signals: NDArray[np.float64], noises: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Give the 95% interval of sum(signals) / sum(noises) in dB, over samples.

    The jackknife's, within the limits; None with fewer than two samples.
    """
    signal, noise = float(signals.sum()), float(noises.sum())
    # A difference of sums may end a hair below zero where one sample holds nearly all.
    left_out = [
        ratio_db(max(0.0, signal - float(first)), max(0.0, noise - float(second)))
        for first, second in zip(signals, noises, strict=True)
    ]
    interval = jackknife_interval(ratio_db(signal, noise), left_out)
    if interval is None:
        return None
    return (max(-LIMIT_DB, interval[0]), min(LIMIT_DB, interval[1]))


def cosine(product: float, signal: float, candidate: float) -> float:
    """Give the cosine of two vectors from their product and their squared lengths."""
    if signal == 0 or candidate == 0:
        return 1.0 if signal == candidate else 0.0
    return min(1.0, max(-1.0, product / (math.sqrt(signal) * math.sqrt(candidate))))
