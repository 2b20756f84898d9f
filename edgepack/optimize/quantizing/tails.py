"""Outputs whose channels have unlike ranges, and what of the graph makes them; pure.

A detector that concatenates boxes of 0 to 320 and scores of 0 to 1 loses every score when one
scale of 8 bits serves both. What joins them, and all that follows, is then left in float; the
parts keep integers with scales of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.fidelity.channels import find_channel_axes
from edgepack.flatbuffer import op_name
from edgepack.graph import read_constant, tensor_shape

# A part of so few integers has at best 24 dB: 20 log10(16) for values spread evenly.
_FEWEST_LEVELS: Final = 16
# A channel of a single op's output is given up later: it costs the whole op its integers.
_FEWEST_CHANNEL_LEVELS: Final = 2
# Below this share of the output's range a channel is silent: dead, or another's noise.
_SILENT: Final = 1e-5
_NUM_LEVELS: Final = 255
_PASSING: Final = (
    "CAST",
    "EXPAND_DIMS",
    "GATHER",
    "PAD",
    "RESHAPE",
    "SLICE",
    "SPLIT",
    "SPLIT_V",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
    "UNPACK",
)
_JOINING: Final = ("CONCATENATION", "PACK")
_ELEMENTWISE: Final = ("ADD", "DIV", "MUL", "SUB")
_LAYERS: Final = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_LINEAR: Final = ("ADD", "MUL", "SUB", *_LAYERS)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Extent:
    """How far a tensor's values reach.

    Attributes:
        low: least value seen.
        high: greatest value seen.
        peaks: (num_channels,) largest magnitude of each index of the axis that
            `find_channel_axis` gives; None when they were not kept.
    """

    low: float
    high: float
    peaks: NDArray[np.float64] | None = None

    @property
    def step(self) -> float:
        """What one integer of 8 bits stands for."""
        return (max(self.high, 0.0) - min(self.low, 0.0)) / _NUM_LEVELS

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


def find_tail(tree: Any) -> tuple[int, ...]:  # noqa: ANN401 - the generated classes are untyped
    """Give the positions of the ops that make the outputs' values out of finished parts.

    From each output backward through ops that move, join or scale values, up to and with the
    op that computes them.
    """
    graph = tree.subgraphs[0]
    writers = {
        int(index): position
        for position, operator in enumerate(graph.operators)
        for index in operator.outputs
    }
    found: set[int] = set()
    waiting = [int(index) for index in graph.outputs]
    while waiting:
        position = writers.get(waiting.pop())
        if position is None or position in found:
            continue
        found.add(position)
        operator = graph.operators[position]
        if _moves(tree, operator):
            waiting += [int(index) for index in operator.inputs if index >= 0]
    return tuple(sorted(found))


def find_channel_axis(tree: Any, operator: Any) -> int:  # noqa: ANN401 - as above
    """Give the axis along which an op of the tail gives channels: a layer's last one.

    Other ops stand behind transpositions, too: YOLO scales boxes in (1, 84, 8400).
    """
    axes = find_channel_axes(tensor_shape(tree.subgraphs[0].tensors[int(operator.outputs[0])]))
    return -1 if op_name(tree, operator) in _LAYERS or len(axes) != 1 else axes[0]


def find_unlike(tree: Any, extents: Mapping[int, Extent]) -> tuple[int, ...]:  # noqa: ANN401 - as above
    """Give the positions of the ops to be left in float, in the order they run.

    Args:
        tree: the float model.
        extents: of float32 tensors by index; of those that the ops of `find_tail` give with
            the peaks of their channels.
    """
    graph = tree.subgraphs[0]
    tail = find_tail(tree)
    unlike: set[int] = set()
    spoiled: set[int] = set()
    for position in tail:
        operator = graph.operators[position]
        indices = [int(index) for index in operator.inputs if index >= 0]
        if (
            _joins_unlike(tree, operator, extents)
            or _has_lost_channels(tree, operator, extents)
            or any(index in spoiled for index in indices)
        ):
            unlike.add(position)
            spoiled |= {int(index) for index in operator.outputs}
    return tuple(sorted(unlike))


def _moves(tree: Any, operator: Any) -> bool:  # noqa: ANN401 - as above
    op = op_name(tree, operator)
    if op in _PASSING or op in _JOINING:
        return True
    return op in _ELEMENTWISE and any(
        read_constant(tree, int(index)) is not None for index in operator.inputs
    )


def _joins_unlike(tree: Any, operator: Any, extents: Mapping[int, Extent]) -> bool:  # noqa: ANN401 - as above
    whole = extents.get(int(operator.outputs[0]))
    if op_name(tree, operator) not in _JOINING or whole is None:
        return False
    parts = [extents[int(index)] for index in operator.inputs if int(index) in extents]
    return any(_SILENT * whole.peak < part.peak < _FEWEST_LEVELS * whole.step for part in parts)


def _has_lost_channels(tree: Any, operator: Any, extents: Mapping[int, Extent]) -> bool:  # noqa: ANN401 - as above
    """Tell whether an op computes channels of unlike units, such as boxes beside scores.

    Features that a RELU made, and shares of a SOFTMAX or LOGISTIC, are of one unit, however
    little some of their channels were used.
    """
    whole = extents.get(int(operator.outputs[0]))
    is_linear = op_name(tree, operator) in _LINEAR and not int(
        getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0
    )
    if not is_linear or whole is None or whole.peaks is None:
        return False
    is_lost = (whole.peaks > _SILENT * whole.peak) & (
        whole.peaks < _FEWEST_CHANNEL_LEVELS * whole.step
    )
    return bool(np.any(is_lost))
