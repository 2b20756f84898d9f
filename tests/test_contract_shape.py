"""Shaped inputs and outputs: what the graph becomes, and that it computes the same."""

from dataclasses import replace

import numpy as np
import pytest

from edgepack.contract import (
    ContractPlan,
    Head,
    InputWish,
    OutputWish,
    Preprocessing,
    prove_shape,
    shape_model,
)
from edgepack.contract.samples import generate_raw, shaped_feeds, source_samples
from edgepack.data import ImageLayout, make_samples
from edgepack.errors import ParityError
from edgepack.evaluate import run_model
from edgepack.importers import ImportedModel, SourceFormat, model_feeds
from edgepack.model import Model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import InterfaceType, stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.contract import imported_as, op_names, plan_of, with_map_output
from tests.fixtures.models import small_model

NHWC, NCHW = ImageLayout.NHWC, ImageLayout.NCHW
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAMERA = InputWish(name=None, scale=1 / 255, mean=MEAN, std=STD, dtype="uint8")


def shape_and_prove(imported: ImportedModel, plan: ContractPlan) -> Model:
    shaped = shape_model(imported.model, plan)
    prove_shape(imported, plan, shaped, generate_raw(imported, plan, num_samples=4, seed=1))
    return shaped


def test_pixels_go_in_and_the_scale_moves_into_the_first_layer() -> None:
    imported = imported_as(small_model("depthwise"))
    shaped = shape_and_prove(imported, plan_of(imported, CAMERA))
    before = op_names(imported.model)
    assert op_names(shaped) == ["CAST", "ADD", *before]
    (spec,) = shaped.signature.inputs
    assert (spec.name, spec.shape, spec.dtype) == ("image", (1, 12, 12, 3), "uint8")
    assert shaped.signature.outputs == imported.model.signature.outputs
    assert not shaped.is_quantized


def test_a_model_gives_what_numpy_says_of_its_raw_input() -> None:
    imported = imported_as(small_model("depthwise"))
    plan = plan_of(imported, CAMERA)
    shaped = shape_model(imported.model, plan)
    pixels = np.random.default_rng(5).integers(0, 256, (1, 12, 12, 3), np.uint8)
    real = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    ((ours,),) = run_model(shaped, [(pixels,)])
    ((theirs,),) = run_model(imported.model, [(real,)])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_what_cannot_be_folded_stays_as_ops() -> None:
    imported = imported_as(small_model("two"))
    wish = InputWish(name="left", scale=1 / 32768, mean=(0.25,))
    shaped = shape_and_prove(imported, plan_of(imported, wish))
    assert op_names(shaped)[:2] == ["MUL", "ADD"]
    assert [spec.name for spec in shaped.signature.inputs] == ["left", "right"]


@pytest.mark.parametrize("layout", [NHWC, NCHW])
def test_a_scale_of_one_and_no_mean_add_nothing(layout: ImageLayout) -> None:
    imported = imported_as(small_model("depthwise"))
    wish = InputWish(name=None, scale=1.0, layout=layout)
    shaped = shape_and_prove(imported, plan_of(imported, wish))
    turn = [] if layout is NHWC else ["TRANSPOSE"]
    assert op_names(shaped) == [*turn, *op_names(imported.model)]


def test_a_turn_that_meets_its_inverse_leaves_the_graph() -> None:
    imported = imported_as(small_model("depthwise"))
    first = shape_and_prove(imported, plan_of(imported, InputWish(name=None, layout=NCHW)))
    turned = imported_as(first, source_format=SourceFormat.PYTORCH)
    assert op_names(first)[0] == "TRANSPOSE"
    second = shape_and_prove(turned, plan_of(turned, replace(CAMERA, layout=NHWC)))
    assert op_names(second) == ["CAST", "ADD", *op_names(imported.model)]
    assert second.signature.inputs[0].shape == (1, 12, 12, 3)


def test_an_output_turned_back_leaves_the_graph_as_it_was() -> None:
    plain = imported_as(with_map_output(small_model("depthwise")))
    first = shape_and_prove(plain, plan_of(plain, OutputWish(name=None, layout=NCHW)))
    assert first.signature.outputs[0].shape == (1, 12, 5, 5)
    turned = replace(imported_as(first), outputs=imported_as(first).outputs)
    plan = plan_of(turned, OutputWish(name=None, layout=NHWC))
    # The input says NHWC, and so does the custom of the format: say that the output is turned.
    (output,) = plan.outputs
    plan = replace(plan, outputs=(replace(output, layout=NCHW, wanted_layout=NHWC),))
    second = shape_and_prove(turned, plan)
    assert op_names(second) == op_names(plain.model)


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("layout", [NHWC, NCHW])
def test_heads_work_along_the_classes_in_either_layout(head: Head, layout: ImageLayout) -> None:
    plain = imported_as(with_map_output(small_model("depthwise")))
    model = shape_model(plain.model, plan_of(plain, OutputWish(name=None, layout=layout)))
    imported = imported_as(model)
    plan = plan_of(imported, OutputWish(name=None, head=head))
    (output,) = plan.outputs
    plan = replace(plan, outputs=(replace(output, layout=layout, wanted_layout=layout),))
    shaped = shape_and_prove(imported, plan)
    wanted = (1, 5, 5) if head is Head.ARGMAX else model.signature.outputs[0].shape
    assert shaped.signature.outputs[0].shape == wanted
    if head is Head.ARGMAX:
        assert "TRANSPOSE" not in op_names(shaped)


