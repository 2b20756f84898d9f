"""Layers as matrix products, against the runtime's own answers."""

from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepack.flatbuffer import read_flatbuffer
from edgepack.graph import read_constant
from edgepack.optimize.walking.layers import find_layers
from edgepack.optimize.walking.patches import (
    input_patches,
    matrix_weights,
    mean_patch,
    weight_matrix,
)
from tests.fixtures.layers import RELU6, SAME, VALID, LayerPlan, chain_model

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def plans(draw: st.DrawFn) -> tuple[LayerPlan, tuple[int, ...]]:
    op = draw(
        st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"])
    )
    has_bias = draw(st.booleans())
    if op == "FULLY_CONNECTED":
        return LayerPlan(op=op, num_out=draw(st.integers(1, 5)), has_bias=True), (1, 7)
    stride, dilation = draw(pairs), draw(pairs)
    # The runtime takes a stride or a dilation, not both, of a depthwise convolution.
    if op == "TRANSPOSE_CONV" or (op == "DEPTHWISE_CONV_2D" and stride != (1, 1)):
        dilation = (1, 1)
    if op == "DEPTHWISE_CONV_2D":
        stride = (stride[0], stride[0])
    num_groups = draw(st.sampled_from([1, 2])) if op == "CONV_2D" else 1
    plan = LayerPlan(
        op=op,
        num_out=draw(st.integers(1, 3)) * num_groups,
        kernel=draw(pairs),
        stride=stride,
        dilation=dilation,
        padding=draw(st.sampled_from([SAME, VALID])),
        num_groups=num_groups,
        has_bias=has_bias or op != "TRANSPOSE_CONV",
    )
    return plan, (1, draw(st.integers(7, 10)), draw(st.integers(7, 10)), 4)


def run(model: bytes, array: NDArray[np.float32]) -> NDArray[Any]:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    interpreter.invoke()
    output: NDArray[Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return output


@settings(max_examples=120, deadline=None)
@given(plans(), st.integers(0, 2**31))
def test_patches_by_weights_are_what_the_runtime_gives(
    given_plan: tuple[LayerPlan, tuple[int, ...]], seed: int
) -> None:
    plan, shape = given_plan
    model = chain_model((plan,), shape, seed=seed)
    tree = read_flatbuffer(model)
    (layer,) = find_layers(tree)
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    matrix, patches = weight_matrix(tree, layer), input_patches(tree, layer, array)
    product = np.einsum("grk,gok->rgo", patches, matrix).reshape(patches.shape[1], -1)
    if layer.bias is not None:
        bias = read_constant(tree, layer.bias)
        assert bias is not None
        product += bias
    answer = run(model, array)
    np.testing.assert_allclose(product, answer.reshape(product.shape), atol=1e-4)
    np.testing.assert_allclose(mean_patch(tree, layer, array), patches.mean(axis=1), atol=1e-5)
    weights = read_constant(tree, layer.weights)
    assert weights is not None
    np.testing.assert_array_equal(matrix_weights(tree, layer, matrix), weights)
    # The multiplications are those of the product; zeros between a transposed one's inputs and
    # what pads a convolution are counted by no one and by everyone, respectively.
    if plan.op != "TRANSPOSE_CONV":
        assert layer.num_macs == patches.shape[1] * matrix.size


def test_fewer_rows_are_rows_of_all() -> None:
    plan = LayerPlan(op="CONV_2D", num_out=2, kernel=(3, 3), activation=RELU6)
    tree = read_flatbuffer(chain_model((plan,), (1, 8, 8, 3)))
    (layer,) = find_layers(tree)
    array = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    every = input_patches(tree, layer, array)
    some = input_patches(tree, layer, array, maximum_rows=10)
    assert layer.activation == "RELU6"
    assert some.shape == (1, 10, 27)
    assert {row.tobytes() for row in some[0]} <= {row.tobytes() for row in every[0]}


def test_weights_that_are_no_constant_are_told() -> None:
    tree = read_flatbuffer(chain_model((LayerPlan(op="CONV_2D", num_out=2),), (1, 4, 4, 3)))
    (layer,) = find_layers(tree)
    tree.buffers[tree.subgraphs[0].tensors[layer.weights].buffer].data = None
    with pytest.raises(ValueError, match="CONV_2D_output has no constant weights"):
        weight_matrix(tree, layer)
