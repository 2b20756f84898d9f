"""Which classes or ids two models chose, how often the same, and how often the right ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import DataError
from edgepack.shares import clustered_interval, paired_drop_interval, wilson_interval

_CLASS_RANK: Final = 2
_MINIMUM_CLASSES: Final = 2
_ID_BYTES: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picks:
    """The classes that two models chose, or the ids they gave.

    Attributes:
        first: the reference's, one after another.
        second: the candidate's.
        sizes: how many of them each sample gave.
        num_classes: how many there are to choose from; None for ids.
        is_single: whether there is one a sample and row, as for a classifier.
    """

    first: NDArray[Any]
    second: NDArray[Any]
    sizes: tuple[int, ...]
    num_classes: int | None
    is_single: bool

    @property
    def num_equal(self) -> int:
        """How often both chose the same."""
        return int(np.sum(self.first == self.second))

    @property
    def agreement(self) -> float:
        """The share of that; 1 of nothing."""
        return self.num_equal / self.first.size if self.first.size else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95% interval; what one sample gave together is not independent."""
        ends = np.cumsum(self.sizes)[:-1]
        equal = [int(part.sum()) for part in np.split(self.first == self.second, ends)]
        return clustered_interval(equal, self.sizes)


def pick_classes(
    reference: Sequence[NDArray[Any]], candidate: Sequence[NDArray[Any]]
) -> Picks | None:
    """Give what both chose; None for an output that chooses nothing."""
    if is_class_output(reference):
        return Picks(
            first=np.concatenate([np.argmax(array, axis=1) for array in reference]),
            second=np.concatenate([np.argmax(array, axis=1) for array in candidate]),
            sizes=tuple(len(array) for array in reference),
            num_classes=reference[0].shape[1],
            is_single=True,
        )
    arrays = (*reference, *candidate)
    if reference and all(each.dtype.kind in "iu" and each.itemsize >= _ID_BYTES for each in arrays):
        return Picks(
            first=np.concatenate([array.reshape(-1) for array in reference]),
            second=np.concatenate([array.reshape(-1) for array in candidate]),
            sizes=tuple(array.size for array in reference),
            num_classes=None,
            is_single=all(array.ndim == 1 for array in reference),
        )
    return None


def is_class_output(arrays: Sequence[NDArray[Any]]) -> bool:
    """Tell whether an output scores classes: floats of shape (rows, classes)."""
    return bool(arrays) and all(
        array.ndim == _CLASS_RANK
        and array.shape[1] >= _MINIMUM_CLASSES
        and array.shape[1] == arrays[0].shape[1]
        and np.issubdtype(array.dtype, np.floating)
        for array in arrays
    )


def judge_labels(picks: Sequence[Picks], labels: NDArray[Any], num_samples: int) -> dict[str, Any]:
    """Give the accuracies and the drop between them, by the fields of `Fidelity`.

    Raises:
        DataError: labels do not fit: their count, range, or no class output to judge.
    """
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
