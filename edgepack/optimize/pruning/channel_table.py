"""The table of a graph's channels while it is made: which are one, and which must stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.flatbuffer import decode_name, dtype_name
from edgepack.graph import tensor_shape

Tree = Any
"""A `ModelT`; the generated classes are untyped."""


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


class ChannelTable:
    """Channels while the ops are gone through: a union-find over labels.

    Args:
        tree: the model.
    """

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
        """Give a tensor's dimensions."""
        return tensor_shape(self._tensors[index])

    def size(self, index: int, axis: int) -> int:
        """Give the size along an axis counted from the end; 1 where the rank does not reach."""
        shape = self.shape(index)
        return shape[axis] if -axis <= len(shape) else 1

    def is_float(self, index: int) -> bool:
        """Tell whether a tensor's channels are told apart at all."""
        return dtype_name(self._tensors[index].type) == "float32"

    def is_constant(self, index: int) -> bool:
        """Tell whether a tensor's values stand in the model."""
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
