"""Making an ONNX model ready for any converter: fixed shapes, folded, float32, plain names.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from onnx import inliner, numpy_helper
from onnx_control import inline_constant_branches, select_branches  # type: ignore[import-not-found]
from onnx_graph import (  # type: ignore[import-not-found]
    all_nodes,
    graph_inputs,
    title_of,
    used_names,
)
from onnx_loops import refuse_open_loops, unroll_loops  # type: ignore[import-not-found]
from onnx_lowering import lower  # type: ignore[import-not-found]
from onnx_opsets import declare_old, expand_newer, raise_upsample  # type: ignore[import-not-found]
from onnx_runtime import AGAIN  # type: ignore[import-not-found]

_STANDARD = frozenset({"", "ai.onnx"})
# Ops of ONNX Runtime's own that onnx2tf may know, too; whether it does is its own word.
_CONTRIBUTED = "com.microsoft"
_QUANTIZED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv",
    "QLinearMatMul", "ConvInteger", "MatMulInteger", "QLinearAdd", "QLinearMul", "QGemm",
    "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu",
    "QLinearConcat", "QLinearSoftmax", "QAttention", "MatMulNBits", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
})  # fmt: skip
_MOST_SHOWN = 5
# Branches and loops may hold others; each round opens one level.
_MAXIMUM_DEPTH = 8
_FIRST_IR_WITHOUT_INITIALIZERS_AMONG_INPUTS = 4


def check_ops(model: onnx.ModelProto) -> None:
    """Refuse ops no converter has and models that are quantized already, by op and node."""
    nodes = list(all_nodes(model.graph))
    known = _STANDARD | {_CONTRIBUTED} | {each.domain for each in model.functions}
    foreign = [title_of(node) for node in nodes if node.domain not in known]
    if foreign:
        raise RefusedError(
            "model",
            f"expected operations of ONNX's own, but {len(foreign)} are of other domains, which "
            f"TFLite has no kernel for: {_shown(foreign)}",
            "Replace them in the source model by operations of ONNX's own, or move them before "
            "or after the model.",
        )
    quantized = [title_of(node) for node in nodes if node.op_type in _QUANTIZED]
    if quantized:
        raise RefusedError(
            "model",
            f"expected a float model, but this one is quantized already: {len(quantized)} nodes "
            f"hold or compute with integers that stand for floats: {_shown(quantized)}",
            "Give the float model it was made from: EdgePack quantizes it for the device.",
        )


def _shown(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - _MOST_SHOWN} more" if len(titles) > _MOST_SHOWN else ""
    return ", ".join(titles[:_MOST_SHOWN]) + more


def name_nodes(model: onnx.ModelProto) -> None:
    """Name every node that has no name after its first output, so that messages can."""
    for node in all_nodes(model.graph):
        if not node.name:
            node.name = next((name for name in node.output if name), "")


def simplify(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Fix the shapes and fold what follows from them; open what runs or repeats for certain.

    onnx2tf alone got 5 of 9 real models right, with this step 9 of 9.

    Raises:
        RefusedError: onnxsim failed, a loop cannot be written out and has to be, or a branch that
            values decide gives another shape than the other.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    if whole.functions:
        whole = inliner.inline_local_functions(whole)
    forget_default_inputs(whole)
    drop_full_lengths(whole, shapes)
    to_float32(whole)
    fixed = {name: list(shape) for name, shape in shapes.items()}
    simplified = run_onnxsim(whole, fixed)
    for _ in range(_MAXIMUM_DEPTH):
        opened = inline_constant_branches(simplified) + unroll_loops(simplified)
        # Folding may yet decide the others.
        if not opened + lower(simplified) and not select_branches(simplified):
            break
        simplified = run_onnxsim(simplified, fixed)
    refuse_open_loops(simplified)
    raise_upsample(simplified)
    return simplified


def run_onnxsim(
    model: onnx.ModelProto, shapes: Mapping[str, list[int]], *, kind: str = "model"
) -> onnx.ModelProto:
    """Run onnxsim once; `kind` is that of its failure."""
    import onnxsim  # noqa: PLC0415 - the run operation does without

    try:
        simplified: onnx.ModelProto
        simplified, _ = onnxsim.simplify(model, overwrite_input_shapes=dict(shapes))
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise RefusedError(
            kind, f"onnxsim could not simplify the model: {first_line(error)}", AGAIN
        ) from error
    return simplified


def state_outputs(model: onnx.ModelProto, outputs: Sequence[Any]) -> None:
    """Write the outputs' types and shapes into the graph; onnxsim refuses one without."""
    for value, array in zip(model.graph.output, outputs, strict=True):
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, array.shape))


