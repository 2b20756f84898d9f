"""What the channels of a model's tensors hold on real inputs: their extremes and their energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.evaluate import Feeds
from edgepack.optimize.walking.layers import Layer
from edgepack.optimize.walking.walk import Samples, walk

Tree = Any
"""A `ModelT`; the generated classes are untyped."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChannelRanges:
    """What one tensor held, for each channel of its last axis.

    Attributes:
        lowest: (num_channels,) least value seen.
        highest: (num_channels,) largest value seen.
        energy: (num_channels,) mean square over all samples and positions.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    energy: NDArray[np.float64]

    @property
    def reach(self) -> NDArray[np.float64]:
        """Largest magnitude seen."""
        return np.maximum(np.abs(self.lowest), np.abs(self.highest))


def observe_channels(tree: Tree, feeds: Feeds, *, folder: Path) -> Mapping[int, ChannelRanges]:
    """Walk a float model and give what the channels of each float tensor held, by its index.

    One tensor at a time is seen, so not all activations are in memory at once. Call it in a
    process that may die of it.

    Args:
        tree: without loops and without state between samples.
        feeds: its inputs, one tuple a sample.
        folder: for what does not stay in memory.

    Raises:
        OptimizeError: an op cannot be run by itself.
    """
    onlooker = _Onlooker()
    walk(tree, feeds, onlooker, folder=folder)
    return onlooker.seen


class _Onlooker:
    """Gathers what each tensor's channels hold, and changes nothing."""

    def __init__(self) -> None:
        self.seen: dict[int, ChannelRanges] = {}

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> None:
        """Leave each layer as it is."""

    def observe(self, tensor: int, reference: Samples, changed: Samples) -> None:
        """Gather one tensor."""
        del changed
        if len(reference) and reference[0].dtype == np.float32 and reference[0].ndim:
            self.seen[tensor] = gather_channels(reference)


def gather_channels(samples: Samples) -> ChannelRanges:
    """Give what the channels of some arrays hold, all of one shape of rank 1 or more."""
    lowest, highest, squares = [], [], []
    count = 0
    for array in samples:
        rows = array.reshape(-1, array.shape[-1])
        lowest.append(rows.min(axis=0))
        highest.append(rows.max(axis=0))
        squares.append(np.einsum("ij,ij->j", rows, rows, dtype=np.float64))
        count += len(rows)
    return ChannelRanges(
        lowest=np.min(lowest, axis=0).astype(np.float64),
        highest=np.max(highest, axis=0).astype(np.float64),
        energy=np.sum(squares, axis=0) / count,
    )
