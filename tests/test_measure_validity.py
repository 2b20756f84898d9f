import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.device.survey.state import DeviceState, unknown_state
from edgepack.measure.launch import Conditions, LatencyLaunch, Tick
from edgepack.measure.validity import Validity, VerdictName, judge, read_validity, to_json
from tests.fixtures.measure import make_launch

STEADY = [100_000, 101_000] * 20


def state(
    *,
    temperature: float | None = 50.0,
    governor: str | None = "performance",
    maximum: tuple[int, ...] | None = (1_800_000,),
    throttled: int | None = 0,
    load: float | None = 0.1,
) -> DeviceState:
    return DeviceState(
        temperature_c=temperature,
        governor=governor,
        frequency_khz=(1_800_000,),
        maximum_khz=maximum,
        throttled=throttled,
        load_1min=load,
        available_bytes=None,
        unavailable=(),
    )


def verdict(
    launches: list[LatencyLaunch],
    *,
    before: DeviceState | None = None,
    after: DeviceState | None = None,
    num_threads: int = 1,
    num_cores: int | None = 4,
    board: str | None = "Raspberry Pi 4 Model B Rev 1.4",
    is_sustained: bool = False,
) -> Validity:
    return judge(
        launches,
        before=before or state(),
        after=after or state(),
        num_threads=num_threads,
        num_cores=num_cores,
        board=board,
        is_sustained=is_sustained,
    )


def test_a_steady_run_is_valid() -> None:
    result = verdict([make_launch(STEADY)] * 6)
    assert result == Validity(verdict=VerdictName.VALID, reasons=(), marks=((),) * 6)


@pytest.mark.parametrize(("count", "said"), [(1, "1 launch is"), (5, "5 launches are")])
def test_fewer_launches_than_an_interval_needs_are_not_valid(count: int, said: str) -> None:
    result = verdict([make_launch(STEADY)] * count)
    assert result.verdict is VerdictName.NOISY
    assert result.reasons == (
        f"{said} too few to say how far off the median may be: time at least 6",
    )


def test_a_precision_that_cannot_be_told_is_not_reached() -> None:
    found = judge(
        [make_launch(STEADY)] * 3,
        before=state(),
        after=state(),
        num_threads=1,
        num_cores=4,
        precision=0.02,
    )
    assert found.reasons == (
        "3 launches are too few to say how far off the median may be: time at least 6",
        (
            "how well the median is known cannot be told, and ±2.00% was asked for: give more "
            "time (--max-seconds)"
        ),
    )


def test_a_varying_launch_is_noisy_and_marked() -> None:
    wild = make_launch([100_000, 130_000] * 20)
    result = verdict([make_launch(STEADY)] * 5 + [wild])
    assert result.verdict is VerdictName.NOISY
    assert result.reasons[0] == (
        "1 of 6 launches vary by 10% or more (up to 13% of the mean): stop other programs on the "
        "device, fix its governor to performance, and time more runs"
    )
    assert result.marks == ((), (), (), (), (), ("varies by 13%",))


def test_a_drifting_launch_is_noisy_and_marked() -> None:
    result = verdict([make_launch([100_000] * 20 + [105_000] * 20)] + [make_launch(STEADY)] * 5)
    assert result.verdict is VerdictName.NOISY
    assert result.reasons == (
        (
            "1 of 6 launches drift by more than 3% between their halves (furthest +5.0%): warm up "
            "longer, cool the device, and fix its governor to performance"
        ),
    )
    assert result.marks[0] == ("drifts by +5.0%",)


