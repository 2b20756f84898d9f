"""The options that shape inputs and outputs: read, refused, and carried into the bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.bundle.archive import open_bundle
from edgepack.commands.contract_options import make_contract_request
from edgepack.contract import ContractRequest, Head, InputWish, OutputWish
from edgepack.contract.record import InputKind, Meaning, Place
from edgepack.data import ImageLayout
from edgepack.errors import UsageError
from tests.fixtures.commands import CLASSES, DIGITS, FLOAT_MODEL, RunCommand

NOTHING: dict[str, Any] = dict.fromkeys(
    (
        *("input_mean", "input_std", "input_scale", "input_dtype", "input_layout"),
        *("output_heads", "output_layout"),
    ),
    (),
)


def test_options_are_read_by_name() -> None:
    request = make_contract_request(
        NOTHING
        | {
            "input_mean": ("a=b=0.5,1/4,-3",),
            "input_scale": ("a=b=1/255", "c=2e-1"),
            "input_dtype": ("c=UINT8",),
            "output_heads": ("argmax",),
            "output_layout": ("nchw",),
        }
    )
    assert request == ContractRequest(
        inputs=(
            InputWish(name="a=b", mean=(0.5, 0.25, -3.0), scale=1 / 255),
            InputWish(name="c", scale=0.2, dtype="uint8"),
        ),
        outputs=(OutputWish(name=None, head=Head.ARGMAX, layout=ImageLayout.NCHW),),
    )
    assert make_contract_request(NOTHING).is_empty


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"input_scale": ("1/0",)},
            "--input-scale: expected numbers or fractions, not '1/0'",
        ),
        ({"input_mean": ("a,b",)}, "--input-mean: expected numbers or fractions, not 'a,b'"),
        ({"input_std": ("nan",)}, "--input-std: expected numbers or fractions, not 'nan'"),
        (
            {"input_dtype": ("int4",)},
            "--input-dtype: expected uint8 or float32, not 'int4'",
        ),
        (
            {"output_heads": ("out.edgepack",)},
            "--output: expected softmax, sigmoid or argmax, not 'out.edgepack'",
        ),
        (
            {"input_scale": ("x=1", "x=2")},
            "--input-scale: given twice for 'x'",
        ),
        (
            {"input_scale": ("x=1", "2")},
            "options for inputs or outputs are given with a name ('x') and without one",
        ),
        (
            {"input_scale": ("1",), "image_mean": "0.5"},
            (
                "--image-mean preprocess pictures before the model, but with --input-mean, "
                "--input-std, --input-scale or --input-dtype uint8 the model takes raw pixels"
            ),
        ),
    ],
)
def test_what_cannot_be_read_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_contract_request(NOTHING | given)
    assert caught.value.message == message


def test_the_file_to_write_is_named_otherwise() -> None:
    with pytest.raises(UsageError) as caught:
        make_contract_request(NOTHING | {"output_heads": ("out.edgepack",)})
    assert str(caught.value.remedy).endswith("The file to write is named with -o.")


def test_a_camera_model_is_packed_and_says_what_it_takes(run: RunCommand, tmp_path: Path) -> None:
    with np.load(DIGITS) as arrays:
        pixels = np.round(arrays["pixels"] * 255).astype(np.uint8)[:60]
        np.savez(tmp_path / "raw.npz", pixels=pixels, labels=arrays["labels"][:60])
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--data", tmp_path / "raw.npz"),
        *("--input-scale", "1/255", "--input-dtype", "uint8", "--output", "argmax"),
        *("--recipe", "int8", "--class-names", CLASSES, "-o", tmp_path / "camera.edgepack"),
        "--json",
    )
    assert ran.code == 0, ran.err
    (variant,) = ran.json()["variants"]
    assert variant["fidelity"]["accuracy"] > 0.9
    assert variant["fidelity"]["outputs"][0]["is_index"] is True
    manifest = open_bundle(tmp_path / "camera.edgepack").manifest
    (spec,) = manifest.signature.inputs
    assert (spec.name, spec.shape, spec.dtype) == ("pixels", (1, 8, 8, 1), "uint8")
    (pixel,), (digit,) = manifest.contract.inputs, manifest.contract.outputs
    assert (pixel.kind, pixel.layout, pixel.value_range) == (
        InputKind.IMAGE,
        ImageLayout.NHWC,
        (0.0, 255.0),
    )
    assert pixel.place is Place.MODEL
    assert (digit.meaning, digit.has_labels) == (Meaning.CLASS_ID, True)
    shown = run("inspect", tmp_path / "camera.edgepack").out
    assert "class id" in shown
    assert "image NHWC" in shown


def test_preprocessed_data_are_refused_for_a_camera_model(run: RunCommand) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--data", DIGITS),
        *("--input-scale", "1/255", "--input-dtype", "uint8"),
    )
    assert ran.code == 1
    assert "expected pixels, whole numbers from 0 to 255" in ran.err


def test_a_mean_without_a_scale_is_a_usage_error(run: RunCommand) -> None:
    ran = run("pack", FLOAT_MODEL, "-t", "laptop-x86-64", "--input-mean", "127.5")
    assert ran.code == 2
    assert "give --input-scale 1 or --input-scale 1/255" in ran.err
