"""Samples of a shaped model: raw values, and what they become for the source and the model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.contract.plan import ContractPlan, InputPlan
from edgepack.data import ImagePreprocessing, Samples, generate_samples, make_samples
from edgepack.errors import DataError
from edgepack.evaluate import Feeds
from edgepack.importers.binding import ImportedModel, input_hints, model_feeds
from edgepack.model import Quantization, TensorSpec

_LARGEST_PIXEL: Final = 255
_IMAGE_RANK: Final = 4


def raw_specs(source: tuple[TensorSpec, ...], plan: ContractPlan) -> tuple[TensorSpec, ...]:
    """Give what raw samples look like: the source's names and layout, raw values as float32.

    Pixels are read as float32 too, whatever type the shaped model takes: data may hold them
    either way, and `check_raw` sees that they are whole.
    """
    return tuple(
        replace(spec, dtype="float32") if each.is_raw else spec
        for spec, each in zip(source, plan.inputs, strict=True)
    )


def raw_images(images: ImagePreprocessing | None, plan: ContractPlan) -> ImagePreprocessing | None:
    """Give how pictures become samples: as they are where the model takes raw values."""
    if any(each.is_raw for each in plan.inputs):
        return replace(images or ImagePreprocessing(), scale=1.0)
    return images


def stated_images(
    images: ImagePreprocessing | None, plan: ContractPlan, *, sources: Sequence[str | None]
) -> ImagePreprocessing | None:
    """Give how pictures become an input, when the options or a folder of them tell.

    Args:
        images: what the options say.
        plan: of the inputs.
        sources: where samples come from.
    """
    if images is None and not any(each and Path(each).is_dir() for each in sources):
        return None
    return raw_images(images, plan) or ImagePreprocessing()


def check_raw(samples: Samples, plan: ContractPlan) -> None:
    """Refuse samples that cannot be raw values.

    Raises:
        DataError: values for pixels that are no whole numbers from 0 to 255, or that look as
            if they were preprocessed already.
    """
    faults: list[str] = []
    for (name, array), each in zip(samples.arrays, plan.inputs, strict=True):
        if not each.is_raw or not array.size:
            continue
        lowest, highest = float(array.min()), float(array.max())
        if each.dtype == "uint8":
            whole = bool(np.all(array == np.trunc(array)))
            if not whole or lowest < 0 or highest > _LARGEST_PIXEL:
                faults.append(
                    f"input {name!r}: expected pixels, whole numbers from 0 to 255, but the "
                    f"samples hold {'' if whole else 'fractions, '}{lowest:.6g} to {highest:.6g}"
                )
        elif each.layout is not None and (lowest < 0 or highest <= 1.0):
            faults.append(
                f"input {name!r}: expected raw pixels, as preprocessing happens inside the model, "
                f"but the samples hold {lowest:.6g} to {highest:.6g}"
            )
    if faults:
        raise DataError(
            "; ".join(faults),
            remedy="Give the samples as they come from the camera or file, from 0 to 255, or leave "
            "--input-mean, --input-std, --input-scale and --input-dtype out.",
        )


def source_samples(samples: Samples, plan: ContractPlan) -> Samples:
    """Give what raw samples are to the source, which takes preprocessed values."""
    arrays: list[tuple[str, NDArray[Any]]] = []
    for (name, array), each in zip(samples.arrays, plan.inputs, strict=True):
        values = array
        if each.preprocessing is not None:
            # Behind the samples' own axis.
            axis = each.source_channel_axis + 1
            values = each.preprocessing.apply(array, channel_axis=axis)
        arrays.append((name, values.astype(each.spec.dtype) if each.is_raw else values))
    return make_samples(arrays, labels=samples.labels)


def shaped_feeds(imported: ImportedModel, plan: ContractPlan, samples: Samples) -> Feeds:
    """Carry raw samples to the shaped model's layout and element types, one tuple a sample.

    Raises:
        DataError: as `model_feeds`.
    """
    return tuple(
        tuple(_shape_array(array, each) for array, each in zip(feed, plan.inputs, strict=True))
        for feed in model_feeds(imported, samples)
    )


def _shape_array(array: NDArray[Any], plan: InputPlan) -> NDArray[Any]:
    if plan.permutation is not None:
        array = array.transpose(plan.permutation)
    return np.ascontiguousarray(array.astype(plan.dtype, copy=False))


def generate_raw(
    imported: ImportedModel, plan: ContractPlan, *, num_samples: int, seed: int
) -> Samples:
    """Generate raw samples: pixels for images, else what a plausible input is made from."""
    specs = tuple(binding.source for binding in imported.inputs)
    plausible = generate_samples(
        specs, num_samples=num_samples, seed=seed, hints=input_hints(imported)
    )
    arrays: list[tuple[str, NDArray[Any]]] = []
    for index, ((name, array), each) in enumerate(zip(plausible.arrays, plan.inputs, strict=True)):
        if not each.is_raw:
            arrays.append((name, array))
        elif each.layout is not None or each.dtype == "uint8":
            arrays.append((name, _pixels(specs[index], num_samples=num_samples, seed=seed)))
        elif each.preprocessing is not None:
            axis = each.source_channel_axis + 1
            arrays.append((name, each.preprocessing.invert(array, channel_axis=axis)))
    return make_samples(arrays)


def _pixels(spec: TensorSpec, *, num_samples: int, seed: int) -> NDArray[np.float32]:
    shape = spec.shape if len(spec.shape) == _IMAGE_RANK else (*spec.shape, 1)
    # The parameters say that all 256 values stand for something, in a small image too.
    parameters = Quantization(scales=(1.0,), zero_points=(0,))
    pixels = replace(spec, shape=shape, dtype="uint8", quantization=parameters)
    samples = generate_samples((pixels,), num_samples=num_samples, seed=seed)
    array = samples.arrays[0][1].astype(np.float32)
    return array.reshape(num_samples, *spec.shape)
