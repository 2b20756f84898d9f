"""Loops and scans of an ONNX graph whose trips are certain once shapes are fixed, written out.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from onnx import numpy_helper
from onnx_control import (  # type: ignore[import-not-found]
    constants_of,
    free_prefix,
    instantiate,
    opset_of,
    set_nodes,
)
from onnx_graph import title_of, used_names  # type: ignore[import-not-found]
from onnx_trips import (  # type: ignore[import-not-found]
    MOST_NODES,
    body_of,
    count_trips,
    listed,
    scanned_inputs,
    used_rows,
)

_AXES_AS_INPUT = 13  # of Unsqueeze
_OTHERWISE = (
    "Export the model with a number of steps that follows from the shapes of its inputs, or "
    "with the recurrent operations LSTM, GRU or RNN."
)


def unroll_loops(model: onnx.ModelProto) -> int:
    """Write out each Loop and Scan whose trips are certain and few; tell how many."""
    nodes: list[onnx.NodeProto] = []
    count, room = 0, MOST_NODES - len(model.graph.node)
    for node in model.graph.node:
        trips = count_trips(model, node) if node.op_type in {"Loop", "Scan"} else ""
        if isinstance(trips, str) or trips * _size(node) > room:
            nodes.append(node)
            continue
        count += 1
        room -= trips * _size(node)
        nodes += _unroll(model, node, trips)
    if count:
        set_nodes(model.graph, nodes)
    return count


def refuse_open_loops(model: onnx.ModelProto) -> None:
    """Refuse what is left and has outputs of one row a trip; explain each loop.

    A loop that only carries values is left to the converters: TFLite has a WHILE for it.

    Raises:
        RefusedError: with the reason of each.
    """
    faults = []
    for node in model.graph.node:
        if node.op_type not in {"Loop", "Scan"}:
            continue
        if node.op_type == "Loop" and not used_rows(model.graph, node):
            _leave_to_converters(model, node)
            continue
        trips = count_trips(model, node)
        reason = (
            trips
            if isinstance(trips, str)
            else f"{trips} trips of {_size(node)} operations, written out, make a graph of more "
            f"than {MOST_NODES}"
        )
        faults.append(f"{title_of(node)}: {reason}")
    if faults:
        raise RefusedError(
            "model",
            "expected loops that can be written out, for their outputs hold one row a trip, but "
            f"{'; '.join(faults)}",
            _OTHERWISE,
        )


def _unroll(model: onnx.ModelProto, node: onnx.NodeProto, trips: int) -> Iterator[onnx.NodeProto]:
    graph = model.graph
    title = free_prefix(graph, node)
    body, shared = _share_constants(graph, body_of(node), f"{title}shared/")
    is_scan = node.op_type == "Scan"
    sequences = scanned_inputs(node) if is_scan else []
    carried = list(node.input[: len(node.input) - len(sequences)] if is_scan else node.input[2:])
    num_carried = len(carried)
    first = 0 if is_scan else 1  # a Loop's body tells whether to go on before anything else
    columns: list[list[str]] = [[] for _ in body.output[first + num_carried :]]
    for trip in range(trips):
        prefix = f"{title}{trip}/"
        places = [
            _store(graph, f"{prefix}place{at}", np.array(_place(node, at, trip, trips)))
            for at in range(len(sequences))
        ]
        rows = [f"{prefix}in{at}" for at in range(len(sequences))]
        for at, (name, place, row) in enumerate(zip(sequences, places, rows, strict=True)):
            axis = listed(node, "scan_input_axes", at)
            yield onnx.helper.make_node("Gather", [name, place], [row], name=row, axis=axis)
        lead = [] if is_scan else [
            _store(graph, f"{prefix}trip", np.array(trip)),
            _store(graph, f"{prefix}condition", np.ones((), np.bool_)),
        ]  # fmt: skip
        names = [each.name for each in body.input]
        bound = shared | dict(zip(names, [*lead, *carried, *rows], strict=True))
        outputs = [f"{prefix}out{at}" for at in range(len(body.output))]
        yield from instantiate(graph, body, prefix=prefix, bound=bound, outputs=outputs)
        carried = outputs[first : first + num_carried]
        for column, name in zip(columns, outputs[first + num_carried :], strict=True):
            column.append(name)
    for name, output in zip(carried, node.output, strict=False):
        if output:
            yield onnx.helper.make_node("Identity", [name], [output], name=output)
    for at, (column, output) in enumerate(zip(columns, node.output[num_carried:], strict=False)):
        is_reverse = is_scan and listed(node, "scan_output_directions", at)
        axis = listed(node, "scan_output_axes", at) if is_scan else 0
        if output:
            yield from _stack(model, column[::-1] if is_reverse else column, output, axis)


def _share_constants(
    graph: onnx.GraphProto, body: onnx.GraphProto, prefix: str
) -> tuple[onnx.GraphProto, dict[str, str]]:
    """Put a body's constants into the graph, once for all trips; give the body without them."""
    constants = constants_of(body)
    kept = onnx.GraphProto()
    kept.CopyFrom(body)
    del kept.initializer[:]
    set_nodes(kept, [each for each in body.node if not constants.keys() & set(each.output)])
    return kept, {
        name: _store(graph, f"{prefix}{name}", values) for name, values in constants.items()
    }


