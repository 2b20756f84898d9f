"""Constants folded into layers: fewer ops, the same answers."""

from typing import Any

import numpy as np
import pytest

from edgepack.evaluate import Answers, run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import decode_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import make_op, name_of, new_constant, new_tensor, tensor_shape
from edgepack.model import Model, read_model
from edgepack.optimize.fusing.folding import fold_constants
from tests.fixtures.layers import RELU, SAME, VALID, LayerPlan, add_layer, new_tree

_SHAPE = (1, 7, 9, 4)
_BEHIND = (
    LayerPlan(op="CONV_2D", num_out=6, kernel=(3, 3)),
    LayerPlan(op="CONV_2D", num_out=6, kernel=(3, 3), num_groups=2),
    LayerPlan(op="DEPTHWISE_CONV_2D", num_out=2, kernel=(3, 3)),
    LayerPlan(op="TRANSPOSE_CONV", num_out=5, kernel=(2, 2), stride=(2, 2), has_bias=False),
    LayerPlan(op="FULLY_CONNECTED", num_out=6, has_bias=False),
)


class _Chain:
    """A model in the making: one op behind another."""

    def __init__(self, shape: tuple[int, ...] = _SHAPE) -> None:
        self.tree: Any = new_tree(shape)
        self.last = int(self.tree.subgraphs[0].inputs[0])
        self.random = np.random.default_rng(5)

    def layer(self, plan: LayerPlan, *, source: int | None = None) -> int:
        start = self.last if source is None else source
        self.last = add_layer(self.tree, plan, start, self.random)
        return self.last

    def constant(self, op: str, values: Any, *, activation: int = 0, first: bool = False) -> int:  # noqa: ANN401 - whatever numpy takes
        shape = tensor_shape(self.tree.subgraphs[0].tensors[self.last])
        constant = new_constant(self.tree, "constant", np.asarray(values, np.float32))
        output = new_tensor(self.tree, op.lower(), shape, "float32")
        operands = [constant, self.last] if first else [self.last, constant]
        options = (f"{op.capitalize()}Options", {"fusedActivationFunction": activation})
        self._add(make_op(self.tree, op, operands, [output], options=options), output)
        return output

    def channels(self, low: float = 0.5, high: float = 2.0) -> Any:  # noqa: ANN401 - an array
        count = tensor_shape(self.tree.subgraphs[0].tensors[self.last])[-1]
        return self.random.uniform(low, high, count)

    def single(self, op: str, shape: tuple[int, ...], operand: Any = None) -> None:  # noqa: ANN401 - likewise
        output = new_tensor(self.tree, op.lower(), shape, "float32")
        operands = [self.last]
        if operand is not None:
            operands.append(new_constant(self.tree, "operand", np.asarray(operand, np.int32)))
        options = ("ReshapeOptions", {"newShape": list(shape)}) if op == "RESHAPE" else None
        self._add(make_op(self.tree, op, operands, [output], options=options), output)

    def _add(self, operator: Any, output: int) -> None:  # noqa: ANN401 - untyped class
        self.tree.subgraphs[0].operators.append(operator)
        self.last = output

    def model(self, *more: int) -> Model:
        self.tree.subgraphs[0].outputs = [*more, self.last]
        return read_model(write_flatbuffer(self.tree))


def _pad(chain: _Chain) -> None:
    batch, height, width, channels = tensor_shape(chain.tree.subgraphs[0].tensors[chain.last])
    widths = [[0, 0], [1, 1], [1, 1], [0, 0]]
    chain.single("PAD", (batch, height + 2, width + 2, channels), widths)


def _fold(model: Model) -> tuple[Model, int]:
    tree = read_flatbuffer(model.data)
    count = fold_constants(tree)
    return read_model(write_flatbuffer(tree)), count


def _answers(model: Model) -> Answers:
    random = np.random.default_rng(1)
    shape = model.signature.inputs[0].shape
    return run_model(model, [(random.normal(0.5, 1, shape).astype(np.float32),) for _ in range(3)])


def _check_same(model: Model, folded: Model) -> None:
    assert folded.signature == model.signature
    names = tuple(spec.name for spec in model.signature.outputs)
    assert compare_outputs(_answers(model), _answers(folded), names=names).sqnr_db > 100.0


