"""Which channels of a graph can be scaled, each by a factor of its own, with the same answers.

A layer's weights can take any positive factor at either end: its output channels are scaled by
scaling rows of its weights and its bias, and what its input channels were scaled by is taken
back in columns. Between layers stand ops that a positive factor passes (RELU, pooling, zero
padding, additions of channels scaled alike). So channels fall into classes that have one factor
each: a chain of layers has one class a channel between two of them, a stream of residual
additions one class a channel all along. What anything else reads or writes must stay.

RELU6 passes a factor only while nothing reaches its bound; which channels it may cut is said
here, and the bound of their factors is the caller's to set from what the channels hold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import dtype_name
from edgepack.graph import (
    Tree,
    name_of,
    read_constant,
    read_integers,
    set_constant,
    tensor_shape,
)
from edgepack.optimize.walking.layers import Layer, activation_of, find_layers

# A factor passes these from their first input to their output, channel by channel of the last
# axis; what else they read are shapes, axes and (PRELU) slopes.
_PASSING: Final = frozenset(
    {
        *("RELU", "RELU6", "LEAKY_RELU", "PRELU", "ABS", "NEG", "PAD", "MIRROR_PAD"),
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
        *("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
    }
)
_REDUCING: Final = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})
_JOINING: Final = frozenset({"ADD", "SUB", "MAXIMUM", "MINIMUM"})
_KEEPING_STEPS: Final = frozenset(
    {
        *("PAD", "MIRROR_PAD", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "MAX_POOL_2D", "RELU"),
        *("RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
    }
)
_PASSED_ACTIVATIONS: Final = frozenset({"NONE", "RELU", "RELU6"})
_BINARY: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScaleGroup:
    """Tensors whose channels are scaled together.

    Attributes:
        tensors: indexes of the tensors, in the order they are written.
        classes: (num_classes,) the classes that may be scaled, ascending.
        readers: layers that read one of the tensors and take the factors back.
        writers: layers that write one and bring the factors in.
    """

    tensors: tuple[int, ...]
    classes: NDArray[np.intp]
    readers: tuple[Layer, ...]
    writers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScaleMap:
    """The classes of a graph's channels.

    Attributes:
        labels: for each float tensor the class of each channel of its last axis.
        num_classes: how many numbers `labels` draws on.
        groups: what may be scaled.
        bounded: tensors a RELU6 gives, whose channels must not outgrow 6.
        rounded: tensors of the groups that are rounded when they are quantized; what only hands
            values on keeps the steps of what it read.
    """

    labels: Mapping[int, NDArray[np.intp]]
    num_classes: int
    groups: tuple[ScaleGroup, ...]
    bounded: frozenset[int]
    rounded: frozenset[int]


def map_scales(tree: Tree) -> ScaleMap:
    """Give the classes of the channels of a tree's main graph."""
    return _Mapper(tree).result()


def scale_layers(
    tree: Tree, scale_map: ScaleMap, group: ScaleGroup, factors: NDArray[np.float64]
) -> None:
    """Scale the channels of a group, in place.

    Args:
        tree: the model that `scale_map` is of, maybe scaled by other groups already.
        scale_map: its classes.
        group: one of its groups.
        factors: (num_classes,) positive; 1 leaves a class as it is.
    """
    for layer in group.writers:
        rows = factors[scale_map.labels[layer.output]]
        weights = _values(tree, layer.weights)
        shape = [1] * weights.ndim
        shape[layer.channel_axis] = -1
        set_constant(tree, layer.weights, (weights * rows.reshape(shape)).astype(np.float32))
        if layer.bias is not None:
            bias = _values(tree, layer.bias) * rows
            set_constant(tree, layer.bias, bias.astype(np.float32))
    for layer in group.readers:
        weights = _values(tree, layer.weights)
        columns = spread_columns(layer, weights.shape, 1.0 / factors[scale_map.labels[layer.input]])
        set_constant(tree, layer.weights, (weights * columns).astype(np.float32))


def _values(tree: Tree, index: int) -> NDArray[np.float64]:
    values = read_constant(tree, index)
    assert values is not None  # noqa: S101 - `find_layers` has looked
    return values.astype(np.float64)


