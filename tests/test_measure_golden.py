import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.bundle.golden import Golden
from edgepack.errors import BundleError
from edgepack.measure.golden import GoldenVerdict, judge_golden, read_verdict, to_json
from edgepack.model import Quantization, Signature, TensorSpec

FLOATS = Signature(inputs=(), outputs=(TensorSpec(name="scores", shape=(1, 8), dtype="float32"),))
INTEGERS = Signature(
    inputs=(),
    outputs=(
        TensorSpec(
            name="scores",
            shape=(1, 8),
            dtype="int8",
            quantization=Quantization(scales=(0.5,), zero_points=(-10,)),
        ),
    ),
)
REFERENCE = np.linspace(-4, 4, 16, dtype=np.float32)


def noise(decibels: float) -> np.ndarray:
    """Values that are `decibels` away from the reference."""
    return (REFERENCE * (1 + 10 ** (-decibels / 20))).astype(np.float32)


def judge(
    host: np.ndarray, device: np.ndarray, *, is_quantized: bool, signature: Signature = FLOATS
) -> GoldenVerdict:
    reference = REFERENCE if signature is FLOATS else host
    golden = Golden(
        num_samples=2,
        inputs=(),
        reference=(reference.tobytes(),),
        host=(host.tobytes(),),
    )
    return judge_golden(golden, [device.tobytes()], signature=signature, is_quantized=is_quantized)


def test_a_float_variant_needs_60_db_to_the_host() -> None:
    near = judge(REFERENCE, noise(61), is_quantized=False)
    assert near.passed
    assert near.reasons == ()
    assert near.sqnr_to_host_db == pytest.approx(61, abs=0.1)
    assert near.max_abs_error == pytest.approx(4 * 10 ** (-61 / 20), rel=0.01)
    far = judge(REFERENCE, noise(59), is_quantized=False)
    assert not far.passed
    assert far.reasons == (
        "output 'scores': 59.0 dB to the host's answers, needs 60 dB (largest difference 0.00449)",
    )


def test_a_quantized_variant_may_differ_by_roundings() -> None:
    assert judge(noise(25), noise(23), is_quantized=True).passed
    far = judge(noise(25), noise(21), is_quantized=True)
    assert far.reasons == (
        "output 'scores': 21.0 dB to the float model, needs 22.0 dB (25.0 dB on the host less 3)",
    )


def test_a_quantized_variant_must_stay_near_the_host_too() -> None:
    # As near to the float model as on the host, but on the other side of it.
    other = (2 * REFERENCE - noise(15)).astype(np.float32)
    result = judge(noise(15), other, is_quantized=True)
    assert [reason.split(",")[0] for reason in result.reasons] == [
        "output 'scores': 10.4 dB to the host's answers"
    ]


def test_a_variant_that_is_better_on_the_device_passes() -> None:
    assert judge(noise(30), REFERENCE, is_quantized=True).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("is_quantized", [True, False])
def test_nan_fails_whatever_the_rest(value: float, is_quantized: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    device = REFERENCE.copy()
    device[3] = value
    result = judge(REFERENCE, device, is_quantized=is_quantized)
    assert result.reasons == ("output 'scores': 1 values are NaN or infinite on the device only",)


def test_answers_without_a_number_show_nothing() -> None:
    nothing = np.full(16, np.nan, np.float32)
    result = judge(nothing, nothing, is_quantized=False)
    assert result.reasons == ("output 'scores': no finite value to compare",)


def test_integers_are_compared_as_the_numbers_they_stand_for() -> None:
    host = np.arange(16, dtype=np.int8) - 10
    device = host.copy()
    device[5] += 1
    result = judge(host, device, is_quantized=True, signature=INTEGERS)
    assert result.max_abs_error == 0.5
    assert result.passed
    # The integers themselves are farther apart than their real values, by the zero point.
    shifted = judge(host, (host + 2).astype(np.int8), is_quantized=True, signature=INTEGERS)
    assert not shifted.passed


def test_answers_of_another_size_are_refused() -> None:
    with pytest.raises(BundleError, match="expected 64 bytes, but got 32"):
        judge(REFERENCE, REFERENCE[:8], is_quantized=False)


def test_a_verdict_survives_json() -> None:
    for verdict in (judge(REFERENCE, noise(40), is_quantized=False), None):
        fields = Fields(json.loads(json.dumps(to_json(verdict), allow_nan=False)))
        assert read_verdict(fields) == verdict
        assert not fields.faults
    assert to_json(None)["passed"] is None


def test_a_changed_verdict_is_refused() -> None:
    verdict = judge(REFERENCE, REFERENCE, is_quantized=False)
    table = to_json(replace(verdict, num_samples=0)) | {"more": 1}
    fields = Fields(table)
    read_verdict(fields)
    assert [fault.split(";")[0] for fault in fields.faults] == [
        "num_samples: expected at least 1, not 0",
        "more: unknown key",
    ]


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=64, max_size=64), st.booleans())
def test_any_answer_of_the_right_size_is_judged(data: bytes, is_quantized: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
    golden = Golden(
        num_samples=2,
        inputs=(),
        reference=(REFERENCE.tobytes(),),
        host=(REFERENCE.tobytes(),),
    )
    verdict = judge_golden(golden, [data], signature=FLOATS, is_quantized=is_quantized)
    assert verdict.passed == (not verdict.reasons)
    json.dumps(to_json(verdict), allow_nan=False)
