"""Which channels of a graph stand or fall together, and which must stay; pure.

Along one axis of a float tensor each place has a channel. Ops that treat channels one by one
hand them on, an ADD makes those of its operands one, a concatenation puts them side by side, a
flattening repeats them. Only a convolution or fully connected layer reads channels apart: there
one can be taken away, and the graph computes what it would if the weights that read it were
zero. What is not understood keeps its channels, with the reason.

Channels start on the last axis (NHWC, as every TFLite kernel has it); converters of NCHW models
move them about in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from edgepack.flatbuffer import decode_name, dtype_name, op_name
from edgepack.graph import read_integers, tensor_shape

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelAxis:
    """The channels along an axis of a tensor.

    Attributes:
        axis: counted from the end: -1 is the last.
        channels: one for each place; a channel stands there more than once when it repeats.
    """

    axis: int
    channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelGroup:
    """Channels that the same ops make.

    Attributes:
        name: of the tensors those ops give, joined by `, `.
        producers: indexes of those tensors.
        channels: what `ChannelMap.axes` calls them.
        blocked: why they must stay; None when they may go.
    """

    name: str
    producers: tuple[int, ...]
    channels: tuple[int, ...]
    blocked: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelMap:
    """The channels of a model's main graph.

    Attributes:
        axes: by tensor, constants among them. Weights of CONV_2D, FULLY_CONNECTED and
            TRANSPOSE_CONV have two axes: what they read, then what they give.
        groups: in the order of the ops that make them.
    """

    axes: Mapping[int, tuple[ChannelAxis, ...]]
    groups: tuple[ChannelGroup, ...]


def map_channels(tree: Tree) -> ChannelMap:
    """Find the channels of a model's main graph; only those of float32 tensors are told apart."""
    tracing = _Tracing(tree)
    graph = tree.subgraphs[0]
    for index in graph.inputs:
        tracing.block(int(index), "they are an input of the model")
    for index, tensor in enumerate(graph.tensors):
        if tensor.isVariable:
            tracing.block(index, "they are a state that the model keeps")
        if tensor.sparsity is not None:
            tracing.block(index, "they are stored sparse")
    for operator in graph.operators:
        _trace(tracing, operator)
    for index in _other_roles(tree):
        tracing.block(index, "their weights serve as something else too")
    for index in graph.outputs:
        tracing.block(int(index), "they are an output of the model")
    return tracing.finish()


