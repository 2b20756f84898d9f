"""Which channels of a graph stand or fall together, and which must stay; pure.

Along one axis of a float tensor each place has a channel. Ops that treat channels one by one
hand them on, an ADD makes those of its operands one, a concatenation puts them side by side, a
flattening repeats them. Only a convolution or fully connected layer reads channels apart: there
one can be taken away, and the graph computes what it would if the weights that read it were
zero. What is not understood keeps its channels, with the reason.

Channels start on the last axis (NHWC, as every TFLite kernel has it); converters of NCHW models
move them about in between.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from edgepack.flatbuffer import op_name
from edgepack.graph import read_integers
from edgepack.optimize.pruning.channel_table import ChannelMap, ChannelTable

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_ELEMENTWISE: Final = frozenset(
    {
        *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "LOGISTIC", "HARD_SWISH"),
        *("ELU", "LEAKY_RELU", "GELU", "ABS", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "NEG"),
        *("SIN", "COS", "FLOOR", "CEIL", "ROUND", "SIGN"),
    }
)
# Ops over height and width of NHWC.
_SPATIAL: Final = frozenset(
    {
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D", "RESIZE_BILINEAR"),
        *("RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
    }
)
_BINARY: Final = frozenset(
    {
        *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW"),
        *("PRELU",),
    }
)
_PADDING: Final = frozenset({"PAD", "PADV2", "MIRROR_PAD"})
_REDUCTIONS: Final = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"})
_RESHAPES: Final = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
_NHWC: Final = 4
# Where the input, the weights and the bias stand among an op's operands.
_LAYERS: Final[Mapping[str, tuple[int, int, int]]] = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}


def map_channels(tree: Tree) -> ChannelMap:
    """Find the channels of a model's main graph; only those of float32 tensors are told apart."""
    table = ChannelTable(tree)
    graph = tree.subgraphs[0]
    for index in graph.inputs:
        table.block(int(index), "they are an input of the model")
    for index, tensor in enumerate(graph.tensors):
        if tensor.isVariable:
            table.block(index, "they are a state that the model keeps")
        if tensor.sparsity is not None:
            table.block(index, "they are stored sparse")
    for operator in graph.operators or ():
        _trace(table, operator)
    for index in _other_roles(tree):
        table.block(index, "their weights serve as something else too")
    for index in graph.outputs:
        table.block(int(index), "they are an output of the model")
    return table.finish()


def _other_roles(tree: Tree) -> set[int]:
    """Give the weights of layers that an op reads in another place, too."""
    weights: set[int] = set()
    others: set[int] = set()
    for operator in tree.subgraphs[0].operators or ():
        operands = _LAYERS.get(op_name(tree, operator))
        for place, index in enumerate(_indexes(operator.inputs)):
            is_weights = operands is not None and place == operands[1]
            (weights if is_weights else others).add(index)
    return weights & others


def _indexes(operands: Any) -> list[int]:  # noqa: ANN401 - a numpy array, or None for none
    return [] if operands is None else [int(index) for index in operands]


def _trace(table: ChannelTable, operator: Any) -> None:  # noqa: ANN401 - see `Tree`
    """Hand channels through one op; where that cannot be, what it reads and gives stays."""
    name = op_name(table.tree, operator)
    inputs, outputs = _indexes(operator.inputs), _indexes(operator.outputs)
    if name in _LAYERS:
        fault = _trace_layer(table, name, inputs, outputs[0])
    elif name in _BINARY:
        fault = _trace_binary(table, inputs, outputs[0])
    elif name == "CONCATENATION":
        fault = _trace_concatenation(table, inputs, outputs[0], operator.builtinOptions.axis)
    elif name in _RESHAPES:
        fault = _trace_reshape(table, inputs, outputs[0], is_shaped=name == "RESHAPE")
    else:
        fault = _trace_unary(table, name, inputs, outputs)
    if fault is not None:
        for index in (*inputs, *outputs):
            table.block(index, f"{name} {fault}")


