"""Channel pruning from a model to a smaller model."""

from pathlib import Path

import numpy as np
import pytest

from edgepack._fields import Fields
from edgepack.cache import Cache
from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import Feeds, run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.choosing.variant import build_variant
from edgepack.optimize.judging.evaluation import make_evaluation
from edgepack.optimize.pruning.structured import (
    channel_facts_to_json,
    prune_structured,
    read_channel_facts,
)
from edgepack.optimize.recipes.recipe import PruneKind, Pruning, stock_recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.graphs import GraphMaker
from tests.fixtures.models import came_as, make_feeds, small_model

SHAPE = (1, 8, 8, 3)


def make_samples(count: int, seed: int = 0) -> Feeds:
    random = np.random.default_rng(seed)
    return [(random.normal(size=SHAPE).astype(np.float32),) for _ in range(count)]


def branched_model(*, has_bias: bool = True) -> Model:
    """Give a model with a residual branch, a depthwise convolution and a dense end."""
    maker = GraphMaker(SHAPE, seed=5)
    first = maker.layer("CONV_2D", maker.input, 24, kernel=(3, 3), activation=1)
    wide = maker.layer("CONV_2D", first, 48, activation=3)
    deep = maker.layer("DEPTHWISE_CONV_2D", wide, 1, kernel=(3, 3), activation=3)
    narrow = maker.layer("CONV_2D", deep, 24)
    last = maker.mean(maker.add(narrow, first), keep_dims=False)
    return read_model(maker.finish(maker.layer("FULLY_CONNECTED", last, 6, has_bias=has_bias)))


def error_of(model: Model, other: Model, feeds: Feeds) -> float:
    """Give the share of the first model's energy by which the other departs."""
    ours = np.stack([sample[0] for sample in run_model(model, feeds)])
    theirs = np.stack([sample[0] for sample in run_model(other, feeds)])
    return float(np.sum((ours - theirs) ** 2) / np.sum(ours**2))


def test_a_third_of_the_work_goes_and_the_rest_makes_up_for_it() -> None:
    model, calibration = branched_model(), make_samples(32)
    pruned, facts = prune_structured(model, 0.3, calibration)
    plain, same = prune_structured(model, 0.3, calibration, reconstruct=False)
    assert same.groups == facts.groups
    assert pruned.signature == model.signature
    tree = read_flatbuffer(pruned.data)
    assert facts.num_macs_after == sum(layer.num_macs for layer in find_layers(tree))
    assert 0.3 <= 1 - facts.num_macs_after / facts.num_macs_before <= 0.5
    assert facts.raw_bytes_after == pruned.num_bytes < facts.raw_bytes_before == model.num_bytes
    unseen = make_samples(16, seed=1)
    assert error_of(model, pruned, unseen) < 0.5 * error_of(model, plain, unseen)


def test_channels_that_are_zero_go_and_nothing_changes() -> None:
    model = branched_model()
    tree = read_flatbuffer(model.data)
    wide = find_layers(tree)[1]
    weights = read_constant(tree, wide.weights)
    assert weights is not None
    assert wide.bias is not None
    weights[::2] = 0
    set_constant(tree, wide.weights, weights)
    set_constant(tree, wide.bias, np.where(np.arange(48) % 2, 0.1, -1.0).astype(np.float32))
    half_empty = read_model(write_flatbuffer(tree))
    pruned, facts = prune_structured(half_empty, 0.35, make_samples(32))
    assert [(each.num_before, each.num_after) for each in facts.groups] == [
        (3, 3),
        (24, 24),
        (48, 24),
        (6, 6),
    ]
    assert error_of(half_empty, pruned, make_samples(8, seed=1)) < 1e-8


def test_a_layer_without_a_bias_gets_one() -> None:
    model = branched_model(has_bias=False)
    pruned, _ = prune_structured(model, 0.3, make_samples(16))
    assert all(layer.bias is not None for layer in find_layers(read_flatbuffer(pruned.data)))
    assert error_of(model, pruned, make_samples(8, seed=1)) < 0.3


def test_a_bias_that_layers_share_becomes_one_for_each() -> None:
    maker = GraphMaker(SHAPE)
    last = maker.input
    for num_out in (16, 16, 4):
        last = maker.layer("CONV_2D", last, num_out, kernel=(3, 3), activation=1)
    first, second, _ = maker.tree.subgraphs[0].operators
    second.inputs = [*(int(index) for index in second.inputs[:2]), int(first.inputs[2])]
    model, feeds = read_model(maker.finish(last)), make_samples(32)
    pruned, facts = prune_structured(model, 0.3, feeds)
    assert [each.num_before for each in facts.groups] == [3, 16, 16, 4]
    plain, _ = prune_structured(model, 0.3, feeds, reconstruct=False)
    unseen = make_samples(8, seed=1)
    assert error_of(model, pruned, unseen) < 0.8 * error_of(model, plain, unseen)


