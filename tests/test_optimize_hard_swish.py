"""Hard-swish in the spellings that converters have: one op, the same answers."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgepack.evaluate import run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import op_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import make_op, new_constant, new_tensor, tensor_shape
from edgepack.model import Model, read_model
from edgepack.optimize.fusing.hard_swish import fuse_hard_swish, widen_relu_0_to_1
from tests.fixtures.layers import new_tree

_SHAPE = (1, 5, 6, 4)
_RELU6 = 3


class _Ops:
    """A model in the making, of ops between tensors of one shape."""

    def __init__(self) -> None:
        self.tree: Any = new_tree(_SHAPE)
        self.x = int(self.tree.subgraphs[0].inputs[0])

    def op(self, name: str, *operands: float, activation: int = 0) -> int:
        inputs = [
            each
            if isinstance(each, int)
            else new_constant(self.tree, "c", np.array([each], np.float32))
            for each in operands
        ]
        output = new_tensor(self.tree, name.lower(), _SHAPE, "float32")
        kind = "MaximumMinimum" if name in {"MINIMUM", "MAXIMUM"} else name.capitalize()
        table = {"fusedActivationFunction": activation} if len(operands) > 1 else {}
        table = {} if kind == "MaximumMinimum" else table
        options = (f"{kind}Options", table) if len(operands) > 1 else None
        self.tree.subgraphs[0].operators.append(
            make_op(self.tree, name, inputs, [output], options=options)
        )
        return output

    def model(self, *outputs: int) -> Model:
        self.tree.subgraphs[0].outputs = list(outputs)
        return read_model(write_flatbuffer(self.tree))


def _gate(ops: _Ops) -> int:
    return ops.op("ADD", ops.x, 3.0, activation=_RELU6)


def _in_two_products(ops: _Ops) -> int:
    return ops.op("MUL", ops.op("MUL", ops.x, _gate(ops)), 1 / 6)


def _constant_first(ops: _Ops) -> int:
    gate = ops.op("ADD", 3.0, ops.x, activation=_RELU6)
    return ops.op("MUL", 0.25, ops.op("MUL", gate, ops.x))


def _sixth_of_the_gate(ops: _Ops) -> int:
    return ops.op("MUL", ops.x, ops.op("DIV", ops.op("RELU6", ops.op("ADD", ops.x, 3.0)), 6.0))


def _sixth_of_x(ops: _Ops) -> int:
    return ops.op("MUL", ops.op("MUL", ops.x, 1 / 6), _gate(ops))


def _clipped(ops: _Ops) -> int:
    low = ops.op("MAXIMUM", ops.op("ADD", ops.x, 3.0), 0.0)
    return ops.op("DIV", ops.op("MUL", ops.x, ops.op("MINIMUM", low, 6.0)), 6.0)


def _clipped_from_above(ops: _Ops) -> int:
    high = ops.op("MINIMUM", 6.0, ops.op("ADD", ops.x, 3.0))
    return ops.op("MUL", ops.op("MAXIMUM", high, 0.0), ops.x)


def _relu_then_minimum(ops: _Ops) -> int:
    return ops.op("MUL", ops.x, ops.op("MINIMUM", ops.op("RELU", ops.op("ADD", ops.x, 3.0)), 6.0))


def _with_an_activation(ops: _Ops) -> int:
    return ops.op("MUL", ops.x, _gate(ops), activation=_RELU6)


_SPELLINGS = (
    *(_in_two_products, _constant_first, _sixth_of_the_gate, _sixth_of_x, _clipped),
    *(_clipped_from_above, _relu_then_minimum, _with_an_activation),
)


def _names(model: Model) -> Counter[str]:
    tree = read_flatbuffer(model.data)
    return Counter(op_name(tree, each) for each in tree.subgraphs[0].operators)


def _fuse(model: Model) -> tuple[Model, int]:
    tree = read_flatbuffer(model.data)
    count = fuse_hard_swish(tree)
    return read_model(write_flatbuffer(tree)), count


def _sqnr_db(model: Model, changed: Model) -> float:
    random = np.random.default_rng(0)
    feeds = [(random.uniform(-8, 8, _SHAPE).astype(np.float32),) for _ in range(4)]
    return compare_outputs(
        run_model(model, feeds),
        run_model(changed, feeds),
        names=tuple(str(place) for place in range(len(model.signature.outputs))),
    ).sqnr_db


@pytest.mark.parametrize("spelling", _SPELLINGS)
def test_each_spelling_becomes_one_op(spelling: Callable[[_Ops], int]) -> None:
    ops = _Ops()
    model = ops.model(spelling(ops))
    fused, count = _fuse(model)
    assert count == 1
    names = _names(fused)
    assert names["HARD_SWISH"] == 1
    assert not {"ADD", "RELU", "RELU6", "MINIMUM", "MAXIMUM"} & {*names}
    assert _sqnr_db(model, fused) > 120


def test_exactly_a_sixth_leaves_no_other_op() -> None:
    ops = _Ops()
    fused, _ = _fuse(ops.model(_sixth_of_x(ops)))
    assert _names(fused) == {"HARD_SWISH": 1}


def _other_shift(ops: _Ops) -> int:
    return ops.op("MUL", ops.x, ops.op("ADD", ops.x, 2.5, activation=_RELU6))


def _other_bound(ops: _Ops) -> int:
    low = ops.op("MAXIMUM", ops.op("ADD", ops.x, 3.0), 0.0)
    return ops.op("MUL", ops.x, ops.op("MINIMUM", low, 1.0))


def _other_source(ops: _Ops) -> int:
    return ops.op("MUL", ops.op("TANH", ops.x), _gate(ops))


def _divided_by(ops: _Ops) -> int:
    return ops.op("MUL", ops.x, ops.op("DIV", 6.0, _gate(ops)))


def _no_gate(ops: _Ops) -> int:
    return ops.op("RELU6", ops.x)


@pytest.mark.parametrize(
    "other", [_other_shift, _other_bound, _other_source, _divided_by, _no_gate]
)
def test_what_is_no_hard_swish_stays(other: Callable[[_Ops], int]) -> None:
    ops = _Ops()
    model = ops.model(ops.op("TANH", other(ops)))
    same, count = _fuse(model)
    assert count == 0
    assert same.data == model.data


def test_what_others_read_stays() -> None:
    ops = _Ops()
    gate = _gate(ops)
    product = ops.op("MUL", ops.x, gate)
    model = ops.model(product, ops.op("TANH", gate))
    fused, count = _fuse(model)
    assert count == 1
    assert _names(fused) == {"ADD": 1, "HARD_SWISH": 1, "MUL": 1, "TANH": 1}
    assert _sqnr_db(model, fused) > 120


def test_an_output_of_the_model_stays() -> None:
    ops = _Ops()
    gate = _gate(ops)
    model = ops.model(gate, ops.op("MUL", ops.x, gate))
    fused, _ = _fuse(model)
    assert _names(fused)["ADD"] == 1
    assert [spec.name for spec in fused.signature.outputs] == [
        spec.name for spec in model.signature.outputs
    ]
    assert _sqnr_db(model, fused) > 120


def test_relu_0_to_1_is_a_sixth_of_a_relu6() -> None:
    ops = _Ops()
    model = ops.model(ops.op("RELU_0_TO_1", ops.x))
    tree = read_flatbuffer(model.data)
    assert widen_relu_0_to_1(tree) == 1
    widened = read_model(write_flatbuffer(tree))
    assert _names(widened) == {"MUL": 2}
    assert tensor_shape(tree.subgraphs[0].tensors[int(tree.subgraphs[0].outputs[0])]) == _SHAPE
    assert _sqnr_db(model, widened) > 120
