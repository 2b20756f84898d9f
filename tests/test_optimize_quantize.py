import pytest

from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import op_name, read_flatbuffer, write_flatbuffer
from edgepack.model import Model, read_model
from edgepack.optimize.quantizing.quantize import Quantized, quantize
from edgepack.optimize.recipes.recipe import InterfaceType, stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.models import (
    NAMES,
    came_as,
    make_feeds,
    small_model,
    with_custom_op,
    without_signature,
)

_FLOORS_DB = {
    Scheme.AS_IS: 300.0,
    Scheme.FLOAT32: 300.0,
    Scheme.FLOAT16: 55.0,
    Scheme.DYNAMIC_RANGE: 25.0,
    Scheme.WEIGHT_ONLY_INT8: 25.0,
    Scheme.INT8: 20.0,
    Scheme.INT16X8: 25.0,
}


def _sqnr_db(model: Model, candidate: Model) -> float:
    feeds = make_feeds(model)
    names = tuple(spec.name for spec in model.signature.outputs)
    return compare_outputs(
        run_model(model, feeds), run_model(candidate, feeds), names=names
    ).sqnr_db


@pytest.mark.parametrize("scheme", Scheme)
def test_each_scheme_keeps_the_interface_and_stays_near_the_float_model(scheme: Scheme) -> None:
    model = small_model("cnn")
    done = quantize(model, stock_recipe(scheme), make_feeds(model))
    quantized, float_ops = done.model, done.float_ops
    assert quantized.signature == model.signature
    assert _sqnr_db(model, quantized) >= _FLOORS_DB[scheme]
    assert float_ops == ()
    assert quantized.is_quantized == (scheme not in {Scheme.FLOAT32, Scheme.AS_IS})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cnn"])
def test_static_int8_serves_depthwise_embedding_and_several_inputs(name: str) -> None:
    model = small_model(name)
    quantized = quantize(model, stock_recipe(Scheme.INT8), make_feeds(model)).model
    assert quantized.signature == model.signature
    assert _sqnr_db(model, quantized) > 15.0


def test_int8_weights_take_a_quarter_of_the_bytes() -> None:
    model = small_model("cnn")
    quantized = quantize(model, stock_recipe(Scheme.DYNAMIC_RANGE)).model
    assert quantized.num_bytes < 0.6 * model.num_bytes  # 1,864 weights of 4 bytes become 1


def test_the_same_inputs_give_the_same_bytes() -> None:
    model = small_model("depthwise")
    recipe, feeds = stock_recipe(Scheme.INT8), make_feeds(model)
    assert quantize(model, recipe, feeds).model.data == quantize(model, recipe, feeds).model.data


def test_the_samples_order_does_not_matter() -> None:
    model = small_model("cnn")
    recipe, feeds = stock_recipe(Scheme.INT8), make_feeds(model)
    backwards = quantize(model, recipe, list(reversed(feeds))).model
    assert backwards.data == quantize(model, recipe, feeds).model.data


def test_integer_inputs_and_outputs_are_made_when_asked_for() -> None:
    model = small_model("cnn")
    recipe = stock_recipe(Scheme.INT8, interface=InterfaceType.INTEGER)
    quantized = quantize(model, recipe, make_feeds(model)).model
    for before, after in zip(
        (*model.signature.inputs, *model.signature.outputs),
        (*quantized.signature.inputs, *quantized.signature.outputs),
        strict=True,
    ):
        assert (after.name, after.shape, after.dtype) == (before.name, before.shape, "int8")
        assert after.quantization is not None


def test_a_model_without_a_signature_stays_without_one_and_keeps_its_tensor_names() -> None:
    model = without_signature(small_model("two"))
    assert model.signature.key is None
    quantized = quantize(model, stock_recipe(Scheme.INT8), make_feeds(model)).model
    assert quantized.signature == model.signature
    assert _sqnr_db(model, quantized) > 15.0


def test_static_schemes_refuse_to_guess_ranges() -> None:
    with pytest.raises(RecipeError) as caught:
        quantize(small_model("cnn"), stock_recipe(Scheme.INT8))
    assert str(caught.value) == (
        "recipe 'int8' quantizes activations by ranges seen on real inputs, but no calibration "
        "data was given\n"
        "Give real inputs with --data, or choose a recipe without calibration (dynamic_range, "
        "weight_only_int8, float16)."
    )


