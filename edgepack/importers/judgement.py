"""Judging figures of parity: which outputs are near enough, by which measure, and why; pure.

Float outputs must reach a signal-to-noise ratio. Where values are so small that the ratio is
that of rounding errors, the error is held against the rounding itself: of the size at which a
sigmoid is computed, of the inputs' size for an output of zeros, or of what the source's own
answer moves by when its inputs move by their last bits. Integers and truth values must be equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from edgepack.comparison import LIMIT_DB
from edgepack.fidelity import Judgement
from edgepack.importers.figures import ROUNDING, OutputFigures
from edgepack.importers.slices import WorstSlice

# How far below the limit a single slice may be: real conversions lose some dB in small values,
# and a wrong one reads about 0 dB.
_SLICE_MARGIN_DB: Final = 40.0
# What a conversion may add to the source's own answer to two roundings of its inputs: every
# layer rounds, and adds in another order. Up to 12 dB were seen on real models (PP-OCRv4).
_RESPONSE_MARGIN_DB: Final = 24.0
# Below this no answer of the source counts as an excuse: it says nothing on such inputs.
_RESPONSE_FLOOR_DB: Final = 20.0
# A wrong slice reads about 0 dB here, too.
_OWN_SLICE_MARGIN_DB: Final = 15.0
# One label in a thousand may lie on an edge that the moved inputs did not find.
_UNEQUAL_SHARE: Final = 0.001

T = TypeVar("T")

FigureSet = tuple[int | None, int, tuple[OutputFigures, ...]]
"""The seed of a set of samples, their number, and each output's figures on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """How near one output of the converted model is to the source's.

    Attributes:
        output: the output's name.
        sqnr_db: signal to difference, in dB; 300 when equal.
        max_abs_error: largest difference of an element.
        cosine: cosine of the angle between both as vectors.
        judgement: by what it passed. A constant or saturated output agrees as well, but no
            input that was tried shows that it would on others.
        top1_agreement: share of rows with the same largest class; None for other outputs.
        equal_share: share of equal integers or truth values; None for floats.
        scale: size of the values whose rounding it was held to; None for other judgements,
            and where the source's own answer to moved inputs gave the measure.
        worst_slice: the channel or the like that is farthest off; None when no slice differs
            by more than rounding.
        seed: of the generated samples that these figures are of, the worst ones; None for the
            user's.
        worst_sample: place in that set of the sample that differs most.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float
    judgement: Judgement
    top1_agreement: float | None = None
    equal_share: float | None = None
    scale: float | None = None
    worst_slice: WorstSlice | None = None
    seed: int | None = None
    worst_sample: int = 0


def judge_output(
    figures: Sequence[tuple[int | None, OutputFigures]],
    *,
    constancy: Judgement | None,
    minimum_db: float,
) -> tuple[OutputParity, float | None]:
    """Judge an output by its worst set of samples.

    Args:
        figures: the seed and the figures of each set, at least one.
        constancy: of `find_constant`.
        minimum_db: signal-to-noise ratio to reach.

    Returns:
        the worst set's figures, and None where they pass, else the limit in dB that they
        would just keep.
    """
    judged = [(seed, each, *_judge(each, minimum_db)) for seed, each in figures]
    seed, worst, judgement, missed = min(
        judged, key=lambda entry: (entry[3] is None, entry[3] or 0.0, entry[1].sqnr_db)
    )
    if missed is None and constancy is not None:
        judgement = constancy
    parity = OutputParity(
        output=worst.output,
        sqnr_db=worst.sqnr_db,
        max_abs_error=worst.max_abs_error,
        cosine=worst.cosine,
        judgement=judgement,
        top1_agreement=worst.top1_agreement,
        equal_share=worst.equal_share,
        scale=worst.scale if judgement is Judgement.ROUNDING else None,
        worst_slice=worst.worst_slice,
        seed=seed,
        worst_sample=worst.worst_sample,
    )
    return parity, missed


