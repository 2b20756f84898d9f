"""What a plan had no room for is said, with the time that has room for it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.measure.plan import BenchmarkPlan, fit_plan
from edgepack.measure.record import parse_measurement, to_json
from edgepack.measure.shortfall import find_shortfall
from edgepack.report.measured import summarize_measurement
from tests.fixtures.measure import make_launch
from tests.fixtures.measured import make_measured

SECOND = 10**9


def carry_out(plan: BenchmarkPlan, run_ns: int, *, share: float = 1.0) -> str | None:
    """Give what is said of a plan that a model of even runs carries out as the runner does."""
    part = replace(plan, max_seconds=plan.max_seconds * share)
    fitted = fit_plan(part, run_ns=run_ns, spent_ns=2 * run_ns)
    warmup = max(fitted.warmup_runs, int(fitted.warmup_seconds * SECOND / run_ns))
    room = int(fitted.launch_seconds * SECOND / run_ns) - 1 - warmup
    runs = max(1, min(room, max(fitted.min_runs, int(plan.min_seconds * SECOND / run_ns) + 1)))
    launch = replace(make_launch([run_ns] * runs), first_ns=run_ns, num_warmup_runs=warmup)
    launches = [launch] * fitted.num_launches
    return find_shortfall(plan, launches, fitted=fitted, has_failed=False)


@pytest.mark.parametrize(
    ("plan", "run_seconds", "said"),
    [
        (BenchmarkPlan(), 0.02, None),
        (
            BenchmarkPlan(min_runs=500, min_seconds=0),
            0.02,
            "of 500 runs a launch only 273 fit into 60 s: give --max-seconds 120",
        ),
        (
            BenchmarkPlan(num_launches=20, min_runs=50, min_seconds=0),
            0.4,
            (
                "of 20 launches and 50 runs a launch only 6 and 18 fit into 60 s: give "
                "--max-seconds 500"
            ),
        ),
        (
            BenchmarkPlan(),
            0.1,
            "of 64 runs a launch only 53 fit into 60 s: give --max-seconds 80",
        ),
        (
            BenchmarkPlan(num_launches=60, min_runs=10),
            0.005,
            "of 60 launches only 6 fit into 60 s: give --max-seconds 100",
        ),
        (
            BenchmarkPlan(num_launches=6, min_seconds=2, max_seconds=12),
            0.005,
            "of 2 s a launch only 1.5 s fit into 12 s: give --max-seconds 20",
        ),
        (
            BenchmarkPlan(max_seconds=86_000),
            3600.0,
            "of 10 launches and 64 runs a launch only 6 and 2 fit into 86000 s",
        ),
    ],
)
def test_what_was_left_out_is_said(
    plan: BenchmarkPlan, run_seconds: float, said: str | None
) -> None:
    assert carry_out(plan, int(run_seconds * SECOND)) == said


@settings(max_examples=200, deadline=None)
@given(
    run_ns=st.integers(min_value=1_000_000, max_value=5 * SECOND),
    launches=st.integers(min_value=1, max_value=40),
    runs=st.integers(min_value=1, max_value=1000),
    share=st.sampled_from([0.5, 1.0]),
)
def test_the_time_that_is_named_has_room_for_all(
    run_ns: int, launches: int, runs: int, share: float
) -> None:
    plan = BenchmarkPlan(num_launches=launches, min_runs=runs, min_seconds=0.0)
    said = carry_out(plan, run_ns, share=share)
    found = re.search(r"--max-seconds (\d+)$", said or "")
    if found is not None:
        longer = replace(plan, max_seconds=float(found[1]))
        assert carry_out(longer, run_ns, share=share) is None


def test_launches_that_are_left_out_for_a_failure_are_not_cut_to_fit() -> None:
    found = make_measured()
    plan = replace(found.plan, num_launches=20)
    assert find_shortfall(plan, found.launches, fitted=plan, has_failed=True) is None
    assert find_shortfall(plan, found.launches, fitted=plan, has_failed=False) is not None


@pytest.mark.parametrize("num_runs", [40, 50])
def test_the_result_says_it_wherever_it_is_shown(num_runs: int) -> None:
    found = make_measured()
    measurement = replace(found, plan=replace(found.plan, min_runs=num_runs))
    said = "of 50 runs a launch only 40 fit into 60 s: give --max-seconds 65"
    expected = None if num_runs == 40 else said
    table = to_json(measurement)
    assert table["shortfall"] == expected
    assert parse_measurement(table).shortfall == expected
    rows = {each.name: each.before for each in summarize_measurement(measurement).conditions}
    assert rows.get("Cut to fit") == expected