def spread_columns(layer: Layer, shape: tuple[int, ...], columns: NDArray[Any]) -> NDArray[Any]:
    """Give one value an input channel in a shape that meets a layer's weights."""
    if layer.op == "DEPTHWISE_CONV_2D":
        return np.repeat(columns, shape[3] // len(columns))
    if layer.op == "CONV_2D" and shape[3] != len(columns):
        grouped = columns.reshape(-1, 1, shape[3])
        num_groups = len(grouped)
        each = np.repeat(grouped, shape[0] // num_groups, axis=1)
        return each.reshape(shape[0], 1, 1, shape[3])
    return columns


class _Mapper:
    """Labels of all channels, made one where an op makes them one."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        graph = tree.subgraphs[0]
        self._tensors = graph.tensors
        self._shapes = [tensor_shape(tensor) for tensor in graph.tensors]
        self._layers = {layer.position: layer for layer in find_layers(tree)}
        self._start: dict[int, int] = {}
        self._total = 0
        self._pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        self._stay: list[NDArray[np.intp]] = []
        self._bounded: set[int] = set()
        self._rounded: set[int] = set()
        written = {int(i) for each in graph.operators for i in each.outputs}
        for index in [*(int(i) for i in graph.inputs), *sorted(written)]:
            if self._shapes[index] and dtype_name(self._tensors[index].type) == "float32":
                self._start[index] = self._total
                self._total += self._shapes[index][-1]
        for index in (*graph.inputs, *graph.outputs):
            self._keep(int(index))
        for position, operator in enumerate(graph.operators):
            self._meet(position, operator)

    def _channels(self, index: int) -> NDArray[np.intp]:
        start = self._start[index]
        return np.arange(start, start + self._shapes[index][-1])

    def _keep(self, *indexes: int) -> None:
        self._stay += [self._channels(index) for index in indexes if index in self._start]

    def _join(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> None:
        self._pairs.append((first, second))

    def _meet(self, position: int, operator: Any) -> None:  # noqa: ANN401 - see `Tree`
        name, layer = name_of(self._tree, operator), self._layers.get(position)
        if name not in _KEEPING_STEPS:
            self._rounded |= {int(index) for index in operator.outputs}
        reads = [int(index) for index in operator.inputs if int(index) in self._start]
        writes = [int(index) for index in operator.outputs]
        if layer is not None and self._is_own(layer):
            self._meet_layer(layer)
            return
        activation = activation_of(operator)
        if activation not in _PASSED_ACTIVATIONS or len(writes) != 1 or not reads:
            self._keep(*reads, *writes)
            return
        if activation == "RELU6" or name == "RELU6":
            self._bounded.add(writes[0])
        if not self._pass(name, operator, reads, writes[0]):
            self._bounded.discard(writes[0])
            self._keep(*reads, *writes)

    def _meet_layer(self, layer: Layer) -> None:
        shape = self._shapes[layer.weights]
        channels = self._shapes[layer.input][-1:]
        count = channels[0] if channels else 0
        if layer.op == "DEPTHWISE_CONV_2D":
            fits = count > 0 and shape[3] % count == 0
        elif layer.op == "CONV_2D":
            fits = count > 0 and count % shape[3] == 0
        else:
            fits = count == shape[-1]
        if not fits:
            self._keep(layer.input)
        if layer.activation == "RELU6":
            self._bounded.add(layer.output)
        if layer.activation not in _PASSED_ACTIVATIONS or self._shapes[layer.output][-1:] != (
            shape[layer.channel_axis],
        ):
            self._keep(layer.output)

    def _pass(self, name: str, operator: Any, reads: list[int], write: int) -> bool:  # noqa: ANN401 - see `Tree`
        """Join what a factor passes in an op, and tell whether it passes at all."""
        first, passes = reads[0], False
        if write not in self._start:
            return False
        if name in _PASSING:
            passes = len(reads) == 1 and int(operator.inputs[0]) == first
            passes = passes and self._along(first, write)
        elif name in _REDUCING:
            axes = read_integers(self._tree, int(operator.inputs[1]))
            rank = len(self._shapes[first])
            passes = axes is not None and all(axis % rank != rank - 1 for axis in axes)
            passes = passes and self._along(first, write)
        elif name in {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}:
            passes = self._flatten(first, write)
        elif name == "CONCATENATION":
            passes = self._concatenate(operator, reads, write)
        elif name in {"MUL", "DIV"}:
            passes = self._multiply(name, operator, reads, write)
        elif name in _JOINING and len(reads) == _BINARY:
            last = self._shapes[write][-1:]
            passes = all(self._shapes[index][-1:] == last for index in reads)
            passes = passes and all(self._along(index, write) for index in reads)
        return passes

    def _along(self, read: int, write: int) -> bool:
        if self._shapes[read][-1] != self._shapes[write][-1]:
            return False
        self._join(self._channels(read), self._channels(write))
        return True

    def _flatten(self, read: int, write: int) -> bool:
        inner, outer = self._shapes[read][-1], self._shapes[write][-1]
        if outer % inner:
            return False
        self._join(np.tile(self._channels(read), outer // inner), self._channels(write))
        return True

    def _concatenate(self, operator: Any, reads: list[int], write: int) -> bool:  # noqa: ANN401 - see `Tree`
        if len(reads) != len(operator.inputs):
            return False
        rank = len(self._shapes[write])
        if int(operator.builtinOptions.axis) % rank != rank - 1:
            return all(self._along(index, write) for index in reads)
        self._join(
            np.concatenate([self._channels(index) for index in reads]), self._channels(write)
        )
        return True

    def _multiply(self, name: str, operator: Any, reads: list[int], write: int) -> bool:  # noqa: ANN401 - see `Tree`
        """Let a factor pass one side of a product; the other side stays as it is."""
        if len(reads) == 1:
            constant = next(int(i) for i in operator.inputs if int(i) != reads[0])
            if read_constant(self._tree, constant) is None:
                return False
            if name == "DIV" and int(operator.inputs[0]) != reads[0]:
                return False
            return self._shapes[reads[0]] == self._shapes[write] and self._along(reads[0], write)
        sizes = [int(np.prod(self._shapes[index])) for index in reads]
        large, small = (reads[0], reads[1]) if sizes[0] > sizes[1] else (reads[1], reads[0])
        # A gate is smaller than what it opens; of two alike either might be read elsewhere too.
        if sizes[0] == sizes[1] or (name == "DIV" and large != int(operator.inputs[0])):
            return False
        if self._shapes[large] != self._shapes[write]:
            return False
        self._keep(small)
        return self._along(large, write)

    def _is_own(self, layer: Layer) -> bool:
        graph = self._tree.subgraphs[0]
        uses = [int(i) for each in graph.operators for i in each.inputs]
        uses += [int(i) for i in graph.outputs]
        return all(
            uses.count(index) == 1 for index in (layer.weights, layer.bias) if index is not None
        )

    def result(self) -> ScaleMap:
        """Give the classes and the groups."""
        found = merge(self._total, self._pairs)
        stays = np.zeros(self._total, dtype=bool)
        for channels in self._stay:
            stays[found[channels]] = True
        labels = {index: found[self._channels(index)] for index in self._start}
        return ScaleMap(
            labels=labels,
            num_classes=self._total,
            groups=tuple(self._groups(labels, stays)),
            bounded=frozenset(self._bounded),
            rounded=frozenset(self._rounded),
        )

    def _groups(
        self, labels: Mapping[int, NDArray[np.intp]], stays: NDArray[np.bool_]
    ) -> Iterator[ScaleGroup]:
        order = list(labels)
        place = np.full(self._total, -1)
        pairs = []
        for number, index in enumerate(order):
            place[labels[index]] = np.where(place[labels[index]] < 0, number, place[labels[index]])
            pairs.append((np.full(len(labels[index]), number), place[labels[index]]))
        together = merge(len(order), pairs)
        for root in dict.fromkeys(together.tolist()):
            tensors = tuple(index for number, index in enumerate(order) if together[number] == root)
            classes = np.unique(np.concatenate([labels[index] for index in tensors]))
            classes = classes[~stays[classes]]
            members = set(tensors)
            group = ScaleGroup(
                tensors=tensors,
                classes=classes,
                readers=tuple(each for each in self._layers.values() if each.input in members),
                writers=tuple(each for each in self._layers.values() if each.output in members),
            )
            if len(classes) and group.readers and group.writers:
                yield group


def merge(count: int, pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> NDArray[np.intp]:
    """Give each of `count` things the least number of those that pairs make one with it."""
    labels = np.arange(count)
    while True:
        before = labels.copy()
        for first, second in pairs:
            least = np.minimum(labels[first], labels[second])
            np.minimum.at(labels, first, least)
            np.minimum.at(labels, second, least)
        labels = labels[labels]
        if np.array_equal(labels, before):
            return labels
