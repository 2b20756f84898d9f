"""Load a frozen graph: a GraphDef of TensorFlow, whose weights are constants."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from flat_source import LOAD_ERRORS, MOST_SHOWN, Source  # type: ignore[import-not-found]
from unsafe_ops import checkpoint_ops, dangerous_ops, refuse_graph  # type: ignore[import-not-found]

_PLACEHOLDER = "Placeholder"
_VARIABLE = re.compile(r"Variable(?:V2)?|VarHandleOp|HashTable(?:V2)?")
# What nobody consumes and yet is no answer.
_NO_OUTPUT = frozenset({"NoOp", "Assert", "Const", "Placeholder", "PrintV2", "Print"})
_FORM = "--signature 'IN1,IN2->OUT1,OUT2'"


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Where a graph begins and ends: names of nodes, or of tensors as `node:1`."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def load_frozen_graph(path: Path, wish: str | None, *, trust: bool) -> Source:
    """Load a GraphDef between its placeholders and the nodes that nobody consumes.

    Args:
        path: the `.pb` file.
        wish: `in1,in2->out1` for other ends; either side may be left out.
        trust: let it hold operations that reach outside.
    """
    graph_def = read_graph(path)
    if not trust:
        refuse_graph(path.name, dangerous_ops(graph_def))
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
    except LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"{path.name}: TensorFlow cannot load this graph: {first_line(error)}",
            "Freeze the model again with the TensorFlow that made it.",
        ) from error
    ends = choose_ends(path, graph, wish)
    between = cut_out(graph_def, graph, ends)
    refuse_variables(path, between)
    if not trust:
        refuse_graph(path.name, checkpoint_ops(between))
    inputs = [_tensor(path, graph, name) for name in ends.inputs]

    def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
        results = tf.graph_util.import_graph_def(
            between,
            input_map={
                f"{name}:0": value for name, value in zip(ends.inputs, tensors, strict=True)
            },
            return_elements=[name if ":" in name else f"{name}:0" for name in ends.outputs],
            name="model",
        )
        return list(results)

    return Source(
        call=call,
        inputs=[
            (name, None if each.shape.rank is None else tuple(each.shape.as_list()), each.dtype)
            for name, each in zip(ends.inputs, inputs, strict=True)
        ],
        output_names=list(ends.outputs),
        held=graph,
    )


def read_graph(path: Path) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Read a GraphDef without running any of it."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only for graphs

    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise RefusedError(
            "model",
            f"{path.name}: expected a TensorFlow GraphDef, but parsing it failed: "
            f"{first_line(error)}",
            "Copy or freeze the model again and compare its checksum.",
        ) from error
    return graph_def


def cut_out(graph_def: Any, graph: Any, ends: Ends) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Give the part of a GraphDef between its ends, which begins with placeholders."""
    kept = _needed(graph, ends.outputs, stops=frozenset(ends.inputs))
    part = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.name not in kept:
            continue
        if node.name in ends.inputs and node.op != _PLACEHOLDER:
            tensor = graph.get_tensor_by_name(f"{node.name}:0")
            node = tf.compat.v1.NodeDef(name=node.name, op=_PLACEHOLDER)  # noqa: PLW2901 - in its place
            node.attr["dtype"].type = tensor.dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
        part.node.append(node)
    return part


def refuse_variables(path: Path, graph_def: Any) -> None:  # noqa: ANN401 - TensorFlow is untyped
    """Refuse a graph whose weights are not in it."""
    found = [node.name for node in graph_def.node if _VARIABLE.fullmatch(node.op)]
    if found:
        shown = ", ".join(found[:MOST_SHOWN])
        raise RefusedError(
            "model",
            f"{path.name}: expected a frozen graph, whose weights are constants, but it has "
            f"{len(found)} variables without values: {shown}",
            "Freeze it with convert_variables_to_constants_v2 of the function that runs the "
            "model, or save it as a SavedModel and give that folder.",
        )


def choose_ends(path: Path, graph: Any, wish: str | None) -> Ends:  # noqa: ANN401
    """Give the inputs and outputs the user asks for, or those the graph itself tells."""
    wanted = parse_wish(wish)
    outputs = wanted.outputs or _last(graph)
    for name in (*wanted.inputs, *outputs):
        _tensor(path, graph, name)
    needed = _needed(graph, outputs, stops=frozenset(wanted.inputs))
    placeholders = tuple(
        each.name
        for each in graph.get_operations()
        if each.type == _PLACEHOLDER and each.name in needed
    )
    missing = [name for name in placeholders if name not in wanted.inputs]
    if wanted.inputs and missing:
        raise RefusedError(
            "model",
            f"{path.name}: the outputs {', '.join(outputs)} also need {', '.join(missing)}",
            f"Name every input: {_FORM}.",
        )
    inputs = wanted.inputs or placeholders
    if not inputs or not outputs:
        raise RefusedError(
            "model",
            f"{path.name}: expected a graph with placeholders and with a node that nobody "
            f"consumes, but it has {len(inputs)} inputs and {len(outputs)} outputs",
            f"Name the nodes between which the model lies: {_FORM}.",
        )
    return Ends(inputs=inputs, outputs=outputs)


def parse_wish(text: str | None) -> Ends:
    """Read `in1,in2->out1,out2`; either side may be empty."""
    if text is None:
        return Ends(inputs=(), outputs=())
    left, arrow, right = text.partition("->")
    sides = [
        tuple(part.strip() for part in side.split(",") if part.strip()) for side in (left, right)
    ]
    doubled = [name for side in sides for name in side if side.count(name) > 1]
    if not arrow or not any(sides) or doubled or ":" in left:
        raise RefusedError(
            "model",
            f"--signature {text}: expected the names of the graph's input and output nodes, "
            "each once, with '->' between them",
            f"Write {_FORM}; leave a side empty to keep what the graph itself tells.",
        )
    return Ends(inputs=sides[0], outputs=sides[1])


def _last(graph: Any) -> tuple[str, ...]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the tensors that depend on a placeholder and that nobody consumes."""
    reached: set[str] = set()
    last: list[str] = []
    for operation in graph.get_operations():
        if operation.type != _PLACEHOLDER and not any(
            each.op.name in reached for each in operation.inputs
        ):
            continue
        reached.add(operation.name)
        if operation.type in _NO_OUTPUT or any(each.consumers() for each in operation.outputs):
            continue
        last.extend(str(each.name).removesuffix(":0") for each in operation.outputs)
    return tuple(last)


def _needed(graph: Any, outputs: Sequence[str], *, stops: frozenset[str]) -> set[str]:  # noqa: ANN401
    """Give the names of the nodes the outputs rest on, without looking behind the stops."""
    seen: set[str] = set()
    waiting = [graph.get_operation_by_name(_operation_name(name)) for name in outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        if operation.name not in stops:
            waiting.extend([*(each.op for each in operation.inputs), *operation.control_inputs])
    return seen


def _tensor(path: Path, graph: Any, name: str) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        last = [each.name for each in graph.get_operations() if each.type != "Const"]
        raise RefusedError(
            "model",
            f"{path.name}: --signature names {name}, but the graph has no such node with an "
            f"output; its last ones are {', '.join(last[-MOST_SHOWN:])}",
            f"Write names of nodes that the graph has: {_FORM}.",
        ) from error


def _operation_name(name: str) -> str:
    return name.split(":", maxsplit=1)[0]
