"""What a variant is made of, beside what its recipe promises: size, interface, ops in float."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from edgepack.flatbuffer import decode_name, dtype_name, op_name, read_flatbuffer
from edgepack.graph import tensor_shape
from edgepack.model import Model
from edgepack.optimize.findings import Finding, FindingKind, Severity
from edgepack.optimize.recipe import InterfaceType, Recipe
from edgepack.profile import Scheme

_FLOAT_SCHEMES: Final = frozenset({Scheme.FLOAT32, Scheme.FLOAT16, Scheme.AS_IS})
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
_SHOWN_KINDS: Final = 4


def check_composition(
    model: Model, reference: Model, recipe: Recipe, *, kept: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Say where a variant is not what its recipe promises.

    Args:
        model: the variant.
        reference: the float model it was made from.
        recipe: how.
        kept: names of what ops give that were left in float on purpose, beside the recipe's own.
    """
    findings: list[Finding] = []
    if recipe.scheme not in {Scheme.FLOAT32, Scheme.AS_IS} and (
        model.num_bytes >= reference.num_bytes
    ):
        findings.append(
            Finding(
                kind=FindingKind.NOT_SMALLER,
                severity=Severity.WARNING,
                text=f"{recipe.scheme} has {model.num_bytes:,} bytes, and the float model "
                f"{reference.num_bytes:,}: it is not smaller",
                remedy="Pack the float model, unless this one is quicker",
            )
        )
    if recipe.interface is InterfaceType.INTEGER:
        specs = (*model.signature.inputs, *model.signature.outputs)
        floats = [repr(spec.name) for spec in specs if spec.dtype.startswith("float")]
        if floats:
            findings.append(
                Finding(
                    kind=FindingKind.FLOAT_INTERFACE,
                    severity=Severity.FAULT,
                    text=f"integer inputs and outputs were asked for, but {', '.join(floats)} "
                    f"{'is' if len(floats) == 1 else 'are'} in float",
                    remedy="Ask for float inputs and outputs (--io float), or leave out the op at "
                    "the border that cannot be quantized",
                )
            )
    if recipe.scheme not in _FLOAT_SCHEMES:
        findings += _find_float_ops(model, recipe, kept)
    return tuple(findings)


def _find_float_ops(model: Model, recipe: Recipe, kept: Collection[str]) -> Iterator[Finding]:
    works = [each for each in _list_works(model) if recipe.is_static or each.has_weights]
    wished = {each.layer for each in recipe.layers} | {*kept}
    left = [each for each in works if each.is_float(recipe) and each.name not in wished]
    if not left:
        return
    macs = sum(each.num_macs for each in works)
    share = sum(each.num_macs for each in left) / macs if macs else 0.0
    kinds = Counter(each.op for each in left).most_common()
    named = [op if count == 1 else f"{count} {op}" for op, count in kinds[:_SHOWN_KINDS]]
    rest = sum(count for _, count in kinds[_SHOWN_KINDS:])
    listed = ", ".join([*named, *([f"{rest} others"] if rest else [])])
    yield Finding(
        kind=FindingKind.FLOAT_OPS,
        severity=Severity.WARNING,
        text=f"{len(left)} of {len(works)} ops stayed in float ({listed}), with {share:.1%} of the "
        "multiplications",
        remedy="Look at them with `edgepack inspect`; ops at the border of a float part convert "
        "their values each time",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """An op that computes.

    Attributes:
        op: as the schema spells it.
        name: of the tensor it gives.
        num_macs: its multiplications.
        output: element type of what it gives.
        weights: element type of its constant weights; None without any.
    """

    op: str
    name: str
    num_macs: int
    output: str
    weights: str | None

    @property
    def has_weights(self) -> bool:
        return self.weights is not None

    def is_float(self, recipe: Recipe) -> bool:
        return (self.output if recipe.is_static else self.weights) == "float32"


def _list_works(model: Model) -> Iterator[_Work]:
    tree = read_flatbuffer(model.data)
    tensors = tree.subgraphs[0].tensors
    operators = [(op_name(tree, each), each) for each in tree.subgraphs[0].operators or ()]
    # Weights of ops that compute in float pass a DEQUANTIZE, and are stored as what it reads.
    stored = {
        int(each.outputs[0]): int(each.inputs[0]) for op, each in operators if op == "DEQUANTIZE"
    }
    for op, operator in operators:
        if op in _CARRIERS or not len(operator.outputs):
            continue
        weights = None
        if (place := _WEIGHTS.get(op)) is not None:
            index = int(operator.inputs[place])
            source = tensors[stored.get(index, index)]
            data = tree.buffers[source.buffer].data
            weights = dtype_name(source.type) if data is not None and len(data) else None
        output = tensors[int(operator.outputs[0])]
        yield _Work(
            op=op,
            name=decode_name(output.name).removesuffix("_inner"),
            num_macs=_count_macs(tensors, operator, op),
            output=dtype_name(output.type),
            weights=weights,
        )


def _count_macs(tensors: Any, operator: Any, op: str) -> int:  # noqa: ANN401 - untyped tree
    """Count multiplications from shapes alone; 0 for ops without weights."""
    place = _WEIGHTS.get(op)
    if place is None:
        return 0
    weights = tensor_shape(tensors[int(operator.inputs[place])])
    output = tensor_shape(tensors[int(operator.outputs[0])])
    match op:
        case "TRANSPOSE_CONV":
            source = tensor_shape(tensors[int(operator.inputs[_TRANSPOSED_INPUT])])
            return prod(source[:-1]) * prod(weights)
        case "BATCH_MATMUL":
            return prod(output) * tensor_shape(tensors[int(operator.inputs[0])])[-1]
        case "DEPTHWISE_CONV_2D":
            return prod(output) * prod(weights[1:3])
        case _:
            return prod(output) * prod(weights[1:])
