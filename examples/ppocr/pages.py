r"""Photographs with lines of text on them for PP-OCR's detector, for `--data pages:pages`.

    cd examples/ppocr
    edgepack pack "$(../../scripts/fetch-models ppocr-detector)" --input-shape x=1,3,320,320 \
        --target raspberry-pi-4 --data pages:pages

A detector of text answers zero nearly everywhere on a picture without any, and no variant can be
told from another by such answers. So words of several sizes, colors and angles are drawn on crops
of the photographs of examples/efficientnet, and the page and the letters that scikit-image ships
are among them as they are.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PHOTOGRAPHS = (
    ("skimage", "data/page.png"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/text.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/coins.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
)
# These hold text already.
NUM_CROPS = 96
SEED = 4
SIZE = 320
HEIGHT = 48
# The smallest crop, as a share of the photograph's short side.
SMALLEST = 0.6
WORDS = (
    *("EXIT", "Platform 9", "open daily", "No. 4711", "12:45", "Ausgang", "SALE -50%"),
    *("Cafe", "Museum", "fragile", "km/h", "Total 19.99", "EdgePack", "Line 2", "www.example.org"),
)
NUM_LINES = 4
# PP-OCR was trained on (pixel / 255 - 0.5) / 0.5, blue first.
HALF = 127.5


def pages() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield 96 samples `{"x": 3x320x320}`, the photographs in turn."""
    photographs = [_open(package, path) for package, path in PHOTOGRAPHS]
    random = np.random.default_rng(SEED)
    for index in range(NUM_CROPS):
        # Each round starts one photograph later, so that even and odd samples show all of them.
        place = (index + index // len(photographs)) % len(photographs)
        crop = _crop(photographs[place], random)
        if "page" not in PHOTOGRAPHS[place][1] and "text" not in PHOTOGRAPHS[place][1]:
            for _ in range(NUM_LINES):
                crop = _write(crop, random)
        pixels = np.asarray(crop, np.float32)[:, :, ::-1]
        yield {"x": np.ascontiguousarray(((pixels - HALF) / HALF).transpose(2, 0, 1))}


def lines() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield 96 samples `{"x": 3x48x320}` for the recognizer: a word each, on a photograph."""
    yield from _strips(320)


def words() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield 96 samples `{"x": 3x48x192}` for the classifier: a word each, half upside down."""
    for index, sample in enumerate(_strips(192)):
        strip = sample["x"]
        yield {"x": np.ascontiguousarray(strip[:, ::-1, ::-1]) if index % 4 > 1 else strip}


def _strips(width: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    photographs = [_open(package, path) for package, path in PHOTOGRAPHS]
    random = np.random.default_rng(SEED)
    for index in range(NUM_CROPS):
        crop = _crop(photographs[index % len(photographs)], random).crop((0, 0, width, HEIGHT))
        font = ImageFont.load_default(size=float(random.integers(22, 36)))
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        word = WORDS[int(random.integers(len(WORDS)))]
        ImageDraw.Draw(crop).text((4.0, 4.0), word, font=font, fill=color)
        pixels = np.asarray(crop, np.float32)[:, :, ::-1]
        yield {"x": np.ascontiguousarray(((pixels - HALF) / HALF).transpose(2, 0, 1))}


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


def _write(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Draw a word of a random size, color, angle and place."""
    font = ImageFont.load_default(size=float(random.integers(12, 40)))
    layer = Image.new("RGBA", picture.size)
    place = tuple(float(random.integers(0, SIZE - 80)) for _ in range(2))
    color = tuple(int(value) for value in random.integers(0, 256, 3))
    word = WORDS[int(random.integers(len(WORDS)))]
    ImageDraw.Draw(layer).text((place[0], place[1]), word, font=font, fill=(*color, 255))
    layer = layer.rotate(float(random.uniform(-12, 12)))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")
