"""Where samples come from: a file, a folder of images, or the user's own function."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgepack.data.arrays import read_labels, read_npy, read_npz
from edgepack.data.function import read_function
from edgepack.data.images import ImagePreprocessing, read_images
from edgepack.data.samples import Samples, check_samples
from edgepack.errors import DataError, UsageError
from edgepack.model import TensorSpec

_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_samples(
    source: str,
    *,
    inputs: tuple[TensorSpec, ...],
    images: ImagePreprocessing | None = None,
    labels: Path | None = None,
    class_names: Sequence[str] = (),
    are_classes: bool = True,
) -> Samples:
    """Load samples and check them against the source model's inputs.

    Args:
        source: an `.npz` with one array an input, an `.npy` for a model of one input, a folder
            of images, or `module:function` (the user's own code, yielding one dict a sample).
            An array's first axis counts the samples; a batch axis of 1 may stand behind it.
        inputs: the source model's inputs.
        images: how images are preprocessed; the defaults when None.
        labels: file of class ids; an array `labels` of the data or class subfolders else.
        class_names: names of the classes in the model's order, for class subfolders.
        are_classes: whether labels are class ids; of others only the count is checked.

    Raises:
        UsageError: there is no such file.
        DataError: unreadable, or not fitting; all faults are listed.
    """
    ids = None if labels is None else read_labels(labels)
    check = functools.partial(check_samples, inputs=inputs, are_classes=are_classes)
    path = Path(source)
    if path.is_dir():
        _require_single(source, inputs, "a folder of images feeds one; write an .npz")
        array, found = read_images(
            path,
            spec=inputs[0],
            preprocessing=images or ImagePreprocessing(),
            class_names=class_names,
        )
        given = {inputs[0].name: array}
        return check(given, labels=found if ids is None else ids, source=source)
    if path.suffix == ".npz" and path.exists():
        return check(read_npz(path), labels=ids, source=source)
    if path.suffix == ".npy" and path.exists():
        _require_single(source, inputs, "an .npy holds one array; write an .npz")
        given = {inputs[0].name: read_npy(path)}
        return check(given, labels=ids, source=source)
    if not path.exists() and _FUNCTION.fullmatch(source):
        return check(read_function(source), labels=ids, source=source)
    came = "there is no such file" if not path.exists() else f"got a file {path.suffix!r}"
    # A path that leads nowhere is a mistake of the command line, as of any other path option.
    kind = DataError if path.exists() else UsageError
    raise kind(
        f"data {source!r}: expected an .npz, an .npy, a folder of images or module:function, but "
        f"{came}",
        remedy="Check the path; numpy.savez(path, input_name=array) writes a fitting file.",
    )


def _require_single(source: str, inputs: tuple[TensorSpec, ...], remedy: str) -> None:
    if len(inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in inputs)
        raise DataError(
            f"{source}: the model has {len(inputs)} inputs ({names}), and {remedy}",
            remedy="numpy.savez(path, **{input_name: array, …}) writes one array an input.",
        )
