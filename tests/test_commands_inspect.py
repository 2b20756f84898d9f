"""`edgepack inspect --sensitivity`: what it shows, writes and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgepack.commands.sensitivity_options import PRECISION_NAMES
from edgepack.optimize.ranking.layer_costs import Precision
from edgepack.report.sensitivity import WORDS
from tests.fixtures.commands import DIGITS, FLOAT_MODEL, RunCommand, listing
from tests.fixtures.models import KINDS


def test_the_precisions_of_the_help_are_those_there_are() -> None:
    assert list(PRECISION_NAMES) == [each.value for each in WORDS]
    assert set(PRECISION_NAMES) == {each.value for each in Precision}


def test_sensitivity_is_shown_and_written(run: RunCommand) -> None:
    ran = run(
        *("inspect", FLOAT_MODEL, "--sensitivity", "--data", DIGITS),
        *("-o", "page.html", "--model-explorer", "nodes.json"),
    )
    assert ran.code == 0, ran.err
    assert "Sensitivity: int8 weights and activations" in ran.out
    assert "StatefulPartitionedCall_1:0" in ran.out
    assert "█" in ran.out
    assert ran.err.endswith("wrote page.html\nwrote nodes.json\n")
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    nodes = json.loads(Path("nodes.json").read_text(encoding="utf-8"))
    assert "StatefulPartitionedCall_1:0" in nodes["main"]["results"]
    assert listing(Path.cwd()) == ["nodes.json", "page.html"]
    # The analysis is kept: the second time nothing is run, and its files may be replaced.
    again = run(
        *("inspect", FLOAT_MODEL, "--sensitivity", "--data", DIGITS, "--json"),
        *("-o", "page.html", "--model-explorer", "nodes.json"),
    )
    assert again.err == ""
    body = again.json()["sensitivity"]
    assert body["num_samples"] == 8
    assert len(body["layers"]) == 5 * len(PRECISION_NAMES)
    assert set(body["ranking"]) == set(PRECISION_NAMES)
    assert len(body["ranking"]["int8"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sensitivity"], "--sensitivity: it looks at each layer's inputs"),
        (["--data", "x.npz"], "--data: only the sensitivity analysis uses this"),
        (["-o", "a.html", "--image-size", "8x8"], "--out, --image-…: only the sensitivity"),
        (
            ["--sensitivity", "--data", "x", "-o", "a", "--model-explorer", "a"],
            "a: expected the name of a file of its own",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    run: RunCommand, arguments: list[str], message: str
) -> None:
    ran = run("inspect", FLOAT_MODEL, *arguments)
    assert ran.code == 2
    assert message in ran.err


def test_other_files_are_not_written_over(run: RunCommand) -> None:
    Path("notes.html").write_text("mine", encoding="utf-8")
    ran = run("inspect", FLOAT_MODEL, "--sensitivity", "--data", DIGITS, "-o", "notes.html")
    assert ran.code == 1
    assert "another file is there" in ran.err
    assert Path("notes.html").read_text(encoding="utf-8") == "mine"


def test_layers_are_listed_by_the_names_recipes_take(run: RunCommand) -> None:
    body = run("inspect", FLOAT_MODEL, "--layers", "--json").json()
    layers = body["layers"]
    assert [each["op"] for each in layers if each["weights_dtype"]][-1] == "FULLY_CONNECTED"
    last = next(each for each in layers if each["layer"] == "StatefulPartitionedCall_1:0")
    assert (last["output_dtype"], last["num_macs"]) == ("float32", 640)
    assert last["constant_bytes"] == 4 * (640 + 10)
    shown = run("inspect", FLOAT_MODEL, "--layers")
    assert "StatefulPartitionedCall_1:0" in shown.out
    assert "640" in shown.out
    assert "StatefulPartitionedCall_1:0" not in run("inspect", FLOAT_MODEL).out
    Path("mixed.toml").write_text('scheme = "int8"\n[layers]\n"absent" = "float32"\n')
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--data", DIGITS),
        *("--recipe", "mixed.toml"),
    )
    assert ran.code == 2
    assert "`edgepack inspect --layers` lists them." in ran.err


def test_a_quantized_models_layers_tell_their_types(run: RunCommand) -> None:
    layers = run("inspect", KINDS / "int8.tflite", "--layers", "--json").json()["layers"]
    assert {each["output_dtype"] for each in layers} == {"int8"}
    assert {each["weights_dtype"] for each in layers} <= {"int8", None}


def test_an_int8_model_is_refused_with_the_way_out(run: RunCommand, tmp_path: Path) -> None:
    model = KINDS / "int8.tflite"
    shape = run("inspect", model, "--json").json()["model"]["signature"]["inputs"][0]["shape"]
    np.save(tmp_path / "x.npy", np.zeros((3, *shape), np.float32))
    ran = run("inspect", model, "--sensitivity", "--data", tmp_path / "x.npy", "-o", "p.html")
    assert ran.code == 1
    assert "expected a float model to analyze" in ran.err
    assert "Give the float32 model it was made from." in ran.err
    assert listing(Path.cwd()) == []
