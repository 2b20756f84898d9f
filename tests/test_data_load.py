import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgepack.data import ColorOrder, ImageLayout, ImagePreprocessing, ResizeRule, load_samples
from edgepack.data import arrays as arrays_module
from edgepack.data import function as function_module
from edgepack.errors import DataError, UsageError
from edgepack.model import TensorSpec

PIXELS = TensorSpec(name="pixels", shape=(1, 8, 8, 1), dtype="float32")
COLOR = TensorSpec(name="image", shape=(1, 4, 6, 3), dtype="float32")
PLANES = TensorSpec(name="image", shape=(1, 3, 4, 6), dtype="float32")


def _message(source: object, *inputs: TensorSpec, **options: Any) -> str:  # noqa: ANN401 - passed on
    with pytest.raises(DataError) as caught:
        load_samples(str(source), inputs=inputs or (PIXELS,), **options)
    return caught.value.message


def _save_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)


def _colors() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def test_object_arrays_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "data.npz", pixels=np.array([Bomb()], dtype=object))
    assert "array 'pixels': expected numbers, but got Python objects" in _message(
        tmp_path / "data.npz"
    )
    (tmp_path / "data.npy").write_bytes(pickle.dumps(Bomb()))
    assert "expected the format of numpy.save" in _message(tmp_path / "data.npy")
    assert not (tmp_path / "exploded").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays_module, "MAXIMUM_BYTES", 2**20)
    np.savez_compressed(tmp_path / "bomb.npz", pixels=np.zeros((40_000, 64), np.float32))
    assert "GiB of data, but it holds" in _message(tmp_path / "bomb.npz")


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    )
    (tmp_path / "data.npy").write_bytes(header.getvalue())
    assert "its header speaks of 4398046511104 bytes" in _message(tmp_path / "data.npy")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("data.npz", "data.npy"):
        (tmp_path / name).write_bytes(content)
        assert str(tmp_path / name) in _message(tmp_path / name)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", pixels=np.zeros((3, 8, 8, 1), np.float32))
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[: len(whole) // 2])
    assert "expected an .npz as numpy.savez writes it" in _message(tmp_path / "data.npz")


def test_an_entry_that_is_no_array_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert _message(tmp_path / "data.npz") == (
        f"{tmp_path}/data.npz: entry 'notes.txt': expected an array (.npy)"
    )


def test_a_single_array_for_several_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((3, 8, 8, 1)))
    assert "the model has 2 inputs ('pixels', 'image')" in _message(
        tmp_path / "data.npy", PIXELS, COLOR
    )


def test_what_is_no_data_source_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_samples("nowhere.npz", inputs=(PIXELS,))
    assert caught.value.message == (
        "data 'nowhere.npz': expected an .npz, an .npy, a folder of images or module:function, "
        "but there is no such file"
    )
    (tmp_path / "data.csv").touch()
    assert "but got a file '.csv'" in _message(tmp_path / "data.csv")


def test_lines_of_labels_that_are_no_numbers_are_listed(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1\ncat\n-3\n")
    np.savez(tmp_path / "data.npz", pixels=np.zeros((3, 8, 8, 1), np.float32))
    message = _message(tmp_path / "data.npz", labels=tmp_path / "labels.txt")
    assert message.splitlines()[1:] == [
        "  - line 2: expected a class id such as 7, not 'cat'",
        "  - line 3: expected a class id such as 7, not '-3'",
    ]


def test_images_come_sorted_scaled_and_normalized(tmp_path: Path) -> None:
    first, second = _colors(), 255 - _colors()
    _save_image(tmp_path / "b.png", second)
    _save_image(tmp_path / "a.png", first)
    (tmp_path / "notes.txt").touch()
    preprocessing = ImagePreprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25))
    samples = load_samples(str(tmp_path), inputs=(COLOR,), images=preprocessing)
    expected = (np.stack([first, second]) / 255.0 - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.25]
    np.testing.assert_allclose(samples.arrays[0][1][:, 0], expected, rtol=1e-5, atol=1e-6)
    assert samples.labels is None


