"""Magnitude pruning: each layer's smallest weights become zero, on the flatbuffer.

Zeros shrink a compressed file; they change no latency unless a runtime has sparse kernels.
Pruned are the constant float weights of CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV and
BATCH_MATMUL. DEPTHWISE_CONV_2D is left alone, as TensorFlow's Model Optimization Toolkit
does: a channel's filter is some 9 weights, so zeros cost much accuracy and save few bytes.
Biases are left alone, and so are weights that another op reads too (a tied embedding).
"""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import Fields
from edgepack.errors import OptimizeError
from edgepack.flatbuffer import dtype_name, op_name, read_flatbuffer, write_flatbuffer
from edgepack.model import Model, read_model

_COMPRESSION_LEVEL: Final = 9
# Which operands of an op are weights; a BATCH_MATMUL may have a constant on either side.
_WEIGHTS: Final[Mapping[str, tuple[int, ...]]] = {
    "BATCH_MATMUL": (0, 1),
    "CONV_2D": (1,),
    "FULLY_CONNECTED": (1,),
    "TRANSPOSE_CONV": (1,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneFacts:
    """What pruning did to the float model, before any quantization.

    Attributes:
        num_weights: weights of the layers that pruning looks at.
        num_zero_before: zeros among them before.
        num_zero_after: zeros among them after.
        raw_bytes: size of the flatbuffer, which pruning leaves as it is.
        compressed_bytes_before: of the whole flatbuffer, zlib level 9.
        compressed_bytes_after: likewise, after pruning.
    """

    num_weights: int
    num_zero_before: int
    num_zero_after: int
    raw_bytes: int
    compressed_bytes_before: int
    compressed_bytes_after: int


def prune(model: Model, share: float) -> tuple[Model, PruneFacts]:
    """Set the floor(share * n) smallest of each layer's n weights to zero, by magnitude.

    Of equal magnitudes the first in memory goes first, so the result is the same everywhere.
    A buffer that several layers share is pruned once.

    Args:
        model: float32 weights.
        share: 0 to below 1.

    Raises:
        OptimizeError: the model is quantized already, or has no weights to prune.
    """
    if model.is_quantized:
        raise OptimizeError(
            "pruning needs a float32 model, but this one is quantized already",
            remedy="Give the float model it was made from, or leave --prune out.",
        )
    tree = read_flatbuffer(model.data)
    indexes = _weight_buffers(tree)
    if not indexes:
        raise OptimizeError(
            f"pruning needs constant weights of {', '.join(_WEIGHTS)}, but the model has none",
            remedy="Leave --prune out.",
        )
    for index in indexes:
        weights = np.frombuffer(bytes(tree.buffers[index].data), dtype="<f4")
        pruned = prune_array(weights, share)
        tree.buffers[index].data = np.frombuffer(pruned.tobytes(), dtype=np.uint8)
    result = read_model(write_flatbuffer(tree))
    return result, count_pruned(model, result)


def count_pruned(before: Model, after: Model) -> PruneFacts:
    """Count what pruning did to a model."""
    num_weights, num_zero_before = _count_zeros(before)
    _, num_zero_after = _count_zeros(after)
    return PruneFacts(
        num_weights=num_weights,
        num_zero_before=num_zero_before,
        num_zero_after=num_zero_after,
        raw_bytes=after.num_bytes,
        compressed_bytes_before=compressed_size(before.data),
        compressed_bytes_after=compressed_size(after.data),
    )


def _count_zeros(model: Model) -> tuple[int, int]:
    """Count a model's weights that pruning looks at, and the zeros among them."""
    tree = read_flatbuffer(model.data)
    arrays = [
        np.frombuffer(bytes(tree.buffers[index].data), dtype="<f4")
        for index in _weight_buffers(tree)
    ]
    return sum(each.size for each in arrays), sum(int(np.sum(each == 0)) for each in arrays)


def prune_array(weights: NDArray[Any], share: float) -> NDArray[Any]:
    """Give an array with the floor(share * n) values of least magnitude set to zero.

    The share is taken as the decimal number it is written as: 0.29 of 100 is 29.
    """
    count = int(Decimal(repr(share)) * weights.size)
    flat = weights.reshape(-1).copy()
    order = np.argsort(np.abs(flat), kind="stable")
    flat[order[:count]] = 0
    return flat.reshape(weights.shape)


def compressed_size(data: bytes) -> int:
    """Give the size of bytes compressed with zlib at level 9: what a transfer could take."""
    return len(zlib.compress(data, _COMPRESSION_LEVEL))


def prune_facts_to_json(facts: PruneFacts) -> dict[str, object]:
    """Give pruning's facts as JSON values."""
    return asdict(facts)


def read_prune_facts(fields: Fields) -> PruneFacts:
    """Read pruning's facts from a table, noting faults in `fields`."""
    facts = PruneFacts(
        num_weights=fields.integer("num_weights", minimum=0),
        num_zero_before=fields.integer("num_zero_before", minimum=0),
        num_zero_after=fields.integer("num_zero_after", minimum=0),
        raw_bytes=fields.integer("raw_bytes", minimum=0),
        compressed_bytes_before=fields.integer("compressed_bytes_before", minimum=0),
        compressed_bytes_after=fields.integer("compressed_bytes_after", minimum=0),
    )
    fields.close()
    return facts


def _weight_buffers(tree: Any) -> list[int]:  # noqa: ANN401 - the generated classes are untyped
    """Give the buffers that hold weights and nothing else, in ascending order."""
    weights: set[int] = set()
    others: set[int] = set()
    for graph in tree.subgraphs:
        for operator in graph.operators or ():
            positions = _WEIGHTS.get(op_name(tree, operator), ())
            for position, tensor_index in enumerate(operator.inputs):
                if tensor_index < 0:  # an operand left out
                    continue
                tensor = graph.tensors[tensor_index]
                (weights if position in positions else others).add(int(tensor.buffer))
        # A weight that is handed out as an output is more than a weight.
        others |= {int(graph.tensors[index].buffer) for index in graph.outputs}
    constant = {
        int(tensor.buffer)
        for graph in tree.subgraphs
        for tensor in graph.tensors
        if dtype_name(tensor.type) == "float32" and _has_data(tree.buffers[tensor.buffer])
    }
    return sorted((weights - others) & constant)


def _has_data(buffer: Any) -> bool:  # noqa: ANN401 - the generated classes are untyped
    return buffer.data is not None and len(buffer.data) > 0
