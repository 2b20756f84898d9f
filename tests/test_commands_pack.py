"""`edgepack pack`: its JSON, exit codes, floors, determinism, options."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgepack.bundle.archive import open_bundle
from tests.fixtures.commands import (
    CLASSES,
    DIGITS,
    FLOAT_MODEL,
    REPOSITORY,
    RunCommand,
    listing,
    make_cache_home,
)

_LAPTOP = ("--target", "laptop-x86-64")


def test_json_has_what_others_rely_on(run: RunCommand) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "-o", "d.edgepack", "--json"),
        *("--recipe", "float16", "--recipe", "int8", "--recipe", "float32"),
    )
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["bundle"] == "d.edgepack"
    assert body["target"] == "laptop-x86-64"
    assert body["measured_on"] == "host"
    assert body["parity"] == []
    assert body["objective"] == "latency"
    assert body["is_interrupted"] is False
    assert body["floors"] == {
        "min_sqnr_db": 20.0,
        "min_agreement": 0.9,
        "max_drop": None,
        "is_confident": False,
    }
    assert [each["recipe"] for each in body["variants"]] == ["float16", "int8", "float32"]
    assert body["chosen"] in {"float16", "int8", "float32"}
    for variant in body["variants"]:
        assert variant["size_bytes"] > 0
        assert len(variant["sha256"]) == 64
        low, high = variant["host_median_ci95_ns"]
        assert 0 < low <= variant["host_median_ns"] <= high
        assert variant["settings"]["scheme"] == variant["recipe"]
        assert variant["within_budget"] is True
        assert variant["skipped_reason"] is None
        assert variant["fidelity"]["sqnr_db"] > 20
        assert variant["fidelity"]["top1_agreement"] > 0.9
        assert variant["fidelity"]["accuracy"] > 0.9
    bundle = open_bundle(Path("d.edgepack"))
    assert bundle.manifest.recipe.name == body["chosen"]
    assert body["release"] == bundle.release


def test_without_labels_there_is_no_accuracy(run: RunCommand, tmp_path: Path) -> None:
    data = tmp_path / "pixels.npy"
    with np.load(DIGITS) as arrays:
        np.save(data, arrays["pixels"][:40])
    ran = run("pack", FLOAT_MODEL, *_LAPTOP, "--data", data, "--recipe", "float16", "--json")
    (variant,) = ran.json()["variants"]
    assert variant["fidelity"]["accuracy"] is None
    assert variant["fidelity"]["top1_agreement"] is not None


def test_the_default_name_says_model_version_and_target(run: RunCommand) -> None:
    ran = run("pack", FLOAT_MODEL, *_LAPTOP, "--recipe", "float16")
    assert ran.code == 0
    (name,) = listing(Path.cwd())
    digest = open_bundle(Path(name)).manifest.provenance.source_sha256
    assert name == f"digits-{digest[:8]}-laptop-x86-64.edgepack"
    assert f"wrote {name} (release " in ran.out


def test_generated_inputs_are_warned_of(run: RunCommand) -> None:
    ran = run("pack", FLOAT_MODEL, *_LAPTOP, "--recipe", "float16", "--json")
    assert ran.json()["warnings"] == [
        "fidelity was judged on generated inputs: give real ones with --data before you trust it"
    ]


def test_another_architecture_is_not_chosen_by_this_machine(run: RunCommand) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "raspberry-pi-4", "--data", DIGITS),
        *("-o", "p.edgepack"),
    )
    assert ran.code == 0
    assert "not measured on the target" in " ".join(ran.out.split())
    assert "latency measured on this machine" in ran.out
    body = run("pack", FLOAT_MODEL, "--target", "raspberry-pi-4", "--data", DIGITS, "--json").json()
    assert body["measured_on"] is None
    assert body["chosen"] == "int8+refined"  # the first of the profile's schemes
    # Nobody measured the target, so fewer channels would be chosen by nothing.
    assert not [each for each in body["variants"] if "structured" in each["recipe"]]


def test_one_named_recipe_is_packed_whatever_it_costs(run: RunCommand) -> None:
    arguments = (
        *("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--recipe", "int8"),
        *("--min-sqnr", "200", "-o", "d.edgepack", "--json"),
    )
    ran = run(*arguments)
    assert ran.code == 0
    (variant,) = ran.json()["variants"]
    assert variant["within_budget"] is False
    (warning,) = ran.json()["warnings"]
    assert warning.startswith("int8 is outside the floors: output 'output_0': SQNR ")
    assert warning.endswith(") is below 200 dB")
    strict = run(*arguments, "--strict")
    assert strict.code == 4
    assert strict.json()["variants"][0]["within_budget"] is False


def test_none_inside_the_floors_names_the_nearest_miss(run: RunCommand) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--min-sqnr", "200", "--json"),
        *("--recipe", "int8", "--recipe", "float16"),
    )
    assert ran.code == 4
    error = ran.json()["error"]
    assert error["kind"] == "limit"
    assert error["message"].startswith(
        "no variant is inside the floors; the nearest is float16: output 'output_0': SQNR "
    )
    assert "pack one recipe by its name" in error["remedy"]
    assert listing(Path.cwd()) == []


def test_a_static_recipe_without_data_is_refused(run: RunCommand) -> None:
    ran = run("pack", FLOAT_MODEL, *_LAPTOP, "--recipe", "int8", "--json")
    assert ran.code == 2
    assert ran.json()["error"] == {
        "kind": "recipe",
        "message": "recipe 'int8' quantizes activations by ranges seen on real inputs, but no "
        "calibration data was given",
        "remedy": "Give real inputs with --data, or choose a recipe without calibration "
        "(dynamic_range, weight_only_int8, float16).",
    }
    assert listing(Path.cwd()) == []


def test_among_all_recipes_a_static_one_without_data_is_skipped(run: RunCommand) -> None:
    ran = run("pack", FLOAT_MODEL, *_LAPTOP, "--json")
    assert ran.code == 0
    skipped = {each["recipe"]: each for each in ran.json()["variants"]}["int8"]
    assert skipped["skipped_reason"] == "needs calibration data: give some with --data"
    assert skipped["within_budget"] is False
    assert skipped["size_bytes"] is None
    shown = run("pack", FLOAT_MODEL, *_LAPTOP)
    assert "needs calibration data" in shown.out


def test_the_same_inputs_give_the_same_bytes(
    run: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--recipe", "int8")
    assert run(*arguments, "-o", "first.edgepack").code == 0
    assert run(*arguments, "-o", "second.edgepack").code == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(make_cache_home(tmp_path / "empty")))
    assert run(*arguments, "-o", "third.edgepack").code == 0
    first = Path("first.edgepack").read_bytes()
    assert Path("second.edgepack").read_bytes() == first
    assert Path("third.edgepack").read_bytes() == first


def test_a_repeated_pack_starts_no_process(
    run: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--recipe", "int8")
    assert run(*arguments).code == 0
    (packed,) = listing(Path.cwd())
    first = Path(packed).read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    again = run(*arguments)
    assert again.code == 0, again.err
    assert Path(packed).read_bytes() == first


def test_packing_without_a_device_needs_no_ssh() -> None:
    # What is imported decides how long a repeated pack takes.
    script = (
        "import sys, edgepack.commands.pack, edgepack.workflow.packing\n"
        "heavy = {'paramiko', 'ai_edge_quantizer', 'matplotlib', 'tensorflow'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout == "\n"


def test_the_smallest_can_be_asked_for(run: RunCommand) -> None:
    body = run(
        *("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--objective", "size", "--json"),
    ).json()
    inside = [each for each in body["variants"] if each["within_budget"]]
    sizes = {each["recipe"]: each["size_bytes"] for each in inside}
    assert sizes[body["chosen"]] == min(sizes.values())
    assert body["reason"].startswith(f"{body['chosen']} is the smallest of ")


def test_pruning_is_reported_as_measured(run: RunCommand) -> None:
    arguments = ("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--recipe", "float32", "--json")
    (dense,) = run(*arguments).json()["variants"]
    (pruned,) = run(*arguments, "--prune", "50%").json()["variants"]
    # Zeros are stored sparsely, so that the file is smaller before it is compressed, too.
    assert pruned["size_bytes"] < 0.8 * dense["size_bytes"]
    assert pruned["compressed_bytes"] < 0.8 * dense["compressed_bytes"]
    assert pruned["fidelity"]["sqnr_db"] < dense["fidelity"]["sqnr_db"]
    assert pruned["host_median_ns"] > 0
    # No layer of this network has a sparse kernel: each is said with its reason.
    reasons = [each["dense_kernel"] for each in pruned["sparse_facts"]["weights"]]
    assert len(reasons) == 4
    assert all(reasons)
    assert pruned["storage"][0].startswith("3 of 4 weights with zeros are stored sparsely: ")
    shown = run(*arguments[:-1], "--prune", "50%")
    for reason in set(reasons):
        assert f"computed densely by XNNPACK: {reason}" in " ".join(shown.out.split())


def test_labels_make_accuracy_the_metric(run: RunCommand, tmp_path: Path) -> None:
    with np.load(DIGITS) as arrays:
        np.save(tmp_path / "pixels.npy", arrays["pixels"])
        np.save(tmp_path / "labels.npy", arrays["labels"])
    # Agreement and SQNR are no floors any more.
    ran = run(
        *("pack", FLOAT_MODEL, *_LAPTOP, "--data", tmp_path / "pixels.npy", "--json"),
        *("--labels", tmp_path / "labels.npy", "--max-drop", "1%", "--min-sqnr", "200"),
        *("--recipe", "int8"),
    )
    assert ran.code == 0, ran.err
    (variant,) = ran.json()["variants"]
    assert variant["within_budget"] is True
    assert variant["fidelity"]["accuracy"] == pytest.approx(0.99, abs=0.01)


def test_a_drop_without_labels_cannot_be_judged(run: RunCommand, tmp_path: Path) -> None:
    with np.load(DIGITS) as arrays:
        np.save(tmp_path / "pixels.npy", arrays["pixels"][:40])
    ran = run(
        *("pack", FLOAT_MODEL, *_LAPTOP, "--data", tmp_path / "pixels.npy"),
        *("--max-drop", "1%", "--recipe", "float16"),
    )
    assert ran.code == 2
    assert "without labels there is no accuracy" in ran.err


def test_class_names_and_further_files_travel_along(run: RunCommand, tmp_path: Path) -> None:
    extra = tmp_path / "license.txt"
    extra.write_text("Do as you like.\n")
    ran = run(
        *("pack", FLOAT_MODEL, *_LAPTOP, "--recipe", "float32", "-o", "d.edgepack"),
        *("--class-names", CLASSES, "--file", extra, "--name", "mnist-ish", "--version", "2.1"),
    )
    assert ran.code == 0, ran.err
    bundle = open_bundle(Path("d.edgepack"))
    assert (bundle.manifest.name, bundle.manifest.version) == ("mnist-ish", "2.1")
    assert bundle.manifest.class_names == "files/classes.txt"
    assert bundle.read("files/classes.txt") == CLASSES.read_bytes()
    assert bundle.read("files/license.txt") == b"Do as you like.\n"


def test_integer_inputs_and_outputs_only_when_asked_for(run: RunCommand) -> None:
    arguments = ("pack", FLOAT_MODEL, *_LAPTOP, "--data", DIGITS, "--recipe", "int8")
    assert run(*arguments, "-o", "float.edgepack").code == 0
    assert run(*arguments, "--io", "integer", "-o", "integer.edgepack").code == 0
    (plain,) = open_bundle(Path("float.edgepack")).manifest.signature.inputs
    (whole,) = open_bundle(Path("integer.edgepack")).manifest.signature.inputs
    assert plain.dtype == "float32"
    assert whole.dtype == "int8"
    assert whole.quantization is not None
    assert (plain.name, plain.shape) == (whole.name, whole.shape)


def test_a_recipe_file_is_a_recipe(run: RunCommand, tmp_path: Path) -> None:
    recipe = tmp_path / "half.toml"
    recipe.write_text('scheme = "float16"\n')
    ran = run("pack", FLOAT_MODEL, *_LAPTOP, "--recipe", recipe, "--json")
    assert ran.code == 0, ran.err
    assert ran.json()["chosen"] == "half"


def test_an_existing_bundle_is_replaced_and_another_file_is_not(run: RunCommand) -> None:
    arguments = ("pack", FLOAT_MODEL, *_LAPTOP, "--recipe", "float16")
    mine = Path("model.tflite")
    shutil.copy(FLOAT_MODEL, mine)
    ran = run(*arguments, "-o", mine)
    assert ran.code == 1
    assert "another file is there" in ran.err
    assert mine.read_bytes() == FLOAT_MODEL.read_bytes()
    assert run(*arguments, "-o", "d.edgepack").code == 0
    assert run(*arguments, "-o", "d.edgepack").code == 0
    assert listing(Path.cwd()) == ["d.edgepack", "model.tflite"]


@pytest.mark.toolchain
class TestSourceFormats:
    def test_keras(self, run: RunCommand) -> None:
        model = REPOSITORY / "examples" / "digits" / "digits.keras"
        ran = run(
            *("pack", model, *_LAPTOP, "--data", DIGITS, "--recipe", "float16", "--json"),
            *("-o", "d.edgepack"),
        )
        assert ran.code == 0, ran.err
        (parity,) = ran.json()["parity"]
        assert parity["output"] == "digit"
        assert parity["sqnr_db"] > 60
        assert parity["max_abs_error"] < 1e-3

    def test_saved_model_with_a_signature(self, run: RunCommand, keras_models: Path) -> None:
        arguments = ("pack", keras_models / "several", *_LAPTOP, "--recipe", "float32", "--json")
        shape = ("--input-shape", "x=1,4,4")
        ran = run(*arguments, *shape, "--signature", "twice")
        assert ran.code == 0, ran.err

    def test_an_unsupported_op_is_named(self, run: RunCommand, keras_models: Path) -> None:
        ran = run(
            *("pack", keras_models / "unsupported", *_LAPTOP, "--recipe", "float32", "--json"),
            *("--input-shape", "x=1,4,4"),
        )
        assert ran.code == 1
        assert "MatrixDeterminant" in ran.json()["error"]["message"]


def test_a_foreign_file_in_the_bundles_place_is_refused_before_any_work(run: RunCommand) -> None:
    Path("notes.txt").write_text("mine")
    ran = run("pack", "absent.onnx", "--target", "laptop-x86-64", "-o", "notes.txt")
    assert ran.code == 2  # the model is looked for first
    ran = run("pack", FLOAT_MODEL, "--target", "no-such-target", "-o", "notes.txt")
    assert ran.code == 1
    assert "notes.txt: expected a free name or an earlier bundle, but another file" in ran.err
    assert Path("notes.txt").read_text() == "mine"
