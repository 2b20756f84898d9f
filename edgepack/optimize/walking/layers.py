"""The layers of a float model: ops with constant weights that quantization and pruning change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgepack.flatbuffer import decode_name, op_name
from edgepack.graph import read_constant, tensor_shape

_ACTIVATIONS: Final = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Operands:
    """Where an op has its operands, and the output channels in its weights."""

    input: int
    weights: int
    bias: int
    channel_axis: int


_LAYERS: Final[Mapping[str, _Operands]] = {
    "CONV_2D": _Operands(input=0, weights=1, bias=2, channel_axis=0),
    "DEPTHWISE_CONV_2D": _Operands(input=0, weights=1, bias=2, channel_axis=3),
    "FULLY_CONNECTED": _Operands(input=0, weights=1, bias=2, channel_axis=0),
    "TRANSPOSE_CONV": _Operands(input=2, weights=1, bias=3, channel_axis=0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """An op of the main graph with constant float32 weights.

    Attributes:
        position: of the op in the main graph.
        op: its name as the schema spells it.
        name: of the tensor it gives; recipes name the layer so.
        input: index of the tensor it reads.
        weights: index of its weights.
        bias: index of its constant bias; None without one.
        output: index of the tensor it gives.
        channel_axis: axis of the output channels in the weights.
        activation: the fused one, as the schema spells it.
        num_weights: how many, without the bias.
        num_macs: multiplications of one inference.
    """

    position: int
    op: str
    name: str
    input: int
    weights: int
    bias: int | None
    output: int
    channel_axis: int
    activation: str
    num_weights: int
    num_macs: int


def find_layers(tree: Any) -> tuple[Layer, ...]:  # noqa: ANN401 - the generated classes are untyped
    """Give the layers of the main graph in the order they run.

    Weights that another op reads in another role, or that are handed out, make no layer.
    """
    graph = tree.subgraphs[0]
    layers: list[Layer] = []
    for position, operator in enumerate(graph.operators or ()):
        op = op_name(tree, operator)
        operands = _LAYERS.get(op)
        if operands is None:
            continue
        indexes = [int(index) for index in operator.inputs]
        weights = read_constant(tree, indexes[operands.weights])
        if weights is None or not weights.size:
            continue
        bias = indexes[operands.bias] if len(indexes) > operands.bias else -1
        if bias >= 0 and read_constant(tree, bias) is None:
            continue
        output = int(operator.outputs[0])
        layers.append(
            Layer(
                position=position,
                op=op,
                name=decode_name(graph.tensors[output].name),
                input=indexes[operands.input],
                weights=indexes[operands.weights],
                bias=None if bias < 0 else bias,
                output=output,
                channel_axis=operands.channel_axis,
                activation=activation_of(operator),
                num_weights=int(weights.size),
                num_macs=_count_macs(graph, operator, op, weights.shape, operands),
            )
        )
    return tuple(layers)


def activation_of(operator: Any) -> str:  # noqa: ANN401 - the generated classes are untyped
    """Give an op's fused activation as the schema spells it."""
    number = int(getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0)
    return _ACTIVATIONS[number]


def _count_macs(
    graph: Any,  # noqa: ANN401 - the generated classes are untyped
    operator: Any,  # noqa: ANN401 - likewise
    op: str,
    weights: tuple[int, ...],
    operands: _Operands,
) -> int:
    """Count an op's multiplications: weights times the positions each is used at."""
    output = graph.tensors[int(operator.outputs[0])]
    source = graph.tensors[int(operator.inputs[operands.input])]
    # In a transposed convolution each input position meets every weight, elsewhere each output.
    shape = tensor_shape(source if op == "TRANSPOSE_CONV" else output)
    channels = weights[3] if op == "TRANSPOSE_CONV" else weights[operands.channel_axis]
    positions = int(np.prod([max(size, 1) for size in shape])) // max(channels, 1)
    return int(np.prod(weights)) * positions
