#!/usr/bin/env python3
"""Make Keras models with random weights; run by scripts/model-support in the tensorflow toolchain.

    keras_models.py --list             one line of JSON a model: its name and files
    keras_models.py FOLDER NAME...     writes FOLDER/NAME/FILE for each file of the list

The weights come from a fixed seed. Normalization layers get the statistics of a batch and the
last layer a scale that lets classes differ, so that no answer is constant.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras_networks

SEED = 20
BATCH = 8
IMAGE_RANK = 4
NUM_CLASSES = 10
# Spread of a classifier's logits: more than one class is likely, and none is certain.
LOGIT_STD = 2.0
SMALLEST = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
SIDE = 64
KERAS = {"model.keras": ()}
KERAS_H5 = {"model.keras": (), "model.h5": ()}
KERAS_ALL = {"model.keras": (), "model.h5": (), "saved_model": ()}
KERAS_ONNX = {"model.keras": (), "keras.onnx": ()}
KERAS_EVERY = {"model.keras": (), "model.h5": (), "saved_model": (), "keras.onnx": ()}

APPLICATIONS = {
    "MobileNet": KERAS_EVERY,
    "MobileNetV2": KERAS_EVERY,
    "MobileNetV3Small": KERAS_EVERY,
    "MobileNetV3Large": KERAS,
    "EfficientNetB0": KERAS_EVERY,
    "EfficientNetV2B0": KERAS_ALL,
    "ResNet50": KERAS_EVERY,
    "ResNet50V2": KERAS_ALL,
    "DenseNet121": KERAS_ONNX,
    "InceptionV3": KERAS,
    "Xception": KERAS,
    "NASNetMobile": KERAS,
    "ConvNeXtTiny": KERAS,
    "VGG16": KERAS,
    "VGG19": KERAS,
    "ResNet101": KERAS,
    "ResNet152": KERAS,
    "ResNet101V2": KERAS,
    "ResNet152V2": KERAS,
    "DenseNet169": KERAS,
    "DenseNet201": KERAS,
    "EfficientNetB1": KERAS,
    "EfficientNetB2": KERAS,
    "EfficientNetB3": KERAS,
    "EfficientNetB4": KERAS,
    "EfficientNetV2B1": KERAS,
    "EfficientNetV2B2": KERAS,
    "EfficientNetV2B3": KERAS,
    "EfficientNetV2S": KERAS,
    "InceptionResNetV2": KERAS,
    "ConvNeXtSmall": KERAS,
    "EfficientNetB5": KERAS,
    "EfficientNetB6": KERAS,
    "EfficientNetB7": KERAS,
    "EfficientNetV2M": KERAS,
    "NASNetLarge": KERAS,
    "ConvNeXtBase": KERAS,
    "EfficientNetV2L": KERAS,
    "ConvNeXtLarge": KERAS,
    "ConvNeXtXLarge": KERAS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model of the zoo.

    Attributes:
        build: makes the Keras model.
        files: options of `edgepack convert` for each file that is written.
        write: writes the files into a folder; None writes each by its name.
    """

    build: Callable[[], Any]
    files: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(KERAS))
    write: Callable[[Any, Path], None] | None = None


def application(name: str) -> Case:
    """Give one of the architectures in keras.applications."""

    def build() -> Any:  # noqa: ANN401 - a keras.Model, which only the toolchain knows
        import keras  # noqa: PLC0415 - of the toolchain

        side = max(SIDE, SMALLEST.get(name, 0))
        return getattr(keras.applications, name)(
            weights=None, input_shape=(side, side, 3), classes=NUM_CLASSES
        )

    return Case(build=build, files=APPLICATIONS[name])


CASES = {f"keras-{name.lower()}": application(name) for name in APPLICATIONS} | {
    f"keras-{name}": Case(build=build, files=files, write=write)
    for name, build, files, write in keras_networks.NETWORKS
}


def main() -> int:
    """List the models, or write those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="list the models")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if given.list:
        for name, case in CASES.items():
            print(json.dumps({"name": name, "toolchain": "tensorflow", "files": case.files}))
        return 0
    for name in given.names:
        write_case(CASES[name], given.folder / name)
        print(f"wrote {name}", file=sys.stderr, flush=True)
    return 0


def write_case(case: Case, folder: Path) -> None:
    """Build a model, settle its weights and write its files."""
    import keras  # noqa: PLC0415 - of the toolchain

    keras.utils.set_random_seed(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    model = case.build()
    if isinstance(model, keras.Model):
        settle(model)
    if case.write is not None:
        case.write(model, folder)
        return
    for name in case.files:
        write_keras(model, folder / name)


def write_keras(model: Any, path: Path) -> None:  # noqa: ANN401 - as above
    """Write a Keras 3 model in the format its file name tells."""
    if path.suffix in {".keras", ".h5"}:
        model.save(path)
    elif path.suffix == ".onnx":
        model.export(path, format="onnx", verbose=False)
    else:
        model.export(path, verbose=False)


def settle(model: Any) -> None:  # noqa: ANN401 - as above
    """Give weights that training leaves plausible values: no ones, zeros and flat answers."""
    import keras  # noqa: PLC0415 - of the toolchain
    import numpy as np  # noqa: PLC0415 - of the toolchain

    generator = np.random.default_rng(SEED)
    norms = [
        each
        for each in model._flatten_layers()  # noqa: SLF001 - nested models' layers have no other way
        if isinstance(each, keras.layers.BatchNormalization)
    ]
    for weight in model.weights:
        # ConvNeXt scales its blocks by 1e-6 at first: they would not take part.
        if weight.name == "gamma":
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.name in {"beta", "bias"}:
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    feeds = [sample(each, generator) for each in model.inputs]
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.momentum = 0.0
    model(feeds if len(feeds) > 1 else feeds[0], training=True)
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
    last = model.layers[-1]
    if isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax:
        shares = np.asarray(model(feeds if len(feeds) > 1 else feeds[0], training=False))
        logits = np.log(np.maximum(shares, 1e-30))
        spread = float((logits - logits.mean(axis=-1, keepdims=True)).std())
        last.kernel.assign(last.kernel * (LOGIT_STD / max(spread, 1e-6)))


def sample(tensor: Any, generator: Any) -> Any:  # noqa: ANN401 - a KerasTensor, a NumPy generator
    """Give a batch for an input: small ids, or values that differ in level and contrast.

    Plain noise is alike in every sample: statistics of it let other inputs grow layer by layer.
    Half of the pictures are smooth.
    """
    import numpy as np  # noqa: PLC0415 - of the toolchain

    shape = (BATCH, *(size or keras_networks.OPEN for size in tensor.shape[1:]))
    if tensor.dtype.startswith("int"):
        return generator.integers(0, keras_networks.VOCABULARY, shape).astype(tensor.dtype)
    batch = generator.standard_normal(shape)
    if len(shape) == IMAGE_RANK:
        half = BATCH // 2
        coarse = generator.standard_normal((half, 4, 4, shape[-1]))
        rows, columns = (np.arange(size) * 4 // size for size in shape[1:3])
        batch[:half] = coarse[:, rows][:, :, columns] + 0.2 * batch[:half]
    by_sample = (-1, *[1] * (len(shape) - 1))
    levels = np.linspace(-1.0, 1.0, BATCH).reshape(by_sample)
    batch = levels + batch * np.linspace(0.3, 1.5, BATCH).reshape(by_sample)
    return batch.astype(tensor.dtype)


if __name__ == "__main__":
    raise SystemExit(main())
