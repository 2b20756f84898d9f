"""Outputs that collapsed without a word: constant, stuck, or not finite; pure numpy.

A quantized model that has broken down still runs, and its answers still have the right shape. So a
candidate's outputs are looked at beside the float reference's, on the same samples. Each check
asks first whether the reference does what the candidate fails to do: a reference that is constant,
saturated or no softmax itself proves nothing.

- Constant: a range is 1% or less of the reference's, where the reference's is a real one: over
  everything; between samples (the mean over positions of maximum minus minimum); or of a tenth of
  the channels (fewer are a warning). Of channels the reference's range counts as real from 0.1 for
  scores (0 to 1), else from 5% of the output's: in an int8 tensor of boxes (0 to 320) and scores (0
  to 1) every score becomes one number.
- Saturated: values at an end of the candidate's range where the reference is more than a tenth of
  its range away from that end, as a share of all values that the reference has away from both.
- Softmax: rows that are 0 or more and add up to 1 in the reference, and not in the candidate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.fidelity.channels import find_channel_axes
from edgepack.optimize.judging.findings import Finding, FindingKind, Severity

_COLLAPSED: Final = 0.01
# A range below this share of the largest value is rounding: nothing to compare with.
_REAL: Final = 1e-3
_REAL_SCORE: Final = 0.1
_REAL_CHANNEL: Final = 0.05
_MAXIMUM_CHANNELS: Final = 4096
_AWAY: Final = 0.1
# Half a step of 8 bits.
_AT_END: Final = 1 / 512
_MINIMUM_STUCK: Final = 4
_STUCK_DOUBTFUL: Final = 0.1
_STUCK_BROKEN: Final = 0.5
_CLIPPED_SAMPLES: Final = 0.1
_MINIMUM_CLIPPED: Final = 2
_SUM_TOLERANCE: Final = 1e-3
_SUM_DOUBTFUL: Final = 0.1
_SUM_BROKEN: Final = 0.5
_CHANNELS_RANK: Final = 2
_BROKEN_CHANNELS: Final = 0.1

_OTHER_RECIPE: Final = (
    "Choose another recipe, or keep the layers before this output in float; more calibration "
    "samples that look like what the model will see may help"
)


def find_collapse(
    reference: Sequence[Sequence[NDArray[Any]]],
    candidate: Sequence[Sequence[NDArray[Any]]],
    *,
    names: tuple[str, ...],
) -> tuple[Finding, ...]:
    """Say which of a candidate's outputs have collapsed.

    Args:
        reference: for each sample the float model's outputs, in the order of `names`.
        candidate: the same samples' outputs in real numbers, in the same shapes.
        names: the outputs' names.
    """
    findings: list[Finding] = []
    for index, name in enumerate(names):
        ours = [np.asarray(sample[index]) for sample in reference]
        theirs = [np.asarray(sample[index]) for sample in candidate]
        if not ours or not any(array.size for array in ours):
            continue
        findings += _check_output(f"output {name!r}", ours, theirs)
    return tuple(findings)


def _check_output(
    label: str, reference: list[NDArray[Any]], candidate: list[NDArray[Any]]
) -> Iterator[Finding]:
    broken = sum(
        int(np.sum(np.isfinite(ours) & ~np.isfinite(theirs)))
        for ours, theirs in zip(reference, candidate, strict=True)
    )
    if broken:
        yield Finding(
            kind=FindingKind.NON_FINITE,
            severity=Severity.FAULT,
            text=f"{label} holds {broken} NaN or infinite values where the float model has numbers",
            remedy="Choose another recipe; float16 overflows beyond 65504",
        )
        return
    if not all(np.isfinite(array).all() for array in reference):
        return  # masks of infinities: nothing below is defined for them
    ours, theirs = _measure(reference), _measure(candidate)
    constant = _find_constant(label, ours, theirs)
    if constant is not None:
        yield constant
        return
    if any(np.issubdtype(array.dtype, np.floating) for array in reference):
        yield from _find_saturated(label, reference, candidate, ours, theirs)
        yield from _find_sums(label, reference, candidate)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Extent:
    """The extremes of an output.

    Attributes:
        low: least value of each position over all samples; of all positions where shapes vary.
        high: likewise, largest.
        num_samples: how many there were; 0 where positions cannot be compared.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    num_samples: int

    @property
    def lowest(self) -> float:
        return float(self.low.min())

    @property
    def highest(self) -> float:
        return float(self.high.max())

    @property
    def width(self) -> float:
        return self.highest - self.lowest

    @property
    def between(self) -> float:
        """How far samples lie apart, in the mean over positions."""
        return float(np.mean(self.high - self.low))

    def ends(self, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give least and largest value of each slice along an axis."""
        others = tuple(each for each in range(self.low.ndim) if each != axis)
        return self.low.min(axis=others), self.high.max(axis=others)


def _measure(arrays: list[NDArray[Any]]) -> _Extent:
    if len({array.shape for array in arrays}) > 1:
        filled = [array for array in arrays if array.size]
        return _Extent(
            low=np.array([min(float(array.min()) for array in filled)]),
            high=np.array([max(float(array.max()) for array in filled)]),
            num_samples=0,
        )
    low = arrays[0].astype(np.float64)
    high = low.copy()
    for array in arrays[1:]:
        np.minimum(low, array, out=low)
        np.maximum(high, array, out=high)
    return _Extent(low=low, high=high, num_samples=len(arrays))


def _find_constant(label: str, ours: _Extent, theirs: _Extent) -> Finding | None:
    real = _REAL * max(abs(ours.lowest), abs(ours.highest))
    if ours.width > real and theirs.width <= _COLLAPSED * ours.width:
        return _constant(
            f"{label} {_tell_range(theirs)}, but the float model's reaches from "
            f"{ours.lowest:.4g} to {ours.highest:.4g}"
        )
    if (
        min(ours.num_samples, theirs.num_samples) > 1
        and ours.between > real
        and theirs.between <= _COLLAPSED * ours.between
    ):
        return _constant(
            f"{label} is the same for all {ours.num_samples} samples (they differ by "
            f"{theirs.between:.2g}), but the float model's differ by {ours.between:.2g}"
        )
    axis = _channel_axis(ours.low.shape) if ours.low.shape == theirs.low.shape else None
    return None if axis is None else _find_constant_channels(label, ours, theirs, axis, real)


def _tell_range(extent: _Extent) -> str:
    if not extent.width:
        return f"is {extent.lowest:.4g} everywhere"
    return f"is between {extent.lowest:.4g} and {extent.highest:.4g} everywhere"


def _constant(text: str, severity: Severity = Severity.FAULT) -> Finding:
    return Finding(kind=FindingKind.CONSTANT, severity=severity, text=text, remedy=_OTHER_RECIPE)


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Give the axis that holds channels; None where that is not clear, or they are too many."""
    axes = find_channel_axes(shape)
    return axes[0] if len(axes) == 1 and shape[axes[0]] <= _MAXIMUM_CHANNELS else None


def _find_constant_channels(
    label: str, ours: _Extent, theirs: _Extent, axis: int, real: float
) -> Finding | None:
    lows, highs = ours.ends(axis)
    is_score = (lows >= 0.0) & (highs <= 1.0)
    widths = highs - lows
    least = np.where(is_score, _REAL_SCORE, max(real, _REAL_CHANNEL * ours.width))
    is_real = (widths > 0) & (widths >= least)
    others_low, others_high = theirs.ends(axis)
    stuck = np.flatnonzero(is_real & (others_high - others_low <= _COLLAPSED * widths))
    if not stuck.size:
        return None
    first = int(stuck[0])
    num_real = int(is_real.sum())
    return _constant(
        f"{label}: {stuck.size} of {num_real} channels (axis {axis}) hold one value: channel "
        f"{first} is {float(others_low[first]):.4g}, but the float model's reaches from "
        f"{float(lows[first]):.4g} to {float(highs[first]):.4g}",
        # One rare class that went silent is no broken model.
        Severity.FAULT if stuck.size >= _BROKEN_CHANNELS * num_real else Severity.WARNING,
    )


def _find_saturated(
    label: str,
    reference: list[NDArray[Any]],
    candidate: list[NDArray[Any]],
    ours: _Extent,
    theirs: _Extent,
) -> Iterator[Finding]:
    low, high = theirs.lowest, theirs.highest
    margin, step = _AWAY * ours.width, _AT_END * theirs.width
    if not margin or not step:
        return
    num_live = num_stuck = num_clipped = 0
    for first, second in zip(reference, candidate, strict=True):
        from_low, from_high = np.abs(first - low) > margin, np.abs(first - high) > margin
        at_low, at_high = second <= low + step, second >= high - step
        num_live += int(np.sum(from_low & from_high))
        stuck = (at_low & from_low) | (at_high & from_high)
        num_stuck += int(np.sum(stuck & from_low & from_high))
        beyond = (at_low & (first < low - margin)) | (at_high & (first > high + margin))
        num_clipped += bool(beyond.any())
    share = num_stuck / num_live if num_live else 0.0
    if num_stuck >= _MINIMUM_STUCK and share >= _STUCK_DOUBTFUL:
        yield Finding(
            kind=FindingKind.SATURATED,
            severity=Severity.FAULT if share >= _STUCK_BROKEN else Severity.WARNING,
            text=f"{label}: {share:.0%} of the values that the float model has in between are "
            f"stuck at {low:.4g} or {high:.4g}",
            remedy=_OTHER_RECIPE,
        )
    elif num_clipped >= max(_MINIMUM_CLIPPED, _CLIPPED_SAMPLES * len(reference)):
        yield Finding(
            kind=FindingKind.SATURATED,
            severity=Severity.WARNING,
            text=f"{label} ends at {low:.4g} and {high:.4g}, and in {num_clipped} of "
            f"{len(reference)} samples the float model goes on beyond ({ours.lowest:.4g} to "
            f"{ours.highest:.4g})",
            remedy="Calibrate with samples that reach these values",
        )


def _find_sums(
    label: str, reference: list[NDArray[Any]], candidate: list[NDArray[Any]]
) -> Iterator[Finding]:
    if any(array.ndim < _CHANNELS_RANK or array.shape[-1] < _CHANNELS_RANK for array in reference):
        return
    if any(array.size and float(array.min()) < 0.0 for array in reference):
        return
    sums = np.concatenate([array.sum(axis=-1, dtype=np.float64).ravel() for array in reference])
    if not sums.size or float(np.max(np.abs(sums - 1.0))) > _SUM_TOLERANCE:
        return
    found = np.concatenate([array.sum(axis=-1, dtype=np.float64).ravel() for array in candidate])
    off = float(np.mean(np.abs(found - 1.0)))
    if off > _SUM_DOUBTFUL:
        yield Finding(
            kind=FindingKind.SOFTMAX_SUM,
            severity=Severity.FAULT if off > _SUM_BROKEN else Severity.WARNING,
            text=f"{label}: the float model's shares add up to 1, these to "
            f"{float(found.mean()):.2f} ({float(found.min()):.2f} to {float(found.max()):.2f})",
            remedy="Keep the softmax in float, or compare the shares with each other only",
        )