def _stack(
    model: onnx.ModelProto, column: Sequence[str], output: str, axis: int
) -> Iterator[onnx.NodeProto]:
    rows = [f"{name}/row" for name in column]
    axes = _store(model.graph, f"{output}/axes", np.array([axis]))
    for name, row in zip(column, rows, strict=True):
        if opset_of(model) >= _AXES_AS_INPUT:
            yield onnx.helper.make_node("Unsqueeze", [name, axes], [row], name=row)
        else:
            yield onnx.helper.make_node("Unsqueeze", [name], [row], name=row, axes=[axis])
    yield onnx.helper.make_node("Concat", rows, [output], name=output, axis=axis)


def _leave_to_converters(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Close a Loop in itself: write out open bounds, drop unread rows, hand in what it captures.

    onnx2tf 2.6.9 lowers no open one, and its WHILE finds nothing that lies outside.
    """
    num_carried = len(node.input) - 2
    body = body_of(node)
    del node.output[num_carried:]
    del body.output[1 + num_carried :]
    prefix = free_prefix(model.graph, node)
    if not node.input[0]:
        limit = np.array(np.iinfo(np.int32).max, np.int64)
        node.input[0] = _store(model.graph, f"{prefix}limit", limit)
    if not node.input[1]:
        node.input[1] = _store(model.graph, f"{prefix}start", np.ones((), np.bool_))
    tensors = {each.name: each for each in model.graph.initializer}
    values = {each.name: each for each in (*model.graph.value_info, *model.graph.input)}
    own = {each.name for each in (*body.input, *body.initializer)}
    own.update(name for each in body.node for name in each.output)
    read = {name for each in body.node for name in used_names(each)}
    for name in sorted(read - own):
        if name in tensors:
            body.initializer.add().CopyFrom(tensors[name])
        elif name in values:
            body.input.add().CopyFrom(values[name])
            kept = f"{prefix}{name}/kept"
            body.node.append(onnx.helper.make_node("Identity", [name], [kept], name=kept))
            body.output.add().CopyFrom(values[name])
            body.output[-1].name = kept
            node.input.append(name)
            node.output.append(f"{prefix}{name}/last")


def _size(node: onnx.NodeProto) -> int:
    return max(1, len(body_of(node).node))


def _place(node: onnx.NodeProto, at: int, trip: int, trips: int) -> int:
    return trips - 1 - trip if listed(node, "scan_input_directions", at) else trip


def _store(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name
