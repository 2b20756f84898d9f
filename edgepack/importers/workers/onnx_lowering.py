"""ONNX operations that converters get wrong, written as operations they get right.

Runs inside a toolchain on its own interpreter. Each rewrite is exact, and there because of a
converter's measured error.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_graph import known_shapes  # type: ignore[import-not-found] # a sibling

Shapes = Mapping[str, tuple[int, ...]]
Rewrite = Callable[["Workbench", onnx.NodeProto], bool]
_SOFTMAX_BY_AXIS = 13
_SEQUENCE_LENS, _INITIAL_H, _INITIAL_C = 4, 5, 6
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


class Workbench:
    """A graph whose nodes are being rewritten: collects new nodes and constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opset = next((e.version for e in model.opset_import if not e.domain), 1)
        self.shapes: Shapes = known_shapes(model.graph)
        self.nodes: list[onnx.NodeProto] = []
        self._constants = {each.name: each for each in model.graph.initializer}

    def constant(self, name: str) -> np.ndarray | None:
        """Give a constant's values, or nothing."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def store(self, name: str, values: np.ndarray) -> str:
        """Put a constant into the graph; give its name."""
        tensor = numpy_helper.from_array(values, name)
        self.graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: int) -> str:
        """Add a node of one output, named after it; give the output's name."""
        node = onnx.helper.make_node(op, inputs, [output], name=output)
        node.attribute.extend(onnx.helper.make_attribute(*each) for each in attributes.items())
        self.nodes.append(node)
        return output

    def reshape(self, value: str, shape: tuple[int, ...], output: str) -> str:
        """Add a Reshape to a fixed shape."""
        return self.add("Reshape", [value, self.store(f"{output}/shape", np.array(shape))], output)

    def take(self, value: str, places: range, axis: int, output: str) -> str:
        """Add a Gather of constant places along an axis."""
        indices = self.store(f"{output}/places", np.array(places, np.int64))
        return self.add("Gather", [value, indices], output, axis=axis)


def lower(model: onnx.ModelProto) -> int:
    """Rewrite what needs it in a model of fixed shapes; tell how many nodes."""
    bench = Workbench(model)
    count = 0
    for node in model.graph.node:
        rewrite = _REWRITES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        if rewrite is not None and rewrite(bench, node):
            count += 1
        else:
            bench.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    if count:
        del model.graph.node[:]
        model.graph.node.extend(bench.nodes)
    return count


def attribute_of(node: onnx.NodeProto, name: str, default: object) -> object:
    """Give an attribute's value."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _flatten_softmax(bench: Workbench, node: onnx.NodeProto) -> bool:
    """Write out what Softmax did before opset 13: all axes from `axis` on are one.

    onnx2tf 2.6.9 takes it for the later definition: -7 dB.
    """
    shape = bench.shapes.get(node.input[0])
    if bench.opset >= _SOFTMAX_BY_AXIS or not shape:
        return False
    axis = int(str(attribute_of(node, "axis", 1))) % len(shape)
    if axis == len(shape) - 1:
        return False
    output = node.output[0]
    rows = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))
    flat = bench.reshape(node.input[0], rows, f"{output}/flat")
    done = bench.add(node.op_type, [flat], f"{output}/done", axis=1)
    bench.reshape(done, shape, output)
    return True


def _drop_empty(bench: Workbench, node: onnx.NodeProto) -> bool:
    """Leave empty constants out of a Concat: onnx2tf 2.6.9 does, and refuses what is left."""
    kept = [name for name in node.input if 0 not in bench.shapes.get(name, (1,))]
    if not kept or (len(kept) == len(node.input) and len(kept) > 1):
        return False
    if len(kept) == 1:
        bench.add("Identity", kept, node.output[0])
    else:
        axis = attribute_of(node, "axis", 0)
        bench.nodes.append(
            onnx.helper.make_node("Concat", kept, list(node.output), name=node.name, axis=axis)
        )
    return True


def _open_recurrent(bench: Workbench, node: onnx.NodeProto) -> bool:
    """Make a recurrent node whose last states are used run forward only.

    onnx2tf 2.6.9 gives wrong last states for RNN, and for LSTM in reverse (-12 dB); what it
    gives for whole sequences is right.
    """
    used = list(node.output) + [""] * (3 - len(node.output))
    sequence = bench.shapes.get(node.input[0])
    direction = attribute_of(node, "direction", b"forward")
    has_lengths = len(node.input) > _SEQUENCE_LENS and node.input[_SEQUENCE_LENS]
    if (
        not any(used[1:])
        or sequence is None
        or has_lengths
        or int(str(attribute_of(node, "layout", 0)))
        or node.op_type == "GRU"
        or (node.op_type == "LSTM" and direction == b"forward")
    ):
        return False
    ways = [False, True] if direction == b"bidirectional" else [direction == b"reverse"]
    steps, title = sequence[0], next(name for name in used if name)
    columns: list[list[str]] = [[], [], []]
    for at, is_reverse in enumerate(ways):
        prefix = f"{title}/{at}"
        x = node.input[0]
        if is_reverse:
            x = bench.take(x, range(steps - 1, -1, -1), 0, f"{prefix}/x")
        inputs = [x] + [
            bench.take(name, range(at, at + 1), 0, f"{prefix}/in{place}") if name else ""
            for place, name in enumerate(node.input[1:], 1)
        ]
        outputs = [f"{prefix}/y", f"{prefix}/h"] + ([f"{prefix}/c"] * (node.op_type == "LSTM"))
        kept = {
            each.name: onnx.helper.get_attribute_value(each)
            for each in node.attribute
            if each.name not in {"direction", "activations"}
        }
        names = [each.decode() for each in attribute_of(node, "activations", [])]  # type: ignore[attr-defined]
        if names:
            share = len(names) // len(ways)
            kept["activations"] = names[at * share : (at + 1) * share]
        cell = outputs if node.op_type == "LSTM" else outputs[:1]
        bench.nodes.append(
            onnx.helper.make_node(node.op_type, inputs, cell, name=f"{node.name}/{at}", **kept)
        )
        if node.op_type == "RNN":
            # The last state is the last row of the sequence.
            last = bench.take(outputs[0], range(steps - 1, steps), 0, f"{prefix}/last")
            size = int(str(attribute_of(node, "hidden_size", 0)))
            bench.reshape(last, (1, sequence[1], size), outputs[1])
        if is_reverse:
            outputs[0] = bench.take(outputs[0], range(steps - 1, -1, -1), 0, f"{prefix}/turned")
        for column, name in zip(columns, outputs, strict=False):
            column.append(name)
    for output, parts, axis in zip(used, columns, (1, 0, 0), strict=True):
        if output and parts:
            bench.add("Concat" if len(parts) > 1 else "Identity", parts, output,
                      **({"axis": axis} if len(parts) > 1 else {}))  # fmt: skip
    return True


_REWRITES: Mapping[str, Rewrite] = {
    "Softmax": _flatten_softmax,
    "LogSoftmax": _flatten_softmax,
    "Hardmax": _flatten_softmax,
    "Concat": _drop_empty,
    "LSTM": _open_recurrent,
    "RNN": _open_recurrent,
}
