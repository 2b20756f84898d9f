"""Figures of how near two models' outputs are, and what they are worth; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.fidelity import Judgement, compare_outputs, sqnr_db
from edgepack.importers.slices import WorstSlice, find_worst_slice

Outputs = Sequence[Sequence[NDArray[Any]]]
"""One sequence of output arrays for each sample."""

# Four roundings of float32. Two right implementations of a sigmoid differ by up to 1.3e-7
# (ONNX Runtime 1.26 against LiteRT 2.3 on PP-OCRv4's detector).
ROUNDING: Final = 5e-7
# By how many roundings an output must move before it shows that anything was computed.
_TOLD_APART: Final = 10.0
# Share of integers that must hold still when the inputs move, for the others to be ties.
_LEAST_JUDGED: Final = 0.5
# Share of the inputs' size below which a value is zero, whatever gave it.
_ZERO: Final = 1e-12
# A value near zero that moves by a tenth with its inputs' last bits is only their rounding.
_NOISE_DB: Final = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFigures:
    """How near one output is to the source's on one set of samples.

    Attributes:
        output: the output's name.
        sqnr_db: signal to difference, in dB; 300 when equal.
        max_abs_error: largest difference of an element.
        cosine: cosine of the angle between both as vectors.
        top1_agreement: share of rows with the same largest class; None for other outputs.
        equal_share: share of equal integers or truth values; None for floats. Those that the
            source itself changes when its inputs move by a rounding are left out.
        response_db: signal to the change of the *source's* output when its inputs move by two
            roundings, in dB; None when there is no float input.
        scale: the size of the values this output was computed from, where that is larger than
            what came out and so decides the rounding; None where it is not known to be.
        worst_slice: the channel or the like that is farthest off; None when no slice differs
            by more than rounding.
        num_non_finite: NaNs and infinities where the source has another value.
        is_finite: the source gives finite values alone.
        worst_sample: place in the set of the sample that differs most.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float
    top1_agreement: float | None
    equal_share: float | None
    response_db: float | None
    scale: float | None
    worst_slice: WorstSlice | None
    num_non_finite: int
    is_finite: bool
    worst_sample: int


def measure_outputs(
    reference: Outputs,
    results: Outputs,
    moved: Outputs,
    *,
    names: tuple[str, ...],
    scales: Sequence[float],
    zero_scale: float,
) -> tuple[OutputFigures, ...]:
    """Compare a converted model's outputs with its source's.

    Args:
        reference: the source's outputs of each sample, in the converted model's layout.
        results: the converted model's.
        moved: the source's for the first samples again, their inputs moved by two roundings;
            empty when nothing can be moved.
        names: the outputs' names.
        scales: for each output the size its values are computed at, such as 1 for a sigmoid;
            0 when it is not known.
        zero_scale: an output that is zero, or only the rounding of values of this size, is held
            to that rounding alone. A small one that the source tells well from zero is not.

    Raises:
        ModelError: the outputs differ in number or in shape.
    """
    fidelity = compare_outputs(reference, results, names=names)
    figures = []
    for index, output in enumerate(fidelity.outputs):
        ours, theirs, again = (
            [sample[index] for sample in each] for each in (reference, results, moved)
        )
        is_float = all(array.dtype.kind == "f" for array in ours)
        scale = scales[index]
        response_db = _response_db(ours, again) if is_float and again else None
        if is_float and _is_zero(ours, zero_scale, response_db):
            scale = max(scale, zero_scale)
        figures.append(
            OutputFigures(
                output=output.output,
                sqnr_db=output.sqnr_db,
                max_abs_error=output.max_abs_error,
                cosine=output.cosine,
                top1_agreement=output.top1_agreement,
                equal_share=None if is_float else _equal_share(ours, theirs, again),
                response_db=response_db,
                scale=scale if is_float and scale > 0 else None,
                worst_slice=find_worst_slice(ours, theirs) if is_float else None,
                num_non_finite=output.num_non_finite,
                is_finite=all(bool(np.isfinite(array).all()) for array in ours),
                worst_sample=_worst_sample(ours, theirs),
            )
        )
    return tuple(figures)


def find_constant(reference: Outputs, *, scales: Sequence[float]) -> tuple[Judgement | None, ...]:
    """Say of each output how little it depends on the inputs: constant, saturated, or None.

    An output that is the same whatever goes in agrees with a wrong model's just as well. A
    single sample shows nothing of this.

    Args:
        reference: the source's outputs of every sample of every set.
        scales: as in `measure_outputs`.
    """
    found: list[Judgement | None] = []
    for index, scale in enumerate(scales):
        arrays = [np.asarray(sample[index]) for sample in reference]
        found.append(_constancy(arrays, scale))
    return tuple(found)


def _constancy(arrays: Sequence[NDArray[Any]], scale: float) -> Judgement | None:
    if len(arrays) < 2 or len({array.shape for array in arrays}) > 1 or not arrays[0].size:  # noqa: PLR2004 - a pair
        return None
    stacked = np.stack(arrays).astype(np.float64)
    if not np.isfinite(stacked).all():
        return None
    spread = float(np.max(np.ptp(stacked, axis=0)))
    if arrays[0].dtype.kind != "f":
        return None if spread else Judgement.CONSTANT
    largest = float(np.max(np.abs(stacked)))
    if spread <= _TOLD_APART * ROUNDING * max(scale, largest):
        return Judgement.CONSTANT
    whole = np.round(stacked)
    # Zeros alone are small values of any kind, not a sigmoid's end.
    is_saturated = (
        largest <= 1.0 + ROUNDING
        and bool(whole.any())
        and bool(np.all(np.abs(stacked - whole) <= _TOLD_APART * ROUNDING))
    )
    return Judgement.SATURATED if is_saturated else None


def _is_zero(arrays: Sequence[NDArray[Any]], scale: float, response_db: float | None) -> bool:
    largest = max((float(np.max(np.abs(each))) for each in arrays if each.size), default=0.0)
    if largest <= _ZERO * scale:
        return True
    is_noise = response_db is not None and response_db < _NOISE_DB
    return is_noise and largest <= 2 * ROUNDING * scale


def _equal_share(
    ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]], again: Sequence[NDArray[Any]]
) -> float:
    num_equal, num_judged, num_same, num_all = 0, 0, 0, 0
    for place, (first, second) in enumerate(zip(ours, theirs, strict=True)):
        equal = np.asarray(first == second)
        num_same += int(np.count_nonzero(equal))
        num_all += equal.size
        if place < len(again):
            # What flips with the last bit of an input is a tie, and either answer is right.
            equal = equal[first == again[place]]
        num_equal += int(np.count_nonzero(equal))
        num_judged += equal.size
    # Few that stay say nothing of the rest: then nothing is left out.
    if num_judged < _LEAST_JUDGED * num_all:
        return num_same / num_all
    return num_equal / num_judged if num_judged else 1.0


def _worst_sample(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> int:
    return int(np.argmax([_error(*pair) for pair in zip(ours, theirs, strict=True)]))


def _error(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Give the power of the difference; infinite where one alone is not finite."""
    both = [each.astype(np.float64) for each in (first, second)]
    finite = [np.isfinite(each) for each in both]
    if np.any(finite[0] != finite[1]):
        return float("inf")
    return float(np.sum(np.square(both[0][finite[0]] - both[1][finite[0]])))


def _response_db(ours: Sequence[NDArray[Any]], again: Sequence[NDArray[Any]]) -> float:
    pairs = [(first, second) for first, second in zip(ours, again, strict=False)]
    flat = [np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1)]
    return sqnr_db(flat[0], flat[1])
