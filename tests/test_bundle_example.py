"""The example.py of a bundle runs for real and prints the model's answer."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepack.bundle.example import make_example
from edgepack.contract import (
    ContractRequest,
    Head,
    InputWish,
    OutputWish,
    Preprocessing,
    make_plan,
    shape_model,
)
from edgepack.contract.describe import describe_contract
from edgepack.contract.record import InputContract, InputKind, IOContract, plain_contract
from edgepack.data import ImageLayout, ImagePreprocessing
from edgepack.evaluate import run_model
from edgepack.model import Model, Signature, TensorSpec, load_model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import InterfaceType, stock_recipe
from edgepack.profile import Scheme
from edgepack.runner import example as template
from tests.fixtures.bundle import EXAMPLES, digits_model
from tests.fixtures.contract import imported_as
from tests.fixtures.models import make_feeds, small_model

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HOSTILE = "x'''\"\"\"\\\n\x1b[31m{}%s'); import os; os.abort() #\u2028é😀"


def unpack(
    folder: Path,
    model: Model,
    *,
    inputs: Sequence[InputWish] = (),
    outputs: Sequence[OutputWish] = (),
    images: ImagePreprocessing | None = None,
    labels: Sequence[str] = (),
) -> Model:
    """Put a model and its example into a folder, as a release is on a device."""
    imported = imported_as(model)
    plan = make_plan(imported, ContractRequest(inputs=tuple(inputs), outputs=tuple(outputs)))
    shaped = shape_model(model, plan)
    contract = describe_contract(
        imported, plan, images=images, samples=None, num_class_names=len(labels)
    )
    (folder / "model.tflite").write_bytes(shaped.data)
    (folder / "classes.txt").write_text("\n".join(labels), encoding="utf-8")
    program = make_example(
        shaped.signature,
        contract,
        name="digits",
        version="1.0",
        model_path="model.tflite",
        labels_path="classes.txt" if labels else None,
    )
    (folder / "example.py").write_bytes(program)
    return shaped


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(folder / "example.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
    )


def answer(folder: Path, *arguments: str | Path) -> list[str]:
    ran = run(folder, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def fault(folder: Path, *arguments: str | Path) -> str:
    ran = run(folder, *arguments)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def digit() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], str]:
    """A real digit as pixels, and its name."""
    with np.load(EXAMPLES / "digits" / "digits.npz") as arrays:
        pixels = np.round(arrays["pixels"][7].reshape(8, 8) * 255).astype(np.uint8)
        return pixels, LABELS[int(arrays["labels"][7])]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of digits that takes pixels and gives probabilities."""
    folder = tmp_path_factory.mktemp("camera")
    unpack(
        folder,
        digits_model(),
        inputs=[InputWish(name=None, scale=1 / 255, dtype="uint8", layout=ImageLayout.NCHW)],
        outputs=[OutputWish(name=None, head=Head.SOFTMAX)],
        labels=LABELS,
    )
    return folder


def test_a_picture_is_named(camera: Path, digit: tuple[np.ndarray, str]) -> None:
    pixels, name = digit
    Image.fromarray(pixels).save(camera / "digit.png")
    Image.fromarray(pixels).save(camera / "digit.pgm")
    np.save(camera / "digit.npy", pixels.reshape(1, 8, 8))
    (camera / "digit.bin").write_bytes(pixels.tobytes())
    answers = [answer(camera, f"digit.{suffix}") for suffix in ("png", "pgm", "npy", "bin")]
    assert answers[0][0] == "output_0: float32 (1, 10)"
    assert answers[0][1].endswith(f"{LABELS.index(name)}  {name}")
    assert "%" in answers[0][1]
    assert len(answers[0]) == 6
    assert answers[1:] == answers[:1] * 3


def test_a_picture_of_another_size_is_read_without_pillow_too(
    camera: Path, digit: tuple[np.ndarray, str]
) -> None:
    pixels, name = digit
    large = np.kron(pixels, np.ones((4, 4), np.uint8))
    colored = np.repeat(large[:, :, np.newaxis], 3, axis=2)
    (camera / "large.ppm").write_bytes(b"P6\n# a comment\n32 32\n255\n" + colored.tobytes())
    hidden = camera / "PIL"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('no pillow here')\n")
    try:
        assert answer(camera, "--top", "1", "large.ppm")[1].endswith(name)
        Image.fromarray(pixels).save(camera / "other.png")
        assert fault(camera, "other.png") == (
            "example.py: other.png: without Pillow, expected a binary .ppm or .pgm of 8 bits; "
            "other pictures need `pip install pillow`"
        )
    finally:
        shutil.rmtree(hidden)  # Python may have left compiled code there


