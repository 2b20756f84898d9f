"""Control flow of an ONNX graph that follows from fixed shapes: branches taken, loops unrolled.

Runs inside a toolchain on its own interpreter.
"""

import numpy as np
import onnx
from onnx import numpy_helper

# Beyond, the unrolled graph is larger than any weights it holds.
_MOST_TRIPS = 256
_MOST_NODES = 20_000


def inline_constant_branches(model: onnx.ModelProto) -> int:
    """Put the branch of each `If` whose condition is constant in its place; tell how many."""
    constants = _constants(model.graph)
    nodes, count = [], 0
    for node in model.graph.node:
        condition = constants.get(node.input[0]) if node.op_type == "If" else None
        if condition is None or condition.size != 1:
            nodes.append(node)
            continue
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        body = next(each.g for each in node.attribute if each.name == wanted)
        count += 1
        nodes += _instantiate(model.graph, body, prefix=f"{node.output[0]}/", bound={},
                              outputs=list(node.output))  # fmt: skip
    _set_nodes(model.graph, nodes)
    return count


def unroll_loops(model: onnx.ModelProto) -> int:
    """Write out each `Loop` whose trips are constant and few; tell how many."""
    constants = _constants(model.graph)
    nodes, count = [], 0
    for node in model.graph.node:
        trips = _trips(node, constants) if node.op_type == "Loop" else None
        if trips is None:
            nodes.append(node)
            continue
        count += 1
        nodes += _unroll(model, node, trips)
    _set_nodes(model.graph, nodes)
    return count


def _trips(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> int | None:
    """Give how often a loop runs, when that is certain beforehand."""
    body = node.attribute[0].g
    limit = constants.get(node.input[0])
    start = constants.get(node.input[1]) if node.input[1] else np.ones(1, np.bool_)
    if limit is None or start is None or not bool(start.reshape(-1)[0]):
        return None
    trips = int(limit.reshape(-1)[0])
    if not 1 <= trips <= _MOST_TRIPS or trips * len(body.node) > _MOST_NODES:
        return None
    return trips if _always_goes_on(body) else None


def _always_goes_on(body: onnx.GraphProto) -> bool:
    """Tell whether a body's condition is handed through, or is a constant true."""
    name = body.output[0].name
    makers = {output: each for each in body.node for output in each.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    constants = _constants(body)
    return name in constants and bool(constants[name].reshape(-1)[0])


def _unroll(model: onnx.ModelProto, node: onnx.NodeProto, trips: int) -> list[onnx.NodeProto]:
    graph, body = model.graph, node.attribute[0].g
    carried = list(node.input[2:])
    num_carried = len(carried)
    scanned: list[list[str]] = [[] for _ in body.output[1 + num_carried :]]
    nodes: list[onnx.NodeProto] = []
    for trip in range(trips):
        prefix = f"{node.output[0]}/{trip}/"
        counter, condition = f"{prefix}trip", f"{prefix}condition"
        graph.initializer.append(numpy_helper.from_array(np.array(trip, np.int64), counter))
        graph.initializer.append(numpy_helper.from_array(np.ones((), np.bool_), condition))
        names = [each.name for each in body.input]
        bound = dict(zip(names, [counter, condition, *carried], strict=True))
        outputs = [f"{prefix}out{at}" for at in range(len(body.output))]
        nodes += _instantiate(graph, body, prefix=prefix, bound=bound, outputs=outputs)
        carried = outputs[1 : 1 + num_carried]
        for column, name in zip(scanned, outputs[1 + num_carried :], strict=True):
            column.append(name)
    for name, output in zip(carried, node.output, strict=False):
        if output:
            nodes.append(onnx.helper.make_node("Identity", [name], [output], name=output))
    axes = f"{node.output[0]}/axes"
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), axes))
    by_input = _opset(model) >= 13  # noqa: PLR2004 - Unsqueeze takes its axes as an input since
    for column, output in zip(scanned, node.output[num_carried:], strict=False):
        rows = [f"{name}/row" for name in column]
        for name, row in zip(column, rows, strict=True):
            unsqueeze = onnx.helper.make_node("Unsqueeze", [name], [row], name=row)
            if by_input:
                unsqueeze.input.append(axes)
            else:
                unsqueeze.attribute.append(onnx.helper.make_attribute("axes", [0]))
            nodes.append(unsqueeze)
        if output:
            nodes.append(onnx.helper.make_node("Concat", rows, [output], name=output, axis=0))
    return nodes


def _instantiate(
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


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _opset(model: onnx.ModelProto) -> int:
    return next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 1)
