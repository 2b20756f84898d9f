"""Branches of an ONNX graph that fixed shapes decide, and the nodes of bodies put in place.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from onnx import numpy_helper
from onnx_graph import known_shapes, title_of  # type: ignore[import-not-found]


def inline_constant_branches(model: onnx.ModelProto) -> int:
    """Put the branch of each `If` whose condition is constant in its place; tell how many."""
    constants = constants_of(model.graph)
    nodes, count = [], 0
    for node in model.graph.node:
        condition = constants.get(node.input[0]) if node.op_type == "If" else None
        if condition is None or condition.size != 1:
            nodes.append(node)
            continue
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        body = next(each.g for each in node.attribute if each.name == wanted)
        count += 1
        prefix = free_prefix(model.graph, node)
        nodes += instantiate(model.graph, body, prefix=prefix, bound={}, outputs=list(node.output))
    set_nodes(model.graph, nodes)
    return count


def select_branches(model: onnx.ModelProto) -> int:
    """Compute both branches of each open `If` and choose among their outputs; tell how many.

    onnx2tf 2.6.9 has a form for those around a non-maximum suppression only. Branches compute
    and do nothing else, so that both may.

    Raises:
        RefusedError: branches give other shapes, so that what is chosen has none.
    """
    nodes: list[onnx.NodeProto] = []
    pairs: list[tuple[onnx.NodeProto, str, str]] = []
    for node in model.graph.node:
        if node.op_type != "If":
            nodes.append(node)
            continue
        prefix = free_prefix(model.graph, node)
        for attribute in node.attribute:
            side = f"{prefix}{attribute.name}/"
            outputs = [f"{side}{at}" for at in range(len(node.output))]
            nodes += instantiate(
                model.graph, attribute.g, prefix=f"{side}in/", bound={}, outputs=outputs
            )
        # A condition of one row would give a scalar that row.
        condition, scalar = f"{prefix}condition", f"{prefix}scalar"
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.int64), scalar))
        nodes.append(
            onnx.helper.make_node("Reshape", [node.input[0], scalar], [condition], name=condition)
        )
        for at, output in enumerate(node.output):
            if not output:
                continue
            sides = f"{prefix}then_branch/{at}", f"{prefix}else_branch/{at}"
            pairs.append((node, *sides))
            nodes.append(onnx.helper.make_node("Where", [condition, *sides], [output], name=output))
    if pairs:
        set_nodes(model.graph, nodes)
        _check_branches(model, pairs)
    return len(pairs)


def _check_branches(
    model: onnx.ModelProto, pairs: Sequence[tuple[onnx.NodeProto, str, str]]
) -> None:
    shapes = known_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    faults = [
        f"{title_of(node)}: {shapes[ours]} or {shapes[theirs]}"
        for node, ours, theirs in pairs
        if ours in shapes and theirs in shapes and shapes[ours] != shapes[theirs]
    ]
    if faults:
        raise RefusedError(
            "model",
            "expected branches of the same shapes, as their conditions depend on values, which are "
            f"known only when the model runs, but {'; '.join(faults)}",
            "Export the model with a condition that follows from the shapes of its inputs, or "
            "with branches that give the same shapes.",
        )


def free_prefix(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """Give a beginning of names that none in a graph has: of what stands in a node's place.

    onnxsim gives what was inside the name of what was around it.
    """
    title = next((name for name in node.output if name), node.name)
    taken = [each.name for each in graph.initializer]
    taken += [name for each in graph.node for name in each.output]
    found = f"{title}/"
    while any(name.startswith(found) for name in taken):
        found += "in/"
    return found


def instantiate(
    graph: onnx.GraphProto,
    body: onnx.GraphProto,
    *,
    prefix: str,
    bound: dict[str, str],
    outputs: list[str],
) -> list[onnx.NodeProto]:
    """Give a body's nodes under names of their own, its constants put into the graph."""
    own = {name for node in body.node for name in node.output if name}
    own.update(each.name for each in body.initializer)
    names = {name: f"{prefix}{name}" for name in own} | bound
    for tensor in body.initializer:
        copied = graph.initializer.add()
        copied.CopyFrom(tensor)
        copied.name = names[tensor.name]
    nodes = []
    for node in body.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{prefix}{node.name}"
        _rename(copied, names)
        nodes.append(copied)
    for value, output in zip(body.output, outputs, strict=True):
        if output:
            name = names.get(value.name, value.name)
            nodes.append(onnx.helper.make_node("Identity", [name], [output], name=output))
    return nodes


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for side in (node.input, node.output):
        for at, name in enumerate(side):
            side[at] = names.get(name, name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            # What the inner graph names itself hides the outer name.
            inner = {each.name for each in (*attribute.g.input, *attribute.g.initializer)}
            inner.update(name for each in attribute.g.node for name in each.output)
            outer = {old: new for old, new in names.items() if old not in inner}
            for each in attribute.g.node:
                _rename(each, outer)
            for value in attribute.g.output:
                value.name = outer.get(value.name, value.name)


def constants_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Give the values of a graph's constants by name."""
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Give a graph other nodes."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def opset_of(model: onnx.ModelProto) -> int:
    """Give the opset of ONNX's own operations that a model is written in."""
    return next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 1)
