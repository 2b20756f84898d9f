"""Convert a prepared ONNX model with onnx-tf and TensorFlow's converter.

Runs inside the `onnx-tf` toolchain on its own interpreter.
"""

import re
import sys
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
from onnx_tf.backend import prepare

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    first_line,
    serve,
)

_UNKNOWN = re.compile(r"(?P<op>\w+) version (?P<version>\d+) is not implemented")
_FLEX = re.compile(r"Flex ops: (?P<ops>[\w, ]+)")
_OTHER = "Try another --converter, or replace the operation in the source model."
# What onnx-tf raises on nodes it was not made for.
_FAULTS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError,
    AssertionError, RuntimeError, OSError, ArithmeticError,
)  # fmt: skip


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder."""
    folder = Path(request["folder"])
    model = onnx.load(request["model"])
    declare_known_opset(model)
    saved = folder / "onnx-tf"
    try:
        prepare(model).export_graph(str(saved))
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        data = converter.convert()
    except Exception as error:
        # TensorFlow's and onnx's errors derive from Exception alone.
        if not isinstance(error, _FAULTS) and not type(error).__module__.startswith(
            ("tensorflow", "onnx")
        ):
            raise
        raise refusal(error, model) from error
    (folder / "model.tflite").write_bytes(data)
    return {
        "file": "model.tflite",
        "converter": "onnx-tf",
        "model_inputs": [each.name for each in model.graph.input],
        "model_outputs": [each.name for each in model.graph.output],
    }


def declare_known_opset(model: onnx.ModelProto) -> None:
    """Declare the newest opset onnx knows here, for a model of a newer one.

    Most ops are the same in both; those that are not fail, or fail the parity check.
    """
    newest = onnx.defs.onnx_opset_version()
    for each in model.opset_import:
        if each.domain in {"", "ai.onnx"}:
            each.version = min(each.version, newest)


def refusal(error: BaseException, model: onnx.ModelProto) -> RefusedError:
    """Tell which operation onnx-tf or TensorFlow's converter could not convert, and why."""
    text = str(error)
    unknown, flex = _UNKNOWN.search(text), _FLEX.search(text)
    if unknown:
        names = [each.name for each in model.graph.node if each.op_type == unknown["op"]]
        return RefusedError(
            "conversion",
            f"onnx-tf cannot convert {unknown['op']} {', '.join(map(repr, names[:5]))}: it does "
            f"not know version {unknown['version']} of that operation",
            _OTHER,
        )
    if flex:
        return RefusedError(
            "conversion",
            f"onnx-tf made TensorFlow operations of it that TFLite has no kernel for: "
            f"{flex['ops'].strip()}",
            _OTHER,
        )
    return RefusedError(
        "conversion", f"onnx-tf could not convert the model: {first_line(error)}", _OTHER
    )


if __name__ == "__main__":
    serve({"convert": convert})