class _Tracing:
    """Channels while the ops are gone through: a union-find over labels."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._tensors = tree.subgraphs[0].tensors
        self._places: dict[int, tuple[int, list[int]]] = {}
        self._given: dict[int, list[int]] = {}
        self._whole: set[int] = set()
        self._makers: dict[int, int] = {}
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def shape(self, index: int) -> tuple[int, ...]:
        return tensor_shape(self._tensors[index])

    def size(self, index: int, axis: int) -> int:
        """Give the size along an axis counted from the end; 1 where the rank does not reach."""
        shape = self.shape(index)
        return shape[axis] if -axis <= len(shape) else 1

    def is_float(self, index: int) -> bool:
        return dtype_name(self._tensors[index].type) == "float32"

    def is_constant(self, index: int) -> bool:
        data = self.tree.buffers[self._tensors[index].buffer].data
        return data is not None and len(data) > 0

    def keep_whole(self, index: int) -> bool:
        """Leave a tensor as it is; False where it has several channels to choose from."""
        self._whole.add(index)
        return index not in self._places or len(self._places[index][1]) == 1

    def place(self, index: int) -> tuple[int, list[int]]:
        """Give the axis and the channels of a tensor; new ones where nothing told of them.

        They are none for an operand left out, and for tensors that are not float32 or have no
        axis of known size.
        """
        if index < 0 or not self.is_float(index):
            return -1, []
        if index not in self._places:
            labels = list(range(len(self._parents), len(self._parents) + max(self._last(index), 0)))
            self._parents += labels
            self._makers.update(dict.fromkeys(labels, index))
            self._places[index] = (-1, labels)
        return self._places[index]

    def put(self, index: int, axis: int, labels: Sequence[int]) -> bool:
        """Say which channels a tensor has; False where they do not fit it."""
        if not labels or not self.is_float(index) or self.size(index, axis) != len(labels):
            return False
        if index in self._whole:
            return False
        if index not in self._places:
            self._places[index] = (axis, list(labels))
            return True
        known, ours = self._places[index]
        return known == axis and self.join(ours, labels)

    def put_given(self, weights: int, labels: Sequence[int]) -> bool:
        """Say which channels a layer gives, along the first axis of its weights."""
        return self.join(self._given.setdefault(weights, list(labels)), labels)

    def join(self, ours: Sequence[int], theirs: Sequence[int]) -> bool:
        """Make channels one, pair by pair; False where their counts differ."""
        if len(ours) != len(theirs):
            return False
        for one, other in zip(ours, theirs, strict=True):
            first, second = sorted((self._root(one), self._root(other)))
            self._parents[second] = first
            if second in self._reasons:
                self._reasons.setdefault(first, self._reasons[second])
        return True

    def block(self, index: int, reason: str) -> None:
        """Make a tensor's channels stay; the first reason is kept."""
        for label in (*self.place(index)[1], *self._given.get(index, ())):
            self._reasons.setdefault(self._root(label), reason)

    def finish(self) -> ChannelMap:
        """Give every channel one label, and the groups."""
        makers: dict[int, set[int]] = {}
        for label, tensor in self._makers.items():
            if not self.is_constant(tensor):
                makers.setdefault(self._root(label), set()).add(tensor)
        groups: dict[tuple[tuple[int, ...], str | None], list[int]] = {}
        for channel, tensors in makers.items():
            key = (tuple(sorted(tensors)), self._reasons.get(channel))
            groups.setdefault(key, []).append(channel)
        axes = {
            index: (ChannelAxis(axis=axis, channels=self._resolve(labels)),)
            for index, (axis, labels) in self._places.items()
            if labels
        }
        for index, labels in self._given.items():
            given = ChannelAxis(axis=-len(self.shape(index)), channels=self._resolve(labels))
            axes[index] = (*axes.get(index, ()), given)
        return ChannelMap(
            axes=axes,
            groups=tuple(
                ChannelGroup(
                    name=", ".join(decode_name(self._tensors[each].name) for each in tensors),
                    producers=tensors,
                    channels=tuple(sorted(channels)),
                    blocked=reason,
                )
                for (tensors, reason), channels in groups.items()
            ),
        )

    def _last(self, index: int) -> int:
        shape = self.shape(index)
        return shape[-1] if shape else 0

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def _resolve(self, labels: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._root(label) for label in labels)


def _other_roles(tree: Tree) -> set[int]:
    """Give the weights of layers that an op reads in another place, too."""
    weights: set[int] = set()
    others: set[int] = set()
    for operator in tree.subgraphs[0].operators:
        operands = _LAYERS.get(op_name(tree, operator))
        for place, index in enumerate(operator.inputs):
            is_weights = operands is not None and place == operands[1]
            (weights if is_weights else others).add(int(index))
    return weights & others


def _trace(tracing: _Tracing, operator: Any) -> None:  # noqa: ANN401 - see `Tree`
    """Hand channels through one op; where that cannot be, what it reads and gives stays."""
    name = op_name(tracing.tree, operator)
    inputs = [int(index) for index in operator.inputs]
    outputs = [int(index) for index in operator.outputs]
    if name in _LAYERS:
        fault = _trace_layer(tracing, name, inputs, outputs[0])
    elif name in _BINARY:
        fault = _trace_binary(tracing, inputs, outputs[0])
    elif name == "CONCATENATION":
        fault = _trace_concatenation(tracing, inputs, outputs[0], operator.builtinOptions.axis)
    elif name in _RESHAPES:
        fault = _trace_reshape(tracing, inputs, outputs[0], is_shaped=name == "RESHAPE")
    else:
        fault = _trace_unary(tracing, name, inputs, outputs)
    if fault is not None:
        for index in (*inputs, *outputs):
            tracing.block(index, f"{name} {fault}")


def _trace_unary(tracing: _Tracing, name: str, inputs: list[int], outputs: list[int]) -> str | None:
    """Hand channels through an op with one input; give what hinders."""
    if not inputs or not outputs:
        return "is not followed"
    axis, labels = tracing.place(inputs[0])
    rank, numbers = len(tracing.shape(inputs[0])), None
    if len(inputs) > 1 and inputs[1] >= 0:
        numbers = read_integers(tracing.tree, inputs[1])
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
        if len(tracing.shape(outputs[0])) < rank:
            axis += sum(1 for each in gone if each > place)
    elif name == "TRANSPOSE":
        is_apart = numbers is not None and place in numbers
        axis = numbers.index(place) - rank if numbers is not None and is_apart else axis
    else:
        return "is not followed"
    return None if is_apart and tracing.put(outputs[0], axis, labels) else "mixes them"


