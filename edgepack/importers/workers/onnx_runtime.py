"""Running an ONNX model with ONNX Runtime, as it stands: the reference of every import.

Runs inside a toolchain on its own interpreter.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)

AGAIN = "The model may still work when exported again with another opset or exporter."
_UNREGISTERED = re.compile(r"(?P<op>[\w.]+:[\w.]+)\(-?\d+\) is not a registered function")
_NODE = re.compile(r"running (?P<op>\w+) node\. Name:'(?P<name>[^']*)'")
_OPSET = re.compile(r"Opset (?P<opset>\d+) is under development.*till opset (?P<newest>\d+)")


def open_session(source: Path, model: onnx.ModelProto | None = None) -> Any:  # noqa: ANN401 - ONNX Runtime is untyped
    """Open a file, or a model made of it, in ONNX Runtime.

    The file's external data is found beside it; a model must hold all of its data.
    """
    import onnxruntime  # noqa: PLC0415 - slow

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    try:
        return onnxruntime.InferenceSession(
            str(source) if model is None else model.SerializeToString(),
            sess_options=options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:
        # ONNX Runtime's exceptions derive from Exception alone and their module is private.
        if "onnxruntime" not in type(error).__module__:
            raise
        unknown = _UNREGISTERED.search(str(error))
        if unknown:
            raise RefusedError(
                "model",
                f"{source.name}: it uses the operation {unknown['op']}, which ONNX does not have",
                "Replace it in the source model by operations of ONNX's own.",
            ) from error
        newer = _OPSET.search(str(error))
        if newer:
            raise RefusedError(
                "model",
                f"{source.name}: expected opset {newer['newest']} or older, not {newer['opset']}",
                f"Export the model with opset {newer['newest']}.",
            ) from error
        raise RefusedError(
            "model", f"{source.name}: ONNX Runtime cannot load it: {first_line(error)}", AGAIN
        ) from error


def run_session(
    session: Any,  # noqa: ANN401 - see above
    feeds: Mapping[str, Any],
    wanted: Sequence[str] | None = None,
) -> list[Any]:
    """Run one sample; give the wanted outputs, or all."""
    try:
        return list(session.run(wanted, dict(feeds)))
    except Exception as error:
        if "onnxruntime" not in type(error).__module__:
            raise
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        node = _NODE.search(str(error))
        at = f" at {node['op']} {node['name']!r}" if node else ""
        raise RefusedError(
            "model",
            f"ONNX Runtime cannot run the model on {shapes}{at}: {first_line(error)}",
            "Give shapes the model accepts with --input-shape NAME=1,3,224,224 or --dim NAME=224. "
            "If it is the values that it cannot take: it must run on zeros or on noise.",
        ) from error


def zeros_for(shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Give zeros for every input."""
    return {name: np.zeros(shape, dtypes[name]) for name, shape in shapes.items()}
