"""Named shapes on the command line: how they are read, and what is refused."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from edgepack.commands.named_shapes import (
    NamedShape,
    naming_shape,
    parse_shapes,
    path_for,
    select_source,
)
from edgepack.errors import ConversionError, UsageError
from tests.fixtures.commands import FLOAT_MODEL, RunCommand
from tests.fixtures.importers import save_onnx, weights_of

_SMALL = NamedShape(name="small", inputs=(("x", (1, 3, 224, 224)),))
_LARGE = NamedShape(name="large", inputs=(("x", (1, 3, 448, 448)), ("mask", (1, 448))))


def test_shapes_are_read_with_several_inputs_either_way() -> None:
    small = "small:x=1,3,224,224"
    assert parse_shapes([small, "large:x=1x3x448x448;mask=1,448"]) == (_SMALL, _LARGE)
    assert parse_shapes([small, "large:x=1,3,448,448", "large:mask=1,448"]) == (_SMALL, _LARGE)
    assert parse_shapes(["a:serving:0=1,2"])[0].inputs == (("serving:0", (1, 2)),)
    assert parse_shapes([]) == ()


@pytest.mark.parametrize("text", ["x=1,3", "small:x", "small:x=", "small:x=1,;y=2", "a/b:x=1", ""])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shapes([text])
    assert caught.value.message == f"--shape: expected NAME:INPUT=1,3,224,224, not {text!r}"


def test_an_input_has_one_shape_under_a_name() -> None:
    with pytest.raises(UsageError, match="input 'x' stands twice under 'small'"):
        parse_shapes(["small:x=1,3", "small:x=1,4"])


def test_each_shape_has_its_own_data_or_the_common_ones() -> None:
    shapes = (_SMALL, _LARGE)

    def pick(*sources: str, shape: str | None) -> str | None:
        return select_source("--data", sources, shapes=shapes, shape=shape)

    assert pick("small=a.npz", "large=b.npz", shape="large") == "b.npz"
    assert pick("photos", "large=b.npz", shape="small") == "photos"
    assert pick("photos", "large=b.npz", shape="large") == "b.npz"
    assert pick("small=a.npz", shape="large") is None
    # Only a shape's name makes a prefix: paths may hold '='.
    assert select_source("--data", ["run=3/a.npz"], shapes=(), shape=None) == "run=3/a.npz"
    with pytest.raises(UsageError) as caught:
        pick("small=a.npz", "small=b.npz", shape="small")
    assert caught.value.message == (
        "--data: expected one source for shape 'small', but got a.npz, b.npz"
    )


def test_two_sources_without_shapes_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        select_source("--eval-data", ["a.npz", "b.npz"], shapes=(), shape=None)
    assert caught.value.message == "--eval-data: expected one source, but got a.npz, b.npz"


def test_reports_of_shapes_stand_beside_each_other() -> None:
    assert path_for(Path("out/report.html"), "small") == Path("out/report-small.html")
    assert path_for(Path("out/report.html"), None) == Path("out/report.html")


def test_one_file_cannot_take_several_bundles(run: RunCommand) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "-o", "one.edgepack"),
        *("--shape", "small:pixels=1,8,8,1"),
    )
    assert ran.code == 2
    assert "--out: one.edgepack is one file, but each --shape makes a bundle of its own" in ran.err


def test_an_input_is_fixed_by_one_option(run: RunCommand) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--input-shape", "pixels=1,8,8,1"),
        *("--shape", "small:pixels=1,8,8,1"),
    )
    assert ran.code == 2
    assert "--shape: pixels has a shape from --input-shape already" in ran.err


def test_a_failure_names_its_shape_and_what_was_written() -> None:
    fault = ConversionError("no kernel", remedy="Replace it.")
    with (
        pytest.raises(ConversionError) as caught,
        naming_shape("large", [Path("a-small.edgepack")]),
    ):
        raise fault
    assert caught.value.message == "--shape large: no kernel"
    assert caught.value.remedy == (
        "Replace it. Bundles written for the shapes before it: a-small.edgepack."
    )
    with pytest.raises(ConversionError) as caught, naming_shape(None, []):
        raise fault
    assert caught.value is fault


@pytest.mark.toolchain
def test_the_first_bundle_stays_when_the_second_shape_fails(
    run: RunCommand, tmp_path: Path
) -> None:
    model = save_onnx(
        tmp_path / "product.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, ["batch", "size"])},
        outputs={"y": (TensorProto.FLOAT, ["batch", 3])},
        weights={"w": weights_of(4, 3)},
    )
    ran = run(
        *("pack", model, "--target", "laptop-x86-64", "--recipe", "float32"),
        *("--shape", "small:x=1,4", "--shape", "large:x=1,9"),
    )
    assert ran.code == 1
    (bundle,) = Path().glob("*.edgepack")
    assert "edgepack: --shape large: " in ran.err
    assert f" Bundles written for the shapes before it: {bundle}." in ran.err
