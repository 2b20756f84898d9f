"""How near a candidate's outputs are to a reference's; pure numpy.

Definitions, for one output over *all* samples and elements together, r the reference and c
the candidate, in float64:

- SQNR = 10 log10(sum(r**2) / sum((r - c)**2)) in dB, kept within -300 and 300. Equal arrays
  read 300; a candidate with a NaN or an infinity where the reference has another value reads
  -300, and `num_non_finite` says how many. Positions where both hold the same infinity, or
  both NaN (masks do), count as equal; an output of nothing else shows nothing, and reads -300.
- Worst channel: the least SQNR of one slice along the last axis, among the slices whose
  reference is not all zero (SQNR says nothing of those).
- Cosine = sum(r*c) / sqrt(sum(r**2) sum(c**2)); 1 when both are all zero, 0 when one is.
- Top-1 agreement: share of rows whose largest class is the same, for float outputs of rank 2
  with two classes or more; intervals are Wilson's, 95%.
- An output of whole numbers (32 or 64 bits, in both) holds ids, such as the classes of an
  argmax: id 7 is no nearer to 8 than to 900. Its agreement is the share of equal ids, and its
  SQNR counts one unit of signal an id and one of noise a wrong id: 20 dB is 1% wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import Fields, describe, join_faults
from edgepack.comparison import LIMIT_DB, Judgement, Sums, add_arrays, cosine, ratio_db
from edgepack.errors import DataError, ModelError
from edgepack.shares import paired_drop_interval, wilson_interval

_CLASS_RANK: Final = 2
_MINIMUM_CLASSES: Final = 2
_ID_BYTES: Final = 4

__all__ = [
    "LIMIT_DB",
    "Fidelity",
    "Judgement",
    "OutputFidelity",
    "compare_outputs",
    "paired_drop_interval",
    "parse_fidelity",
    "read_fidelity",
    "sqnr_db",
    "to_json",
    "wilson_interval",
]

Outputs = Sequence[Sequence[NDArray[Any]]]
"""One sequence of output arrays for each sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFidelity:
    """How near one output is to the reference; the module says how each figure is defined.

    Attributes:
        output: name of the output.
        sqnr_db: over all samples, -300 to 300.
        max_abs_error: largest absolute difference of finite values.
        cosine: similarity of the two as vectors, -1 to 1.
        worst_channel: index on the last axis; None for an output of one channel.
        worst_channel_sqnr_db: its SQNR.
        top1_agreement: share of rows with the same largest class; None for other outputs.
        num_non_finite: candidate's NaNs and infinities where the reference has another value.
        is_index: whether it holds ids, which are the same or not.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float
    worst_channel: int | None = None
    worst_channel_sqnr_db: float | None = None
    top1_agreement: float | None = None
    num_non_finite: int = 0
    is_index: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """How near a candidate's outputs are to the float reference's.

    Attributes:
        outputs: one entry for each output, in the model's order.
        num_samples: samples that were compared.
        top1_agreement: of the class output that agrees least; None without a class output.
        top1_agreement_ci95: its Wilson interval.
        accuracy: share of samples whose label is the largest class of the first class output;
            None without labels.
        accuracy_ci95: its Wilson interval.
        reference_accuracy: the float reference's accuracy on the same samples.
        drop_points: percentage points lost against the reference; negative when better.
        drop_points_ci95: its interval for paired samples (Bonett and Price 2012).
    """

    outputs: tuple[OutputFidelity, ...]
    num_samples: int
    top1_agreement: float | None = None
    top1_agreement_ci95: tuple[float, float] | None = None
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    reference_accuracy: float | None = None
    drop_points: float | None = None
    drop_points_ci95: tuple[float, float] | None = None

    @property
    def sqnr_db(self) -> float:
        """The worst output's SQNR."""
        return min((output.sqnr_db for output in self.outputs), default=LIMIT_DB)


