import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.errors import OptimizeError
from edgepack.flatbuffer import op_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import make_op, new_constant, new_tensor
from edgepack.model import read_model
from edgepack.optimize.choosing import variant as variant_module
from edgepack.optimize.choosing.variant import (
    build_variant,
    parse_variant,
    variant_to_json,
)
from edgepack.optimize.fusing.fusion import count_fusible
from edgepack.optimize.judging.evaluation import digest_feeds, make_evaluation
from edgepack.optimize.recipes.recipe import InterfaceType, Pruning, Recipe, stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.layers import LayerPlan, add_layer, new_tree
from tests.fixtures.models import make_feeds, small_model


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(root=tmp_path / "cache")


def _build(recipe: Recipe, cache: Cache, *, calibration_seed: int = 5) -> variant_module.Variant:
    model = small_model("cnn")
    return build_variant(
        model,
        recipe,
        calibration=make_feeds(model, seed=calibration_seed),
        evaluation=make_evaluation(model, make_feeds(model, seed=6)),
        cache=cache,
    )


def test_the_float_model_is_its_own_variant(cache: Cache) -> None:
    variant = _build(stock_recipe(Scheme.FLOAT32), cache)
    assert variant.model.data == small_model("cnn").data
    assert variant.fidelity.sqnr_db == 300.0
    assert variant.fidelity.top1_agreement == 1.0


def test_integer_and_float_interfaces_are_compared_in_real_numbers(cache: Cache) -> None:
    plain = _build(stock_recipe(Scheme.INT8), cache)
    integer = _build(stock_recipe(Scheme.INT8, interface=InterfaceType.INTEGER), cache)
    assert integer.model.signature.inputs[0].dtype == "int8"
    assert integer.fidelity.sqnr_db == pytest.approx(plain.fidelity.sqnr_db, abs=0.5)


def test_a_second_build_is_read_from_the_cache(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = stock_recipe(Scheme.DYNAMIC_RANGE, pruning=Pruning(share=0.5))
    first = _build(recipe, cache)

    def never(*_: object, **__: object) -> None:
        pytest.fail("the quantizer ran although the result was kept")

    monkeypatch.setattr(variant_module, "quantize", never)
    assert _build(recipe, cache) == first
    # Other calibration data do not concern a scheme that uses none.
    assert _build(recipe, cache, calibration_seed=9) == first


def test_other_calibration_data_make_another_static_variant(cache: Cache) -> None:
    recipe = stock_recipe(Scheme.INT8)
    first, second = _build(recipe, cache), _build(recipe, cache, calibration_seed=9)
    assert first.model.sha256 != second.model.sha256


def test_pruning_comes_before_quantization_and_zeros_stay(cache: Cache) -> None:
    variant = _build(stock_recipe(Scheme.DYNAMIC_RANGE, pruning=Pruning(share=0.5)), cache)
    assert variant.prune_facts is not None
    assert variant.prune_facts.num_zero_after == 932
    dense = _build(stock_recipe(Scheme.DYNAMIC_RANGE), cache)
    assert variant.compressed_bytes < dense.compressed_bytes
    assert variant.fidelity.sqnr_db < dense.fidelity.sqnr_db


def test_equalization_comes_before_quantization_and_is_recorded(cache: Cache) -> None:
    recipe = replace(stock_recipe(Scheme.INT8), equalize=True)
    variant = _build(recipe, cache)
    assert variant.equalize_facts is not None
    assert variant.equalize_facts.float_db > 60
    table = json.loads(json.dumps(variant_to_json(variant), allow_nan=False))
    assert parse_variant(table, model=variant.model) == variant
    assert _build(stock_recipe(Scheme.INT8), cache).equalize_facts is None


def test_fusion_comes_first_and_is_recorded(cache: Cache) -> None:
    tree = new_tree((1, 8, 8, 2))
    graph, random = tree.subgraphs[0], np.random.default_rng(1)
    first = add_layer(tree, LayerPlan(op="CONV_2D", num_out=8), int(graph.inputs[0]), random)
    six = new_constant(tree, "third", np.full(8, 0.3, np.float32))
    scaled = new_tensor(tree, "scaled", (1, 8, 8, 8), "float32")
    graph.operators.append(make_op(tree, "MUL", [first, six], [scaled], options=("MulOptions", {})))
    graph.outputs = [add_layer(tree, LayerPlan(op="CONV_2D", num_out=4), scaled, random)]
    model = read_model(write_flatbuffer(tree))
    evaluation = make_evaluation(model, make_feeds(model))
    recipe = replace(stock_recipe(Scheme.FLOAT32), fuse=True)
    variant = build_variant(model, recipe, calibration=None, evaluation=evaluation, cache=cache)
    assert variant.fusion_facts is not None
    assert (variant.fusion_facts.num_folded, variant.fusion_facts.num_hard_swish) == (1, 0)
    assert variant.fidelity.sqnr_db > 100
    fused = read_flatbuffer(variant.model.data)
    assert [op_name(fused, each) for each in fused.subgraphs[0].operators] == ["CONV_2D"] * 2
    table = json.loads(json.dumps(variant_to_json(variant), allow_nan=False))
    assert parse_variant(table, model=variant.model) == variant
    assert count_fusible(model) == 1
    assert count_fusible(variant.model) == 0


def test_labels_give_accuracies(cache: Cache) -> None:
    model = small_model("cnn")
    feeds = make_feeds(model)
    outputs = make_evaluation(model, feeds).reference
    labels = np.array([int(np.argmax(sample[0])) for sample in outputs])
    variant = build_variant(
        model,
        stock_recipe(Scheme.FLOAT16),
        calibration=None,
        evaluation=make_evaluation(model, feeds, labels=labels),
        cache=cache,
    )
    assert variant.fidelity.reference_accuracy == 1.0
    assert variant.fidelity.accuracy == variant.fidelity.top1_agreement


def test_json_gives_the_same_variant_back(cache: Cache) -> None:
    variant = _build(stock_recipe(Scheme.DYNAMIC_RANGE, pruning=Pruning(share=0.25)), cache)
    table = json.loads(json.dumps(variant_to_json(variant), allow_nan=False))
    assert parse_variant(table, model=variant.model) == variant


def test_facts_of_another_model_are_refused(cache: Cache) -> None:
    variant = _build(stock_recipe(Scheme.FLOAT16), cache)
    with pytest.raises(OptimizeError, match="sha256: expected that of the model beside it"):
        parse_variant(variant_to_json(variant), model=small_model("cnn"))


def test_the_digest_of_feeds_sees_values_shapes_order_and_labels() -> None:
    first, second = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    digests = {
        digest_feeds([(first,), (second,)]),
        digest_feeds([(second,), (first,)]),
        digest_feeds([(first, second)]),
        digest_feeds([(first.reshape(2, 1),), (second,)]),
        digest_feeds([(first,), (second,)], labels=np.array([0, 1])),
    }
    assert len(digests) == 5
