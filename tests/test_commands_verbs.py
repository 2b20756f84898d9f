"""The verbs that read: targets, toolchain, inspect, verify."""

import json
from pathlib import Path

import pytest

from edgepack.catalog import user_profile_directory
from tests.fixtures.commands import FLOAT_MODEL, RunCommand, listing

_MINE = """\
schema = 1
description = "My board"
[hardware]
arch = "aarch64"
ram_mib = 512
[quantization]
schemes = ["int8"]
"""


def _write_profile(name: str, text: str = _MINE) -> Path:
    path = user_profile_directory() / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_targets_list_names_the_built_in_ones_and_the_users_own(run: RunCommand) -> None:
    path = _write_profile("my-board")
    ran = run("targets", "list")
    assert ran.code == 0
    assert "raspberry-pi-4" in ran.out
    assert f"My board ({path})" in ran.out
    listed = {each["id"]: each for each in run("targets", "list", "--json").json()}
    assert listed["my-board"]["origin"] == "user"
    assert listed["laptop-x86-64"]["arch"] == "x86_64"


def test_a_profile_that_hides_a_built_in_one_is_told(run: RunCommand) -> None:
    path = _write_profile("raspberry-pi-4")
    ran = run("targets", "list")
    assert f"warning: {path} hides the built-in target raspberry-pi-4\n" in ran.err
    ran = run("targets", "show", "raspberry-pi-4")
    assert ran.err == f"warning: {path} hides the built-in target raspberry-pi-4\n"
    assert ran.out == f"# raspberry-pi-4 ({path})\n{_MINE}"


def test_a_faulty_profile_of_the_users_does_not_hide_the_others(run: RunCommand) -> None:
    path = _write_profile("broken", "schema = 1\n")
    ran = run("targets", "list")
    assert ran.code == 0
    assert f"warning: {path}: " in ran.err
    assert "raspberry-pi-5" in ran.out


def test_targets_show_gives_the_file_that_can_be_copied(run: RunCommand, tmp_path: Path) -> None:
    ran = run("targets", "show", "raspberry-pi-4")
    copied = tmp_path / "copy.toml"
    copied.write_text(ran.out)
    shown = run("targets", "show", copied, "--json").json()
    assert shown["hardware"]["arch"] == "aarch64"
    assert shown["origin"] == "path"


def test_an_unknown_target_names_the_nearest(run: RunCommand) -> None:
    ran = run("targets", "show", "raspbery-pi-4", "--json")
    assert ran.code == 2
    error = ran.json()["error"]
    assert error["kind"] == "unknown_target"
    assert error["message"] == "unknown target 'raspbery-pi-4'; did you mean 'raspberry-pi-4'?"
    assert "edgepack targets list" in error["remedy"]


def test_toolchain_list_says_what_each_is_for(run: RunCommand) -> None:
    ran = run("toolchain", "list", "--json")
    assert ran.code == 0
    assert {"tensorflow", "onnx"} <= {each["name"] for each in ran.json()}
    assert set(ran.json()[0]) == {"name", "state", "path", "size_bytes", "python", "versions"}
    assert "onnx" in run("toolchain", "list").out


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_an_unknown_toolchain_names_the_nearest(run: RunCommand, verb: str) -> None:
    ran = run("toolchain", verb, "tensorflw")
    assert ran.code == 2
    assert "unknown toolchain 'tensorflw'; did you mean 'tensorflow'?" in ran.err


def test_removing_what_is_not_there_says_so(
    run: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    ran = run("toolchain", "remove", "onnx")
    assert ran.code == 0
    assert ran.err == "onnx: was not installed\n"


def test_inspect_shows_a_model(run: RunCommand) -> None:
    ran = run("inspect", FLOAT_MODEL)
    assert ran.code == 0
    assert "pixels" in ran.out
    assert "1x8x8x1" in ran.out
    assert "CONV_2D" in ran.out
    shown = run("inspect", FLOAT_MODEL, "--json").json()
    assert shown["model"]["size_bytes"] == FLOAT_MODEL.stat().st_size
    assert "bundle" not in shown


def test_inspect_shows_a_bundle(run: RunCommand, bundle: Path) -> None:
    ran = run("inspect", bundle)
    assert ran.code == 0
    assert "laptop-x86-64" in ran.out
    assert "model.tflite" in ran.out
    shown = run("inspect", bundle, "--json").json()["bundle"]
    assert shown["size_bytes"] == bundle.stat().st_size
    assert shown["sha256"][:12] == shown["release"]
    assert shown["manifest"]["recipe"]["name"] == "float32"


def test_verify_finds_a_whole_bundle_whole(run: RunCommand, bundle: Path) -> None:
    ran = run("verify", bundle, "--json")
    assert ran.code == 0
    assert ran.json()["faults"] == []
    release = ran.json()["release"]
    assert run("verify", bundle).out == f"{bundle}: whole, release {release}, not signed\n"


def test_verify_finds_a_flipped_bit(run: RunCommand, bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.edgepack"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    ran = run("verify", damaged)
    assert ran.code == 1
    assert "fault" in ran.out
    assert ran.err == ""
    body = run("verify", damaged, "--json").json()
    assert body["release"] is None
    assert body["faults"]
    for verb in (["inspect", damaged], ["push", damaged, "local:"], ["bench", damaged, "local:"]):
        refused = run(*verb)
        assert refused.code == 1
        assert str(damaged) in refused.err


def test_nothing_is_written_by_verbs_that_read(run: RunCommand, bundle: Path) -> None:
    run("inspect", bundle)
    run("verify", bundle)
    assert listing(Path.cwd()) == []


def test_json_of_a_target_is_the_profile(run: RunCommand) -> None:
    body = json.loads(run("targets", "show", "raspberry-pi-4", "--json").out)
    assert body["quantization"]["schemes"]
