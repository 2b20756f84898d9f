"""Moving the channels of a tensor to where its range is used best, exactly.

What a layer without an activation gives can be moved by any offset a channel: the bias takes it
out, and the bias of every layer that reads it puts it back, as long as nothing between them cares
where zero is and nothing pads. Moved to the middle of their ranges, channels need a smaller
common range. Behind a RELU only what no sample fell below can be taken, half of it for safety:
the high-bias absorption of Nagel et al. 2019 (arXiv:1906.04721, 4.1.3), by what was seen instead
of by batch-norm statistics.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.graph import Tree, name_of, writer
from edgepack.optimize.equalizing.scaling import ScaleGroup, ScaleMap
from edgepack.optimize.walking.channel_ranges import ChannelRanges
from edgepack.optimize.walking.layer_bias import layer_constants, pads, set_bias, weigh
from edgepack.optimize.walking.layers import activation_of, find_layers

Offsets = Mapping[int, NDArray[np.float64]]
"""For each tensor of a group the offset of each channel, which is taken out of it."""

# An offset everywhere at the input is the same offset everywhere at the output.
_INDIFFERENT: Final = frozenset(
    {
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "MEAN", "REDUCE_MAX", "REDUCE_MIN"),
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
    }
)


def find_offsets(
    tree: Tree, scale_map: ScaleMap, group: ScaleGroup, ranges: Mapping[int, ChannelRanges]
) -> Offsets | None:
    """Give the offsets that bring a group's channels to the middle; None when none can be had."""
    classes = np.unique(np.concatenate([scale_map.labels[index] for index in group.tensors]))
    if len(classes) != len(group.classes) or any(pads(tree, layer) for layer in group.readers):
        return None
    offsets: dict[int, NDArray[np.float64]] = {}
    written = {layer.output: layer for layer in group.writers}
    for index in group.tensors:
        if index in written:
            seen = ranges.get(index)
            if seen is None:
                return None
            offsets[index] = _best_offset(written[index].activation, seen)
            continue
        found = _passed_offset(tree, index, offsets, len(scale_map.labels[index]))
        if found is None:
            return None
        offsets[index] = found
    return offsets if any(np.any(each) for each in offsets.values()) else None


def apply_offsets(tree: Tree, group: ScaleGroup, offsets: Offsets) -> None:
    """Take offsets out of what a group's writers give and put them back in its readers."""
    # By position: another group may have given a layer a bias since the group was found.
    writers = {layer.position for layer in group.writers}
    readers = {layer.position for layer in group.readers}
    for layer in find_layers(tree):
        if layer.position in writers | readers:
            weights, bias = layer_constants(tree, layer)
            if layer.position in readers:
                bias = bias + weigh(tree, layer, weights, offsets[layer.input])
            if layer.position in writers:
                bias = bias - offsets[layer.output]
            set_bias(tree, layer, bias)


def _best_offset(activation: str, seen: ChannelRanges) -> NDArray[np.float64]:
    match activation:
        case "NONE":
            return (seen.lowest + seen.highest) / 2
        case "RELU":
            return np.maximum(seen.lowest, 0) / 2
        case _:
            return np.zeros_like(seen.lowest)


def _passed_offset(
    tree: Tree, index: int, offsets: Offsets, num_channels: int
) -> NDArray[np.float64] | None:
    operator: Any = writer(tree, index)
    name = name_of(tree, operator)
    given = [offsets[int(i)] for i in operator.inputs if int(i) in offsets]
    if activation_of(operator) != "NONE" or not given:
        return None
    if name in _INDIFFERENT:
        return np.tile(given[0], num_channels // len(given[0]))
    if len(given) != len(operator.inputs):
        return None
    if name == "CONCATENATION":
        joined = np.concatenate(given)
        return joined if len(joined) == num_channels else None
    if name == "ADD":
        return given[0] + given[1]
    return given[0] - given[1] if name == "SUB" else None