def test_class_ids_are_named(tmp_path: Path, digit: tuple[np.ndarray, str]) -> None:
    pixels, name = digit
    unpack(
        tmp_path,
        digits_model(),
        inputs=[InputWish(name=None, scale=1 / 255, dtype="uint8")],
        outputs=[OutputWish(name=None, head=Head.ARGMAX)],
        labels=LABELS,
    )
    np.save(tmp_path / "digit.npy", pixels.reshape(8, 8, 1))
    printed = answer(tmp_path, "digit.npy", "--save", "out")
    assert printed == [
        "output_0: int32 (1,)",
        f"  {LABELS.index(name)}  {name}",
        "  saved as out/output-000.npy",
    ]
    assert np.load(tmp_path / "out" / "output-000.npy").tolist() == [LABELS.index(name)]


def test_the_caller_preprocesses_where_the_model_does_not(
    tmp_path: Path, digit: tuple[np.ndarray, str]
) -> None:
    pixels, name = digit
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    unpack(tmp_path, digits_model(), images=ImagePreprocessing(), labels=LABELS)
    assert answer(tmp_path, "digit.png")[1].endswith(name)
    unpack(tmp_path, digits_model(), labels=LABELS)
    assert fault(tmp_path, "digit.png") == (
        "example.py: nobody said how pixels become the input pixels: give --scale (1/255 or 1), "
        "and --mean and --std where the network was trained with them; or give an .npy"
    )
    assert answer(tmp_path, "digit.png", "--scale", "1/255")[1].endswith(name)


def test_integer_inputs_and_outputs_stand_for_numbers(
    tmp_path: Path, digit: tuple[np.ndarray, str]
) -> None:
    pixels, name = digit
    recipe = replace(stock_recipe(Scheme.INT8), interface=InterfaceType.INTEGER)
    model = quantize(digits_model(), recipe, make_feeds(digits_model())).model
    unpack(tmp_path, model, labels=LABELS)
    assert model.signature.inputs[0].dtype == "int8"
    np.save(tmp_path / "digit.npy", (pixels / 255).astype(np.float32).reshape(1, 8, 8, 1))
    printed = answer(tmp_path, "digit.npy")
    assert printed[0].endswith(": float32 (1, 10)")
    assert np.argmax([line.endswith(name) for line in printed[1:]]) == 0


def test_several_inputs_are_given_by_name_or_in_one_file(tmp_path: Path) -> None:
    model = unpack(tmp_path, small_model("two"))
    ((left, right),) = make_feeds(model, num_samples=1)
    np.savez(tmp_path / "both.npz", left=left, right=right)
    np.save(tmp_path / "left.npy", left)
    (tmp_path / "right.txt").write_text(" ".join(str(value) for value in right.reshape(-1)))
    printed = answer(tmp_path, "both.npz")
    assert answer(tmp_path, "right=right.txt", "left=left.npy") == printed
    assert answer(tmp_path, "left.npy", "right.txt") == printed
    ((_, score),) = run_model(model, [(left, right)])
    assert f"  {score[0, 0]:g}" in printed
    assert fault(tmp_path, "left.npy") == (
        "example.py: nothing was given for the input right: float32 1x2x3, values"
    )


@pytest.mark.parametrize("kind", ["lstm", "stream"])
def test_sequences_and_state_run(tmp_path: Path, kind: str, repository: Path) -> None:
    model = unpack(tmp_path, load_model(repository / "tests" / "data" / "kinds" / f"{kind}.tflite"))
    (feed,) = make_feeds(model, num_samples=1)
    arrays: dict[str, Any] = {
        spec.name: array for spec, array in zip(model.signature.inputs, feed, strict=True)
    }
    np.savez(tmp_path / "inputs.npz", **arrays)
    printed = answer(tmp_path, "inputs.npz")
    assert [line.split(":")[0] for line in printed if not line.startswith(" ")] == [
        spec.name for spec in model.signature.outputs
    ]


def test_ids_must_be_whole_and_fit(tmp_path: Path) -> None:
    unpack(tmp_path, small_model("embedding"))
    (tmp_path / "ids.csv").write_text("1,2,3,4,5,6\n")
    assert answer(tmp_path, "ids.csv")[0] == "output_0: float32 (1, 4)"
    (tmp_path / "half.csv").write_text("1,2,3,4,5,0.5\n")
    assert fault(tmp_path, "half.csv") == (
        "example.py: input ids: expected whole numbers from -2147483648 to 2147483647, but got "
        "0.5 to 5"
    )
    (tmp_path / "few.csv").write_text("1,2\n")
    assert fault(tmp_path, "few.csv") == (
        "example.py: few.csv: expected 6 numbers for the input ids: int32 1x6, ids, but got 2"
    )


