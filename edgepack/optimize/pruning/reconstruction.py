"""What channel pruning sees of a model on its way through it, and the weights that make up.

Layers are fitted front to back: to the float model's outputs, from the inputs that the pruned
layers before them give (He et al., arXiv:1707.06168). Where a layer's output is added to
another branch it makes up for what that branch lost as well.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.evaluate import Feeds
from edgepack.flatbuffer import op_name
from edgepack.graph import read_constant, readers, tensor_shape
from edgepack.optimize.pruning.channel_table import ChannelAxis, ChannelGroup, ChannelMap
from edgepack.optimize.pruning.selection import Reader, RemovalOrder, order_removals
from edgepack.optimize.walking.influence import Influence
from edgepack.optimize.walking.layers import Layer, find_layers
from edgepack.optimize.walking.moments import (
    MAXIMUM_INPUTS,
    Accumulator,
    Moments,
    choose_trust,
    fit,
    sum_up,
)
from edgepack.optimize.walking.patches import (
    input_patches,
    matrix_weights,
    spread_rows,
    weight_matrix,
)
from edgepack.optimize.walking.walk import LayerChange, Samples

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

# Rows of all samples together: so many for each input, and no fewer than so many; fewer where each
# group of channels has weights of its own. One image has up to 100,000, most of them alike.
_ROWS_PER_INPUT: Final = 32
_NUM_ROWS: Final = 4096
_NUM_GROUP_ROWS: Final = 1024
_TINY: Final = 1e-12


class InputMoments:
    """A visitor that keeps the second moments of what layers read, in files.

    Only of layers that read channels which may go; of those also how much their errors matter.
    """

    def __init__(self, tree: Tree, channel_map: ChannelMap, *, folder: Path, feeds: Feeds) -> None:
        self._tree = tree
        self._folder = folder
        self._num_samples = len(feeds)
        self._influence = Influence(tree, feeds)
        self._live: dict[int, Samples] = {}
        self.influence: dict[int, float] = {}
        self._free = free_channels(channel_map)
        self._map = channel_map

    def change(self, layer: Layer, reference: Samples, _: Samples) -> LayerChange | None:
        """Sum up what the layer reads, and change nothing."""
        if read_axis(self._map, layer) is None or not self._free.intersection(
            self._map.axes[layer.weights][0].channels
        ):
            return None
        sums = Accumulator()
        limit = _limit_rows(weight_matrix(self._tree, layer), self._num_samples)
        for array in reference:
            rows = input_patches(self._tree, layer, array, maximum_rows=limit)
            sums.add(rows, np.zeros((*rows.shape[:2], 0), np.float32))
        halves = sums.halves()
        total = sum_up(halves).centered()
        self.influence[layer.position] = self._influence.measure(
            layer, total.products[0] / max(total.num_rows, 1), self._live
        )
        np.savez(
            self._path(layer),
            num_rows=np.array([half.num_rows for half in halves]),
            products=np.stack([half.products for half in halves]),
            inputs=np.stack([half.inputs for half in halves]),
        )
        return None

    def observe(self, tensor: int, reference: Samples, _: Samples) -> None:
        """Remember what is there, and leave it as it is."""
        self._live = {index: seen for index, seen in self._live.items() if len(seen)}
        self._live[tensor] = reference

    def load(self, layer: Layer) -> tuple[Moments, ...]:
        """Give the halves of a layer's sums."""
        with np.load(self._path(layer)) as kept:
            sums = zip(kept["num_rows"], kept["products"], kept["inputs"], strict=True)
            return tuple(
                Moments(
                    num_rows=int(num_rows),
                    inputs=inputs,
                    outputs=np.zeros((1, 0)),
                    products=products,
                    crosses=np.zeros((*inputs.shape, 0)),
                    squares=np.zeros((1, 0)),
                )
                for num_rows, products, inputs in sums
            )

    def _path(self, layer: Layer) -> Path:
        return self._folder / f"{layer.position}.npz"


def free_channels(channel_map: ChannelMap) -> frozenset[int]:
    """Give the channels that may go."""
    return frozenset(
        channel
        for group in channel_map.groups
        if group.blocked is None
        for channel in group.channels
    )


