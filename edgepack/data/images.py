"""A folder of images as samples, preprocessed as the command line says."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.data.arrays import MAXIMUM_BYTES
from edgepack.errors import DataError
from edgepack.model import TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff",
                              ".webp"})  # fmt: skip
_PIXEL_SCALE: Final = 1.0 / 255.0
_CHANNELS: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_ROUNDING: Final = 1e-6  # what float64 arithmetic may leave of a whole number
_GRAY_RANK: Final = 3
_IMAGE_RANK: Final = 4


class ImageLayout(StrEnum):
    """Order of an image tensor's axes."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class ResizeRule(StrEnum):
    """How an image comes to the input's size.

    `stretch` ignores the aspect ratio; `crop` scales the shorter side to the input's side
    divided by `crop_fraction` and cuts out the center, as ImageNet models are evaluated.
    """

    STRETCH = "stretch"
    CROP = "crop"


class ColorOrder(StrEnum):
    """Order of the color channels."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePreprocessing:
    """How pixels become an input: (pixel * scale - mean) / std, a value or one a channel.

    Attributes:
        size: height and width; None takes the input's.
        mean: subtracted after scaling.
        std: divided by after that.
        scale: of pixels from 0 to 255; None is 1/255 for a float input and 1 for an integer one.
        layout: None is found from the input's shape.
        resize: how an image comes to the size.
        crop_fraction: share of the shorter side that `crop` keeps.
        color: order of color channels.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float | None = None
    layout: ImageLayout | None = None
    resize: ResizeRule = ResizeRule.STRETCH
    crop_fraction: float = 0.875
    color: ColorOrder = ColorOrder.RGB


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Preprocessing brought to one input."""

    height: int
    width: int
    mode: str
    layout: ImageLayout
    squeeze: bool
    scale: float
    preprocessing: ImagePreprocessing


def read_images(
    folder: Path,
    *,
    spec: TensorSpec,
    preprocessing: ImagePreprocessing,
    class_names: Sequence[str] = (),
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Read a folder's images in sorted order, as (num_samples, *spec.shape).

    Images in subfolders get labels: the subfolder's position in `class_names` when there are
    any, else the subfolder's name when all are numbers, else its position in sorted order.
    EXIF orientation is left alone, as training pipelines do.

    Raises:
        DataError: no images, unreadable ones (all named), or an input that is no image.
    """
    faults: list[str] = []
    plan = _plan(spec, preprocessing, faults)
    paths, labels = _list_images(folder, class_names, faults)
    num_bytes = len(paths) * spec.num_bytes
    if num_bytes > MAXIMUM_BYTES:
        faults.append(
            f"expected at most {MAXIMUM_BYTES // 2**30} GiB of samples, but {len(paths)} images "
            f"make {num_bytes / 2**30:.1f} GiB"
        )
    arrays: list[NDArray[Any]] = []
    if not faults and plan is not None:
        for path in paths:
            array = _read_image(path, folder, plan, spec, faults)
            if array is not None:
                arrays.append(array)
    if faults:
        raise DataError(
            join_faults(f"images {folder}", faults),
            remedy="Mend or remove the files named above, and check the preprocessing options.",
        )
    return np.stack(arrays), labels


def _plan(spec: TensorSpec, given: ImagePreprocessing, faults: list[str]) -> _Plan | None:
    shape = spec.shape
    squeeze = len(shape) == _GRAY_RANK
    if squeeze:
        shape = (*shape, 1)
    if len(shape) != _IMAGE_RANK or shape[0] != 1:
        faults.append(
            f"input {spec.name!r}: expected an image of shape (1, height, width, channels) or "
            f"(1, channels, height, width), but the model takes {spec.shape}"
        )
        return None
    layout = given.layout
    if layout is None:
        layout = ImageLayout.NHWC if shape[3] in _CHANNELS else ImageLayout.NCHW
    height, width, channels = shape[1:] if layout is ImageLayout.NHWC else (*shape[2:], shape[1])
    known = len(faults)
    _check_preprocessing(given, (height, width, channels), faults)
    if channels not in _CHANNELS:
        faults.append(
            f"input {spec.name!r}: expected 1, 3 or 4 channels, but {spec.shape} has {channels} "
            f"in the layout {layout}"
        )
    if len(faults) > known:
        return None
    is_float = np.issubdtype(np.dtype(spec.dtype), np.floating)
    scale = given.scale if given.scale is not None else (_PIXEL_SCALE if is_float else 1.0)
    return _Plan(
        height=height,
        width=width,
        mode=_CHANNELS[channels],
        layout=layout,
        squeeze=squeeze,
        scale=scale,
        preprocessing=given,
    )


