"""What the figures of few samples say of other samples."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.comparison import ratio_db, ratio_interval_db
from edgepack.fidelity import Fidelity, MetricFidelity, compare_outputs, parse_fidelity, to_json
from edgepack.shares import (
    clustered_interval,
    jackknife_interval,
    t_quantile,
    wilson_interval,
)

_sums = st.lists(st.tuples(st.floats(0.0, 1e6), st.floats(0.0, 1e6)), min_size=2, max_size=20).map(
    lambda pairs: np.array(pairs).T
)


def test_the_quantile_of_student_s_t_is_that_of_the_tables() -> None:
    # Abramowitz and Stegun, table 26.10.
    for freedom, value in ((1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042)):
        assert t_quantile(freedom) == pytest.approx(value, rel=1e-3)
    assert t_quantile(10**6) == pytest.approx(1.96, abs=1e-3)


def test_the_jackknife_of_a_mean_is_its_usual_interval() -> None:
    values = [3.0, 5.0, 4.0, 8.0]
    left_out = [(sum(values) - each) / 3 for each in values]
    half = t_quantile(3) * float(np.std(values, ddof=1)) / math.sqrt(4)
    assert jackknife_interval(5.0, left_out) == pytest.approx((5.0 - half, 5.0 + half))


def test_one_sample_has_no_interval() -> None:
    assert jackknife_interval(1.0, [2.0]) is None
    array = np.ones((1, 2, 2, 1))
    fidelity = compare_outputs([[array]], [[array * 1.1]], names=("y",))
    assert fidelity.outputs[0].sqnr_ci95_db is None


@given(_sums)
def test_the_sqnr_is_inside_its_interval_and_both_within_the_limits(sums: np.ndarray) -> None:
    interval = ratio_interval_db(sums[0], sums[1])
    assert interval is not None
    low, high = interval
    assert -300.0 <= low <= ratio_db(float(sums[0].sum()), float(sums[1].sum())) <= high <= 300.0


def test_samples_that_differ_widen_the_interval_of_the_sqnr() -> None:
    reference = [[np.full((1, 4, 4, 1), 10.0)] for _ in range(12)]
    even = [[each[0] + 1.0] for each in reference]
    uneven = [[each[0] + (math.sqrt(12.0) if i == 3 else 0.0)] for i, each in enumerate(reference)]
    first, second = (compare_outputs(reference, each, names=("y",)) for each in (even, uneven))
    assert first.sqnr_db == pytest.approx(second.sqnr_db) == pytest.approx(20.0)
    assert first.outputs[0].sqnr_ci95_db == pytest.approx((20.0, 20.0))
    low, high = second.outputs[0].sqnr_ci95_db or (0.0, 0.0)
    assert low < 0.0
    assert high > 40.0


def test_every_class_output_has_an_interval_of_its_own() -> None:
    same, other = np.array([[0.1, 0.9]]), np.array([[0.9, 0.1]])
    fidelity = compare_outputs(
        [[same, same], [same, same]], [[same, same], [same, other]], names=("a", "b")
    )
    assert [output.top1_agreement_ci95 for output in fidelity.outputs] == [
        wilson_interval(2, 2),
        wilson_interval(1, 2),
    ]


def test_pixels_of_one_picture_are_not_independent() -> None:
    reference = [(np.zeros((1, 100), np.int32),) for _ in range(8)]
    # One picture wholly wrong says as much as one of eight labels, and no more.
    wrong = [(np.full((1, 100), i == 0, np.int32),) for i in range(8)]
    fidelity = compare_outputs(reference, wrong, names=("mask",))
    assert fidelity.top1_agreement == 7 / 8
    assert fidelity.top1_agreement_ci95 == pytest.approx(wilson_interval(7, 8))
    # Single pixels that are wrong everywhere say more.
    specks = [(np.eye(1, 100, i, dtype=np.int32),) for i in range(8)]
    fidelity = compare_outputs(reference, specks, names=("mask",))
    assert fidelity.top1_agreement_ci95 == pytest.approx(wilson_interval(792, 800))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_a_clustered_interval_holds_the_share_and_is_between_both_extremes(
    pairs: list[tuple[int, int]],
) -> None:
    right, sizes = [a for a, _ in pairs], [a + b for a, b in pairs]
    low, high = clustered_interval(right, sizes)
    assert 0.0 <= low <= high <= 1.0
    if total := sum(sizes):
        narrow = wilson_interval(sum(right), total)
        assert low <= sum(right) / total <= high
        assert low <= narrow[0] + 1e-9
        assert high >= narrow[1] - 1e-9


def test_intervals_and_the_metric_travel_as_json() -> None:
    rng = np.random.default_rng(1)
    reference = [[rng.normal(size=(1, 5))] for _ in range(6)]
    plain = compare_outputs(reference, [[each[0] * 1.01] for each in reference], names=("y",))
    fidelity = Fidelity(
        outputs=plain.outputs,
        num_samples=6,
        metric=MetricFidelity(
            name="score.py:f1", reference=0.91, candidate=0.9, drop_ci95=(-0.01, 0.03)
        ),
    )
    assert fidelity.metric is not None
    assert fidelity.metric.drop == pytest.approx(0.01)
    assert parse_fidelity(json.loads(json.dumps(to_json(fidelity), allow_nan=False))) == fidelity