def compare_outputs(
    reference: Outputs,
    candidate: Outputs,
    *,
    names: tuple[str, ...],
    labels: NDArray[Any] | None = None,
) -> Fidelity:
    """Compare a candidate's outputs with the reference's, sample by sample.

    Args:
        reference: for each sample the outputs, real-valued, in the order of `names`.
        candidate: the same samples' outputs; integer outputs of a quantized interface are
            dequantized before.
        names: the outputs' names.
        labels: (num_samples,) class ids, judged on the first class output.

    Raises:
        ModelError: the two differ in the number of samples or outputs, or in a shape.
        DataError: labels do not fit: their count, range, or no class output to judge.
    """
    _check_alike(reference, candidate, names)
    outputs: list[OutputFidelity] = []
    picks: list[_Picks] = []
    for index, name in enumerate(names):
        ours = [sample[index] for sample in reference]
        theirs = [sample[index] for sample in candidate]
        chosen = _pick_classes(ours, theirs)
        if chosen is not None and chosen.first.size:
            picks.append(chosen)
        agreement = None if chosen is None else chosen.agreement
        if chosen is not None and chosen.num_classes is None:
            outputs.append(_compare_ids(name, chosen, ours, theirs))
        else:
            outputs.append(_compare_output(name, ours, theirs, agreement))
    agreement, interval = None, None
    if picks:
        worst = min(picks, key=lambda each: each.agreement)
        agreement = worst.agreement
        interval = wilson_interval(worst.num_equal, worst.first.size)
    task: dict[str, Any] = {}
    if labels is not None:
        task = _judge_labels(picks, labels, len(reference))
    return Fidelity(
        outputs=tuple(outputs),
        num_samples=len(reference),
        top1_agreement=agreement,
        top1_agreement_ci95=interval,
        **task,
    )


def sqnr_db(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Give the signal-to-quantization-noise ratio of two arrays of one shape, in dB.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    return _compare_output("", [reference], [candidate], None).sqnr_db


def to_json(fidelity: Fidelity) -> dict[str, object]:
    """Give a fidelity as JSON values; `parse_fidelity` is its inverse."""
    table: dict[str, object] = {"sqnr_db": fidelity.sqnr_db}
    table |= asdict(fidelity)
    table["outputs"] = [asdict(output) for output in fidelity.outputs]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}


def parse_fidelity(table: Mapping[str, object]) -> Fidelity:
    """Read a fidelity from JSON values.

    Raises:
        DataError: it breaks the schema; all faults are listed.
    """
    fields = Fields(table)
    fidelity = read_fidelity(fields)
    if fields.faults:
        raise DataError(
            join_faults("fidelity", fields.faults),
            remedy="The record was changed or written by another version; make it again.",
        )
    return fidelity


def read_fidelity(fields: Fields) -> Fidelity:
    """Read a fidelity from a table of a larger record, noting faults in `fields`."""
    fields.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB)  # stands for readers; computed
    fidelity = Fidelity(
        outputs=tuple(_read_output(table) for table in fields.tables("outputs")),
        num_samples=fields.integer("num_samples", minimum=0),
        top1_agreement=_optional_share(fields, "top1_agreement"),
        top1_agreement_ci95=_optional_interval(fields, "top1_agreement_ci95"),
        accuracy=_optional_share(fields, "accuracy"),
        accuracy_ci95=_optional_interval(fields, "accuracy_ci95"),
        reference_accuracy=_optional_share(fields, "reference_accuracy"),
        drop_points=_optional(fields, "drop_points", -100.0, 100.0),
        drop_points_ci95=_optional_interval(fields, "drop_points_ci95"),
    )
    fields.close()
    return fidelity


