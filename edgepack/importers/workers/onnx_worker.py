"""Convert ONNX models with onnxsim and onnx2tf, or run them with ONNX Runtime.

Runs inside the `onnx` toolchain on its own interpreter.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    dims_text,
    first_line,
    fix_shapes,
    serve,
)
from onnx2tf_backends import DIRECT, to_flatbuffer  # type: ignore[import-not-found]
from onnx_files import MAXIMUM_BYTES, SMALLER, load  # type: ignore[import-not-found]
from onnx_graph import (  # type: ignore[import-not-found]
    describe_inputs,
    dims_of,
    dtype_of,
    graph_inputs,
    take_outputs,
)
from onnx_outputs import check_outputs, check_steady  # type: ignore[import-not-found]
from onnx_prepare import (  # type: ignore[import-not-found]
    check_ops,
    name_nodes,
    rename_interface,
    simplify,
    simplify_for_old_opset,
    state_outputs,
    to_float32,
)
from onnx_runtime import (  # type: ignore[import-not-found]
    open_session,
    run_session,
    zeros_for,
)
from precision import check_precision  # type: ignore[import-not-found]

_PREPARED = "prepared.onnx"
_OLD_OPSET = "onnx-tf"
# Of a node's output between the user's graph and the simplified one; measured: 110 and more.
_SAME_DB = 60.0
_WIDENED = "the model computes in half precision: it was changed to float32, and compared so"
_NARROW = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


@dataclass(frozen=True, kw_only=True)
class Source:
    """A user's model with its shapes settled.

    Attributes:
        path: its file.
        model: with all of its data.
        shapes: whole shape by input name, in the model's order.
        dtypes: element type by input name.
    """

    path: Path
    model: onnx.ModelProto
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    folder = Path(request["folder"])
    answer = prepare(request)
    to_flatbuffer(folder / _PREPARED, folder, DIRECT).rename(folder / "model.tflite")
    return answer | {"file": "model.tflite", "converter": "onnx2tf"}


def prepare(request: Request) -> dict[str, Any]:
    """Write `prepared.onnx` in the work folder; describe the source's inputs and outputs."""
    source = open_source(request)
    check_ops(source.model)
    exposed = request.get("expose")
    outputs = settle_outputs(source, watched=True)
    name_nodes(source.model)
    simplified = simplify(source.model, source.shapes)
    described = describe_inputs(simplified, list(source.shapes))
    if exposed:
        source = replace(source, model=take_outputs(source.model, exposed))
        outputs = settle_outputs(source, changed=True)
        simplified = take_outputs(simplified, exposed)
    if request.get("converter") == _OLD_OPSET:
        simplified = simplify_for_old_opset(simplified, source.shapes)
    prepared = rename_interface(simplified)
    save(prepared, Path(request["folder"]) / _PREPARED, source.path.name)
    return {
        "file": _PREPARED,
        "inputs": [
            {"name": name, "shape": list(shape), "dtype": source.dtypes[name]} | extra
            for (name, shape), extra in zip(source.shapes.items(), described, strict=True)
        ],
        "outputs": [
            {"name": value.name, "shape": list(array.shape), "dtype": array.dtype.name}
            for value, array in zip(source.model.graph.output, outputs, strict=True)
        ],
        "model_inputs": [each.name for each in prepared.graph.input],
        "model_outputs": [each.name for each in prepared.graph.output],
        "notes": [_WIDENED] if is_narrow(source.model) else [],
    }


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it.

    A source that computes in half precision is run in float32, as the converted model is, once
    its own answers have been found to agree as far as its precision goes. That ONNX Runtime
    runs it as it is was seen when it was prepared.
    """
    path, folder = Path(request["model"]), Path(request["folder"])
    model = load(path, trust=request["trust_model"])
    inputs = graph_inputs(model)
    exposed = request.get("expose")
    names = [each.name for each in inputs]
    changed = take_outputs(model, exposed) if exposed else None
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [arrays[str(index)] for index in range(len(inputs))]
    title = "ONNX Runtime"
    own = None
    if is_narrow(model):
        if not exposed:
            typed = [c.astype(dtype_of(e)) for c, e in zip(columns, inputs, strict=True)]
            own = run_samples(open_session(path), names, typed)
        changed = changed or model
        to_float32(changed)
        title = "ONNX Runtime in float32"
        columns = [c.astype(np.float32) if c.dtype.kind == "f" else c for c in columns]
    results = run_samples(open_session(path, changed), names, columns)
    if own is not None:
        check_precision([each.name for each in model.graph.output], own, results)
    num_outputs = len((changed or model).graph.output)
    stacked = {
        str(index): np.stack([sample[index] for sample in results]) for index in range(num_outputs)
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": title}


def run_samples(
    session: Any,  # noqa: ANN401 - ONNX Runtime is untyped
    names: Sequence[str],
    columns: Sequence[Any],
) -> list[list[Any]]:
    """Run each sample of the inputs' columns; give its outputs."""
    return [
        run_session(session, dict(zip(names, sample, strict=True)))
        for sample in zip(*columns, strict=True)
    ]


