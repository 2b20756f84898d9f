from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import Feeds, run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import op_name, read_flatbuffer
from edgepack.graph import read_constant
from edgepack.model import Model
from edgepack.optimize.choosing.variant import build_variant, parse_variant, variant_to_json
from edgepack.optimize.judging.evaluation import make_evaluation
from edgepack.optimize.pruning.prune import PruneFacts, prune
from edgepack.optimize.pruning.sparsegpt import prune_sparsegpt
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import PruneKind, Pruning, stock_recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.models import came_as, make_feeds, small_model
from tests.fixtures.sparse import mobile_model


def _smooth_feeds(*, num_samples: int, seed: int) -> Feeds:
    """Make images whose pixels depend on each other, as those of photographs do."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 1, (num_samples, 4, 4, 3))
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    images += generator.normal(0, 0.02, images.shape)
    return [(image[np.newaxis].astype(np.float32),) for image in images]


@pytest.fixture(scope="module")
def mobile() -> Model:
    return mobile_model()


@pytest.fixture(scope="module")
def pruned(mobile: Model) -> tuple[Model, PruneFacts]:
    return prune_sparsegpt(mobile, 0.6, _smooth_feeds(num_samples=24, seed=1))


def _sqnr_db(model: Model, other: Model, feeds: Feeds) -> float:
    return compare_outputs(run_model(model, feeds), run_model(other, feeds), names=("y",)).sqnr_db


def test_answers_on_other_samples_stay_much_nearer_than_by_magnitude(
    mobile: Model, pruned: tuple[Model, PruneFacts]
) -> None:
    feeds = _smooth_feeds(num_samples=24, seed=2)
    plain, _ = prune(mobile, 0.6)
    assert _sqnr_db(mobile, pruned[0], feeds) > _sqnr_db(mobile, plain, feeds) + 6


def test_the_share_of_each_pruned_layer_is_zero_and_depthwise_weights_are_whole(
    mobile: Model, pruned: tuple[Model, PruneFacts]
) -> None:
    tree = read_flatbuffer(pruned[0].data)
    for layer in find_layers(tree):
        weights = read_constant(tree, layer.weights)
        assert weights is not None
        wanted = 0 if layer.op == "DEPTHWISE_CONV_2D" else int(0.6 * weights.size)
        assert abs(int(np.sum(weights == 0)) - wanted) <= 1
    facts = pruned[1]
    assert facts.num_zero_before == 0
    assert facts.num_zero_after == pytest.approx(0.6 * facts.num_weights, abs=10)
    assert pruned[0].signature == mobile.signature


def test_a_model_of_two_inputs_is_pruned_by_as_much_as_by_magnitude() -> None:
    model = small_model("two")
    result, facts = prune_sparsegpt(model, 0.5, make_feeds(model))
    assert facts.num_zero_after == prune(model, 0.5)[1].num_zero_after
    assert result.signature == model.signature


def test_the_same_inputs_give_the_same_bytes(
    mobile: Model, pruned: tuple[Model, PruneFacts]
) -> None:
    again, _ = prune_sparsegpt(mobile, 0.6, _smooth_feeds(num_samples=24, seed=1))
    assert again.data == pruned[0].data


def test_what_cannot_be_pruned_so_is_refused(mobile: Model) -> None:
    with pytest.raises(RecipeError, match="but no calibration data was given") as caught:
        prune_sparsegpt(mobile, 0.5, None)
    assert caught.value.remedy == (
        "Give real inputs with --data, or prune by magnitude (--prune SHARE)."
    )
    feeds = make_feeds(mobile, num_samples=1)
    quantized = quantize(mobile, stock_recipe(Scheme.DYNAMIC_RANGE)).model
    with pytest.raises(OptimizeError, match="quantized already"):
        prune_sparsegpt(quantized, 0.5, feeds)
    stream = came_as("stream")
    with pytest.raises(OptimizeError, match="which a model with state between samples"):
        prune_sparsegpt(stream, 0.5, make_feeds(stream, num_samples=1))


def test_a_variant_holds_both_kinds_of_facts_and_comes_back_from_json(
    mobile: Model, tmp_path: Path
) -> None:
    feeds = _smooth_feeds(num_samples=4, seed=3)
    recipe = stock_recipe(Scheme.FLOAT32, pruning=Pruning(kind=PruneKind.SPARSEGPT, share=0.7))
    variant = build_variant(
        mobile,
        recipe,
        calibration=feeds,
        evaluation=make_evaluation(mobile, feeds),
        cache=Cache(root=tmp_path),
    )
    assert variant.recipe.name == "float32+sparsegpt0.7"
    assert variant.prune_facts is not None
    assert variant.sparse_facts is not None
    assert variant.sparse_facts.num_sparse_kernels == 5
    assert variant.model.num_bytes < 0.7 * mobile.num_bytes
    tree = read_flatbuffer(variant.model.data)
    assert "DENSIFY" in {op_name(tree, each) for each in tree.subgraphs[0].operators}
    assert parse_variant(variant_to_json(variant), model=variant.model) == variant