def forget_default_inputs(model: onnx.ModelProto) -> None:
    """Take initializers out of the inputs: nobody feeds them, so they are constants."""
    constants = {each.name for each in model.graph.initializer}
    kept = [each for each in model.graph.input if each.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, _FIRST_IR_WITHOUT_INITIALIZERS_AMONG_INPUTS)


def drop_full_lengths(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Take constant sequence_lens out of recurrent nodes whose sequences are all whole.

    Converters know no other; exporters write them out nevertheless.
    """
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in {"LSTM", "GRU", "RNN"} or len(node.input) < 5:  # noqa: PLR2004 - sequence_lens is the fifth
            continue
        lengths = constants.get(node.input[4])
        sequence = shapes.get(node.input[0])
        if lengths is not None and sequence and bool(np.all(lengths == sequence[0])):
            node.input[4] = ""


def to_float32(model: onnx.ModelProto) -> None:
    """Make every float16, bfloat16 and float64 of the model's graph a float32.

    TFLite's kernels compute in float32; a model's smaller weights are widened exactly.
    """
    _widen_graph(model.graph)


_WIDENED = frozenset({
    onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE,
})  # fmt: skip


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _WIDENED:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.name in {"to", "dtype", "output_dtype"} and attribute.i in _WIDENED:
                attribute.i = onnx.TensorProto.FLOAT
            if attribute.HasField("g"):
                _widen_graph(attribute.g)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _WIDENED:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def rename_interface(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy with inputs i0, i1 … and outputs o0, o1 …, each output computed by a node.

    Converters rewrite odd names, each in its own way, and some drop outputs that are inputs
    or constants.
    """
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    graph = renamed.graph
    prefix = _free_prefix(graph)
    inputs = {each.name: f"{prefix}i{at}" for at, each in enumerate(graph_inputs(renamed))}
    produced = {name for node in graph.node for name in node.output}
    names = dict(inputs)
    for at, value in enumerate(graph.output):
        new = f"{prefix}o{at}"
        if value.name in produced and value.name not in names:
            names[value.name] = new
        else:
            graph.node.append(
                onnx.helper.make_node(
                    "Identity", [value.name], [new], name=f"{value.name} as {new}"
                )
            )
    for at, value in enumerate(graph.output):
        value.name = f"{prefix}o{at}"
    _rename_graph(graph, names)
    for value in (*graph.input, *graph.value_info):
        value.name = names.get(value.name, value.name)
    part_outputs(graph)
    return renamed


def part_outputs(graph: onnx.GraphProto) -> None:
    """Make outputs that are the same tensor tensors of their own.

    onnx2tf 2.6.9 removes the Identity between two outputs and leaves one without values; a
    Cast to the type it has stays.
    """
    elements = {each.name: each.type.tensor_type.elem_type for each in graph.output}
    given = {each.name for each in (*graph.input, *graph.initializer)}
    for node in graph.node:
        element = elements.get(next(iter(node.output), ""), 0)
        if node.op_type == "Identity" and element and node.input[0] not in given:
            node.op_type = "Cast"
            node.attribute.append(onnx.helper.make_attribute("to", element))


def _rename_graph(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for side in (node.input, node.output):
            for at, name in enumerate(side):
                side[at] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename_graph(attribute.g, names)
                for value in attribute.g.output:
                    value.name = names.get(value.name, value.name)


def _free_prefix(graph: onnx.GraphProto) -> str:
    """Give a prefix no name in the graph starts with, the empty one if it may be."""
    taken = {each.name for each in graph.initializer}
    for node in all_nodes(graph):
        taken.update(node.output, used_names(node))
    prefix = ""
    while any(name.startswith((f"{prefix}i", f"{prefix}o")) and name[len(prefix) + 1 :].isdecimal()
              for name in taken):  # fmt: skip
        prefix += "edgepack_"
    return prefix


def simplify_for_old_opset(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]
) -> onnx.ModelProto:
    """Write a simplified model in the opset that onnx-tf knows."""
    fixed = {name: list(shape) for name, shape in shapes.items()}
    for _ in range(_MAXIMUM_DEPTH):  # what an op is defined by may be newer, too
        expanded = expand_newer(model)
        if expanded is model:
            break
        model = run_onnxsim(expanded, fixed, kind="conversion")  # for one converter only
    name_nodes(model)
    declared: onnx.ModelProto = declare_old(model)
    return declared
