"""Ranges of activations: what integers stand for, from histograms of what was seen; pure.

A histogram's bins are a power of two wide and lie at multiples of their width, so that bins
are joined in pairs, exactly, when a value is seen that lies beyond them. What comes of it does
not depend on the order of the values, and takes 32 KiB however many there are.

Every method gives an interval that holds 0 and lies within what was seen. Integers of 8 bits
are spread over it asymmetrically; those of 16 bits symmetrically (ai-edge-quantizer 0.10).
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.optimize.recipes.recipe import RangeMethod

_NUM_BINS: Final = 4096
# The finest bins: below this an index of a bin in float64 would not be exact.
_LARGEST_INDEX: Final = 2**40
_FINEST: Final = -200
# What lies beyond is padding of masks, such as bfloat16's least number, and sets no range
# (ai-edge-quantizer 0.10 leaves the same out).
_LARGEST_VALUE: Final = 3e38
_PERCENTILE: Final = 99.99
_SYMMETRIC_BITS: Final = 16
_ROUNDS: Final = 4
# Shares of an extreme to try for an end of a range, and then around the best of them.
_COARSE: Final = np.arange(0.05, 1.0, 0.05)
_FINE: Final = np.arange(-0.04, 0.05, 0.01)
_KL_STEPS: Final = 128
_NEWTON_STEPS: Final = 100
_EMPTY: Final = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Histogram:
    """What was seen of one tensor.

    Attributes:
        exponent: bins are 2**exponent wide.
        first: the first bin begins at first * 2**exponent.
        counts: (num_bins,) int64, values other than 0 in each bin.
        num_zeros: values that are exactly 0, which every range represents without error.
        low: least value, 0 when none was seen.
        high: greatest value.
    """

    exponent: int = _FINEST
    first: int = 0
    counts: NDArray[np.int64]
    num_zeros: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def num_values(self) -> int:
        """How many values were seen."""
        return int(self.counts.sum()) + self.num_zeros

    @property
    def centers(self) -> NDArray[np.float64]:
        """What stands for the values of each bin: its middle, or the extreme that lies in it."""
        middles = (self.first + np.arange(len(self.counts)) + 0.5) * 2.0**self.exponent
        return np.clip(middles, self.low, self.high)


EMPTY: Final = Histogram(counts=np.zeros(0, np.int64))


def add_values(
    histogram: Histogram, values: NDArray[Any], weights: NDArray[np.int64] | None = None
) -> Histogram:
    """Give a histogram with more values in it, in any order and any portions the same one.

    Args:
        histogram: what was seen before.
        values: real or integer, of any shape; what is not finite is passed over.
        weights: how many times each counts, in the shape of the values; once when None.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    is_kept = np.abs(flat) < _LARGEST_VALUE
    times = None if weights is None else weights.reshape(-1)[is_kept]
    flat = flat[is_kept]
    if not flat.size:
        return histogram
    is_first = not histogram.num_values and not len(histogram.counts)
    low = float(flat.min()) if is_first else min(float(flat.min()), histogram.low)
    high = float(flat.max()) if is_first else max(float(flat.max()), histogram.high)
    is_loud = flat != 0
    loud = flat[is_loud]
    num_silent = flat.size - loud.size if times is None else int(times[~is_loud].sum())
    num_zeros = histogram.num_zeros + num_silent
    if not loud.size:
        return Histogram(
            exponent=histogram.exponent,
            first=histogram.first,
            counts=histogram.counts,
            num_zeros=num_zeros,
            low=low,
            high=high,
        )
    # Zeros are in no bin, so that they do not widen the bins of values far from them.
    begin, end = float(loud.min()), float(loud.max())
    if len(histogram.counts):
        width = 2.0**histogram.exponent
        begin = min(begin, histogram.first * width)
        end = max(end, (histogram.first + len(histogram.counts) - 1) * width)
    exponent = _fit_exponent(begin, end, histogram.exponent)
    width = 2.0**exponent
    first = math.floor(begin / width)
    counts = np.bincount(
        np.floor(loud / width).astype(np.int64) - first,
        weights=None if times is None else times[is_loud],
        minlength=math.floor(end / width) - first + 1,
    ).astype(np.int64)
    if len(histogram.counts):
        places = (histogram.first + np.arange(len(histogram.counts))) >> (
            exponent - histogram.exponent
        )
        np.add.at(counts, places - first, histogram.counts)
    return Histogram(
        exponent=exponent, first=first, counts=counts, num_zeros=num_zeros, low=low, high=high
    )


