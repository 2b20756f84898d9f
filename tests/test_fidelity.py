import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepack.errors import DataError, ModelError
from edgepack.fidelity import (
    LIMIT_DB,
    Fidelity,
    compare_outputs,
    paired_drop_interval,
    parse_fidelity,
    sqnr_db,
    to_json,
    wilson_interval,
)
from edgepack.fidelity.channels import find_channel_axes

_arrays = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e3, 1e3, width=32)
)


def test_sqnr_is_the_power_of_the_reference_over_that_of_the_difference() -> None:
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)
    assert sqnr_db(np.array([10.0]), np.array([9.0])) == pytest.approx(20.0)


def test_noise_is_summed_over_all_samples_and_not_averaged_in_db() -> None:
    reference = [[np.array([[10.0]])], [np.array([[0.0]])]]
    candidate = [[np.array([[10.0]])], [np.array([[1.0]])]]
    fidelity = compare_outputs(reference, candidate, names=("y",))
    assert fidelity.outputs[0].sqnr_db == pytest.approx(20.0)


def test_equal_outputs_read_300_db_even_with_masks_of_infinity_and_nan() -> None:
    array = np.array([1.0, -np.inf, np.nan, 0.0])
    assert sqnr_db(array, array.copy()) == 300.0


def test_a_nan_in_the_candidate_reads_minus_300_db_and_is_counted() -> None:
    fidelity = compare_outputs(
        [[np.array([1.0, 2.0, 3.0])]], [[np.array([1.0, np.nan, np.inf])]], names=("y",)
    )
    assert fidelity.sqnr_db == -300.0
    assert fidelity.outputs[0].num_non_finite == 2
    json.dumps(to_json(fidelity), allow_nan=False)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5,), ()),
        ((1, 10), (1,)),
        ((1, 84, 8400), (1,)),
        ((1, 8400, 84), (2,)),
        ((1, 1, 1000), (2,)),
        ((1, 100, 1), ()),
        ((1, 60, 80), (1, 2)),
        ((1, 2, 2, 3), (3,)),
        ((1, 3, 320, 320), (1,)),
        ((1, 1, 320, 320), ()),
        ((1, 3, 80, 80, 85), (4,)),
    ],
)
def test_channels_are_found_in_either_layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    assert find_channel_axes(shape) == axes


def test_the_worst_channel_is_told_and_silent_channels_do_not_count() -> None:
    reference = np.zeros((1, 2, 2, 3))
    reference[..., 0], reference[..., 1] = 10.0, 10.0
    candidate = reference.copy()
    candidate[..., 1] += 1.0
    candidate[..., 2] += 0.1
    output = compare_outputs([[reference]], [[candidate]], names=("map",)).outputs[0]
    assert (output.worst_channel, output.worst_channel_axis) == (1, 3)
    assert output.worst_channel_sqnr_db == pytest.approx(20.0)


@pytest.mark.parametrize("is_last", [False, True])
def test_lost_scores_show_in_a_detector_of_either_layout(is_last: bool) -> None:  # noqa: FBT001 - pytest fills it
    # Channels 0 to 3 are boxes of 0 to 640, the others scores: one step of 8 bits is 2.5.
    rng = np.random.default_rng(3)
    samples = []
    for _ in range(2):
        boxes, scores = rng.uniform(0, 640, (1, 4, 900)), rng.uniform(0.01, 1, (1, 6, 900))
        array = np.concatenate([boxes, scores], axis=1)
        samples.append(array.transpose(0, 2, 1) if is_last else array)
    step = 640 / 255
    candidate = [[np.round(each / step) * step] for each in samples]
    output = compare_outputs([[each] for each in samples], candidate, names=("y",)).outputs[0]
    assert output.sqnr_db > 40
    assert output.worst_channel_axis == (2 if is_last else 1)
    assert output.worst_channel is not None
    assert output.worst_channel >= 4
    assert output.worst_channel_sqnr_db == pytest.approx(0.0)


def test_where_either_axis_may_hold_channels_the_worse_one_is_told() -> None:
    reference = np.ones((1, 6, 8))
    candidate = reference.copy()
    candidate[0, 2] += 1.0
    output = compare_outputs([[reference]], [[candidate]], names=("y",)).outputs[0]
    assert (output.worst_channel, output.worst_channel_axis) == (2, 1)
    assert output.worst_channel_sqnr_db == pytest.approx(0.0)


def test_agreement_is_of_the_class_output_that_agrees_least() -> None:
    same = np.array([[0.1, 0.9]])
    other = np.array([[0.9, 0.1]])
    fidelity = compare_outputs(
        [[same, same], [same, same]], [[same, same], [same, other]], names=("a", "b")
    )
    assert [output.top1_agreement for output in fidelity.outputs] == [1.0, 0.5]
    assert fidelity.top1_agreement == 0.5
    assert fidelity.top1_agreement_ci95 == wilson_interval(1, 2)


@pytest.mark.parametrize("shape", [(1, 1), (5,), (1, 4, 4, 2)])
def test_outputs_without_classes_have_no_agreement(shape: tuple[int, ...]) -> None:
    array = np.ones(shape)
    assert compare_outputs([[array]], [[array]], names=("y",)).top1_agreement is None