def _ops(model: Model) -> list[str]:
    tree = read_flatbuffer(model.data)
    return [name_of(tree, operator) for operator in tree.subgraphs[0].operators]


@pytest.mark.parametrize("plan", _BEHIND, ids=lambda plan: f"{plan.op}-{plan.num_groups}")
def test_factors_and_offsets_behind_a_layer_go_into_it(plan: LayerPlan) -> None:
    chain = _Chain()
    name = decode_name(chain.tree.subgraphs[0].tensors[chain.layer(plan)].name)
    chain.constant("MUL", chain.channels())
    chain.constant("ADD", chain.channels(), first=True)
    chain.constant("SUB", 0.25)
    chain.constant("DIV", chain.channels(-2.0, -1.0))
    chain.single("ABS", tensor_shape(chain.tree.subgraphs[0].tensors[chain.last]))
    model = chain.model()
    folded, count = _fold(model)
    _check_same(model, folded)
    assert (_ops(folded), count) == ([plan.op, "ABS"], 4)
    tree = read_flatbuffer(folded.data)
    layer = tree.subgraphs[0].operators[0]
    assert decode_name(tree.subgraphs[0].tensors[layer.outputs[0]].name) == name


@pytest.mark.parametrize("plan", _BEHIND[:1] + _BEHIND[3:], ids=lambda plan: plan.op)
def test_an_activation_goes_with_what_it_is_fused_to(plan: LayerPlan) -> None:
    chain = _Chain()
    chain.layer(plan)
    chain.constant("MUL", chain.channels())
    chain.constant("ADD", chain.channels(-2.0, 0.0), activation=RELU)
    chain.constant("MUL", chain.channels())  # behind an activation: stays
    chain.single("ABS", tensor_shape(chain.tree.subgraphs[0].tensors[chain.last]))
    model = chain.model()
    folded, _ = _fold(model)
    _check_same(model, folded)
    # A transposed convolution has no activation in older runtimes, so RELU becomes an op.
    between = ["RELU"] if plan.op == "TRANSPOSE_CONV" else []
    assert _ops(folded) == [plan.op, *between, "MUL", "ABS"]


@pytest.mark.parametrize(
    "plan",
    [
        LayerPlan(op="CONV_2D", num_out=6, kernel=(3, 3), padding=VALID),
        LayerPlan(op="CONV_2D", num_out=6, kernel=(3, 3), padding=VALID, num_groups=2),
        LayerPlan(op="CONV_2D", num_out=6, stride=(2, 2), padding=SAME),
        LayerPlan(op="DEPTHWISE_CONV_2D", num_out=2, kernel=(3, 3), padding=VALID),
        LayerPlan(op="FULLY_CONNECTED", num_out=6),
    ],
    ids=lambda plan: f"{plan.op}-{plan.kernel[0]}-{plan.num_groups}",
)
def test_factors_and_offsets_before_a_layer_that_pads_nothing_go_into_it(plan: LayerPlan) -> None:
    grouped = plan.num_groups > 1
    chain = _Chain()
    chain.constant("MUL", 1.5 if grouped else chain.channels())
    chain.constant("ADD", -0.5 if grouped else chain.channels())
    chain.layer(plan)
    model = chain.model()
    folded, count = _fold(model)
    _check_same(model, folded)
    assert (_ops(folded), count) == ([plan.op], 2)


def test_single_constants_go_into_a_layer_that_flattens_what_it_reads() -> None:
    chain = _Chain((1, 2, 2, 4))
    chain.constant("MUL", 1.5)
    chain.constant("ADD", -0.5)
    weights = chain.random.normal(0, 1, (3, 16)).astype(np.float32)
    operands = [chain.last, new_constant(chain.tree, "weights", weights)]
    output = new_tensor(chain.tree, "flattened", (1, 3), "float32")
    options = ("FullyConnectedOptions", {"fusedActivationFunction": 0})
    chain._add(make_op(chain.tree, "FULLY_CONNECTED", operands, [output], options=options), output)
    model = chain.model()
    folded, count = _fold(model)
    _check_same(model, folded)
    assert (_ops(folded), count) == (["FULLY_CONNECTED"], 2)


