"""What activations reach, collected in one pass over calibration samples; runs in a child.

Of each tensor a histogram is kept and of a few the peaks of their channels, so that memory
does not grow with the samples. LiteRT 2.3 keeps every tensor of one run when asked to, with
the same values under XNNPACK as under the plain kernels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.child import read_arrays
from edgepack.graph import read_constant, tensor_shape
from edgepack.optimize.quantizing.ranges import EMPTY, Histogram, add_values
from edgepack.optimize.walking.layers import find_layers

# Values counted of one tensor of one sample: its extremes count anyway, and the shape of a
# distribution over tens of samples needs no more. A third of the time for a detector.
_MOST_VALUES: Final = 65536
# Channels whose peaks are kept of a tensor.
_MOST_CHANNELS: Final = 65536
# The weight of the channel that matters most; whole numbers add up exactly in any order.
_LARGEST_WEIGHT: Final = 1000

Place = tuple[int, int]
"""A tensor: its subgraph and its index there."""


@dataclass(kw_only=True, slots=True)
class Seen:
    """What was seen of one tensor.

    Attributes:
        histogram: of its values.
        weighted: of its values, each counted by the weight of its channel; None without
            weights.
        peaks: (num_channels,) largest magnitude of each index of the axis they were asked for
            along; None unless they were.
    """

    histogram: Histogram = EMPTY
    weighted: Histogram | None = None
    peaks: NDArray[np.float64] | None = None


def weigh_channels(tree: Any) -> dict[int, NDArray[np.int64]]:  # noqa: ANN401 - the generated classes are untyped
    """Give how much the errors of each channel matter to the layers that read a tensor.

    Returns:
        By the tensor's index in the main graph (num_channels,) sums of the squares of the
        weights that a channel is multiplied by, rounded, the largest being 1000.
    """
    sums: dict[int, NDArray[np.float64]] = {}
    for layer in find_layers(tree):
        weights = read_constant(tree, layer.weights)
        shape = tensor_shape(tree.subgraphs[0].tensors[layer.input])
        if weights is None or not shape:
            continue
        squares = np.square(weights.astype(np.float64))
        num_channels, num_own = shape[-1], weights.shape[-1]
        if layer.op == "DEPTHWISE_CONV_2D":
            each = squares.reshape(-1, num_channels, num_own // num_channels).sum(axis=(0, 2))
        elif num_channels % num_own == 0:
            # A convolution of groups has an input channel's weights in its own group alone.
            each = squares.reshape(num_channels // num_own, -1, num_own).sum(axis=1).reshape(-1)
        else:  # a fully connected layer that reads several positions as one
            continue
        sums[layer.input] = sums.get(layer.input, np.zeros(num_channels)) + each
    return {
        index: np.rint(each * (_LARGEST_WEIGHT / each.max())).astype(np.int64)
        for index, each in sums.items()
        if each.max() > 0
    }


def collect(
    data: bytes,
    feeds: Path,
    places: Sequence[Place],
    *,
    peaks_of: Mapping[Place, int],
    channel_weights: Mapping[Place, NDArray[np.int64]],
    is_stream: bool,
) -> dict[Place, Seen]:
    """Run a model on samples and give what its tensors held.

    Args:
        data: the flatbuffer.
        feeds: file of the samples' arrays, one after another.
        places: the tensors; those that a run does not fill are passed over.
        peaks_of: those of them whose channels' peaks are wanted, with the channels' axis.
        channel_weights: those that are to be counted by (num_channels,) weights as well.
        is_stream: whether state lives on from sample to sample.

    Raises:
        RuntimeError: the runtime lacks an op or fails.
        ValueError: the runtime cannot read the model.
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only the child needs it

    # One thread: sums in one order, and so the same bytes each time.
    interpreter = Interpreter(
        model_content=data, num_threads=1, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    seen = {place: Seen() for place in places}
    for sample in _samples(feeds, len(inputs)):
        for index, array in zip(inputs, sample, strict=True):
            interpreter.set_tensor(index, array)
        # As when the model is run: `edgepack.evaluate_worker`.
        if not is_stream:
            interpreter.reset_all_variables()
        interpreter.invoke()
        for place, each in seen.items():
            values = _read(interpreter.get_tensor, place)
            if values is None or not values.size:
                continue
            _count(each, values, channel_weights.get(place))
            if place in peaks_of:
                each.peaks = _raise_peaks(each.peaks, values, axis=peaks_of[place])
    return {place: each for place, each in seen.items() if each.histogram.num_values}


def _samples(feeds: Path, num_inputs: int) -> Iterator[list[NDArray[Any]]]:
    arrays = read_arrays(feeds)
    for first in arrays:
        yield [first, *(next(arrays) for _ in range(num_inputs - 1))]


def _read(get_tensor: Callable[[int, int], Any], place: Place) -> NDArray[Any] | None:
    subgraph, index = place
    try:
        values = np.asarray(get_tensor(index, subgraph))
    except ValueError:  # LiteRT 2.3 on a tensor without data: one that this run did not fill
        return None
    return values if values.dtype.kind in "biuf" else None


def _count(seen: Seen, values: NDArray[Any], weights: NDArray[np.int64] | None) -> None:
    """Count a large array's extremes and enough of its values, of every channel alike."""
    flat = values.reshape(-1)
    num_channels = values.shape[-1] if values.ndim else 1
    stride = -(-flat.size // _MOST_VALUES)
    while stride > 1 and math.gcd(stride, num_channels) > 1:
        stride += 1
    picked = flat[::stride]
    if weights is not None and len(weights) == num_channels:
        channels = np.arange(0, flat.size, stride) % num_channels
        seen.weighted = add_values(seen.weighted or EMPTY, picked, weights[channels])
    if stride > 1:
        picked = np.append(picked, [np.nanmin(flat), np.nanmax(flat)])
    seen.histogram = add_values(seen.histogram, picked)


def _raise_peaks(
    peaks: NDArray[np.float64] | None, values: NDArray[Any], *, axis: int
) -> NDArray[np.float64] | None:
    num_channels = values.shape[axis] if values.ndim > 1 else 1
    if num_channels > _MOST_CHANNELS:
        return None
    rows = np.moveaxis(values, axis, -1) if values.ndim > 1 else values
    now: NDArray[np.float64] = np.abs(rows.reshape(-1, num_channels).astype(np.float64)).max(axis=0)
    return now if peaks is None or len(peaks) != num_channels else np.maximum(peaks, now)