def _fit_exponent(begin: float, end: float, least: int) -> int:
    """Give the finest width at which few enough bins hold both values."""
    largest = max(abs(begin), abs(end))
    span = max(end - begin, largest / _LARGEST_INDEX)
    exponent = max(least, math.frexp(span / _NUM_BINS)[1] - 2)
    while True:
        first, last = math.floor(begin / 2.0**exponent), math.floor(end / 2.0**exponent)
        if last - first < _NUM_BINS and max(abs(first), abs(last)) <= _LARGEST_INDEX:
            return exponent
        exponent += 1


def find_range(
    histogram: Histogram, method: RangeMethod, *, num_bits: int = 8
) -> tuple[float, float]:
    """Give the range that integers stand for: least and greatest real value, with 0 between.

    Args:
        histogram: what was seen of the tensor.
        method: any but `best`, which is a choice among the others.
        num_bits: 8 or 16.

    Raises:
        ValueError: no such method.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not len(histogram.counts):
        return low, high
    match method:
        case RangeMethod.MINMAX:
            return low, high
        case RangeMethod.PERCENTILE:
            return _cut_tails(histogram, _PERCENTILE)
        case RangeMethod.MSE:
            return _search_least_error(histogram, num_bits)
        case RangeMethod.OCTAV:
            bound = _solve_octav(histogram, num_bits)
        case RangeMethod.KL:
            bound = _search_least_divergence(histogram, num_bits)
        case RangeMethod.BEST:
            raise ValueError("best is a choice among ranges")
    return max(low, -bound), min(high, bound)


def find_best_range(
    histogram: Histogram, weighted: Histogram | None, *, num_bits: int = 8
) -> tuple[float, float]:
    """Give the range that does least harm to the layers that read a tensor.

    A layer's output errs by the error of each input channel times the weights it meets, so
    each channel's squared error counts as much as the squares of those weights add up to. Of
    the ranges of all methods the one of the least such error is taken, and of OCTAV where no
    layer reads the tensor. On two real models a choice by whole-model errors over a few
    samples did better on those and worse on others.

    Args:
        histogram: what was seen of the tensor.
        weighted: the same with each value counted by its channel's weights; None when no
            layer reads it.
        num_bits: 8 or 16.
    """
    if weighted is None or not len(weighted.counts):
        return find_range(histogram, RangeMethod.OCTAV, num_bits=num_bits)
    ranges = [
        find_range(histogram, method, num_bits=num_bits)
        for method in RangeMethod
        if method is not RangeMethod.BEST
    ]
    ranges.append(find_range(weighted, RangeMethod.MSE, num_bits=num_bits))
    return min(ranges, key=lambda ends: (measure_error(weighted, *ends, num_bits=num_bits), ends))


def measure_error(histogram: Histogram, low: float, high: float, *, num_bits: int = 8) -> float:
    """Give the mean squared error of the values seen when integers stand for a range.

    Zero is always represented exactly, as the integers' zero point is rounded to make it so.
    Where the integers' steps are finer than the bins, what a value rounds to is not known, and
    step**2 / 12 stands for its squared error.
    """
    step, zero_point, limits = _make_grid(low, high, num_bits)
    centers = histogram.centers
    rounded = np.clip(np.rint(centers / step) + zero_point, *limits)
    squared = np.square(centers - (rounded - zero_point) * step)
    if step < 2.0**histogram.exponent:
        inside = (rounded > limits[0]) & (rounded < limits[1])
        squared = np.where(inside, step**2 / 12, squared)
    return float(squared @ histogram.counts) / max(histogram.num_values, 1)


def _make_grid(low: float, high: float, num_bits: int) -> tuple[float, float, tuple[int, int]]:
    """Give step, zero point and limits of a range's integers, as ai-edge-quantizer 0.10 does."""
    half = 2 ** (num_bits - 1)
    if num_bits == _SYMMETRIC_BITS:
        return max(high, -low, _EMPTY) / (half - 1), 0.0, (1 - half, half - 1)
    step = max(high - low, _EMPTY) / (2 * half - 1)
    return step, float(np.rint(-half - low / step)), (-half, half - 1)


