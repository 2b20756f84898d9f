"""Convert Keras files, SavedModels and frozen graphs with the TFLite converter, or run them.

Runs inside the `tensorflow` toolchain on its own interpreter.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    first_line,
    serve,
)
from flat_source import (  # type: ignore[import-not-found]
    LOAD_ERRORS,
    MOST_SHOWN,
    Source,
    reason,
    settle_shapes,
)
from frozen_function import (  # type: ignore[import-not-found]
    FrozenFunction,
    exposing,
    freeze,
    largest_index,
    list_nodes,
    title_of,
)
from frozen_graphs import load_frozen_graph  # type: ignore[import-not-found]
from keras_files import load_keras  # type: ignore[import-not-found]
from saved_models import load_saved_model  # type: ignore[import-not-found]
from with_files import defined_objects, load_files  # type: ignore[import-not-found]

# loc(callsite(fused["MaxPool3D:", "net/pool/MaxPool3D@__inference_7"] ...: 'tf.MaxPool3D' op is ...
_LACKING = re.compile(
    r"loc\((?:callsite\()?fused\[\"\w+:\", \"(?P<node>[^\"@]+)[^\n]*"
    r"'tf\.(?P<op>\w+)' op is neither"
)


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    source, shapes = load(request)
    folder = Path(request["folder"])
    frozen = trace(request, source, shapes)
    try:
        outputs = frozen.output_specs()
        converter = tf.lite.TFLiteConverter.from_saved_model(str(save(frozen, folder / "frozen")))
        data = converter.convert()
    except Exception as error:
        # The converter's own error class stands in a private module.
        if type(error).__name__ == "ConverterError":
            raise unsupported(error, source.layers) from error
        if not isinstance(error, LOAD_ERRORS):
            raise
        raise untraceable(source, shapes, error) from error
    (folder / "model.tflite").write_bytes(data)
    names = source.output_names if request["expose"] is None else request["expose"]
    return {
        "file": "model.tflite",
        "converter": "TFLiteConverter",
        "inputs": [
            {"name": name, "shape": list(shape), "dtype": dtype.name}
            | ({} if (maximum := largest_index(tensor)) is None else {"maximum": maximum})
            for (name, _, dtype), shape, tensor in zip(
                source.inputs, shapes, frozen.inputs, strict=True
            )
        ],
        "outputs": [
            {"name": name, "shape": list(shape), "dtype": dtype.name}
            for name, (shape, dtype) in zip(names, outputs, strict=True)
        ],
        # The converter sorts outputs as it likes.
        "model_inputs": [f"i{index}" for index in range(len(shapes))],
        "model_outputs": [f"o{index}" for index in range(len(outputs))],
    }


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it."""
    source, shapes = load(request)
    folder = Path(request["folder"])
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [arrays[str(index)] for index in range(len(source.inputs))]
    exposed = None if request["expose"] is None else trace(request, source, shapes)
    function = tf.function(source.call if exposed is None else exposed.call())
    results: list[list[Any]] = []
    try:
        for sample in zip(*columns, strict=True):
            tensors = [tf.constant(a, t) for a, t in zip(sample, source.dtypes, strict=True)]
            results.append([value.numpy() for value in function(*tensors)])
    except LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"TensorFlow cannot run the model on the samples: {reason(error)}",
            "Give samples of the shapes and values the model was made for, with --data.",
        ) from error
    num_outputs = len(source.output_names if exposed is None else exposed.outputs)
    stacked = {
        str(index): np.stack([sample[index] for sample in results]) for index in range(num_outputs)
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": request["title"]}


def nodes(request: Request) -> dict[str, Any]:
    """Give the nodes of the source's graph whose outputs can be looked at."""
    source, shapes = load(request)
    frozen = trace(request, source, shapes)
    return {"nodes": list_nodes(frozen, source.layers)}


def load(request: Request) -> tuple[Source, list[tuple[int, ...]]]:
    """Load the source in the way its format asks for, and settle its inputs' shapes."""
    path, trust = Path(request["model"]), request["trust_model"]
    own = load_files(request["with_files"])
    match request["format"]:
        case "saved_model":
            source = load_saved_model(path, request["signature"], trust=trust)
        case "frozen_graph":
            source = load_frozen_graph(path, request["signature"], trust=trust)
        case _:
            source = load_keras(path, trust=trust, objects=defined_objects(own))
    return source, settle_shapes(source, request["input_shapes"])


def trace(request: Request, source: Source, shapes: list[tuple[int, ...]]) -> FrozenFunction:
    """Freeze the source; with the tensors asked for as its outputs."""
    try:
        frozen = freeze(source, shapes)
    except LOAD_ERRORS as error:
        raise untraceable(source, shapes, error) from error
    return frozen if request["expose"] is None else exposing(frozen, request["expose"])


def save(frozen: FrozenFunction, folder: Path) -> Path:
    """Write a SavedModel with the inputs i0, i1 and the outputs o0, o1 and so on."""
    call = frozen.call()
    specs = [
        tf.TensorSpec(each.shape, each.dtype, name=f"i{index}")
        for index, each in enumerate(frozen.inputs)
    ]

    def named(*tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow is untyped
        return {f"o{index}": value for index, value in enumerate(call(*tensors))}

    function = tf.function(named, input_signature=specs)
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": function})
    return folder


def untraceable(source: Source, shapes: list[tuple[int, ...]], error: Exception) -> RefusedError:
    """Tell that the model does not even run on these shapes."""
    return RefusedError(
        "conversion",
        f"TensorFlow could not convert the model: {reason(error)}",
        "Check that the model runs on one sample of these shapes: "
        + "; ".join(
            f"{name} {shape}" for (name, _, _), shape in zip(source.inputs, shapes, strict=True)
        ),
    )


def unsupported(error: Exception, layers: frozenset[str]) -> RefusedError:
    """Name the ops TFLite lacks, and where they stand, out of the converter's long message."""
    text = str(error)
    found: dict[str, list[str]] = {}
    for each in _LACKING.finditer(text):
        found.setdefault(each["op"], []).append(title_of(each["node"], layers))
    for listed in re.findall(r"(?:TF Select|Custom) ops: (.+)", text):
        for op in listed.split(","):
            found.setdefault(op.strip(), [])
    if not found:
        return RefusedError(
            "conversion",
            f"TensorFlow's TFLite converter failed: {first_line(error)}",
            "Remove the layer named there, or export the model to ONNX and import that.",
        )
    parts = [
        f"tf.{op}" + (f" (in {', '.join(dict.fromkeys(places[:MOST_SHOWN]))})" if places else "")
        for op, places in sorted(found.items())
    ]
    return RefusedError(
        "conversion",
        f"TFLite has no kernel for {', '.join(parts)}",
        "Replace these operations in the source model by ones TFLite has, or move them before "
        "or after the model.",
    )


if __name__ == "__main__":
    serve({"convert": convert, "run": run, "nodes": nodes})
