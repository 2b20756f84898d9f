"""What a source model is: its format, its digest, what converts it, and the user's wishes."""

import hashlib
import json
import mmap
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from edgepack.errors import ModelError
from edgepack.flatbuffer import FILE_IDENTIFIER

# How HDF5 files and ZIP archives begin, which hold all of their weights.
_OTHERS: Final = (b"\x89HDF", b"PK\x03\x04")
_FUNCTION: Final = re.compile(r"(?:[^:]+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


class SourceFormat(StrEnum):
    """Format of a source model; `FUNCTION` is `module:function` or `file.py:function`."""

    KERAS = "keras"
    KERAS_H5 = "h5"
    SAVED_MODEL = "saved_model"
    FROZEN_GRAPH = "frozen_graph"
    ONNX = "onnx"
    PYTORCH = "pytorch"
    TORCHSCRIPT = "torchscript"
    FUNCTION = "function"
    TFLITE = "tflite"


class Converter(StrEnum):
    """A program that makes a TFLite model of a source."""

    TFLITE_CONVERTER = "tflite-converter"
    ONNX2TF = "onnx2tf"
    ONNX2TF_TENSORFLOW = "onnx2tf-tensorflow"
    ONNX_TF = "onnx-tf"
    LITERT_TORCH = "litert-torch"


_TENSORFLOW: Final = (Converter.TFLITE_CONVERTER,)
_PYTORCH: Final = (Converter.LITERT_TORCH,)
CONVERTERS: Final = {
    SourceFormat.KERAS: _TENSORFLOW,
    SourceFormat.KERAS_H5: _TENSORFLOW,
    SourceFormat.SAVED_MODEL: _TENSORFLOW,
    SourceFormat.FROZEN_GRAPH: _TENSORFLOW,
    SourceFormat.ONNX: (Converter.ONNX2TF, Converter.ONNX2TF_TENSORFLOW, Converter.ONNX_TF),
    SourceFormat.PYTORCH: _PYTORCH,
    SourceFormat.TORCHSCRIPT: _PYTORCH,
    SourceFormat.FUNCTION: _PYTORCH,
    SourceFormat.TFLITE: (),
}
"""What can convert each format, in the order it is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Where a model came from.

    Attributes:
        file_name: last part of the source's path.
        format: format of the source.
        sha256: hex digest of the file (and of weights in files beside it), or of a directory's
            relative paths and contents; of the weights and the program a function made.
        versions: (package, version) of everything the conversion ran on, sorted.
        converter: name of the program that converted it; "none" for `.tflite`.
        notes: what was changed of it before it was converted, in words.
    """

    file_name: str
    format: SourceFormat
    sha256: str
    versions: tuple[tuple[str, str], ...]
    converter: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """What the user asks of an import.

    Attributes:
        input_shapes: (input name, whole shape) that fix dimensions the source leaves open.
        dimensions: (symbolic dimension, size) that fix it wherever it stands.
        signature: signature of a SavedModel; None is the only one, or `serving_default`.
        trust_model: load code, files and external data that the model brings along.
        toolchain_python: interpreter of the user's own environment instead of a toolchain.
        converter: the only one to try; None tries all of the format in their order.
        with_files: Python files of the user's that run before the model is loaded.
        memory_bytes: resident memory a worker may take; None is the machine's share.
        timeout_seconds: wall-clock limit of one run of a worker.
    """

    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dimensions: tuple[tuple[str, int], ...] = ()
    signature: str | None = None
    trust_model: bool = False
    toolchain_python: Path | None = None
    converter: Converter | None = None
    with_files: tuple[Path, ...] = ()
    memory_bytes: int | None = None
    timeout_seconds: float = 3600.0

    @property
    def key(self) -> str:
        """Everything of it that decides what a model becomes, as one text for cache keys."""
        return json.dumps(
            {
                "shapes": sorted(self.input_shapes),
                "dimensions": sorted(self.dimensions),
                "signature": self.signature,
                "trust": self.trust_model,
            }
        )


def is_function(path: Path) -> bool:
    """Tell whether a model is named as `module:function` or `file.py:function`."""
    return _FUNCTION.fullmatch(str(path)) is not None and not path.exists()


def digest_source(path: Path) -> str:
    """Give the hex sha256 of a file, or of a directory's sorted relative paths and contents.

    An ONNX model may keep its weights in files beside it: exported anew with other weights it
    is the same file, so these files count too.

    Raises:
        ModelError: something cannot be read, or is neither a file nor a directory.
    """
    try:
        if path.is_dir():
            whole, names = hashlib.sha256(), sorted(_relative_files(path))
        else:
            digest, names = _digest_file(path), _external_files(path)
            if not names:
                return digest
            whole, path = hashlib.sha256(bytes.fromhex(digest)), path.parent
        for name in names:
            # Each part is of known length once hashed, so no two trees share a digest.
            whole.update(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
            whole.update(bytes.fromhex(_digest_file(path / name)))
        return whole.hexdigest()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror or error}",
            remedy="Check the path and its permissions.",
        ) from error


def _relative_files(path: Path) -> Iterator[str]:
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back up
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        for name in names:
            yield (Path(folder) / name).relative_to(path).as_posix()


def _external_files(path: Path) -> list[str]:
    """Give the sorted names of the files that hold an ONNX model's weights."""
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        is_other = content[:4] in _OTHERS or content[4:8] == FILE_IDENTIFIER
        # Importing onnx and parsing take 0.3 s and more; the key of each location is plain text.
        if is_other or content.find(b"location") < 0:
            return []
    import onnx  # noqa: PLC0415 - see above
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - comes with it

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:  # the conversion refuses it, and says so
        return []
    # A missing file and one that is no plain file are refused there, too.
    return sorted(
        {
            entry.value
            for tensor in _tensors(model)
            for entry in tensor.external_data
            # Protobuf gives bytes for a text that is no UTF-8.
            if entry.key == "location"
            and isinstance(entry.value, str)
            and (path.parent / entry.value).is_file()
        }
    )


def _tensors(message: Any) -> Iterator[Any]:  # noqa: ANN401 - protobuf messages of any type
    """Give every tensor inside a protobuf message, at any depth."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(each)


def _digest_file(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):  # a link to /dev/zero has no end
        raise ModelError(
            f"{path}: expected a plain file, but it is none",
            remedy="Copy or export the model again.",
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
