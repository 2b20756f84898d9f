import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.data import InputHint, InputRole, Range, generate_samples
from edgepack.errors import DataError
from edgepack.model import TensorSpec


def _spec(name: str, shape: tuple[int, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def _one(spec: TensorSpec, value_range: Range, hint: InputHint | None = None) -> np.ndarray:
    hints = {spec.name: hint} if hint is not None else None
    samples = generate_samples((spec,), num_samples=6, seed=3, hints=hints, value_range=value_range)
    return dict(samples.arrays)[spec.name]


@given(st.integers(0, 10**9), st.sampled_from(["int32", "int64", "uint8", "int8"]))
def test_ids_cover_the_vocabulary_and_never_leave_it(maximum: int, dtype: str) -> None:
    array = _one(_spec("ids", (1, 40), dtype), Range.UNIT, InputHint(maximum=maximum))
    highest = min(maximum, np.iinfo(dtype).max)
    assert array.min() >= 0
    assert array.max() <= highest
    assert array.max() >= highest // 2


def test_an_image_of_ids_is_not_taken_for_a_photograph() -> None:
    array = _one(_spec("labels", (1, 16, 16, 1), "int32"), Range.UNIT, InputHint(maximum=20))
    assert array.max() == 20


@pytest.mark.parametrize(
    ("value_range", "lowest", "highest"),
    [(Range.UNIT, 0.0, 1.0), (Range.WIDE, 0.0, 255.0), (Range.CENTERED, -2.3, 2.3)],
)
def test_images_come_in_the_ranges_models_are_trained_on(
    value_range: Range, lowest: float, highest: float
) -> None:
    array = _one(_spec("image", (1, 24, 24, 3)), value_range)
    assert lowest <= array.min() < lowest + 0.2 * (highest - lowest)
    assert highest - 0.4 * (highest - lowest) < array.max() <= highest


def test_integer_images_reach_255_and_eight_bits_cover_their_type() -> None:
    assert _one(_spec("image", (1, 16, 16, 3), "int32"), Range.UNIT).max() > 200
    signed = _one(_spec("image", (1, 16, 16, 3), "int8"), Range.UNIT)
    assert signed.min() < -60
    assert signed.max() > 60


def test_states_are_zero_at_first_and_small_afterwards() -> None:
    spec, hint = _spec("h0", (1, 1, 8)), InputHint(role=InputRole.STATE)
    assert not _one(spec, Range.UNIT, hint).any()
    for value_range in (Range.WIDE, Range.CENTERED):
        array = _one(spec, value_range, hint)
        assert np.all(array != 0)
        assert np.abs(array).max() < 1


@pytest.mark.parametrize(
    "name", ["attention_mask", "mask", "model/mask:0", "src_mask", "serving_default_mask"]
)
@pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
def test_a_mask_keeps_the_start_and_drops_an_end(name: str, dtype: str) -> None:
    whole = _one(_spec(name, (1, 12), dtype), Range.UNIT)
    assert np.all(whole == 1)
    array = _one(_spec(name, (1, 12), dtype), Range.WIDE).astype(int)
    assert set(np.unique(array)) == {0, 1}
    assert np.all(np.diff(array, axis=-1) <= 0)
    assert np.all(array[..., :6] == 1)


def test_what_only_sounds_like_a_mask_is_no_mask() -> None:
    assert not np.all(_one(_spec("damask", (1, 12)), Range.UNIT) == 1)


@pytest.mark.parametrize("name", ["length", "lengths", "seq_len", "input_lengths", "x.lens"])
def test_lengths_stay_within_the_sequence(name: str) -> None:
    specs = (_spec("frames", (1, 30, 8)), _spec(name, (1,), "int64"))
    full = generate_samples(specs, num_samples=5, seed=1)
    assert np.all(dict(full.arrays)[name] == 30)
    part = generate_samples(specs, num_samples=5, seed=1, value_range=Range.WIDE)
    array = dict(part.arrays)[name]
    assert array.min() >= 15
    assert array.max() <= 30
    assert len(np.unique(array)) > 1


@pytest.mark.parametrize("shape", [(1, 16000), (1, 1, 4000), (16000,), (1, 1024, 1)])
def test_waveforms_are_sound(shape: tuple[int, ...]) -> None:
    unit = _one(_spec("audio", shape), Range.UNIT).astype(np.float64).reshape(6, -1)
    assert 0.3 < np.abs(unit).max() <= 1.0
    # Neighbors are alike in sound, and unlike in white noise, whose steps are 1.41 deviations.
    assert np.diff(unit, axis=-1).std() < 1.1 * unit.std()
    wide = _one(_spec("audio", shape), Range.WIDE)
    assert 8192 < np.abs(wide).max() <= 32768


def test_other_floats_have_several_ranges() -> None:
    spec = _spec("features", (1, 64))
    unit, wide, centered = (_one(spec, each) for each in Range)
    assert 0.8 < unit.std() < 1.2
    assert wide.std() > 3
    assert centered.min() >= 0
    assert centered.max() <= 1


def test_shapes_that_memory_cannot_hold_are_refused() -> None:
    specs = (_spec("small", (1, 4)), _spec("map", (1, 1 << 20, 1 << 20, 3)))
    with pytest.raises(DataError) as caught:
        generate_samples(specs, num_samples=2, seed=1)
    assert caught.value.message == (
        "expected inputs of which 2 samples take at most 4 GiB, but with 'map' of shape "
        "(1, 1048576, 1048576, 3) they take 24576.0 GiB"
    )
