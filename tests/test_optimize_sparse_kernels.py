from typing import Any

import numpy as np

from edgepack.flatbuffer import op_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import new_constant
from edgepack.model import Model, read_model
from edgepack.optimize.pruning.prune import prune
from edgepack.optimize.pruning.sparse_storage import store_sparse
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.models import make_feeds
from tests.fixtures.sparse import mobile_model

# What is expected here was seen: LiteRT 2.3 under qemu's x86-64 CPU without AVX (Nehalem), where
# sparse kernels answer otherwise in the last bits and in a third of the time.


def _refusals(model: Model) -> list[str]:
    _, facts = store_sparse(model)
    return [each.dense_kernel for each in facts.weights]


def _change(model: Model, op: str, **options: int) -> Model:
    """Give the model with other options of its last op of a kind."""
    tree = read_flatbuffer(model.data)
    operator = [each for each in tree.subgraphs[0].operators if op_name(tree, each) == op][-1]
    for key, value in options.items():
        setattr(operator.builtinOptions, key, value)
    return read_model(write_flatbuffer(tree))


def test_a_mobile_network_with_many_zeros_takes_sparse_kernels_for_its_1x1_convolutions() -> None:
    refusals = _refusals(prune(mobile_model(), 0.8)[0])
    assert refusals == [
        "only 1x1 convolutions have a sparse kernel",
        *[""] * 5,
        "FULLY_CONNECTED has no sparse kernel",
    ]


def test_float16_and_weight_only_int8_take_them_too_and_int8_does_not() -> None:
    pruned, _ = prune(mobile_model(), 0.8)
    for scheme in (Scheme.FLOAT16, Scheme.WEIGHT_ONLY_INT8):
        assert _refusals(quantize(pruned, stock_recipe(scheme)).model)[1:6] == [""] * 5
    static = quantize(pruned, stock_recipe(Scheme.INT8), make_feeds(pruned)).model
    assert _refusals(static)[1] == "it computes with int8, not float32"


def test_two_thirds_of_zeros_are_not_enough() -> None:
    refusals = _refusals(prune(mobile_model(), 0.66)[0])
    assert refusals[1] == (
        "66.0% of the 1x1 convolutions' weights around it are zero, and more than 66.7% must be"
    )
    assert _refusals(prune(mobile_model(), 0.68)[0])[1] == ""


def test_the_padding_of_tensorflow_breaks_the_way_to_the_mean() -> None:
    refusals = _refusals(prune(mobile_model(even_padding=False), 0.8)[0])
    assert refusals[0] == "CONV_2D with stride and padding SAME"
    assert refusals[1] == (
        "no MEAN over height and width or DEPTH_TO_SPACE follows by ops that all fit"
    )
    assert refusals[2].endswith("DEPTHWISE_CONV_2D with stride and padding SAME")


def test_a_dilated_depthwise_convolution_is_named_as_the_cause() -> None:
    model = _change(
        prune(mobile_model(), 0.8)[0], "DEPTHWISE_CONV_2D", dilationHFactor=2, dilationWFactor=2
    )
    assert _refusals(model)[5].endswith(": DEPTHWISE_CONV_2D with dilation")


def test_a_mean_over_channels_is_no_end() -> None:
    tree: Any = read_flatbuffer(prune(mobile_model(), 0.8)[0].data)
    graph = tree.subgraphs[0]
    mean = next(each for each in graph.operators if op_name(tree, each) == "MEAN")
    axes = new_constant(tree, "other_axes", np.array([3, 1], np.int32))
    mean.inputs = [int(mean.inputs[0]), axes]
    model = read_model(write_flatbuffer(tree))
    assert set(_refusals(model)[1:6]) == {
        "no MEAN over height and width or DEPTH_TO_SPACE follows by ops that all fit"
    }


def test_padding_that_another_op_reads_too_is_not_folded() -> None:
    tree: Any = read_flatbuffer(prune(mobile_model(), 0.8)[0].data)
    graph = tree.subgraphs[0]
    pads = [each for each in graph.operators if op_name(tree, each) == "PAD"]
    graph.outputs = [*[int(i) for i in graph.outputs], int(pads[-1].outputs[0])]
    tree.signatureDefs = None
    refusals = _refusals(read_model(write_flatbuffer(tree)))
    assert refusals[5].endswith("DEPTHWISE_CONV_2D padded by 0, not by 1 all around")
