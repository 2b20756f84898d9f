"""What may be done to a model as it came: which recipes are offered, which refused and why; pure.

Measured with ai-edge-quantizer 0.10 and LiteRT 2.3 on models of TensorFlow 2.21: float16 of a
model with int8 weights answers wrongly without a word (-54 dB), of an int8 model it cannot be
loaded; every other recipe leaves an int8 model as it is. int8 of a model with float16 weights
answers wrongly too (0 dB), of one trained with fake quantization it falls to 24 dB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgepack.errors import OptimizeError
from edgepack.optimize.recipes.recipe import Recipe, stock_recipe
from edgepack.profile import Scheme
from edgepack.traits import Numerics, StateKind, Traits

PRUNING: Final = "prune"

_REASONS: Final = {
    Numerics.WEIGHT_ONLY: "its weights are {dtypes} already: quantizing them again would add one "
    "rounding to another",
    Numerics.DYNAMIC_RANGE: "its weights are {dtypes} already: quantizing them again would add "
    "one rounding to another",
    Numerics.INT8: "its weights and activations are int8 already: the float values are gone",
    Numerics.UINT8: "its weights and activations are uint8 already: the float values are gone",
    Numerics.INT16X8: "its weights are int8 and its activations int16 already: the float values "
    "are gone",
    Numerics.MIXED: "it is quantized in part already ({dtypes} weights): the float values of "
    "that part are gone",
    Numerics.FAKE_QUANT: "it was trained with fake quantization: another quantization would not "
    "use the ranges it learned",
}
_LOOP: Final = "it has a loop or branch (WHILE, IF), whose inside the quantizer cannot calibrate"
_FLOAT_REMEDY: Final = "Give the float model it was made from, or pack it with --recipe as_is."


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What may be done to a model, or why not.

    Attributes:
        name: a recipe's name, or `prune`.
        refusal: why it is refused; None when it is offered.
    """

    name: str
    refusal: str | None = None


def list_offers(traits: Traits) -> tuple[Offer, ...]:
    """Say of every stock recipe, and of pruning, whether it may be carried out on a model."""
    recipes = [stock_recipe(scheme) for scheme in Scheme]
    return (
        *(Offer(name=each.name, refusal=find_refusal(traits, each)) for each in recipes),
        Offer(name=PRUNING, refusal=refuse_float_pass(traits)),
    )


def find_refusal(traits: Traits, recipe: Recipe) -> str | None:
    """Say why a recipe cannot be carried out on a model; None when it can."""
    if recipe.pruning.share and (refusal := refuse_float_pass(traits)) is not None:
        return refusal
    if recipe.scheme is Scheme.AS_IS:
        return None
    refusal = refuse_float_pass(traits)
    if refusal is None and recipe.is_static and traits.has_loop:
        return _LOOP
    return refusal


def refuse_float_pass(traits: Traits) -> str | None:
    """Say why what needs float32 weights cannot be done; None when it can.

    Float16 weights are no reason: each is a float32 number exactly, so that they are brought
    back without loss.
    """
    reason = _REASONS.get(traits.numerics)
    if reason is None:
        return None
    dtypes = [name for name in traits.weight_dtypes if not name.startswith("float")]
    return reason.format(dtypes=" and ".join(dtypes) or "integer")


def check_eligible(traits: Traits, recipe: Recipe) -> None:
    """Refuse a recipe that cannot be carried out on a model.

    Raises:
        OptimizeError: saying why, and what can be done.
    """
    refusal = find_refusal(traits, recipe)
    if refusal is not None:
        raise OptimizeError(
            f"recipe {recipe.name!r} cannot be carried out on this model: {refusal}",
            remedy=_find_remedy(traits),
        )


def _find_remedy(traits: Traits) -> str:
    if traits.numerics is Numerics.FAKE_QUANT:
        return (
            "Convert it with the TFLite converter's own quantization (tf.lite.Optimize.DEFAULT), "
            "which uses the ranges it learned, or pack it with --recipe as_is."
        )
    if refuse_float_pass(traits) is not None:
        return _FLOAT_REMEDY
    return "Choose a recipe without calibration: dynamic_range, weight_only_int8, float16."


def fit_recipes(recipes: Sequence[Recipe], traits: Traits) -> tuple[Recipe, ...]:
    """Give the recipes to try on a model when the user named none.

    The model as it came is always among them: under its own name when it is not float32.
    """
    if traits.numerics is Numerics.FLOAT32:
        return tuple(recipes)
    fitting = [
        recipe
        for recipe in recipes
        # Without a float model there is nothing that float32 would be the name of.
        if recipe.scheme is not Scheme.FLOAT32 or refuse_float_pass(traits) is None
    ]
    if any(recipe.scheme is Scheme.AS_IS for recipe in fitting):
        return tuple(fitting)
    return (*fitting, stock_recipe(Scheme.AS_IS))


def describe(traits: Traits) -> str:
    """Say in words what a model is, such as `int8 weights and activations, keeps state`."""
    parts = [_NUMERICS[traits.numerics]]
    dtypes = [name for name in traits.weight_dtypes if not name.startswith("float")]
    if traits.numerics in {Numerics.WEIGHT_ONLY, Numerics.DYNAMIC_RANGE, Numerics.MIXED} and dtypes:
        parts[0] += f" ({', '.join(dtypes)})"
    if traits.is_sparse:
        parts.append("sparse weights")
    if traits.state is StateKind.STREAM:
        parts.append("keeps state: its samples are one stream, in order")
    if traits.state is StateKind.SEQUENCE:
        parts.append("keeps state within a sequence: reset before each sample")
    if traits.has_loop:
        parts.append("has a loop or branch")
    return ", ".join(parts)


_NUMERICS: Final = {
    Numerics.FLOAT32: "float32",
    Numerics.FLOAT16: "float16 weights",
    Numerics.WEIGHT_ONLY: "quantized weights, float computation",
    Numerics.DYNAMIC_RANGE: "quantized weights, activations quantized while it runs",
    Numerics.INT8: "quantized: int8 weights and activations",
    Numerics.UINT8: "quantized: uint8 weights and activations",
    Numerics.INT16X8: "quantized: int8 weights, int16 activations",
    Numerics.FAKE_QUANT: "float32 with fake quantization",
    Numerics.MIXED: "quantized in part",
}
