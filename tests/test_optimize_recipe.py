from __future__ import annotations

import pytest

from edgepack._fields import Fields
from edgepack.errors import RecipeError
from edgepack.optimize.recipes.recipe import (
    Granularity,
    InterfaceType,
    LayerScheme,
    PruneKind,
    Pruning,
    RangeMethod,
    Recipe,
    Rounding,
    check_recipe,
    describe_recipe,
    read_recipe,
    recipe_to_json,
    stock_recipe,
)
from edgepack.profile import Scheme

FULL = Recipe(
    name="best",
    scheme=Scheme.INT8,
    granularity=Granularity.TENSORWISE,
    interface=InterfaceType.INTEGER,
    pruning=Pruning(kind=PruneKind.STRUCTURED, share=0.3),
    fuse=True,
    equalize=True,
    bias_correction=True,
    rounding=Rounding.GPTQ,
    weight_ranges=RangeMethod.OCTAV,
    activation_ranges=RangeMethod.KL,
    layers=(
        LayerScheme(layer="stem", scheme=Scheme.FLOAT32),
        LayerScheme(layer="head", scheme=Scheme.FLOAT32),
        LayerScheme(layer="neck", scheme=Scheme.WEIGHT_ONLY_INT8),
    ),
)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (stock_recipe(Scheme.FLOAT32), "float32"),
        (stock_recipe(Scheme.DYNAMIC_RANGE), "dynamic int8"),
        (stock_recipe(Scheme.INT16X8), "int16 activations with int8 weights"),
        (
            stock_recipe(Scheme.FLOAT16, pruning=Pruning(share=0.5)),
            "float16, magnitude pruning 50%",
        ),
        (
            Recipe(
                name="x",
                scheme=Scheme.INT8,
                rounding=Rounding.GPTQ,
                bias_correction=True,
                layers=tuple(
                    LayerScheme(layer=name, scheme=Scheme.FLOAT32) for name in ("a", "b", "c")
                ),
                pruning=Pruning(kind=PruneKind.STRUCTURED, share=0.3),
            ),
            "int8, GPTQ, bias corrected, 3 layers float32, structured pruning 30%",
        ),
        (
            FULL,
            (
                "int8, one scale a tensor, fused, equalized, OCTAV weight ranges, KL activation "
                "ranges, GPTQ, bias corrected, 2 layers float32, 1 layer weight-only int8, "
                "structured pruning 30%, integer inputs and outputs"
            ),
        ),
    ],
)
def test_a_recipe_in_words(recipe: Recipe, words: str) -> None:
    assert describe_recipe(recipe) == words


@pytest.mark.parametrize("scheme", Scheme)
def test_every_scheme_has_words(scheme: Scheme) -> None:
    assert describe_recipe(Recipe(name="x", scheme=scheme))


def test_the_order_of_layers_means_nothing() -> None:
    layers = [LayerScheme(layer=name, scheme=Scheme.FLOAT32) for name in ("b", "a")]
    one = Recipe(name="x", scheme=Scheme.INT8, layers=tuple(layers))
    other = Recipe(name="x", scheme=Scheme.INT8, layers=tuple(layers[::-1]))
    assert one == other
    assert [each.layer for each in one.layers] == ["a", "b"]


def test_json_gives_the_recipe_back() -> None:
    fields = Fields(recipe_to_json(FULL))
    assert read_recipe(fields) == FULL
    assert fields.faults == []


def test_what_cannot_be_had_is_refused_all_at_once() -> None:
    recipe = Recipe(
        name="a b",
        scheme=Scheme.FLOAT16,
        interface=InterfaceType.INTEGER,
        equalize=True,
        weight_ranges=RangeMethod.KL,
        activation_ranges=RangeMethod.KL,
        layers=(
            LayerScheme(layer="x", scheme=Scheme.FLOAT32),
            LayerScheme(layer="x", scheme=Scheme.INT8),
            LayerScheme(layer="\ud800", scheme=Scheme.INT8),
        ),
    )
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe)
    assert caught.value.message == (
        "recipe 'a b': 8 faults\n"
        "  - name: expected letters, digits and ._+-, not 'a b'\n"
        "  - float16 has no integer weights that equalize, bias_correction, rounding or "
        "weight_ranges could better\n"
        "  - weight_ranges: expected minmax, mse or octav, not kl\n"
        "  - activation_ranges: float16 keeps activations in float\n"
        "  - layers: 'x' stands twice\n"
        "  - layers: expected a name of whole characters, not '\\ud800'\n"
        "  - layers: float16 is one for the whole model\n"
        "  - interface: float16 keeps activations in float, so its I/O is float"
    )
