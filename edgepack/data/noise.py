"""Noise with the spectra of photographs and of sound; pure."""

import numpy as np
from numpy.typing import NDArray


def natural_noise(
    shape: tuple[int, ...], axes: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Give noise with an amplitude spectrum of 1/f along two axes, within 0 to 1.

    Args:
        shape: of rank 4.
        axes: of height and width: (1, 2) or (2, 3).
        generator: where the randomness comes from.
    """
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


def pink_noise(
    shape: tuple[int, ...], axis: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Give noise with a power spectrum of 1/f along an axis, as speech and music have it.

    Mean 0, deviation 1, clipped at 4 deviations (Voss and Clarke 1975).

    Args:
        shape: of the array.
        axis: of time.
        generator: where the randomness comes from.
    """
    frequency = np.fft.rfftfreq(shape[axis])
    frequency[0] = np.inf  # sound has no constant part
    weights = (1.0 / np.sqrt(frequency)).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
    )
    spectrum = np.fft.rfft(generator.standard_normal(shape), axis=axis) * weights
    wave = np.fft.irfft(spectrum, n=shape[axis], axis=axis)
    noise: NDArray[np.float64] = np.clip(wave / wave.std(axis=axis, keepdims=True), -4.0, 4.0)
    return noise
