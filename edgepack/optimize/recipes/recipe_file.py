"""Recipes as TOML files: what a user writes, and what reproduces a variant exactly."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgepack._fields import Fields, join_faults, nearest
from edgepack.errors import RecipeError
from edgepack.optimize.recipes.recipe import (
    InterfaceType,
    Pruning,
    Recipe,
    check_recipe,
    describe_recipe,
    read_recipe,
    recipe_to_json,
    stock_recipe,
)
from edgepack.profile import Scheme

FIRST_LINE: Final = "# EdgePack recipe"
"""How a written recipe file begins, so that it can be told from a file of the user's own."""

# The last character that four hex digits can spell.
_LAST_OF_FOUR: Final = 0xFFFF
# Models of ten thousand layers have names of a kilobyte at most.
_MAXIMUM_BYTES: Final = 16 * 2**20


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML, every key written out; `parse_recipe` reads it back the same.

    Raises:
        RecipeError: as `check_recipe`.
    """
    check_recipe(recipe)
    whole = recipe_to_json(recipe)
    # What it is called and what it is come first; then plain keys, as tables end them.
    ordered = {"name": whole["name"], "scheme": whole["scheme"]} | whole
    lines = [f"{FIRST_LINE}: {describe_recipe(recipe)}"]
    lines += _key_lines(ordered)
    for name, table in ordered.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{name}]", *_key_lines(table)]
    return "\n".join(lines) + "\n"


def _key_lines(table: Mapping[str, object]) -> list[str]:
    return [
        f"{_key(key)} = {_value(value)}"
        for key, value in table.items()
        if not isinstance(value, Mapping)
    ]


def _key(key: str) -> str:
    """Write a key: bare where TOML allows it and it is one of ours, else quoted."""
    is_bare = key.isascii() and key.replace("_", "").isalpha()
    return key if is_bare else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    raise TypeError(f"a recipe holds no {type(value).__name__}")


def _text(text: str) -> str:
    """Write a basic string of TOML 1.0; what would not show, or turn other text, is escaped."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\u{ord(char):04X}" if ord(char) <= _LAST_OF_FOUR else f"\\U{ord(char):08X}"


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


def find_recipe(name: str, *, pruning: Pruning, interface: InterfaceType) -> Recipe:
    """Give the recipe of a scheme's name, or of a TOML file when the name is a path.

    Raises:
        RecipeError: neither a scheme nor a readable file; a malformed file.
    """
    if name in {scheme.value for scheme in Scheme}:
        return stock_recipe(Scheme(name), pruning=pruning, interface=interface)
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        try:
            text = _read_text(path)
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


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAXIMUM_BYTES + 1)
    if len(data) > _MAXIMUM_BYTES:
        raise RecipeError(
            f"recipe file {path}: expected at most {_MAXIMUM_BYTES // 2**20} MiB, but it is larger",
            remedy="Check the path; recipes are UTF-8 TOML files.",
        )
    return data.decode("utf-8")
