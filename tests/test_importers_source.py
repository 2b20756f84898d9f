import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgepack.errors import ModelError
from edgepack.importers import SourceFormat, detect_format, digest_source
from tests.fixtures.importers import save_onnx

_HDF5 = b"\x89HDF\r\n\x1a\n"
# ir_version 8, then a graph of three bytes: the smallest thing with an ONNX model's outline.
_ONNX = b"\x08\x08\x3a\x03abc"


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return buffer.getvalue()


def _hdf5(num_bytes: int) -> bytes:
    # Superblock of version 0: 8-byte addresses, the end of file at byte 40.
    head = _HDF5 + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + bytes(24) + num_bytes.to_bytes(8, "little")
    return head.ljust(num_bytes, b"\0")


_KERAS = _zip("config.json", "metadata.json", "model.weights.h5")
_TFLITE = b"\x1c\0\0\0TFL3" + bytes(24)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.keras", _KERAS, SourceFormat.KERAS),
        ("m.h5", _hdf5(100), SourceFormat.KERAS_H5),
        ("m.HDF5", _hdf5(100), SourceFormat.KERAS_H5),
        ("m.onnx", _ONNX, SourceFormat.ONNX),
        ("m.tflite", _TFLITE, SourceFormat.TFLITE),
        ("m.lite", _TFLITE, SourceFormat.TFLITE),
        ("m", _ONNX, SourceFormat.ONNX),
        (
            "m.torchscript",
            _zip("m/data.pkl", "m/constants.pkl", "m/code/m.py"),
            SourceFormat.TORCHSCRIPT,
        ),
    ],
)
def test_formats_are_told_by_content(
    tmp_path: Path, name: str, content: bytes, expected: SourceFormat
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert detect_format(path) is expected


@pytest.mark.parametrize(
    ("name", "content", "message", "remedy"),
    [
        ("m.keras", b"", "expected a model, but the file is empty", "Copy or export"),
        (
            "m.keras",
            _ONNX,
            "expected a Keras archive by its name, but it holds an ONNX model",
            "Rename it to m.onnx",
        ),
        (
            "m.onnx",
            _TFLITE,
            "expected an ONNX model by its name, but it holds a TFLite model",
            "Rename it to m.tflite",
        ),
        ("m.keras", _KERAS[:-30], "it is truncated or damaged", "compare its checksum"),
        (
            "m.h5",
            _hdf5(200)[:150],
            "expected an HDF5 file of at least 200 bytes",
            "compare its checksum",
        ),
        ("m.onnx", _ONNX[:-1], "its last field ends at byte 7 of 6: it is truncated", "checksum"),
        ("m.onnx", b"\xff" * 40, "byte 0 starts no field of an ONNX model", "checksum"),
        ("m.tflite", b"\xff" * 40, "its content is none of these (40 bytes", "whole"),
        ("m.pt", _zip("archive/data.pkl"), "it holds weights alone", "FILE.py:function"),
        ("m.edgepack", _zip("manifest.json"), "it looks like a packed bundle", "edgepack push"),
        ("m.keras", _zip("other.txt"), "this ZIP archive is neither", "model.save"),
    ],
)
def test_other_files_are_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, message: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        detect_format(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_directory_needs_a_graph(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a SavedModel directory with a file") as caught:
        detect_format(tmp_path)
    assert "the folder that holds saved_model.pb" in caught.value.remedy
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match="but the file is empty"):
        detect_format(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    assert detect_format(tmp_path) is SourceFormat.SAVED_MODEL


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: cannot be read: No such file"):
        detect_format(tmp_path / "gone.onnx")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200), st.integers(0, len(_KERAS)).map(lambda n: _KERAS[:n])
    )
)
def test_any_bytes_give_a_format_or_one_model_error(tmp_path: Path, content: bytes) -> None:
    refused: list[ModelError] = []
    for suffix in (".keras", ".h5", ".onnx", ".tflite"):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(content)
        try:
            detect_format(path)
        except ModelError as error:
            refused.append(error)
    assert len(refused) >= 3
    assert all(error.remedy and "\n" not in error.message for error in refused)


def test_a_directory_digest_covers_names_and_contents(tmp_path: Path) -> None:
    def tree(folder: str, **files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / folder

    first = digest_source(tree("one", a="1", sub__b="2"))
    assert first == digest_source(tree("two", sub__b="2", a="1"))
    assert first != digest_source(tree("three", a="1", sub__c="2"))
    assert first != digest_source(tree("four", a="1", sub__b="3"))
    assert first != digest_source(tree("five", a="1", b="2"))


def test_a_directory_digest_covers_folders_behind_links(tmp_path: Path) -> None:
    weights, model = tmp_path / "weights", tmp_path / "model"
    weights.mkdir()
    model.mkdir()
    (weights / "data").write_text("1")
    (weights / "loop").symlink_to(weights)
    (model / "saved_model.pb").write_text("graph")
    (model / "variables").symlink_to(weights)
    before = digest_source(model)
    (weights / "data").write_text("2")
    assert digest_source(model) != before


def test_a_device_in_a_directory_does_not_hang_the_digest(tmp_path: Path) -> None:
    (tmp_path / "variables").symlink_to("/dev/zero")
    with pytest.raises(ModelError) as caught:
        digest_source(tmp_path)
    assert caught.value.message == (
        f"{tmp_path / 'variables'}: expected a plain file, but it is none"
    )


@pytest.mark.parametrize("name", ["m.onnx", "model"])
def test_an_onnx_digest_covers_the_weights_beside_it(tmp_path: Path, name: str) -> None:
    path = save_onnx(
        tmp_path / name,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, [1, 4])},
        outputs={"y": (TensorProto.FLOAT, [1, 3])},
        weights={"w": np.zeros((4, 3), np.float32)},
    )
    whole = digest_source(path)
    onnx.save(
        onnx.load(str(path)), str(path), save_as_external_data=True, size_threshold=0,
        location="m.onnx.data",
    )  # fmt: skip
    data = tmp_path / "m.onnx.data"
    assert data.stat().st_size >= 48
    digests = {whole, digest_source(path)}
    # Exported anew with other weights the graph's own file stays as it was.
    data.write_bytes(bytes([1]) + data.read_bytes()[1:])
    digests.add(digest_source(path))
    data.unlink()
    digests.add(digest_source(path))  # refused later, by who needs it
    assert len(digests) == 4


def test_a_pipe_named_as_weights_does_not_hang_the_digest(tmp_path: Path) -> None:
    tensor = TensorProto(
        name="w", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="/dev/zero")
    graph = helper.make_graph([], "g", [], [], [tensor])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert digest_source(path)


def test_a_location_that_is_no_text_is_left_to_the_conversion(tmp_path: Path) -> None:
    tensor = TensorProto(
        name="w", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="here")
    graph = helper.make_graph([], "g", [], [], [tensor])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString().replace(b"here", b"\xff" * 4))
    assert digest_source(path)
