"""Hard-swish spelled in several ops, put back as the one op that runtimes have for it.

Converters write `x * relu6(x + 3) / 6` as an ADD, a MUL and one more MUL for the sixth, each a
walk over memory and each a tensor to be rounded to 8 bits (onnx2tf 2.6.9 writes PP-OCRv4's
detector with 24 of them). HARD_SWISH does it in one (Howard et al. 2019, "Searching for
MobileNetV3", arXiv:1905.02244, section 5.2). RELU_0_TO_1 becomes a RELU6 of six times as much,
which ai-edge-quantizer 0.10 knows.

What a pattern leaves is a single factor, which `edgepack.optimize.fusing.folding` takes from there.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgepack.graph import (
    Tree,
    make_op,
    name_of,
    new_constant,
    new_tensor,
    read_constant,
    tensor_shape,
)
from edgepack.optimize.walking.layers import activation_of

_NONE, _RELU6 = 0, 3  # ActivationFunctionType of schema.fbs
_SHIFT, _TOP = 3.0, 6.0
# A chain of factors longer than this is no hard-swish.
_LONGEST_CHAIN: Final = 8
# The ops that a pattern may leave behind without a reader.
_PATTERN: Final = frozenset({"ADD", "MUL", "DIV", "RELU", "RELU6", "MINIMUM", "MAXIMUM"})


def fuse_hard_swish(tree: Tree) -> int:
    """Put HARD_SWISH in the place of the ops that spell it, in place; give how many there were."""
    operators = tree.subgraphs[0].operators
    spelled = _Spelling(
        tree=tree, writers={int(index): each for each in operators for index in each.outputs}
    )
    count = 0
    for operator in list(operators):
        found = spelled.find(operator)
        if found is not None:
            _replace(tree, operator, *found)
            count += 1
    if count:
        _drop_dead(tree)
    return count


def widen_relu_0_to_1(tree: Tree) -> int:
    """Write each RELU_0_TO_1 as a sixth of a RELU6, in place; give how many there were."""
    operators = tree.subgraphs[0].operators
    found = [each for each in operators if name_of(tree, each) == "RELU_0_TO_1"]
    for operator in found:
        source, output = int(operator.inputs[0]), int(operator.outputs[0])
        middle = new_tensor(tree, "relu6", _shape(tree, output), "float32")
        place = operators.index(operator)
        operators[place : place + 1] = [
            _multiply(tree, source, _TOP, middle, activation=_RELU6),
            _multiply(tree, middle, 1 / _TOP, output),
        ]
    return len(found)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Spelling:
    """A graph as it came, in which to find the ops that spell a hard-swish.

    Attributes:
        tree: the model.
        writers: of each tensor, the op that gives it.
    """

    tree: Tree
    writers: Mapping[int, Any]

    def find(self, operator: Any) -> tuple[int, float] | None:  # noqa: ANN401 - see `Tree`
        """Give `x` and `f` of a MUL that gives `f * x * relu6(x + 3)`; None for any other op."""
        if name_of(self.tree, operator) != "MUL":
            return None
        pair = [self._unscale(int(index)) for index in operator.inputs]
        shape = _shape(self.tree, int(operator.outputs[0]))
        for (source, first), (gate, second) in (pair, pair[::-1]):
            is_same = self._shifted_relu6(gate) == source and _shape(self.tree, source) == shape
            if is_same and np.isfinite(first * second):
                return source, first * second
        return None

    def _unscale(self, index: int) -> tuple[int, float]:
        """Follow a tensor back through multiplications by one value: `(source, factor)`."""
        factor = 1.0
        for _ in range(_LONGEST_CHAIN):
            operator = self.writers.get(index)
            name = name_of(self.tree, operator)
            if name not in {"MUL", "DIV"} or activation_of(operator) != "NONE":
                break
            operand = self._single_operand(operator, commutes=name == "MUL")
            if operand is None or _shape(self.tree, operand[0]) != _shape(self.tree, index):
                break
            source, value = operand
            if name == "DIV" and value == 0:
                break
            index, factor = source, factor * value if name == "MUL" else factor / value
        return index, factor

    def _shifted_relu6(self, index: int) -> int | None:
        """Give `x` of a tensor that is `relu6(x + 3)`; None for any other."""
        operator: Any = self.writers.get(index)
        match name_of(self.tree, operator):
            case "ADD" if activation_of(operator) == "RELU6":
                return self._operand_beside(operator, _SHIFT)
            case "RELU6":
                inner: int | None = int(operator.inputs[0])
            case "MINIMUM":
                inner = self._inner(self._operand_beside(operator, _TOP), "MAXIMUM", 0.0)
            case "MAXIMUM":
                inner = self._inner(self._operand_beside(operator, 0.0), "MINIMUM", _TOP)
            case _:
                return None
        return self._inner(inner, "ADD", _SHIFT)

    def _inner(self, index: int | None, name: str, value: float) -> int | None:
        """Give what a tensor's op, of a name and with one value, does this to."""
        operator: Any = None if index is None else self.writers.get(index)
        found = name_of(self.tree, operator)
        if (name, found) == ("MAXIMUM", "RELU"):
            return int(operator.inputs[0])
        if found != name or (name == "ADD" and activation_of(operator) != "NONE"):
            return None
        return self._operand_beside(operator, value)

    def _operand_beside(self, operator: Any, value: float) -> int | None:  # noqa: ANN401 - see `Tree`
        """Give the other operand of an op with a constant of this one value."""
        operand = self._single_operand(operator)
        return operand[0] if operand is not None and operand[1] == value else None

    def _single_operand(
        self,
        operator: Any,  # noqa: ANN401 - see `Tree`
        *,
        commutes: bool = True,
    ) -> tuple[int, float] | None:
        """Give the other operand of an op with a constant of one value, and that value."""
        if len(operator.inputs) != 2:  # noqa: PLR2004 - binary
            return None
        first, second = (int(index) for index in operator.inputs)
        for source, constant in ((first, second), (second, first))[: 2 if commutes else 1]:
            values = read_constant(self.tree, constant)
            if values is not None and values.size == 1:
                return source, float(values.reshape(-1)[0])
        return None


