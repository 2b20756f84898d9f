"""Recipes: what is to be done to a float model, as a value that travels with the result."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.errors import RecipeError
from edgepack.profile import Scheme

# The schemes with integer weights.
_REFINABLE: Final = (
    Scheme.DYNAMIC_RANGE,
    Scheme.WEIGHT_ONLY_INT8,
    Scheme.INT8,
    Scheme.INT16X8,
)
_SCHEME_WORDS: Final = {
    Scheme.DYNAMIC_RANGE: "dynamic int8",
    Scheme.WEIGHT_ONLY_INT8: "weight-only int8",
    Scheme.INT16X8: "int16 activations with int8 weights",
    Scheme.AS_IS: "as it is",
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")


class InterfaceType(StrEnum):
    """Element type of the model's inputs and outputs."""

    FLOAT = "float"
    INTEGER = "integer"


class Granularity(StrEnum):
    """How many weights share a scale."""

    TENSORWISE = "tensorwise"
    CHANNELWISE = "channelwise"


class PruneKind(StrEnum):
    """What pruning takes away, and how it makes up for it."""

    MAGNITUDE = "magnitude"
    SPARSEGPT = "sparsegpt"
    STRUCTURED = "structured"


class RangeMethod(StrEnum):
    """How the range that integers stand for is set from what was seen."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    OCTAV = "octav"
    KL = "kl"
    BEST = "best"


class Rounding(StrEnum):
    """How a weight becomes an integer."""

    NEAREST = "nearest"
    GPTQ = "gptq"


_PRUNE_WORDS: Final = {
    PruneKind.MAGNITUDE: "magnitude",
    PruneKind.SPARSEGPT: "SparseGPT",
    PruneKind.STRUCTURED: "structured",
}
_RANGE_WORDS: Final = {
    RangeMethod.MINMAX: "min-max",
    RangeMethod.PERCENTILE: "percentile",
    RangeMethod.MSE: "MSE",
    RangeMethod.OCTAV: "OCTAV",
    RangeMethod.KL: "KL",
    RangeMethod.BEST: "best",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruning:
    """What is taken away from the float model before anything else.

    Attributes:
        kind: single weights by magnitude or by SparseGPT, or whole channels.
        share: of each layer's weights, or of the model's multiplications for whole channels;
            0 is no pruning, below 1.
    """

    kind: PruneKind = PruneKind.MAGNITUDE
    share: float = 0.0

    @property
    def needs_calibration(self) -> bool:
        """Whether it looks at real inputs."""
        return bool(self.share) and self.kind is not PruneKind.MAGNITUDE

    @property
    def label(self) -> str:
        """How a recipe's name tells it: `prune0.5`, `structured0.3`."""
        word = "prune" if self.kind is PruneKind.MAGNITUDE else self.kind.value
        return f"{word}{self.share:g}"