def _cut_tails(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Leave out the same share of the values at both ends.

    McKinstry et al., "Discovering low-precision networks close to full-precision networks for
    efficient embedded inference", 2018, arXiv:1809.04191, who keep 99.99% for 8 bits.
    """
    total = histogram.num_values
    left_out = (1 - percentile / 100) * total / 2
    ends = (histogram.first + np.arange(len(histogram.counts))) * 2.0**histogram.exponent
    # Zeros lie between the bins of negative and those of positive values.
    is_positive = ends >= 0
    below = np.cumsum(histogram.counts) + np.where(is_positive, histogram.num_zeros, 0)
    above = np.cumsum(histogram.counts[::-1])[::-1] + np.where(is_positive, 0, histogram.num_zeros)
    width = 2.0**histogram.exponent
    first = int(np.argmax(below > left_out))
    last = len(ends) - 1 - int(np.argmax((above > left_out)[::-1]))
    low = max(float(ends[first]), histogram.low)
    high = min(float(ends[last] + width), histogram.high)
    return min(low, 0.0), max(high, 0.0)


def _search_least_error(histogram: Histogram, num_bits: int) -> tuple[float, float]:
    """Give the range of the least mean squared error, one end after the other.

    Banner, Nahshan and Soudry, "Post training 4-bit quantization of convolutional networks for
    rapid-deployment", NeurIPS 2019, arXiv:1810.05723; as a search over both ends, Nagel et al.,
    "A white paper on neural network quantization", 2021, arXiv:2106.08295.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    best = (measure_error(histogram, low, high, num_bits=num_bits), low, high)
    for _ in range(_ROUNDS):
        before = best
        for end in (1, 2):
            whole = (low, high)[end - 1]
            if whole == 0:
                continue
            for shares in (_COARSE, _FINE + best[end] / whole):
                for share in shares[(shares > 0) & (shares < 1)]:
                    ends = [best[1], best[2]]
                    ends[end - 1] = float(whole * share)
                    error = measure_error(histogram, ends[0], ends[1], num_bits=num_bits)
                    best = min(best, (error, ends[0], ends[1]))
        if best == before or 0 in {low, high}:
            break
    return best[1], best[2]


def _solve_octav(histogram: Histogram, num_bits: int) -> float:
    """Give the clipping bound of the least expected error, by Newton's recursion.

    Sakr et al., "Optimal clipping and magnitude-aware differentiation for improved quantization-
    aware training", ICML 2022, arXiv:2206.06501, equation 6: s' = E[|x|; |x| > s] /
    (c 4**-B P(0 < |x| <= s) + P(|x| > s)), with c = 1/3 for integers over [-s, s]. Over an
    interval that is shorter on one side c is smaller by its square: 1/12 over [0, s].
    """
    magnitudes = np.abs(histogram.centers)
    counts = histogram.counts.astype(np.float64)
    peak = float(magnitudes.max())
    span = max(histogram.high, 0.0) - min(histogram.low, 0.0)
    if num_bits == _SYMMETRIC_BITS:
        span = 2 * peak
    noise = (span / peak) ** 2 / 12 * 4.0**-num_bits
    bound = float(magnitudes @ counts / counts.sum())
    for _ in range(_NEWTON_STEPS):
        is_beyond = magnitudes > bound
        beyond, within = float(counts[is_beyond].sum()), float(counts[~is_beyond].sum())
        following = float(magnitudes[is_beyond] @ counts[is_beyond]) / (noise * within + beyond)
        if not beyond or abs(following - bound) <= 1e-9 * bound:
            break
        bound = following
    return bound


def _search_least_divergence(histogram: Histogram, num_bits: int) -> float:
    """Give the clipping bound whose quantized distribution diverges least from the real one.

    Migacz, "8-bit inference with TensorRT", GTC 2017: the Kullback-Leibler divergence between
    the magnitudes below a bound, what lies beyond added to the last bin, and the same in as
    many bins as there are integers. Bins are thousands: for 16 bits it is the maximum.
    """
    magnitudes = np.abs(histogram.first + np.arange(len(histogram.counts)) + 0.5).astype(np.int64)
    # Values far from 0 and near each other lie in fine bins of large numbers.
    shift = max(0, int(magnitudes.max()).bit_length() - _NUM_BINS.bit_length() + 1)
    counts = np.bincount(magnitudes >> shift, weights=histogram.counts).astype(np.float64)
    width = 2.0 ** (histogram.exponent + shift)
    peak = max(histogram.high, -histogram.low)
    span = max(histogram.high, 0.0) - min(histogram.low, 0.0)
    num_levels = round(2**num_bits * peak / (2 * peak if num_bits == _SYMMETRIC_BITS else span))
    if len(counts) <= num_levels:
        return peak
    sizes = np.unique(np.linspace(num_levels, len(counts), _KL_STEPS).astype(np.int64))
    divergences = [_diverge(counts, int(size), num_levels) for size in sizes]
    return float(min(sizes[int(np.argmin(divergences))] * width, peak))


def _diverge(counts: NDArray[np.float64], size: int, num_levels: int) -> float:
    real = counts[:size].copy()
    groups = np.arange(size) * num_levels // size
    totals = np.bincount(groups, weights=real)
    occupied = np.bincount(groups, weights=real > 0)
    quantized = np.where(real > 0, (totals / np.maximum(occupied, 1))[groups], 0.0)
    real[-1] += counts[size:].sum()
    if not quantized.sum():
        return math.inf
    first, second = real / real.sum(), quantized / quantized.sum()
    seen = first > 0
    return float(first[seen] @ np.log(first[seen] / np.maximum(second[seen], _EMPTY)))
