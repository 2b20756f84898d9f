r"""Frames of made-up voices for CREPE's pitch tracker, for `--data tones:frames`.

    cd examples/crepe
    cp "$(../../scripts/fetch-models crepe)" .
    edgepack pack network.py:tiny --target laptop-x86-64 --data tones:frames

CREPE reads 1,024 samples at 16 kHz, brought to mean 0 and deviation 1. Each frame here is a tone
of 60 to 1,000 Hz with a dozen overtones that fall off at a random rate, vibrato and noise.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NUM_FRAMES = 144
NUM_SAMPLES = 1024
RATE = 16_000
SEED = 7


def frames() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield 144 samples `{"x": 1024}`."""
    random = np.random.default_rng(SEED)
    time = np.arange(NUM_SAMPLES) / RATE
    for _ in range(NUM_FRAMES):
        pitch = 60 * (1000 / 60) ** random.uniform()
        phase = 2 * np.pi * pitch * time + 0.3 * np.sin(2 * np.pi * random.uniform(3, 7) * time)
        falloff = random.uniform(0.5, 2.0)
        overtones = np.arange(1, 13)
        overtones = overtones[overtones * pitch < RATE / 2]
        shifts = random.uniform(0, 2 * np.pi, overtones.size)
        wave = sum(
            np.sin(number * phase + shift) / number**falloff
            for number, shift in zip(overtones, shifts, strict=True)
        )
        wave += random.normal(0, random.uniform(0.01, 0.3), NUM_SAMPLES)
        wave -= wave.mean()
        yield {"x": (wave / wave.std()).astype(np.float32)}
