"""Channels of unlike ranges: equalized, with the same answers and less rounding error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack._fields import Fields
from edgepack.evaluate import Feeds, run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import make_op, new_constant, new_tensor, read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.equalizing.equalize import (
    equalize,
    equalize_facts_to_json,
    read_equalize_facts,
)
from edgepack.optimize.equalizing.scaling import map_scales, merge, scale_layers
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.optimize.walking.channel_ranges import observe_channels
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.layers import RELU, RELU6, VALID, LayerPlan, add_layer, new_tree

_SHAPE = (1, 6, 6, 4)


def _feeds(num_samples: int = 12, *, seed: int = 2) -> Feeds:
    random = np.random.default_rng(seed)
    return [(random.normal(0.5, 1, _SHAPE).astype(np.float32),) for _ in range(num_samples)]


def _sqnr_db(model: Model, other: Model, feeds: Feeds) -> float:
    names = tuple(spec.name for spec in model.signature.outputs)
    return compare_outputs(run_model(model, feeds), run_model(other, feeds), names=names).sqnr_db


def _unlike(tree: Any, index: int, spread: float, lift: float) -> None:  # noqa: ANN401 - untyped tree
    """Give the channels of a layer's output ranges that differ by a factor, and lie off zero."""
    layer = next(each for each in find_layers(tree) if each.output == index)
    weights, bias = read_constant(tree, layer.weights), read_constant(tree, layer.bias or 0)
    assert weights is not None
    assert bias is not None
    shape = [1] * weights.ndim
    shape[layer.channel_axis] = -1
    factors = np.geomspace(1, spread, weights.shape[layer.channel_axis]).astype(np.float32)
    set_constant(tree, layer.weights, weights * factors.reshape(shape))
    set_constant(tree, layer.bias or 0, (bias + lift) * factors)
    for reader in find_layers(tree):
        if reader.input == index:
            values = read_constant(tree, reader.weights)
            assert values is not None
            set_constant(tree, reader.weights, values / factors)


def _two_layers(
    activation: int = 0, *, kernel: int = 1, spread: float = 100.0, lift: float = 2.0
) -> Model:
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    first = add_layer(tree, LayerPlan(op="CONV_2D", num_out=8, activation=activation), 0, random)
    plan = LayerPlan(op="CONV_2D", num_out=5, kernel=(kernel, kernel))
    tree.subgraphs[0].outputs = [add_layer(tree, plan, first, random)]
    _unlike(tree, first, spread, lift)
    return read_model(write_flatbuffer(tree))


def test_channels_of_unlike_ranges_are_equalized_and_int8_gains() -> None:
    model = _two_layers()
    feeds, others = _feeds(), _feeds(seed=9)
    equalized, facts = equalize(model, feeds)
    assert (facts.num_groups, facts.num_scaled, facts.num_moved) == (1, 1, 1)
    assert facts.after_db > facts.before_db + 6
    assert facts.float_db > 100
    assert equalized.signature == model.signature
    assert equalized.num_bytes <= 1.01 * model.num_bytes
    assert _sqnr_db(model, equalized, others) > 100
    recipe = stock_recipe(Scheme.INT8)
    plain = _sqnr_db(model, quantize(model, recipe, feeds).model, others)
    better = _sqnr_db(model, quantize(equalized, recipe, feeds).model, others)
    assert better > plain + 5


@pytest.mark.parametrize(("kernel", "num_moved"), [(1, 1), (3, 0)])
def test_channels_are_moved_only_where_nothing_pads(kernel: int, num_moved: int) -> None:
    model = _two_layers(kernel=kernel)
    equalized, facts = equalize(model, _feeds())
    assert (facts.num_scaled, facts.num_moved) == (1, num_moved)
    assert _sqnr_db(model, equalized, _feeds(seed=9)) > 100


def test_high_biases_behind_relu_are_absorbed_by_half_of_what_was_seen() -> None:
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    plan = LayerPlan(op="CONV_2D", num_out=6, activation=RELU)
    first = add_layer(tree, plan, 0, random)
    layer = find_layers(tree)[0]
    set_constant(tree, layer.bias or 0, np.full(6, 50, np.float32))
    last = add_layer(tree, LayerPlan(op="CONV_2D", num_out=5), first, random)
    tree.subgraphs[0].outputs = [last]
    model = read_model(write_flatbuffer(tree))
    equalized, facts = equalize(model, _feeds())
    assert facts.num_moved == 1
    assert facts.after_db > facts.before_db + 2
    bias = read_constant(read_flatbuffer(equalized.data), layer.bias or 0)
    assert bias is not None
    assert np.all(np.abs(bias) > 20)
    assert _sqnr_db(model, equalized, _feeds(seed=9)) > 100