def test_labels_give_accuracies_and_a_paired_drop() -> None:
    eye = np.eye(4)
    reference = [[eye[None, i % 4]] for i in range(8)]
    candidate = [[eye[None, (i + (i == 5)) % 4]] for i in range(8)]
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 0])
    fidelity = compare_outputs(reference, candidate, names=("y",), labels=labels)
    assert fidelity.reference_accuracy == 7 / 8
    assert fidelity.accuracy == 6 / 8
    assert fidelity.drop_points == pytest.approx(12.5)
    low, high = fidelity.drop_points_ci95 or (0.0, 0.0)
    assert low < 0
    assert high > 12.5  # one sample in eight proves nothing


def test_labels_outside_the_classes_are_refused() -> None:
    array = np.array([[0.0, 1.0]])
    with pytest.raises(DataError) as caught:
        compare_outputs([[array]], [[array]], names=("y",), labels=np.array([7]))
    assert caught.value.message == (
        "expected labels from 0 to 1, as the model has 2 classes, but they reach from 7 to 7"
    )


def test_labels_without_a_class_output_are_refused() -> None:
    array = np.zeros((1, 2, 2, 1))
    with pytest.raises(DataError, match="no output has the shape"):
        compare_outputs([[array]], [[array]], names=("y",), labels=np.array([0]))


def test_another_shape_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        compare_outputs([[np.zeros((1, 3))]], [[np.zeros((3,))]], names=("y",))
    assert caught.value.message == (
        "the outputs cannot be compared: output 'y': expected shape (1, 3), but got (3,)"
    )


def test_wilson_interval_matches_published_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_interval_holds_the_share(successes: int, failures: int) -> None:
    trials = successes + failures
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= high <= 1.0
    if trials:
        assert low <= successes / trials <= high


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_the_paired_interval_is_antisymmetric(lost: int, gained: int, kept: int) -> None:
    trials = lost + gained + kept
    low, high = paired_drop_interval(lost, gained, trials)
    mirrored = paired_drop_interval(gained, lost, trials)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]))
    assert -1.0 <= low <= high <= 1.0


@given(_arrays, st.floats(0.125, 8.0), st.floats(-1.0, 1.0))
def test_sqnr_does_not_depend_on_scale(array: np.ndarray, scale: float, shift: float) -> None:
    candidate = array + np.float32(shift)
    first = sqnr_db(array, candidate)
    second = sqnr_db(array.astype(np.float64) * scale, candidate.astype(np.float64) * scale)
    assert second == pytest.approx(first, abs=1e-6)
    assert -300.0 <= first <= 300.0
    assert not math.isnan(first)


@given(_arrays, _arrays, st.booleans())
def test_json_gives_the_same_fidelity_back(
    first: np.ndarray,
    second: np.ndarray,
    has_labels: bool,  # noqa: FBT001 - Hypothesis fills it
) -> None:
    candidate = first + np.resize(second, first.shape)
    labels = np.zeros(1, np.int64) if has_labels and first.shape[:1] == (1,) else None
    is_class = first.ndim == 2 and first.shape[1] > 1
    fidelity = compare_outputs(
        [[first]], [[candidate]], names=("y",), labels=labels if is_class else None
    )
    text = json.dumps(to_json(fidelity), allow_nan=False)
    assert parse_fidelity(json.loads(text)) == fidelity


def test_a_changed_record_lists_all_faults() -> None:
    array = np.ones((1, 2))
    table = to_json(compare_outputs([[array]], [[array]], names=("y",)))
    table |= {"top1_agreement": 2, "drop_points_ci95": [3, 1], "spam": 1}
    with pytest.raises(DataError) as caught:
        parse_fidelity(table)
    assert caught.value.message.splitlines() == [
        "fidelity: 3 faults",
        "  - top1_agreement: expected at most 1.0, not 2.0",
        "  - drop_points_ci95: expected two numbers in order, not a list ([3, 1])",
        (
            "  - spam: unknown key; known: accuracy, accuracy_ci95, drop_points, "
            "drop_points_ci95, metric, num_samples, outputs, reference_accuracy, sqnr_db, "
            "top1_agreement, top1_agreement_ci95"
        ),
    ]


def test_the_model_is_as_near_as_its_worst_output() -> None:
    fidelity = compare_outputs(
        [[np.array([10.0]), np.array([10.0])]],
        [[np.array([10.0]), np.array([9.0])]],
        names=("a", "b"),
    )
    assert isinstance(fidelity, Fidelity)
    assert fidelity.sqnr_db == pytest.approx(20.0)


def test_outputs_without_a_finite_value_are_not_called_equal() -> None:
    nothing = np.full((1, 3), np.nan, np.float32)
    assert sqnr_db(nothing, nothing) == -LIMIT_DB
    masked = np.array([[1.0, -np.inf, np.nan]], np.float32)
    assert sqnr_db(masked, masked) == LIMIT_DB
    empty = np.zeros((1, 0), np.float32)
    assert sqnr_db(empty, empty) == LIMIT_DB
