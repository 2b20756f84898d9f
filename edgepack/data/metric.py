"""The user's own measure of quality: a function of outputs and labels, higher is better.

Called as `function(outputs, labels)` with all evaluation samples at once. `outputs` is the
model's output as one array whose first axis counts the samples (a batch axis of 1 is left out),
or a dict of such arrays by output name when the model has several. `labels` are those of the
data, whatever their shape; without labels it is given the inputs instead, as an array or dict of
the same form. It returns one number. It is called again with parts of the samples, which tells
how far the number hangs on single ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.data.own_code import find_function, own_code
from edgepack.errors import DataError

Batch = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Arrays whose first axis counts the samples: one, or several by name."""

_REMEDY = (
    "Mend the function: it is called with the outputs of all samples and their labels (without "
    "labels: the inputs), and returns one number, higher is better."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric by name; it travels to other processes as such.

    Attributes:
        source: `module:function` or `file.py:function`.
        folder: the user's current directory, which both are found from.
    """

    source: str
    folder: Path

    def find(self) -> Callable[..., Any]:
        """Import it.

        Raises:
            DataError: there is no such function, or importing its module fails.
        """
        with own_code(self.source, remedy=_REMEDY, folder=self.folder):
            return find_function(self.source, self.folder)

    def value(self, outputs: Batch, truth: Batch) -> float | None:
        """Call it; None when it gives no finite number.

        Raises:
            DataError: it raises, or gives something other than one number.
        """
        function = self.find()
        with own_code(self.source, remedy=_REMEDY, folder=self.folder):
            returned = function(outputs, truth)
            array = np.asarray(returned)
            is_number = array.size == 1 and array.dtype.kind in "fiub"
            number = float(array.reshape(-1)[0]) if is_number else math.nan
        if not is_number:
            raise DataError(
                f"{self.source}: expected it to return one number, but got "
                f"{_describe(returned, array)}",
                remedy=_REMEDY,
            )
        return number if math.isfinite(number) else None


def join_batch(names: Sequence[str], samples: Sequence[Sequence[NDArray[Any]]]) -> Batch:
    """Give what the samples hold in the form a metric is called with.

    Args:
        names: of the arrays of a sample.
        samples: for each its arrays, each with the model's own batch axis.

    Raises:
        DataError: arrays of unlike shapes cannot be one array.
    """
    batches: dict[str, NDArray[Any]] = {}
    for index, name in enumerate(names):
        arrays = [sample[index] for sample in samples]
        if len({array.shape for array in arrays}) > 1:
            raise DataError(
                f"a metric needs outputs of one shape, but those of {name!r} vary from sample to "
                "sample",
                remedy="Leave --metric out; fidelity is judged by SQNR then.",
            )
        is_single = bool(arrays) and arrays[0].shape[:1] == (1,)
        batches[name] = np.concatenate(arrays) if is_single else np.stack(arrays)
    return batches if len(batches) > 1 else batches[names[0]]


def take_samples(batch: Batch, indexes: NDArray[np.intp]) -> Batch:
    """Give some samples of a batch, as copies that the function may change."""
    if isinstance(batch, Mapping):
        return {name: array[indexes] for name, array in batch.items()}
    taken: NDArray[Any] = batch[indexes]
    return taken


def _describe(returned: object, array: NDArray[Any]) -> str:
    if array.size != 1 and array.dtype.kind in "fiub":
        return f"an array of shape {array.shape}"
    return f"{type(returned).__name__} {str(returned)[:40]!r}"
