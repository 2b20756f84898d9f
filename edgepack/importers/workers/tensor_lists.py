"""Element shapes of a loop's tensor lists, which a model exported with an open batch leaves open.

Keras writes them as constants when it traces a layer. A SavedModel of an LSTM holds -1 for the
batch there, which a new shape of the input does not change, and the TFLite converter
(TensorFlow 2.21) lowers lists of static element shapes only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_RESERVE = "TensorListReserve"
_STACK = "TensorListStack"
_LOOPS = ("While", "StatelessWhile")


def settle_lists(graph_def: Any, graph: Any, inputs: Sequence[Any]) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Give the GraphDef with the element shapes that its lists have for these inputs.

    The graph is run once on zeros, for the shapes of what the lists are stacked to.

    Args:
        graph_def: the graph.
        graph: the same, loaded.
        inputs: its inputs, of fixed shapes.
    """
    lists = [
        (operation, reserve)
        for operation in graph.get_operations()
        if operation.type == _STACK
        and (reserve := _find_reserve(operation.inputs[0])) is not None
        and _is_open(reserve.inputs[0])
    ]
    if not lists:
        return graph_def
    feeds = {each: np.zeros(each.shape, each.dtype.as_numpy_dtype) for each in inputs}
    with tf.compat.v1.Session(graph=graph) as session:
        stacked = session.run([operation.outputs[0] for operation, _ in lists], feeds)
    settled = type(graph_def)()
    settled.CopyFrom(graph_def)
    nodes = {node.name: node for node in settled.node}
    for (operation, reserve), value in zip(lists, stacked, strict=True):
        shape = np.array(value.shape[1:], np.int32)
        for user, position in ((reserve, 0), (operation, 1)):
            name = f"{user.name}/settled_shape"
            node = settled.node.add(name=name, op="Const")
            node.attr["dtype"].type = tf.int32.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(shape))
            nodes[user.name].input[position] = name
        nodes[reserve.name].attr["shape_type"].type = tf.int32.as_datatype_enum
    return settled


def _find_reserve(handle: Any) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Give the operation that made a list; None when no loop filled it."""
    tensor = _skip_copies(handle)
    if tensor.op.type not in _LOOPS:
        return None
    # Output N of a loop is what its input N became.
    made = _skip_copies(tensor.op.inputs[tensor.value_index]).op
    return made if made.type == _RESERVE else None


def _skip_copies(tensor: Any) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _is_open(tensor: Any) -> bool:  # noqa: ANN401 - TensorFlow is untyped
    shape = tf.get_static_value(tensor)
    return shape is None or bool(np.any(np.asarray(shape) < 0))
