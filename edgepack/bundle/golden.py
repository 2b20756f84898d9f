"""Golden samples: inputs and the answers that a device's runtime must give to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.manifest import MAXIMUM_GOLDEN_SAMPLES
from edgepack.errors import BundleError
from edgepack.evaluate import Feeds, RunModel, quantize_array, run_model
from edgepack.model import Model, Signature, TensorSpec

MAXIMUM_BYTES: Final = 8 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """Raw little-endian tensors in C order, the samples concatenated, in signature order.

    All are in the packed model's dtypes: with an integer interface the float reference is
    quantized as the model's own outputs are.

    Attributes:
        num_samples: samples in each tensor.
        inputs: what the packed model is fed, one entry for each input.
        reference: the float model's answers, one entry for each output.
        host: the packed model's answers on the machine that packed it.
    """

    num_samples: int
    inputs: tuple[bytes, ...] = field(repr=False)
    reference: tuple[bytes, ...] = field(repr=False)
    host: tuple[bytes, ...] = field(repr=False)


def make_golden(
    float_model: Model,
    variant_model: Model,
    feeds: Feeds,
    *,
    num_samples: int = 4,
    run: RunModel = run_model,
) -> Golden:
    """Run both models on the first samples and keep what went in and what came out.

    The samples are as many as asked for and given, and fewer when they would take more than
    8 MiB in all, but at least one.

    Args:
        float_model: the reference.
        variant_model: what is packed.
        feeds: inputs of the float model, one tuple a sample, in its input order and dtypes.
        num_samples: at most 64.
        run: how the models are run.

    Raises:
        BundleError: no samples, or outputs of other shapes than the signature says.
        ModelError: a model cannot be run.
    """
    if not feeds:
        raise BundleError(
            "expected at least one sample to make golden outputs from, but got none",
            remedy="Give --data, or let inputs be generated.",
        )
    signature = variant_model.signature
    outputs_bytes = 2 * sum(spec.num_bytes for spec in signature.outputs)
    sample_bytes = sum(spec.num_bytes for spec in signature.inputs) + outputs_bytes
    fitting = max(1, MAXIMUM_BYTES // max(1, sample_bytes))
    chosen = list(feeds)[: min(num_samples, fitting, MAXIMUM_GOLDEN_SAMPLES)]
    packed = [_to_interface(sample, signature.inputs) for sample in chosen]
    reference = [_to_interface(outputs, signature.outputs) for outputs in run(float_model, chosen)]
    host = run(variant_model, packed)
    return Golden(
        num_samples=len(chosen),
        inputs=pack_tensors(packed, signature.inputs),
        reference=pack_tensors(reference, signature.outputs),
        host=pack_tensors(host, signature.outputs),
    )


def _to_interface(
    arrays: Sequence[NDArray[Any]], specs: Sequence[TensorSpec]
) -> tuple[NDArray[Any], ...]:
    """Quantize the arrays whose tensor is an integer one that stands for real numbers."""
    return tuple(
        quantize_array(array, spec)
        if spec.quantization is not None and array.dtype.kind == "f" and spec.dtype != array.dtype
        else array
        for array, spec in zip(arrays, specs, strict=True)
    )


def pack_tensors(
    samples: Sequence[Sequence[NDArray[Any]]], specs: Sequence[TensorSpec]
) -> tuple[bytes, ...]:
    """Write samples as raw tensors, one text of bytes for each spec.

    Raises:
        BundleError: an array is not of its spec's shape or dtype.
    """
    packed: list[bytes] = []
    for index, spec in enumerate(specs):
        arrays = [sample[index] for sample in samples]
        for array in arrays:
            if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
                raise BundleError(
                    f"golden tensor {spec.name!r}: expected {spec.dtype} of shape {spec.shape}, "
                    f"as the signature says, but got {array.dtype} of shape {array.shape}",
                    remedy="Export the model with fixed shapes (--input-shape) and pack it again.",
                )
        packed.append(b"".join(array.astype(_little(spec)).tobytes() for array in arrays))
    return tuple(packed)


def unpack_tensors(
    data: Sequence[bytes], specs: Sequence[TensorSpec], *, num_samples: int
) -> tuple[tuple[NDArray[Any], ...], ...]:
    """Read raw tensors back: one tuple of arrays for each sample, read-only.

    Raises:
        BundleError: a tensor's size is not that of so many samples.
    """
    columns: list[NDArray[Any]] = []
    for raw, spec in zip(data, specs, strict=True):
        if len(raw) != num_samples * spec.num_bytes:
            raise BundleError(
                f"golden tensor {spec.name!r}: expected {num_samples * spec.num_bytes} bytes, "
                f"but got {len(raw)}",
                remedy="Pack the model again.",
            )
        shape = (num_samples, *spec.shape)
        columns.append(np.frombuffer(raw, dtype=_little(spec)).reshape(shape))
    return tuple(tuple(column[index] for column in columns) for index in range(num_samples))


def check_golden(golden: Golden, signature: Signature) -> None:
    """Refuse golden tensors that do not fit a signature in number or size.

    Raises:
        BundleError: naming the first that does not.
    """
    for group, tensors, specs in (
        ("inputs", golden.inputs, signature.inputs),
        ("reference outputs", golden.reference, signature.outputs),
        ("host outputs", golden.host, signature.outputs),
    ):
        if len(tensors) != len(specs):
            raise BundleError(
                f"expected {len(specs)} golden {group}, but got {len(tensors)}",
                remedy="Make the golden samples with the packed model.",
            )
        unpack_tensors(tensors, specs, num_samples=golden.num_samples)


def _little(spec: TensorSpec) -> np.dtype[Any]:
    return np.dtype(spec.dtype).newbyteorder("<")