NO_PRUNING: Final = Pruning()


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerScheme:
    """A layer whose representation is not the recipe's.

    Attributes:
        layer: name of the tensor its op gives, in the float model.
        scheme: float32 or another of the schemes that a layer can have of its own.
    """

    layer: str
    scheme: Scheme


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is to be done to a float model.

    Attributes:
        name: what the variant is called; the scheme's name for the stock recipes.
        scheme: representation of weights and activations.
        granularity: how many weights share a scale.
        interface: element type of inputs and outputs; only static schemes offer integers.
        pruning: what is taken away first.
        fuse: whether constants fold into the layers beside them, and what spells one op becomes
            it; the float model stays the same function.
        equalize: whether channels of neighboring layers are brought to like ranges.
        bias_correction: whether the shift of each layer's mean that quantized weights cause is
            taken back.
        rounding: how weights become integers.
        weight_ranges: how the range of a channel's weights is set.
        activation_ranges: how the range of an activation is set; only of static schemes.
        layers: the layers that are not represented as `scheme` says, sorted by name.
    """

    name: str
    scheme: Scheme
    granularity: Granularity = Granularity.CHANNELWISE
    interface: InterfaceType = InterfaceType.FLOAT
    pruning: Pruning = NO_PRUNING
    fuse: bool = False
    equalize: bool = False
    bias_correction: bool = False
    rounding: Rounding = Rounding.NEAREST
    weight_ranges: RangeMethod = RangeMethod.MINMAX
    activation_ranges: RangeMethod = RangeMethod.MINMAX
    layers: tuple[LayerScheme, ...] = ()

    def __post_init__(self) -> None:
        """Sort the layers: their order means nothing, and two recipes that say the same are one."""
        ordered = tuple(sorted(self.layers, key=lambda each: (each.layer, each.scheme.value)))
        object.__setattr__(self, "layers", ordered)

    @property
    def needs_calibration(self) -> bool:
        """Whether it cannot be carried out without real inputs."""
        return (
            self.is_static
            or any(each.scheme in {Scheme.INT8, Scheme.INT16X8} for each in self.layers)
            or self.is_refined
            or self.equalize
            or self.pruning.needs_calibration
        )

    @property
    def is_refined(self) -> bool:
        """Whether each layer's weights are prepared for their integers, seeing its inputs."""
        return (
            self.bias_correction
            or self.rounding is not Rounding.NEAREST
            or self.weight_ranges is not RangeMethod.MINMAX
        )

    @property
    def is_static(self) -> bool:
        """Whether activations are quantized from calibration data."""
        return self.scheme in {Scheme.INT8, Scheme.INT16X8}


def stock_recipe(
    scheme: Scheme,
    *,
    pruning: Pruning = NO_PRUNING,
    interface: InterfaceType = InterfaceType.FLOAT,
) -> Recipe:
    """Give a scheme's plain recipe, named after it (`int8`, or `int8+prune0.5`).

    Raises:
        RecipeError: as `check_recipe`.
    """
    name = scheme.value if not pruning.share else f"{scheme.value}+{pruning.label}"
    static = scheme in {Scheme.INT8, Scheme.INT16X8}
    recipe = Recipe(
        name=name,
        scheme=scheme,
        pruning=pruning,
        interface=interface if static else InterfaceType.FLOAT,
    )
    check_recipe(recipe)
    return recipe


def read_recipe(fields: Fields, *, name: str | None = None) -> Recipe:
    """Read a recipe from a TOML or JSON table, noting faults in `fields`; `name` is the default."""
    recipe = Recipe(
        name=fields.text("name", name),
        scheme=fields.choice("scheme", Scheme),
        granularity=fields.choice("granularity", Granularity, Granularity.CHANNELWISE),
        interface=fields.choice("interface", InterfaceType, InterfaceType.FLOAT),
        pruning=_read_pruning(fields.table("prune")),
        fuse=fields.boolean("fuse", default=False),
        equalize=fields.boolean("equalize", default=False),
        bias_correction=fields.boolean("bias_correction", default=False),
        rounding=fields.choice("rounding", Rounding, Rounding.NEAREST),
        weight_ranges=fields.choice("weight_ranges", RangeMethod, RangeMethod.MINMAX),
        activation_ranges=fields.choice("activation_ranges", RangeMethod, RangeMethod.MINMAX),
        layers=_read_layers(fields.table("layers")),
    )
    fields.close()
    return recipe


def _read_pruning(fields: Fields) -> Pruning:
    pruning = Pruning(
        kind=fields.choice("kind", PruneKind, PruneKind.MAGNITUDE),
        share=fields.number("share", 0.0, minimum=0.0, maximum=0.99),
    )
    fields.close()
    return pruning


def _read_layers(fields: Fields) -> tuple[LayerScheme, ...]:
    layers = tuple(
        LayerScheme(layer=name, scheme=fields.choice(name, Scheme))
        for name in sorted(fields.keys())
    )
    fields.close()
    return layers