def block_wide_readers(tree: Tree, channel_map: ChannelMap) -> ChannelMap:
    """Keep the channels whose readers have more inputs than there is memory to fit them anew.

    CREPE's second layer reads 65,536, whose second moments alone would take 34 GB.
    """
    reasons: dict[int, str] = {}
    for layer in find_layers(tree):
        axis = read_axis(channel_map, layer)
        if axis is None:
            continue
        num_inputs = len(_matrix_labels(tree, layer, axis.channels))
        if num_inputs > MAXIMUM_INPUTS:
            reason = f"they are read by a layer of more than {MAXIMUM_INPUTS:,} inputs"
            reasons |= dict.fromkeys(axis.channels, reason)
    groups = tuple(
        group
        if group.blocked is not None
        else replace(group, blocked=next(filter(None, map(reasons.get, group.channels)), None))
        for group in channel_map.groups
    )
    return replace(channel_map, groups=groups)


def read_axis(channel_map: ChannelMap, layer: Layer) -> ChannelAxis | None:
    """Give the axis of a layer's weights by which it reads channels apart; None without one."""
    axes = channel_map.axes.get(layer.weights, ())
    return axes[0] if len(axes) == 2 else None  # noqa: PLR2004 - what it reads, what it gives


def order_groups(
    tree: Tree, channel_map: ChannelMap, seen: InputMoments
) -> tuple[RemovalOrder, ...]:
    """Give for each group that may lose channels the order in which they go."""
    layers = [layer for layer in find_layers(tree) if read_axis(channel_map, layer) is not None]
    orders = []
    for group in channel_map.groups:
        if group.blocked is not None:
            continue
        found = [_make_reader(tree, channel_map, group, layer, seen) for layer in layers]
        orders.append(order_removals(group, [each for each in found if each is not None]))
    return tuple(orders)


def _make_reader(
    tree: Tree, channel_map: ChannelMap, group: ChannelGroup, layer: Layer, seen: InputMoments
) -> Reader | None:
    labels = channel_map.axes[layer.weights][0].channels
    columns = _columns_of(tree, layer, labels, group)
    if columns is None:
        return None
    weights = weight_matrix(tree, layer)
    halves = seen.load(layer)
    total = sum_up(halves).centered()
    products = total.products[0] / max(total.num_rows, 1)
    spread = np.arange(products.shape[0]) % 4 != 0
    trust = choose_trust(halves, weights, np.flatnonzero(spread))
    matrix = weights[0].astype(np.float64)
    diagonal = np.diagonal(products)
    damped = products + np.diag(trust * diagonal + 1e-6 * max(float(diagonal.mean()), _TINY))
    return Reader(
        weights=matrix,
        moments=damped,
        columns=columns,
        importance=seen.influence[layer.position],
    )


def _columns_of(
    tree: Tree, layer: Layer, labels: tuple[int, ...], group: ChannelGroup
) -> NDArray[np.intp] | None:
    """Give for each channel of a group which inputs of a layer's matrix it is; None for none."""
    places: dict[int, list[int]] = {}
    for place, label in enumerate(_matrix_labels(tree, layer, labels)):
        places.setdefault(label, []).append(place)
    found = [places.get(channel, []) for channel in group.channels]
    counts = {len(each) for each in found}
    if counts == {0} or len(counts) > 1:
        return None
    return np.array(found, dtype=np.intp)


def _matrix_labels(tree: Tree, layer: Layer, labels: tuple[int, ...]) -> tuple[int, ...]:
    """Give the channel of each column of a layer's matrix: once for each place of a kernel."""
    size = tensor_shape(tree.subgraphs[0].tensors[layer.weights])
    return labels * int(np.prod(size[1:-1])) if len(size) > 2 else labels  # noqa: PLR2004 - (out, in)


