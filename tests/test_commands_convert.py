"""`edgepack convert`: the file it writes, what it shows, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgepack.flatbuffer import FILE_IDENTIFIER
from edgepack.report.conversion import AttemptRow, describe_attempts, layout_text
from tests.fixtures.commands import FLOAT_MODEL, RunCommand
from tests.fixtures.importers import save_onnx, weights_of
from tests.fixtures.models import KINDS


def _picture_onnx(folder: Path) -> Path:
    """Give a convolution over a picture, with an open batch by name."""
    return save_onnx(
        folder / "picture.onnx",
        [
            helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Flatten", ["p"], ["scores"]),
        ],
        inputs={"image": (TensorProto.FLOAT, ["batch", 3, 12, 10])},
        outputs={"scores": (TensorProto.FLOAT, ["batch", 4])},
        weights={"w": weights_of(4, 3, 3, 3)},
    )


def test_a_tflite_model_is_written_as_it_is(run: RunCommand) -> None:
    ran = run("convert", FLOAT_MODEL, "-o", "copy.tflite")
    assert ran.code == 0, ran.err
    assert Path("copy.tflite").read_bytes() == FLOAT_MODEL.read_bytes()
    assert ran.out.splitlines()[-1] == (
        f"wrote copy.tflite ({FLOAT_MODEL.stat().st_size // 1000} kB), converted already"
    )


def test_the_signature_that_is_not_taken_is_a_warning(run: RunCommand) -> None:
    ran = run("convert", KINDS / "signatures.tflite", "-o", "copy.tflite")
    assert ran.code == 0, ran.err
    assert "the model has 2 signatures (scale, step): scale is judged and measured" in ran.err


def test_the_default_name_is_the_models_in_this_folder(run: RunCommand) -> None:
    assert run("convert", FLOAT_MODEL).code == 0
    assert Path("digits.tflite").read_bytes() == FLOAT_MODEL.read_bytes()


def test_the_source_is_never_written_over(run: RunCommand) -> None:
    Path("digits.tflite").write_bytes(FLOAT_MODEL.read_bytes())
    ran = run("convert", "digits.tflite")
    assert ran.code == 2
    assert ran.err == (
        "edgepack: digits.tflite: expected another file to write than the model that is read\n"
        "  Name the new file with -o.\n"
    )


@pytest.mark.parametrize("content", [b"my notes", b"abc"])
def test_a_file_of_another_kind_is_kept(run: RunCommand, content: bytes) -> None:
    Path("notes.tflite").write_bytes(content)
    ran = run("convert", FLOAT_MODEL, "-o", "notes.tflite")
    assert ran.code == 1
    assert "expected a free name or an earlier output, but another file is there" in ran.err
    assert Path("notes.tflite").read_bytes() == content


def test_an_earlier_output_is_replaced(run: RunCommand) -> None:
    Path("made.tflite").write_bytes(b"\x1c\x00\x00\x00" + FILE_IDENTIFIER + bytes(56))
    assert run("convert", FLOAT_MODEL, "-o", "made.tflite").code == 0
    assert Path("made.tflite").read_bytes() == FLOAT_MODEL.read_bytes()


def test_a_file_that_nobody_named_is_kept(run: RunCommand) -> None:
    earlier = b"\x1c\x00\x00\x00" + FILE_IDENTIFIER + bytes(56)
    Path("digits.tflite").write_bytes(earlier)
    ran = run("convert", FLOAT_MODEL)
    assert ran.code == 1
    assert ran.err == (
        "edgepack: digits.tflite: expected a free name, but a file is there already\n"
        "  Write `-o digits.tflite` to replace it, or name another file with -o.\n"
    )
    assert Path("digits.tflite").read_bytes() == earlier


def test_nothing_is_written_when_the_model_is_refused(run: RunCommand) -> None:
    Path("broken.onnx").write_bytes(b"\x08\x08")
    ran = run("convert", "broken.onnx", "--json")
    assert ran.code == 1
    assert ran.json()["error"]["kind"] == "model"
    assert sorted(path.name for path in Path().iterdir()) == ["broken.onnx"]


def test_a_folder_of_pictures_records_how_they_were_read(run: RunCommand) -> None:
    Path("photos").mkdir()
    for index in range(2):
        picture = np.full((8, 8), 40 * index, np.uint8)
        Image.fromarray(picture).save(Path("photos") / f"{index}.png")
    ran = run("convert", FLOAT_MODEL, "--data", "photos", "--json")
    assert ran.code == 0, ran.err
    (pixels,) = ran.json()["contract"]["inputs"]
    assert pixels["preprocessing"]["scale"] == pytest.approx(1 / 255)


def test_a_model_that_is_not_there_is_a_usage_error(run: RunCommand) -> None:
    ran = run("convert", "absent.onnx")
    assert ran.code == 2
    assert "absent.onnx" in ran.err


@pytest.mark.toolchain
def test_the_converter_parity_and_interface_are_shown(run: RunCommand, tmp_path: Path) -> None:
    model = _picture_onnx(tmp_path)
    ran = run("convert", model, "--dim", "batch=1")
    assert ran.code == 0, ran.err
    assert "onnx2tf: taken" in ran.out
    assert "1x12x10x3" in ran.out
    assert "NHWC, source 1x3x12x10" in ran.out
    assert "Parity with ONNX Runtime" in ran.out
    assert ran.out.splitlines()[-1].startswith("wrote picture.tflite (")
    assert ran.out.splitlines()[-1].endswith("), converted by onnx2tf")

    shown = run("convert", model, "--dim", "batch=1", "-o", "again.tflite", "--json").json()
    made = Path("again.tflite")
    assert made.read_bytes() == Path("picture.tflite").read_bytes()
    assert shown["size_bytes"] == made.stat().st_size
    assert shown["attempts"] == [{"converter": "onnx2tf", "fault": None}]
    (parity,) = shown["parity"]["outputs"]
    assert parity["output"] == "scores"
    assert parity["sqnr_db"] > 100
    assert shown["contract"]["inputs"][0]["shape"] == [1, 12, 10, 3]
    assert shown["seconds"] > 0
    assert shown["peak_memory_bytes"] > 2**20


@pytest.mark.toolchain
def test_data_of_the_users_decide(run: RunCommand, tmp_path: Path) -> None:
    model = _picture_onnx(tmp_path)
    samples = np.random.default_rng(3).random((5, 3, 12, 10), dtype=np.float32)
    np.savez("given.npz", image=samples)
    arguments = ("convert", model, "--dim", "batch=1", "--data", "given.npz", "--json")
    parity = run(*arguments).json()["parity"]
    assert (parity["generated"], parity["num_samples"]) == (False, 5)

    np.savez("given.npz", image=samples[:, :, 1:])
    ran = run(*arguments, "-o", "other.tflite")
    assert ran.code == 1
    assert ran.json()["error"]["kind"] == "data"
    assert not Path("other.tflite").exists()


@pytest.mark.toolchain
def test_generated_sets_that_were_left_out_are_a_warning(run: RunCommand, tmp_path: Path) -> None:
    model = save_onnx(
        tmp_path / "root.onnx",
        [helper.make_node("Sqrt", ["x"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, [1, 8])},
        outputs={"y": (TensorProto.FLOAT, [1, 8])},
        weights={},
    )
    told = " of 3 sets of generated inputs"
    ran = run("convert", model)
    assert ran.code == 0, ran.err
    assert told in ran.err
    ran = run("pack", model, "--target", "laptop-x86-64", "--recipe", "float32")
    assert ran.code == 0, ran.err
    assert told in ran.err


@pytest.mark.toolchain
def test_a_model_takes_raw_pixels_when_that_is_asked(run: RunCommand, tmp_path: Path) -> None:
    ran = run(
        *("convert", _picture_onnx(tmp_path), "--dim", "batch=1", "--json"),
        *("--input-dtype", "uint8", "--input-scale", "1/255", "--output", "softmax"),
    )
    assert ran.code == 0, ran.err
    contract = json.loads(ran.out)["contract"]
    assert contract["inputs"][0]["dtype"] == "uint8"
    assert contract["outputs"][0]["meaning"] == "probabilities"


def test_attempts_in_one_sentence() -> None:
    taken = AttemptRow(converter="onnx-tf", fault=None)
    fallen = AttemptRow(converter="onnx2tf", fault="no kernel")
    assert describe_attempts(()) == "converted already"
    assert describe_attempts((taken,)) == "converted by onnx-tf"
    assert describe_attempts((fallen, taken)) == "converted by onnx-tf after 1 other fell"
    assert describe_attempts((fallen, fallen, taken)) == "converted by onnx-tf after 2 others fell"


def test_a_layout_names_the_sources_shape_only_where_it_differs() -> None:
    assert layout_text("NHWC", (1, 8, 6, 3), (1, 3, 8, 6)) == "NHWC, source 1x3x8x6"
    assert layout_text("NHWC", (1, 8, 6, 3), (1, 8, 6, 3)) == "NHWC"
    assert layout_text(None, (1, 6, 4), (1, 4, 6)) == "source 1x4x6"
    assert layout_text(None, (1, 4), (1, 4)) == ""
