"""How often a loop of an ONNX graph runs, where that is certain once shapes are fixed.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx_control import constants_of, opset_of  # type: ignore[import-not-found] # a sibling
from onnx_graph import (  # type: ignore[import-not-found]
    known_shapes,
    subgraphs,
    title_of,
    used_names,
)
from onnx_lowering import attribute_of  # type: ignore[import-not-found]
from onnx_runtime import open_session, run_session  # type: ignore[import-not-found]

# Of a graph whose loops are written out. onnx2tf 2.6.9 takes 9 ms of one core for each.
MOST_NODES = 8192
_RANDOM = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial",
})  # fmt: skip
_SCAN_WITHOUT_BATCH = 9  # before, its inputs had a batch dimension and lengths
_BY_VALUES = "depends on values, which are known only when the model runs"


@dataclass(frozen=True, kw_only=True)
class _Condition:
    """The part of a body that tells whether it runs again.

    Attributes:
        names: of all values in it.
        states: of those carried from trip to trip, with what they are at first.
        captured: of constants around the loop.
    """

    names: frozenset[str]
    states: Mapping[str, np.ndarray]
    captured: frozenset[str]


def count_trips(model: onnx.ModelProto, node: onnx.NodeProto) -> int | str:
    """Give how often a Loop or Scan runs, or why that is not certain beforehand.

    Above `MOST_NODES` trips it gives what bounds them, or `MOST_NODES` + 1.
    """
    if node.op_type == "Scan":
        if opset_of(model) < _SCAN_WITHOUT_BATCH:
            return f"Scan of opset {opset_of(model)} takes lengths of its own"
        lengths = [_length(model, node, name, at) for at, name in enumerate(scanned_inputs(node))]
        known = [each for each in lengths if each is not None]
        return known[0] if known else "the length of its sequences is not fixed"
    constants = constants_of(model.graph)
    limit = constants.get(node.input[0])
    start = constants.get(node.input[1]) if node.input[1] else np.ones(1, np.bool_)
    if start is None or (node.input[0] and limit is None):
        return f"how often it runs {_BY_VALUES}"
    most = MOST_NODES + 1 if limit is None else int(limit.reshape(-1)[0])
    if most <= 0 or not start.reshape(-1)[0]:
        return "it never runs, so that its rows are none" if used_rows(model.graph, node) else 0
    condition = _condition_of(node, constants)
    if isinstance(condition, str):
        return condition
    return _run_condition(model, node, condition, most)


def _condition_of(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> _Condition | str:
    """Take apart what a body's condition depends on; tell what of it is not certain."""
    body = body_of(node)
    counter, condition, *carried = [each.name for each in body.input]
    makers = {output: each for each in body.node for output in each.output}
    following = dict(zip(carried, [each.name for each in body.output][1:], strict=False))
    initial = dict(zip(carried, node.input[2:], strict=True))
    certain = {counter, condition, *(each.name for each in body.initializer)}
    pending, names, captured = [body.output[0].name], set(), set()
    while pending:
        name = pending.pop()
        if name in names or not name:
            continue
        names.add(name)
        maker = makers.get(name)
        if maker is not None:
            if maker.op_type in _RANDOM or any(True for _ in subgraphs(maker)):
                return f"its condition is computed by {title_of(maker)}"
            pending += maker.input
        elif initial.get(name) in constants:
            pending.append(following[name])
        elif name in constants and name not in initial:
            captured.add(name)
        elif name not in certain:
            return f"its condition {_BY_VALUES}"
    states = {name: constants[initial[name]] for name in carried if name in names}
    return _Condition(names=frozenset(names), states=states, captured=frozenset(captured))


def _run_condition(
    model: onnx.ModelProto, node: onnx.NodeProto, condition: _Condition, most: int
) -> int:
    """Run a condition until it says no, or as often as it may.

    tf2onnx writes the loops of Keras with conditions that count steps.
    """
    counter, going, *_ = [each.name for each in body_of(node).input]
    session = open_session(Path(node.name), _condition_model(model, node, condition))
    feeds = {going: np.array(True), **condition.states}
    for trip in range(min(most, MOST_NODES + 1)):
        goes_on, *after = run_session(session, feeds | {counter: np.array(trip)})
        feeds.update(zip(condition.states, after, strict=True))
        if not goes_on.reshape(-1)[0]:
            return trip + 1
    return most


def _condition_model(
    model: onnx.ModelProto, node: onnx.NodeProto, condition: _Condition
) -> onnx.ModelProto:
    """Give a condition, and the states it needs, as a model of its own."""
    body = body_of(node)
    carried = [each.name for each in body.input[2:]]
    results = [body.output[0].name]
    results += [body.output[1 + carried.index(name)].name for name in condition.states]
    nodes = [each for each in body.node if condition.names.intersection(each.output)]
    # What is handed through has no node to be the output of.
    given = [f"{node.name}/follows/{at}" for at in range(len(results))]
    for name, output in zip(results, given, strict=True):
        nodes.append(onnx.helper.make_node("Identity", [name], [output]))
    describe = onnx.helper.make_tensor_value_info
    inputs = [
        describe(body.input[0].name, onnx.TensorProto.INT64, []),
        describe(body.input[1].name, onnx.TensorProto.BOOL, []),
    ]
    for name, values in condition.states.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        inputs.append(describe(name, element, values.shape))
    outputs = [onnx.ValueInfoProto(name=name) for name in given]
    tensors = [each for each in body.initializer if each.name in condition.names]
    tensors += [each for each in model.graph.initializer if each.name in condition.captured]
    graph = onnx.helper.make_graph(nodes, "condition", inputs, outputs, tensors)
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def used_rows(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[str]:
    """Give the outputs of one row a trip that something reads."""
    used = {each.name for each in graph.output}
    used.update(name for each in graph.node for name in used_names(each))
    return [name for name in node.output[len(node.input) - 2 :] if name in used]


def body_of(node: onnx.NodeProto) -> onnx.GraphProto:
    """Give what a Loop or Scan repeats."""
    found: onnx.GraphProto = next(each.g for each in node.attribute if each.name == "body")
    return found


def scanned_inputs(node: onnx.NodeProto) -> list[str]:
    """Give the inputs a Scan takes row by row."""
    return list(node.input[-int(str(attribute_of(node, "num_scan_inputs", 0))) :])


def listed(node: onnx.NodeProto, name: str, at: int) -> int:
    """Give a number of a list attribute, 0 when the attribute is left out."""
    values = attribute_of(node, name, [])
    return int(values[at]) if isinstance(values, Sequence) and len(values) else 0


def _length(model: onnx.ModelProto, node: onnx.NodeProto, name: str, at: int) -> int | None:
    shape = known_shapes(model.graph).get(name)
    return None if not shape else shape[listed(node, "scan_input_axes", at)]
