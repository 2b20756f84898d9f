"""What a source model is: its format by content and name, its digest, and the user's wishes."""

import hashlib
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from edgepack.errors import ModelError
from edgepack.flatbuffer import FILE_IDENTIFIER

_HEAD_BYTES: Final = 64
_HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE: Final = b"PK\x03\x04"
_MAXIMUM_MEMBERS: Final = 100_000
# Fields of onnx.ModelProto (onnx/onnx.proto, IR version 13) with their wire types.
_ONNX_FIELDS: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH: Final = 7
_VARINT: Final = 0
_LONGEST_VARINT: Final = 10


class SourceFormat(StrEnum):
    """Format of a source model."""

    KERAS = "keras"
    KERAS_H5 = "h5"
    SAVED_MODEL = "saved_model"
    ONNX = "onnx"
    TFLITE = "tflite"


_TITLES: Final = {
    SourceFormat.KERAS: "a Keras archive",
    SourceFormat.KERAS_H5: "an HDF5 file",
    SourceFormat.SAVED_MODEL: "a SavedModel directory",
    SourceFormat.ONNX: "an ONNX model",
    SourceFormat.TFLITE: "a TFLite model",
}
_SUFFIXES: Final = {
    ".keras": SourceFormat.KERAS,
    ".h5": SourceFormat.KERAS_H5,
    ".hdf5": SourceFormat.KERAS_H5,
    ".onnx": SourceFormat.ONNX,
    ".tflite": SourceFormat.TFLITE,
}
_FORMATS: Final = ".keras, .h5, .onnx, .tflite or a SavedModel directory"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Where a model came from.

    Attributes:
        file_name: last part of the source's path.
        format: format of the source.
        sha256: hex digest of the file (and of weights in files beside it), or of a directory's
            relative paths and contents.
        versions: (package, version) of everything the conversion ran on, sorted.
        converter: name of the program that converted it; "none" for `.tflite`.
    """

    file_name: str
    format: SourceFormat
    sha256: str
    versions: tuple[tuple[str, str], ...]
    converter: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """What the user asks of an import.

    Attributes:
        input_shapes: (input name, whole shape) that fix dimensions the source leaves open.
        signature: signature of a SavedModel; None is the only one, or `serving_default`.
        trust_model: load code, files and external data that the model brings along.
        toolchain_python: interpreter of the user's own environment instead of a toolchain.
    """

    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    signature: str | None = None
    trust_model: bool = False
    toolchain_python: Path | None = None


def detect_format(path: Path) -> SourceFormat:
    """Tell a source model's format from its content, and check that its name agrees.

    Raises:
        ModelError: missing, empty, truncated, of no known format, or named as another one.
    """
    try:
        if path.is_dir():
            return _check_directory(path)
        num_bytes = path.stat().st_size
        if num_bytes == 0:
            raise ModelError(
                f"{path}: expected a model, but the file is empty",
                remedy="Copy or export the model again.",
            )
        found = _detect_content(path, num_bytes)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror or error}",
            remedy="Check the path and its permissions.",
        ) from error
    named = _SUFFIXES.get(path.suffix.lower())
    if named is found:
        return found
    suffix = next(suffix for suffix, format_ in _SUFFIXES.items() if format_ is found)
    raise ModelError(
        f"{path}: expected {_TITLES[named]} by its name, but it holds {_TITLES[found]}"
        if named
        else f"{path}: it holds {_TITLES[found]}, which its name does not say",
        remedy=f"Rename it to {path.stem}{suffix} if that is the model you mean.",
    )


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
    if path.suffix.lower() != ".onnx":
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # Importing onnx and parsing take 0.3 s and more; the key of each location is plain text.
        if content.find(b"location") < 0:
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
            if entry.key == "location" and (path.parent / entry.value).is_file()
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_directory(path: Path) -> SourceFormat:
    marker = path / "saved_model.pb"
    if not marker.is_file():
        raise ModelError(
            f"{path}: expected a SavedModel directory with a file saved_model.pb, "
            "but there is none in it",
            remedy=f"Give the folder that holds saved_model.pb, or a file: {_FORMATS}.",
        )
    if marker.stat().st_size == 0:
        raise ModelError(
            f"{marker}: expected the SavedModel's graph, but the file is empty",
            remedy="Copy or export the model again.",
        )
    return SourceFormat.SAVED_MODEL


def _detect_content(path: Path, num_bytes: int) -> SourceFormat:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[4:8] == FILE_IDENTIFIER:
        return SourceFormat.TFLITE
    if head.startswith(_HDF5_SIGNATURE):
        _check_hdf5_length(path, head, num_bytes)
        return SourceFormat.KERAS_H5
    if head.startswith(_ZIP_SIGNATURE):
        _check_keras_archive(path)
        return SourceFormat.KERAS
    fault = _onnx_fault(path, num_bytes)
    if fault is None:
        return SourceFormat.ONNX
    if path.suffix.lower() == ".onnx":
        raise ModelError(
            f"{path}: expected an ONNX model, but {fault}",
            remedy="Copy or export the model again and compare its checksum.",
        )
    raise ModelError(
        f"{path}: expected {_FORMATS}, but its content is none of these "
        f"({num_bytes} bytes starting {head[:8]!r})",
        remedy="Give the model file itself, whole and uncompressed; "
        "export PyTorch models to ONNX first.",
    )


def _check_hdf5_length(path: Path, head: bytes, num_bytes: int) -> None:
    # The superblock holds the end-of-file address: HDF5 File Format Specification 3.0, II.A.
    # Versions 0 and 1 have it as the third address from byte 24 or 28, 2 and 3 from byte 12.
    end = _HEAD_BYTES
    if num_bytes >= _HEAD_BYTES:
        version = head[8]
        offset = {0: 40, 1: 44, 2: 28, 3: 28}.get(version)
        address_bytes = head[13] if version in {0, 1} else head[9]
        if offset is None or address_bytes != 8:  # noqa: PLR2004 - what every 64-bit writer uses
            return
        (end,) = struct.unpack_from("<Q", head, offset)
    if num_bytes < end:
        raise ModelError(
            f"{path}: expected an HDF5 file of at least {end} bytes by its own header, but it "
            f"has {num_bytes}: it is truncated",
            remedy="Copy or save the model again and compare its checksum.",
        )


def _check_keras_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist()[:_MAXIMUM_MEMBERS])
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise ModelError(
            f"{path}: expected a complete ZIP archive, but reading its directory failed "
            f"({error}): it is truncated or damaged",
            remedy="Copy or save the model again and compare its checksum.",
        ) from error
    if {"config.json", "metadata.json"} <= names:
        return
    if any(name.endswith("data.pkl") for name in names):
        raise ModelError(
            f"{path}: expected {_FORMATS}, but it is a PyTorch archive",
            remedy="Export it first: torch.onnx.export(model, example, 'model.onnx').",
        )
    if "manifest.json" in names:
        raise ModelError(
            f"{path}: expected a source model, but it looks like a packed bundle",
            remedy="Use `edgepack push` or `edgepack inspect` for bundles.",
        )
    raise ModelError(
        f"{path}: expected a Keras archive with config.json and metadata.json, "
        "but this ZIP archive has none",
        remedy="Save the model with model.save('model.keras').",
    )


def _onnx_fault(path: Path, num_bytes: int) -> str | None:
    """Walk the top level of a protobuf message; give what makes it no ONNX model, or None.

    ONNX files have no magic number. Only tags and lengths are read, so the walk is quick on
    gigabytes.
    """
    has_graph = False
    offset = 0
    with path.open("rb") as file:
        while offset < num_bytes:
            file.seek(offset)
            head = file.read(2 * _LONGEST_VARINT)
            tag, used = _read_varint(head, 0)
            field, wire_type = tag >> 3, tag & 7
            if not used or _ONNX_FIELDS.get(field) != wire_type:
                return f"byte {offset} starts no field of an ONNX model: it is damaged"
            value, value_bytes = _read_varint(head, used)
            if not value_bytes:
                return "its last field is cut off: it is truncated"
            offset += used + value_bytes + (0 if wire_type == _VARINT else value)
            has_graph |= field == _ONNX_GRAPH
    if offset > num_bytes:
        return f"its last field ends at byte {offset} of {num_bytes}: it is truncated"
    return None if has_graph else "it has no graph: it is truncated or something else"


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Give a base-128 number and how many bytes it takes; 0 bytes when it does not end."""
    value = 0
    for index, byte in enumerate(data[start : start + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, index + 1
    return 0, 0