@pytest.mark.parametrize(
    ("is_steady", "said"),
    [
        (
            (True, True),
            (
                "they were steady before, so warm-up does not help: stop other programs, cool the "
                "device, "
            ),
        ),
        (
            (True, False),
            (
                "1 of their warm-ups did not become steady in a third of a launch's time, so give "
                "more of it (--max-seconds), cool the device, "
            ),
        ),
        ((True, None), "warm up longer, cool the device, "),
    ],
)
def test_what_helps_a_drifting_launch_is_told_by_its_warm_up(
    is_steady: Sequence[bool | None], said: str
) -> None:
    drifting = make_launch([100_000] * 20 + [105_000] * 20)
    launches = [replace(drifting, is_steady=each) for each in is_steady]
    (reason,) = verdict([*launches, *[make_launch(STEADY)] * 4]).reasons
    assert reason == (
        "2 of 6 launches drift by more than 3% between their halves (furthest +5.0%): "
        f"{said}and fix its governor to performance"
    )


def test_halves_of_a_few_runs_are_no_drift() -> None:
    assert verdict([make_launch([100_000, 105_000])] * 6).verdict is VerdictName.VALID


def test_launches_that_differ_are_noisy() -> None:
    launches = [make_launch([level * 1000] * 20) for level in (100, 101, 102, 103, 104, 120)]
    result = verdict(launches)
    assert result.verdict is VerdictName.NOISY
    assert result.reasons == (
        (
            "the launches' medians range over 20% of their median, more than 10%: measure with "
            "more launches on a device left alone"
        ),
    )


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (0, 0x50005, "under-voltage, throttled"),
        (0, 0x80000, "soft temperature limit"),
        (0x2, 0x2, "frequency capped"),
    ],
)
def test_throttle_flags_that_are_new_or_set_are_throttling(
    before: int, after: int, named: str
) -> None:
    result = verdict(
        [make_launch(STEADY)] * 6, before=state(throttled=before), after=state(throttled=after)
    )
    assert result.verdict is VerdictName.THROTTLED
    assert result.reasons == (
        f"the board reports {named}: use its own power supply, cool it, and measure again",
    )


def test_a_flag_from_before_the_measurement_is_not_held_against_it() -> None:
    old = state(throttled=0x50000)
    assert verdict([make_launch(STEADY)] * 6, before=old, after=old).reasons == ()


def test_flags_that_come_and_go_within_a_launch_are_throttling() -> None:
    def launch(*flags: int | None) -> LatencyLaunch:
        looks = [Conditions(throttled=each) for each in flags]
        ticks = tuple(Tick(sample=3, conditions=each) for each in looks[1:-1])
        return replace(make_launch(STEADY, before=looks[0], after=looks[-1]), ticks=ticks)

    steady = launch(0x50000, 0x50000, None, 0x50000)
    old = state(throttled=0x50000)
    assert verdict([steady] * 6, before=old, after=old).reasons == ()
    result = verdict([steady, launch(0x50000, 0x50004, 0x50000)] * 3, before=old, after=old)
    assert result.verdict is VerdictName.THROTTLED
    assert result.reasons == (
        "the board reports throttled: use its own power supply, cool it, and measure again",
    )
    assert result.marks == ((), ("throttled",)) * 3
    # It may be seen by the bit that stays only, and without `vcgencmd`.
    silent = state(throttled=None)
    result = verdict([launch(0, 0, 0x10000)] * 6, before=silent, after=silent)
    assert result.reasons[0].startswith("the board reports under-voltage:")


@pytest.mark.parametrize(
    ("before", "launches", "named"),
    [
        ("performance", ["performance", "powersave"], "performance and powersave"),
        ("performance", ["powersave"], "performance and powersave"),
        (None, ["ondemand", "schedutil"], "ondemand and schedutil"),
        ("performance", ["performance"], None),
        ("performance+schedutil", ["schedutil"], None),  # of the cores that it is held to
        ("performance", [None], None),
        (None, ["performance"], None),
    ],
)
def test_a_governor_that_changes_and_changes_back_is_told(
    before: str | None, launches: list[str | None], named: str | None
) -> None:
    looks = [Conditions(governor=each) for each in launches]
    device = state(governor=before)
    result = verdict(
        [make_launch(STEADY, before=each, after=each) for each in looks * 6][:6],
        before=device,
        after=device,
    )
    said = (
        f"the governor changed between {named} during the launches: find what sets it (a power "
        "daemon, heat), and fix the governor to performance"
    )
    assert result.reasons == ((said,) if named else ())


