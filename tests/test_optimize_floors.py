"""Floors judged on figures and on the ends of their intervals."""

from dataclasses import replace

import pytest

from edgepack.errors import UsageError
from edgepack.fidelity import Fidelity, MetricFidelity, OutputFidelity
from edgepack.optimize.judging.findings import Finding, FindingKind, Severity
from edgepack.optimize.judging.floors import Floors, judge, settle_floors

OUTPUT = OutputFidelity(
    output="y",
    sqnr_db=23.0,
    sqnr_ci95_db=(19.4, 26.6),
    max_abs_error=0.1,
    cosine=1.0,
    top1_agreement=0.95,
    top1_agreement_ci95=(0.871, 0.982),
)
FIDELITY = Fidelity(outputs=(OUTPUT,), num_samples=72)
CONFIDENT = Floors(is_confident=True)


def test_a_figure_may_reach_its_floor_and_its_interval_not() -> None:
    assert judge(FIDELITY, Floors()) == ()
    assert judge(FIDELITY, CONFIDENT) == (
        (
            "output 'y': SQNR 23.0 dB (95%: 19.4 to 26.6): with 72 samples it is not shown to "
            "reach 20 dB"
        ),
        (
            "output 'y': top-1 agreement 95.0% (95%: 87.1 to 98.2): with 72 samples it is not "
            "shown to reach 90%"
        ),
    )
    assert judge(FIDELITY, replace(CONFIDENT, min_sqnr_db=19.0, min_agreement=0.87)) == ()


def test_what_has_no_interval_cannot_be_shown() -> None:
    single = Fidelity(outputs=(replace(OUTPUT, sqnr_ci95_db=None),), num_samples=1)
    assert judge(single, CONFIDENT)[0] == (
        "output 'y': SQNR 23.0 dB: with 1 sample it is not shown to reach 20 dB"
    )


def test_lost_accuracy_is_judged_on_its_interval_s_upper_end() -> None:
    lost = replace(FIDELITY, accuracy=0.93, drop_points=0.5, drop_points_ci95=(-1.2, 2.2))
    assert judge(lost, Floors(max_drop=1.0)) == ()
    assert judge(lost, Floors(max_drop=1.0, is_confident=True)) == (
        (
            "accuracy 93.0% is 0.5 points below the float model's (95%: -1.2 to 2.2): with 72 "
            "samples it is not shown to lose at most 1"
        ),
    )


def test_the_user_s_metric_stands_in_place_of_the_other_floors() -> None:
    metric = MetricFidelity(
        name="score.py:f1", reference=0.92, candidate=0.9, drop_ci95=(0.005, 0.035)
    )
    judged = replace(FIDELITY, metric=metric)
    assert judge(judged, Floors(max_drop=0.03, min_sqnr_db=200.0)) == ()
    assert judge(judged, Floors(max_drop=0.01)) == (
        (
            "metric score.py:f1: 0.9 is 0.02 below the float model's 0.92 (95%: 0.005 to 0.035), "
            "above 0.01"
        ),
    )
    assert judge(judged, Floors(max_drop=0.03, is_confident=True)) == (
        (
            "metric score.py:f1: 0.9 is 0.02 below the float model's 0.92 (95%: 0.005 to 0.035): "
            "with 72 samples it is not shown to lose at most 0.03"
        ),
    )
    broken = replace(FIDELITY, metric=replace(metric, candidate=None))
    assert judge(broken, Floors(max_drop=0.1)) == ("metric score.py:f1 gives no finite number",)


def test_a_drop_needs_something_to_drop() -> None:
    with pytest.raises(UsageError, match="without labels there is no accuracy"):
        judge(FIDELITY, Floors(max_drop=1.0))


def test_faults_put_a_variant_outside_and_warnings_do_not() -> None:
    fault = Finding(
        kind=FindingKind.CONSTANT,
        severity=Severity.FAULT,
        text="output 'y' is 0 everywhere",
        remedy="Choose another recipe",
    )
    warning = replace(fault, severity=Severity.WARNING)
    assert judge(FIDELITY, Floors(), findings=(fault, warning)) == ("output 'y' is 0 everywhere",)
    # NaN is told with its count already.
    nan = replace(fault, kind=FindingKind.NON_FINITE)
    assert judge(FIDELITY, Floors(), findings=(nan,)) == ()


def test_labels_make_accuracy_the_floor_where_nothing_was_asked() -> None:
    plain = Floors(is_default=True)
    assert settle_floors(plain, has_labels=True).max_drop == 1.0
    assert settle_floors(plain, has_labels=False).max_drop is None
    asked = Floors(min_sqnr_db=30.0)
    assert settle_floors(asked, has_labels=True) == asked