def _check_preprocessing(
    given: ImagePreprocessing, image: tuple[int, int, int], faults: list[str]
) -> None:
    height, width, channels = image
    if given.size is not None and given.size != (height, width):
        faults.append(
            f"size: expected {height}x{width} (height x width), the input's, but got "
            f"{given.size[0]}x{given.size[1]}"
        )
    for name, values in (("mean", given.mean), ("std", given.std)):
        if len(values) not in {1, channels}:
            faults.append(f"{name}: expected 1 or {channels} values, but got {len(values)}")
        if not all(math.isfinite(value) for value in values):
            faults.append(f"{name}: expected finite numbers, but got {values}")
    if 0.0 in given.std:
        faults.append("std: expected numbers other than 0")
    if not 0.0 < given.crop_fraction <= 1.0:
        faults.append(f"crop fraction: expected above 0 up to 1, but got {given.crop_fraction}")


def _list_images(
    folder: Path, class_names: Sequence[str], faults: list[str]
) -> tuple[list[Path], NDArray[np.int64] | None]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        direct = [entry for entry in entries if _is_image(entry)]
        classes = {
            entry.name: sorted(each for each in entry.iterdir() if _is_image(each))
            for entry in entries
            if entry.is_dir()
        }
    except OSError as error:
        faults.append(f"cannot be read: {error.strerror or error}")
        return [], None
    classes = {name: paths for name, paths in classes.items() if paths}
    if direct and classes:
        faults.append(
            f"expected images either in the folder or in one subfolder a class, but got "
            f"{len(direct)} in the folder and more in {', '.join(sorted(classes)[:5])}"
        )
    if not direct and not classes:
        faults.append(f"expected images ({', '.join(sorted(_SUFFIXES))}), but found none")
    if direct or not classes:
        return direct, None
    ids = _class_ids(sorted(classes), class_names, faults)
    labels = [ids[name] for name, paths in classes.items() for _ in paths]
    return [path for paths in classes.values() for path in paths], np.array(labels, np.int64)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _class_ids(
    names: Sequence[str], class_names: Sequence[str], faults: list[str]
) -> dict[str, int]:
    if class_names:
        faults += [
            f"subfolder {name!r}: not among the {len(class_names)} class names"
            for name in names
            if name not in class_names
        ]
        return {name: class_names.index(name) if name in class_names else 0 for name in names}
    if all(name.isascii() and name.isdigit() for name in names):
        return {name: int(name) for name in names}
    return {name: index for index, name in enumerate(names)}


def _read_image(
    path: Path, folder: Path, plan: _Plan, spec: TensorSpec, faults: list[str]
) -> NDArray[Any] | None:
    from PIL import Image  # noqa: PLC0415 - only needed for image folders

    try:
        with warnings.catch_warnings():
            # Pillow only warns of an image of 90 to 180 million pixels, which is a bomb too.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    # Pillow 13 would cut each value off at 255, and leave a white picture.
                    faults.append(
                        f"{path.relative_to(folder)}: expected 8 bits a channel, but its pixels "
                        f"are of Pillow's mode {image.mode}: bring them to 0 to 255, or give "
                        "arrays in an .npz"
                    )
                    return None
                pixels = np.asarray(_resize(image.convert(plan.mode), plan), dtype=np.float64)
    # SyntaxError, ValueError and EOFError are what Pillow's decoders raise on damaged files.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        faults.append(f"{path.relative_to(folder)}: not a readable image: {error}")
        return None
    pixels = pixels.reshape(plan.height, plan.width, -1)
    if plan.preprocessing.color is ColorOrder.BGR and pixels.shape[2] >= _GRAY_RANK:
        pixels = np.concatenate([pixels[:, :, 2::-1], pixels[:, :, 3:]], axis=2)
    values = (pixels * plan.scale - plan.preprocessing.mean) / plan.preprocessing.std
    if plan.layout is ImageLayout.NCHW and not plan.squeeze:
        values = values.transpose(2, 0, 1)
    values = values.reshape(spec.shape)
    dtype = np.dtype(spec.dtype)
    if not np.issubdtype(dtype, np.floating):
        limits = np.iinfo(dtype)
        whole = np.round(values)
        if (
            np.abs(whole - values).max() > _ROUNDING
            or whole.min() < limits.min
            or whole.max() > limits.max
        ):
            faults.append(
                f"{path.relative_to(folder)}: preprocessing gives {values.min():.3g} to "
                f"{values.max():.3g}, but input {spec.name!r} takes whole {dtype} numbers"
            )
            return None
        values = whole
    return values.astype(dtype)


def _resize(image: "Image", plan: _Plan) -> "Image":
    from PIL.Image import Resampling  # noqa: PLC0415 - only needed for image folders

    if image.size == (plan.width, plan.height) and plan.preprocessing.resize is ResizeRule.STRETCH:
        return image
    if plan.preprocessing.resize is ResizeRule.STRETCH:
        return image.resize((plan.width, plan.height), Resampling.BILINEAR)
    # The part of the image that ends up in the input, in source pixels; resizing just that
    # part equals resizing all and cutting the center.
    share = plan.preprocessing.crop_fraction
    scale = min(image.width / plan.width, image.height / plan.height) * share
    width, height = plan.width * scale, plan.height * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize(
        (plan.width, plan.height),
        Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
    )
