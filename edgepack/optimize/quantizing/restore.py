"""Float16 weights made float32 again: each DEQUANTIZE of a constant is folded into it.

Every float16 number is a float32 number, so nothing is lost and the answers are the same. The
quantizer needs it: it does not look behind a DEQUANTIZE (ai-edge-quantizer 0.10).
"""

from typing import Any

import numpy as np

from edgepack.errors import OptimizeError
from edgepack.flatbuffer import dtype_name, op_name, read_flatbuffer, write_flatbuffer
from edgepack.model import Model, read_model
from edgepack.traits import Numerics


def restore_float32(model: Model) -> Model:
    """Give a model with float16 weights as the float32 model that answers the same.

    Raises:
        OptimizeError: it computes in float16 too, or holds other numbers than float16.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    tree = read_flatbuffer(model.data)
    for graph in tree.subgraphs:
        _fold(tree, graph, schema)
    restored = read_model(write_flatbuffer(tree))
    if restored.traits.numerics is not Numerics.FLOAT32:
        raise OptimizeError(
            "expected float16 weights that are made float32 before they are used, but "
            f"{restored.traits.numerics.value} numbers are left",
            remedy="Give the float32 model it was made from, or pack it with --recipe as_is.",
        )
    return restored


def _fold(tree: Any, graph: Any, schema: Any) -> None:  # noqa: ANN401 - the generated classes are untyped
    """Make each weight behind a DEQUANTIZE the constant that its users read, and drop the op."""
    outputs = {int(index) for index in graph.outputs}
    replaced: dict[int, int] = {}
    for operator in list(graph.operators or ()):
        if op_name(tree, operator) != "DEQUANTIZE":
            continue
        weight, result = int(operator.inputs[0]), int(operator.outputs[0])
        tensor = graph.tensors[weight]
        data = tree.buffers[tensor.buffer].data
        constant = data is not None and len(data) > 0
        if dtype_name(tensor.type) == "float16" and constant and result not in outputs:
            replaced[result] = weight
            graph.operators.remove(operator)
    for operator in graph.operators or ():
        operator.inputs = [replaced.get(int(index), int(index)) for index in operator.inputs]
    for weight in sorted(set(replaced.values())):
        tensor = graph.tensors[weight]
        if dtype_name(tensor.type) == "float32":  # two operators had one weight
            continue
        values = np.frombuffer(bytes(tree.buffers[tensor.buffer].data), dtype="<f2")
        # A buffer may serve several tensors, of which another may stay in float16.
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.astype("<f4").tobytes(), dtype=np.uint8)
        tree.buffers.append(buffer)
        tensor.buffer = len(tree.buffers) - 1
        tensor.type = schema.TensorType.FLOAT32
    _drop_tensors(tree, graph, set(replaced))
    _empty_unused(tree)


def _drop_tensors(tree: Any, graph: Any, dropped: set[int]) -> None:  # noqa: ANN401 - see above
    """Remove tensors nobody reads any more, and number the others anew."""
    kept = [index for index in range(len(graph.tensors)) if index not in dropped]
    moved = {index: position for position, index in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs = [moved[int(index)] for index in graph.inputs]
    graph.outputs = [moved[int(index)] for index in graph.outputs]
    for operator in graph.operators or ():
        operator.inputs = [moved[int(index)] for index in operator.inputs]
        operator.outputs = [moved[int(index)] for index in operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = [moved[int(index)] for index in operator.intermediates]
    for definition in tree.signatureDefs or ():
        if tree.subgraphs[definition.subgraphIndex] is graph:
            for entry in (*(definition.inputs or ()), *(definition.outputs or ())):
                entry.tensorIndex = moved[int(entry.tensorIndex)]


def _empty_unused(tree: Any) -> None:  # noqa: ANN401 - the generated classes are untyped
    """Empty the buffers no tensor and no metadata has; buffer 0 is empty by the schema."""
    used = {int(tensor.buffer) for graph in tree.subgraphs for tensor in graph.tensors}
    used |= {int(each.buffer) for each in tree.metadata or ()}
    used |= {
        int(index) for index in (tree.metadataBuffer if tree.metadataBuffer is not None else ())
    }
    for index, buffer in enumerate(tree.buffers):
        if index not in used:
            buffer.data = None