def _trace_unary(
    table: ChannelTable, name: str, inputs: list[int], outputs: list[int]
) -> str | None:
    """Hand channels through an op with one input; give what hinders."""
    if not inputs or not outputs:
        return "is not followed"
    axis, labels = table.place(inputs[0])
    rank, numbers = len(table.shape(inputs[0])), None
    if len(inputs) > 1 and inputs[1] >= 0:
        numbers = read_integers(table.tree, inputs[1])
    place = rank + axis
    if name in _ELEMENTWISE:
        is_apart = True
    elif name in _SPATIAL:
        is_apart = rank == _NHWC and axis == -1
    elif name in _PADDING:
        is_apart = numbers is not None and numbers[2 * place : 2 * place + 2] == (0, 0)
    elif name in _REDUCTIONS:
        gone = {number % rank for number in numbers or ()} if rank else set()
        is_apart = numbers is not None and place not in gone
        if len(table.shape(outputs[0])) < rank:
            axis += sum(1 for each in gone if each > place)
    elif name == "TRANSPOSE":
        is_apart = numbers is not None and place in numbers
        axis = numbers.index(place) - rank if numbers is not None and is_apart else axis
    else:
        return "is not followed"
    return None if is_apart and table.put(outputs[0], axis, labels) else "mixes them"


def _trace_layer(table: ChannelTable, name: str, inputs: list[int], output: int) -> str | None:
    at_input, at_weights, at_bias = _LAYERS[name]
    read, weights = inputs[at_input], inputs[at_weights]
    bias = inputs[at_bias] if len(inputs) > at_bias else -1
    if not table.is_float(read) or not table.is_float(weights):
        return "is not in float32"
    if not table.is_constant(weights) or (bias >= 0 and not table.is_constant(bias)):
        return "computes its weights"
    if name == "TRANSPOSE_CONV" and read_integers(table.tree, inputs[0]) is None:
        return "computes its shape"
    axis, labels = table.place(read)
    num_in = table.shape(weights)[-1]
    if axis != -1 or not labels or num_in % len(labels):
        return "reads them in groups"
    times = num_in // len(labels)
    if name == "DEPTHWISE_CONV_2D":
        made = [label for label in labels for _ in range(times)]
        fits = table.put(output, -1, made) and table.put(weights, -1, made)
    else:
        made = table.place(output)[1]
        # Only FULLY_CONNECTED flattens what it reads, so that channels come again and again.
        fits = times == 1 or name == "FULLY_CONNECTED"
        fits = fits and len(made) == table.shape(weights)[0]
        fits = fits and table.put(weights, -1, labels * times)
        fits = fits and table.put_given(weights, made)
    fits = fits and (bias < 0 or table.put(bias, -1, made))
    return None if fits else "reads them in groups"


def _trace_binary(table: ChannelTable, inputs: list[int], output: int) -> str | None:
    """Make the operands' channels one; a constant has them along the axis that it meets."""
    computed = [index for index in inputs if not table.is_constant(index)]
    places = {index: table.place(index) for index in computed}
    wide = [axis for axis, labels in places.values() if len(labels) > 1]
    axis = wide[0] if wide else -1
    size = table.size(output, axis)
    leading = [labels for at, labels in places.values() if at == axis and len(labels) == size]
    if not leading or not table.put(output, axis, leading[0]):
        return "is not followed"
    for index in inputs:
        if table.size(index, axis) == size:
            if not table.put(index, axis, leading[0]):
                return "is not followed"
        elif table.size(index, axis) != 1 or not table.keep_whole(index):
            return "is not followed"
        elif not table.is_constant(index):
            table.block(index, "one channel meets all of another tensor")
    return None


def _trace_concatenation(
    table: ChannelTable, inputs: list[int], output: int, axis: int
) -> str | None:
    rank = len(table.shape(output))
    places = [table.place(index) for index in inputs]
    at = places[0][0]
    if any(each != at for each, _ in places):
        return "is not followed"
    if axis % rank == rank + at:
        fits = table.put(output, at, [label for _, labels in places for label in labels])
    else:
        fits = all(table.put(output, at, labels) for _, labels in places)
    return None if fits else "is not followed"


def _trace_reshape(
    table: ChannelTable, inputs: list[int], output: int, *, is_shaped: bool
) -> str | None:
    """Hand channels through a change of shape, which keeps the values' order in memory.

    Value e has channel (e // inner) % size, inner being the product of the later dimensions:
    this is followed where one axis of the new shape alone says which.
    """
    if is_shaped and len(inputs) > 1 and read_integers(table.tree, inputs[1]) is None:
        return "computes its shape"
    axis, labels = table.place(inputs[0])
    shape, new = table.shape(inputs[0]), table.shape(output)
    inner = prod(shape[len(shape) + axis + 1 :])
    for at in range(-1, -len(new) - 1, -1):
        later = prod(new[len(new) + at + 1 :])
        if not later or inner % later or not labels:
            continue
        run = inner // later
        times, rest = divmod(new[at], len(labels) * run)
        if times and not rest:
            made = [label for label in labels for _ in range(run)] * times
            return None if table.put(output, at, made) else "is not followed"
    return "splits them"
