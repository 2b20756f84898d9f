"""A search through the command line: what it keeps when it is broken off, and what it records."""

import re
from pathlib import Path

import pytest

from edgepack.bundle.archive import open_bundle
from edgepack.optimize.choosing import variant as variant_module
from edgepack.optimize.pruning.prune import compressed_size
from edgepack.optimize.recipes.eligibility import check_eligible
from edgepack.optimize.recipes.recipe import Recipe
from edgepack.traits import Traits
from tests.fixtures.commands import (
    DIGITS,
    FLOAT_MODEL,
    REPOSITORY,
    RunCommand,
    make_cache_home,
)
from tests.fixtures.sshd import SshServer

# Every search here has pruned candidates of its own, which no other test has built or timed.
_SEARCH = ("pack", FLOAT_MODEL, "--data", DIGITS, "-o", "d.edgepack")


def one_scheme(target: str, scheme: str) -> Path:
    """Write a target with a single scheme beside the float model, so that a search is short."""
    text = (REPOSITORY / "targets" / f"{target}.toml").read_text(encoding="utf-8")
    path = Path(f"{scheme}.toml")
    path.write_text(re.sub(r"schemes = \[.*\]", f'schemes = ["{scheme}"]', text))
    return path


def watch_builds(monkeypatch: pytest.MonkeyPatch, *, interrupt_at: str | None = None) -> list[str]:
    """Give the names of the recipes that are carried out anew; Ctrl-C comes at one of them."""
    built: list[str] = []

    def check(traits: Traits, recipe: Recipe) -> None:
        if recipe.name == interrupt_at:
            raise KeyboardInterrupt
        built.append(recipe.name)
        check_eligible(traits, recipe)

    monkeypatch.setattr(variant_module, "check_eligible", check)
    return built


def test_a_search_goes_on_where_it_was_and_its_recipe_gives_the_same_again_elsewhere(
    run: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = one_scheme("raspberry-pi-4", "int8")  # not measured here, so nothing varies
    search = (*_SEARCH, "--target", target, "--prune", "5%")
    built = watch_builds(monkeypatch, interrupt_at="int8+prune0.05+refined")
    broken_off = run(*search)
    assert broken_off.code == 130, broken_off.err
    assert built[-1] == "float32+prune0.05"  # another test may have built float32
    assert "this is the best of 2 candidates" in " ".join(broken_off.err.split())
    assert open_bundle(Path("d.edgepack")).manifest.recipe.name == "float32"

    built = watch_builds(monkeypatch)
    finished = run(*search, "--save-recipe", "r.toml", "--json")
    assert finished.code == 0, finished.err
    assert built == ["int8+prune0.05+refined"]
    body = finished.json()
    assert body["num_evaluations"] == 3.0
    assert body["chosen"] == "int8+prune0.05+refined"
    assert [each["recipe"] for each in body["variants"]] == [
        "float32",
        "float32+prune0.05",
        "int8+prune0.05+refined",
    ]

    first = Path("d.edgepack").read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(make_cache_home(tmp_path / "empty")))
    built = watch_builds(monkeypatch)
    again = run(*_SEARCH, "--target", target, "--recipe", "r.toml")
    assert again.code == 0, again.err
    assert built == ["int8+prune0.05+refined"]
    assert Path("d.edgepack").read_bytes() == first


@pytest.mark.sshd
def test_a_search_chooses_by_what_a_device_measures(
    run: RunCommand, device_root: Path, ssh_server: SshServer
) -> None:
    ran = run(
        *(*_SEARCH, "--target", one_scheme("laptop-x86-64", "float16"), "--prune", "6%", "--json"),
        *("--device", ssh_server.address, "--ssh-config", ssh_server.ssh_config),
        *("--root", device_root),
    )
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["measured_on"] == ssh_server.address
    assert [each["recipe"] for each in body["variants"]] == [
        "float32",
        "float32+prune0.06",
        "float16+prune0.06",
    ]
    for each in body["variants"]:
        assert (each["device_median_ns"] is not None) == (not each["outside"])
        assert each["host_median_ns"] is None
    assert f"timing float16+prune0.06 on {ssh_server.address}" in ran.err
    assert ssh_server.address in body["reason"] or " in turns with float32 " in body["reason"]


@pytest.mark.parametrize("kind", ["structured", "sparsegpt"])
def test_what_looks_at_samples_prunes_through_the_command_line(run: RunCommand, kind: str) -> None:
    ran = run(
        *(*_SEARCH, "--target", "laptop-x86-64", "--recipe", "float32", "--json"),
        *("--prune", f"{kind}:0.3"),
    )
    assert ran.code == 0, ran.err
    (pruned,) = ran.json()["variants"]
    assert pruned["recipe"] == f"float32+{kind}0.3"
    assert (
        pruned["passes"]
        == {
            "structured": "float32, structured pruning 30%",
            "sparsegpt": "float32, SparseGPT pruning 30%",
        }[kind]
    )
    assert pruned["compressed_bytes"] < 0.9 * compressed_size(FLOAT_MODEL.read_bytes())
    assert 0 < pruned["fidelity"]["sqnr_db"] < 60


def test_integers_that_no_variant_can_have_are_missed_aloud(run: RunCommand) -> None:
    ran = run(*_SEARCH[:2], "--target", "laptop-x86-64", "--io", "integer", "--json")
    assert ran.code == 0, ran.err
    body = ran.json()
    assert [each["recipe"] for each in body["variants"]] == ["float32", "int8"]
    assert body["chosen"] == "float32"
    assert body["warnings"][0] == (
        "--io integer: float32 has float inputs or outputs, as only int8 and int16x8 can have "
        "integers. --recipe int8 packs them whatever they cost"
    )
