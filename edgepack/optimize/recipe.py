"""Recipes: what is to be done to a float model, as a value that travels with the result."""

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgepack._fields import Fields, join_faults, nearest
from edgepack.errors import RecipeError
from edgepack.profile import Scheme

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")


class InterfaceType(StrEnum):
    """Element type of the model's inputs and outputs."""

    FLOAT = "float"
    INTEGER = "integer"


class Granularity(StrEnum):
    """How many weights share a scale."""

    TENSORWISE = "tensorwise"
    CHANNELWISE = "channelwise"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is to be done to a float model.

    Attributes:
        name: what the variant is called; the scheme's name for the stock recipes.
        scheme: representation of weights and activations.
        granularity: how many weights share a scale.
        interface: element type of inputs and outputs; only static schemes offer integers.
        prune: share of each layer's weights set to zero by magnitude, 0 to below 1.
    """

    name: str
    scheme: Scheme
    granularity: Granularity = Granularity.CHANNELWISE
    interface: InterfaceType = InterfaceType.FLOAT
    prune: float = 0.0

    @property
    def is_static(self) -> bool:
        """Whether activations are quantized from calibration data."""
        return self.scheme in {Scheme.INT8, Scheme.INT16X8}


def stock_recipe(
    scheme: Scheme, *, prune: float = 0.0, interface: InterfaceType = InterfaceType.FLOAT
) -> Recipe:
    """Give a scheme's plain recipe, named after it (`int8`, or `int8+prune0.5`).

    Raises:
        RecipeError: as `check_recipe`.
    """
    name = scheme.value if not prune else f"{scheme.value}+prune{prune:g}"
    static = scheme in {Scheme.INT8, Scheme.INT16X8}
    recipe = Recipe(
        name=name,
        scheme=scheme,
        prune=prune,
        interface=interface if static else InterfaceType.FLOAT,
    )
    check_recipe(recipe)
    return recipe


def parse_recipe(text: str, *, name: str) -> Recipe:
    """Read a recipe from TOML text.

    Raises:
        RecipeError: not TOML, or breaking the schema; all faults are listed.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"recipe {name!r}: not valid TOML: {error}",
            remedy='Mend the line; `scheme = "int8"` alone is a whole recipe.',
        ) from error
    fields = Fields(table)
    recipe = read_recipe(fields, name=name)
    if fields.faults:
        raise RecipeError(
            join_faults(f"recipe {name!r}", fields.faults),
            remedy='Mend the keys named above; `scheme = "int8"` alone is a whole recipe.',
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
        prune=fields.number("prune", 0.0, minimum=0.0, maximum=0.99),
    )
    fields.close()
    return recipe


def recipe_to_json(recipe: Recipe) -> dict[str, object]:
    """Give a recipe as a JSON object, every key written out; `read_recipe` reads it back."""
    return {
        "granularity": recipe.granularity.value,
        "interface": recipe.interface.value,
        "name": recipe.name,
        "prune": recipe.prune,
        "scheme": recipe.scheme.value,
    }


def find_recipe(name: str, *, prune: float, interface: InterfaceType) -> Recipe:
    """Give the recipe of a scheme's name, or of a TOML file when the name is a path.

    Raises:
        RecipeError: neither a scheme nor a readable file; a malformed file.
    """
    if name in {scheme.value for scheme in Scheme}:
        return stock_recipe(Scheme(name), prune=prune, interface=interface)
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"recipe file {name}: cannot be read: {error}",
                remedy="Check the path; recipes are UTF-8 TOML files.",
            ) from error
        return parse_recipe(text, name=path.stem)
    known = [scheme.value for scheme in Scheme]
    raise RecipeError(
        f"unknown recipe {name!r}{nearest(name, known)}",
        remedy=f"Give one of {', '.join(known)}, or the path of a .toml file.",
    )


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that asks for what cannot be had.

    Raises:
        RecipeError: a bad name, a pruned share outside 0 to 0.99, or integer I/O of a scheme
            whose activations stay in float.
    """
    faults: list[str] = []
    if not _NAME.fullmatch(recipe.name):
        faults.append(f"name: expected letters, digits and ._+-, not {recipe.name!r}")
    if not 0.0 <= recipe.prune <= 0.99:  # noqa: PLR2004 - a layer of zeros is no layer
        faults.append(f"prune: expected a share from 0 to 0.99, not {recipe.prune}")
    if recipe.interface is InterfaceType.INTEGER and not recipe.is_static:
        faults.append(f"interface: {recipe.scheme} keeps activations in float, so its I/O is float")
    if faults:
        raise RecipeError(
            join_faults(f"recipe {recipe.name!r}", faults), remedy="Change the recipe."
        )
