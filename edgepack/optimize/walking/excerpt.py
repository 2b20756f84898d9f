"""Parts of a model as models of their own: a run of ops that starts from what was computed before.

What a changed layer does to the outputs needs no run of the ops before it: the part behind it
is fed with what they gave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import write_flatbuffer

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_GROUPS: Final = ("inputs", "outputs", "intermediates")


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """Consecutive ops of a model's main graph.

    Attributes:
        data: the flatbuffer.
        inputs: tensor indexes, in the whole model, of what it is fed with, in order.
        outputs: likewise of what it gives.
    """

    data: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def cut_excerpt(
    tree: Tree,
    start: int,
    stop: int,
    *,
    outputs: Sequence[int],
    constants: Mapping[int, NDArray[Any]] | None = None,
) -> Excerpt:
    """Cut the ops from one position to before another out of a model; the tree stays as it is.

    Args:
        tree: the model; its other graphs are left out.
        start: position of the first op in the main graph.
        stop: the position behind the last.
        outputs: tensors to give; each written by one of these ops.
        constants: other values of constant tensors, in their shapes and element types.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    graph = tree.subgraphs[0]
    operators = graph.operators[start:stop]
    used = {i for each in operators for group in _indexes(each) for i in group if i >= 0}
    place = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.operatorCodes = tree.operatorCodes
    model.buffers = [schema.BufferT()]
    subgraph.tensors, subgraph.operators = [], []
    for old in sorted(used):
        tensor = schema.TensorT()
        vars(tensor).update(vars(graph.tensors[old]))
        data = tree.buffers[tensor.buffer].data
        if constants is not None and old in constants:
            data = np.frombuffer(np.ascontiguousarray(constants[old]).tobytes(), np.uint8)
        tensor.buffer = 0
        if data is not None and len(data):
            buffer = schema.BufferT()
            buffer.data = data
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        subgraph.tensors.append(tensor)
    for each in operators:
        operator = schema.OperatorT()
        vars(operator).update(vars(each))
        for key, group in zip(_GROUPS, _indexes(each), strict=True):
            if getattr(each, key) is not None:
                setattr(operator, key, [place[i] for i in group])
        subgraph.operators.append(operator)
    inputs = live_tensors(tree, start) & used
    subgraph.inputs = [place[i] for i in sorted(inputs)]
    subgraph.outputs = [place[i] for i in outputs]
    model.subgraphs = [subgraph]
    return Excerpt(
        data=write_flatbuffer(model), inputs=tuple(sorted(inputs)), outputs=tuple(outputs)
    )


def live_tensors(tree: Tree, position: int) -> set[int]:
    """Give the tensors that ops before a position, or the caller, have filled in."""
    graph = tree.subgraphs[0]
    written = {int(i) for i in graph.inputs}
    return written.union(*(map(int, each.outputs) for each in graph.operators[:position]))


def _indexes(operator: Any) -> list[list[int]]:  # noqa: ANN401 - see `Tree`
    groups = (getattr(operator, key) for key in _GROUPS)
    return [[] if group is None else [int(i) for i in group] for group in groups]


class ExcerptRunner:
    """An excerpt's interpreter, single-threaded; in a process that may die of it.

    Raises:
        RuntimeError: LiteRT 2.3 lacks an op or cannot prepare it.
        ValueError: it cannot read the excerpt.
    """

    def __init__(self, excerpt: Excerpt) -> None:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only children run it

        self._excerpt = excerpt
        self._interpreter = Interpreter(model_content=excerpt.data, num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs = [each["index"] for each in self._interpreter.get_input_details()]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._interpreter

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tensor indexes, in the whole model, of what a run needs."""
        return self._excerpt.inputs

    def run(self, arrays: Mapping[int, NDArray[Any]]) -> dict[int, NDArray[Any]]:
        """Give what the ops make of tensors of the whole model; each sample starts afresh."""
        for index, tensor in zip(self._inputs, self._excerpt.inputs, strict=True):
            self._interpreter.set_tensor(index, arrays[tensor])
        self._interpreter.reset_all_variables()
        self._interpreter.invoke()
        given = (self._interpreter.get_tensor(index) for index in self._outputs)
        return dict(zip(self._excerpt.outputs, given, strict=True))