def _trace_layer(tracing: _Tracing, name: str, inputs: list[int], output: int) -> str | None:
    at_input, at_weights, at_bias = _LAYERS[name]
    read, weights = inputs[at_input], inputs[at_weights]
    bias = inputs[at_bias] if len(inputs) > at_bias else -1
    if not tracing.is_float(read) or not tracing.is_float(weights):
        return "is not in float32"
    if not tracing.is_constant(weights) or (bias >= 0 and not tracing.is_constant(bias)):
        return "computes its weights"
    if name == "TRANSPOSE_CONV" and read_integers(tracing.tree, inputs[0]) is None:
        return "computes its shape"
    axis, labels = tracing.place(read)
    num_in = tracing.shape(weights)[-1]
    if axis != -1 or not labels or num_in % len(labels):
        return "reads them in groups"
    times = num_in // len(labels)
    if name == "DEPTHWISE_CONV_2D":
        made = [label for label in labels for _ in range(times)]
        fits = tracing.put(output, -1, made) and tracing.put(weights, -1, made)
    else:
        made = tracing.place(output)[1]
        # Only FULLY_CONNECTED flattens what it reads, so that channels come again and again.
        fits = times == 1 or name == "FULLY_CONNECTED"
        fits = fits and len(made) == tracing.shape(weights)[0]
        fits = fits and tracing.put(weights, -1, labels * times)
        fits = fits and tracing.put_given(weights, made)
    fits = fits and (bias < 0 or tracing.put(bias, -1, made))
    return None if fits else "reads them in groups"


def _trace_binary(tracing: _Tracing, inputs: list[int], output: int) -> str | None:
    """Make the operands' channels one; a constant has them along the axis that it meets."""
    computed = [index for index in inputs if not tracing.is_constant(index)]
    places = {index: tracing.place(index) for index in computed}
    wide = [axis for axis, labels in places.values() if len(labels) > 1]
    axis = wide[0] if wide else -1
    size = tracing.size(output, axis)
    leading = [labels for at, labels in places.values() if at == axis and len(labels) == size]
    if not leading or not tracing.put(output, axis, leading[0]):
        return "is not followed"
    for index in inputs:
        if tracing.size(index, axis) == size:
            if not tracing.put(index, axis, leading[0]):
                return "is not followed"
        elif tracing.size(index, axis) != 1 or not tracing.keep_whole(index):
            return "is not followed"
        elif not tracing.is_constant(index):
            tracing.block(index, "one channel meets all of another tensor")
    return None


def _trace_concatenation(
    tracing: _Tracing, inputs: list[int], output: int, axis: int
) -> str | None:
    rank = len(tracing.shape(output))
    places = [tracing.place(index) for index in inputs]
    at = places[0][0]
    if any(each != at for each, _ in places):
        return "is not followed"
    if axis % rank == rank + at:
        fits = tracing.put(output, at, [label for _, labels in places for label in labels])
    else:
        fits = all(tracing.put(output, at, labels) for _, labels in places)
    return None if fits else "is not followed"


def _trace_reshape(
    tracing: _Tracing, inputs: list[int], output: int, *, is_shaped: bool
) -> str | None:
    """Hand channels through a change of shape, which keeps the values' order in memory.

    Value e has channel (e // inner) % size, inner being the product of the later dimensions:
    this is followed where one axis of the new shape alone says which.
    """
    if is_shaped and len(inputs) > 1 and read_integers(tracing.tree, inputs[1]) is None:
        return "computes its shape"
    axis, labels = tracing.place(inputs[0])
    shape, new = tracing.shape(inputs[0]), tracing.shape(output)
    inner = prod(shape[len(shape) + axis + 1 :])
    for at in range(-1, -len(new) - 1, -1):
        later = prod(new[len(new) + at + 1 :])
        if not later or inner % later or not labels:
            continue
        run = inner // later
        times, rest = divmod(new[at], len(labels) * run)
        if times and not rest:
            made = [label for label in labels for _ in range(run)] * times
            return None if tracing.put(output, at, made) else "is not followed"
    return "splits them"
