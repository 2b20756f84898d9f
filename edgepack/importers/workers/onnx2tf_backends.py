"""Converting a prepared ONNX model with onnx2tf, by either of its backends.

Runs inside a toolchain on its own interpreter.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from onnx import numpy_helper
from onnx_graph import has_channels_first, known_shapes  # type: ignore[import-not-found]
from onnx_runtime import AGAIN  # type: ignore[import-not-found]

DIRECT = "flatbuffer_direct"
TENSORFLOW = "tf_converter"
# flatbuffer_direct splits models of more than 1 GB unless told that a flatbuffer holds 2.
_LARGEST_BYTES = (2 << 30) - (1 << 20)
_VALIDATION = re.compile(r"op=(?P<op>\S+) node=(?P<name>.*?) reason_code=\S+ message=(?P<why>.*)")
_NAMED = re.compile(r"\bnode=(?P<name>.+?)(?=[,;]|\s\w+=|$)")
_FAILED = re.compile(r"onnx_op_name: (?P<name>[^\n]*)")
# What onnx2tf raises on nodes it was not made for.
_FAULTS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError,
    AssertionError, RuntimeError, OSError, ImportError, ArithmeticError,
)  # fmt: skip
# Where a recurrent node takes its first states.
_STATES = {"LSTM": (5, 6), "GRU": (5,)}
_OTHER = "Replace the operation in the source model."


def to_flatbuffer(path: Path, folder: Path, backend: str) -> Path:
    """Convert a prepared model; refuse what the backend has no lowering for, by node.

    Raises:
        RefusedError: onnx2tf failed.
    """
    os.environ["TQDM_DISABLE"] = "1"  # its bars would push the reason out of the log's tail
    import onnx2tf  # noqa: PLC0415 - other operations do without

    written = folder / "onnx2tf"
    model = onnx.load(str(path))
    graph = model.graph
    if backend == TENSORFLOW:
        path = _suit_tensorflow(model, path)
    # Left to itself, onnx2tf moves the second axis of every input to the end, in models of text
    # and sound as well.
    kept = [each.name for each in graph.input if not has_channels_first(graph, each.name)]
    # Left to itself, onnx2tf 2.6.9 writes an operation it cannot lower as a custom one, which
    # no runtime has. With an allowlist that allows none, it says which node and why.
    options = (
        {
            "flatbuffer_direct_allow_custom_ops": True,
            "flatbuffer_direct_custom_op_allowlist": ["none"],
            "tflite_split_max_bytes": _LARGEST_BYTES,
            "tflite_split_target_bytes": _LARGEST_BYTES - 1,
        }
        if backend == DIRECT
        else {"output_signaturedefs": True, "copy_onnx_input_output_names_to_tflite": True}
    )
    watched = _Watched(sys.stdout)
    try:
        with contextlib.redirect_stdout(watched):
            onnx2tf.convert(
                input_onnx_file_path=str(path),
                output_folder_path=str(written),
                tflite_backend=backend,
                not_use_onnxsim=True,  # done, with fixed shapes
                non_verbose=True,
                keep_shape_absolutely_input_names=kept or None,
                **options,
            )
    except SystemExit as error:  # onnx2tf ends the process on a node it cannot lower
        raise _refusal(error, graph, watched.node) from error
    except Exception as error:
        # TensorFlow's errors derive from Exception alone.
        if not isinstance(error, _FAULTS) and "tensorflow" not in type(error).__module__:
            raise
        raise _refusal(error, graph, watched.node) from error
    found = sorted(written.glob("*_float32.tflite"))
    if len(found) != 1:
        raise RefusedError(
            "conversion",
            f"expected one float32 model of onnx2tf, but it wrote {len(found)}",
            "Make the model smaller: a flatbuffer holds less than 2 GB.",
        )
    restore_scalars(found[0], graph)
    return found[0]


def _suit_tensorflow(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model whose nodes are called n0, n1 …, for TensorFlow takes few characters.

    Recurrent nodes start from zeros that are written out: left out, onnx2tf 2.6.9 hands Keras
    an empty state.
    """
    suited = onnx.ModelProto()
    suited.CopyFrom(model)
    shapes = known_shapes(suited.graph)
    for at, node in enumerate(suited.graph.node):
        node.name = f"n{at}"
        sequence, weights = shapes.get(node.input[0] if node.input else ""), node.input[2:3]
        recurrence = shapes.get(weights[0]) if weights else None
        states = _STATES.get(node.op_type, ())
        if sequence is None or recurrence is None or not states:
            continue
        node.input.extend([""] * (states[-1] + 1 - len(node.input)))
        zeros = np.zeros((recurrence[0], sequence[1], recurrence[2]), np.float32)
        for place in states:
            if not node.input[place]:
                node.input[place] = f"{node.output[0] or node.name}/zeros{place}"
                tensor = numpy_helper.from_array(zeros, node.input[place])
                suited.graph.initializer.append(tensor)
    found = path.with_name("numbered.onnx")
    onnx.save(suited, str(found))
    return found


