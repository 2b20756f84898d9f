"""How a source model's tensors relate to the converted model's, and carrying arrays across."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgepack.data import InputHint, Samples
from edgepack.errors import ConversionError, DataError, ModelError
from edgepack.evaluate import Answers, Feeds, run_model
from edgepack.importers.source import SourceInfo
from edgepack.model import Model, TensorSpec

_MOST_RANK = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBinding:
    """One input or output of the source, and how its axes stand in the converted model.

    Attributes:
        source: name, shape and dtype in the source model.
        permutation: `model_array = source_array.transpose(permutation)`, for inputs and
            outputs alike; None when both have the same layout.
        hint: what else the source tells of an input.
    """

    source: TensorSpec
    permutation: tuple[int, ...] | None = None
    hint: InputHint = InputHint()  # noqa: RUF009 - frozen, so one instance serves all

    def to_model(self, array: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
        """Carry an array of the source's layout to the model's layout and element type."""
        if self.permutation is not None:
            array = array.transpose(self.permutation)
        return np.ascontiguousarray(array.astype(dtype, copy=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedModel:
    """A converted model and how it relates to its source.

    Attributes:
        model: the TFLite model, with the source's names in the source's order.
        source: where it came from.
        inputs: one binding for each of the model's inputs, in the model's order.
        outputs: likewise for the outputs.
    """

    model: Model
    source: SourceInfo
    inputs: tuple[TensorBinding, ...]
    outputs: tuple[TensorBinding, ...]


def input_hints(imported: ImportedModel) -> dict[str, InputHint]:
    """Give what the source tells of each input, by name."""
    return {binding.source.name: binding.hint for binding in imported.inputs}


def model_feeds(imported: ImportedModel, samples: Samples) -> Feeds:
    """Carry samples from the source's layout and dtypes to the model's, one tuple a sample.

    Raises:
        DataError: an input has no array, or one of another shape, or integers that the
            model's narrower integers cannot hold.
    """
    arrays = dict(samples.arrays)
    columns: list[list[NDArray[np.generic]]] = []
    for binding, spec in zip(imported.inputs, imported.model.signature.inputs, strict=True):
        array = arrays.get(binding.source.name)
        expected = (samples.num_samples, *binding.source.shape)
        if array is None or array.shape != expected:
            came = "there is none" if array is None else f"it has shape {array.shape}"
            raise DataError(
                f"expected samples of shape {expected} for input {binding.source.name!r}, "
                f"but {came}",
                remedy="Give one array for each input, under the source model's names.",
            )
        _check_range(array, spec)
        columns.append([binding.to_model(sample, spec.dtype) for sample in array])
    return tuple(zip(*columns, strict=True))


def run_converted(model: Model, feeds: Feeds) -> Answers:
    """Run a model that a converter wrote; one that does not run is that converter's failure.

    Raises:
        ConversionError: the runtime refuses the model, or dies of it.
    """
    try:
        return run_model(model, feeds)
    except ModelError as error:
        raise ConversionError(
            f"the converter wrote a model that does not run: {error.message}",
            remedy="Export the model with other operations or another opset.",
        ) from error


def candidate_permutations(
    source: tuple[int, ...], model: tuple[int, ...]
) -> tuple[tuple[int, ...] | None, ...]:
    """Give every layout change that explains the model's shape, the likeliest first.

    Channels first to channels last stands first, since converters from ONNX do that; then
    no change, then channels last to first, then any other permutation. Shapes without equal
    dimensions leave one; the caller tries the others.

    Raises:
        ConversionError: no permutation of the source's shape gives the model's.
    """
    rank = len(source)
    if sorted(source) != sorted(model):
        raise ConversionError(
            f"expected a tensor of the source's shape {source}, with its axes in some order, "
            f"but the converted model has {model}",
            remedy="Fix the shapes with --input-shape, or export the model with fixed shapes.",
        )
    identity = tuple(range(rank))
    to_last = (0, *range(2, rank), 1) if rank > 2 else identity  # noqa: PLR2004 - N, C, space
    to_first = (0, rank - 1, *range(1, rank - 1)) if rank > 2 else identity  # noqa: PLR2004
    usual = dict.fromkeys((to_last, identity, to_first))
    fitting = [order for order in usual if _permuted(source, order) == model]
    if not fitting and rank <= _MOST_RANK:
        every = itertools.permutations(range(rank))
        fitting = [order for order in every if _permuted(source, order) == model]
    # A permutation that only moves axes of size 1 leaves the elements in their order, so it
    # is told apart from the others by nothing, and need not be tried beside them.
    distinct: dict[tuple[int, ...], tuple[int, ...]] = {}
    for order in fitting:
        distinct.setdefault(tuple(axis for axis in order if source[axis] != 1), order)
    return tuple(None if order == identity else order for order in distinct.values())


def _permuted(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in order)


def _check_range(array: NDArray[np.generic], spec: TensorSpec) -> None:
    target = np.dtype(spec.dtype)
    if array.dtype.kind not in "iu" or target.kind not in "iu" or math.prod(array.shape) == 0:
        return
    limits = np.iinfo(target)
    lowest, highest = int(np.min(array)), int(np.max(array))
    if lowest < limits.min or highest > limits.max:
        raise DataError(
            f"expected integers within {limits.min} to {limits.max} for input {spec.name!r}, "
            f"but the samples hold {lowest} to {highest}",
            remedy="Give values the model's element type can hold.",
        )
