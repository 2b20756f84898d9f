r"""Crops of real photographs for EfficientNet-Lite0, for `--data photos:crops`.

    cd examples/efficientnet
    edgepack pack "$(../../scripts/fetch-models efficientnet-lite0)" \
        --target raspberry-pi-4 --data photos:crops

The photographs are those that the packages scikit-image and scikit-learn ship; nothing is
downloaded. They are read from the packages' folders: `skimage.data` would ask for pooch,
which fetches what is not shipped.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/coins.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
CROPS_EACH = 12
SEED = 12
SIZE = 224
# The smallest crop, as a share of the photograph's short side.
SMALLEST = 0.45
# TensorFlow's EfficientNet-Lite was trained on (pixel - 127) / 128.
MEAN, STD = 127.0, 128.0


def crops() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield 144 samples `{"image": 3x224x224}`, the photographs in turn.

    Taking turns means that even and odd samples show different photographs' crops alike: 12
    photographs are an even number, so each round starts one photograph later.
    """
    photographs = [_open(package, path) for package, path in PHOTOGRAPHS]
    random = np.random.default_rng(SEED)
    for turn in range(CROPS_EACH):
        for index in range(len(photographs)):
            crop = _crop(photographs[(index + turn) % len(photographs)], random)
            pixels = np.asarray(crop, np.float32)
            yield {"image": ((pixels - MEAN) / STD).transpose(2, 0, 1)}


def _open(package: str, path: str) -> Image.Image:
    # The specification alone: importing scikit-image takes a second and is not needed.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        message = f"{package} is not installed: pip install scikit-image scikit-learn"
        raise ModuleNotFoundError(message)
    with Image.open(Path(spec.origin).parent / path) as image:
        return image.convert("RGB")


def _crop(photograph: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut out a random square and resize it to the model's input."""
    short = min(photograph.size)
    side = int(short * random.uniform(SMALLEST, 1))
    left, top = (int(random.integers(0, length - side + 1)) for length in photograph.size)
    box = (left, top, left + side, top + side)
    return photograph.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