def restore_scalars(path: Path, graph: onnx.GraphProto) -> None:
    """Give inputs and outputs of rank 0 their shape back: onnx2tf 2.6.9 makes vectors of them."""
    shapes = known_shapes(graph)
    scalars = {each.name for each in (*graph.input, *graph.output) if shapes.get(each.name) == ()}
    if not scalars:
        return
    import flatbuffers  # noqa: PLC0415 - for few models
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - likewise

    tree = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    for signature in tree.signatureDefs:
        subgraph = tree.subgraphs[signature.subgraphIndex]
        for each in signature.inputs:
            if each.name.decode() in scalars:
                subgraph.tensors[each.tensorIndex].shape = []
        for each in signature.outputs:
            vector = subgraph.tensors[each.tensorIndex]
            if each.name.decode() not in scalars or list(vector.shape) != [1]:
                continue
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
            tree.operatorCodes.append(code)
            number = schema.TensorT()
            number.name, vector.name = vector.name, vector.name + b"/vector"
            number.type, number.shape, number.buffer = vector.type, [], 0
            subgraph.tensors.append(number)
            reshape = schema.OperatorT()
            reshape.opcodeIndex = len(tree.operatorCodes) - 1
            reshape.inputs, reshape.outputs = [each.tensorIndex], [len(subgraph.tensors) - 1]
            reshape.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
            reshape.builtinOptions = schema.ReshapeOptionsT()
            reshape.builtinOptions.newShape = []
            subgraph.operators.append(reshape)
            outputs = list(subgraph.outputs)
            outputs[outputs.index(each.tensorIndex)] = len(subgraph.tensors) - 1
            subgraph.outputs = outputs
            each.tensorIndex = len(subgraph.tensors) - 1
    builder = flatbuffers.Builder(path.stat().st_size)
    builder.Finish(tree.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


class _Watched(io.TextIOBase):
    """What onnx2tf prints, handed on; remembers the node it says it failed at."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self.node = ""

    def write(self, text: str) -> int:
        match = _FAILED.search(text)
        if match:
            self.node = match["name"].strip()
        return self._target.write(text)

    def flush(self) -> None:
        self._target.flush()


def _refusal(error: BaseException, graph: onnx.GraphProto, name: str) -> RefusedError:
    """Tell which node onnx2tf could not lower, and why, in the words of the first cause."""
    for each in _causes(error):
        match = _VALIDATION.search(str(each))
        if match:
            return RefusedError(
                "conversion",
                f"onnx2tf cannot convert {match['op']} {match['name']!r}: {_plain(match['why'])}",
                _OTHER,
            )
    *_, cause = _causes(error)
    named = _NAMED.search(str(cause))
    name = name or (named["name"] if named else "")
    why = "it gave no reason" if isinstance(cause, SystemExit) else first_line(cause)
    nodes = {f"n{at}": each for at, each in enumerate(graph.node)}  # as numbered for TensorFlow
    node = next((each for each in graph.node if name and each.name == name), nodes.get(name))
    if node is None:
        return RefusedError("conversion", f"onnx2tf could not convert the model: {why}", AGAIN)
    return RefusedError(
        "conversion", f"onnx2tf could not convert {node.op_type} {node.name!r}: {why}", _OTHER
    )


def _plain(why: str) -> str:
    """Give a reason without onnx2tf's options, which are not the user's to choose."""
    return "TFLite has no kernel for it in this form" if "custom_op_allowlist" in why else why


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
