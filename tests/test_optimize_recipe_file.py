from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import RecipeError
from edgepack.optimize.recipes.recipe import (
    NO_PRUNING,
    Granularity,
    InterfaceType,
    LayerScheme,
    PruneKind,
    Pruning,
    RangeMethod,
    Recipe,
    Rounding,
    check_recipe,
    recipe_to_json,
    stock_recipe,
)
from edgepack.optimize.recipes.recipe_file import find_recipe, parse_recipe, recipe_to_toml
from edgepack.profile import Scheme
from tests.test_optimize_recipe import FULL

_LAYERS = st.lists(
    st.builds(LayerScheme, layer=st.text(max_size=40), scheme=st.sampled_from(Scheme)),
    unique_by=lambda each: each.layer,
    max_size=5,
).map(tuple)


def _is_had(recipe: Recipe) -> bool:
    try:
        check_recipe(recipe)
    except RecipeError:
        return False
    return True


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Give any recipe that can be had: those with every key set, and those without any."""
    pruning = Pruning(
        kind=draw(st.sampled_from(PruneKind)),
        share=draw(st.floats(min_value=0.0, max_value=0.99)),
    )
    name = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}", fullmatch=True))
    scheme = draw(st.sampled_from(Scheme))
    plain = Recipe(name=name, scheme=scheme, pruning=pruning)
    whole = Recipe(
        name=name,
        scheme=scheme,
        granularity=draw(st.sampled_from(Granularity)),
        interface=draw(st.sampled_from(InterfaceType)),
        pruning=pruning,
        fuse=draw(st.booleans()),
        equalize=draw(st.booleans()),
        bias_correction=draw(st.booleans()),
        rounding=draw(st.sampled_from(Rounding)),
        weight_ranges=draw(st.sampled_from(RangeMethod)),
        activation_ranges=draw(st.sampled_from(RangeMethod)),
        layers=draw(_LAYERS),
    )
    return whole if _is_had(whole) else plain


@given(recipes())
def test_what_is_written_is_read_back(recipe: Recipe) -> None:
    assert parse_recipe(recipe_to_toml(recipe), name="other") == recipe


@given(recipes())
def test_the_file_says_what_the_bundle_says(recipe: Recipe) -> None:
    assert tomllib.loads(recipe_to_toml(recipe)) == recipe_to_json(recipe)


@pytest.mark.parametrize(
    "name",
    [
        *("a.b/c;d", "q\"uo'te", "back\\slash", "new\nline\r\n", "\x00\x1b\x7f\x85", "", " ", "#x"),
        *("größe", "模型", "🚀", "\u2028\u202e\ufeff", "[layers]", "a = 1", "x" * 1000),
    ],
)
def test_layers_of_any_name_can_be_written(name: str, tmp_path: Path) -> None:
    layers = (LayerScheme(layer=name, scheme=Scheme.FLOAT32),)
    recipe = Recipe(name="mine", scheme=Scheme.INT8, layers=layers)
    path = tmp_path / "mine.toml"
    path.write_text(recipe_to_toml(recipe), encoding="utf-8")
    read = find_recipe(str(path), pruning=NO_PRUNING, interface=InterfaceType.FLOAT)
    assert read == recipe


def test_a_written_recipe_reads_well() -> None:
    assert recipe_to_toml(FULL) == (
        "# EdgePack recipe: int8, one scale a tensor, fused, equalized, OCTAV weight ranges, "
        "KL activation ranges, GPTQ, bias corrected, 2 layers float32, 1 layer weight-only int8, "
        "structured pruning 30%, integer inputs and outputs\n"
        'name = "best"\n'
        'scheme = "int8"\n'
        'activation_ranges = "kl"\n'
        "bias_correction = true\n"
        "equalize = true\n"
        "fuse = true\n"
        'granularity = "tensorwise"\n'
        'interface = "integer"\n'
        'rounding = "gptq"\n'
        'weight_ranges = "octav"\n'
        "\n"
        "[layers]\n"
        'head = "float32"\n'
        'neck = "weight_only_int8"\n'
        'stem = "float32"\n'
        "\n"
        "[prune]\n"
        'kind = "structured"\n'
        "share = 0.3\n"
    )


def test_what_cannot_be_had_is_not_written() -> None:
    with pytest.raises(RecipeError, match="float32 has no integer weights"):
        recipe_to_toml(Recipe(name="x", scheme=Scheme.FLOAT32, equalize=True))


def test_a_scheme_alone_is_a_whole_recipe() -> None:
    assert parse_recipe('scheme = "int8"', name="int8") == stock_recipe(Scheme.INT8)


def test_faults_of_a_file_are_told_together() -> None:
    text = 'scheme = "int9"\nround = "gptq"\n[prune]\nshare = 1.5\n[layers]\nstem = "float"\n'
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, name="mine")
    assert caught.value.message == (
        "recipe 'mine': 4 faults\n"
        "  - scheme: unknown value 'int9'; did you mean 'int8'?\n"
        "  - prune.share: expected at most 0.99, not 1.5\n"
        "  - layers.stem: unknown value 'float'; did you mean 'float32'?\n"
        "  - round: unknown key; did you mean 'rounding'?"
    )
    assert caught.value.remedy == (
        'Mend the keys named above; `scheme = "int8"` alone is a whole recipe.'
    )


def test_text_that_is_no_toml_is_told() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("scheme: int8", name="mine")
    assert caught.value.message.startswith("recipe 'mine': not valid TOML: ")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(RecipeError) as caught:
        find_recipe(str(path), pruning=NO_PRUNING, interface=InterfaceType.FLOAT)
    assert caught.value.message.startswith(f"recipe file {path}: cannot be read: ")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError) as caught:
        find_recipe(str(path), pruning=NO_PRUNING, interface=InterfaceType.FLOAT)
    assert caught.value.remedy == "Check the path; recipes are UTF-8 TOML files."


def test_a_file_without_end_is_not_read_whole() -> None:
    with pytest.raises(RecipeError) as caught:
        find_recipe("/dev/zero", pruning=NO_PRUNING, interface=InterfaceType.FLOAT)
    assert caught.value.message == (
        "recipe file /dev/zero: expected at most 16 MiB, but it is larger"
    )


def test_an_unknown_name_says_what_is_known() -> None:
    with pytest.raises(RecipeError) as caught:
        find_recipe("int9", pruning=NO_PRUNING, interface=InterfaceType.FLOAT)
    assert caught.value.message == "unknown recipe 'int9'; did you mean 'int8'?"


def test_the_page_for_users_names_every_key_and_value() -> None:
    page = (Path(__file__).parent.parent / "docs" / "optimizer.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    recipe = parse_recipe(example, name="other")
    assert tomllib.loads(example).keys() == recipe_to_json(recipe).keys()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+) \| .+ \|$", page, flags=re.MULTILINE))
    keys = recipe_to_json(recipe).keys() - {"prune"} | {"prune.kind", "prune.share"}
    assert rows.keys() & keys == keys
    for key, values in (
        ("scheme", Scheme),
        ("granularity", Granularity),
        ("interface", InterfaceType),
        ("rounding", Rounding),
        ("activation_ranges", RangeMethod),
        ("prune.kind", PruneKind),
    ):
        assert {*re.findall(r"`([a-z0-9_]+)`", rows[key])} == {each.value for each in values}, key