def test_a_channel_that_reached_relu6_s_bound_keeps_its_scale(tmp_path: Path) -> None:
    model = _two_layers(RELU6, kernel=3, spread=0.05, lift=5.0)
    tree, feeds = read_flatbuffer(model.data), _feeds()
    first = find_layers(tree)[0]
    seen = observe_channels(tree, feeds, folder=tmp_path)[first.output]
    clipped = seen.highest >= 6
    assert 0 < clipped.sum() < len(clipped)
    equalized, facts = equalize(model, feeds)
    assert facts.num_scaled == 1
    before = read_constant(tree, first.weights)
    after = read_constant(read_flatbuffer(equalized.data), first.weights)
    assert before is not None
    assert after is not None
    factors = (after / before).reshape(len(clipped), -1)[:, 0]
    np.testing.assert_allclose(factors[clipped], 1, rtol=1e-6)
    # Twice what was seen still passes below the bound.
    assert np.all(factors * seen.highest * 2 <= np.maximum(6.001, seen.highest * 2))
    assert factors.max() > 1.5
    assert _sqnr_db(model, equalized, _feeds(seed=9)) > 60


def test_a_stream_of_additions_has_one_factor_a_channel_all_along() -> None:
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    graph = tree.subgraphs[0]
    plain = LayerPlan(op="CONV_2D", num_out=6)
    stream = add_layer(tree, plain, 0, random)
    inner = add_layer(tree, LayerPlan(op="CONV_2D", num_out=9, activation=RELU), stream, random)
    branch = add_layer(tree, plain, inner, random)
    total = new_tensor(tree, "total", (1, 6, 6, 6), "float32")
    options = ("AddOptions", {"fusedActivationFunction": 0})
    graph.operators.append(make_op(tree, "ADD", [branch, stream], [total], options=options))
    graph.outputs = [add_layer(tree, LayerPlan(op="CONV_2D", num_out=5), total, random)]
    model = read_model(write_flatbuffer(tree))
    scale_map = map_scales(tree)
    groups = {group.tensors: len(group.classes) for group in scale_map.groups}
    assert groups == {(stream, branch, total): 6, (inner,): 9}
    for group in scale_map.groups:
        factors = np.ones(scale_map.num_classes)
        factors[group.classes] = random.uniform(0.1, 10, len(group.classes))
        scale_layers(tree, scale_map, group, factors)
    scaled = read_model(write_flatbuffer(tree))
    assert scaled.sha256 != model.sha256
    assert _sqnr_db(model, scaled, _feeds()) > 100


@pytest.mark.parametrize(
    "between",
    [
        LayerPlan(op="CONV_2D", num_out=8, kernel=(3, 3), num_groups=2, activation=RELU),
        LayerPlan(op="DEPTHWISE_CONV_2D", num_out=2, kernel=(3, 3), activation=RELU),
        LayerPlan(op="TRANSPOSE_CONV", num_out=3, kernel=(2, 2), stride=(2, 2)),
        LayerPlan(op="FULLY_CONNECTED", num_out=7, activation=RELU),
    ],
    ids=lambda plan: plan.op,
)
def test_every_kind_of_layer_can_be_scaled_at_both_ends(between: LayerPlan) -> None:
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    first = add_layer(tree, LayerPlan(op="CONV_2D", num_out=4, activation=RELU), 0, random)
    middle = add_layer(tree, between, first, random)
    last = add_layer(tree, LayerPlan(op="CONV_2D", num_out=5, padding=VALID), middle, random)
    tree.subgraphs[0].outputs = [last]
    model, scale_map = read_model(write_flatbuffer(tree)), map_scales(tree)
    assert [group.tensors for group in scale_map.groups] == [(first,), (middle,)]
    factors = random.uniform(0.1, 10, scale_map.num_classes)
    for group in scale_map.groups:
        scale_layers(tree, scale_map, group, factors)
    assert _sqnr_db(model, read_model(write_flatbuffer(tree)), _feeds()) > 100


