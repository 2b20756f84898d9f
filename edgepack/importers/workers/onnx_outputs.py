"""Outputs of an ONNX model whose shapes the inputs' values decide, and where to cut them off.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from onnx_graph import (  # type: ignore[import-not-found]
    graph_inputs,
    known_shapes,
    title_of,
    used_names,
)

# Ops that give as many values as they find.
_FINDING = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress"})
_CHOOSING = frozenset({"If"})
_REPEATING = frozenset({"Loop", "Scan"})
# Ops that may make a fixed number of what was found.
_FIXING = frozenset({
    "Pad", "Slice", "TopK", "Expand", "Tile", "Reshape", "Resize", "ConstantOfShape", "ScatterND",
    "ScatterElements", "If", "Loop",
})  # fmt: skip
_MOST_SHOWN = 5


def check_outputs(model: onnx.ModelProto, outputs: Sequence[Any]) -> None:
    """Refuse outputs that are no tensors of numbers."""
    for value, array in zip(model.graph.output, outputs, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise RefusedError(
                "model",
                f"output {value.name!r} is no tensor of numbers",
                "Remove that output from the model and export it again.",
            )


def check_steady(
    title: str,
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]],
    answers: Sequence[Sequence[Any]],
) -> None:
    """Refuse outputs of other shapes for other inputs, and those that hold no value.

    A TFLite graph has the same shapes for every input, and what was found in one input would
    be what is looked for in all.

    Args:
        title: the file's name.
        model: the user's graph.
        shapes: of its inputs.
        answers: outputs for one input or more.

    Raises:
        RefusedError: with the nodes that decide the shapes, and where to cut before them.
    """
    columns = zip(*[[array.shape for array in answer] for answer in answers], strict=True)
    # NonMaxSuppression may give as many as it may at most, on zeros and on noise alike.
    counted = _find_counted(model, shapes)
    faults: dict[str, str] = {}
    for value, found in zip(model.graph.output, columns, strict=True):
        if len(set(found)) > 1:
            faults[value.name] = " or ".join(map(str, dict.fromkeys(found)))
        elif 0 in found[0]:
            faults[value.name] = f"{found[0]}, which holds no value"
        elif value.name in counted:
            faults[value.name] = f"{found[0]} at times"
    if not faults:
        return
    shown = ", ".join(f"{name!r} has {text}" for name, text in faults.items())
    reason = "gives as many values as it finds"
    titles, ends = _cut(model, list(faults), _FINDING)
    if not titles and _cut(model, list(faults), _REPEATING)[0]:
        return  # which loop cannot be written out, and why, is told where they are
    if not titles:
        reason = "goes by values"
        titles, ends = _cut(model, list(faults), _CHOOSING)
    if not titles or not ends:
        raise RefusedError(
            "model",
            f"expected outputs that have one shape, whatever the inputs hold, but {shown}",
            "Remove these outputs from the model and export it again.",
        )
    inputs = [each.name for each in graph_inputs(model)]
    raise RefusedError(
        "model",
        f"expected outputs that have one shape, whatever the inputs hold, but {shown}, as "
        f"{', '.join(titles[:_MOST_SHOWN])} {reason}",
        "Cut the model before that, and do it on the device: "
        f"onnx.utils.extract_model({title!r}, 'cut.onnx', {inputs}, {ends}).",
    )


def _find_counted(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> set[str]:
    """Give the outputs that have a row for each value that was found."""
    depending = set(shapes)
    counted: set[str] = set()
    for node in model.graph.node:
        taken = set(used_names(node))
        is_first = node.op_type in _FINDING and bool(taken & depending)
        if is_first or (taken & counted and node.op_type not in _FIXING):
            counted.update(node.output)
        if taken & depending:
            depending.update(node.output)
    counted &= {each.name for each in model.graph.output}
    if not counted:
        return counted
    # Counting or adding up what was found has one shape, too: what ONNX knows without running.
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.input:
        if value.name in shapes:
            element = value.type.tensor_type.elem_type
            shape = list(shapes[value.name])
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    known = known_shapes(onnx.shape_inference.infer_shapes(bare, data_prop=True).graph)
    return counted - set(known)


def _cut(
    model: onnx.ModelProto, outputs: Sequence[str], ops: frozenset[str]
) -> tuple[list[str], list[str]]:
    """Give the first nodes of some ops that outputs depend on, and the outputs of a cut before.

    Returns:
        titles of the nodes, and the names of what they take beside the outputs that are
        computed without them.
    """
    graph = model.graph
    needed = set(outputs)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(used_names(node))
    inputs = {each.name for each in graph_inputs(model)}
    depending = set(inputs)
    decided: set[str] = set()
    titles: list[str] = []
    ends: list[str] = []
    for node in graph.node:
        taken = set(used_names(node))
        if taken & decided:
            decided.update(node.output)
        elif node.op_type in ops and taken & depending and needed.intersection(node.output):
            decided.update(node.output)
            titles.append(title_of(node))
            ends += [name for name in used_names(node) if name in depending - inputs]
        if taken & depending:
            depending.update(node.output)
    kept = [each.name for each in graph.output if each.name not in decided]
    kept = [name for name in kept if name not in outputs]
    return titles, list(dict.fromkeys([*kept, *ends]))
