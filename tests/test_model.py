"""A model's contract is read from its file, in the runtime's order, and survives JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgepack._fields import Fields
from edgepack.errors import ModelError
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import (
    Quantization,
    Signature,
    TensorSpec,
    load_model,
    read_model,
    read_signature,
    signature_to_json,
)
from tests.fixtures.bundle import DATA, digits_int8_model, digits_model


def changed(change: Any) -> bytes:  # noqa: ANN401 - a function on an untyped tree
    tree = read_flatbuffer(digits_model().data)
    change(tree)
    return write_flatbuffer(tree)


def test_the_float_model_is_read_as_it_was_trained() -> None:
    model = load_model(DATA / "digits.tflite")
    assert model.signature == Signature(
        inputs=(TensorSpec(name="pixels", shape=(1, 8, 8, 1), dtype="float32"),),
        outputs=(TensorSpec(name="output_0", shape=(1, 10), dtype="float32"),),
        key="serving_default",
    )
    assert model.signature.inputs[0].num_bytes == 256
    assert dict(model.op_counts)["CONV_2D"] >= 1
    assert not model.is_quantized
    assert not model.has_state
    assert model.num_bytes == (DATA / "digits.tflite").stat().st_size
    assert len(model.sha256) == 64


@pytest.mark.parametrize("model", [digits_model(), digits_int8_model()], ids=["float", "int8"])
def test_the_contract_is_the_runtimes_own(model: Any) -> None:  # noqa: ANN401 - parametrized
    interpreter = Interpreter(model_content=model.data)
    for specs, details in (
        (model.signature.inputs, interpreter.get_input_details()),
        (model.signature.outputs, interpreter.get_output_details()),
    ):
        for spec, detail in zip(specs, details, strict=True):
            assert spec.shape == tuple(detail["shape"])
            assert np.dtype(spec.dtype) == detail["dtype"]
            scale, zero_point = detail["quantization"]
            if spec.quantization is None:
                assert scale == 0.0
            else:
                assert spec.quantization.scales == (pytest.approx(scale),)
                assert spec.quantization.zero_points == (zero_point,)


def test_an_integer_model_states_its_quantization() -> None:
    model = digits_int8_model()
    assert model.is_quantized
    (spec,) = model.signature.inputs
    assert spec.quantization == Quantization(scales=(0.003921568859368563,), zero_points=(-128,))


def test_a_model_without_a_signature_takes_the_tensors_names() -> None:
    def strip(tree: Any) -> None:  # noqa: ANN401 - untyped
        tree.signatureDefs = None

    model = read_model(changed(strip))
    assert model.signature.key is None
    assert model.signature.inputs[0].name == "serving_default_pixels:0"
    assert model.signature.inputs[0].shape == (1, 8, 8, 1)


def test_variables_make_a_model_stateful() -> None:
    def add_state(tree: Any) -> None:  # noqa: ANN401 - untyped
        tree.operatorCodes[0].builtinCode = schema.BuiltinOperator.ASSIGN_VARIABLE
        tree.operatorCodes[0].deprecatedBuiltinCode = 127

    assert read_model(changed(add_state)).has_state


def test_an_input_no_runner_can_feed_is_named() -> None:
    def make_text(tree: Any) -> None:  # noqa: ANN401 - untyped
        graph = tree.subgraphs[0]
        graph.tensors[graph.inputs[0]].type = schema.TensorType.STRING

    with pytest.raises(ModelError) as caught:
        read_model(changed(make_text))
    assert caught.value.message.startswith(
        "input or output 'pixels' has element type string; EdgePack feeds and compares float32, "
    )
    assert caught.value.remedy == ("Move that conversion out of the model and export it again.")


def test_a_model_without_outputs_is_refused() -> None:
    def drop(tree: Any) -> None:  # noqa: ANN401 - untyped
        tree.subgraphs[0].outputs = []

    with pytest.raises(ModelError) as caught:
        read_model(changed(drop))
    assert caught.value.message == ("expected a model with outputs, but its main subgraph has none")


@pytest.mark.parametrize("index", [999, -2])
def test_an_output_that_leads_nowhere_is_damage(index: int) -> None:
    def mislead(tree: Any) -> None:  # noqa: ANN401 - untyped
        tree.subgraphs[0].outputs = [index]

    with pytest.raises(ModelError, match="it is damaged"):
        read_model(changed(mislead))


@pytest.mark.parametrize(
    ("scales", "zero_points", "axis", "fault"),
    [
        ([float("nan")], [0], 0, "a scale is nan"),
        ([float("inf")], [0], 0, "a scale is inf"),
        ([-1.0], [0], 0, "a scale is -1.0"),
        ([1.0, 2.0], [0], 1, "2 scales, but 1 zero points"),
        ([1.0, 2.0], [0, 0], 1, "2 scales along dimension 1 of (1, 10)"),
        ([1.0] * 10, [0] * 10, 7, "10 scales along dimension 7 of (1, 10)"),
    ],
)
def test_quantization_that_means_nothing_is_damage(
    scales: list[float], zero_points: list[int], axis: int, fault: str
) -> None:
    def distort(tree: Any) -> None:  # noqa: ANN401 - untyped
        graph = tree.subgraphs[0]
        parameters = schema.QuantizationParametersT()
        parameters.scale = scales
        parameters.zeroPoint = zero_points
        parameters.quantizedDimension = axis
        graph.tensors[graph.outputs[0]].quantization = parameters

    with pytest.raises(ModelError) as caught:
        read_model(changed(distort))
    assert caught.value.message == (
        "expected consistent tables in the TFLite flatbuffer, but reading them failed "
        f"(ValueError: {fault}): it is damaged"
    )


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "none.tflite")
    assert caught.value.message == (
        f"{tmp_path}/none.tflite: cannot be read: No such file or directory"
    )
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "empty.tflite")
    assert caught.value.message == (
        f"{tmp_path}/empty.tflite: expected a TFLite flatbuffer (identifier 'TFL3' at byte 4), "
        "but got an empty file"
    )


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert caught.value.message == (
        f"{path}: expected a TFLite model below 2 GiB, but it has 2147483648 bytes"
    )


def test_a_repr_holds_no_weights() -> None:
    assert len(repr(digits_model())) < 1000


def test_a_signature_survives_json() -> None:
    for model in (digits_model(), digits_int8_model()):
        table = json.loads(json.dumps(signature_to_json(model.signature)))
        fields = Fields(table)
        assert read_signature(fields) == model.signature
        assert fields.faults == []


def test_all_faults_of_a_signature_are_listed() -> None:
    table: Any = signature_to_json(digits_int8_model().signature)
    table["inputs"][0]["shape"] = [1, -8]
    table["inputs"][0]["quantization"]["scales"] = []
    table["inputs"][0]["quantization"]["axes"] = 1
    table["outputs"] = []
    table["key"] = 5
    fields = Fields(table, path="signature")
    read_signature(fields)
    assert fields.faults == [
        "signature.inputs[0].shape[1]: expected at least 0, not -8",
        "signature.inputs[0].quantization.zero_points: expected as many as scales (0), not 1",
        "signature.inputs[0].quantization.axes: unknown key; did you mean 'axis'?",
        "signature.key: expected a text, not a whole number (5)",
        "signature.outputs: expected at least one output",
    ]
