"""Running a model on this machine, in a child process that may die of it."""

import re
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.child import ChildExit, read_arrays, run_child, write_arrays
from edgepack.errors import DataError, ModelError
from edgepack.model import Model, TensorSpec
from edgepack.scratch import open_scratch

Feeds = Sequence[tuple[NDArray[Any], ...]]
"""One tuple a sample: the inputs in the model's order, in the model's element types."""

Answers = tuple[tuple[NDArray[Any], ...], ...]
"""One tuple a sample: the outputs in the model's order."""

RunModel = Callable[[Model, Feeds], Answers]
"""How a model is run: `run_model`, or something that keeps what it gave."""

_TIMEOUT_SECONDS: Final = 1800.0
# What LiteRT 2.3 says of ops it has no kernel for (core/subgraph.cc, op_resolver.cc).
_UNSUPPORTED: Final = (
    re.compile(r"unresolved custom op: (?P<op>\S+?)\.?(?:\s|$)"),
    re.compile(r"Didn't find op for builtin opcode '(?P<op>[^']+)'"),
    re.compile(r"Op builtin_code out of range: (?P<op>\d+)"),
    re.compile(r"Node number \d+ \((?P<op>Flex\w+)\) failed to prepare"),
)


def run_model(
    model: Model,
    feeds: Feeds,
    *,
    num_threads: int = 1,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Answers:
    """Run a model on feeds and give each sample's outputs, in the model's order.

    All samples run in one child process, so a model that crashes the runtime is an error
    here, and so is one that takes three quarters of the machine's memory. The samples of a
    model that keeps state are one stream, in order; one that keeps it within a sequence only
    is reset before each sample.

    Raises:
        DataError: a feed does not fit the model's inputs in count, shape or element type.
        ModelError: the runtime lacks an op (named), refuses the model, crashes on it, or does
            not end within `timeout_seconds`.
    """
    _check_feeds(model, feeds)
    if not feeds:
        return ()
    with open_scratch("evaluate") as folder:
        (folder / "model.tflite").write_bytes(model.data)
        write_arrays(folder / "feeds", chain.from_iterable(feeds))
        ended = run_child(
            "edgepack.evaluate_worker",
            [str(num_threads), *(["stream"] if model.is_stream else [])],
            folder=folder,
            timeout_seconds=timeout_seconds,
        )
        if ended.answer is None or "error" in ended.answer:
            raise _failure(ended)
        outputs = read_arrays(folder / "outputs")
        num_outputs = len(model.signature.outputs)
        return tuple(tuple(islice(outputs, num_outputs)) for _ in feeds)


def quantize_array(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Give real values as the integers of a quantized input or output.

    Rounds half away from zero, as the runtime's QUANTIZE does, and saturates. An array for a
    tensor without quantization is only brought to its element type.
    """
    dtype = np.dtype(spec.dtype)
    if spec.quantization is None:
        return array.astype(dtype, copy=False)
    scale, zero_point = _affine(spec, array.ndim)
    real = array.astype(np.float64) / scale
    rounded = np.trunc(real + np.copysign(0.5, real)) + zero_point
    limits = np.iinfo(dtype)
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


def dequantize_array(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Give the integers of a quantized input or output as float32; others as they are."""
    if spec.quantization is None:
        return array
    scale, zero_point = _affine(spec, array.ndim)
    return ((array.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _affine(spec: TensorSpec, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give scales and zero points, shaped to meet an array of the rank along their axis."""
    assert spec.quantization is not None  # noqa: S101 - both callers have looked
    shape = [1] * rank
    if len(spec.quantization.scales) > 1:
        shape[spec.quantization.axis] = -1
    scales = np.array(spec.quantization.scales, dtype=np.float64)
    points = np.array(spec.quantization.zero_points, dtype=np.float64)
    return scales.reshape(shape), points.reshape(shape)


def _check_feeds(model: Model, feeds: Feeds) -> None:
    specs = model.signature.inputs
    if feeds and not specs:
        raise ModelError(
            "expected a model with inputs, but its main subgraph has none",
            remedy="Export the model again with its inputs.",
        )
    faults: list[str] = []
    for index, feed in enumerate(feeds):
        if len(feed) != len(specs):
            faults.append(f"sample {index}: expected {len(specs)} arrays, but got {len(feed)}")
            continue
        faults += [
            f"sample {index}: input {spec.name!r} expects {spec.dtype} {spec.shape}, "
            f"but got {array.dtype} {array.shape}"
            for spec, array in zip(specs, feed, strict=True)
            if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype)
        ]
    if faults:
        shown = faults[:5] + ([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])  # noqa: PLR2004 - one screen
        raise DataError(
            join_faults("the feeds do not fit the model", shown),
            remedy="Give each input in the model's shape and element type.",
        )


def _failure(ended: ChildExit) -> ModelError:
    if ended.answer is None:
        if ended.limit is not None:
            return ModelError(
                f"expected the model to run within {ended.limit} on this machine, but it did not",
                remedy="Give fewer samples, or a smaller model.",
            )
        return ModelError(
            f"running the model on this machine failed: the runtime was {ended.cause}"
            + (f"\n{ended.last_words}" if ended.last_words else ""),
            remedy="The model is damaged or uses what this runtime cannot do; convert it again.",
        )
    message = str(ended.answer["error"]["message"]).strip()
    for pattern in _UNSUPPORTED:
        if found := pattern.search(message):
            return ModelError(
                f"the model needs the op {found['op']}, which the TFLite runtime has no kernel for",
                remedy="Replace that op in the source model, or convert it with builtin ops only.",
            )
    return ModelError(
        f"the TFLite runtime refused the model: {message}",
        remedy="Convert the model again; `edgepack inspect` lists its ops.",
    )
