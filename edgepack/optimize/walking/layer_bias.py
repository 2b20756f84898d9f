"""What a layer's bias takes up when its input moves by a constant; giving a layer a bias."""

import copy
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.graph import Tree, new_constant, read_constant, set_constant, tensor_shape
from edgepack.optimize.walking.layers import Layer

_VALID: Final = 1  # Padding of schema.fbs
# TRANSPOSE_CONV has a bias since version 3 of the op, which tflite-runtime 2.11 has, and an
# activation since version 4, which it has not.
_BIASED_TRANSPOSE_CONV_VERSION: Final = 3


def pads(tree: Tree, layer: Layer) -> bool:
    """Tell whether a layer reads zeros that stand in no tensor."""
    if layer.op == "FULLY_CONNECTED":
        return False
    if layer.op == "TRANSPOSE_CONV":
        return True  # at its borders fewer weights meet the input
    shape = tensor_shape(tree.subgraphs[0].tensors[layer.weights])
    options = tree.subgraphs[0].operators[layer.position].builtinOptions
    return int(options.padding) != _VALID and shape[1:3] != (1, 1)


def weigh(
    tree: Tree, layer: Layer, weights: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give what a layer makes of an input that is `offset` everywhere, one value a channel."""
    channels = tensor_shape(tree.subgraphs[0].tensors[layer.input])[-1]
    if layer.op == "FULLY_CONNECTED":
        channels = weights.shape[-1]  # it may flatten what it reads
    spread = np.broadcast_to(offset, (channels,))
    if layer.op == "DEPTHWISE_CONV_2D":
        return np.asarray(
            weights.sum(axis=(0, 1, 2)) * np.repeat(spread, weights.shape[3] // channels)
        )
    taps = weights.reshape(weights.shape[0], -1, weights.shape[-1]).sum(axis=1)
    num_groups = channels // taps.shape[1]
    grouped = taps.reshape(num_groups, -1, taps.shape[1])
    sums = np.einsum("goi,gi->go", grouped, spread.reshape(num_groups, -1))
    return np.asarray(sums.reshape(-1))


def layer_constants(tree: Tree, layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give a layer's weights and bias; zeros where it has none."""
    weights = read_constant(tree, layer.weights)
    bias = None if layer.bias is None else read_constant(tree, layer.bias)
    assert weights is not None  # noqa: S101 - `find_layers` has looked
    if bias is None:
        bias = np.zeros(weights.shape[layer.channel_axis], dtype=np.float32)
    return weights.astype(np.float64), bias.astype(np.float64)


def set_bias(tree: Tree, layer: Layer, values: NDArray[np.float64]) -> int:
    """Give a layer another bias, and one at all when it has none; gives the bias's index."""
    bias = values.astype(np.float32)
    if layer.bias is not None:
        set_constant(tree, layer.bias, bias)
        return layer.bias
    operator = tree.subgraphs[0].operators[layer.position]
    place = 3 if layer.op == "TRANSPOSE_CONV" else 2
    inputs = [int(index) for index in operator.inputs][:place]
    index = new_constant(tree, f"{layer.name}_bias", bias)
    operator.inputs = [*inputs, index]
    if layer.op == "TRANSPOSE_CONV":
        code = copy.copy(tree.operatorCodes[operator.opcodeIndex])
        if code.version < _BIASED_TRANSPOSE_CONV_VERSION:
            code.version = _BIASED_TRANSPOSE_CONV_VERSION
            tree.operatorCodes.append(code)
            operator.opcodeIndex = len(tree.operatorCodes) - 1
    return index
