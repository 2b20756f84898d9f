"""Weights refined for their integers, in the child as users have it."""

from dataclasses import replace

import numpy as np
import pytest

from edgepack.comparison import ratio_db
from edgepack.errors import RecipeError
from edgepack.evaluate import Feeds, run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.quantizing.refine import refine
from edgepack.optimize.recipes.recipe import Granularity, LayerScheme, RangeMethod, Recipe, Rounding
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.layers import RELU, RELU6, LayerPlan, chain_model

SHAPE = (1, 12, 12, 3)
# Deep enough for errors to add up, with channels that are seldom negative: means to shift.
PLANS = (
    LayerPlan(op="CONV_2D", num_out=16, kernel=(3, 3), stride=(2, 2), activation=RELU),
    *(
        LayerPlan(op="DEPTHWISE_CONV_2D", num_out=1, kernel=(3, 3), activation=RELU6),
        LayerPlan(op="CONV_2D", num_out=16, activation=RELU),
    )
    * 4,
    LayerPlan(op="TRANSPOSE_CONV", num_out=8, kernel=(2, 2), stride=(2, 2), has_bias=False),
    LayerPlan(op="FULLY_CONNECTED", num_out=6),
)


def make_feeds(seed: int, count: int) -> Feeds:
    random = np.random.default_rng(seed)
    return [(random.uniform(0, 1, SHAPE).astype(np.float32),) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model(chain_model(PLANS, SHAPE, seed=2))


def sqnr(model: Model, other: Model, feeds: Feeds | None = None) -> float:
    feeds = feeds or make_feeds(99, 8)
    ours = np.array([each[0] for each in run_model(model, feeds)])
    theirs = np.array([each[0] for each in run_model(other, feeds)])
    return ratio_db(float(np.sum(ours**2)), float(np.sum((ours - theirs) ** 2)))


def recipe(**passes: object) -> Recipe:
    return Recipe(name="test", scheme=Scheme.WEIGHT_ONLY_INT8, **passes)  # type: ignore[arg-type] # the keys are the fields


def test_each_pass_alone_brings_the_answers_nearer(model: Model) -> None:
    feeds = make_feeds(1, 12)
    # The same ranges everywhere, and nothing else but the pass that is looked at.
    nearest = recipe(weight_ranges=RangeMethod.MSE)
    corrected = replace(nearest, bias_correction=True)
    rounded = replace(nearest, rounding=Rounding.GPTQ)
    found = [
        sqnr(model, refine(model, each, feeds).model) for each in (nearest, corrected, rounded)
    ]
    assert found[0] + 1 < found[1]
    # It minds the mean, too, where no bias is corrected: 39.6 dB when it did not.
    assert found[0] + 3 < found[2]


def test_ranges_alone_bring_the_answers_nearer_where_large_weights_meet_quiet_inputs() -> None:
    # At 8 bits cutting off a weight pays only where its input says little, as dead channels do.
    shape = (1, 200)
    tree = read_flatbuffer(chain_model((LayerPlan(op="FULLY_CONNECTED", num_out=24),), shape))
    random = np.random.default_rng(4)
    weights = random.normal(size=(24, 200)).astype(np.float32)
    weights[:, :20] *= 20.0
    set_constant(tree, find_layers(tree)[0].weights, weights)
    loud = np.where(np.arange(200) < 20, 1e-3, 1.0)
    unlike = read_model(write_flatbuffer(tree))
    feeds = [((loud * random.normal(size=shape)).astype(np.float32),) for _ in range(24)]
    ranged = refine(unlike, recipe(weight_ranges=RangeMethod.MSE), feeds[:8]).model
    stock = quantize(unlike, recipe()).model
    assert sqnr(unlike, stock, feeds[8:]) + 3 < sqnr(unlike, ranged, feeds[8:])


def test_one_scale_a_tensor_stays_one_for_refined_weights(model: Model) -> None:
    stock = Recipe(name="one", scheme=Scheme.DYNAMIC_RANGE, granularity=Granularity.TENSORWISE)
    passes = replace(stock, rounding=Rounding.GPTQ, bias_correction=True)
    refined = refine(model, passes, make_feeds(1, 6))
    done = quantize(refined.model, passes, weight_bounds=refined.weight_bounds).model
    plain = quantize(model, stock).model
    assert count_scales(done) == count_scales(plain)
    assert sqnr(model, plain) + 1 < sqnr(model, done)
    for layer in find_layers(read_flatbuffer(model.data)):
        # The runtime answers wrongly without a word when channels of these share a scale.
        is_own = layer.op == "DEPTHWISE_CONV_2D"
        assert (len(refined.weight_bounds[layer.weights]) > 1) == is_own


def count_scales(model: Model) -> list[int]:
    """Give how many scales each int8 tensor has."""
    return [
        len(tensor.quantization.scale)
        for tensor in read_flatbuffer(model.data).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None
    ]


def test_refined_weights_are_multiples_of_steps_and_layers_in_float_are_not(model: Model) -> None:
    tree = read_flatbuffer(model.data)
    first = find_layers(tree)[0]
    kept = (LayerScheme(layer=first.name, scheme=Scheme.FLOAT32),)
    refined = refine(
        model, recipe(rounding=Rounding.GPTQ, bias_correction=True, layers=kept), make_feeds(1, 4)
    )
    after = read_flatbuffer(refined.model.data)
    layers = find_layers(after)
    assert set(refined.weight_bounds) == {each.weights for each in layers[1:]}
    before, unchanged = read_constant(tree, first.weights), read_constant(after, first.weights)
    assert before is not None
    assert unchanged is not None
    np.testing.assert_array_equal(before, unchanged)
    # The old weights do not stay in the file.
    assert refined.model.num_bytes < model.num_bytes + 2000
    for layer in layers[1:]:
        weights = read_constant(after, layer.weights)
        assert weights is not None
        by_channel = np.moveaxis(weights, layer.channel_axis, 0)
        bounds = refined.weight_bounds[layer.weights]
        steps = by_channel.reshape(len(bounds), -1) / (bounds / 127)[:, np.newaxis]
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        # Every layer has a bias now, the last one too.
        assert layer.bias is not None


def test_the_same_inputs_give_the_same_bytes(model: Model) -> None:
    each = recipe(rounding=Rounding.GPTQ, bias_correction=True, weight_ranges=RangeMethod.MSE)
    first, second = (refine(model, each, make_feeds(1, 3)) for _ in range(2))
    assert first.model.sha256 == second.model.sha256


def test_without_data_it_says_what_to_give(model: Model) -> None:
    with pytest.raises(RecipeError) as caught:
        refine(model, recipe(bias_correction=True), None)
    assert caught.value.message == (
        "recipe 'test' looks at each layer's inputs, but no calibration data was given"
    )
