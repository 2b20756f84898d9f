"""A TFLite model as a value: its bytes, its I/O signature and what it is made of."""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from edgepack._fields import Fields, nearest
from edgepack.errors import ModelError
from edgepack.flatbuffer import (
    MAXIMUM_BYTES,
    decode_name,
    dtype_name,
    op_name,
    read_flatbuffer,
    reading_tables,
)
from edgepack.traits import Numerics, StateKind, Traits, read_traits

_ITEM_BYTES: Final = {
    "float32": 4, "float64": 8, "float16": 2, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2,
    "int32": 4, "uint32": 4, "int64": 8, "uint64": 8, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """Affine quantization of a tensor: real = scale * (integer - zero_point).

    Attributes:
        scales: one scale for the tensor, or one for each slice along `axis`.
        zero_points: as many as scales.
        axis: the quantized dimension; meaningful when there are several scales.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: the signature's argument name, or the tensor's name where there is no signature.
        shape: dimensions; a dimension the file leaves open stands as it is first allocated.
        dtype: numpy name of the element type.
        quantization: affine parameters of an integer tensor that stands for real numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's data."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """The I/O contract of a model.

    Inputs and outputs stand in the order of the main subgraph, which is the order of the
    runtime's `get_input_details()` and `get_output_details()`, so that a runner can go by
    position alone; the names are those of the signature definition.

    Attributes:
        key: the signature definition's key; None when the file has no signature.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A readable TFLite model.

    Attributes:
        data: the whole flatbuffer.
        signature: the I/O contract.
        op_counts: how often each op stands in all subgraphs, sorted by name.
        traits: how it stores numbers, and what it keeps between invocations.
    """

    data: bytes = field(repr=False)
    signature: Signature
    op_counts: tuple[tuple[str, int], ...]
    traits: Traits = field(default_factory=Traits)

    @property
    def is_quantized(self) -> bool:
        """Whether any weight or activation is below 32-bit float."""
        return self.traits.numerics is not Numerics.FLOAT32

    @property
    def has_state(self) -> bool:
        """Whether it keeps variables between invocations."""
        return self.traits.state is not StateKind.NONE

    @property
    def is_stream(self) -> bool:
        """Whether its samples are one stream: each answer depends on the samples before."""
        return self.traits.state is StateKind.STREAM

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the flatbuffer."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def num_bytes(self) -> int:
        """Size of the flatbuffer."""
        return len(self.data)


def read_model(data: bytes) -> Model:
    """Read a TFLite flatbuffer's signature and contents.

    Raises:
        ModelError: not a TFLite flatbuffer, damaged, or with I/O no runner can feed.
    """
    tree = read_flatbuffer(data)
    with reading_tables():
        signature = _read_signature(tree)
        counts = Counter(op_name(tree, op) for graph in tree.subgraphs for op in graph.operators)
        traits = read_traits(tree)
    return Model(
        data=data,
        signature=signature,
        op_counts=tuple(sorted(counts.items())),
        traits=traits,
    )


def load_model(path: Path) -> Model:
    """Read a `.tflite` file.

    Raises:
        ModelError: missing, unreadable, too large, or not a usable TFLite flatbuffer.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAXIMUM_BYTES else b""
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror or error}",
            remedy="Check the path and its permissions.",
        ) from error
    if size > MAXIMUM_BYTES:
        raise ModelError(
            f"{path}: expected a TFLite model below 2 GiB, but it has {size} bytes",
            remedy="Split the model, or quantize its weights before importing it.",
        )
    try:
        return read_model(data)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", remedy=error.remedy) from error


def signature_to_json(signature: Signature) -> dict[str, object]:
    """Give a signature as a JSON object; `read_signature` reads it back."""
    return {
        "inputs": [_spec_to_json(spec) for spec in signature.inputs],
        "key": signature.key,
        "outputs": [_spec_to_json(spec) for spec in signature.outputs],
    }


def _spec_to_json(spec: TensorSpec) -> dict[str, object]:
    quantization = spec.quantization
    return {
        "dtype": spec.dtype,
        "name": spec.name,
        "quantization": None
        if quantization is None
        else {
            "axis": quantization.axis,
            "scales": list(quantization.scales),
            "zero_points": list(quantization.zero_points),
        },
        "shape": list(spec.shape),
    }


