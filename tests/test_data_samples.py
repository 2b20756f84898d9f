from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgepack.data import (
    generate_samples,
    halve_samples,
    load_samples,
    make_samples,
    split_samples,
)
from edgepack.data.samples import check_samples
from edgepack.errors import DataError
from edgepack.model import TensorSpec

PIXELS = TensorSpec(name="pixels", shape=(1, 8, 8, 1), dtype="float32")
IDS = TensorSpec(name="ids", shape=(1, 4), dtype="int32")


def _pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, 8, 8, 1), dtype=np.float32)


def _faults(path: Path, *inputs: TensorSpec) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_samples(str(path), inputs=inputs)
    return [line.strip(" -") for line in caught.value.message.splitlines()]


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (3, 1, 8, 8, 1)])
def test_samples_stand_with_or_without_the_batch_axis(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, pixels=_pixels().reshape(shape), ids=np.arange(12).reshape(3, 4))
    samples = load_samples(str(path), inputs=(PIXELS, IDS))
    assert [(name, array.shape, str(array.dtype)) for name, array in samples.arrays] == [
        ("pixels", (3, 1, 8, 8, 1), "float32"),
        ("ids", (3, 1, 4), "int32"),
    ]
    np.testing.assert_array_equal(samples.arrays[0][1].ravel(), _pixels().ravel())


def test_a_single_input_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", _pixels())
    np.save(tmp_path / "data.npy", _pixels())
    first, second = (
        load_samples(str(tmp_path / name), inputs=(PIXELS,)) for name in ("data.npz", "data.npy")
    )
    assert first.digest == second.digest


def test_labels_come_from_the_archive_or_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "with.npz", pixels=_pixels(), labels=np.array([[2], [0], [1]], np.uint8))
    np.savez(tmp_path / "without.npz", pixels=_pixels())
    np.save(tmp_path / "labels.npy", np.array([2, 0, 1]))
    (tmp_path / "labels.txt").write_text("2\n0\n1\n")
    inside = load_samples(str(tmp_path / "with.npz"), inputs=(PIXELS,))
    assert inside.labels is not None
    assert inside.labels.tolist() == [2, 0, 1]
    for name in ("labels.npy", "labels.txt"):
        beside = load_samples(
            str(tmp_path / "without.npz"), inputs=(PIXELS,), labels=tmp_path / name
        )
        assert beside.digest == inside.digest


def test_all_faults_come_at_once_with_near_names(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, pixel=_pixels(), ids=np.zeros((2, 5), np.int32), labels=np.array([0.5, 1.0]))
    assert _faults(path, PIXELS, IDS)[1:] == [
        "missing array 'pixels'; did you mean 'pixel'?",
        "unknown array 'pixel'; did you mean 'pixels'?",
        "input 'ids': expected shape (N, 4), but got (2, 5)",
        "labels: expected whole numbers, but got float64",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named_with_its_sample(tmp_path: Path, value: float) -> None:
    array = _pixels(5)
    array[2, 3, 3, 0] = array[4, 0, 0, 0] = value
    np.savez(tmp_path / "data.npz", pixels=array)
    kind = "NaN" if np.isnan(value) else "an infinity"
    fault = f"expected finite values, but sample 2 (counting from 0) holds {kind}"
    assert _faults(tmp_path / "data.npz", PIXELS) == [
        f"{tmp_path}/data.npz: input 'pixels': {fault}; 2 samples are not finite"
    ]


def test_unequal_counts_and_no_samples_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", pixels=_pixels(3), ids=np.zeros((2, 4), np.int32))
    assert _faults(tmp_path / "data.npz", PIXELS, IDS) == [
        f"{tmp_path}/data.npz: expected as many samples of every input, but got 'pixels' 3, 'ids' 2"
    ]
    np.savez(tmp_path / "none.npz", pixels=_pixels(0))
    assert _faults(tmp_path / "none.npz", PIXELS) == [
        f"{tmp_path}/none.npz: expected at least one sample, but got none"
    ]


@pytest.mark.parametrize(
    ("given_dtype", "spec_dtype"),
    [("float64", "float32"), ("uint8", "float32"), ("int64", "int32"), ("uint8", "int8")],
)
def test_casts_that_lose_nothing_are_made(given_dtype: str, spec_dtype: str) -> None:
    spec = TensorSpec(name="x", shape=(1, 2), dtype=spec_dtype)
    array = np.array([[1, 100]], given_dtype)
    samples = check_samples({"x": array}, inputs=(spec,), labels=None, source="test")
    assert samples.arrays[0][1].dtype == spec_dtype
    assert samples.arrays[0][1].ravel().tolist() == [1, 100]


@pytest.mark.parametrize(
    ("array", "spec_dtype", "fault"),
    [
        (np.array([[1e300]]), "float32", "got float64 with values that float32 cannot hold"),
        (np.array([[200]]), "int8", "got int64 with values that int8 cannot hold"),
        (np.array([[-1]], np.int8), "uint8", "got int8 with values that uint8 cannot hold"),
        (np.array([[2**24 + 1]]), "float32", "got int64 with values that float32 cannot hold"),
        (np.array([[0.5]]), "int32", "got float64"),
        (np.array([["a"]]), "float32", "got <U1"),
        (np.array([[1]]), "bool", "got int64"),
    ],
)
def test_casts_that_lose_something_are_refused(
    array: np.ndarray, spec_dtype: str, fault: str
) -> None:
    spec = TensorSpec(name="x", shape=(1, 1), dtype=spec_dtype)
    with pytest.raises(DataError) as caught:
        check_samples({"x": array}, inputs=(spec,), labels=None, source="test")
    assert caught.value.message == f"test: input 'x': expected {spec_dtype}, but {fault}"


@example([2**63 - 1], "float32")
@example([-(2**63)], "float32")
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.sampled_from(["int8", "uint8", "int16", "int32", "uint32", "float32"]),
)
def test_a_cast_is_accepted_exactly_when_the_values_stay(values: list[int], dtype: str) -> None:
    spec = TensorSpec(name="x", shape=(1, 1), dtype=dtype)
    array = np.array(values, np.int64)[:, None]
    fits = all(int(np.array(value).astype(dtype)) == value for value in values)
    try:
        samples = check_samples({"x": array}, inputs=(spec,), labels=None, source="test")
    except DataError:
        assert not fits
    else:
        assert [int(value) for value in samples.arrays[0][1].ravel()] == values


