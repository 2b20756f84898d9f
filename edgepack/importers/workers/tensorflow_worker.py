"""Convert Keras files and SavedModels with TensorFlow's TFLite converter, or run them.

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
    fix_shapes,
    serve,
)
from flat_source import LOAD_ERRORS, Source  # type: ignore[import-not-found]
from keras_files import load_keras  # type: ignore[import-not-found]
from saved_models import load_saved_model  # type: ignore[import-not-found]


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    source = load(request)
    shapes = fix_shapes([(name, dims) for name, dims, _ in source.inputs], request["input_shapes"])
    specs = [
        tf.TensorSpec(shape, dtype, name=f"i{index}")
        for index, (shape, (_, _, dtype)) in enumerate(zip(shapes, source.inputs, strict=True))
    ]
    folder = Path(request["folder"])
    try:
        frozen, outputs = freeze(source, specs, folder / "frozen")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(frozen))
        data = converter.convert()
    except Exception as error:
        # The converter's own error class stands in a private module.
        if type(error).__name__ == "ConverterError":
            raise unsupported(error) from error
        if not isinstance(error, LOAD_ERRORS):
            raise
        raise RefusedError(
            "conversion",
            f"TensorFlow could not convert the model: {first_line(error)}",
            "Check that the model runs on one sample of these shapes: "
            + "; ".join(f"{name} {shape}" for (name, _, _), shape in zip(source.inputs, shapes)),  # noqa: B905 - equal by construction
        ) from error
    (folder / "model.tflite").write_bytes(data)
    return {
        "file": "model.tflite",
        "converter": "TFLiteConverter",
        "inputs": [
            {"name": name, "shape": list(shape), "dtype": dtype.name}
            for (name, _, dtype), shape in zip(source.inputs, shapes, strict=True)
        ],
        "outputs": [
            {"name": name, "shape": spec.shape.as_list(), "dtype": spec.dtype.name}
            for name, spec in zip(source.output_names, outputs, strict=True)
        ],
        # The converter sorts outputs as it likes.
        "model_inputs": [f"i{index}" for index in range(len(specs))],
        "model_outputs": [f"o{index}" for index in range(len(outputs))],
    }


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it."""
    source = load(request)
    folder = Path(request["folder"])
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [arrays[str(index)] for index in range(len(source.inputs))]
    dtypes = [dtype for _, _, dtype in source.inputs]
    function = tf.function(source.call)
    results: list[list[Any]] = []
    try:
        for sample in zip(*columns, strict=True):
            tensors = [tf.constant(a, t) for a, t in zip(sample, dtypes, strict=True)]
            results.append([value.numpy() for value in function(*tensors)])
    except LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"TensorFlow cannot run the model on the samples: {first_line(error)}",
            "Give samples of the shapes and values the model was made for, with --data.",
        ) from error
    stacked = {
        str(index): np.stack([sample[index] for sample in results])
        for index in range(len(source.output_names))
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": request["title"]}


def freeze(source: Source, specs: list[Any], folder: Path) -> tuple[Path, list[Any]]:
    """Write the function as a SavedModel without variables; give its folder and output specs.

    The converter (TensorFlow 2.21) leaves READ_VARIABLE ops in a Keras 3 model otherwise, and
    runtimes have no optimized kernels around them.
    """
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    concrete = tf.function(
        lambda *tensors: [tf.identity(value) for value in source.call(*tensors)],
        input_signature=specs,
    ).get_concrete_function()
    constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    outputs = list(constant.outputs)

    def named(*tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow is untyped
        values = tf.nest.flatten(constant(*tensors))
        return {f"o{index}": value for index, value in enumerate(values)}

    function = tf.function(named, input_signature=specs)
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": function})
    return folder, outputs


def unsupported(error: Exception) -> RefusedError:
    """Name the ops TFLite lacks out of the converter's long message."""
    text = str(error)
    ops = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", text)))
    for listed in re.findall(r"(?:TF Select|Custom) ops: (.+)", text):
        ops.extend(f"tf.{op.strip()}" for op in listed.split(","))
    if not ops:
        return RefusedError(
            "conversion",
            f"TensorFlow's TFLite converter failed: {first_line(error)}",
            "Remove the layer named there, or export the model to ONNX and import that.",
        )
    return RefusedError(
        "conversion",
        f"TFLite has no kernel for {', '.join(sorted(set(ops)))}",
        "Replace these operations in the source model by ones TFLite has, or move them before "
        "or after the model.",
    )


def load(request: Request) -> Source:
    """Load the source model in the way its format asks for."""
    path = Path(request["model"])
    if request["format"] == "saved_model":
        return load_saved_model(path, request["signature"], trust=request["trust_model"])
    return load_keras(path, trust=request["trust_model"])


if __name__ == "__main__":
    serve({"convert": convert, "run": run})
