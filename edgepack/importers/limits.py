"""Limits that a converted model's own graph sets: ids that inputs take, sizes outputs have."""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from edgepack.flatbuffer import op_name, read_flatbuffer
from edgepack.model import Model

# Ops that hand integers on as they are, or leave some out. onnx2tf 2.6.9 puts SELECT before a
# GATHER, to count negative ids from the end.
_CARRIERS: Final = frozenset({
    "BROADCAST_TO", "CAST", "CONCATENATION", "EXPAND_DIMS", "PACK", "RESHAPE", "SELECT",
    "SELECT_V2", "SLICE", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE",
    "UNPACK",
})  # fmt: skip
_SELECTS: Final = frozenset({"SELECT", "SELECT_V2"})
# Ops whose results lie within -1 and 1, computed to one rounding of 1 and no finer: ONNX
# Runtime 1.24 gives sigmoids as multiples of 3e-8.
_BOUNDED: Final = frozenset({"LOGISTIC", "TANH"})
_MOST_STEPS: Final = 10_000


def integer_maxima(model: Model) -> tuple[int | None, ...]:
    """Give the largest id that each input takes; None where the graph does not tell.

    Ids end in a table's lookup (GATHER, EMBEDDING_LOOKUP), in ONE_HOT, or in a comparison with
    all ids from 0 on, which is how exporters write a one-hot code.
    """
    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    consumers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in {int(i) for i in operator.inputs if i >= 0}:
            consumers.setdefault(index, []).append(operator)
    return tuple(
        None
        if np.dtype(spec.dtype).kind not in "iu"
        else min(_maxima(tree, int(index), consumers), default=None)
        for spec, index in zip(model.signature.inputs, graph.inputs, strict=True)
    )


def are_bounded(model: Model) -> tuple[bool, ...]:
    """Tell of each output whether it is a sigmoid's or a hyperbolic tangent's."""
    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    producers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    return tuple(_is_bounded(tree, int(index), producers) for index in graph.outputs)


def _maxima(tree: Any, start: int, consumers: dict[int, list[Any]]) -> Iterator[int]:  # noqa: ANN401 - the generated classes are untyped
    seen, waiting = {start}, [start]
    while waiting and len(seen) < _MOST_STEPS:
        index = waiting.pop()
        for operator in consumers.get(index, ()):
            name = op_name(tree, operator)
            place = [int(i) for i in operator.inputs].index(index)
            largest = _largest(tree, operator, name, place)
            if largest is not None:
                yield largest
            elif name in _CARRIERS and not (name in _SELECTS and place == 0):
                fresh = {int(i) for i in operator.outputs} - seen
                seen |= fresh
                waiting += fresh


def _largest(tree: Any, operator: Any, name: str, place: int) -> int | None:  # noqa: ANN401 - see above
    """Give the largest id an op takes at a place among its inputs."""
    tensors = tree.subgraphs[0].tensors
    inputs = [int(i) for i in operator.inputs]
    if name == "EMBEDDING_LOOKUP" and place == 0:
        return int(tensors[inputs[1]].shape[0]) - 1
    if name == "GATHER" and place == 1:
        options = operator.builtinOptions
        axis = int(options.axis) if options is not None else 0
        return int(tensors[inputs[0]].shape[axis]) - 1
    if name == "ONE_HOT" and place == 0:
        depth = _integers(tree, inputs[1])
        return None if depth is None or depth.size != 1 else int(depth.reshape(-1)[0]) - 1
    if name == "EQUAL":
        ids = _integers(tree, inputs[1 - place])
        is_all = ids is not None and ids.size > 1 and np.array_equal(ids, np.arange(ids.size))
        return ids.size - 1 if ids is not None and is_all else None
    return None


def _integers(tree: Any, index: int) -> Any:  # noqa: ANN401 - see above
    """Give a constant's integers, flat; None when it is none."""
    from ai_edge_litert.schema_py_generated import TensorType  # noqa: PLC0415 - 0.3 s to import

    tensor = tree.subgraphs[0].tensors[index]
    dtype = {TensorType.INT32: "<i4", TensorType.INT64: "<i8"}.get(tensor.type)
    data = tree.buffers[tensor.buffer].data
    if dtype is None or data is None or not len(data):
        return None
    shape = [] if tensor.shape is None else tensor.shape
    size = math.prod(int(each) for each in shape) * np.dtype(dtype).itemsize
    return np.frombuffer(bytes(data), dtype) if size == len(data) else None


def _is_bounded(tree: Any, index: int, producers: dict[int, Any]) -> bool:  # noqa: ANN401 - see above
    for _ in range(_MOST_STEPS):
        operator = producers.get(index)
        if operator is None:
            return False
        name = op_name(tree, operator)
        if name in _BOUNDED:
            return True
        if name not in _CARRIERS - _SELECTS - {"CAST", "CONCATENATION", "PACK"}:
            return False
        # The tensor that is carried stands first, but for SPLIT, whose axis does.
        index = int(operator.inputs[1 if name == "SPLIT" else 0])
    return False