def read_signature(fields: Fields) -> Signature:
    """Read a signature from a JSON object, noting faults in `fields`."""
    signature = Signature(
        inputs=tuple(_read_spec(each) for each in fields.tables("inputs")),
        outputs=tuple(_read_spec(each) for each in fields.tables("outputs")),
        key=fields.nullable_text("key"),
    )
    if not signature.outputs:
        fields.fault("outputs", "expected at least one output")
    fields.close()
    return signature


def _read_spec(fields: Fields) -> TensorSpec:
    # A tensor's name may be empty: converters write such files and runtimes load them.
    name = fields.text("name", empty=True)
    shape = fields.integers("shape", minimum=0)
    dtype = fields.text("dtype")
    if dtype and dtype not in _ITEM_BYTES:
        fields.fault("dtype", f"unknown value {dtype!r}{nearest(dtype, tuple(_ITEM_BYTES))}")
    quantization = None
    if fields.raw("quantization") is not None:
        table = fields.table("quantization")
        num_faults = len(fields.faults)
        quantization = Quantization(
            scales=table.numbers("scales"),
            zero_points=table.integers("zero_points"),
            axis=table.integer("axis"),
        )
        if len(fields.faults) == num_faults and len(quantization.scales) != len(
            quantization.zero_points
        ):
            table.fault(
                "zero_points",
                f"expected as many as scales ({len(quantization.scales)}), "
                f"not {len(quantization.zero_points)}",
            )
        table.close()
    fields.close()
    return TensorSpec(name=name, shape=shape, dtype=dtype, quantization=quantization)


def _read_signature(tree: Any) -> Signature:  # noqa: ANN401 - the generated classes are untyped
    graph = tree.subgraphs[0]
    definition = next((each for each in tree.signatureDefs or () if each.subgraphIndex == 0), None)
    names: dict[tuple[str, int], str] = {}
    if definition is not None:
        for side, maps in (("in", definition.inputs), ("out", definition.outputs)):
            names |= {(side, each.tensorIndex): decode_name(each.name) for each in maps or ()}
    inputs = tuple(_spec(graph, int(i), names.get(("in", int(i)))) for i in graph.inputs)
    outputs = tuple(_spec(graph, int(i), names.get(("out", int(i)))) for i in graph.outputs)
    for spec in (*inputs, *outputs):
        if spec.dtype not in _ITEM_BYTES:
            raise ModelError(
                f"input or output {spec.name!r} has element type {spec.dtype}; EdgePack feeds "
                f"and compares {', '.join(_ITEM_BYTES)}",
                remedy="Move that conversion out of the model and export it again.",
            )
    if not outputs:
        raise ModelError(
            "expected a model with outputs, but its main subgraph has none",
            remedy="Export the model again with its outputs.",
        )
    key = decode_name(definition.signatureKey) if definition is not None else None
    return Signature(inputs=inputs, outputs=outputs, key=key)


def _spec(graph: Any, index: int, name: str | None) -> TensorSpec:  # noqa: ANN401 - see above
    if index < 0:  # Python would count it from the end
        raise IndexError(f"tensor {index}")
    tensor = graph.tensors[index]
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    if any(size < 0 for size in shape):
        raise ValueError(f"tensor {index} has the shape {shape}")
    parameters = tensor.quantization
    quantization = None
    if parameters is not None and parameters.scale is not None and len(parameters.scale):
        zero_points = parameters.zeroPoint
        if zero_points is None or not len(zero_points):
            zero_points = [0] * len(parameters.scale)
        quantization = Quantization(
            scales=tuple(float(scale) for scale in parameters.scale),
            zero_points=tuple(int(point) for point in zero_points),
            axis=int(parameters.quantizedDimension),
        )
        _check_quantization(quantization, shape)
    return TensorSpec(
        name=name or decode_name(tensor.name),
        shape=shape,
        dtype=dtype_name(tensor.type),
        quantization=quantization,
    )


def _check_quantization(quantization: Quantization, shape: tuple[int, ...]) -> None:
    """Refuse parameters that stand for no real values.

    LiteRT 2.3 refuses wrong counts when it allocates the tensor, and takes any scale.
    """
    scales, zero_points = quantization.scales, quantization.zero_points
    if not all(math.isfinite(scale) and scale >= 0 for scale in scales):
        raise ValueError(
            f"a scale is {next(s for s in scales if not (math.isfinite(s) and s >= 0))}"
        )
    if len(scales) != len(zero_points):
        raise ValueError(f"{len(scales)} scales, but {len(zero_points)} zero points")
    axis = quantization.axis
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise ValueError(f"{len(scales)} scales along dimension {axis} of {shape}")
