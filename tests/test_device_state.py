"""State: heat, clocks, throttling and load, as captured answers are read."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.survey.state import (
    DeviceState,
    active_throttling,
    new_throttling,
    parse_state,
    read_answer,
    read_state,
    to_json,
)
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import DeviceError

GOLDEN = Path(__file__).parent / "golden" / "state"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.txt"))


def golden(name: str) -> DeviceState:
    return read_answer((GOLDEN / f"{name}.txt").read_text())


def test_a_throttled_raspberry_pi() -> None:
    state = golden("raspberry-pi-4-throttled")
    assert state == DeviceState(
        temperature_c=82.27,
        governor="ondemand",
        frequency_khz=(1500000,),
        maximum_khz=(1800000,),
        throttled=0x50005,
        load_1min=3.94,
        available_bytes=3401234 * 1024,
        unavailable=(),
    )
    assert active_throttling(0x50005) == ("under-voltage", "throttled")


def test_the_hottest_cpu_zone_counts_and_policies_may_differ() -> None:
    state = golden("laptop-hybrid")
    assert state.temperature_c == 61.0
    assert state.governor == "performance+powersave"
    assert state.frequency_khz == (2800000, 800000)


def test_what_is_not_told_is_none_with_the_reason() -> None:
    state = golden("x86-vm-debian12")
    assert (state.temperature_c, state.governor, state.throttled) == (None, None, None)
    reasons = dict(state.unavailable)
    assert reasons["temperature_c"] == "no readable zone in /sys/class/thermal"
    assert reasons["throttled"] == (
        "no vcgencmd: not a Raspberry Pi, or its tools are not installed"
    )


def test_vcgencmd_that_may_not_talk_to_the_firmware() -> None:
    state = golden("raspberry-pi-no-video-group")
    assert state.throttled is None
    assert dict(state.unavailable)["throttled"] == "vcgencmd answered 'VCHI initialization failed'"


def test_kernels_without_policies() -> None:
    state = golden("old-kernel-per-cpu")
    assert (state.governor, state.frequency_khz) == ("interactive", (1400000, 1400000))
    assert state.temperature_c == 45.0


@pytest.mark.parametrize(
    ("groups", "available"),
    [
        ("", 3401234 * 1024),
        ("max 5000000 1000000", 3401234 * 1024),
        ("50000000 30000000 10000000\nmax 1 1", 30000000),
        ("50000000 90000000 0", 0),
        ("9000000 1000000 0\n8000000 1000000 0", 7000000),
        ("rubbish\n-1 2 3\n1 2", 3401234 * 1024),
    ],
)
def test_a_control_group_leaves_less_than_there_is(groups: str, available: int) -> None:
    text = (GOLDEN / "raspberry-pi-4-throttled.txt").read_text()
    text = text.replace("@@end", f"@@cgroup\n{groups}\n\n@@end")
    assert read_answer(text).available_bytes == available


def test_macos_tells_its_load() -> None:
    assert golden("macos").load_1min == 1.94


def flags(value: int) -> DeviceState:
    text = (GOLDEN / "raspberry-pi-5-idle.txt").read_text()
    return read_answer(text.replace("throttled=0x0", f"throttled={value:#x}"))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (0x0, 0x0, ()),
        (0x50000, 0x50000, ()),
        (0x0, 0x50000, ("under-voltage", "throttled")),
        (0x40000, 0x50000, ("under-voltage",)),
        (0x80008, 0x80000, ("soft temperature limit",)),
        (0x20000, 0x20002, ("frequency capped",)),
    ],
)
def test_sticky_flags_count_only_when_they_arose(
    before: int, after: int, found: tuple[str, ...]
) -> None:
    assert new_throttling(flags(before), flags(after)) == found


def test_a_load_that_is_made_up_is_none() -> None:
    text = (GOLDEN / "raspberry-pi-5-idle.txt").read_text()
    assert read_answer(text).load_1min is not None
    made_up = re.sub(r"@@loadavg\n.*", "@@loadavg\n0.12 0.07 0.02 2/165 765", text)
    state = read_answer(made_up)
    assert state.load_1min is None
    assert dict(state.unavailable)["load_1min"] == "/proc/loadavg is made up by proot-distro"


@pytest.mark.parametrize("name", NAMES)
def test_json_gives_the_same_state_back(name: str) -> None:
    assert parse_state(to_json(golden(name))) == golden(name)


def test_changed_json_is_refused() -> None:
    with pytest.raises(DeviceError) as caught:
        parse_state({**to_json(golden("macos")), "load_1min": "high"})
    assert caught.value.message == (
        "device state: load_1min: expected a number, not a text ('high')"
    )


def test_an_answer_of_something_else_is_refused() -> None:
    with pytest.raises(DeviceError, match="expected a POSIX shell, got 'nothing'"):
        read_answer("")


@given(st.text(max_size=300))
def test_any_content_is_survived(noise: str) -> None:
    text = (GOLDEN / "raspberry-pi-5-idle.txt").read_text()
    for section in ("thermal", "cpufreq", "vcgencmd", "loadavg", "meminfo"):
        state = read_answer(text.replace(f"@@{section}\n", f"@@{section}\n{noise}\n"))
        assert state.temperature_c is None or -50 <= state.temperature_c <= 150


def test_this_machine() -> None:
    state = read_state(LocalDevice())
    absent = {name for name, _ in state.unavailable}
    for name in ("temperature_c", "governor", "load_1min", "throttled"):
        assert (getattr(state, name) is None) == (name in absent)
