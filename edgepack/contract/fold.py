"""Folding an input's scale into the first layer's weights, which costs nothing at run time.

(raw * a + b) through a convolution with weights W is the convolution of (raw + b / a) with
W * a, exactly but for float32's rounding, whatever the padding: padded zeros stay zeros. An
offset could move into the bias only where nothing is padded, so it stays an ADD.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.graph import (
    Tree,
    name_of,
    read_constant,
    read_integers,
    readers,
    set_constant,
    tensor_shape,
)

# Ops whose output is scaled as their input is; PAD pads with zeros (PADV2 does not).
_TRANSPARENT: Final = frozenset({"PAD", "TRANSPOSE"})
_LAYERS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstLayer:
    """The one layer that reads an input.

    Attributes:
        weights: index of its constant float weights, which nothing else reads.
        channel_axis: the channels' axis of the tensor it reads.
        kind: name of the op.
        num_channels: channels of the tensor it reads.
    """

    weights: int
    channel_axis: int
    kind: str
    num_channels: int


def find_first_layer(tree: Tree, index: int, *, channel_axis: int) -> FirstLayer | None:
    """Find the layer that alone reads a tensor, through ops that only move or pad it.

    Args:
        tree: the model.
        index: a tensor of its main graph.
        channel_axis: that tensor's axis of channels.
    """
    graph = tree.subgraphs[0]
    axis = channel_axis
    while True:
        reading = readers(tree, index)
        if len(reading) != 1 or index in [int(i) for i in graph.outputs]:
            return None
        operator, name = reading[0], name_of(tree, reading[0])
        if int(operator.inputs[0]) != index:
            return None
        if name in _LAYERS:
            return _check_layer(tree, operator, name, axis)
        if name not in _TRANSPARENT:
            return None
        if name == "TRANSPOSE":
            order = read_integers(tree, int(operator.inputs[1]))
            if order is None or axis not in order:
                return None
            axis = order.index(axis)
        index = int(operator.outputs[0])


def _check_layer(tree: Tree, operator: Any, kind: str, axis: int) -> FirstLayer | None:  # noqa: ANN401 - see `Tree`
    weights = int(operator.inputs[1])
    tensor = tree.subgraphs[0].tensors[weights]
    values = read_constant(tree, weights)
    shared = [each for each in tree.subgraphs[0].tensors if each.buffer == tensor.buffer]
    if values is None or len(readers(tree, weights)) != 1 or len(shared) != 1:
        return None
    shape = tensor_shape(tree.subgraphs[0].tensors[int(operator.inputs[0])])
    if not shape:
        return None
    return FirstLayer(weights=weights, channel_axis=axis, kind=kind, num_channels=shape[axis])


def can_fold(tree: Tree, layer: FirstLayer, multiplier: NDArray[np.float64]) -> bool:
    """Tell whether a multiplier, one value or one a channel, can move into the weights."""
    if multiplier.size == 1:
        return True
    rank, shape = layer.channel_axis + 1, _weights_shape(tree, layer)
    if layer.kind == "DEPTHWISE_CONV_2D":
        return shape[-1] % layer.num_channels == 0
    # A grouped convolution's weights count the channels of one group only.
    return rank > 1 and shape[-1] == layer.num_channels == multiplier.size


def fold_multiplier(tree: Tree, layer: FirstLayer, multiplier: NDArray[np.float64]) -> None:
    """Multiply a layer's weights, so that its input need not be."""
    values = read_constant(tree, layer.weights)
    if values is None:
        raise ValueError("the layer's weights are no constant")
    factors = multiplier
    if layer.kind == "DEPTHWISE_CONV_2D" and multiplier.size > 1:
        factors = np.repeat(multiplier, values.shape[-1] // layer.num_channels)
    scaled = (values.astype(np.float64) * factors).astype(np.float32)
    set_constant(tree, layer.weights, scaled)


def _weights_shape(tree: Tree, layer: FirstLayer) -> tuple[int, ...]:
    return tensor_shape(tree.subgraphs[0].tensors[layer.weights])