def find_telling(sets: Sequence[FigureSet]) -> list[FigureSet]:
    """Give the sets that can tell a right conversion from a wrong one; all where none can.

    On the others the source gives no finite numbers, or does not answer nearly the same when its
    inputs move by their last bits. Two right implementations differ as much there: values that
    grow from layer to layer, as inputs of another range than was trained on make them, drive
    gates to one side or the other.
    """
    finite = [each for each in sets if all(output.is_finite for output in each[2])]
    steady = [each for each in finite if all(_is_steady(output) for output in each[2])]
    return steady or finite or list(sets)


def find_telling_samples(sets: Sequence[FigureSet], samples: Sequence[T]) -> list[T]:
    """Give what stands for the samples of `find_telling`'s sets; of others nothing counts.

    Args:
        sets: all of them.
        samples: one value for each of their samples, set by set; what follows is left out.
    """
    told = find_telling(sets)
    found: list[T] = []
    start = 0
    for each in sets:
        end = start + each[1]
        if any(each is one for one in told):
            found += samples[start:end]
        start = end
    return found


def _is_steady(figures: OutputFigures) -> bool:
    response_db = figures.response_db
    return response_db is None or response_db >= _RESPONSE_FLOOR_DB + _RESPONSE_MARGIN_DB


def describe_output(parity: OutputParity, *, missed: float | None, minimum_db: float) -> str:
    """Give one line on an output for a message."""
    if parity.sqnr_db == -LIMIT_DB and parity.max_abs_error == 0:
        return f"{parity.output}: no finite value to compare  <- too far"
    if parity.equal_share is not None:
        text = f"{parity.output}: {parity.equal_share:.2%} of the values are equal"
    else:
        text = (
            f"{parity.output}: SQNR {parity.sqnr_db:.1f} dB, max abs error "
            f"{parity.max_abs_error:.3g}, cosine {parity.cosine:.6f}"
        )
        if parity.top1_agreement is not None and parity.top1_agreement < 1:
            text += f", top-1 {parity.top1_agreement:.1%}"
    part = parity.worst_slice
    if missed is not None and part is not None and parity.sqnr_db >= minimum_db:
        text += f", but index {part.index} of axis {part.axis} has {part.sqnr_db:.1f} dB"
    if parity.seed is not None:
        text += f" (seed {parity.seed})"
    return f"{text}  <- too far" if missed is not None else f"{text}{_REASONS[parity.judgement]}"


_REASONS: Final = {
    Judgement.SQNR: "",
    Judgement.EQUAL: "",
    Judgement.ROUNDING: ", within rounding",
    Judgement.CONSTANT: ", constant on these inputs",
    Judgement.SATURATED: ", saturated on these inputs",
}


def _judge(figures: OutputFigures, minimum_db: float) -> tuple[Judgement, float | None]:
    """Give by what an output is judged, and None or the limit it would just keep."""
    if figures.equal_share is not None:
        # Of integers the share that differs is the noise; their size means nothing.
        wrong = 1.0 - figures.equal_share
        reached = LIMIT_DB if wrong <= _UNEQUAL_SHARE else -10.0 * math.log10(wrong)
        return Judgement.EQUAL, None if reached >= minimum_db else reached
    reached = _reached_db(figures)
    if reached >= minimum_db:
        return Judgement.SQNR, None
    if _is_rounding(figures):
        return Judgement.ROUNDING, None
    return Judgement.SQNR, reached


def _is_rounding(figures: OutputFigures) -> bool:
    shows_nothing = figures.sqnr_db == -LIMIT_DB and figures.max_abs_error == 0
    if figures.num_non_finite or shows_nothing:
        return False
    if figures.scale is not None and figures.max_abs_error <= ROUNDING * figures.scale:
        return True
    if figures.response_db is None:
        return False
    own = max(_RESPONSE_FLOOR_DB, figures.response_db - _RESPONSE_MARGIN_DB)
    part = figures.worst_slice
    is_even = part is None or part.sqnr_db >= own - _OWN_SLICE_MARGIN_DB
    return figures.sqnr_db >= own and is_even


def _reached_db(figures: OutputFigures) -> float:
    """Give the limit that an output just keeps, as a whole and in each slice."""
    if figures.worst_slice is None:
        return figures.sqnr_db
    return min(figures.sqnr_db, figures.worst_slice.sqnr_db + _SLICE_MARGIN_DB)
