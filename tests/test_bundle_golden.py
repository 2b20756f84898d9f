"""Golden samples are what the models really answer, in the packed model's element types."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgepack.bundle import golden as golden_module
from edgepack.bundle.golden import check_golden, make_golden, pack_tensors, unpack_tensors
from edgepack.errors import BundleError
from edgepack.evaluate import quantize_array, run_model
from edgepack.model import TensorSpec
from tests.fixtures.bundle import (
    digits_feeds,
    digits_golden,
    digits_int8_model,
    digits_model,
)


def test_a_float_model_gives_its_own_answers() -> None:
    golden, signature = digits_golden(), digits_model().signature
    assert golden.num_samples == 4
    assert golden.reference == golden.host
    fed = unpack_tensors(golden.inputs, signature.inputs, num_samples=4)
    answers = unpack_tensors(golden.host, signature.outputs, num_samples=4)
    expected = run_model(digits_model(), digits_feeds()[:4])
    for index in range(4):
        np.testing.assert_array_equal(fed[index][0], digits_feeds()[index][0])
        np.testing.assert_array_equal(answers[index][0], expected[index][0])


def test_an_integer_interface_gives_integers() -> None:
    model = digits_int8_model()
    golden = make_golden(digits_model(), model, digits_feeds(), num_samples=3)
    inputs = unpack_tensors(golden.inputs, model.signature.inputs, num_samples=3)
    reference = unpack_tensors(golden.reference, model.signature.outputs, num_samples=3)
    host = unpack_tensors(golden.host, model.signature.outputs, num_samples=3)
    floats = run_model(digits_model(), digits_feeds()[:3])
    for index in range(3):
        spec = model.signature.inputs[0]
        np.testing.assert_array_equal(
            inputs[index][0], quantize_array(digits_feeds()[index][0], spec)
        )
        assert reference[index][0].dtype == host[index][0].dtype == np.int8
        assert int(np.argmax(host[index][0])) == int(np.argmax(floats[index][0]))
        distance = np.abs(host[index][0].astype(int) - reference[index][0].astype(int))
        assert distance.max() <= 8


def test_the_samples_are_fewer_when_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    # A digit is 256 bytes of input and twice 40 bytes of output.
    monkeypatch.setattr(golden_module, "MAXIMUM_BYTES", 2 * 336)
    assert make_golden(digits_model(), digits_model(), digits_feeds()).num_samples == 2
    monkeypatch.setattr(golden_module, "MAXIMUM_BYTES", 1)
    assert make_golden(digits_model(), digits_model(), digits_feeds()).num_samples == 1


def test_the_samples_are_no_more_than_given() -> None:
    golden = make_golden(digits_model(), digits_model(), digits_feeds()[:1])
    assert golden.num_samples == 1
    assert len(golden.inputs[0]) == 256


def test_no_samples_are_refused() -> None:
    with pytest.raises(BundleError) as caught:
        make_golden(digits_model(), digits_model(), ())
    assert caught.value.message == (
        "expected at least one sample to make golden outputs from, but got none"
    )


@given(st.sampled_from(["float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"])
       .flatmap(lambda dtype: arrays.arrays(dtype, (3, 1, 2, 2))))  # fmt: skip
def test_tensors_are_little_endian_and_come_back(values: np.ndarray) -> None:
    spec = TensorSpec(name="x", shape=(1, 2, 2), dtype=values.dtype.name)
    (raw,) = pack_tensors([(each,) for each in values], [spec])
    assert raw == values.astype(values.dtype.newbyteorder("<")).tobytes()
    back = unpack_tensors([raw], [spec], num_samples=3)
    for array, (again,) in zip(values, back, strict=True):
        np.testing.assert_array_equal(array, again)


def test_a_tensor_of_another_shape_is_refused() -> None:
    spec = TensorSpec(name="boxes", shape=(1, 4), dtype="float32")
    with pytest.raises(BundleError) as caught:
        pack_tensors([(np.zeros((1, 5), dtype=np.float32),)], [spec])
    assert caught.value.message == (
        "golden tensor 'boxes': expected float32 of shape (1, 4), as the signature says, but got "
        "float32 of shape (1, 5)"
    )


def test_tensors_of_another_size_or_number_are_refused() -> None:
    golden, signature = digits_golden(), digits_model().signature
    check_golden(golden, signature)
    with pytest.raises(BundleError) as caught:
        check_golden(replace(golden, host=(golden.host[0][:-1],)), signature)
    assert caught.value.message == "golden tensor 'output_0': expected 160 bytes, but got 159"
    with pytest.raises(BundleError) as caught:
        check_golden(replace(golden, reference=()), signature)
    assert caught.value.message == "expected 1 golden reference outputs, but got 0"
