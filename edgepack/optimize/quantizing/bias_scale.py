"""Channels whose integer bias would overflow, as hardly a weight of theirs is left.

An int8 layer counts a channel's bias in units of its input's scale times its weights' scale, as
int32. A channel with a bias and no weights to speak of has units so small that the bias does
not fit: it is cut off, and the channel gives another constant (EfficientNet-Lite0, half of its
weights pruned: 10.2 dB with int8 weights, -1.0 dB with int8 activations; ai-edge-quantizer
0.10). One weight of a ten thousandth of the bias gives units that it fits in.
"""

from typing import Final

import numpy as np

from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.walking.layers import find_layers

# Fits for inputs with a scale of 6e-4 and more, a range of 0.15: bias / (2**31 * scale) * 127.
_SHARE: Final = 1e-4


def hold_biases(model: Model) -> Model:
    """Give every channel with a bias at least one weight that is not negligible beside it.

    Args:
        model: float32; unchanged when no channel needs it.
    """
    tree = read_flatbuffer(model.data)
    is_changed = False
    for layer in find_layers(tree):
        weights = read_constant(tree, layer.weights)
        bias = None if layer.bias is None else read_constant(tree, layer.bias)
        if weights is None or bias is None or bias.size != weights.shape[layer.channel_axis]:
            continue
        channels = np.moveaxis(weights, layer.channel_axis, 0).reshape(bias.size, -1).copy()
        largest = np.argmax(np.abs(channels), axis=1)
        rows = np.arange(bias.size)
        values, least = channels[rows, largest], _SHARE * np.abs(bias)
        short = np.abs(values) < least
        if not short.any():
            continue
        channels[rows[short], largest[short]] = np.where(values < 0, -least, least)[short]
        moved = np.moveaxis(weights, layer.channel_axis, 0).shape
        set_constant(
            tree, layer.weights, np.moveaxis(channels.reshape(moved), 0, layer.channel_axis)
        )
        is_changed = True
    return read_model(write_flatbuffer(tree)) if is_changed else model
