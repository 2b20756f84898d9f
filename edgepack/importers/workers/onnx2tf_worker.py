"""Convert a prepared ONNX model with onnx2tf through Keras and TensorFlow's converter.

Runs inside the `onnx2tf-tensorflow` toolchain on its own interpreter.
"""

import sys
from pathlib import Path
from typing import Any

import onnx

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import Request, serve  # type: ignore[import-not-found] # siblings, see above
from onnx2tf_backends import TENSORFLOW, to_flatbuffer  # type: ignore[import-not-found]


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder."""
    path, folder = Path(request["model"]), Path(request["folder"])
    graph = onnx.load(str(path)).graph
    to_flatbuffer(path, folder, TENSORFLOW).rename(folder / "model.tflite")
    return {
        "file": "model.tflite",
        "converter": "onnx2tf with TensorFlow",
        "model_inputs": [each.name for each in graph.input],
        "model_outputs": [each.name for each in graph.output],
    }


if __name__ == "__main__":
    serve({"convert": convert})