@pytest.mark.parametrize("padded", ["by the layer", "by an op before it"])
def test_an_offset_before_padding_stays_and_the_factor_before_it_does_not(padded: str) -> None:
    chain = _Chain()
    chain.constant("MUL", chain.channels(-2.0, -1.0))
    chain.constant("ADD", chain.channels())
    if padded == "by the layer":
        chain.layer(LayerPlan(op="CONV_2D", num_out=6, kernel=(3, 3), padding=SAME))
    else:
        _pad(chain)
        chain.layer(LayerPlan(op="DEPTHWISE_CONV_2D", num_out=1, kernel=(3, 3), padding=VALID))
    model = chain.model()
    folded, count = _fold(model)
    _check_same(model, folded)
    assert _ops(folded) == [op for op in _ops(model) if op != "MUL"]
    assert count == 1


def test_a_tiny_factor_stays_before_its_offset() -> None:
    chain = _Chain()
    chain.constant("MUL", 1e-9)
    chain.constant("ADD", 1.0)
    chain.layer(LayerPlan(op="CONV_2D", num_out=6, kernel=(3, 3), padding=SAME))
    assert _fold(chain.model())[1] == 0


def test_all_layers_that_read_a_result_take_it_or_none() -> None:
    plan = LayerPlan(op="CONV_2D", num_out=3)
    chain = _Chain()
    shared = chain.constant("MUL", chain.channels())
    first = chain.layer(plan)
    chain.layer(plan, source=shared)
    both = chain.model(first)
    folded, count = _fold(both)
    _check_same(both, folded)
    assert (_ops(folded), count) == (["CONV_2D", "CONV_2D"], 1)
    chain.last = shared
    chain.single("ABS", _SHAPE)
    another = chain.model(first)
    assert _fold(another)[1] == 0


def test_single_constants_pass_a_reshape_and_channels_do_not() -> None:
    for values, count in ((2.0, 2), (None, 0)):
        chain = _Chain()
        chain.layer(LayerPlan(op="CONV_2D", num_out=6))
        chain.single("RESHAPE", (1, 6, 7, 9), [1, 6, 7, 9])
        chain.constant("MUL", chain.channels() if values is None else values)
        chain.constant("ADD", chain.channels() if values is None else values)
        chain.single("ABS", (1, 6, 7, 9))
        model = chain.model()
        folded, came = _fold(model)
        _check_same(model, folded)
        assert came == count


def test_an_output_of_the_model_stays_an_op_s_own() -> None:
    chain = _Chain()
    chain.layer(LayerPlan(op="CONV_2D", num_out=6))
    chain.constant("MUL", chain.channels())
    assert _fold(chain.model())[1] == 0
    between = _Chain()
    inner = between.layer(LayerPlan(op="CONV_2D", num_out=6))
    between.constant("MUL", between.channels())
    between.single("ABS", tensor_shape(between.tree.subgraphs[0].tensors[between.last]))
    assert _fold(between.model(inner))[1] == 0


def test_weights_that_two_layers_share_stay() -> None:
    chain = _Chain()
    plan = LayerPlan(op="CONV_2D", num_out=4)
    chain.layer(plan)
    chain.constant("MUL", chain.channels())
    chain.layer(plan)
    operators = chain.tree.subgraphs[0].operators
    operators[2].inputs = [operators[2].inputs[0], *operators[0].inputs[1:]]
    assert _fold(chain.model())[1] == 0


def test_a_constant_that_makes_the_tensor_larger_stays() -> None:
    chain = _Chain((1, 1, 1, 4))
    chain.layer(LayerPlan(op="CONV_2D", num_out=1))
    wide = new_constant(chain.tree, "wide", np.ones((1, 1, 1, 6), np.float32))
    output = new_tensor(chain.tree, "wide_output", (1, 1, 1, 6), "float32")
    options = ("MulOptions", {"fusedActivationFunction": 0})
    chain._add(make_op(chain.tree, "MUL", [chain.last, wide], [output], options=options), output)
    chain.single("ABS", (1, 1, 1, 6))
    assert _fold(chain.model())[1] == 0
