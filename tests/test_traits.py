"""How models are told apart by what is in them, on real ones of TensorFlow's converter."""

import pytest
from ai_edge_litert import schema_py_generated as schema

from edgepack.flatbuffer import op_name, read_flatbuffer, write_flatbuffer
from edgepack.model import read_model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from edgepack.traits import Numerics, StateKind, Traits
from tests.fixtures.models import came_as, make_feeds, small_model

_NUMERICS = {
    "float16": Numerics.FLOAT16,
    "dynamic_range": Numerics.DYNAMIC_RANGE,
    "int8": Numerics.INT8,
    "int16x8": Numerics.INT16X8,
    "stream": Numerics.FLOAT32,
    "stream_int8": Numerics.MIXED,
    "lstm": Numerics.FLOAT32,
    "loop": Numerics.FLOAT32,
    "fake_quant": Numerics.FAKE_QUANT,
    "signatures": Numerics.FLOAT32,
}


@pytest.mark.parametrize("name", _NUMERICS)
def test_tensorflows_models_are_told_apart(name: str) -> None:
    assert came_as(name).traits.numerics is _NUMERICS[name]


@pytest.mark.parametrize(
    ("scheme", "numerics"),
    [
        (Scheme.FLOAT16, Numerics.FLOAT16),
        (Scheme.DYNAMIC_RANGE, Numerics.DYNAMIC_RANGE),
        (Scheme.WEIGHT_ONLY_INT8, Numerics.WEIGHT_ONLY),
        (Scheme.INT8, Numerics.INT8),
        (Scheme.INT16X8, Numerics.INT16X8),
    ],
)
def test_what_edgepack_makes_is_known_again(scheme: Scheme, numerics: Numerics) -> None:
    model = small_model("cnn")
    made = quantize(model, stock_recipe(scheme), make_feeds(model)).model
    assert made.traits.numerics is numerics


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("stream", StateKind.STREAM),
        ("stream_int8", StateKind.STREAM),
        ("lstm", StateKind.SEQUENCE),
        ("loop", StateKind.NONE),
        ("signatures", StateKind.NONE),  # only the other signature keeps some
        ("int8", StateKind.NONE),
    ],
)
def test_state_is_a_stream_or_within_a_sequence(name: str, state: StateKind) -> None:
    model = came_as(name)
    assert model.traits.state is state
    assert model.has_state == (state is not StateKind.NONE)
    assert model.is_stream == (state is StateKind.STREAM)


def test_a_step_of_a_recurrent_op_makes_a_stream() -> None:
    tree = read_flatbuffer(came_as("lstm").data)
    code = next(
        each
        for each in tree.operatorCodes
        if each.builtinCode == schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    )
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LSTM
    assert read_model(write_flatbuffer(tree)).traits.state is StateKind.STREAM


def test_variables_that_are_only_read_are_no_state() -> None:
    tree = read_flatbuffer(came_as("stream").data)
    graph = tree.subgraphs[0]
    graph.operators = [op for op in graph.operators if op_name(tree, op) != "ASSIGN_VARIABLE"]
    # The subgraph that CALL_ONCE runs still assigns the first value.
    assert read_model(write_flatbuffer(tree)).traits.state is StateKind.NONE


def test_loops_signatures_and_open_shapes_are_seen() -> None:
    assert came_as("loop").traits.has_loop
    assert not came_as("stream").traits.has_loop
    assert came_as("signatures").traits.signatures == ("scale", "step")
    assert came_as("fake_quant").traits.open_inputs == ("serving_default_pixels:0",)
    assert came_as("loop").traits.open_inputs == ()


def test_ops_outside_the_schema_are_named() -> None:
    tree = read_flatbuffer(small_model("cnn").data)
    code = tree.operatorCodes[tree.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "FlexErf"
    for operator in tree.subgraphs[0].operators:
        operator.builtinOptions, operator.builtinOptionsType = None, 0
    assert read_model(write_flatbuffer(tree)).traits.custom_ops == ("FlexErf",)


def test_a_plain_model_has_nothing_to_tell() -> None:
    model = small_model("two")
    assert model.traits == Traits(weight_dtypes=("float32",), signatures=model.traits.signatures)
