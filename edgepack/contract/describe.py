"""Making the I/O contract of a shaped model from all that is known of it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.contract.plan import ContractPlan, InputPlan, OutputPlan
from edgepack.contract.preprocessing import Head, Preprocessing
from edgepack.contract.record import (
    InputContract,
    InputKind,
    IOContract,
    Meaning,
    OutputContract,
    Place,
    plain_kind,
)
from edgepack.data import ImagePreprocessing, InputHint, InputRole, Samples
from edgepack.importers.binding import ImportedModel

_PIXELS: Final = (0.0, 255.0)
_IMAGE_CHANNELS: Final = frozenset({1, 3, 4})
_UNIT_SCALE: Final = 1.0 / 255.0
_CLASS_RANK: Final = 2
_MEANINGS: Final = {
    Head.SOFTMAX: Meaning.PROBABILITIES,
    Head.SIGMOID: Meaning.SCORES,
    Head.ARGMAX: Meaning.CLASS_ID,
}
_WRITERS: Final = {
    "SOFTMAX": Meaning.PROBABILITIES,
    "LOGISTIC": Meaning.SCORES,
    "ARG_MAX": Meaning.CLASS_ID,
}


def describe_contract(
    imported: ImportedModel,
    plan: ContractPlan,
    *,
    images: ImagePreprocessing | None,
    samples: Samples | None,
    num_class_names: int,
) -> IOContract:
    """Say what the shaped model's inputs want and its outputs mean.

    Args:
        imported: the model before it was shaped.
        plan: what was done at its inputs and outputs.
        images: how the user's pictures become the source's input; None when nobody said.
        samples: the user's data, for the range they have; None without any.
        num_class_names: names of classes that are given; 0 without any.
    """
    arrays = dict(samples.arrays) if samples is not None else {}
    return IOContract(
        inputs=tuple(
            _describe_input(each, binding.hint, images, arrays.get(binding.source.name))
            for each, binding in zip(plan.inputs, imported.inputs, strict=True)
        ),
        outputs=tuple(_describe_output(each, num_class_names) for each in plan.outputs),
    )


def _describe_input(
    plan: InputPlan,
    hint: InputHint,
    images: ImagePreprocessing | None,
    array: NDArray[np.generic] | None,
) -> InputContract:
    kind = _kind(plan, hint)
    value_range = _observed(array)
    preprocessing, place = plan.preprocessing, Place.MODEL
    if plan.is_raw or (kind is InputKind.IMAGE and plan.dtype == "uint8"):
        preprocessing = plan.preprocessing or Preprocessing()
        value_range = _PIXELS if kind is InputKind.IMAGE else value_range
    elif kind is InputKind.IMAGE and images is not None:
        scale = images.scale
        if scale is None:
            scale = _UNIT_SCALE if plan.dtype.startswith("float") else 1.0
        preprocessing = Preprocessing(scale=scale, mean=images.mean, std=images.std)
        place = Place.CALLER
        value_range = _reached(preprocessing)
    else:
        place = Place.CALLER
    if kind is InputKind.IDS and hint.maximum is not None:
        value_range = (0.0, float(hint.maximum))
    return InputContract(
        name=plan.spec.name,
        kind=kind,
        layout=plan.wanted_layout if kind is InputKind.IMAGE else None,
        value_range=None if kind is InputKind.STATE else value_range,
        preprocessing=preprocessing,
        place=place,
    )


def _kind(plan: InputPlan, hint: InputHint) -> InputKind:
    if hint.role is InputRole.STATE:
        return InputKind.STATE
    if plan.takes_pixels:
        return InputKind.IMAGE
    if plan.layout is not None:
        channels = plan.spec.shape[1 if plan.layout == "NCHW" else 3]
        if channels in _IMAGE_CHANNELS:
            return InputKind.IMAGE
    return plain_kind(plan.spec)


def _observed(array: NDArray[np.generic] | None) -> tuple[float, float] | None:
    if array is None or not array.size or array.dtype.kind not in "fiu":
        return None
    return float(np.min(array)), float(np.max(array))


def _reached(preprocessing: Preprocessing) -> tuple[float, float]:
    """Give the least and largest value that pixels from 0 to 255 become."""
    ends = [preprocessing.offset + preprocessing.multiplier * pixel for pixel in _PIXELS]
    return float(np.min(ends)), float(np.max(ends))


def _describe_output(plan: OutputPlan, num_class_names: int) -> OutputContract:
    meaning = Meaning.VALUES
    if plan.head is not None:
        meaning = _MEANINGS[plan.head]
    elif plan.writer in _WRITERS:
        meaning = _WRITERS[plan.writer]
    shape = plan.spec.shape
    rank = len(shape)
    axis = plan.class_axis if rank >= _CLASS_RANK else None
    num_classes = shape[axis] if axis is not None else 0
    is_real = plan.spec.dtype.startswith("float")
    has_labels = is_real and num_class_names > 0 and num_classes == num_class_names
    if meaning is Meaning.VALUES and has_labels and rank == _CLASS_RANK:
        meaning = Meaning.LOGITS
    if plan.head is Head.ARGMAX or not is_real or (meaning is Meaning.VALUES and not has_labels):
        axis = None
    elif plan.permutation is not None and axis is not None:
        axis = plan.permutation.index(axis)
    return OutputContract(
        name=plan.spec.name,
        meaning=meaning,
        layout=None if plan.head is Head.ARGMAX else plan.wanted_layout,
        class_axis=axis,
        has_labels=has_labels,
    )
