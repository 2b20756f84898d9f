"""Editing a TFLite graph: new tensors, constants and ops at its inputs and outputs.

The functions change the tree they are given (`edgepack.flatbuffer`). What they add has
version 1 of its op, which tflite-runtime 2.11 has too.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import decode_name, op_name

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_OPERANDS: Final = ("inputs", "outputs", "intermediates")
_TYPES: Final = {"float32": 0, "int32": 2, "uint8": 3}  # TensorType of schema.fbs


def new_tensor(tree: Tree, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Add an empty tensor to the main graph and give its index; its name is made unique."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    graph = tree.subgraphs[0]
    buffer = schema.BufferT()
    tree.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name = unique_name(tree, name)
    tensor.shape = list(shape)
    tensor.type = _TYPES[dtype]
    tensor.buffer = len(tree.buffers) - 1
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def new_constant(tree: Tree, name: str, values: NDArray[Any]) -> int:
    """Add a constant of float32 or int32 to the main graph and give its index."""
    index = new_tensor(tree, name, values.shape, str(values.dtype))
    set_constant(tree, index, values)
    return index


def set_constant(tree: Tree, index: int, values: NDArray[Any]) -> None:
    """Give a constant tensor other values of its shape, in a buffer that it shares with none."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    tensor = tree.subgraphs[0].tensors[index]
    users = [int(each.buffer) for graph in tree.subgraphs for each in graph.tensors]
    users += [0, *(int(entry.buffer) for entry in tree.metadata or ())]
    if users.count(int(tensor.buffer)) > 1:
        tree.buffers.append(schema.BufferT())
        tensor.buffer = len(tree.buffers) - 1
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    tree.buffers[tensor.buffer].data = np.frombuffer(little.tobytes(), dtype=np.uint8)


def read_constant(tree: Tree, index: int) -> NDArray[np.float32] | None:
    """Give the values of a constant float32 tensor; None for any other."""
    tensor = tree.subgraphs[0].tensors[index]
    data = tree.buffers[tensor.buffer].data
    if tensor.type != _TYPES["float32"] or data is None or not len(data):
        return None
    values = np.frombuffer(bytes(data), dtype="<f4")
    shape = tensor_shape(tensor)
    return values.reshape(shape).astype(np.float32) if values.size == np.prod(shape) else None


def read_integers(tree: Tree, index: int) -> tuple[int, ...] | None:
    """Give the values of a constant int32 tensor; None for any other."""
    tensor = tree.subgraphs[0].tensors[index]
    data = tree.buffers[tensor.buffer].data
    if tensor.type != _TYPES["int32"] or data is None or not len(data):
        return None
    return tuple(int(value) for value in np.frombuffer(bytes(data), dtype="<i4"))


def tensor_shape(tensor: Any) -> tuple[int, ...]:  # noqa: ANN401 - see `Tree`
    """Give a tensor's dimensions."""
    return tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))


def make_op(
    tree: Tree,
    name: str,
    inputs: list[int],
    outputs: list[int],
    *,
    options: tuple[str, dict[str, Any]] | None = None,
) -> Any:  # noqa: ANN401 - see `Tree`
    """Make an op of the main graph; the caller puts it in its place.

    Args:
        tree: the model.
        name: as the schema spells it.
        inputs: tensor indices.
        outputs: likewise.
        options: class of the op's options without `T`, and their values.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(tree, name)
    operator.inputs = inputs
    operator.outputs = outputs
    if options is not None:
        kind, values = options
        table = getattr(schema, f"{kind}T")()
        for key, value in values.items():
            setattr(table, key, value)
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = table
    return operator


def _opcode(tree: Tree, name: str) -> int:
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    builtin = int(getattr(schema.BuiltinOperator, name))
    for index, code in enumerate(tree.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version == 1:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = 1
    tree.operatorCodes.append(code)
    return len(tree.operatorCodes) - 1


def unique_name(tree: Tree, name: str) -> str:
    """Give a name that no tensor of the main graph has: the calibrator tells them by it."""
    taken = {decode_name(tensor.name) for tensor in tree.subgraphs[0].tensors}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def readers(tree: Tree, index: int) -> list[Any]:
    """Give the ops of the main graph that read a tensor."""
    return [each for each in tree.subgraphs[0].operators if index in [int(i) for i in each.inputs]]


def writer(tree: Tree, index: int) -> Any:  # noqa: ANN401 - see `Tree`
    """Give the op of the main graph that writes a tensor; None when there is none."""
    for operator in tree.subgraphs[0].operators:
        if index in [int(i) for i in operator.outputs]:
            return operator
    return None


def name_of(tree: Tree, operator: Any) -> str:  # noqa: ANN401 - see `Tree`
    """Give an op's name; empty for none."""
    return "" if operator is None else op_name(tree, operator)


def replace_interface(tree: Tree, side: str, old: int, new: int) -> None:
    """Make another tensor an input or output, under the old one's name in the signature.

    The interface's tensor keeps its name, and the inner one gets another.
    """
    graph = tree.subgraphs[0]
    name = decode_name(graph.tensors[old].name)
    graph.tensors[old].name = unique_name(tree, f"{name}_inner")
    graph.tensors[new].name = name
    indices = [int(i) for i in getattr(graph, side)]
    setattr(graph, side, [new if i == old else i for i in indices])
    for definition in tree.signatureDefs or ():
        if definition.subgraphIndex == 0:
            for entry in getattr(definition, side) or ():
                if entry.tensorIndex == old:
                    entry.tensorIndex = new


def drop_unused(tree: Tree) -> None:
    """Take out tensors of the main graph that nothing reads or writes, and unread data.

    The calibrator reads every tensor, and fails at one that was never filled.
    """
    graph = tree.subgraphs[0]
    used = {int(i) for i in (*graph.inputs, *graph.outputs)}
    used |= {int(i) for each in graph.operators for group in _operands(each) for i in group}
    kept = [index for index in range(len(graph.tensors)) if index in used]
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs = [place[int(i)] for i in graph.inputs]
    graph.outputs = [place[int(i)] for i in graph.outputs]
    for operator in graph.operators:
        for key, group in zip(_OPERANDS, _operands(operator), strict=True):
            setattr(operator, key, [place[int(i)] for i in group])
    for definition in tree.signatureDefs or ():
        if definition.subgraphIndex == 0:
            for entry in (*(definition.inputs or ()), *(definition.outputs or ())):
                entry.tensorIndex = place[int(entry.tensorIndex)]
    read = {int(tensor.buffer) for each in tree.subgraphs for tensor in each.tensors}
    read |= {int(entry.buffer) for entry in tree.metadata or ()}
    for index, buffer in enumerate(tree.buffers):
        if index not in read:
            buffer.data = None


def _operands(operator: Any) -> list[Any]:  # noqa: ANN401 - see `Tree`
    groups = (getattr(operator, key) for key in _OPERANDS)
    return [group if group is not None else () for group in groups]
