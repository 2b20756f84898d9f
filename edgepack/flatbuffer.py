"""TFLite flatbuffers as object trees: read from bytes, write to bytes, name things.

The trees are those of `ai_edge_litert.schema_py_generated` (LiteRT 2.3), whose classes are
untyped; they are made and consumed here and in the passes of `edgepack.optimize`.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import ModelError

FILE_IDENTIFIER: Final = b"TFL3"
_MINIMUM_BYTES: Final = 16
_BUFFER_DATA_SLOT: Final = 4  # of `data`, the first field of a Buffer (schema.fbs)
# The offsets inside a flatbuffer are 32-bit and signed in places (flatbuffers' documentation,
# "2GB limit"); beyond that LiteRT keeps buffers outside the tables, which no pass here handles.
MAXIMUM_BYTES: Final = 2**31 - 1

# What the generated reader raises on offsets that lead out of the file or to nonsense.
_CORRUPT: Final = (
    struct.error,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@contextmanager
def reading_tables() -> Iterator[None]:
    """Say of a tree whose tables do not fit together that the file is damaged.

    Raises:
        ModelError: what reads the tree ran into one that is missing or out of range.
    """
    try:
        yield
    except (IndexError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise ModelError(
            f"expected consistent tables in the TFLite flatbuffer, but reading them failed "
            f"({type(error).__name__}: {error}): it is damaged",
            remedy="Copy or convert the model again and compare its checksum.",
        ) from error


def read_flatbuffer(data: bytes) -> Any:  # noqa: ANN401 - the generated classes are untyped
    """Read a TFLite flatbuffer into a `ModelT` tree.

    Raises:
        ModelError: the bytes are not a TFLite flatbuffer, or a truncated or damaged one.
    """
    if len(data) < _MINIMUM_BYTES or data[4:8] != FILE_IDENTIFIER:
        came = "an empty file" if not data else f"{len(data)} bytes starting {data[:8]!r}"
        raise ModelError(
            f"expected a TFLite flatbuffer (identifier 'TFL3' at byte 4), but got {came}",
            remedy="Give the .tflite file that the converter wrote, whole and uncompressed.",
        )
    if len(data) > MAXIMUM_BYTES:
        raise ModelError(
            f"expected a TFLite flatbuffer below 2 GiB, but got {len(data)} bytes",
            remedy="Split the model, or quantize its weights before importing it.",
        )
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    try:
        tree = schema.ModelT.InitFromPackedBuf(data, 0)
        if not tree.subgraphs or not tree.operatorCodes or tree.buffers is None:
            raise ValueError
        _bring_in(tree, data)
    except _CORRUPT as error:
        raise ModelError(
            "expected a complete TFLite flatbuffer, but its tables lead outside the file "
            f"({type(error).__name__}): it is truncated or damaged ({len(data)} bytes)",
            remedy="Copy or convert the model again and compare its checksum.",
        ) from error
    return tree


def _bring_in(tree: Any, data: bytes) -> None:  # noqa: ANN401 - the generated classes are untyped
    """Resolve buffers and custom options that lie behind the tables.

    ai-edge-quantizer 0.10 writes models so above a few MiB; the offsets are absolute, so a
    tree that is written again must hold the data itself.

    Raises:
        ValueError: an offset leads out of the file.
    """
    for buffer in tree.buffers:
        # 1 is no offset: it marks a buffer whose place is not filled in yet (schema.fbs).
        if buffer.offset > 1:
            buffer.data = _slice(data, buffer.offset, buffer.size)
            buffer.offset = buffer.size = 0
    for operator in (each for graph in tree.subgraphs for each in graph.operators or ()):
        if operator.largeCustomOptionsOffset > 1:
            operator.customOptions = _slice(
                data, operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
            )
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0


def _slice(data: bytes, offset: int, size: int) -> NDArray[np.uint8]:
    if offset + size > len(data):
        raise ValueError
    return np.frombuffer(data, dtype=np.uint8, count=size, offset=offset)


def find_buffers(data: bytes) -> tuple[tuple[int, int], ...]:
    """Give first byte and size in bytes of each buffer that holds data, as they lie in the file.

    None overlaps another: of those that a hostile file lays over each other the first is given.

    Raises:
        ModelError: the tables lead outside of the file.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    found: list[tuple[int, int]] = []
    try:
        model = schema.Model.GetRootAsModel(data, 0)
        for index in range(model.BuffersLength()):
            buffer = model.Buffers(index)
            if num_bytes := buffer.DataLength():
                table = buffer._tab  # noqa: SLF001 - nothing public tells where a vector lies
                found.append((table.Vector(table.Offset(_BUFFER_DATA_SLOT)), num_bytes))
            elif buffer.Offset() > 1:
                found.append((buffer.Offset(), buffer.Size()))
    except _CORRUPT as error:
        raise ModelError(
            f"expected the buffers of a TFLite flatbuffer, but its tables lead outside the file "
            f"({type(error).__name__}): it is truncated or damaged ({len(data)} bytes)",
            remedy="Copy or convert the model again and compare its checksum.",
        ) from error
    apart: list[tuple[int, int]] = []
    end = 0
    for first, num_bytes in sorted(found):
        if first >= end and first + num_bytes <= len(data):
            apart.append((first, num_bytes))
            end = first + num_bytes
    return tuple(apart)


def write_flatbuffer(tree: Any) -> bytes:  # noqa: ANN401 - the generated classes are untyped
    """Write a `ModelT` tree as a TFLite flatbuffer; the same tree gives the same bytes."""
    from ai_edge_litert.tools import flatbuffer_utils  # noqa: PLC0415 - 0.3 s to import

    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree))


def decode_name(name: bytes | str | None) -> str:
    """Give a name of the tree as text (the generated reader leaves names as bytes)."""
    if name is None:
        return ""
    return name if isinstance(name, str) else name.decode("utf-8", errors="replace")


def dtype_name(tensor_type: int) -> str:
    """Give the numpy-style name of a `TensorType` value, such as `float32`.

    Raises:
        ModelError: the value is not in the schema.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    for name, value in vars(schema.TensorType).items():
        if value == tensor_type and name.isupper():
            return str(name).lower()
    raise ModelError(
        f"expected a tensor type of the TFLite schema, but got {tensor_type}",
        remedy="Convert the model again; the file is damaged or from a newer schema.",
    )


def op_name(tree: Any, operator: Any) -> str:  # noqa: ANN401 - the generated classes are untyped
    """Give an operator's name as the TFLite schema spells it; a custom op's own name otherwise."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    code = tree.operatorCodes[operator.opcodeIndex]
    # Files of schema v3 before 2020 hold the code in the deprecated 8-bit field only.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return decode_name(code.customCode) or "CUSTOM"
    for name, value in vars(schema.BuiltinOperator).items():
        if value == builtin and name.isupper():
            return str(name)
    return f"BUILTIN_{builtin}"
