"""Convert a prepared ONNX model with onnx-tf and TensorFlow's converter.

Runs inside the `onnx-tf` toolchain on its own interpreter.
"""

import re
import sys
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
from onnx_tf.backend import prepare  # type: ignore[import-not-found] # in its toolchain only

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    first_line,
    serve,
)

_UNKNOWN = re.compile(
    r"(?:registered for )?(?P<op>\w+) (?:(?:version \d+ )?is not implemented|with domain_version)"
)
_HANDLER = re.compile(r"handlers/backend/(\w+)\.py")
_REASON = re.compile(r"^\s*\w+(?:Error|Exception): (.*)$", re.MULTILINE)
_MOST_SHOWN = 5
_FLEX = re.compile(r"'tf\.(\w+)' op is neither|Flex ops: (\w+)")
_OTHER = "Replace the operation in the source model."
# What onnx-tf raises on nodes it was not made for.
_FAULTS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError,
    AssertionError, RuntimeError, OSError, ArithmeticError,
)  # fmt: skip


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder."""
    folder = Path(request["folder"])
    model = onnx.load(request["model"])
    saved = folder / "onnx-tf"
    try:
        prepare(model, auto_cast=True).export_graph(str(saved))
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


def refusal(error: BaseException, model: onnx.ModelProto) -> RefusedError:
    """Tell which operation onnx-tf or TensorFlow's converter could not convert, and why."""
    text = str(error)
    flex = sorted({first or second for first, second in _FLEX.findall(text)})
    if flex:
        return RefusedError(
            "conversion",
            "onnx-tf made TensorFlow operations of the model that TFLite has no kernel for: "
            f"{', '.join(flex)}",
            _OTHER,
        )
    reason = _REASON.findall(text)
    why = reason[-1].strip() if reason else first_line(error)
    # onnx-tf's errors name no node; the file of its own that failed is called after the op.
    files = _HANDLER.findall(text)
    unknown = _UNKNOWN.search(text)
    wanted = unknown["op"] if unknown else files[-1] if files else ""
    nodes = [each for each in model.graph.node if wanted and _plain(each.op_type) == _plain(wanted)]
    if not nodes:
        return RefusedError("conversion", f"onnx-tf could not convert the model: {why}", _OTHER)
    names = ", ".join(repr(each.name) for each in nodes[:_MOST_SHOWN])
    return RefusedError(
        "conversion", f"onnx-tf cannot convert {nodes[0].op_type} {names}: {why}", _OTHER
    )


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


if __name__ == "__main__":
    serve({"convert": convert})