def test_the_same_inputs_give_the_same_bytes() -> None:
    model, calibration = branched_model(), make_samples(8)
    first, _ = prune_structured(model, 0.3, calibration)
    second, _ = prune_structured(model, 0.3, calibration)
    assert first.data == second.data


def test_a_variant_of_int8_keeps_what_pruning_did(tmp_path: Path) -> None:
    model, cache = branched_model(), Cache(root=tmp_path)
    recipe = stock_recipe(Scheme.INT8, pruning=Pruning(kind=PruneKind.STRUCTURED, share=0.3))
    evaluation = make_evaluation(model, make_samples(8, seed=1))
    built, kept = (
        build_variant(
            model, recipe, calibration=make_samples(16), evaluation=evaluation, cache=cache
        )
        for _ in range(2)
    )
    assert built.recipe.name == "int8+structured0.3"
    assert built.channel_facts is not None
    assert built.channel_facts.num_macs_after <= 0.7 * built.channel_facts.num_macs_before
    assert built.model.is_quantized
    assert built.fidelity.sqnr_db > 5
    assert kept == built


def test_the_facts_name_what_had_to_stay() -> None:
    _, facts = prune_structured(branched_model(), 0.2, make_samples(8))
    assert [each.blocked for each in facts.groups] == [
        "they are an input of the model",
        None,
        None,
        "they are an output of the model",
    ]
    assert facts.num_channels_before == 24 + 48
    assert facts.num_channels_after < facts.num_channels_before


def test_channels_that_a_very_wide_layer_reads_stay() -> None:
    """Its second moments would take more memory than there is: 34 GB for one of CREPE's."""
    maker = GraphMaker(SHAPE, seed=5)
    first = maker.layer("CONV_2D", maker.input, 40, activation=1)
    wide = maker.layer("CONV_2D", first, 32, kernel=(11, 11), activation=1)  # of 4,840 inputs
    last = maker.mean(maker.layer("CONV_2D", wide, 24, activation=1), keep_dims=False)
    model = read_model(maker.finish(maker.layer("FULLY_CONNECTED", last, 6)))
    pruned, facts = prune_structured(model, 0.2, make_samples(8))
    assert [each.blocked for each in facts.groups] == [
        "they are an input of the model",
        "they are read by a layer of more than 4,608 inputs",
        None,
        None,
        "they are an output of the model",
    ]
    assert facts.groups[2].num_after < 32
    assert error_of(model, pruned, make_samples(8, seed=1)) < 0.5


def test_facts_come_back_from_json() -> None:
    _, facts = prune_structured(branched_model(), 0.2, make_samples(8))
    fields = Fields(channel_facts_to_json(facts))
    assert read_channel_facts(fields) == facts
    assert fields.faults == []


def test_more_than_can_go_is_refused() -> None:
    with pytest.raises(OptimizeError) as caught:
        prune_structured(branched_model(), 0.97, make_samples(4))
    assert caught.value.message == (
        "expected channels to go until 97% of the multiplications are gone, but only 82% can go "
        "(they are an input of the model; they are an output of the model)"
    )


def test_without_calibration_data_there_is_nothing_to_look_at() -> None:
    with pytest.raises(RecipeError) as caught:
        prune_structured(small_model("cnn"), 0.3, None)
    assert caught.value.message == (
        "pruning channels looks at what layers read, but no calibration data was given"
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("int8", "a quantized one"),
        ("loop", "one with a loop or branch"),
        ("stream", "one that keeps state between samples"),
    ],
)
def test_models_that_cannot_be_walked_are_refused(name: str, what: str) -> None:
    model = came_as(name)
    with pytest.raises(OptimizeError) as caught:
        prune_structured(model, 0.3, make_feeds(model, num_samples=2))
    assert caught.value.message == (
        f"pruning channels needs a float32 model that runs straight through, not {what}"
    )


def test_a_real_network_keeps_its_answers() -> None:
    model = small_model("depthwise")
    feeds = make_feeds(model, num_samples=24)
    pruned, facts = prune_structured(model, 0.1, feeds)
    assert facts.num_macs_after < 0.9 * facts.num_macs_before
    assert error_of(model, pruned, feeds) < 0.05
