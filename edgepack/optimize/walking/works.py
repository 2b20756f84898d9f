"""The ops of a model that compute, float or quantized: in what, with how much, under which name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from edgepack.flatbuffer import decode_name, dtype_name, op_name, read_flatbuffer
from edgepack.graph import tensor_shape
from edgepack.model import Model

# They carry values from one representation or shape to another and compute nothing.
_CARRIERS: Final = frozenset(
    {"QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
)
# Position of the weights among an op's operands.
_WEIGHTS: Final[Mapping[str, int]] = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "BATCH_MATMUL": 1,
}
_TRANSPOSED_INPUT: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """An op that computes.

    Attributes:
        op: as the schema spells it.
        name: of the tensor it gives; recipes name the op so.
        num_macs: its multiplications; 0 of an op without weights.
        constant_bytes: what the constants that it reads take in the file, its bias among them.
        output: element type of what it gives.
        weights: element type of its constant weights; None without any.
    """

    op: str
    name: str
    num_macs: int
    constant_bytes: int
    output: str
    weights: str | None

    @property
    def has_weights(self) -> bool:
        """Whether its weights are constants."""
        return self.weights is not None


def list_works(model: Model) -> Iterator[Work]:
    """Give the ops of the main graph that compute, in the order they run."""
    tree = read_flatbuffer(model.data)
    tensors = tree.subgraphs[0].tensors
    operators = [(op_name(tree, each), each) for each in tree.subgraphs[0].operators or ()]
    # Weights of ops that compute in float pass a DEQUANTIZE, and are stored as what it reads.
    stored = {
        int(each.outputs[0]): int(each.inputs[0]) for op, each in operators if op == "DEQUANTIZE"
    }

    def count_bytes(index: int) -> int:
        if index < 0:  # an operand that is left out
            return 0
        data = tree.buffers[tensors[stored.get(index, index)].buffer].data
        return 0 if data is None else len(data)

    for op, operator in operators:
        if op in _CARRIERS or not len(operator.outputs):
            continue
        inputs = [] if operator.inputs is None else [int(each) for each in operator.inputs]
        weights, place = None, _WEIGHTS.get(op, len(inputs))
        if place < len(inputs) and count_bytes(inputs[place]):
            weights = dtype_name(tensors[stored.get(inputs[place], inputs[place])].type)
        output = tensors[int(operator.outputs[0])]
        yield Work(
            op=op,
            name=decode_name(output.name).removesuffix("_inner"),
            num_macs=_count_macs(tensors, inputs, output, op),
            constant_bytes=sum(count_bytes(each) for each in inputs),
            output=dtype_name(output.type),
            weights=weights,
        )


def _count_macs(tensors: Any, inputs: list[int], result: Any, op: str) -> int:  # noqa: ANN401 - untyped tree
    """Count multiplications from shapes alone; 0 for ops without weights."""
    place = _WEIGHTS.get(op, len(inputs))
    if place >= len(inputs):
        return 0
    weights, output = tensor_shape(tensors[inputs[place]]), tensor_shape(result)
    match op:
        case "TRANSPOSE_CONV":
            source = tensor_shape(tensors[inputs[_TRANSPOSED_INPUT]])
            return prod(source[:-1]) * prod(weights)
        case "BATCH_MATMUL":
            return prod(output) * tensor_shape(tensors[inputs[0]])[-1]
        case "DEPTHWISE_CONV_2D":
            return prod(output) * prod(weights[1:3])
        case _:
            return prod(output) * prod(weights[1:])
