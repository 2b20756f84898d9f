"""Model files are untrusted: whatever the bytes, reading ends in a tree or in a ModelError."""

import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgepack.errors import ModelError
from edgepack.flatbuffer import (
    decode_name,
    dtype_name,
    find_buffers,
    op_name,
    read_flatbuffer,
    write_flatbuffer,
)
from edgepack.model import read_model, signature_to_json
from tests.fixtures.bundle import digits_int8_model, digits_model

MODELS = (digits_model().data, digits_int8_model().data)


def check(data: bytes) -> None:
    """Read the bytes as untrusted; anything but a usable model or a ModelError fails the test."""
    try:
        signature = read_model(data).signature
    except ModelError:
        return
    end = 0
    for first, num_bytes in find_buffers(data):
        assert end <= first < first + num_bytes <= len(data)
        end = first + num_bytes
    # What was accepted can be written into a manifest, and its tensors have a size.
    json.dumps(signature_to_json(signature), allow_nan=False)
    assert all(spec.num_bytes >= 0 for spec in (*signature.inputs, *signature.outputs))


@pytest.mark.parametrize("model", MODELS)
def test_buffers_are_found_where_their_bytes_lie(model: bytes) -> None:
    held = [bytes(each.data) for each in read_flatbuffer(model).buffers if each.data is not None]
    found = find_buffers(model)
    assert sorted(model[first : first + size] for first, size in found) == sorted(held)
    assert found == tuple(sorted(found))


@given(st.binary(max_size=200))
@example(b"")
@example(b"TFL3")
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_flatbuffer(data)
    check(data[:4] + b"TFL3" + data[4:])


@settings(deadline=None)
@given(st.sampled_from(MODELS), st.integers(min_value=0))
def test_truncated_models_are_model_errors_at_worst(model: bytes, length: int) -> None:
    check(model[: length % len(model)])


@settings(max_examples=300, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    flips=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 7)), min_size=1, max_size=4),
    in_tables=st.booleans(),
)
def test_flipped_bits_are_model_errors_at_worst(
    model: bytes, flips: list[tuple[int, int]], *, in_tables: bool
) -> None:
    # The weights come first in these files, and the tables that lead to them stand behind.
    start = len(model) - 6000 if in_tables else 0
    data = bytearray(model)
    for position, bit in flips:
        data[start + position % (len(model) - start)] ^= 1 << bit
    check(bytes(data))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(min_value=0),
    st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]),
)
def test_wild_offsets_are_model_errors_at_worst(model: bytes, position: int, value: int) -> None:
    start = len(model) - 6000
    at = start + position % (6000 - 4) // 4 * 4
    check(model[:at] + value.to_bytes(4, "little") + model[at + 4 :])


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04" + b"\0" * 26, r"30 bytes starting b'PK\x03\x04\x00\x00\x00\x00'"),
        (b"\0\0\0\0TFL3", r"8 bytes starting b'\x00\x00\x00\x00TFL3'"),
    ],
)
def test_what_is_no_tflite_file_says_what_came(data: bytes, came: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_flatbuffer(data)
    assert caught.value.message == (
        f"expected a TFLite flatbuffer (identifier 'TFL3' at byte 4), but got {came}"
    )
    assert caught.value.remedy == (
        "Give the .tflite file that the converter wrote, whole and uncompressed."
    )


def test_a_truncated_model_says_so() -> None:
    with pytest.raises(ModelError) as caught:
        read_flatbuffer(MODELS[0][: len(MODELS[0]) // 2])
    assert "it is truncated or damaged (79236 bytes)" in caught.value.message
    assert caught.value.remedy == "Copy or convert the model again and compare its checksum."


def test_a_tree_is_written_as_the_same_bytes_each_time_and_reads_alike() -> None:
    first = write_flatbuffer(read_flatbuffer(MODELS[0]))
    assert write_flatbuffer(read_flatbuffer(MODELS[0])) == first
    before, after = read_model(MODELS[0]), read_model(first)
    assert (after.signature, after.op_counts) == (before.signature, before.op_counts)
    weights = [
        np.asarray(each.data) for each in read_flatbuffer(first).buffers if each.data is not None
    ]
    expected = [
        np.asarray(each.data)
        for each in read_flatbuffer(MODELS[0]).buffers
        if each.data is not None
    ]
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_names_are_text_whatever_they_were() -> None:
    assert decode_name(None) == ""
    assert decode_name("x") == "x"
    assert decode_name(b"pixels") == "pixels"
    assert decode_name(b"\xff") == "\N{REPLACEMENT CHARACTER}"


def test_types_and_ops_are_named_as_the_schema_names_them() -> None:
    assert dtype_name(schema.TensorType.FLOAT32) == "float32"
    assert dtype_name(schema.TensorType.INT4) == "int4"
    with pytest.raises(ModelError) as caught:
        dtype_name(99)
    assert caught.value.message == "expected a tensor type of the TFLite schema, but got 99"
    tree = read_flatbuffer(MODELS[0])
    names = {op_name(tree, each) for each in tree.subgraphs[0].operators}
    assert {"CONV_2D", "FULLY_CONNECTED"} <= names
    operator = tree.subgraphs[0].operators[0]
    tree.operatorCodes[operator.opcodeIndex].builtinCode = schema.BuiltinOperator.CUSTOM
    tree.operatorCodes[operator.opcodeIndex].customCode = b"MyOp"
    assert op_name(tree, operator) == "MyOp"
    tree.operatorCodes[operator.opcodeIndex].builtinCode = 9999
    assert op_name(tree, operator) == "BUILTIN_9999"