def test_a_clock_that_falls_is_throttling() -> None:
    full = make_launch(STEADY, after=Conditions(frequency_khz=1_500_000))
    slow = make_launch(STEADY, after=Conditions(frequency_khz=1_000_000))
    result = verdict([full] * 4 + [slow] * 2)
    assert result.verdict is VerdictName.THROTTLED
    assert result.reasons == (
        (
            "the clock fell from 1.50 to 1.00 GHz in 2 of 6 launches: cool the device, use its own "
            "power supply, and fix its governor to performance"
        ),
    )
    assert result.marks[4] == ("clock fell",)


@pytest.mark.parametrize(("num_low", "marks"), [(1, ()), (2, ()), (3, ("clock fell",))])
def test_a_clock_that_is_low_in_between_is_throttling(num_low: int, marks: tuple[str, ...]) -> None:
    full, low = Conditions(frequency_khz=1_500_000), Conditions(frequency_khz=1_000_000)
    ticks = tuple(Tick(sample=at, conditions=low if at < num_low else full) for at in range(8))
    launch = replace(make_launch(STEADY, before=full, after=full), ticks=ticks)
    result = verdict([launch] * 6)
    assert (result.verdict is VerdictName.THROTTLED) is bool(marks)
    assert result.marks[0] == marks
    assert "from 1.50 to 1.00 GHz in 6 of 6" in "".join(result.reasons) or not marks


def test_heat_in_between_counts() -> None:
    tick = Tick(sample=3, conditions=Conditions(temperature_c=83.4))
    result = verdict([replace(make_launch(STEADY), ticks=(tick,))] * 6)
    assert result.verdict is VerdictName.THROTTLED
    assert result.reasons == (
        (
            "the device reached 83 °C, where a Raspberry Pi slows down (80 °C): cool it, and "
            "measure again"
        ),
    )


@pytest.mark.parametrize("board", [None, "ThinkPad X1 Carbon Gen 9", "NVIDIA Jetson Orin Nano"])
def test_heat_alone_is_no_throttling_of_what_is_made_for_more(board: str | None) -> None:
    hot = make_launch(STEADY, after=Conditions(temperature_c=88.0, frequency_khz=3_900_000))
    assert verdict([hot] * 6, board=board, after=state(temperature=88.0)).reasons == ()


def test_heat_with_a_clock_that_fell_is_told_of_any_board() -> None:
    hot = make_launch(STEADY, after=Conditions(temperature_c=88.0, frequency_khz=3_900_000))
    slow = make_launch(STEADY, after=Conditions(temperature_c=96.0, frequency_khz=2_000_000))
    result = verdict([hot] * 5 + [slow], board=None)
    assert result.verdict is VerdictName.THROTTLED
    assert result.reasons[1:] == (
        "the device reached 96 °C, and its clock fell: cool it, and measure again",
    )


@pytest.mark.parametrize("is_sustained", [False, True])
def test_heat_with_a_latency_that_rose_is_told_of_any_board(*, is_sustained: bool) -> None:
    hot = Conditions(temperature_c=88.0)
    slower = make_launch([100_000] * 20 + [105_000] * 20, after=hot)
    quicker = make_launch([105_000] * 20 + [100_000] * 20, after=hot)
    between = [make_launch([level * 1000] * 20, after=hot) for level in (100, 101, 105, 106)]
    said = "the device reached 88 °C, and its latency rose by 5.0%: cool it, and measure again"
    for launches, reasons in (
        ([slower] * 6, (said,)),
        ([quicker] * 6, ()),
        ([slower, quicker] * 3, ()),
        (between, (said,)),
    ):
        result = verdict(launches, board=None, is_sustained=is_sustained)
        assert tuple(each for each in result.reasons if "88 °C" in each) == reasons
        assert (result.verdict is VerdictName.THROTTLED) == bool(reasons)