def _check_alike(reference: Outputs, candidate: Outputs, names: tuple[str, ...]) -> None:
    if len(reference) != len(candidate):
        raise ModelError(
            f"expected outputs of {len(reference)} samples, but got {len(candidate)}",
            remedy="Run both models on the same samples.",
        )
    faults: list[str] = []
    for ours, theirs in zip(reference, candidate, strict=True):
        if len(ours) != len(names) or len(theirs) != len(names):
            faults.append(f"expected {len(names)} outputs, but got {len(ours)} and {len(theirs)}")
        else:
            faults += [
                f"output {name!r}: expected shape {first.shape}, but got {second.shape}"
                for name, first, second in zip(names, ours, theirs, strict=True)
                if first.shape != second.shape
            ]
        if faults:
            raise ModelError(
                join_faults("the outputs cannot be compared", faults),
                remedy="The conversion changed the outputs; convert the model again.",
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Picks:
    """The classes that two models chose, or the ids they gave.

    Attributes:
        first: the reference's, one after another.
        second: the candidate's.
        num_classes: how many there are to choose from; None for ids.
        is_single: whether there is one a sample and row, as for a classifier.
    """

    first: NDArray[Any]
    second: NDArray[Any]
    num_classes: int | None
    is_single: bool

    @property
    def num_equal(self) -> int:
        return int(np.sum(self.first == self.second))

    @property
    def agreement(self) -> float:
        return self.num_equal / self.first.size if self.first.size else 1.0


def _pick_classes(
    reference: Sequence[NDArray[Any]], candidate: Sequence[NDArray[Any]]
) -> _Picks | None:
    """Give what both chose; None for an output that chooses nothing."""
    if _is_class_output(reference):
        return _Picks(
            first=np.concatenate([np.argmax(array, axis=1) for array in reference]),
            second=np.concatenate([np.argmax(array, axis=1) for array in candidate]),
            num_classes=reference[0].shape[1],
            is_single=True,
        )
    arrays = (*reference, *candidate)
    if reference and all(each.dtype.kind in "iu" and each.itemsize >= _ID_BYTES for each in arrays):
        return _Picks(
            first=np.concatenate([array.reshape(-1) for array in reference]),
            second=np.concatenate([array.reshape(-1) for array in candidate]),
            num_classes=None,
            is_single=all(array.ndim == 1 for array in reference),
        )
    return None


def _compare_ids(
    name: str,
    picks: _Picks,
    reference: Sequence[NDArray[Any]],
    candidate: Sequence[NDArray[Any]],
) -> OutputFidelity:
    plain = _compare_output(name, reference, candidate, picks.agreement)
    num_ids = picks.first.size
    return replace(
        plain,
        sqnr_db=ratio_db(float(num_ids), float(num_ids - picks.num_equal)),
        worst_channel=None,
        worst_channel_sqnr_db=None,
        is_index=True,
    )


def _is_class_output(arrays: Sequence[NDArray[Any]]) -> bool:
    return bool(arrays) and all(
        array.ndim == _CLASS_RANK
        and array.shape[1] >= _MINIMUM_CLASSES
        and array.shape[1] == arrays[0].shape[1]
        and np.issubdtype(array.dtype, np.floating)
        for array in arrays
    )


def _compare_output(
    name: str,
    reference: Sequence[NDArray[Any]],
    candidate: Sequence[NDArray[Any]],
    agreement: float | None,
) -> OutputFidelity:
    shapes = {array.shape for array in reference}
    last = {shape[-1] if len(shape) > 1 else 1 for shape in shapes}
    # An output whose last dimension varies from sample to sample has no channels to speak of.
    num_channels = last.pop() if len(last) == 1 else 1
    sums = Sums(signal=np.zeros(num_channels), noise=np.zeros(num_channels))
    for ours, theirs in zip(reference, candidate, strict=True):
        add_arrays(sums, ours, theirs)
    signal, noise = float(sums.signal.sum()), float(sums.noise.sum())
    channel, channel_db = None, None
    loud = np.flatnonzero(sums.signal > 0)
    if num_channels > 1 and loud.size:
        each = [ratio_db(float(sums.signal[i]), float(sums.noise[i])) for i in loud]
        worst = int(np.argmin(each))
        channel, channel_db = int(loud[worst]), each[worst]
    return OutputFidelity(
        output=name,
        sqnr_db=-LIMIT_DB if sums.num_non_finite or sums.is_vacuous else ratio_db(signal, noise),
        max_abs_error=sums.max_abs_error,
        cosine=cosine(sums.product, signal, sums.candidate),
        worst_channel=channel,
        worst_channel_sqnr_db=channel_db,
        top1_agreement=agreement,
        num_non_finite=sums.num_non_finite,
    )


def _judge_labels(
    picks: Sequence[_Picks], labels: NDArray[Any], num_samples: int
) -> dict[str, Any]:
    picks = [each for each in picks if each.is_single]
    if not picks:
        raise DataError(
            "labels were given, but no output has the shape (batch, classes) they could be "
            "compared with, or gives class ids",
            remedy="Leave the labels out; fidelity is judged by SQNR then.",
        )
    first, second, num_classes = picks[0].first, picks[0].second, picks[0].num_classes
    if labels.shape != (num_samples,) or first.size != num_samples:
        raise DataError(
            f"expected one label for each of {first.size} rows of output, but got labels of "
            f"shape {labels.shape}",
            remedy="Give one class id for each sample.",
        )
    if labels.size and num_classes and (labels.min() < 0 or labels.max() >= num_classes):
        raise DataError(
            f"expected labels from 0 to {num_classes - 1}, as the model has {num_classes} "
            f"classes, but they reach from {labels.min()} to {labels.max()}",
            remedy="Number the classes as the model's outputs do, from 0.",
        )
    right, kept = first == labels, second == labels
    lost, gained = int(np.sum(right & ~kept)), int(np.sum(kept & ~right))
    low, high = paired_drop_interval(lost, gained, num_samples)
    return {
        "accuracy": float(np.mean(kept)),
        "accuracy_ci95": wilson_interval(int(kept.sum()), num_samples),
        "reference_accuracy": float(np.mean(right)),
        "drop_points": 100.0 * (lost - gained) / num_samples,
        "drop_points_ci95": (100.0 * low, 100.0 * high),
    }


def _read_output(fields: Fields) -> OutputFidelity:
    # JSON has no way to leave a key out of asdict(); null reads as absent.
    output = OutputFidelity(
        output=fields.text("output", empty=True),
        sqnr_db=fields.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        max_abs_error=fields.number("max_abs_error", minimum=0.0),
        cosine=fields.number("cosine", minimum=-1.0, maximum=1.0),
        worst_channel=_optional_count(fields, "worst_channel"),
        worst_channel_sqnr_db=_optional(fields, "worst_channel_sqnr_db", -LIMIT_DB, LIMIT_DB),
        top1_agreement=_optional_share(fields, "top1_agreement"),
        num_non_finite=fields.integer("num_non_finite", 0, minimum=0),
        is_index=fields.boolean("is_index", default=False),
    )
    fields.close()
    return output


def _optional_count(fields: Fields, key: str) -> int | None:
    if fields.raw(key) is None:
        return None
    return fields.integer(key, minimum=0)


def _optional(fields: Fields, key: str, minimum: float, maximum: float) -> float | None:
    if fields.raw(key) is None:
        return None
    return fields.number(key, minimum=minimum, maximum=maximum)


def _optional_share(fields: Fields, key: str) -> float | None:
    return _optional(fields, key, 0.0, 1.0)


def _optional_interval(fields: Fields, key: str) -> tuple[float, float] | None:
    value = fields.raw(key)
    if value is None:
        return None
    match value:
        case [int() | float() as low, int() | float() as high] if low <= high:
            return (float(low), float(high))
    fields.fault(key, f"expected two numbers in order, not {describe(value)}")
    return None
