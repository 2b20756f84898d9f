"""Taking channels out of a graph: really smaller tensors, the same inputs and outputs."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import op_name
from edgepack.graph import (
    drop_unused,
    new_constant,
    read_constant,
    read_integers,
    set_constant,
    tensor_shape,
)
from edgepack.optimize.pruning.channel_table import ChannelAxis, ChannelMap

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

# Where an op holds the shape of what it gives.
_SHAPES: Final[Mapping[str, int]] = {"RESHAPE": 1, "TRANSPOSE_CONV": 0}


def remove_channels(tree: Tree, channel_map: ChannelMap, removed: AbstractSet[int]) -> None:
    """Take channels out of every tensor of the main graph, in place.

    Args:
        tree: the model that `channel_map` was made of; its weights may have changed since.
        channel_map: its channels.
        removed: channels of groups that are not blocked; some of every tensor must remain.

    Raises:
        ValueError: a channel that must stay, or a tensor that would be left without any.
    """
    blocked = {label for group in channel_map.groups if group.blocked for label in group.channels}
    if stuck := blocked & removed:
        raise ValueError(f"channels {sorted(stuck)} must stay")
    graph = tree.subgraphs[0]
    resized: set[int] = set()
    for index, axes in channel_map.axes.items():
        values = read_constant(tree, index)
        for axis in axes:
            kept = kept_places(axis, removed)
            if len(kept) == len(axis.channels):
                continue
            if not len(kept):
                raise ValueError(f"tensor {index} would lose all its channels")
            _resize(graph.tensors[index], axis.axis, len(kept))
            resized.add(index)
            if values is not None:
                values = np.take(values, kept, axis=axis.axis)
        if values is not None and index in resized:
            set_constant(tree, index, values)
    for operator in graph.operators:
        at = _SHAPES.get(op_name(tree, operator))
        if at is not None and int(operator.outputs[0]) in resized:
            _reshape(tree, operator, at, channel_map.axes[int(operator.outputs[0])][0].axis)
    drop_unused(tree)


def kept_places(axis: ChannelAxis, removed: AbstractSet[int]) -> NDArray[np.intp]:
    """Give the places along an axis whose channels remain."""
    return np.array(
        [place for place, label in enumerate(axis.channels) if label not in removed], dtype=np.intp
    )


def _resize(tensor: Any, axis: int, size: int) -> None:  # noqa: ANN401 - see `Tree`
    shape = list(tensor_shape(tensor))
    shape[axis] = size
    tensor.shape = shape
    if tensor.shapeSignature is not None and len(tensor.shapeSignature):
        signature = [int(each) for each in tensor.shapeSignature]
        signature[axis] = size
        tensor.shapeSignature = signature


def _reshape(tree: Tree, operator: Any, at: int, axis: int) -> None:  # noqa: ANN401 - see `Tree`
    """Give an op the new size of what it gives; a size of -1 is found by the runtime."""
    size = tensor_shape(tree.subgraphs[0].tensors[int(operator.outputs[0])])[axis]
    options = operator.builtinOptions
    if getattr(options, "newShape", None) is not None:
        options.newShape = _put(options.newShape, axis, size)
    if len(operator.inputs) > at:
        shape = read_integers(tree, int(operator.inputs[at]))
        if shape is not None:
            inputs = [int(index) for index in operator.inputs]
            inputs[at] = new_constant(tree, "shape", np.array(_put(shape, axis, size), np.int32))
            operator.inputs = inputs


def _put(shape: Any, axis: int, size: int) -> list[int]:  # noqa: ANN401 - a numpy array or tuple
    sizes = [int(each) for each in shape]
    if sizes[axis] != -1:
        sizes[axis] = size
    return sizes
