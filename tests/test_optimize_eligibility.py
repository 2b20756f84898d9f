"""What may be done to models as they came, held against what the quantizer then does."""

import pytest

from edgepack.errors import OptimizeError
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.eligibility import (
    check_eligible,
    describe,
    find_refusal,
    fit_recipes,
    list_offers,
)
from edgepack.optimize.recipes.recipe import Pruning, stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.models import came_as, make_feeds

_EVERYTHING = {*(scheme.value for scheme in Scheme), "prune"}
_LOOP = "it has a loop or branch (WHILE, IF), whose inside the quantizer cannot calibrate"


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("float32", _EVERYTHING),
        ("float16", _EVERYTHING),
        ("stream", _EVERYTHING),
        ("lstm", _EVERYTHING),
        ("loop", _EVERYTHING - {"int8", "int16x8"}),
        ("dynamic_range", {"as_is"}),
        ("int8", {"as_is"}),
        ("int16x8", {"as_is"}),
        ("stream_int8", {"as_is"}),
        ("fake_quant", {"as_is"}),
    ],
)
def test_what_is_offered_depends_on_what_the_model_is(name: str, offered: set[str]) -> None:
    offers = list_offers(came_as(name).traits)
    assert {offer.name for offer in offers} == _EVERYTHING
    assert {offer.name for offer in offers if offer.refusal is None} == offered


@pytest.mark.parametrize("name", ["float16", "stream", "lstm", "loop"])
def test_what_is_offered_can_be_built(name: str) -> None:
    model = came_as(name)
    for scheme in Scheme:
        recipe = stock_recipe(scheme)
        if find_refusal(model.traits, recipe) is None:
            built = quantize(model, recipe, make_feeds(model, num_samples=4)).model
            assert built.signature == model.signature


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("int8", "its weights and activations are int8 already: the float values are gone"),
        (
            "int16x8",
            "its weights are int8 and its activations int16 already: the float values are gone",
        ),
        (
            "dynamic_range",
            "its weights are int8 already: quantizing them again would add one rounding to another",
        ),
        (
            "stream_int8",
            (
                "it is quantized in part already (int8 weights): the float values of that part "
                "are gone"
            ),
        ),
        (
            "fake_quant",
            (
                "it was trained with fake quantization: another quantization would not use the "
                "ranges it learned"
            ),
        ),
        ("loop", _LOOP),
    ],
)
def test_a_refusal_gives_its_reason(name: str, reason: str) -> None:
    assert find_refusal(came_as(name).traits, stock_recipe(Scheme.INT8)) == reason


def test_pruning_needs_float_weights_whatever_the_recipe() -> None:
    recipe = stock_recipe(Scheme.AS_IS, pruning=Pruning(share=0.5))
    assert find_refusal(came_as("float32").traits, recipe) is None
    refusal = find_refusal(came_as("int8").traits, recipe)
    assert refusal == "its weights and activations are int8 already: the float values are gone"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("int8", "Give the float model it was made from, or pack it with --recipe as_is."),
        (
            "fake_quant",
            (
                "Convert it with the TFLite converter's own quantization "
                "(tf.lite.Optimize.DEFAULT), which uses the ranges it learned, or pack it with "
                "--recipe as_is."
            ),
        ),
        (
            "loop",
            "Choose a recipe without calibration: dynamic_range, weight_only_int8, float16.",
        ),
    ],
)
def test_a_refusal_says_what_can_be_done(name: str, remedy: str) -> None:
    with pytest.raises(OptimizeError) as caught:
        check_eligible(came_as(name).traits, stock_recipe(Scheme.INT8))
    assert caught.value.remedy == remedy


def test_a_quantized_model_is_tried_as_it_is_and_never_as_float32() -> None:
    asked = [stock_recipe(scheme) for scheme in (Scheme.INT8, Scheme.FLOAT32)]

    def names(model: str) -> list[str]:
        return [recipe.name for recipe in fit_recipes(asked, came_as(model).traits)]

    assert names("float32") == ["int8", "float32"]
    assert names("int8") == ["int8", "as_is"]
    assert names("float16") == ["int8", "float32", "as_is"]
    as_is = [stock_recipe(Scheme.AS_IS)]
    assert fit_recipes(as_is, came_as("int8").traits) == tuple(as_is)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("float32", "float32"),
        ("float16", "float16 weights"),
        ("dynamic_range", "quantized weights, activations quantized while it runs (int8)"),
        ("int8", "quantized: int8 weights and activations"),
        ("stream", "float32, keeps state: its samples are one stream, in order"),
        ("lstm", "float32, keeps state within a sequence: reset before each sample"),
        ("loop", "float32, has a loop or branch"),
        ("fake_quant", "float32 with fake quantization"),
    ],
)
def test_a_model_is_described_in_words(name: str, words: str) -> None:
    assert describe(came_as(name).traits) == words
