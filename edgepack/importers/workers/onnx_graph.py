"""What an ONNX graph says of its inputs, outputs and nodes.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from onnx import numpy_helper

# Ops whose first output holds the values of their first input, all or some, unchanged.
_CARRIERS = frozenset({
    "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand",
    "Slice", "Split", "Tile", "Concat", "Gather",
})  # fmt: skip
# Ops that compute each element by itself, so that an input's layout is that of their output.
_ELEMENTWISE = frozenset({
    "Identity", "Cast", "Add", "Sub", "Mul", "Div", "Clip", "Relu", "Sigmoid", "Tanh", "Pow",
    "Sqrt", "Neg", "Abs", "Exp", "Log", "Max", "Min", "LeakyRelu", "Pad", "Concat", "Slice",
})  # fmt: skip
# Ops that take their first input with the channels in front.
_CHANNELS_FIRST = frozenset({
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN",
    "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "PRelu", "DeformConv", "GridSample",
})  # fmt: skip
_RECURRENT = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_LENGTHS = 4


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Give the inputs a caller feeds; IR 3 and older list the initializers among them."""
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    for each in (*inputs, *model.graph.output):
        if not each.type.HasField("tensor_type"):
            raise RefusedError(
                "model",
                f"input or output {each.name!r} is no tensor but {each.type.WhichOneof('value')}",
                "Export the model with plain tensors (skl2onnx: options zipmap=False).",
            )
    return inputs


def dims_of(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    """Give a value's shape; names for symbolic dimensions, None for open ones."""
    if not value.type.tensor_type.HasField("shape"):
        raise RefusedError(
            "model",
            f"input {value.name!r} has no shape, not even a number of dimensions",
            "Export the model with the shapes of its inputs.",
        )
    dims: list[int | str | None] = []
    for dim in value.type.tensor_type.shape.dim:
        # Paddle's exporter writes -1 for a dimension it leaves open.
        fixed = dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        dims.append(fixed if fixed is not None else dim.dim_param or None)
    return tuple(dims)


def dtype_of(value: onnx.ValueInfoProto) -> str:
    """Give a value's element type as numpy names it."""
    element = value.type.tensor_type.elem_type
    if element not in onnx.helper.get_all_tensor_dtypes():
        raise RefusedError(
            "model",
            f"input {value.name!r} holds elements of type {element}, which ONNX does not have",
            "Copy or export the model again and compare its checksum.",
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    if dtype.kind not in "fiub" or element == onnx.TensorProto.BFLOAT16:
        raise RefusedError(
            "model",
            f"input {value.name!r} holds {onnx.TensorProto.DataType.Name(element)}; "
            "EdgePack feeds numbers",
            "Move that step out of the model and export it again.",
        )
    return str(dtype.name)


def title_of(node: onnx.NodeProto) -> str:
    """Name a node for a message: its op and its name, or else its first output."""
    domain = f"{node.domain}:" if node.domain not in {"", "ai.onnx"} else ""
    name = node.name or next(iter(node.output), "")
    return f"{domain}{node.op_type} {name!r}"


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Give a graph's nodes, with those of their subgraphs."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Give the graphs a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def used_names(node: onnx.NodeProto) -> Iterator[str]:
    """Give the names a node reads, with those its subgraphs may take from around them."""
    yield from node.input
    for graph in subgraphs(node):
        yield from (each.name for each in graph.output)
        for inner in graph.node:
            yield from used_names(inner)


def describe_inputs(model: onnx.ModelProto, names: Sequence[str]) -> list[dict[str, Any]]:
    """Tell what the graph says of each input beyond its type: `maximum` and `role`.

    Args:
        model: a prepared model, whose constants are folded.
        names: of its inputs.
    """
    return [describe_input(model.graph, name) for name in names]


def describe_input(graph: onnx.GraphProto, name: str) -> dict[str, Any]:
    """Follow an input through ops that carry its values to those that give them a meaning."""
    shapes = known_shapes(graph)
    constants = {each.name: each for each in graph.initializer}
    carried, maxima, is_state = {name}, [], False
    for node in graph.node:
        inputs = list(node.input)
        if node.op_type in _CARRIERS and carried.intersection(
            inputs if node.op_type == "Concat" else inputs[:1]
        ):
            carried.update(node.output)
        if node.op_type in {"Gather", "GatherElements"} and inputs[1] in carried:
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            shape = shapes.get(inputs[0], ())
            if -len(shape) <= axis < len(shape) and shape[axis] > 0:
                maxima.append(shape[axis] - 1)
        if node.op_type == "OneHot" and inputs[0] in carried and inputs[1] in constants:
            maxima.append(int(numpy_helper.to_array(constants[inputs[1]]).item()) - 1)
        if node.op_type in _RECURRENT:
            is_state |= any(
                inputs[at] in carried for at in _RECURRENT[node.op_type] if at < len(inputs)
            )
            if len(inputs) > _LENGTHS and inputs[_LENGTHS] in carried:
                maxima += shapes.get(inputs[0], ())[:1]
    described: dict[str, Any] = {}
    if maxima:
        described["maximum"] = min(maxima)
    if is_state:
        described["role"] = "state"
    return described


def has_channels_first(graph: onnx.GraphProto, name: str) -> bool:
    """Tell whether an input reaches ops that take channels first, with nothing in between."""
    reached = {name}
    for node in graph.node:
        inputs = set(node.input)
        if node.op_type in _CHANNELS_FIRST and node.input[0] in reached:
            return True
        if node.op_type in _ELEMENTWISE and inputs & reached:
            reached.update(node.output)
    return False


def known_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Give the shapes a graph states, of values whose every dimension is a number."""
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes.setdefault(value.name, tuple(d.dim_value for d in dims))
    return shapes


def take_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Give a copy whose outputs are these tensors of its main graph.

    Types are left to be inferred: ONNX Runtime and onnxsim both do.
    """
    known = {each.name: each for each in (*model.graph.value_info, *model.graph.output)}
    produced = {name for node in model.graph.node for name in node.output}
    missing = [name for name in names if name not in produced]
    if missing:
        raise RefusedError(
            "model",
            f"expected names of tensors that the graph computes, not {', '.join(missing)}",
            "Report this as a bug of EdgePack, with the model if you can.",
        )
    taken = onnx.ModelProto()
    taken.CopyFrom(model)
    del taken.graph.output[:]
    taken.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return taken
