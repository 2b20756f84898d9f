"""What running a model asks of a device: which ops at which versions, and how much memory; pure."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

from edgepack.flatbuffer import dtype_name, op_name, read_flatbuffer, reading_tables

# Texts have no size of their own in a tensor's table; they count nothing here.
_ITEM_BITS: Final = {
    "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64, "complex64": 64,
    "complex128": 128, "bool": 8, "int2": 2, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8,
    "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64,
}  # fmt: skip
_INTEGER_WEIGHTS: Final = frozenset({"int2", "int4", "int8", "uint8"})
_REAL: Final = frozenset({"float32", "float16", "bfloat16"})


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class OpUse:
    """A kind of op as a model uses it.

    Attributes:
        name: as the schema spells it, or a custom op's own name.
        version: that the file asks for.
        is_custom: whether it is none of the schema's.
        is_hybrid: whether it computes with integer weights on float activations, which the
            runtime quantizes while it runs.
        is_per_channel: whether integer weights have several scales.
        count: how often it is used so, in all subgraphs; 0 when it is only declared.
    """

    name: str
    version: int
    is_custom: bool = False
    is_hybrid: bool = False
    is_per_channel: bool = False
    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What running a model asks of a device.

    Attributes:
        ops: kinds of op, sorted.
        model_bytes: of the flatbuffer, which holds the weights.
        activation_bytes: the most that tensors between ops take at once in the main graph, in
            the file's order of ops and at the shapes that stand in it: no runtime needs less.
    """

    ops: tuple[OpUse, ...]
    model_bytes: int
    activation_bytes: int


def read_workload(data: bytes) -> Workload:
    """Read what running a model takes.

    Raises:
        ModelError: not a TFLite flatbuffer, or a damaged one.
    """
    tree = read_flatbuffer(data)
    with reading_tables():
        return Workload(
            ops=_read_ops(tree),
            model_bytes=len(data),
            activation_bytes=_peak_bytes(tree, tree.subgraphs[0]),
        )


def _read_ops(tree: Any) -> tuple[OpUse, ...]:  # noqa: ANN401 - the generated classes are untyped
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    uses: Counter[OpUse] = Counter()
    declared = set(range(len(tree.operatorCodes)))
    for graph in tree.subgraphs:
        for operator in graph.operators or ():
            code = tree.operatorCodes[operator.opcodeIndex]
            declared.discard(int(operator.opcodeIndex))
            is_hybrid, is_per_channel = _read_weights(tree, graph, operator)
            use = OpUse(
                name=op_name(tree, operator),
                version=int(code.version),
                is_custom=code.builtinCode == schema.BuiltinOperator.CUSTOM,
                is_hybrid=is_hybrid,
                is_per_channel=is_per_channel,
            )
            uses[use] += 1
    # A runtime looks up every op that a file declares, used or not (tflite-runtime 2.11 and 2.14,
    # LiteRT 2.3), but for custom ones.
    for index in declared:
        code = tree.operatorCodes[index]
        if code.builtinCode != schema.BuiltinOperator.CUSTOM:
            stand_in = schema.OperatorT()
            stand_in.opcodeIndex = index
            uses.setdefault(OpUse(name=op_name(tree, stand_in), version=int(code.version)), 0)
    return tuple(sorted(replace(use, count=count) for use, count in uses.items()))


def _read_weights(tree: Any, graph: Any, operator: Any) -> tuple[bool, bool]:  # noqa: ANN401 - the generated classes are untyped
    """Tell whether an op has integer weights beside float activations, and several scales."""
    tensors = [graph.tensors[index] for index in _indices(operator.inputs)]
    weights = [
        tensor
        for tensor in tensors
        if dtype_name(tensor.type) in _INTEGER_WEIGHTS
        and _is_constant(tree, tensor)
        and _num_scales(tensor) > 0
    ]
    is_float = any(
        dtype_name(graph.tensors[index].type) in _REAL for index in _indices(operator.outputs)
    ) and any(
        dtype_name(tensor.type) in _REAL and not _is_constant(tree, tensor) for tensor in tensors
    )
    return bool(weights) and is_float, any(_num_scales(tensor) > 1 for tensor in weights)


def _num_scales(tensor: Any) -> int:  # noqa: ANN401 - the generated classes are untyped
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return 0 if scales is None else len(scales)


def _is_constant(tree: Any, tensor: Any) -> bool:  # noqa: ANN401 - the generated classes are untyped
    data = tree.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _peak_bytes(tree: Any, graph: Any) -> int:  # noqa: ANN401 - the generated classes are untyped
    """Give the most bytes that are alive at once.

    Inputs and variables are kept throughout, as the runtime's arena keeps them.
    """
    operators = list(graph.operators or ())
    last = len(operators)
    births: dict[int, int] = {}
    deaths: dict[int, int] = {}
    kept = {*_indices(graph.inputs)}
    kept |= {index for index, tensor in enumerate(graph.tensors) if tensor.isVariable}
    for step, operator in enumerate(operators):
        for index in (*_indices(operator.inputs), *_indices(operator.outputs)):
            births.setdefault(index, step)
            deaths[index] = step
    for index in _indices(graph.outputs):
        births.setdefault(index, 0)
        deaths[index] = last
    for index in kept:
        births[index], deaths[index] = 0, last
    changes = [0] * (last + 2)
    for index, birth in births.items():
        tensor = graph.tensors[index]
        if not _is_constant(tree, tensor):
            num_bytes = _tensor_bytes(tensor)
            changes[birth] += num_bytes
            changes[deaths[index] + 1] -= num_bytes
    peak = alive = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def _tensor_bytes(tensor: Any) -> int:  # noqa: ANN401 - the generated classes are untyped
    # A dimension the file leaves open stands as 1 or as it was when it was written.
    sizes = [max(1, int(size)) for size in (tensor.shape if tensor.shape is not None else ())]
    return math.ceil(math.prod(sizes) * _ITEM_BITS.get(dtype_name(tensor.type), 0) / 8)


def _indices(indices: Any) -> tuple[int, ...]:  # noqa: ANN401 - the generated classes are untyped
    """Give tensor indices without operands left out, which are -1."""
    return tuple(int(index) for index in (indices if indices is not None else ()) if index >= 0)
