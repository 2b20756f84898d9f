"""Generated inputs: plausible values where no real data were given.

They serve the parity of a conversion, never calibration: ranges of activations come from
real data only.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.data.noise import natural_noise, pink_noise
from edgepack.data.samples import Samples, make_samples
from edgepack.errors import DataError
from edgepack.model import TensorSpec

_IMAGE_RANK: Final = 4
_IMAGE_CHANNELS: Final = frozenset({1, 3, 4})
_MINIMUM_SIDE: Final = 8
# Waveforms come in frames of 1,000 samples and more; feature vectors are mostly shorter.
_MINIMUM_WAVE: Final = 1000
# Ids that nearly every vocabulary has; a larger one would lead out of an embedding's table.
_LARGEST_ID: Final = 7
_LARGEST_BYTE: Final = 255
_MOST_BYTES: Final = 4 << 30
_SMALL_STATE: Final = 0.1
_FIRST_LETTERS: Final = r"(?:^|[^a-z])"
_MASK: Final = re.compile(_FIRST_LETTERS + "(?:padding|attention)?masks?(?:[^a-z]|$)")
_LENGTH: Final = re.compile(_FIRST_LETTERS + r"(?:lengths?|lens?|seq_?len(?:gths?)?)(?:[^a-z]|$)")


class InputRole(StrEnum):
    """What an input is for."""

    DATA = "data"
    STATE = "state"


class Range(StrEnum):
    """What float values look like: models differ in what they were trained on.

    `UNIT`: images and waveforms from 0 to 1 and -1 to 1, states zero. `WIDE`: images from 0
    to 255, waveforms in 16-bit steps, small states. `CENTERED`: mean 0 and deviation 1.
    """

    UNIT = "unit"
    WIDE = "wide"
    CENTERED = "centered"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputHint:
    """What a source tells of an input beside its shape and element type.

    Attributes:
        maximum: largest integer the input takes, such as an embedding's last row; None when
            the source does not tell.
        role: what it is for.
    """

    maximum: int | None = None
    role: InputRole = InputRole.DATA


_NO_HINT: Final = InputHint()


def generate_samples(
    inputs: tuple[TensorSpec, ...],
    *,
    num_samples: int,
    seed: int,
    hints: Mapping[str, InputHint] | None = None,
    value_range: Range = Range.UNIT,
) -> Samples:
    """Generate samples of the inputs' shapes and element types; the same seed gives the same.

    Image-like inputs (rank 4 with 1, 3 or 4 channels, either layout) get noise whose amplitude
    falls with frequency, as in photographs (Field 1987), waveforms such noise along time;
    8-bit images cover their type. Integers are ids up to the hint's maximum, or small ones;
    inputs called mask or length are such; quantized integers cover their range.

    Args:
        inputs: what to generate.
        num_samples: how many samples.
        seed: of the generator.
        hints: by input name; an input without one is plain data.
        value_range: of floats.

    Raises:
        DataError: they would take more than 4 GiB.
    """
    _check_size(inputs, num_samples)
    generator = np.random.default_rng(seed)
    longest = _longest_sequence(inputs)
    arrays = []
    for spec in inputs:
        hint = (hints or {}).get(spec.name, _NO_HINT)
        each = [_generate(spec, hint, value_range, longest, generator) for _ in range(num_samples)]
        arrays.append((spec.name, np.stack(each)))
    return make_samples(arrays)


def _check_size(inputs: tuple[TensorSpec, ...], num_samples: int) -> None:
    """Refuse shapes, which anyone may have written into a file, that memory cannot hold."""
    sizes = [math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in inputs]
    num_bytes = sum(sizes) * num_samples
    if num_bytes > _MOST_BYTES:
        largest = inputs[sizes.index(max(sizes))]
        raise DataError(
            f"expected inputs of which {num_samples} samples take at most "
            f"{_MOST_BYTES >> 30} GiB, but with {largest.name!r} of shape {largest.shape} they "
            f"take {num_bytes / 2**30:.1f} GiB",
            remedy="Give a smaller shape with --input-shape, or a few real samples with --data.",
        )


def _generate(
    spec: TensorSpec,
    hint: InputHint,
    value_range: Range,
    longest: int,
    generator: np.random.Generator,
) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    name = spec.name.lower()
    if hint.role is InputRole.STATE:
        return _state(spec.shape, value_range, generator).astype(dtype)
    if _MASK.search(name) and spec.shape and spec.quantization is None:
        return _mask(spec.shape, value_range, generator).astype(dtype)
    if dtype == np.bool_:
        return generator.integers(0, 2, spec.shape).astype(dtype)
    axes = _spatial_axes(spec.shape)
    if np.issubdtype(dtype, np.floating):
        return _floats(spec.shape, axes, value_range, generator).astype(dtype)
    if axes is not None and hint.maximum is None:
        limits = np.iinfo(dtype)
        lowest, highest = (limits.min, limits.max) if dtype.itemsize == 1 else (0, _LARGEST_BYTE)
        noise = natural_noise(spec.shape, axes, generator)
        return np.round(lowest + noise * (highest - lowest)).astype(dtype)
    least, most = _integer_range(spec, hint, value_range, longest)
    return generator.integers(least, most, spec.shape, dtype, endpoint=True)


def _integer_range(
    spec: TensorSpec, hint: InputHint, value_range: Range, longest: int
) -> tuple[int, int]:
    limits = np.iinfo(spec.dtype)
    if spec.quantization is not None:
        return int(limits.min), int(limits.max)
    if hint.maximum is not None:
        return 0, min(hint.maximum, int(limits.max))
    # One length a sample, or one a row.
    if _LENGTH.search(spec.name.lower()) and len(spec.shape) <= 2:  # noqa: PLR2004 - see above
        highest = min(longest, int(limits.max))
        return (highest if value_range is Range.UNIT else (highest + 1) // 2), highest
    return 0, _LARGEST_ID


def _floats(
    shape: tuple[int, ...],
    axes: tuple[int, int] | None,
    value_range: Range,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    if axes is not None:
        noise = natural_noise(shape, axes, generator)
        if value_range is Range.WIDE:
            return noise * _LARGEST_BYTE
        return noise if value_range is Range.UNIT else (noise - 0.5) / 0.22
    axis = _wave_axis(shape)
    if axis is not None:
        wave = pink_noise(shape, axis, generator)
        return wave * {Range.UNIT: 0.25, Range.WIDE: 8192.0, Range.CENTERED: 1.0}[value_range]
    if value_range is Range.CENTERED:  # Features are often scaled to this range, too.
        return generator.uniform(0.0, 1.0, shape)
    return generator.standard_normal(shape) * (4.0 if value_range is Range.WIDE else 1.0)


def _state(
    shape: tuple[int, ...], value_range: Range, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Give a recurrent state: zero as at a start, or small, to show that it is used at all."""
    if value_range is Range.UNIT:
        return np.zeros(shape)
    return generator.standard_normal(shape) * _SMALL_STATE