def _replace(tree: Tree, operator: Any, source: int, factor: float) -> None:  # noqa: ANN401 - see `Tree`
    operators = tree.subgraphs[0].operators
    place, output = operators.index(operator), int(operator.outputs[0])
    options: tuple[str, dict[str, Any]] = ("HardSwishOptions", {})
    activation = getattr(operator.builtinOptions, "fusedActivationFunction", _NONE)
    scale = np.float32(_TOP * factor)
    if scale == 1 and activation == _NONE:
        operators[place] = make_op(tree, "HARD_SWISH", [source], [output], options=options)
        return
    middle = new_tensor(tree, "hard_swish", _shape(tree, output), "float32")
    operators[place : place + 1] = [
        make_op(tree, "HARD_SWISH", [source], [middle], options=options),
        _multiply(tree, middle, float(scale), output, activation=activation),
    ]


def _multiply(
    tree: Tree, source: int, factor: float, output: int, *, activation: int = _NONE
) -> Any:  # noqa: ANN401 - see `Tree`
    constant = new_constant(tree, "factor", np.array([factor], np.float32))
    options = ("MulOptions", {"fusedActivationFunction": activation})
    return make_op(tree, "MUL", [source, constant], [output], options=options)


def _shape(tree: Tree, index: int) -> tuple[int, ...]:
    return tensor_shape(tree.subgraphs[0].tensors[index])


def _drop_dead(tree: Tree) -> None:
    """Take out the ops of patterns that nobody reads any more, the last first."""
    graph = tree.subgraphs[0]
    reads = Counter(int(index) for each in graph.operators for index in each.inputs)
    reads.update(int(index) for index in graph.outputs)
    kept = []
    for operator in reversed(graph.operators):
        is_read = any(reads[int(index)] for index in operator.outputs)
        if is_read or name_of(tree, operator) not in _PATTERN:
            kept.append(operator)
        else:
            reads.subtract(int(index) for index in operator.inputs)
    graph.operators = kept[::-1]
