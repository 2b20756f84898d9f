"""What activations reach, collected in one pass over calibration samples; runs in a child.

Of each tensor a histogram is kept and of a few the peaks of their channels, so that memory
does not grow with the samples. LiteRT 2.3 keeps every tensor of one run when asked to, with
the same values under XNNPACK as under the plain kernels.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.child import read_arrays
from edgepack.optimize.ranges import EMPTY, Histogram, add_values

# Values counted of one tensor of one sample: its extremes count anyway, and the shape of a
# distribution over tens of samples needs no more. A third of the time for a detector.
_MOST_VALUES: Final = 65536
# Channels whose peaks are kept of a tensor.
_MOST_CHANNELS: Final = 65536

Place = tuple[int, int]
"""A tensor: its subgraph and its index there."""


@dataclass(kw_only=True, slots=True)
class Seen:
    """What was seen of one tensor.

    Attributes:
        histogram: of its values.
        peaks: (num_channels,) largest magnitude of each index of its last axis; None unless
            they were asked for.
    """

    histogram: Histogram = EMPTY
    peaks: NDArray[np.float64] | None = None


def collect(
    data: bytes,
    feeds: Path,
    places: list[Place],
    *,
    peaks_of: frozenset[Place],
    is_stream: bool,
) -> dict[Place, Seen]:
    """Run a model on samples and give what its tensors held.

    Args:
        data: the flatbuffer.
        feeds: file of the samples' arrays, one after another.
        places: the tensors; those that a run does not fill are passed over.
        peaks_of: those of them whose channels' peaks are wanted.
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
            if values is not None and values.size:
                each.histogram = add_values(each.histogram, _thin(values))
                if place in peaks_of:
                    each.peaks = _raise_peaks(each.peaks, values)
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


def _thin(values: NDArray[Any]) -> NDArray[Any]:
    """Give enough of a large array's values, of every channel alike, and its extremes."""
    if values.size <= _MOST_VALUES:
        return values
    flat = values.reshape(-1)
    stride = -(-flat.size // _MOST_VALUES)
    while math.gcd(stride, values.shape[-1]) > 1:
        stride += 1
    with np.errstate(invalid="ignore"):
        return np.concatenate([flat[::stride], [np.nanmin(flat), np.nanmax(flat)]])


def _raise_peaks(
    peaks: NDArray[np.float64] | None, values: NDArray[Any]
) -> NDArray[np.float64] | None:
    num_channels = values.shape[-1] if values.ndim > 1 else 1
    if num_channels > _MOST_CHANNELS:
        return None
    rows = np.abs(values.reshape(-1, num_channels).astype(np.float64))
    now: NDArray[np.float64] = rows.max(axis=0)
    return now if peaks is None or len(peaks) != num_channels else np.maximum(peaks, now)
