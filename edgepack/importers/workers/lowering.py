"""Rewrite what TFLite has no kernel for in a frozen graph into what it has.

Measured with the converter of TensorFlow 2.21: every kernel of half, bfloat16 and double is
missing (a model of Keras' mixed_float16 needs `tf.Conv2D` with flex), and so are pools of
three dimensions.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_NARROW = frozenset({tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum})
_OTHER_FLOATS = _NARROW | {tf.float64.as_datatype_enum}
_FLOAT = tf.float32.as_datatype_enum
_POOLS = {"MaxPool3D": "MaxPool", "AvgPool3D": "AvgPool"}
_CHANNELS_LAST = b"NDHWC"


def is_narrow(graph_def: Any) -> bool:  # noqa: ANN401 - TensorFlow is untyped
    """Tell whether a graph computes in half or bfloat16."""
    return any(
        value.type in _NARROW
        for node in _all_nodes(graph_def)
        if node.op not in {"Placeholder", "Cast", "Identity", "Const"}
        for value in node.attr.values()
    )


def needs_lowering(graph_def: Any) -> bool:  # noqa: ANN401 - TensorFlow is untyped
    """Tell whether a graph holds anything that is rewritten here."""
    return any(
        node.op in _POOLS
        or any(
            value.type in _OTHER_FLOATS
            or value.tensor.dtype in _OTHER_FLOATS
            or _OTHER_FLOATS.intersection(value.list.type)
            for value in node.attr.values()
        )
        for node in _all_nodes(graph_def)
    )


def widen(graph_def: Any) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Give the graph with every float as float32.

    Weights of half and bfloat16 stay what they are to the bit; those of double are rounded.
    """
    wide = type(graph_def)()
    wide.CopyFrom(graph_def)
    for node in _all_nodes(wide):
        for value in node.attr.values():
            _widen_attribute(value)
    for function in wide.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type in _OTHER_FLOATS:
                argument.type = _FLOAT
        for value in function.attr.values():
            _widen_attribute(value)
    return wide


def lower_pools(graph_def: Any, graph: Any) -> None:  # noqa: ANN401 - TensorFlow is untyped
    """Make pools over depth, height and width of two flat ones each, in place.

    The largest of the largest is the largest; and a mean of means is the mean, as a window
    that reaches over the edge counts depth by depth what is inside.
    """
    for node in list(graph_def.node):
        if node.op not in _POOLS or node.attr["data_format"].s not in {b"", _CHANNELS_LAST}:
            continue
        operation = graph.get_operation_by_name(node.name)
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        if not (before.is_fully_defined() and after.is_fully_defined()):
            continue
        count, depth, height, width, channels = before.as_list()
        _, _, new_height, new_width, _ = after.as_list()
        _, size_d, size_h, size_w, _ = node.attr["ksize"].list.i
        _, step_d, step_h, step_w, _ = node.attr["strides"].list.i
        name, given = node.name, node.input[0]
        controls = [each for each in node.input if each.startswith("^")]
        padding, kind = node.attr["padding"].s, _POOLS[node.op]
        add = _Adder(graph_def)
        flat = add.reshape(f"{name}/slices", given, (count * depth, height, width, channels))
        planes = add.pool(
            f"{name}/planes", kind, flat, (size_h, size_w), (step_h, step_w), padding=padding
        )
        columns = add.reshape(
            f"{name}/columns", planes, (count, depth, new_height * new_width, channels)
        )
        pooled = add.pool(f"{name}/depth", kind, columns, (size_d, 1), (step_d, 1), padding=padding)
        shape = add.constant(f"{name}/whole/shape", after.as_list())
        node.op = "Reshape"
        node.attr.clear()
        node.attr["T"].type = _FLOAT
        node.attr["Tshape"].type = tf.int32.as_datatype_enum
        del node.input[:]
        node.input.extend([pooled, shape, *controls])


class _Adder:
    """Adds nodes to a graph and gives their names."""

    def __init__(self, graph_def: Any) -> None:  # noqa: ANN401 - TensorFlow is untyped
        self._graph_def = graph_def

    def constant(self, name: str, values: Sequence[int]) -> str:
        node = self._graph_def.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.int32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.array(values, np.int32)))
        return name

    def reshape(self, name: str, given: str, shape: Sequence[int]) -> str:
        node = self._graph_def.node.add(name=name, op="Reshape")
        node.attr["T"].type = _FLOAT
        node.attr["Tshape"].type = tf.int32.as_datatype_enum
        node.input.extend([given, self.constant(f"{name}/shape", shape)])
        return name

    def pool(
        self,
        name: str,
        kind: str,
        given: str,
        size: tuple[int, int],
        step: tuple[int, int],
        *,
        padding: bytes,
    ) -> str:
        node = self._graph_def.node.add(name=name, op=kind)
        node.attr["T"].type = _FLOAT
        node.attr["ksize"].list.i.extend([1, *size, 1])
        node.attr["strides"].list.i.extend([1, *step, 1])
        node.attr["padding"].s = padding
        node.attr["data_format"].s = b"NHWC"
        node.input.append(given)
        return name


def _all_nodes(graph_def: Any) -> Iterator[Any]:  # noqa: ANN401 - TensorFlow is untyped
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _widen_attribute(value: Any) -> None:  # noqa: ANN401 - TensorFlow is untyped
    if value.type in _OTHER_FLOATS:
        value.type = _FLOAT
    for index, each in enumerate(value.list.type):
        if each in _OTHER_FLOATS:
            value.list.type[index] = _FLOAT
    if value.tensor.dtype in _OTHER_FLOATS:
        array = tf.make_ndarray(value.tensor).astype(np.float32)
        value.tensor.CopyFrom(tf.make_tensor_proto(array))