def test_planes_and_color_order_follow_the_input_and_the_options(tmp_path: Path) -> None:
    _save_image(tmp_path / "a.png", _colors())
    planes = load_samples(
        str(tmp_path),
        inputs=(PLANES,),
        images=ImagePreprocessing(color=ColorOrder.BGR, scale=1.0, layout=ImageLayout.NCHW),
    )
    expected = _colors()[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(planes.arrays[0][1][0, 0], expected)


def test_gray_inputs_get_gray_images_and_byte_inputs_plain_bytes(tmp_path: Path) -> None:
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    _save_image(tmp_path / "a.png", gray)
    spec = TensorSpec(name="x", shape=(1, 4, 6, 1), dtype="uint8")
    samples = load_samples(str(tmp_path), inputs=(spec,))
    np.testing.assert_array_equal(samples.arrays[0][1][0, 0, :, :, 0], gray)
    flat = TensorSpec(name="x", shape=(1, 4, 6), dtype="float32")
    samples = load_samples(str(tmp_path), inputs=(flat,))
    np.testing.assert_allclose(samples.arrays[0][1][0, 0], gray / 255.0, rtol=1e-6)


def test_stretching_keeps_all_and_cropping_keeps_the_center(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    _save_image(tmp_path / "a.png", wide)
    spec = TensorSpec(name="x", shape=(1, 8, 8, 3), dtype="float32")
    stretched = load_samples(str(tmp_path), inputs=(spec,)).arrays[0][1]
    cropped = load_samples(
        str(tmp_path), inputs=(spec,), images=ImagePreprocessing(resize=ResizeRule.CROP)
    ).arrays[0][1]
    assert stretched.mean() == pytest.approx(1 / 3, abs=0.05)
    np.testing.assert_allclose(cropped, 1.0, atol=0.01)


def test_class_folders_give_labels(tmp_path: Path) -> None:
    for name in ("cat", "dog", "dog/.hidden"):
        (tmp_path / name).mkdir()
    _save_image(tmp_path / "dog" / "1.png", _colors())
    _save_image(tmp_path / "cat" / "2.png", _colors())
    _save_image(tmp_path / "cat" / "1.png", _colors())
    plain = load_samples(str(tmp_path), inputs=(COLOR,))
    named = load_samples(str(tmp_path), inputs=(COLOR,), class_names=("bird", "dog", "cat"))
    assert plain.labels is not None
    assert plain.labels.tolist() == [0, 0, 1]
    assert named.labels is not None
    assert named.labels.tolist() == [2, 2, 1]
    assert "subfolder 'cat': not among the 1 class names" in _message(
        tmp_path, COLOR, class_names=("dog",)
    )


def test_class_folders_named_by_numbers_are_those_classes(tmp_path: Path) -> None:
    _save_image(tmp_path / "7" / "1.png", _colors())
    _save_image(tmp_path / "10" / "1.png", _colors())
    samples = load_samples(str(tmp_path), inputs=(COLOR,))
    assert samples.labels is not None
    assert sorted(samples.labels.tolist()) == [7, 10]


def test_unreadable_images_are_all_named(tmp_path: Path) -> None:
    _save_image(tmp_path / "good.png", _colors())
    (tmp_path / "empty.png").touch()
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    lines = _message(tmp_path, COLOR).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["  - empty.png", "  - half.png"]


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("deep.png", np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000),
        ("real.tiff", np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)),
    ],
)
def test_pixels_beyond_8_bits_are_refused(
    tmp_path: Path, name: str, pixels: NDArray[np.generic]
) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    assert f"{name}: expected 8 bits a channel" in _message(tmp_path, COLOR)


def test_a_picture_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    _save_image(tmp_path / "a.png", _colors())
    assert "a.png: not a readable image" in _message(tmp_path, COLOR)


def test_preprocessing_that_does_not_fit_lists_all_faults(tmp_path: Path) -> None:
    _save_image(tmp_path / "a.png", _colors())
    preprocessing = ImagePreprocessing(size=(224, 224), mean=(1.0, 2.0), std=(0.0,))
    assert _message(tmp_path, COLOR, images=preprocessing).splitlines()[1:] == [
        "  - size: expected 4x6 (height x width), the input's, but got 224x224",
        "  - mean: expected 1 or 3 values, but got 2",
        "  - std: expected numbers other than 0",
    ]


def test_a_folder_without_images_and_an_input_without_pixels_are_refused(tmp_path: Path) -> None:
    vector = TensorSpec(name="x", shape=(1, 10), dtype="float32")
    message = _message(tmp_path, vector)
    assert "input 'x': expected an image" in message
    assert "but found none" in message


_MODULE = """
import numpy as np
print("loading")

def good():
    for i in range(3):
        yield {"pixels": np.full((8, 8, 1), i, np.float32), "labels": i}

def endless():
    while True:
        yield {"pixels": np.zeros((8, 8, 1), np.float32)}

def broken():
    yield {"pixels": np.zeros((8, 8, 1), np.float32)}
    raise KeyError("path")

def uneven():
    yield {"pixels": np.zeros((8, 8, 1), np.float32)}
    yield {"pixels": np.zeros((8, 9, 1), np.float32)}
    yield {"pixel": np.zeros((8, 8, 1), np.float32)}

def tuples():
    yield (1, 2)

def nothing():
    return []
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"samples_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(_MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_of_the_user_s_yields_samples(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = load_samples(f"{module}:good", inputs=(PIXELS,))
    assert samples.arrays[0][1].shape == (3, 1, 8, 8, 1)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2]
    assert capsys.readouterr().out == ""  # standard output is for results


def test_faults_of_the_user_s_function_are_explained(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_module, "MAXIMUM_SAMPLES", 20)
    assert "expected at most 20 samples, but it goes on yielding" in _message(f"{module}:endless")
    broken = _message(f"{module}:broken")
    assert f"{module}:broken: calling it failed: KeyError: 'path'" in broken
    assert f"{module}.py, line 15)" in broken
    assert _message(f"{module}:uneven").splitlines()[1:] == [
        "  - sample 1: 'pixels' expected shape (8, 8, 1) as in sample 0, but got (8, 9, 1)",
        "  - sample 2: expected keys ['pixels'], but got ['pixel']",
    ]
    assert "sample 0: expected a dict of input name and array, but got tuple" in _message(
        f"{module}:tuples"
    )
    assert "expected at least one sample, but it yields none" in _message(f"{module}:nothing")
    assert "has no attribute 'absent'" in _message(f"{module}:absent")
    assert "No module named 'no_such_module'" in _message("no_such_module:f")
