"""Generated inputs: plausible values where no real data were given.

They serve the parity of a conversion, never calibration: ranges of activations come from
real data only.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.data.samples import Samples, make_samples
from edgepack.model import TensorSpec

_IMAGE_RANK: Final = 4
_IMAGE_CHANNELS: Final = frozenset({1, 3, 4})
_MINIMUM_SIDE: Final = 8
# Ids that nearly every vocabulary has; a larger one would lead out of an embedding's table.
_LARGEST_ID: Final = 7


def generate_samples(inputs: tuple[TensorSpec, ...], *, num_samples: int, seed: int) -> Samples:
    """Generate samples of the inputs' shapes and element types; the same seed gives the same.

    Image-like inputs (rank 4 with 1, 3 or 4 channels, either layout) get noise whose amplitude
    falls with frequency, as in photographs (Field 1987): 0 to 1 in float, the full range in
    8-bit integers. Other floats are normal; integers are small ids; quantized integers cover
    their range.
    """
    generator = np.random.default_rng(seed)
    arrays = [
        (spec.name, np.stack([_generate(spec, generator) for _ in range(num_samples)]))
        for spec in inputs
    ]
    return make_samples(arrays)


def _generate(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    axes = _spatial_axes(spec.shape)
    if dtype == np.bool_:
        return generator.integers(0, 2, spec.shape).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        if axes is not None:
            return _natural_noise(spec.shape, axes, generator).astype(dtype)
        return generator.standard_normal(spec.shape).astype(dtype)
    limits = np.iinfo(dtype)
    if axes is not None and dtype.itemsize == 1:
        noise = _natural_noise(spec.shape, axes, generator)
        return np.round(limits.min + noise * (limits.max - limits.min)).astype(dtype)
    if spec.quantization is not None:
        return generator.integers(limits.min, limits.max, spec.shape, dtype, endpoint=True)
    return generator.integers(0, _LARGEST_ID, spec.shape, dtype, endpoint=True)


def _spatial_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Give the height and width axes of an image-like shape."""
    if len(shape) != _IMAGE_RANK:
        return None
    for channel_axis, axes in ((3, (1, 2)), (1, (2, 3))):
        sides = [shape[axis] for axis in axes]
        if shape[channel_axis] in _IMAGE_CHANNELS and min(sides) >= _MINIMUM_SIDE:
            return axes
    return None


def _natural_noise(
    shape: tuple[int, ...], axes: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Give noise with an amplitude spectrum of 1/f along two axes, within 0 to 1."""
    frequencies = [
        np.fft.fftfreq(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        for axis in axes
    ]
    radius = np.hypot(*frequencies)
    # The mean's own frequency is 0; it gets the weight of the lowest other one.
    radius[radius == 0] = 1.0 / max(shape[axis] for axis in axes)
    white = generator.standard_normal(shape)
    # Channels of a photograph are alike: most of the noise is common to them.
    channel_axis = 3 if axes == (1, 2) else 1
    white = (
        0.8 * white.mean(axis=channel_axis, keepdims=True) * np.sqrt(shape[channel_axis])
        + 0.2 * white
    )
    colored = np.fft.ifftn(np.fft.fftn(white, axes=axes) / radius, axes=axes).real
    spread = colored.std(axis=axes, keepdims=True)
    centered = colored - colored.mean(axis=axes, keepdims=True)
    level = 0.5 + 0.1 * generator.standard_normal()
    noise: NDArray[np.float64] = np.clip(level + 0.22 * centered / spread, 0.0, 1.0)
    return noise