def test_halves_take_even_and_odd_samples_with_their_labels() -> None:
    samples = make_samples([("x", np.arange(5.0)[:, None])], labels=np.arange(5))
    calibration, evaluation = split_samples(samples)
    assert calibration.arrays[0][1].ravel().tolist() == [0, 2, 4]
    assert evaluation.arrays[0][1].ravel().tolist() == [1, 3]
    assert calibration.labels is not None
    assert calibration.labels.tolist() == [0, 2, 4]
    assert len({samples.digest, calibration.digest, evaluation.digest}) == 3


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match="expected at least 2 samples"):
        split_samples(make_samples([("x", np.zeros((1, 1)))]))


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels=_pixels())
    np.savez_compressed(tmp_path / "b.npz", pixels=np.asfortranarray(_pixels()).astype(">f4"))
    first, second = (
        load_samples(str(tmp_path / name), inputs=(PIXELS,)) for name in ("a.npz", "b.npz")
    )
    assert first.digest == second.digest


def test_generated_samples_are_plausible_and_the_same_for_a_seed() -> None:
    image = TensorSpec(name="image", shape=(1, 3, 32, 32), dtype="float32")
    vector = TensorSpec(name="vector", shape=(1, 64), dtype="float32")
    byte_image = TensorSpec(name="bytes", shape=(1, 16, 16, 3), dtype="uint8")
    flag = TensorSpec(name="flag", shape=(1,), dtype="bool")
    specs = (image, vector, byte_image, flag, IDS)
    samples = generate_samples(specs, num_samples=4, seed=1)
    assert samples.digest == generate_samples(specs, num_samples=4, seed=1).digest
    assert samples.digest != generate_samples(specs, num_samples=4, seed=2).digest
    arrays = dict(samples.arrays)
    for spec in specs:
        assert arrays[spec.name].shape == (4, *spec.shape)
        assert str(arrays[spec.name].dtype) == spec.dtype
    assert arrays["image"].min() >= 0.0
    assert arrays["image"].max() <= 1.0
    # Neighbors are alike in photographs and unlike in white noise.
    pixels = arrays["image"].astype(np.float64)
    step = np.abs(np.diff(pixels, axis=-1)).mean()
    assert step < 0.7 * np.abs(pixels - np.roll(pixels, 16, axis=-1)).mean()
    assert arrays["bytes"].max() > 128
    assert arrays["ids"].min() >= 0
    assert arrays["ids"].max() < 8


def test_a_stream_is_cut_in_the_middle() -> None:
    whole = make_samples([("x", np.arange(5.0))], labels=np.arange(5))
    first, second = halve_samples(whole)
    assert first.arrays[0][1].tolist() == [0, 1]
    assert second.arrays[0][1].tolist() == [2, 3, 4]
    assert second.labels is not None
    assert second.labels.tolist() == [2, 3, 4]
