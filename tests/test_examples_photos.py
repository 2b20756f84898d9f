"""The photographs that calibrate EfficientNet-Lite0."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.data import load_samples, split_samples
from edgepack.model import TensorSpec

_IMAGE = (TensorSpec(name="image", shape=(1, 3, 224, 224), dtype="float32"),)


def test_the_crops_are_the_same_each_time_and_show_every_photograph_in_both_halves(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "examples" / "efficientnet")
    samples = load_samples("photos:crops", inputs=_IMAGE)
    assert samples.num_samples == 144
    ((_, pixels),) = samples.arrays
    assert -1 <= pixels.min() < -0.9
    assert 0.9 < pixels.max() <= 1
    assert load_samples("photos:crops", inputs=_IMAGE).digest == samples.digest

    # Only the camera's photograph and the coins are gray: both halves have six crops of each.
    for half in split_samples(samples):
        ((_, each),) = half.arrays
        gray = np.ptp(each[:, 0], axis=1).max(axis=(1, 2)) == 0
        assert int(gray.sum()) == 12
