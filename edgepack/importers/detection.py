"""Telling a source model's format from its content."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgepack.errors import ModelError
from edgepack.flatbuffer import FILE_IDENTIFIER
from edgepack.importers.source import SourceFormat, is_function
from edgepack.importers.torch_files import detect_archive, is_legacy_file, refuse_legacy_file

_HEAD_BYTES: Final = 64
_HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE: Final = b"PK\x03\x04"
_MAXIMUM_MEMBERS: Final = 100_000
# Fields of onnx.ModelProto (onnx/onnx.proto, IR version 13) with their wire types.
_ONNX_FIELDS: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH: Final = 7
# Fields of GraphDef and of SavedModel (tensorflow/core/framework/graph.proto, 2.21, and
# protobuf/saved_model.proto) likewise; a node begins with its name.
_GRAPH_FIELDS: Final = {1: 2, 2: 2, 3: 0, 4: 2, 5: 2}
_GRAPH_NODE: Final = 1
_SAVED_MODEL_FIELDS: Final = {1: 0, 2: 2}
_META_GRAPH: Final = 2
_NODE_NAME_TAG: Final = 0x0A
_VARINT: Final = 0
_LONGEST_VARINT: Final = 10
_TITLES: Final = {
    SourceFormat.KERAS: "a Keras archive",
    SourceFormat.KERAS_H5: "an HDF5 file",
    SourceFormat.SAVED_MODEL: "a SavedModel directory",
    SourceFormat.FROZEN_GRAPH: "a TensorFlow graph",
    SourceFormat.ONNX: "an ONNX model",
    SourceFormat.PYTORCH: "a PyTorch program",
    SourceFormat.TORCHSCRIPT: "TorchScript",
    SourceFormat.TFLITE: "a TFLite model",
}
_SUFFIXES: Final = {
    ".keras": SourceFormat.KERAS,
    ".h5": SourceFormat.KERAS_H5,
    ".hdf5": SourceFormat.KERAS_H5,
    ".pb": SourceFormat.FROZEN_GRAPH,
    ".onnx": SourceFormat.ONNX,
    ".pt2": SourceFormat.PYTORCH,
    ".pt": SourceFormat.TORCHSCRIPT,
    ".pth": SourceFormat.TORCHSCRIPT,
    ".ts": SourceFormat.TORCHSCRIPT,
    ".tflite": SourceFormat.TFLITE,
}
_FORMATS: Final = ".keras, .h5, .pb, .onnx, .pt2, TorchScript, .tflite or a SavedModel directory"


def detect_format(path: Path) -> SourceFormat:
    """Tell a source model's format from its content, and check that its name agrees.

    Code is named as `module:function`, and never read here.

    Raises:
        ModelError: missing, empty, truncated, of no known format, or named as another one.
    """
    if is_function(path):
        return SourceFormat.FUNCTION
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
    # Other endings are used, too (.lite, .torchscript), and contradict nothing.
    named = _SUFFIXES.get(path.suffix.lower(), found)
    if named is found:
        return found
    suffix = next(suffix for suffix, format_ in _SUFFIXES.items() if format_ is found)
    raise ModelError(
        f"{path}: expected {_TITLES[named]} by its name, but it holds {_TITLES[found]}",
        remedy=f"Rename it to {path.stem}{suffix} if that is the model you mean.",
    )


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
        return _detect_archive(path)
    if is_legacy_file(head):
        refuse_legacy_file(path)
    fault = _message_fault(path, num_bytes, _ONNX_FIELDS, _ONNX_GRAPH, "an ONNX model")
    if fault is None:
        return SourceFormat.ONNX
    graph_fault = _message_fault(path, num_bytes, _GRAPH_FIELDS, _GRAPH_NODE, "a TensorFlow graph")
    if graph_fault is None and _begins_with_node(head):
        return SourceFormat.FROZEN_GRAPH
    if _message_fault(path, num_bytes, _SAVED_MODEL_FIELDS, _META_GRAPH, "a SavedModel") is None:
        raise ModelError(
            f"{path}: it is the graph of a SavedModel, which is a whole directory",
            remedy=f"Give the folder instead: {path.parent}",
        )
    if path.suffix.lower() == ".pb":
        raise ModelError(
            f"{path}: expected a TensorFlow graph, but {graph_fault or 'it has no named node'}",
            remedy="Copy or freeze the model again and compare its checksum.",
        )
    if path.suffix.lower() == ".onnx":
        raise ModelError(
            f"{path}: expected an ONNX model, but {fault}",
            remedy="Copy or export the model again and compare its checksum.",
        )
    raise ModelError(
        f"{path}: expected {_FORMATS}, but its content is none of these "
        f"({num_bytes} bytes starting {head[:8]!r})",
        remedy="Give the model file itself, whole and uncompressed; "
        "code is named as FILE.py:function.",
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


def _detect_archive(path: Path) -> SourceFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist()[:_MAXIMUM_MEMBERS])
            if {"config.json", "metadata.json"} <= names:
                return SourceFormat.KERAS
            found = detect_archive(path, archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, zlib.error) as error:
        raise ModelError(
            f"{path}: expected a complete ZIP archive, but reading its directory failed "
            f"({error}): it is truncated or damaged",
            remedy="Copy or save the model again and compare its checksum.",
        ) from error
    if found is not None:
        return found
    if "manifest.json" in names:
        raise ModelError(
            f"{path}: expected a source model, but it looks like a packed bundle",
            remedy="Use `edgepack push` or `edgepack inspect` for bundles.",
        )
    raise ModelError(
        f"{path}: expected a Keras archive with config.json and metadata.json or one of PyTorch's, "
        "but this ZIP archive is neither",
        remedy="Save the model with model.save('model.keras') or torch.export.save.",
    )


def _begins_with_node(head: bytes) -> bool:
    """Tell whether the first field of a message is a node with a name."""
    _, used = _read_varint(head, 1)
    return head[1 + used : 2 + used] == bytes([_NODE_NAME_TAG])


def _message_fault(
    path: Path, num_bytes: int, fields: Mapping[int, int], needed: int, title: str
) -> str | None:
    """Walk the top level of a protobuf message; give what makes it no such message, or None.

    They have no magic number. Only tags and lengths are read, so the walk is quick on
    gigabytes.

    Args:
        path: the file.
        num_bytes: its size.
        fields: wire type of each field.
        needed: the field it must have.
        title: what it is called.
    """
    has_needed = False
    offset = 0
    with path.open("rb") as file:
        while offset < num_bytes:
            file.seek(offset)
            head = file.read(2 * _LONGEST_VARINT)
            tag, used = _read_varint(head, 0)
            field, wire_type = tag >> 3, tag & 7
            if not used or fields.get(field) != wire_type:
                return f"byte {offset} starts no field of {title}: it is damaged"
            value, value_bytes = _read_varint(head, used)
            if not value_bytes:
                return "its last field is cut off: it is truncated"
            offset += used + value_bytes + (0 if wire_type == _VARINT else value)
            has_needed |= field == needed
    if offset > num_bytes:
        return f"its last field ends at byte {offset} of {num_bytes}: it is truncated"
    return None if has_needed else "it has no graph: it is truncated or something else"


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Give a base-128 number and how many bytes it takes; 0 bytes when it does not end."""
    value = 0
    for index, byte in enumerate(data[start : start + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, index + 1
    return 0, 0
