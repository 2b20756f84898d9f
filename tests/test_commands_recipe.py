"""The record of a pack: its recipe as a file that gives the same model again, and its page."""

from pathlib import Path

import pytest

from edgepack.bundle.archive import open_bundle
from edgepack.flatbuffer import decode_name, op_name, read_flatbuffer
from edgepack.optimize.recipes.recipe_file import parse_recipe
from tests.fixtures.commands import DIGITS, FLOAT_MODEL, RunCommand, listing

_PACK = ("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--data", DIGITS)


def layer_names(model: Path) -> list[str]:
    """Give the names of what a model's convolutions and fully connected layers give."""
    tree = read_flatbuffer(model.read_bytes())
    graph = tree.subgraphs[0]
    return [
        decode_name(graph.tensors[int(op.outputs[0])].name)
        for op in graph.operators
        if op_name(tree, op) in {"CONV_2D", "FULLY_CONNECTED"}
    ]


_REFINED = """
name = "mine"
scheme = "int8"
bias_correction = true
rounding = "gptq"
weight_ranges = "mse"
activation_ranges = "mse"
[prune]
share = 0.3
[layers]
{layer} = "float32"
"""


def test_a_saved_recipe_is_the_one_that_was_given(run: RunCommand) -> None:
    layer = layer_names(FLOAT_MODEL)[0]
    Path("given.toml").write_text(_REFINED.replace("{layer}", f'"{layer}"'))
    first = run(*_PACK, "--recipe", "given.toml", "--save-recipe", "r.toml", "-o", "1.edgepack")
    assert first.code == 0, first.err
    assert "wrote r.toml\n" in first.err
    again = run(*_PACK, "--recipe", "r.toml", "--save-recipe", "s.toml", "-o", "2.edgepack")
    assert again.code == 0, again.err
    one, two = open_bundle(Path("1.edgepack")), open_bundle(Path("2.edgepack"))
    assert one.read("model.tflite") == two.read("model.tflite")
    assert one.sha256 == two.sha256
    assert Path("r.toml").read_text() == Path("s.toml").read_text()
    assert one.read("recipe.toml") == Path("r.toml").read_bytes()
    given = parse_recipe(Path("given.toml").read_text(), name="given")
    assert one.manifest.recipe == given


def test_a_file_of_the_users_own_is_not_lost(run: RunCommand) -> None:
    Path("mine.toml").write_text('scheme = "int8"\n')
    ran = run(*_PACK, "--recipe", "int8", "--save-recipe", "mine.toml")
    assert ran.code == 1
    assert ran.err == (
        "edgepack: mine.toml: expected a free name or an earlier output, but another file is "
        "there\n  Give another output path, or move that file away.\n"
    )
    assert listing(Path.cwd()) == ["mine.toml"]


def test_the_page_of_a_pack_has_every_candidate(run: RunCommand) -> None:
    ran = run(
        *_PACK, "--recipe", "int8", "--recipe", "float32", "--report", "p.html", "-o", "d.edgepack"
    )
    assert ran.code == 0, ran.err
    assert "wrote p.html\n" in ran.err
    page = Path("p.html").read_text(encoding="utf-8")
    for words in ("1. ", "2. ", "int8", "float32", "Chosen: ", "# EdgePack recipe: ", "packed"):
        assert words in page
    assert page.count("<figure>") == 4


def test_json_says_in_words_what_each_recipe_does(run: RunCommand) -> None:
    ran = run(*_PACK, "--recipe", "int8", "--prune", "30%", "--json")
    (variant,) = ran.json()["variants"]
    assert variant["recipe"] == "int8+prune0.3"
    assert variant["passes"] == "int8, magnitude pruning 30%"


@pytest.mark.parametrize(
    ("options", "names", "remedy"),
    [
        (
            ("--prune", "0.3"),
            "--prune",
            "Leave --prune out, and write [prune] into the file.",
        ),
        (
            ("--prune", "0.3", "--io", "integer", "--recipe", "int8"),
            "--prune and --io",
            "Leave --prune and --io out, and write [prune] and interface into the file.",
        ),
    ],
)
def test_options_that_a_recipe_file_decides_are_refused(
    run: RunCommand, options: tuple[str, ...], names: str, remedy: str
) -> None:
    Path("given.toml").write_text('scheme = "float16"\n')
    refused = run(*_PACK, "--recipe", "given.toml", *options, "-o", "1.edgepack")
    assert refused.code == 2
    assert refused.err == (
        f"edgepack: {names}: the recipe file given.toml says by itself what it prunes and what its "
        f"inputs and outputs are\n  {remedy}\n"
    )
    assert listing(Path()) == ["given.toml"]