def test_what_is_wrong_is_said_in_one_line(camera: Path) -> None:
    assert fault(camera, "none.png") == "example.py: none.png: there is no such file"
    (camera / "text.png").write_text("no picture")
    assert fault(camera, "text.png").startswith("example.py: text.png: not a readable picture: ")
    (camera / "no.npy").write_bytes(b"")
    assert fault(camera, "no.npy").startswith("example.py: no.npy: not a numpy file: ")
    np.savez(camera / "objects.npz", pixels=np.array([{}]))
    assert fault(camera, "objects.npz").startswith("example.py: objects.npz: not a numpy file: ")
    (camera / "cut.npz").write_bytes((camera / "objects.npz").read_bytes()[:-9])
    assert fault(camera, "cut.npz").startswith("example.py: cut.npz: not a numpy file: ")
    assert fault(camera, "a.npy", "b.npy") == "example.py: expected 1 files, but got 2"
    ran = run(camera)
    assert ran.returncode == 2
    assert ran.stderr.endswith("error: expected one file for each input, or --golden\n")


def test_one_picture_is_no_batch_of_two(tmp_path: Path) -> None:
    whole = digits_model().signature
    spec = replace(whole.inputs[0], shape=(2, 8, 8, 1))
    signature = replace(whole, inputs=(spec,))
    contract = IOContract(
        inputs=(
            InputContract(
                name=spec.name,
                kind=InputKind.IMAGE,
                layout=ImageLayout.NHWC,
                preprocessing=Preprocessing(),
            ),
        ),
        outputs=plain_contract(signature).outputs,
    )
    (tmp_path / "model.tflite").write_bytes(digits_model().data)
    program = make_example(
        signature,
        contract,
        name="n",
        version="1",
        model_path="model.tflite",
        labels_path=None,
    )
    (tmp_path / "example.py").write_bytes(program)
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    assert fault(tmp_path, "digit.png") == (
        "example.py: digit.png: one picture is not the whole input pixels: float32 2x8x8x1, "
        "image, NHWC; give an .npy"
    )


def test_no_runtime_is_taken_from_folders_that_are_not_a_devices(tmp_path: Path) -> None:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    site = tmp_path / "runtimes" / f"x-{tag}-y" / "site"
    site.mkdir(parents=True)
    (site / "numpy.py").write_text("raise SystemExit(77)")
    for place, code in (("bundles/n/releases/r", 77), ("some/other/folder/r", 0)):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        model = unpack(folder, digits_model())
        np.save(folder / "x.npy", make_feeds(model, num_samples=1)[0][0])
        assert run(folder, "x.npy").returncode == code


def test_the_golden_sample_runs(tmp_path: Path) -> None:
    model = unpack(tmp_path, small_model("depthwise"))
    (feed,) = make_feeds(model, num_samples=1)
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "input-000.bin").write_bytes(feed[0].tobytes() * 2)
    ((expected,),) = run_model(model, [feed])
    printed = answer(tmp_path, "--golden")
    assert printed[1].strip().startswith(f"{100 * expected.max():.2f}%")


def test_names_of_a_model_are_never_code(tmp_path: Path) -> None:
    signature = Signature(
        inputs=(TensorSpec(name=HOSTILE, shape=(1, 4), dtype="float32"),),
        outputs=(TensorSpec(name=HOSTILE, shape=(1, 1), dtype="float32"),),
    )
    program = make_example(
        signature,
        plain_contract(signature),
        name="n",
        version="1",
        model_path="model.tflite",
        labels_path=None,
    )
    tree = ast.parse(program, feature_version=(3, 7))
    plain = Path(template.__file__).read_text(encoding="utf-8")
    assert len(tree.body) == len(ast.parse(plain).body)
    texts = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "json.loads"
        and isinstance(node.args[0], ast.Constant)
    ]
    (text,) = texts
    assert json.loads(str(text))["inputs"][0]["name"] == HOSTILE
    (tmp_path / "example.py").write_bytes(program)
    (tmp_path / "model.tflite").write_bytes(small_model("cnn").data)
    ran = run(tmp_path, "--help")
    assert ran.returncode == 0
    assert "\x1b" not in ran.stdout


def test_python_3_7_can_read_it() -> None:
    source = Path(template.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    standard = {"argparse", "io", "json", "pathlib", "sys", "typing", "zipfile", "zlib"}
    assert imported == standard | {"numpy", "PIL"}
