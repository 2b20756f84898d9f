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
# As of TensorFlow's sources of half precision: what is less is no rounding.
_LEAST_AGREEMENT_DB = 20
_ROUNDING = 1e-3
_LEAST_EQUAL = 0.5
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
                "conversion",
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
            "Give shapes the model accepts with --input-shape NAME=1,3,224,224 or --dim NAME=224.",
        ) from error


def zeros_for(shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Give zeros for every input."""
    return {name: np.zeros(shape, dtypes[name]) for name, shape in shapes.items()}


def check_precision(
    names: Sequence[str], own: Sequence[Sequence[Any]], wide: Sequence[Sequence[Any]]
) -> None:
    """Refuse a source whose own answers in half precision are far from those in float32.

    Both by sample, then by output. Ids that are not as near as numbers must be mostly the same:
    rounding decides between two that are as likely.
    """
    faults: list[str] = []
    for index, name in enumerate(names):
        pairs = [
            (np.asarray(a[index]), np.asarray(b[index])) for a, b in zip(own, wide, strict=True)
        ]
        if any(ours.shape != theirs.shape for ours, theirs in pairs):
            faults.append(f"{name} (of another shape)")
            continue
        ours = np.concatenate([each.ravel() for each, _ in pairs]).astype(np.float64)
        theirs = np.concatenate([each.ravel() for _, each in pairs]).astype(np.float64)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.subtract(ours, theirs, out=np.zeros_like(ours), where=~same)
        noise = np.sum(np.square(difference))
        signal = np.sum(np.square(theirs, out=np.zeros_like(theirs), where=np.isfinite(theirs)))
        if noise <= signal * 10 ** (-_LEAST_AGREEMENT_DB / 10) + ours.size * _ROUNDING**2:
            continue
        if pairs[0][1].dtype.kind != "f" and np.mean(same) >= _LEAST_EQUAL:
            continue
        faults.append(f"{name} (largest difference {np.max(np.abs(difference)):.3g})")
    if faults:
        raise RefusedError(
            "model",
            "expected a model of half precision to answer in float32 as it does itself, within "
            f"{_LEAST_AGREEMENT_DB} dB, but these outputs differ: {', '.join(faults)}",
            "Export the model in float32.",
        )


def check_outputs(model: onnx.ModelProto, outputs: Sequence[Any]) -> None:
    """Refuse outputs that are no tensors of numbers, or that hold none."""
    for value, array in zip(model.graph.output, outputs, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise RefusedError(
                "model",
                f"output {value.name!r} is no tensor of numbers",
                "Remove that output from the model and export it again.",
            )
