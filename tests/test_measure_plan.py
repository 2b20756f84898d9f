import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.errors import MeasureError
from edgepack.measure.plan import (
    BenchmarkPlan,
    check_plan,
    fit_plan,
    plan_from,
    read_plan,
    sustained_plan,
    to_json,
)
from edgepack.profile import BenchmarkDefaults

DEFAULT = BenchmarkPlan()
SECOND = 10**9


def duration(plan: BenchmarkPlan, run_seconds: float) -> float:
    """What a fitted plan's inferences take, as the runner carries it out."""
    limit = plan.launch_seconds
    warmup = min(max(plan.warmup_runs * run_seconds, plan.warmup_seconds), limit / 3 + run_seconds)
    timed = max(plan.min_runs * run_seconds, plan.min_seconds)
    return plan.num_launches * min(run_seconds + warmup + timed, limit + run_seconds)


def test_a_quick_model_keeps_the_plan() -> None:
    fitted = fit_plan(DEFAULT, run_ns=SECOND // 200)
    assert (fitted.num_launches, fitted.min_runs, fitted.warmup_runs) == (10, 64, 5)
    assert duration(fitted, 0.005) < 20


@pytest.mark.parametrize(
    ("affinity", "num_cores"), [(None, None), ("3", 1), ("4-7", 4), ("0-3,2,6", 5)]
)
def test_the_cores_it_is_held_to_are_counted(affinity: str | None, num_cores: int | None) -> None:
    assert BenchmarkPlan(cpu_affinity=affinity).num_held_cores == num_cores


@pytest.mark.parametrize(
    ("run_seconds", "launches", "runs"),
    [(0.05, 10, 64), (0.1, 10, 54), (0.3, 10, 14), (1.0, 6, 9), (3.0, 6, 2), (20.0, 1, 2)],
)
def test_a_slow_model_gives_up_runs_then_launches(
    run_seconds: float, launches: int, runs: int
) -> None:
    fitted = fit_plan(DEFAULT, run_ns=int(run_seconds * SECOND))
    assert (fitted.num_launches, fitted.min_runs) == (launches, runs)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(min_value=1, max_value=20 * SECOND),
    st.integers(min_value=0, max_value=15 * SECOND),
    st.integers(min_value=1, max_value=40),
)
def test_a_default_benchmark_ends_within_its_minute(run: int, spent: int, launches: int) -> None:
    plan = BenchmarkPlan(num_launches=launches)
    fitted = fit_plan(plan, run_ns=run, spent_ns=spent)
    check_plan(fitted)
    assert fitted.num_launches <= launches
    assert fitted.min_runs <= plan.min_runs
    assert fitted.max_samples >= fitted.min_runs
    assert fitted.max_seconds == pytest.approx(60 - spent / 1e9)
    # The last run of a launch may end past the launch's share; no launch by more than one run.
    assert duration(fitted, run / 1e9) <= fitted.max_seconds * 1.01 + 0.01


def test_six_launches_are_kept_as_long_as_they_fit() -> None:
    assert fit_plan(DEFAULT, run_ns=5 * SECOND).num_launches == 6
    assert fit_plan(DEFAULT, run_ns=6 * SECOND).num_launches == 5


def test_a_fitted_plan_holds_as_many_samples_as_runs_were_asked_for() -> None:
    fitted = fit_plan(BenchmarkPlan(min_runs=50_000, min_seconds=0), run_ns=5000)
    assert fitted.min_runs == 50_000
    assert fitted.max_samples == 50_000


def test_a_warm_up_goes_on_where_there_is_room_for_it_and_not_from_cold() -> None:
    assert fit_plan(DEFAULT, run_ns=SECOND // 10).is_settled
    assert not fit_plan(DEFAULT, run_ns=SECOND).is_settled  # one run of warm-up is left
    assert not sustained_plan(60, num_threads=1).is_settled


def test_a_profile_gives_its_plan() -> None:
    plan = plan_from(BenchmarkDefaults(num_launches=6, max_seconds=30), num_threads=4)
    assert (plan.num_launches, plan.max_seconds, plan.num_threads) == (6, 30, 4)


def test_an_impossible_plan_is_refused_with_all_its_faults() -> None:
    with pytest.raises(MeasureError) as caught:
        check_plan(BenchmarkPlan(num_launches=0, min_runs=0, max_seconds=float("nan")))
    assert caught.value.message == (
        "benchmark plan: 3 faults\n"
        "  - num_launches: expected at least 1, not 0\n"
        "  - min_runs: expected at least 1, not 0\n"
        "  - max_seconds: expected a finite number, not nan"
    )


def test_a_plan_survives_json() -> None:
    plan = BenchmarkPlan(num_launches=7, min_seconds=0.25, num_threads=2, precision=0.02)
    fields = Fields(to_json(plan))
    assert read_plan(fields) == plan
    assert not fields.faults