def recipe_to_json(recipe: Recipe) -> dict[str, object]:
    """Give a recipe as a JSON object, every key written out; `read_recipe` reads it back."""
    return {
        "activation_ranges": recipe.activation_ranges.value,
        "bias_correction": recipe.bias_correction,
        "equalize": recipe.equalize,
        "fuse": recipe.fuse,
        "granularity": recipe.granularity.value,
        "interface": recipe.interface.value,
        "layers": {each.layer: each.scheme.value for each in recipe.layers},
        "name": recipe.name,
        "prune": {"kind": recipe.pruning.kind.value, "share": recipe.pruning.share},
        "rounding": recipe.rounding.value,
        "scheme": recipe.scheme.value,
        "weight_ranges": recipe.weight_ranges.value,
    }


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that asks for what cannot be had.

    Raises:
        RecipeError: a bad name, a pruned share outside 0 to 0.99, or integer I/O of a scheme
            whose activations stay in float.
    """
    faults: list[str] = []
    if not _NAME.fullmatch(recipe.name):
        faults.append(f"name: expected letters, digits and ._+-, not {recipe.name!r}")
    if not 0.0 <= recipe.pruning.share <= 0.99:  # noqa: PLR2004 - a layer of zeros is no layer
        faults.append(f"prune: expected a share from 0 to 0.99, not {recipe.pruning.share}")
    if (recipe.is_refined or recipe.equalize) and recipe.scheme not in _REFINABLE:
        faults.append(
            f"{recipe.scheme} has no integer weights that equalize, bias_correction, rounding or "
            "weight_ranges could better"
        )
    if recipe.fuse and recipe.scheme is Scheme.AS_IS:
        faults.append("fuse: as_is leaves the model as it came")
    if recipe.weight_ranges not in {RangeMethod.MINMAX, RangeMethod.MSE, RangeMethod.OCTAV}:
        faults.append(
            f"weight_ranges: expected minmax, mse or octav, not {recipe.weight_ranges.value}"
        )
    if recipe.activation_ranges is not RangeMethod.MINMAX and not recipe.is_static:
        faults.append(f"activation_ranges: {recipe.scheme} keeps activations in float")
    names = [each.layer for each in recipe.layers]
    faults += [
        f"layers: {name!r} stands twice" for name in sorted({*names}) if names.count(name) > 1
    ]
    # JSON can spell half a character, which no file can hold.
    faults += [
        f"layers: expected a name of whole characters, not {name!r}"
        for name in names
        if any(unicodedata.category(char) == "Cs" for char in name)
    ]
    if recipe.layers and recipe.scheme not in _REFINABLE:
        faults.append(f"layers: {recipe.scheme} is one for the whole model")
    if recipe.interface is InterfaceType.INTEGER and not recipe.is_static:
        faults.append(f"interface: {recipe.scheme} keeps activations in float, so its I/O is float")
    if faults:
        raise RecipeError(
            join_faults(f"recipe {recipe.name!r}", faults), remedy="Change the recipe."
        )


def describe_recipe(recipe: Recipe) -> str:
    """Say in words what a recipe does: `int8, GPTQ, bias corrected, 3 layers float32`."""
    parts = [_SCHEME_WORDS.get(recipe.scheme, recipe.scheme.value)]
    if recipe.granularity is Granularity.TENSORWISE:
        parts.append("one scale a tensor")
    parts += ["fused"] * recipe.fuse + ["equalized"] * recipe.equalize
    if recipe.weight_ranges is not RangeMethod.MINMAX:
        parts.append(f"{_RANGE_WORDS[recipe.weight_ranges]} weight ranges")
    if recipe.activation_ranges is not RangeMethod.MINMAX:
        parts.append(f"{_RANGE_WORDS[recipe.activation_ranges]} activation ranges")
    if recipe.rounding is not Rounding.NEAREST:
        parts.append(recipe.rounding.value.upper())
    if recipe.bias_correction:
        parts.append("bias corrected")
    schemes = [each.scheme for each in recipe.layers]
    for scheme in sorted({*schemes}, key=lambda each: each.value):
        number = schemes.count(scheme)
        words = _SCHEME_WORDS.get(scheme, scheme.value)
        parts.append(f"{number} {'layer' if number == 1 else 'layers'} {words}")
    if recipe.pruning.share:
        parts.append(f"{_PRUNE_WORDS[recipe.pruning.kind]} pruning {100 * recipe.pruning.share:g}%")
    if recipe.interface is InterfaceType.INTEGER:
        parts.append("integer inputs and outputs")
    return ", ".join(parts)
