"""Real models through the real command line: packed, pushed and measured on this machine."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.commands import QUICK, REPOSITORY, RunCommand
from tests.fixtures.real_models import FetchModel

# The first run fetches PyTorch too, to export EfficientNet-Lite0. One worker has them all:
# what is packed once serves several tests.
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.toolchain,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("real_models"),
]

_SHAPE = ("--input-shape", "x=1,3,48,192")


def _by_recipe(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["recipe"]: each for each in answer["variants"]}


def test_open_shapes_are_refused_with_the_flag_that_fixes_them(
    run: RunCommand, angle_classifier: Path
) -> None:
    ran = run("pack", angle_classifier, "--target", "raspberry-pi-4", "--json")
    assert ran.code == 1
    error = ran.json()["error"]
    assert error["message"] == (
        "expected fixed input shapes, but input 'x' of shape ?,3,?,? leaves open dimension 2, "
        "dimension 3"
    )
    assert error["remedy"] == "Give --input-shape x=1,3,?,? with a number for each '?'."
    assert not list(Path.cwd().iterdir())


def test_a_classifier_of_text_is_packed_for_a_board_that_is_not_here(
    run: RunCommand, angle_classifier: Path, signs: Path, cache_home: Path
) -> None:
    ran = run(
        *("pack", angle_classifier, "--target", "raspberry-pi-4", *_SHAPE, "--data", signs),
        *("--json", "-o", "angle.edgepack"),
    )
    assert ran.code == 0, ran.err
    answer = ran.json()
    assert answer["measured_on"] is None
    assert answer["reason"].endswith("; not measured on the target")
    assert [each["sqnr_db"] > 100 for each in answer["parity"]] == [True]
    variants = _by_recipe(answer)
    assert list(variants)[:4] == ["float32", "float32+fused", "float16+fused", "int8+refined"]
    assert list(variants)[-1] == "dynamic_range+refined"
    assert all(each["skipped_reason"] is None for each in variants.values())
    sizes = {name: each["size_bytes"] for name, each in variants.items()}
    assert sizes["int8+refined"] < sizes["float16+fused"] < sizes["float32"]
    # The signs came in the source's layout: in a wrong one hardly any direction is right.
    assert variants["float32"]["fidelity"]["accuracy"] >= 0.9
    assert variants["float16+fused"]["fidelity"]["sqnr_db"] > 40
    assert variants[answer["chosen"]]["within_budget"]

    manifest = run("inspect", "angle.edgepack", "--json").json()["bundle"]["manifest"]
    assert manifest["signature"]["inputs"][0]["name"] == "x"
    assert manifest["signature"]["inputs"][0]["shape"] == [1, 48, 192, 3]
    assert manifest["provenance"]["converter"] == "onnx2tf"
    # The board has four cores; this machine is not asked for more than its own.
    records = [json.loads(path.read_bytes()) for path in cache_home.rglob("measurement.json")]
    assert records
    assert max(each["engine"]["num_threads"] for each in records) <= (os.cpu_count() or 1)


def test_each_named_shape_is_a_bundle_of_its_own(
    run: RunCommand, angle_classifier: Path, signs: Path, device_root: Path
) -> None:
    ran = run(
        *("pack", angle_classifier, "--target", "laptop-x86-64", "--recipe", "float16", "--json"),
        *("--shape", "narrow:x=1,3,48,96", "--shape", "wide:x=1,3,48,192"),
        *("--data", f"wide={signs}"),
    )
    assert ran.code == 0, ran.err
    shapes = ran.json()["shapes"]
    assert list(shapes) == ["narrow", "wide"]
    for name, width in (("narrow", 96), ("wide", 192)):
        assert shapes[name]["parity"][0]["sqnr_db"] > 100
        manifest = run("inspect", shapes[name]["bundle"], "--json").json()["bundle"]["manifest"]
        assert manifest["name"].endswith(f"-{name}")
        assert manifest["signature"]["inputs"][0]["shape"] == [1, 48, width, 3]
    # Only the wide ones have labels: they came with its data.
    assert shapes["wide"]["variants"][0]["fidelity"]["accuracy"] >= 0.9
    assert shapes["narrow"]["variants"][0]["fidelity"]["accuracy"] is None
    timed = run("bench", shapes["narrow"]["bundle"], "local:", "--root", device_root, *QUICK)
    assert timed.code == 0, timed.err


def test_a_classifier_of_text_is_pushed_and_measured(
    run: RunCommand, angle_classifier: Path, signs: Path, device_root: Path
) -> None:
    packed = run(
        *("pack", angle_classifier, "--target", "laptop-x86-64", *_SHAPE, "--data", signs),
        *("--recipe", "int8", "-o", "angle.edgepack", "--json"),
    )
    assert packed.code == 0, packed.err
    first = run("push", "angle.edgepack", "local:", "--root", device_root, "--json").json()
    assert first["sent_bytes"] > packed.json()["variants"][0]["size_bytes"]
    again = run("push", "angle.edgepack", "local:", "--root", device_root, "--json").json()
    assert (again["release"], again["sent_bytes"]) == (first["release"], 0)
    timed = run("bench", "angle.edgepack", "local:", "--root", device_root, *QUICK, "--json")
    assert timed.code == 0, timed.err
    assert timed.json()["golden"]["passed"]
    assert timed.json()["summary"]["median_ns"] > 0
    assert len(timed.json()["launches"]) == 6


def test_efficientnet_keeps_its_answers_within_known_bounds(
    packed_efficientnet: dict[str, Any],
) -> None:
    assert [each["output"] for each in packed_efficientnet["parity"]] == ["logits"]
    assert packed_efficientnet["parity"][0]["sqnr_db"] > 100
    variants = _by_recipe(packed_efficientnet)
    expected = ["float32", "float16", "int8+refined", "dynamic_range+refined"]
    assert list(variants)[:4] == expected
    # Channels go from the best, until it is outside the floors.
    assert {each.partition("+structured")[0] for each in list(variants)[4:]} <= {*expected}
    fidelity = {name: each["fidelity"] for name, each in variants.items()}
    # 72 crops to calibrate and 72 to judge by; ai-edge-quantizer 0.10 without tuning: 16.8 dB.
    assert fidelity["int8+refined"]["sqnr_db"] > 22
    assert fidelity["int8+refined"]["top1_agreement"] >= 0.88
    assert fidelity["dynamic_range+refined"]["sqnr_db"] > 24
    assert fidelity["float16"]["sqnr_db"] > 40
    assert fidelity["float16"]["top1_agreement"] == 1
    assert fidelity["float32"]["sqnr_db"] == 300
    assert {each["num_samples"] for each in fidelity.values()} == {72}
    float_bytes = variants["float32"]["size_bytes"]
    assert 0.49 < variants["float16"]["size_bytes"] / float_bytes < 0.52
    assert 0.25 < variants["int8+refined"]["size_bytes"] / float_bytes < 0.29
    assert variants[packed_efficientnet["chosen"]]["within_budget"]


def test_efficientnet_opens_and_answers_on_the_device_as_here(
    run: RunCommand, packed_efficientnet: dict[str, Any], device_root: Path
) -> None:
    bundle = packed_efficientnet["bundle"]
    assert run("verify", bundle, "--json").json()["faults"] == []
    timed = run("bench", bundle, "local:", "--root", device_root, *QUICK, "--json")
    assert timed.code == 0, timed.err
    assert timed.json()["golden"]["passed"]
    low, high = timed.json()["summary"]["median_ci95_ns"]
    assert 0 < low <= timed.json()["summary"]["median_ns"] <= high


def test_efficientnet_in_int8_is_built_when_asked_for_and_refused_when_strict(
    run: RunCommand,
    efficientnet: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(REPOSITORY / "examples" / "efficientnet")
    command = (
        *("pack", efficientnet, "--target", "laptop-x86-64", "--data", "photos:crops"),
        *("--recipe", "int8", "-o", tmp_path / "int8.edgepack", "--json"),
    )
    ran = run(*command)
    assert ran.code == 0
    assert ran.json()["chosen"] == "int8"
    assert not ran.json()["variants"][0]["within_budget"]
    (warning,) = ran.json()["warnings"]
    assert warning.startswith("int8 is outside the floors: output 'logits': SQNR 1")
    assert warning.endswith(") is below 20 dB")
    strict = run(*command, "--strict")
    assert strict.code == 4
    # The variant and its measurement are those of before.
    for figure in ("sha256", "host_median_ns"):
        assert strict.json()["variants"][0][figure] == ran.json()["variants"][0][figure]


def _bytes_of(path: Path) -> list[int]:
    """Give what Magika looks at: 1,024 bytes from each end without space, 256 where none is."""
    data = path.read_bytes()
    head, tail = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
    return [*head, *[256] * (1024 - len(head)), *[256] * (1024 - len(tail)), *tail]


def test_integer_inputs_stay_integers(
    run: RunCommand, fetch_model: FetchModel, tmp_path: Path
) -> None:
    (magika,) = fetch_model("magika")
    files = sorted((REPOSITORY / "edgepack").rglob("*.py"))[:8]
    data = tmp_path / "files.npz"
    np.savez(data, bytes=np.array([_bytes_of(path) for path in files], np.int32))
    ran = run(
        *("pack", magika, "--target", "laptop-x86-64", "--data", data),
        *("--recipe", "dynamic_range", "--name", "magika", "-o", "magika.edgepack", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.json()["parity"][0]["sqnr_db"] > 100
    (variant,) = ran.json()["variants"]
    assert variant["within_budget"]
    assert variant["fidelity"]["top1_agreement"] == 1
    manifest = run("inspect", "magika.edgepack", "--json").json()["bundle"]["manifest"]
    (spec,) = manifest["signature"]["inputs"]
    assert (spec["name"], spec["dtype"], spec["shape"]) == ("bytes", "int32", [1, 2048])


def test_a_quantized_model_with_state_is_packed_as_it_is(
    run: RunCommand, fetch_model: FetchModel, device_root: Path
) -> None:
    alexa = next(path for path in fetch_model("wake-words") if path.stem == "alexa")
    shown = run("inspect", alexa).out
    assert "quantized: int8 weights and activations, keeps state" in shown
    refusal = "refused: its weights and activations are int8 already: the float values are gone"
    assert refusal in " ".join(shown.split())
    recipes = run("inspect", alexa, "--json").json()["model"]["recipes"]
    assert [each["name"] for each in recipes if each["offered"]] == ["as_is"]
    ran = run(
        *("pack", alexa, "--target", "laptop-x86-64", "-o", "alexa.edgepack", "--json"),
    )
    assert ran.code == 0, ran.err
    answer = ran.json()
    assert answer["chosen"] == "as_is"
    assert answer["warnings"][:2] == [
        (
            "the model is packed as it is (quantized: int8 weights and activations, keeps state: "
            "its samples are one stream, in order): its fidelity is to itself"
        ),
        (
            "the model keeps state: its samples are run as one stream, in order, from the state "
            "it starts with"
        ),
    ]
    variants = _by_recipe(answer)
    assert variants["as_is"]["size_bytes"] == alexa.stat().st_size
    for name in ("int8", "float16", "dynamic_range"):
        assert variants[name]["skipped_reason"] == (
            "its weights and activations are int8 already: the float values are gone"
        )
    pushed = run("push", "alexa.edgepack", "local:", "--root", device_root, "--json")
    assert pushed.code == 0, pushed.err
    timed = run("bench", "alexa.edgepack", "local:", "--root", device_root, *QUICK, "--json")
    assert timed.code == 0, timed.err
    assert timed.json()["golden"]["passed"]
