"""Variables that a model changes: from memory of the graph to inputs and outputs.

A stateful layer keeps what it remembers in a variable. As an input and an output the state
is in the caller's hands, and no runtime needs kernels for variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)

_READ = "ReadVariableOp"
_RESOURCE = tf.resource.as_datatype_enum
# What an assignment computes of the variable and the value given.
_ASSIGNMENTS = {
    "AssignVariableOp": None,
    "AssignAddVariableOp": "AddV2",
    "AssignSubVariableOp": "Sub",
}


@dataclass(frozen=True, kw_only=True)
class State:
    """A variable that the model changes.

    Attributes:
        variable: holds the values while the source itself runs.
        placeholder: name of the node that stands for it in the graph.
        assignment: name of the node that gives its next values.
    """

    variable: Any
    placeholder: str
    assignment: str


def changes_variables(graph_def: Any) -> bool:  # noqa: ANN401 - TensorFlow is untyped
    """Tell whether a graph assigns any variable."""
    functions = graph_def.library.function
    nodes = [*graph_def.node, *(node for each in functions for node in each.node_def)]
    return any(node.op in _ASSIGNMENTS for node in nodes)


def find_states(concrete: Any, graph_def: Any) -> list[State]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the variables that a traced function assigns, in the order of its variables.

    Args:
        concrete: the function.
        graph_def: its graph, calls inlined.

    Raises:
        RefusedError: a variable is assigned where it cannot be followed.
    """
    captured = {
        inner.op.name: outer
        for outer, inner in concrete.graph.captures
        if outer.dtype == tf.resource
    }
    variables = {
        name: variable
        for name, handle in captured.items()
        for variable in concrete.graph.variables
        if variable.handle is handle
    }
    nodes = {node.name: node for node in graph_def.node}
    assigned: dict[str, list[str]] = {}
    lost = [
        f"{function.signature.name}/{node.name}"
        for function in graph_def.library.function
        for node in function.node_def
        if node.op in _ASSIGNMENTS
    ]
    for node in graph_def.node:
        if node.op in _ASSIGNMENTS:
            holder = resolve(nodes, node.input[0])
            if holder in variables:
                assigned.setdefault(holder, []).append(node.name)
            else:
                lost.append(node.name)
    lost += [name for names in assigned.values() if len(names) > 1 for name in names]
    if lost:
        raise RefusedError(
            "model",
            "expected variables that are changed once in a call at most, but these are changed in "
            f"a loop or several times: {', '.join(sorted(lost)[:10])}",
            "Export the model with its state as inputs and outputs.",
        )
    return [
        State(variable=variable, placeholder=name, assignment=assigned[name][0])
        for name, variable in variables.items()
        if name in assigned
    ]


def expose_states(graph_def: Any, states: Sequence[State]) -> None:  # noqa: ANN401
    """Turn the variables' reads and assignments into plain values, in place."""
    nodes = {node.name: node for node in graph_def.node}
    by_placeholder = {state.placeholder: state for state in states}
    for node in list(graph_def.node):
        holder = resolve(nodes, node.input[0]) if node.input else ""
        state = by_placeholder.get(holder)
        if state is None:
            continue
        controls = [name for name in node.input if name.startswith("^")]
        dtype = state.variable.dtype.as_datatype_enum
        if node.op == _READ:
            is_after = _depends(nodes, node.name, state.assignment)
            replace_node(
                node, "Identity", [state.assignment if is_after else holder, *controls], T=dtype
            )
        elif node.op == "Identity" and node.attr["T"].type == _RESOURCE:  # around inlined calls
            node.attr["T"].type = dtype
        elif node.op in _ASSIGNMENTS:
            operation = _ASSIGNMENTS[node.op]
            given = [node.input[1], *controls]
            if operation is not None:
                given.insert(0, holder)
            replace_node(node, operation or "Identity", given, T=dtype)
    for state in states:
        node = nodes[state.placeholder]
        replace_node(node, "Placeholder", [], dtype=state.variable.dtype.as_datatype_enum)
        node.attr["shape"].shape.CopyFrom(state.variable.shape.as_proto())


def replace_node(node: Any, operation: str, inputs: Sequence[str], **types: int) -> None:  # noqa: ANN401
    """Make another operation of a node, under its name."""
    node.op = operation
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    for name, value in types.items():
        node.attr[name].type = value


def resolve(nodes: dict[str, Any], name: str) -> str:
    """Give the node that a tensor comes from, behind identities."""
    name = name.split(":", maxsplit=1)[0]
    while name in nodes and nodes[name].op == "Identity":
        name = nodes[name].input[0].split(":", maxsplit=1)[0]
    return name


def _depends(nodes: dict[str, Any], name: str, on: str) -> bool:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each == on:
            return True
        if each not in seen and each in nodes:
            seen.add(each)
            waiting.extend(
                given.removeprefix("^").split(":", maxsplit=1)[0] for given in nodes[each].input
            )
    return False
