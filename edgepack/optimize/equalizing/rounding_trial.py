"""What rounding some tensors to 8 bits costs at the model's outputs, without building a variant.

The float model runs with each tensor of interest rounded to multiples of a step, one step a
channel, that stand among its inputs: many scalings are tried with one interpreter. Scaling a
channel up before its tensor is rounded, and down behind, is rounding it to finer steps.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.evaluate import Feeds
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import write_flatbuffer
from edgepack.graph import make_op, new_tensor, readers, tensor_shape

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

# A part of what the tensor reaches: steps that nobody notices, yet float32 can count.
_UNNOTICED: Final = 2.0**-20
# Float32 has an inverse of it.
_SMALLEST: Final = 1e-30
_NO_ACTIVATION: Final = {"fusedActivationFunction": 0}


class RoundingTrial:
    """A float model whose tensors can be rounded; LiteRT runs in it."""

    def __init__(
        self, tree: Tree, feeds: Feeds, reaches: Mapping[int, NDArray[np.float64]]
    ) -> None:
        """Prepare.

        Args:
            tree: the float model; it is left as it is.
            feeds: its inputs, one tuple a sample.
            reaches: for each tensor of interest the largest magnitude of each channel.
        """
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only children run it

        graph = tree.subgraphs[0]
        self._feeds = feeds
        self._fine: dict[int, NDArray[np.float64]] = {
            index: np.full(len(reach), max(float(reach.max()) * _UNNOTICED, _SMALLEST))
            for index, reach in reaches.items()
        }
        self._num_inputs = len(graph.inputs)
        names = [str(index) for index in range(len(graph.outputs))]
        self._names = tuple(names)
        data = _with_steps(tree, tuple(reaches))
        self._interpreter = Interpreter(model_content=data, num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs = [each["index"] for each in self._interpreter.get_input_details()]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]
        self._reference = self._run({})

    def unnoticed(self, index: int) -> NDArray[np.float64]:
        """Give steps of a tensor's channels that are too fine to matter."""
        return self._fine[index]

    def sqnr_db(self, steps: Mapping[int, NDArray[np.float64]]) -> float:
        """Give the worst output's SQNR when the given tensors are rounded to these steps."""
        return compare_outputs(self._reference, self._run(steps), names=self._names).sqnr_db

    def _run(self, steps: Mapping[int, NDArray[np.float64]]) -> list[tuple[NDArray[Any], ...]]:
        for place, (index, fine) in enumerate(self._fine.items()):
            step = steps.get(index, fine)
            for offset, values in ((0, 1.0 / step), (1, step)):
                position = self._inputs[self._num_inputs + 2 * place + offset]
                self._interpreter.set_tensor(position, values.astype(np.float32))
        answers = []
        for feed in self._feeds:
            for position, array in zip(self._inputs, feed, strict=False):
                self._interpreter.set_tensor(position, array)
            self._interpreter.invoke()
            answers.append(tuple(self._interpreter.get_tensor(i) for i in self._outputs))
        return answers


def _with_steps(tree: Tree, indexes: Sequence[int]) -> bytes:
    """Give the model with x -> round(x / step) * step behind tensors, the steps as inputs."""
    changed = copy.copy(tree)
    graph = copy.copy(tree.subgraphs[0])
    changed.subgraphs = [graph, *tree.subgraphs[1:]]
    changed.operatorCodes = list(tree.operatorCodes)
    changed.buffers = list(tree.buffers)
    changed.signatureDefs = []
    graph.tensors = list(graph.tensors)
    graph.operators = [copy.copy(operator) for operator in graph.operators]
    graph.inputs = [int(index) for index in graph.inputs]
    for index in indexes:
        shape = tensor_shape(graph.tensors[index])
        reading = readers(changed, index)
        inverse, step = (
            new_tensor(changed, name, shape[-1:], "float32") for name in ("inverse", "step")
        )
        scaled, whole, rounded = (
            new_tensor(changed, name, shape, "float32") for name in ("scaled", "whole", "rounded")
        )
        options = ("MulOptions", _NO_ACTIVATION)
        added = [
            make_op(changed, "MUL", [index, inverse], [scaled], options=options),
            make_op(changed, "ROUND", [scaled], [whole]),
            make_op(changed, "MUL", [whole, step], [rounded], options=options),
        ]
        place = 1 + next(
            number
            for number, operator in enumerate(graph.operators)
            if index in [int(i) for i in operator.outputs]
        )
        for operator in reading:
            operator.inputs = [rounded if int(i) == index else int(i) for i in operator.inputs]
        graph.operators[place:place] = added
        graph.inputs += [inverse, step]
    return write_flatbuffer(changed)
