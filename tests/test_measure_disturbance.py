"""What other work took from launches."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from edgepack.measure.disturbance import (
    Disturbance,
    find_disturbances,
    mark,
    measure_disturbance,
)
from edgepack.measure.launch import Conditions, LatencyLaunch
from edgepack.measure.record import make_measurement
from edgepack.measure.validity import VerdictName
from edgepack.report.measured import summarize_measurement
from tests.fixtures.measure import make_launch
from tests.fixtures.measured import make_measured

MIB = 2**20


def disturbed(
    *,
    stolen_ns: int = 0,
    others_ns: int = 0,
    wait_ns: int = 0,
    stall_ns: int = 0,
    swapped_bytes: int = 0,
) -> LatencyLaunch:
    """A launch of a second, held to two cores, before which the counters stood somewhere."""
    launch = make_launch(
        [100_000_000] * 10,
        before=Conditions(
            stolen_ns=5, busy_ns=6, quota_wait_ns=8, memory_stall_ns=7, swapped_bytes=9
        ),
        after=Conditions(
            stolen_ns=5 + stolen_ns,
            busy_ns=6 + 10**9 + others_ns,
            quota_wait_ns=8 + wait_ns,
            memory_stall_ns=7 + stall_ns,
            swapped_bytes=9 + swapped_bytes,
        ),
    )
    return replace(launch, num_cores=2)


def test_shares_are_of_the_cores_and_of_the_time() -> None:
    launch = disturbed(stolen_ns=200_000_000, stall_ns=30_000_000, swapped_bytes=3 * MIB)
    assert measure_disturbance([launch], num_threads=2) == Disturbance(
        stolen=0.1, others=0.0, quota_wait=0.0, memory_stall=0.03, swap_bytes_per_second=3 * MIB
    )
    assert measure_disturbance([launch, disturbed()], num_threads=1) == Disturbance(
        stolen=0.1, others=0.0, quota_wait=0.0, memory_stall=0.015, swap_bytes_per_second=1.5 * MIB
    )


@pytest.mark.parametrize(
    "key", ["stolen_ns", "busy_ns", "quota_wait_ns", "memory_stall_ns", "swapped_bytes"]
)
def test_what_is_not_told_is_unknown_and_no_disturbance(key: str) -> None:
    launch = disturbed(
        stolen_ns=10**9,
        others_ns=2 * 10**9,
        wait_ns=10**9,
        stall_ns=10**9,
        swapped_bytes=99 * MIB,
    )
    unknown: dict[str, Any] = {key: None}
    zero: dict[str, Any] = {key: 0}
    silent = replace(launch, after=replace(launch.after, **unknown))
    backwards = replace(launch, after=replace(launch.after, **zero))
    for each in (silent, backwards):
        found = measure_disturbance([launch, each], num_threads=1)
        assert list(asdict(found).values()).count(None) == 1
        assert len(mark(each, num_threads=1)) == 4
        assert len(list(find_disturbances([each], num_threads=1))) == 4


def test_other_programs_count_only_on_the_cores_the_threads_need() -> None:
    launch = disturbed(others_ns=1_080_000_000)
    assert measure_disturbance([launch], num_threads=1).others == pytest.approx(1.08)
    assert mark(launch, num_threads=1) == ()  # one of the two cores is left to it
    assert mark(launch, num_threads=2) == ("other programs had 1.1 of 2 cores",)
    assert mark(launch, num_threads=4) == mark(launch, num_threads=2)
    assert mark(disturbed(others_ns=190_000_000), num_threads=2) == ()
    assert mark(replace(launch, num_cores=None), num_threads=2) == ()
    # Work is counted in steps of 10 ms, which say nothing of a short launch.
    short = replace(launch, wall_ns=40_000_000, cpu_ns=40_000_000)
    assert measure_disturbance([short], num_threads=2).others is None


@pytest.mark.parametrize(
    ("bad", "good", "said", "marked"),
    [
        (
            disturbed(stolen_ns=250_000_000),
            disturbed(stolen_ns=90_000_000),
            (
                "2 of 6 launches lost 10% or more of their cores' time to other virtual machines "
                "(up to 25%): measure when their host is quiet, or on a machine of its own"
            ),
            "lost 25% to other virtual machines",
        ),
        (
            disturbed(others_ns=1_200_000_000),
            disturbed(others_ns=1_050_000_000),
            (
                "other programs had up to 1.2 cores of the 2 that the model may run on, in 2 of 6 "
                "launches: stop them, or hold them to other cores"
            ),
            "other programs had 1.2 of 2 cores",
        ),
        (
            # Four threads at half the time they want: each has a core's time, and none is wanting.
            disturbed(wait_ns=1_970_000_000),
            disturbed(wait_ns=90_000_000),
            (
                "a quota of processor time stopped threads in 2 of 6 launches (for up to 1.97 s of "
                "each second, all threads together): raise it (CPUQuota of the unit, --cpus of the "
                "container), or measure outside of it"
            ),
            "a quota stopped its threads for 1.97 s of each second",
        ),
        (
            disturbed(stall_ns=61_000_000),
            disturbed(stall_ns=40_000_000),
            (
                "programs waited for memory for 5% or more of the time in 2 of 6 launches (up to "
                "6%): stop other programs, or choose a smaller variant"
            ),
            "waited for memory for 6% of the time",
        ),
        (
            disturbed(swapped_bytes=12 * MIB),
            disturbed(swapped_bytes=MIB - 1),
            (
                "memory was swapped in 2 of 6 launches (up to 12 MiB/s): stop other programs, "
                "choose a smaller variant, or turn swap off (swapoff -a)"
            ),
            "swapped 12 MiB/s",
        ),
    ],
)
def test_too_much_is_contended_with_what_to_do(
    bad: LatencyLaunch, good: LatencyLaunch, said: str, marked: str
) -> None:
    given = make_measured()

    def judged(launches: list[LatencyLaunch]) -> tuple[VerdictName, tuple[str, ...]]:
        found = make_measurement(
            device_name=given.device_name,
            device=given.device,
            model=given.model,
            engine=given.engine,
            plan=given.plan,
            fitted_plan=given.fitted_plan,
            launches=tuple(launches),
            golden=given.golden,
            before=given.before,
            after=given.after,
        )
        assert [bool(each) for each in found.validity.marks] == [each is bad for each in launches]
        if bad in launches:
            assert found.validity.marks[1] == (marked,)
        return found.validity.verdict, found.validity.reasons

    assert judged([good, bad, good, good, bad, good]) == (VerdictName.CONTENDED, (said,))
    assert judged([good] * 6) == (VerdictName.VALID, ())


def test_the_report_tells_what_was_lost() -> None:
    given = make_measured()
    launch = disturbed(stolen_ns=12_000_000, swapped_bytes=MIB // 2)
    plan = replace(given.plan, min_runs=len(launch.samples_ns))
    shown = summarize_measurement(replace(given, plan=plan, launches=(launch,) * 6))
    (row,) = (each for each in shown.conditions if each.is_throughout)
    assert (row.name, row.before) == (
        "Lost while timed",
        (
            "1.2% of its cores' time to other virtual machines, 0.0% of the time to waits for "
            "memory, 512 KiB a second were swapped"
        ),
    )
    launch = disturbed(others_ns=130_000_000, wait_ns=20_000_000)
    shown = summarize_measurement(replace(given, plan=plan, launches=(launch,) * 6))
    (row,) = (each for each in shown.conditions if each.is_throughout)
    assert "0.13 cores to other programs, 0.02 s of each second to a quota" in row.before
    assert not any(each.is_throughout for each in summarize_measurement(given).conditions)
