"""What a TFLite model is: how it stores numbers, and what it keeps between invocations.

Read from the ops and tensors of a tree, since nothing in a file says it outright: a model
"with float16 weights" is one whose weights pass a DEQUANTIZE before they are used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from edgepack.flatbuffer import decode_name, dtype_name, op_name


class Numerics(StrEnum):
    """How a model stores weights and computes activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    WEIGHT_ONLY = "weight_only"
    DYNAMIC_RANGE = "dynamic_range"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16X8 = "int16x8"
    FAKE_QUANT = "fake_quant"
    MIXED = "mixed"


class StateKind(StrEnum):
    """What a model keeps between invocations.

    `SEQUENCE` models see a whole sequence at each invocation and are reset before the next, as
    Keras does. `STREAM` models see one step at a time; their samples are one stream, in order.
    """

    NONE = "none"
    SEQUENCE = "sequence"
    STREAM = "stream"


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What a model is, as far as recipes and runners must know.

    Attributes:
        numerics: how it stores weights and computes activations.
        weight_dtypes: element types of its weights, sorted.
        state: what it keeps between invocations.
        is_sparse: whether a weight is stored sparsely.
        has_loop: whether it has WHILE or IF, whose insides are subgraphs of their own.
        custom_ops: names of ops outside the TFLite schema (TensorFlow's start with Flex).
        signatures: keys of all signatures, in the file's order.
        open_inputs: names of main-graph input tensors with dimensions left open.
        open_shapes: names of those that leave more open than their first, the batch.
    """

    numerics: Numerics = Numerics.FLOAT32
    weight_dtypes: tuple[str, ...] = ()
    state: StateKind = StateKind.NONE
    is_sparse: bool = False
    has_loop: bool = False
    custom_ops: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    open_inputs: tuple[str, ...] = ()
    open_shapes: tuple[str, ...] = ()


_CONVERSIONS: Final = frozenset({"QUANTIZE", "DEQUANTIZE", "FAKE_QUANT"})
# They hand tensors on as they are, or hold no tensors of numbers.
_NEUTRAL: Final = _CONVERSIONS | {
    *("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "CALL", "IF", "WHILE"),
    *("SHAPE", "RANK", "DENSIFY"),
}
_LOOPS: Final = frozenset({"IF", "WHILE", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
# Their time axis is inside the op, so each invocation is a whole sequence.
_SEQUENCE_OPS: Final = frozenset(
    {
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
    }
)
_INTEGERS: Final = {"int8": Numerics.INT8, "uint8": Numerics.UINT8, "int16": Numerics.INT16X8}
_NARROW: Final = frozenset({"int2", "int4", "uint4", "int8", "uint8", "int16"})
_REAL: Final = frozenset({"float32", "float64", "float16", "bfloat16"})


def read_traits(tree: Any) -> Traits:  # noqa: ANN401 - the generated classes are untyped
    """Read the traits of a tree; indices that lead nowhere raise what Python raises."""
    graphs = [_Graph(tree, graph) for graph in tree.subgraphs]
    # Other signatures' subgraphs are not run, and initializers only before the first run.
    idle = _initializers(tree) | {int(each.subgraphIndex) for each in tree.signatureDefs or ()}
    working = [graph for index, graph in enumerate(graphs) if index == 0 or index not in idle]
    dtypes = {dtype for graph in working for dtype in graph.weight_dtypes()}
    names = {name for graph in graphs for name, _ in graph.operators}
    main = tree.subgraphs[0]
    return Traits(
        numerics=_numerics(working),
        weight_dtypes=tuple(sorted(dtypes)),
        state=_state(working),
        is_sparse=any(tensor.sparsity is not None for g in graphs for tensor in g.tensors),
        has_loop=not _LOOPS.isdisjoint(names),
        custom_ops=tuple(sorted(_custom_ops(tree))),
        signatures=tuple(decode_name(each.signatureKey) for each in tree.signatureDefs or ()),
        open_inputs=tuple(
            decode_name(main.tensors[index].name)
            for index in main.inputs
            if _is_open(main.tensors[index])
        ),
        open_shapes=tuple(
            decode_name(main.tensors[index].name)
            for index in main.inputs
            if _is_open(main.tensors[index], first=1)
        ),
    )


class _Graph:
    """A subgraph with its tensors' types and producers at hand."""

    def __init__(self, tree: Any, graph: Any) -> None:  # noqa: ANN401 - the generated classes are untyped
        self.tensors = list(graph.tensors)
        self.operators = [(op_name(tree, each), each) for each in graph.operators or ()]
        self.dtypes = [dtype_name(tensor.type) for tensor in self.tensors]
        self._constant = [_has_data(tree.buffers[tensor.buffer]) for tensor in self.tensors]
        self._producer = {
            int(output): (name, operator)
            for name, operator in self.operators
            for output in _indices(operator.outputs)
        }
        # A weight stored sparsely is made dense once, when the model is loaded.
        for index, (name, _) in self._producer.items():
            self._constant[index] |= name == "DENSIFY"

    def kinds(self) -> Iterator[Numerics]:
        """Give how each op that computes with real numbers does it; float32 for a plain one."""
        for name, operator in self.operators:
            if name == "FAKE_QUANT":
                yield Numerics.FAKE_QUANT
            elif name not in _NEUTRAL:
                yield from self._kinds_of(operator)

    def _kinds_of(self, operator: Any) -> Iterator[Numerics]:  # noqa: ANN401 - see above
        inputs, outputs = list(_indices(operator.inputs)), list(_indices(operator.outputs))
        activations = [i for i in (*inputs, *outputs) if not self._constant[i]]
        # The inner state of an LSTM has another type than what flows (int16 beside int8).
        flowing = [i for i in activations if not self.tensors[i].isVariable]
        kinds = {_INTEGERS[self.dtypes[i]] for i in flowing if self._is_integer(i)}
        if kinds:
            yield from kinds
            return
        if not any(self.dtypes[i] in _REAL for i in activations):
            return
        origins = {self._origin(i) for i in inputs} - {Numerics.FLOAT32}
        yield from origins or {Numerics.FLOAT32}

    def _is_integer(self, index: int) -> bool:
        """Tell whether an activation's integers stand for real numbers."""
        return self.dtypes[index] in _INTEGERS and _is_scaled(self.tensors[index])

    def _origin(self, index: int) -> Numerics:
        """Tell how the values of an operand of a float op are stored, if not in float32."""
        dtype = self.dtypes[index]
        if dtype == "float16":
            return Numerics.FLOAT16
        if self._constant[index] and dtype in _NARROW and _is_scaled(self.tensors[index]):
            return Numerics.DYNAMIC_RANGE  # the op itself computes with integer weights
        name, operator = self._producer.get(index, ("", None))
        if name != "DEQUANTIZE" or operator is None:
            return Numerics.FLOAT32
        (before, *_) = _indices(operator.inputs)
        if self._constant[before]:
            narrow = self.dtypes[before] == "float16"
            return Numerics.FLOAT16 if narrow else Numerics.WEIGHT_ONLY
        # Quantized only to be dequantized again: training's stand-in for quantization.
        if self._producer.get(before, ("", None))[0] == "QUANTIZE":
            return Numerics.FAKE_QUANT
        return Numerics.FLOAT32  # what a quantized op gave: that op says how

    def weight_dtypes(self) -> Iterator[str]:
        """Give the element types of constants that are real numbers."""
        for dtype, constant, tensor in zip(self.dtypes, self._constant, self.tensors, strict=True):
            if constant and (dtype in _REAL or (dtype in _NARROW and _is_scaled(tensor))):
                yield dtype

    def state(self) -> Iterator[StateKind]:
        """Give the kind of state each op keeps that keeps any."""
        for name, operator in self.operators:
            if name == "ASSIGN_VARIABLE":
                yield StateKind.STREAM
            elif any(self.tensors[index].isVariable for index in _indices(operator.inputs)):
                yield StateKind.SEQUENCE if name in _SEQUENCE_OPS else StateKind.STREAM


def _numerics(graphs: list[_Graph]) -> Numerics:
    kinds = {kind for graph in graphs for kind in graph.kinds()}
    if kinds.isdisjoint(_INTEGERS.values()):
        # Ops without weights stay in float beside those with float16 or integer weights.
        kinds.discard(Numerics.FLOAT32)
    if len(kinds) > 1:
        return Numerics.MIXED
    return kinds.pop() if kinds else Numerics.FLOAT32


def _state(graphs: list[_Graph]) -> StateKind:
    kinds = {kind for graph in graphs for kind in graph.state()}
    if StateKind.STREAM in kinds:
        return StateKind.STREAM
    return StateKind.SEQUENCE if kinds else StateKind.NONE


def _initializers(tree: Any) -> set[int]:  # noqa: ANN401 - the generated classes are untyped
    """Give the subgraphs that CALL_ONCE runs: they only set variables to their first values."""
    return {
        int(operator.builtinOptions.initSubgraphIndex)
        for graph in tree.subgraphs
        for operator in graph.operators or ()
        if op_name(tree, operator) == "CALL_ONCE"
    }


def _custom_ops(tree: Any) -> set[str]:  # noqa: ANN401 - the generated classes are untyped
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    return {
        op_name(tree, operator)
        for graph in tree.subgraphs
        for operator in graph.operators or ()
        if tree.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CUSTOM
    }


def _is_open(tensor: Any, *, first: int = 0) -> bool:  # noqa: ANN401 - the generated classes are untyped
    """Tell whether a dimension is left open, from the given one on."""
    signature = tensor.shapeSignature
    return signature is not None and bool(np.any(np.asarray(signature)[first:] < 0))


def _is_scaled(tensor: Any) -> bool:  # noqa: ANN401 - the generated classes are untyped
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return scales is not None and len(scales) > 0


def _has_data(buffer: Any) -> bool:  # noqa: ANN401 - the generated classes are untyped
    return buffer.data is not None and len(buffer.data) > 0


def _indices(indices: Any) -> Iterator[int]:  # noqa: ANN401 - the generated classes are untyped
    """Give an operator's tensor indices without operands left out, which are -1."""
    return (int(index) for index in (indices if indices is not None else ()) if index >= 0)