def _mask(
    shape: tuple[int, ...], value_range: Range, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Give a mask of ones along the last axis, with an end that is masked off."""
    size = shape[-1]
    lowest = size if value_range is Range.UNIT else (size + 1) // 2
    kept = int(generator.integers(lowest, size, endpoint=True))
    return np.broadcast_to(np.arange(size) < kept, shape)


def _longest_sequence(inputs: tuple[TensorSpec, ...]) -> int:
    """Give the size along the second axis of the inputs that have one; 1 without any."""
    sizes = [
        spec.shape[1]
        for spec in inputs
        if len(spec.shape) > 1 and spec.shape[1] > 1 and not _LENGTH.search(spec.name.lower())
    ]
    return min(sizes, default=1)


def _spatial_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Give the height and width axes of an image-like shape."""
    if len(shape) != _IMAGE_RANK:
        return None
    for channel_axis, axes in ((3, (1, 2)), (1, (2, 3))):
        sides = [shape[axis] for axis in axes]
        if shape[channel_axis] in _IMAGE_CHANNELS and min(sides) >= _MINIMUM_SIDE:
            return axes
    return None


def _wave_axis(shape: tuple[int, ...]) -> int | None:
    """Give the time axis of a waveform: a long axis beside others of size 1."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    return long[0] if len(long) == 1 and shape[long[0]] >= _MINIMUM_WAVE else None