def test_class_ids_are_those_of_the_largest_score() -> None:
    imported = imported_as(small_model("cnn"))
    plan = plan_of(imported, OutputWish(name=None, head=Head.ARGMAX))
    shaped = shape_and_prove(imported, plan)
    samples = generate_raw(imported, plan, num_samples=3, seed=2)
    scores = run_model(imported.model, model_feeds(imported, samples))
    ids = run_model(shaped, shaped_feeds(imported, plan, samples))
    assert [int(each[0][0]) for each in ids] == [int(np.argmax(each[0])) for each in scores]
    (spec,) = shaped.signature.outputs
    assert (spec.shape, spec.dtype) == ((1,), "int32")


def test_a_shaped_model_that_computes_something_else_is_refused() -> None:
    imported = imported_as(small_model("depthwise"))
    plan = plan_of(imported, CAMERA)
    wrong = plan_of(imported, replace(CAMERA, mean=(0.0,)))
    samples = generate_raw(imported, plan, num_samples=2, seed=0)
    with pytest.raises(ParityError) as caught:
        prove_shape(imported, plan, shape_model(imported.model, wrong), samples)
    assert caught.value.message.startswith(
        "model: the shaped model does not compute what the model did before its inputs and "
        "outputs were shaped: output 'output_0': "
    )
    assert caught.value.message.endswith(" dB, needs 60 dB")


def test_wrong_class_ids_are_refused() -> None:
    imported = imported_as(small_model("cnn"))
    wish = InputWish(name=None, scale=1 / 255)
    head = OutputWish(name=None, head=Head.ARGMAX)
    plan = plan_of(imported, wish, head)
    wrong = plan_of(imported, replace(wish, scale=-1.0), head)
    samples = generate_raw(imported, plan, num_samples=4, seed=0)
    with pytest.raises(ParityError, match=r"output 'output_0': \d of 4 class ids are wrong"):
        prove_shape(imported, plan, shape_model(imported.model, wrong), samples)


@pytest.mark.parametrize(
    "scheme",
    [Scheme.INT8, Scheme.INT16X8, Scheme.DYNAMIC_RANGE, Scheme.WEIGHT_ONLY_INT8, Scheme.FLOAT16],
)
@pytest.mark.parametrize("interface", list(InterfaceType))
def test_every_recipe_keeps_pixels_in_and_class_ids_out(
    scheme: Scheme, interface: InterfaceType
) -> None:
    imported = imported_as(small_model("cnn"))
    plan = plan_of(
        imported,
        InputWish(name=None, scale=1 / 255, mean=(0.5,), std=(0.25,), dtype="uint8"),
        OutputWish(name=None, head=Head.ARGMAX),
    )
    shaped = shape_model(imported.model, plan)
    feeds = shaped_feeds(imported, plan, generate_raw(imported, plan, num_samples=8, seed=3))
    recipe = replace(stock_recipe(scheme), interface=interface)
    variant = quantize(shaped, recipe, feeds).model
    assert variant.signature.inputs[0].dtype == "uint8"
    assert variant.signature.outputs[0].dtype == "int32"
    ours, theirs = run_model(variant, feeds), run_model(shaped, feeds)
    equal = [int(a[0][0]) == int(b[0][0]) for a, b in zip(ours, theirs, strict=True)]
    assert sum(equal) >= 7


def test_the_same_wishes_give_the_same_bytes() -> None:
    imported = imported_as(small_model("cnn"))
    plan = plan_of(imported, InputWish(name=None, scale=0.5, dtype="uint8"))
    assert shape_model(imported.model, plan).data == shape_model(imported.model, plan).data


def test_the_source_gets_preprocessed_values_in_its_own_layout() -> None:
    imported = imported_as(small_model("depthwise"))
    turned = shape_model(imported.model, plan_of(imported, InputWish(name=None, layout=NCHW)))
    first = imported_as(turned, source_format=SourceFormat.ONNX)
    plan = plan_of(first, CAMERA)
    raw = make_samples([("image", np.full((1, 1, 3, 12, 12), 255, np.float32))])
    ((_, values),) = source_samples(raw, plan).arrays
    expected = (1 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(values[0, 0, :, 0, 0], expected, rtol=1e-6)


def test_preprocessing_and_its_inverse_meet() -> None:
    preprocessing = Preprocessing(scale=1 / 255, mean=MEAN, std=STD)
    raw = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
    values = preprocessing.apply(raw, channel_axis=3)
    np.testing.assert_allclose(preprocessing.invert(values, channel_axis=3), raw, atol=1e-4)