class Reconstruction:
    """A visitor that fits each layer anew to what it gave in the float model."""

    def __init__(
        self,
        tree: Tree,
        channel_map: ChannelMap,
        removed: frozenset[int],
        *,
        num_samples: int,
    ) -> None:
        self._tree = tree
        self._map = channel_map
        self._removed = removed
        self._num_samples = num_samples
        self._seen: dict[int, tuple[Samples, Samples]] = {}
        weights = [layer.weights for layer in find_layers(tree)]
        self._shared = {index for index in weights if weights.count(index) > 1}

    def observe(
        self, tensor: int, reference: Samples, changed: Samples
    ) -> Iterable[NDArray[Any]] | None:
        """Remember what is there, for the layers whose output is added to it."""
        self._seen[tensor] = (reference, changed)
        return None

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> LayerChange | None:
        """Give weights that come nearest to the float model's output, removed inputs at zero."""
        axes = self._map.axes.get(layer.weights, ())
        if layer.weights in self._shared or not axes:
            return None
        matrix = weight_matrix(self._tree, layer)
        columns, outputs, groups = self._kept(layer, matrix)
        if len(columns) > MAXIMUM_INPUTS:
            return None
        added = self._added(layer)
        if reference is changed and len(columns) == matrix.shape[2] and added is None:
            return None
        sums = Accumulator()
        original = np.ascontiguousarray(matrix[groups][:, outputs].transpose(0, 2, 1))
        limit = _limit_rows(matrix, self._num_samples)
        for sample, (ours, theirs) in enumerate(zip(reference, changed, strict=True)):
            rows = input_patches(self._tree, layer, ours, maximum_rows=limit)
            wanted = _take(rows, groups, 0) @ original
            if added is not None:
                lost = _find_lost(added, sample, limit)
                wanted = wanted + lost[np.newaxis, :, outputs]
            if theirs is not ours:
                rows = input_patches(self._tree, layer, theirs, maximum_rows=limit)
            sums.add(_take(_take(rows, groups, 0), columns, 2), wanted)
        prior = matrix[np.ix_(groups, outputs, columns)]
        fitted, shift = fit(sums.halves(), prior, has_bias=layer.bias is not None)
        return self._make_change(layer, matrix, (groups, outputs, columns), fitted, shift)

    def _kept(
        self, layer: Layer, matrix: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Give the inputs, the outputs and the groups of a layer's matrix that remain."""
        num_groups, num_out, num_in = matrix.shape
        axes = self._map.axes[layer.weights]
        everything = np.arange(num_in), np.arange(num_out), np.arange(num_groups)
        if layer.op == "DEPTHWISE_CONV_2D":
            left = np.array([label not in self._removed for label in axes[0].channels])
            return everything[0], everything[1], np.flatnonzero(left[::num_out])
        if read_axis(self._map, layer) is None:
            return everything
        labels = _matrix_labels(self._tree, layer, axes[0].channels)
        columns = np.flatnonzero([label not in self._removed for label in labels])
        outputs = np.flatnonzero([label not in self._removed for label in axes[1].channels])
        return columns, outputs, everything[2]

    def _added(self, layer: Layer) -> tuple[Samples, Samples] | None:
        """Give both sides of the branch that a layer's output is added to, if that is known."""
        found = readers(self._tree, layer.output)
        is_linear = layer.activation == "NONE" and layer.op != "DEPTHWISE_CONV_2D"
        if not is_linear or len(found) != 1 or op_name(self._tree, found[0]) != "ADD":
            return None
        tensors = self._tree.subgraphs[0].tensors
        other = next((int(i) for i in found[0].inputs if int(i) != layer.output), layer.output)
        if tensor_shape(tensors[other]) != tensor_shape(tensors[layer.output]):
            return None
        sides = self._seen.get(other)
        return sides if sides is not None and sides[0] is not sides[1] else None

    def _make_change(
        self,
        layer: Layer,
        matrix: NDArray[np.float32],
        kept: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]],
        fitted: NDArray[np.float64],
        shift: NDArray[np.float64] | None,
    ) -> LayerChange:
        groups, outputs, columns = kept
        whole = np.zeros(matrix.shape)
        whole[np.ix_(groups, outputs, columns)] = fitted
        bias = None
        if shift is not None and layer.bias is not None:
            before = read_constant(self._tree, layer.bias)
            assert before is not None  # noqa: S101 - a layer's bias is constant
            grid = before.reshape(matrix.shape[0], matrix.shape[1]).astype(np.float64)
            # What was wanted had no bias of its own.
            grid[np.ix_(groups, outputs)] += shift
            bias = grid.reshape(before.shape).astype(np.float32)
        return LayerChange(weights=matrix_weights(self._tree, layer, whole), bias=bias)


def _limit_rows(matrix: NDArray[np.float32], num_samples: int) -> int:
    """Give how many rows of one sample are enough for a layer's matrix."""
    least = _NUM_ROWS if len(matrix) == 1 else _NUM_GROUP_ROWS
    wanted = max(least, _ROWS_PER_INPUT * int(matrix.shape[2]))
    return -(-wanted // max(num_samples, 1))


def _take(array: NDArray[np.float32], places: NDArray[np.intp], axis: int) -> NDArray[np.float32]:
    """Give some places along an axis; the array itself when they are all."""
    return array if len(places) == array.shape[axis] else np.take(array, places, axis=axis)


def _find_lost(sides: tuple[Samples, Samples], sample: int, limit: int) -> NDArray[np.float32]:
    """Give what the pruned side of a tensor lacks, at the rows that `input_patches` takes."""
    ours, theirs = (side[sample] for side in sides)
    lost: NDArray[np.float32] = (ours - theirs).reshape(-1, ours.shape[-1])
    return lost[spread_rows(len(lost), limit)]
