"""What is asked of inputs and outputs: what fits a model, and why the rest is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.contract import ContractRequest, Head, InputWish, OutputWish, make_plan, plan_source
from edgepack.contract.samples import check_raw, generate_raw, raw_specs
from edgepack.data import ImageLayout, make_samples
from edgepack.errors import ContractError, DataError
from edgepack.importers import SourceFormat, TensorBinding
from edgepack.model import TensorSpec
from tests.fixtures.bundle import digits_int8_model
from tests.fixtures.contract import imported_as, plan_of
from tests.fixtures.models import small_model


def refusal(name: str, *wishes: InputWish | OutputWish) -> str:
    with pytest.raises(ContractError) as caught:
        plan_of(imported_as(small_model(name)), *wishes)
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "wish", "fault"),
    [
        (
            "depthwise",
            InputWish(name=None, mean=(127.5,), std=(127.5,)),
            (
                "input 'image': --input-mean and --input-std without --input-scale could be "
                "meant for "
                "values from 0 to 255 or from 0 to 1: give --input-scale 1 or --input-scale 1/255"
            ),
        ),
        (
            "depthwise",
            InputWish(name=None, scale=1.0, mean=(1.0, 2.0)),
            "input 'image': --input-mean: expected 1 or 3 values, one a channel, but got 2",
        ),
        (
            "depthwise",
            InputWish(name=None, scale=1.0, std=(0.0,)),
            "input 'image': --input-std: expected numbers other than 0",
        ),
        (
            "depthwise",
            InputWish(name="images", scale=1.0),
            "unknown input 'images'; did you mean 'image'?; the model has 'image'",
        ),
        (
            "embedding",
            InputWish(name=None, scale=1 / 255, mean=(0.5,)),
            "input 'ids': --input-mean, --input-scale: it takes int32, which are ids or counts",
        ),
        (
            "embedding",
            InputWish(name=None, dtype="uint8"),
            "input 'ids': --input-dtype uint8: it takes int32, which stays",
        ),
        (
            "two",
            InputWish(name="left", dtype="uint8"),
            (
                "input 'left': --input-dtype uint8 is for the pixels of images, but its shape is "
                "(1, 4)"
            ),
        ),
        (
            "two",
            InputWish(name="left", layout=ImageLayout.NCHW),
            (
                "input 'left': --input-layout NCHW is about images of four dimensions, but its "
                "shape "
                "is (1, 4)"
            ),
        ),
        (
            "two",
            InputWish(name=None, scale=1.0),
            (
                "the model has 2 inputs ('left', 'right'): write NAME=VALUE to say which input is "
                "meant"
            ),
        ),
        (
            "depthwise",
            OutputWish(name=None, head=Head.SOFTMAX),
            "output 'output_0': --output softmax: the model ends in SOFTMAX already",
        ),
        (
            "two",
            OutputWish(name="score", head=Head.ARGMAX),
            (
                "output 'score': --output argmax: it chooses among classes, but the output's "
                "shape is "
                "(1, 1)"
            ),
        ),
        (
            "depthwise",
            OutputWish(name=None, layout=ImageLayout.NCHW),
            (
                "output 'output_0': --output-layout NCHW is about images of four dimensions, but "
                "its "
                "shape is (1, 5)"
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    name: str, wish: InputWish | OutputWish, fault: str
) -> None:
    assert refusal(name, wish) == f"model: {fault}"


def test_all_faults_stand_together() -> None:
    message = refusal(
        "embedding", InputWish(name=None, scale=2.0), OutputWish(name="none", head=Head.ARGMAX)
    )
    assert message.startswith("model: 2 faults\n  - input 'ids': ")
    assert "\n  - unknown output 'none'" in message


def test_a_quantized_model_is_left_alone() -> None:
    with pytest.raises(ContractError) as caught:
        plan_of(imported_as(digits_int8_model()), OutputWish(name=None, head=Head.ARGMAX))
    assert caught.value.message == (
        "model: the model is quantized already, and its inputs and outputs are shaped in float only"
    )
    assert make_plan(imported_as(digits_int8_model()), ContractRequest()).is_empty


@pytest.mark.parametrize(
    ("shape", "source_format", "layout"),
    [
        ((1, 3, 12, 12), SourceFormat.TFLITE, ImageLayout.NCHW),
        ((1, 12, 12, 3), SourceFormat.ONNX, ImageLayout.NHWC),
        ((1, 16, 12, 12), SourceFormat.ONNX, ImageLayout.NCHW),
        ((1, 16, 12, 12), SourceFormat.KERAS, ImageLayout.NHWC),
        ((1, 12, 12), SourceFormat.KERAS, None),
    ],
)
def test_the_layout_is_told_by_channels_and_then_by_custom(
    shape: tuple[int, ...], source_format: SourceFormat, layout: ImageLayout | None
) -> None:
    spec = TensorSpec(name="x", shape=shape, dtype="float32")
    (plan,) = plan_source((spec,), source_format, ContractRequest()).inputs
    assert plan.layout is layout


def test_a_converted_models_layout_follows_from_its_sources() -> None:
    imported = imported_as(small_model("depthwise"), source_format=SourceFormat.ONNX)
    source = TensorSpec(name="image", shape=(1, 3, 12, 12), dtype="float32")
    turned = replace(imported, inputs=(TensorBinding(source=source, permutation=(0, 2, 3, 1)),))
    (plan,) = plan_of(turned, InputWish(name=None, scale=1.0)).inputs
    assert (plan.layout, plan.source_channel_axis) == (ImageLayout.NHWC, 1)


@pytest.mark.parametrize(
    ("source_format", "others"),
    [(SourceFormat.KERAS, ""), (SourceFormat.ONNX, ", or try another --converter")],
)
def test_axes_in_an_order_of_no_images_are_refused_when_something_is_asked(
    source_format: SourceFormat, others: str
) -> None:
    imported = imported_as(small_model("depthwise"), source_format=source_format)
    source = TensorSpec(name="image", shape=(1, 12, 12, 3), dtype="float32")
    turned = replace(imported, inputs=(TensorBinding(source=source, permutation=(0, 2, 1, 3)),))
    assert plan_of(turned).is_empty
    with pytest.raises(ContractError) as caught:
        plan_of(turned, InputWish(name=None, scale=1.0))
    assert caught.value.message == (
        "model: input 'image': the converter turned the axes of (1, 12, 12, 3) to (0, 2, 1, 3), "
        f"which is no known layout of images: do this in the source model{others}"
    )


def test_one_value_a_channel_needs_a_known_axis() -> None:
    sound = TensorSpec(name="sound", shape=(1, 2, 2), dtype="float32")
    wish = InputWish(name=None, scale=1.0, mean=(1.0, 2.0))
    request_ = ContractRequest(inputs=(wish,))
    (plan,) = plan_source((sound,), SourceFormat.KERAS, request_).inputs
    assert plan.preprocessing is not None
    with pytest.raises(ContractError) as caught:
        plan_source((sound,), SourceFormat.ONNX, request_)
    assert caught.value.message == (
        "the model: input 'sound': --input-mean: one value a channel needs an image of four "
        "dimensions, as nothing tells which axis of (1, 2, 2) counts channels: give a single value"
    )
    single = ContractRequest(inputs=(replace(wish, mean=(1.0,)),))
    (plan,) = plan_source((sound,), SourceFormat.ONNX, single).inputs
    assert plan.preprocessing is not None


def test_classes_of_three_dimensions_need_a_known_axis() -> None:
    model = small_model("embedding")
    (spec,) = model.signature.outputs
    signature = replace(model.signature, outputs=(replace(spec, shape=(1, 4, 6)),))
    model = replace(model, signature=signature)
    wish = OutputWish(name=None, head=Head.ARGMAX)
    (plan,) = plan_of(imported_as(model), wish).outputs
    assert plan.wanted_shape == (1, 4)
    with pytest.raises(ContractError) as caught:
        plan_of(imported_as(model, source_format=SourceFormat.ONNX), wish)
    assert caught.value.message == (
        f"model: output {spec.name!r}: --output argmax: nothing tells which axis of (1, 4, 6) "
        "counts classes: append the layer in the source model, as in torch.softmax(y, dim=1)"
    )


IMAGE = TensorSpec(name="image", shape=(1, 2, 2, 3), dtype="float32")
PIXELS = ContractRequest(inputs=(InputWish(name=None, dtype="uint8"),))
SCALED = ContractRequest(inputs=(InputWish(name=None, scale=1 / 255),))


@pytest.mark.parametrize(
    ("request_", "value", "fault"),
    [
        (
            PIXELS,
            0.5,
            (
                "expected pixels, whole numbers from 0 to 255, but the samples hold fractions, 0.5 "
                "to 0.5"
            ),
        ),
        (
            PIXELS,
            256,
            "expected pixels, whole numbers from 0 to 255, but the samples hold 256 to 256",
        ),
        (
            SCALED,
            -1,
            (
                "expected raw pixels, as preprocessing happens inside the model, but the samples "
                "hold "
                "-1 to -1"
            ),
        ),
        (
            SCALED,
            1,
            (
                "expected raw pixels, as preprocessing happens inside the model, but the samples "
                "hold "
                "1 to 1"
            ),
        ),
        (PIXELS, 1, None),
        (SCALED, 200, None),
    ],
)
def test_data_must_be_raw(request_: ContractRequest, value: float, fault: str | None) -> None:
    plan = plan_source((IMAGE,), SourceFormat.KERAS, request_)
    samples = make_samples([("image", np.full((1, 1, 2, 2, 3), value, np.float32))])
    if fault is None:
        check_raw(samples, plan)
        return
    with pytest.raises(DataError) as caught:
        check_raw(samples, plan)
    assert caught.value.message == f"input 'image': {fault}"


def test_generated_samples_are_raw() -> None:
    imported = imported_as(small_model("depthwise"))
    plan = plan_of(imported, InputWish(name=None, scale=1 / 255, dtype="uint8"))
    samples = generate_raw(imported, plan, num_samples=3, seed=4)
    check_raw(samples, plan)
    ((name, array),) = samples.arrays
    assert (name, array.shape) == ("image", (3, 1, 12, 12, 3))
    assert array.max() > 100
    (spec,) = raw_specs((imported.inputs[0].source,), plan)
    assert spec.dtype == "float32"


@given(
    st.lists(
        st.builds(
            InputWish,
            name=st.sampled_from([None, "image", "x"]),
            scale=st.none() | st.floats(),
            mean=st.none() | st.lists(st.floats(), max_size=4).map(tuple),
            std=st.none() | st.lists(st.floats(), max_size=4).map(tuple),
            dtype=st.sampled_from([None, "uint8", "float32", "int8"]),
            layout=st.none() | st.sampled_from(ImageLayout),
        ),
        max_size=2,
    )
)
def test_any_wish_is_planned_or_refused(wishes: list[InputWish]) -> None:
    request_ = ContractRequest(inputs=tuple(wishes))
    try:
        (plan,) = plan_source((IMAGE,), SourceFormat.KERAS, request_).inputs
    except ContractError:
        return
    if plan.preprocessing is not None:
        pixel = np.full((1, 2, 2, 3), 255, np.uint8)
        assert plan.preprocessing.apply(pixel, channel_axis=3).shape == IMAGE.shape