def nodes(request: Request) -> dict[str, Any]:
    """List the nodes whose outputs the simplified graph still computes, in their order.

    Simplification may leave a name to a tensor of another value (a convolution that took its
    batch normalization in), so both graphs are run, and only what agrees is listed.
    """
    source = open_source(request)
    settle_outputs(source)
    simplified = simplify(source.model, source.shapes)
    name_nodes(source.model)
    kept = {name for node in simplified.graph.node for name in node.output if name}
    makers = [
        (node, node.output[0])
        for node in source.model.graph.node
        if node.output and node.output[0] in kept
    ]
    names = [name for _, name in makers]
    widened = take_outputs(source.model, names)
    to_float32(widened)
    feeds = plausible_feeds(source, simplified)
    left = run_session(open_session(source.path, widened), feeds)
    right = run_session(open_session(source.path, take_outputs(simplified, names)), feeds)
    return {
        "nodes": [
            {"name": node.name, "op": node.op_type, "output": name}
            for (node, name), ours, theirs in zip(makers, left, right, strict=True)
            if same_values(ours, theirs)
        ]
    }


def open_source(request: Request) -> Source:
    """Read the request's model and settle its shapes."""
    path = Path(request["model"])
    model = load(path, trust=request["trust_model"])
    inputs = graph_inputs(model)
    shapes = fix_shapes(
        [(each.name, dims_of(each)) for each in inputs],
        request["input_shapes"],
        request.get("dimensions"),
    )
    huge = [
        f"{each.name!r} of shape {dims_text(shape)}"
        for each, shape in zip(inputs, shapes, strict=True)
        if math.prod(shape) > MAXIMUM_BYTES
    ]
    if huge:
        raise RefusedError(
            "model",
            f"expected inputs of less than 2 GB, but these hold more: {', '.join(huge)}",
            "Give smaller shapes with --input-shape NAME=1,3,224,224 or --dim NAME=224.",
        )
    return Source(
        path=path,
        model=model,
        shapes={each.name: shape for each, shape in zip(inputs, shapes, strict=True)},
        dtypes={each.name: dtype_of(each) for each in inputs},
    )


def settle_outputs(source: Source, *, changed: bool = False, watched: bool = False) -> list[Any]:
    """Run the source: proves the shapes, and tells those of the outputs.

    It runs on zeros; where it cannot do these, on noise: what divides by an input or looks for
    something in it may have no answer to zeros.

    Args:
        source: with the outputs that are wanted.
        changed: whether its model is no longer what its file holds.
        watched: whether it runs a second time, on other values, for its outputs' shapes.

    Raises:
        RefusedError: it runs on none of them, or its outputs are no tensors of one shape.
    """
    session = open_session(source.path, source.model if changed else None)
    answers: list[list[Any]] = []
    refusals: list[RefusedError] = []
    for seed in (None, 0, 1):
        try:
            answers.append(run_session(session, trial_feeds(source, seed)))
        except RefusedError as refusal:
            refusals.append(refusal)
        if len(answers) == 1 + watched:
            break
    if not answers:
        raise refusals[0]
    for outputs in answers:
        check_outputs(source.model, outputs)
    if watched:
        check_steady(source.path.name, source.model, source.shapes, answers)
    state_outputs(source.model, answers[0])
    return answers[0]


def trial_feeds(source: Source, seed: int | None) -> dict[str, Any]:
    """Give inputs of the source's own types: zeros, or noise of a seed."""
    if seed is None:
        zeros: dict[str, Any] = zeros_for(source.shapes, source.dtypes)
        return zeros
    feeds = plausible_feeds(source, source.model, seed=seed)
    return {name: array.astype(source.dtypes[name]) for name, array in feeds.items()}


def plausible_feeds(source: Source, graph: onnx.ModelProto, *, seed: int = 0) -> dict[str, Any]:
    """Give noise for float inputs, small numbers inside the range for integers.

    Args:
        source: its inputs.
        graph: the model, or what was made of it, that tells the range of integers.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    described = describe_inputs(graph, list(source.shapes))
    feeds: dict[str, Any] = {}
    for (name, shape), extra in zip(source.shapes.items(), described, strict=True):
        dtype = np.dtype(source.dtypes[name])
        if dtype.kind == "f":
            feeds[name] = generator.normal(size=shape).astype(np.float32)
        else:
            feeds[name] = generator.integers(0, min(extra.get("maximum", 1), 1) + 1, shape).astype(
                dtype
            )
    return feeds


def same_values(ours: Any, theirs: Any) -> bool:  # noqa: ANN401 - ONNX Runtime may give a list
    """Tell whether two outputs are tensors of numbers with the same values."""
    if not isinstance(ours, np.ndarray) or not isinstance(theirs, np.ndarray):
        return False
    if ours.shape != theirs.shape or ours.dtype.kind not in "fiu" or not ours.size:
        return False
    signal = ours.astype(np.float64)
    noise = signal - theirs
    power, error = float(np.sum(signal**2)), float(np.sum(noise**2))
    return error <= power * 10 ** (-_SAME_DB / 10)


def is_narrow(model: onnx.ModelProto) -> bool:
    """Tell whether a model computes in 16-bit floats, which round otherwise on each machine."""
    return any(each.data_type in _NARROW for each in model.graph.initializer) or any(
        value.type.tensor_type.elem_type in _NARROW
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
    )


def save(model: onnx.ModelProto, path: Path, title: str) -> None:
    """Write a prepared model."""
    try:
        onnx.save(model, str(path))
    except ValueError as error:  # protobuf cannot hold 2 GiB
        raise RefusedError(
            "model",
            f"{title}: expected less than 2 GB of weights: {first_line(error)}",
            SMALLER,
        ) from error


if __name__ == "__main__":
    serve({"convert": convert, "prepare": prepare, "run": run, "nodes": nodes})