def test_a_clock_that_rises_from_idle_is_no_throttling() -> None:
    rising = make_launch(
        STEADY,
        before=Conditions(frequency_khz=600_000),
        after=Conditions(frequency_khz=1_500_000),
    )
    assert verdict([rising] * 6).verdict is VerdictName.VALID


def test_a_state_that_is_unknown_afterwards_is_no_change() -> None:
    result = verdict([make_launch(STEADY)] * 6, after=unknown_state("the link was lost"))
    assert result.verdict is VerdictName.VALID


def test_a_changed_governor_or_limit_is_told() -> None:
    after = state(governor="powersave", maximum=(600_000,))
    result = verdict([make_launch(STEADY)] * 6, after=after)
    assert result.verdict is VerdictName.THROTTLED
    assert [reason.split(" meanwhile")[0] for reason in result.reasons] == [
        "the governor changed from performance to powersave",
        "the allowed clock (kHz) changed from 1800000 to 600000",
    ]


def test_a_hot_device_is_throttling() -> None:
    result = verdict([make_launch(STEADY)] * 6, after=state(temperature=82.4))
    assert result.verdict is VerdictName.THROTTLED
    assert result.reasons[0].startswith("the device reached 82 °C, where a Raspberry Pi slows down")
    assert verdict([make_launch(STEADY)] * 6, after=state(temperature=79.9)).reasons == ()


def test_launches_without_their_core_are_contended() -> None:
    starved = make_launch(STEADY, cpu_share=0.6)
    result = verdict([starved] * 2 + [make_launch(STEADY)] * 4)
    assert result.verdict is VerdictName.CONTENDED
    assert result.reasons == (
        (
            "2 of 6 launches got less than 90% of a core's time (down to 60%): stop other programs "
            "on the device"
        ),
    )
    assert result.marks[0] == ("got 60% of a core",)


def test_other_work_on_all_cores_is_contended() -> None:
    busy = make_launch(STEADY, before=Conditions(num_runnable=6), after=Conditions(num_runnable=5))
    result = verdict([busy] * 6, num_threads=1)
    assert result.verdict is VerdictName.CONTENDED
    assert result.reasons[0].startswith("4 other threads ran on 4 cores beside the model's 1")
    assert verdict([busy] * 6, num_cores=8).verdict is VerdictName.VALID
    # Held to four of eight cores, it leaves four to the others.
    held = replace(busy, num_cores=4)
    assert verdict([held] * 6, num_threads=8, num_cores=8).verdict is VerdictName.VALID
    assert verdict([busy] * 6, num_threads=8, num_cores=8).verdict is VerdictName.CONTENDED


def test_a_load_before_counts_only_when_nothing_better_is_known() -> None:
    before = state(load=3.8)
    result = verdict([make_launch(STEADY)] * 6, before=before)
    assert result.verdict is VerdictName.CONTENDED
    assert result.reasons[0].startswith("the load was 3.8 on 4 cores before the model's 1 threads")
    alone = make_launch(STEADY, before=Conditions(num_runnable=1))
    assert verdict([alone] * 6, before=before).verdict is VerdictName.VALID
    assert verdict([make_launch(STEADY)] * 6, before=before, num_cores=None).reasons == ()


def test_the_gravest_finding_is_the_verdict_and_all_are_told() -> None:
    launch = make_launch([100_000, 150_000] * 20, cpu_share=0.5)
    result = verdict([launch] * 6, after=state(throttled=0x40004))
    assert result.verdict is VerdictName.THROTTLED
    assert len(result.reasons) == 3
    assert set(itertools.chain(*result.marks)) == {"varies by 20%", "got 50% of a core"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=30), min_size=1, max_size=8))
def test_any_run_is_judged_and_survives_json(samples: list[list[int]]) -> None:
    result = verdict([make_launch(each) for each in samples])
    assert (result.verdict is VerdictName.VALID) == (not result.reasons)
    assert len(result.marks) == len(samples)
    fields = Fields(json.loads(json.dumps(to_json(result))))
    assert read_validity(fields) == result
    assert not fields.faults
