"""What held a device back by itself: flags of its firmware, clocks, governors, heat; pure."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from edgepack.device.survey.state import DeviceState, active_throttling, new_throttling
from edgepack.measure import stats
from edgepack.measure.drift import MAXIMUM_DRIFT, drift
from edgepack.measure.launch import Conditions, LatencyLaunch

MAXIMUM_CLOCK_LOSS: Final = 0.05
HOT_C: Final = 80.0  # where the Raspberry Pi 3 to 5 begin to slow down (its documentation)


def _clocks(launch: LatencyLaunch) -> list[int]:
    each = (launch.before, *launch.timed_conditions)
    return [one.frequency_khz for one in each if one.frequency_khz is not None]


def top_clock(launches: Sequence[LatencyLaunch]) -> int | None:
    """Give the fastest clock that any launch told, in kHz."""
    return max((clock for launch in launches for clock in _clocks(launch)), default=None)


def lost_clock(launch: LatencyLaunch, top_khz: int | None) -> bool:
    """Tell whether the clock was low at the end, or for a quarter of the looks in between.

    What stood before the timed runs does not count: a clock that rises from idle has done so in the
    warm-up. A single look may meet a governor as it changes its mind.
    """
    if top_khz is None:
        return False
    least = top_khz * (1 - MAXIMUM_CLOCK_LOSS)
    last = launch.after.frequency_khz
    told = [each.frequency_khz for each in launch.timed_conditions]
    low = [clock < least for clock in told if clock is not None]
    return (last is not None and last < least) or sum(low) >= max(2, len(low) / 4)


def active_flags(launch: LatencyLaunch) -> tuple[str, ...]:
    """Name what the board said held it back at any look of a launch."""
    flags = 0
    for each in (launch.before, *launch.timed_conditions):
        flags |= each.throttled or 0
    return active_throttling(flags)


def find_throttling(
    launches: Sequence[LatencyLaunch],
    *,
    before: DeviceState,
    after: DeviceState,
    board: str | None,
) -> Iterator[str]:
    """Say what held the device back, and what to do."""
    looks = [each for launch in launches for each in (launch.before, *launch.timed_conditions)]
    told = [each.throttled for each in looks if each.throttled is not None]
    flags = new_throttling(before, after, told)
    if flags:
        yield (
            f"the board reports {', '.join(flags)}: use its own power supply, cool it, and "
            "measure again"
        )
    top = top_clock(launches)
    slowed = sum(lost_clock(launch, top) for launch in launches)
    if slowed and top is not None:
        least = min(
            one.frequency_khz
            for launch in launches
            for one in launch.timed_conditions
            if one.frequency_khz is not None
        )
        yield (
            f"the clock fell from {top / 1e6:.2f} to {least / 1e6:.2f} GHz in {slowed} of "
            f"{len(launches)} launches: cool the device, use its own power supply, and fix its "
            "governor to performance"
        )
    for what, first, last in (
        ("governor", before.governor, after.governor),
        ("allowed clock (kHz)", before.maximum_khz, after.maximum_khz),
    ):
        if first != last and None not in {first, last}:  # unknown is no change
            yield (
                f"the {what} changed from {_show(first)} to {_show(last)} meanwhile: find what "
                "sets it (a power daemon, heat), and fix the governor to performance"
            )
    if before.governor == after.governor:
        yield from _changed_governor(looks, before.governor)
    is_pi = "Raspberry Pi" in (board or "")
    yield from _heat(launches, after, is_pi=is_pi, has_slowed=slowed > 0)


def _show(value: str | tuple[int, ...] | None) -> str:
    if isinstance(value, tuple):
        return "+".join(str(each) for each in value)
    return value or "unknown"


def _changed_governor(looks: Sequence[Conditions], before: str | None) -> Iterator[str]:
    """Say that the governor was another one in the meantime."""
    told = {each.governor for each in looks if each.governor is not None}
    # A launch tells that of the cores it is held to, the device that of all.
    if before is not None and not {name for each in told for name in each.split("+")} <= set(
        before.split("+")
    ):
        told.add(before)
    if len(told) > 1:
        yield (
            f"the governor changed between {' and '.join(sorted(told))} during the launches: find "
            "what sets it (a power daemon, heat), and fix the governor to performance"
        )


def _heat(
    launches: Sequence[LatencyLaunch], after: DeviceState, *, is_pi: bool, has_slowed: bool
) -> Iterator[str]:
    """Say that it became hot, where that slows it down by what is known, or where it did."""
    degrees = [
        each
        for each in (
            after.temperature_c,
            *(one.temperature_c for launch in launches for one in launch.timed_conditions),
        )
        if each is not None
    ]
    if not degrees or max(degrees) < HOT_C:
        return
    hottest, rise = max(degrees), _rise(launches)
    if is_pi:
        yield (
            f"the device reached {hottest:.0f} °C, where a Raspberry Pi slows down ({HOT_C:g} °C): "
            "cool it, and measure again"
        )
    # Laptops, phones and other boards are made for more: there it takes a sign that they slowed.
    elif has_slowed or rise > MAXIMUM_DRIFT:
        sign = "its clock fell" if has_slowed else f"its latency rose by {rise:.1%}"
        yield f"the device reached {hottest:.0f} °C, and {sign}: cool it, and measure again"


def _rise(launches: Sequence[LatencyLaunch]) -> float:
    """Give how much slower it became, within its launches or from launch to launch."""
    medians = [round(stats.median(launch.samples_ns)) for launch in launches]
    # Of single launches some drift anywhere, up and down.
    within = median(drift(launch) for launch in launches)
    return max(stats.drift(medians), within)
