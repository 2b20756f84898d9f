"""Convert ONNX models with onnxsim and onnx2tf, or run them with ONNX Runtime.

Runs inside the `onnx` toolchain on its own interpreter.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    first_line,
    fix_shapes,
    serve,
)

_KEEP = "The model may still work when exported again with another opset or exporter."
_UNREGISTERED = re.compile(r"(?P<op>[\w.]+:[\w.]+)\(-?\d+\) is not a registered function")
_MOST_SHOWN = 10


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    source = Path(request["model"])
    folder = Path(request["folder"])
    model = load(source, trust=request["trust_model"])
    inputs = graph_inputs(model)
    shapes = fix_shapes([(each.name, dims_of(each)) for each in inputs], request["input_shapes"])
    fixed = {each.name: list(shape) for each, shape in zip(inputs, shapes, strict=True)}
    simplified = simplify(model, fixed)
    outputs = try_run(source, model, fixed)
    path = folder / "simplified.onnx"
    try:
        onnx.save(simplified, str(path))
    except ValueError as error:  # protobuf cannot hold 2 GiB
        raise RefusedError(
            "model",
            f"{source.name}: expected less than 2 GB of weights: {first_line(error)}",
            "Split the model, or quantize its weights before importing it.",
        ) from error
    flatbuffer = to_flatbuffer(path, folder)
    flatbuffer.rename(folder / "model.tflite")
    return {
        "file": "model.tflite",
        "converter": "onnx2tf",
        "inputs": [
            {"name": each.name, "shape": list(shape), "dtype": dtype_of(each)}
            for each, shape in zip(inputs, shapes, strict=True)
        ],
        "outputs": [
            {"name": value.name, "shape": list(array.shape), "dtype": array.dtype.name}
            for value, array in zip(model.graph.output, outputs, strict=True)
        ],
    }


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it."""
    source = Path(request["model"])
    folder = Path(request["folder"])
    model = load(source, trust=request["trust_model"])
    names = [each.name for each in graph_inputs(model)]
    session = open_session(source)
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [arrays[str(index)] for index in range(len(names))]
    results = [
        run_session(session, dict(zip(names, sample, strict=True)))
        for sample in zip(*columns, strict=True)
    ]
    stacked = {
        str(index): np.stack([sample[index] for sample in results])
        for index in range(len(model.graph.output))
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": "ONNX Runtime"}


def load(source: Path, *, trust: bool) -> onnx.ModelProto:
    """Read a model; its external data only from within its own folder."""
    # DecodeError is protobuf's; importing it would tie this script to one of its layouts.
    try:
        model = onnx.load(str(source), load_external_data=False)
    except Exception as error:
        if type(error).__name__ != "DecodeError":
            raise
        raise RefusedError(
            "model",
            f"{source.name}: expected an ONNX model, but parsing it failed: {first_line(error)}",
            "Copy or export the model again and compare its checksum.",
        ) from error
    if not trust:
        confine_external_data(model, source.parent)
    try:
        onnx.load_external_data_for_model(model, str(source.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise RefusedError(
            "model",
            f"{source.name}: its external data cannot be read: {first_line(error)}",
            "Put the data files beside the model, under the names it was exported with.",
        ) from error
    return model


def confine_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Refuse external data outside the model's folder: absolute paths, `..`, links out."""
    root = folder.resolve()
    faults: list[str] = []
    for tensor in all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        pure = PurePosixPath(location.replace("\\", "/"))
        outside = pure.is_absolute() or ".." in pure.parts or not location
        if outside or not (root / pure).resolve().is_relative_to(root):
            faults.append(f"{tensor.name!r} in {location!r}")
    if faults:
        shown = ", ".join(sorted(set(faults))[:_MOST_SHOWN])
        raise RefusedError(
            "model",
            f"expected external data inside the model's folder {root}, "
            f"but {len(faults)} of its tensors lie outside: {shown}",
            "Move the data into the model's folder and export again, or pass --trust-model "
            "if you know where this model comes from.",
        )


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Give every tensor that may name a file: initializers and attributes, at any depth."""
    yield from graph_tensors(model.graph)
    for function in model.functions:
        yield from node_tensors(function.node)


def graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Give a graph's tensors, with those of its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from node_tensors(graph.node)


def node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Give the tensors of nodes' attributes, with those of their subgraphs."""
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from graph_tensors(graph)


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
        fixed = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        dims.append(fixed if fixed is not None else dim.dim_param or None)
    return tuple(dims)


def dtype_of(value: onnx.ValueInfoProto) -> str:
    """Give a value's element type as numpy names it."""
    element = value.type.tensor_type.elem_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    if dtype.kind not in "fiub" or element == onnx.TensorProto.BFLOAT16:
        raise RefusedError(
            "model",
            f"input {value.name!r} holds {onnx.TensorProto.DataType.Name(element)}; "
            "EdgePack feeds numbers",
            "Move that step out of the model and export it again.",
        )
    return str(dtype.name)


def simplify(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> onnx.ModelProto:
    """Fix the shapes and fold what follows from them.

    onnx2tf alone got 5 of 9 real models right, with this step 9 of 9.
    """
    import onnxsim  # noqa: PLC0415 - the run operation does without

    try:
        simplified: onnx.ModelProto
        simplified, _ = onnxsim.simplify(model, overwrite_input_shapes=shapes)
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise RefusedError(
            "conversion", f"onnxsim could not simplify the model: {first_line(error)}", _KEEP
        ) from error
    return simplified


def open_session(source: Path) -> Any:  # noqa: ANN401 - ONNX Runtime is untyped
    """Open a model in ONNX Runtime as it stands, with none of our changes."""
    import onnxruntime  # noqa: PLC0415 - slow

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    try:
        return onnxruntime.InferenceSession(
            str(source), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # ONNX Runtime's exceptions derive from Exception alone and their module is private.
        if "onnxruntime" not in type(error).__module__:
            raise
        unknown = _UNREGISTERED.search(str(error))
        if unknown:
            raise RefusedError(
                "conversion",
                f"{source.name}: it uses the operation {unknown['op']}, which ONNX does not have",
                "Replace it in the source model by operations of ONNX's own.",
            ) from error
        raise RefusedError(
            "model", f"{source.name}: ONNX Runtime cannot load it: {first_line(error)}", _KEEP
        ) from error


def run_session(session: Any, feeds: dict[str, Any]) -> list[Any]:  # noqa: ANN401 - see above
    """Run one sample."""
    try:
        return list(session.run(None, feeds))
    except Exception as error:
        if "onnxruntime" not in type(error).__module__:
            raise
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        raise RefusedError(
            "model",
            f"ONNX Runtime cannot run the model on {shapes}: {first_line(error)}",
            "Give shapes the model accepts with --input-shape NAME=1,3,224,224.",
        ) from error


def try_run(source: Path, model: onnx.ModelProto, shapes: dict[str, list[int]]) -> list[Any]:
    """Run the source once on zeros: proves the shapes, and tells those of the outputs."""
    dtypes = {each.name: dtype_of(each) for each in graph_inputs(model)}
    zeros = {name: np.zeros(shape, dtypes[name]) for name, shape in shapes.items()}
    outputs = run_session(open_session(source), zeros)
    for value, array in zip(model.graph.output, outputs, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise RefusedError(
                "model",
                f"output {value.name!r} is no tensor of numbers",
                "Remove that output from the model and export it again.",
            )
    return outputs


def to_flatbuffer(path: Path, folder: Path) -> Path:
    """Convert with onnx2tf's TensorFlow-free backend; refuse ops it does not know."""
    import onnx2tf  # noqa: PLC0415 - the run operation does without

    written = folder / "onnx2tf"
    try:
        onnx2tf.convert(
            input_onnx_file_path=str(path),
            output_folder_path=str(written),
            tflite_backend="flatbuffer_direct",
            not_use_onnxsim=True,  # done, with fixed shapes
            non_verbose=True,
        )
    except SystemExit as error:  # onnx2tf 2.6.9 ends the process on a node it cannot lower
        raise RefusedError("conversion", "onnx2tf gave up on the model", _KEEP) from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError,
            AssertionError, RuntimeError, OSError, ImportError) as error:  # fmt: skip
        raise RefusedError(
            "conversion", f"onnx2tf could not convert the model: {first_line(error)}", _KEEP
        ) from error
    found = sorted(written.glob("*_float32.tflite"))
    if len(found) != 1:
        raise RefusedError(
            "conversion",
            f"expected one float32 model of onnx2tf, but it wrote {len(found)}",
            "Models above 1 GB are split by onnx2tf; make the model smaller.",
        )
    return found[0]


if __name__ == "__main__":
    serve({"convert": convert, "run": run})