def test_a_quantized_model_is_refused_except_as_it_is() -> None:
    model = came_as("dynamic_range")
    assert quantize(model, stock_recipe(Scheme.AS_IS)) == Quantized(model=model)
    with pytest.raises(OptimizeError) as caught:
        quantize(model, stock_recipe(Scheme.FLOAT16))
    assert str(caught.value) == (
        "recipe 'float16' cannot be carried out on this model: its weights are int8 already: "
        "quantizing them again would add one rounding to another\n"
        "Give the float model it was made from, or pack it with --recipe as_is."
    )


@pytest.mark.parametrize("scheme", [Scheme.FLOAT32, Scheme.DYNAMIC_RANGE, Scheme.INT8])
def test_float16_weights_are_quantized_as_the_float32_model_is(scheme: Scheme) -> None:
    model = came_as("float16")
    done = quantize(model, stock_recipe(scheme), make_feeds(model))
    quantized, float_ops = done.model, done.float_ops
    assert quantized.signature == model.signature
    assert float_ops == ()
    assert _sqnr_db(model, quantized) >= _FLOORS_DB[scheme]
    assert quantized.traits.weight_dtypes == (
        ("float32",)
        if scheme is Scheme.FLOAT32
        else ("int8",)
        if scheme is Scheme.INT8
        else ("float32", "int8")
    )


@pytest.mark.parametrize("scheme", [Scheme.FLOAT16, Scheme.DYNAMIC_RANGE, Scheme.INT8])
def test_a_stream_is_quantized_and_stays_near_over_its_whole_length(scheme: Scheme) -> None:
    model = came_as("stream")
    quantized = quantize(model, stock_recipe(scheme), make_feeds(model)).model
    assert quantized.is_stream
    assert _sqnr_db(model, quantized) >= _FLOORS_DB[scheme]


def test_a_model_the_runtime_cannot_run_cannot_be_calibrated() -> None:
    model = with_custom_op(small_model("cnn"), "MyFancyOp")
    with pytest.raises(OptimizeError, match=r"the quantizer failed.*MyFancyOp"):
        quantize(model, stock_recipe(Scheme.INT8), make_feeds(model))


def test_nothing_to_quantize_is_said() -> None:
    tree = read_flatbuffer(small_model("two").data)
    graph = tree.subgraphs[0]
    # Only the first op stays: the two inputs' RESHAPE or CONCATENATION, which hold no weights.
    first = graph.operators[0]
    graph.operators = [first]
    graph.outputs = list(first.outputs)
    tree.signatureDefs = None
    model = read_model(write_flatbuffer(tree))
    with pytest.raises(OptimizeError) as caught:
        quantize(model, stock_recipe(Scheme.FLOAT16))
    assert caught.value.message == (
        "recipe 'float16' changes nothing: none of the model's ops can be quantized so (RESHAPE)"
    )


def test_a_quantizer_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(OptimizeError, match=r"expected the quantizer to end within 0\.01 s"):
        quantize(small_model("cnn"), stock_recipe(Scheme.FLOAT16), timeout_seconds=0.01)


def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    model = small_model("cnn")
    quantize(model, stock_recipe(Scheme.INT8), make_feeds(model))
    assert capfd.readouterr() == ("", "")


def test_a_form_of_op_that_the_quantizer_fails_at_is_left_in_float() -> None:
    tree = read_flatbuffer(small_model("floor").data)
    graph = tree.subgraphs[0]
    operator = next(each for each in graph.operators if op_name(tree, each) == "MAXIMUM")
    # ONNX converters write the scalar as an array of one: the quantizer raises on that.
    graph.tensors[operator.inputs[1]].shape = [1]
    model = read_model(write_flatbuffer(tree))
    done = quantize(model, stock_recipe(Scheme.INT8), make_feeds(model))
    quantized, float_ops = done.model, done.float_ops
    assert float_ops == ("MAXIMUM",)
    assert quantized.signature == model.signature
    assert _sqnr_db(model, quantized) > 20.0
