"""Writing a prepared ONNX model in another opset, for converters that get its own wrong.

Runs inside a toolchain on its own interpreter. onnx's own version converter has no adapters
for Pad and others (1.20.1), and so gives up on half of all models.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import inliner, numpy_helper
from onnx_graph import known_shapes, subgraphs  # type: ignore[import-not-found] # siblings
from onnx_lowering import attribute_of  # type: ignore[import-not-found]

# onnx-tf 1.10.0 knows all ops of opset 12 and some of the newer ones; onnx 1.14.1 beside it
# reads IR 9 at most.
OPSET, _IR = 12, 8
_NOTHING = "edgepack/nothing"
_FIRST_RAISED, _RESIZE = 7, 10
# Ops whose axes (or sizes) became an input after that.
_AXES_AS_INPUT = frozenset({
    "Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
})  # fmt: skip


def raise_upsample(model: onnx.ModelProto) -> bool:
    """Write a model of opset 7 to 9 that upsamples in opset 10; tell whether it was one.

    onnx2tf 2.6.9 through TensorFlow gives other values for Upsample than for the Resize that
    replaced it (4 dB).
    """
    graph = model.graph
    declared = next(each for each in model.opset_import if each.domain in {"", "ai.onnx"})
    ops = {node.op_type for node in graph.node}
    if (
        not _FIRST_RAISED <= declared.version < _RESIZE
        or "Upsample" not in ops
        or any(True for node in graph.node for _ in subgraphs(node))
    ):
        return False
    declared.version = _RESIZE
    for node in graph.node:
        if node.op_type == "Upsample":
            node.op_type = "Resize"
            _attributes_to_inputs(graph, node, {"scales": np.float32})
        elif node.op_type == "Slice":
            if attribute_of(node, "axes", None) is None:
                num_axes = len(np.atleast_1d(np.array(attribute_of(node, "starts", []))))
                _set(node, "axes", list(range(num_axes)))
            _attributes_to_inputs(graph, node, dict.fromkeys(("starts", "ends", "axes"), np.int64))
        elif node.op_type == "TopK":
            _attributes_to_inputs(graph, node, {"k": np.int64})
    return True


def _attributes_to_inputs(
    graph: onnx.GraphProto, node: onnx.NodeProto, kinds: Mapping[str, type[np.generic]]
) -> None:
    """Make inputs, in this order, of attributes that a node has."""
    for name, kind in kinds.items():
        values = attribute_of(node, name, None)
        if values is None:
            continue
        constant = f"{node.output[0]}/{name}"
        array = np.array(values, kind).reshape(-1)
        graph.initializer.append(numpy_helper.from_array(array, constant))
        node.input.append(constant)
    kept = [each for each in node.attribute if each.name not in kinds]
    del node.attribute[:]
    node.attribute.extend(kept)


def expand_newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write ops that the old opset does not have as the ops ONNX itself defines them by."""
    newer = {
        node.op_type
        for node in model.graph.node
        if not node.domain and _schema(node.op_type) is None
    }
    if not newer:
        return model
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    typed.graph.value_info.extend(  # the inliner (1.20.1) looks nowhere else
        onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in model.graph.initializer
    )
    expanded: onnx.ModelProto = inliner.inline_selected_functions(
        typed, [("", op) for op in sorted(newer)], inline_schema_functions=True
    )
    return expanded


def declare_old(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy in the old opset: inputs that were attributes become them again.

    What means something else there is left to the converter, and to the parity check.
    """
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    lowered.ir_version = min(lowered.ir_version, _IR)
    declared = next(each for each in lowered.opset_import if each.domain in {"", "ai.onnx"})
    if declared.version <= OPSET:
        return lowered
    declared.version = OPSET
    graph = lowered.graph
    constants = {each.name: each for each in graph.initializer}
    shapes = known_shapes(graph)
    if any(node.op_type == "Resize" and "" in node.input for node in graph.node):
        graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), _NOTHING))
    nodes = [new for node in graph.node for new in _rewritten(node, constants, shapes)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return lowered


def _rewritten(
    node: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    shapes: dict[str, tuple[int, ...]],
) -> Iterator[onnx.NodeProto]:
    if node.op_type in _AXES_AS_INPUT and len(node.input) > 1 and node.input[1] in constants:
        _input_to_attribute(node, "axes", constants)
    if node.op_type == "Split":
        if len(node.input) > 1 and node.input[1] in constants:
            _input_to_attribute(node, "split", constants)
        elif attribute_of(node, "num_outputs", None) is not None:
            axis = int(str(attribute_of(node, "axis", 0)))
            whole = shapes[node.input[0]][axis]
            share = -(-whole // len(node.output))
            sizes = [share] * (len(node.output) - 1)
            _set(node, "split", [*sizes, whole - sum(sizes)])
    if node.op_type == "Resize":  # its region and scales were not optional, but could be empty
        for at, name in enumerate(node.input):
            node.input[at] = name or _NOTHING
    rank = len(shapes.get(next(iter(node.input), ""), ()))
    axis = int(str(attribute_of(node, "axis", -1)))
    _drop_unknown(node)
    if node.op_type not in {"Softmax", "LogSoftmax"} or not rank:
        yield node
        return
    _set(node, "axis", rank - 1)
    if axis % rank == rank - 1:
        yield node
        return
    # The older Softmax is over all axes from `axis` on: turn the one that is meant to the end.
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    source, output = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{output}/turned", f"{output}/done"
    yield onnx.helper.make_node(
        "Transpose", [source], [f"{output}/turned"], name=f"{node.name}/turn", perm=order
    )
    yield node
    yield onnx.helper.make_node(
        "Transpose", [f"{output}/done"], [output], name=f"{node.name}/back", perm=order
    )


def _input_to_attribute(
    node: onnx.NodeProto, name: str, constants: dict[str, onnx.TensorProto]
) -> None:
    values = numpy_helper.to_array(constants[node.input[1]]).reshape(-1)
    del node.input[1:]
    _set(node, name, [int(each) for each in values])


def _set(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def _drop_unknown(node: onnx.NodeProto) -> None:
    """Take away attributes the old form does not have."""
    schema = _schema(node.op_type)
    if schema is not None:
        kept = [each for each in node.attribute if each.name in schema.attributes]
        del node.attribute[:]
        node.attribute.extend(kept)


def _schema(op: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, OPSET)
    except onnx.defs.SchemaError:  # it is newer
        return None