def test_what_another_op_looks_at_is_left_alone() -> None:
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    graph = tree.subgraphs[0]
    first = add_layer(tree, LayerPlan(op="CONV_2D", num_out=4), 0, random)
    result = new_tensor(tree, "result", _SHAPE, "float32")
    graph.operators.append(make_op(tree, "LOGISTIC", [first], [result]))
    second = add_layer(tree, LayerPlan(op="CONV_2D", num_out=5), first, random)
    graph.outputs = [second, result]
    assert map_scales(tree).groups == ()
    model = read_model(write_flatbuffer(tree))
    same, facts = equalize(model, _feeds())
    assert same.data == model.data
    assert (facts.num_groups, facts.num_scaled) == (0, 0)


def test_a_gate_opens_what_is_scaled_and_keeps_its_own_scale() -> None:
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    graph = tree.subgraphs[0]
    wide = add_layer(tree, LayerPlan(op="CONV_2D", num_out=4), 0, random)
    pooled = new_tensor(tree, "pooled", (1, 1, 1, 4), "float32")
    axes = new_constant(tree, "axes", np.array([1, 2], np.int32))
    keep = ("ReducerOptions", {"keepDims": True})
    graph.operators.append(make_op(tree, "MEAN", [wide, axes], [pooled], options=keep))
    gate = add_layer(tree, LayerPlan(op="CONV_2D", num_out=4), pooled, random)
    opened = new_tensor(tree, "opened", _SHAPE, "float32")
    options = ("MulOptions", {"fusedActivationFunction": 0})
    graph.operators.append(make_op(tree, "MUL", [wide, gate], [opened], options=options))
    graph.outputs = [add_layer(tree, LayerPlan(op="CONV_2D", num_out=5), opened, random)]
    model, scale_map = read_model(write_flatbuffer(tree)), map_scales(tree)
    assert [group.tensors for group in scale_map.groups] == [(wide, pooled, opened)]
    factors = random.uniform(0.1, 10, scale_map.num_classes)
    scale_layers(tree, scale_map, scale_map.groups[0], factors)
    assert _sqnr_db(model, read_model(write_flatbuffer(tree)), _feeds()) > 100


def test_equal_inputs_give_equal_bytes() -> None:
    model, feeds = _two_layers(), _feeds()
    assert equalize(model, feeds)[0].data == equalize(model, feeds)[0].data


def test_without_samples_a_model_stays_as_it_came() -> None:
    model = _two_layers()
    same, facts = equalize(model, None)
    assert same.data == model.data
    assert (facts.num_groups, facts.num_scaled) == (1, 0)


def test_merging_gives_each_its_least_companion() -> None:
    pairs = [(np.array([4, 2]), np.array([3, 5])), (np.array([5]), np.array([4]))]
    assert merge(7, pairs).tolist() == [0, 1, 2, 2, 2, 2, 6]


def test_facts_come_back_from_json() -> None:
    _, facts = equalize(_two_layers(), _feeds())
    fields = Fields(json.loads(json.dumps(equalize_facts_to_json(facts))))
    assert read_equalize_facts(fields) == facts
    assert not fields.faults


@pytest.mark.parametrize("joined", [False, True])
def test_layers_without_a_bias_get_one_that_holds_both_ends(*, joined: bool) -> None:
    tree, random = new_tree((1, 6)), np.random.default_rng(0)
    graph = tree.subgraphs[0]
    plan = LayerPlan(op="FULLY_CONNECTED", num_out=6, has_bias=False)
    first = add_layer(tree, LayerPlan(op="FULLY_CONNECTED", num_out=6), 0, random)
    set_constant(tree, find_layers(tree)[0].bias or 0, np.geomspace(1, 90, 6, dtype=np.float32))
    second = add_layer(tree, plan, first, random)
    if joined:  # what the second layer reads and what it gives are one stream
        total = new_tensor(tree, "total", (1, 6), "float32")
        options = ("AddOptions", {"fusedActivationFunction": 0})
        graph.operators.append(make_op(tree, "ADD", [second, first], [total], options=options))
        second = total
    graph.outputs = [add_layer(tree, plan, second, random)]
    model = read_model(write_flatbuffer(tree))
    feeds = [(random.normal(0, 1, (1, 6)).astype(np.float32),) for _ in range(12)]
    equalized, facts = equalize(model, feeds)
    assert facts.num_moved >= 1
    assert facts.float_db > 100
    others = [(random.normal(0, 3, (1, 6)).astype(np.float32),) for _ in range(6)]
    assert _sqnr_db(model, equalized, others) > 90
