"""What a device is doing right now: heat, clocks, throttling, load, memory.

Read before and after a measurement. What a device does not tell is None, and `unavailable`
says why; it is never 0.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.device.wire.sections import clean_text, parse_count, split_sections
from edgepack.device.wire.transport import Device
from edgepack.errors import DeviceError

_TIMEOUT_SECONDS: Final = 30.0
_MAX_OUTPUT_BYTES: Final = 256 * 1024
_COLDEST_C: Final = -50.0
_HOTTEST_C: Final = 150.0

# `vcgencmd` stands outside of a plain login's PATH on older Raspberry Pi OS; it needs the
# login to be in the group `video`.
STATE_SCRIPT: Final = r"""
export LC_ALL=C
section() { printf '\n@@%s\n' "$1"; }
section thermal
for zone in /sys/class/thermal/thermal_zone*; do
  [ -r "$zone/temp" ] || continue
  printf '%s %s\n' "$(cat "$zone/temp" 2>/dev/null)" "$(cat "$zone/type" 2>/dev/null)"
done
section cpufreq
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
  [ -d "$policy" ] || continue
  printf '%s %s %s\n' "$(cat "$policy/scaling_cur_freq" 2>/dev/null || echo -)" \
    "$(cat "$policy/scaling_max_freq" 2>/dev/null || echo -)" \
    "$(cat "$policy/scaling_governor" 2>/dev/null || echo -)"
done
section cpufreq_each
[ -d /sys/devices/system/cpu/cpufreq/policy0 ] ||
  for cpu in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
    [ -d "$cpu" ] || continue
    printf '%s %s %s\n' "$(cat "$cpu/scaling_cur_freq" 2>/dev/null || echo -)" \
      "$(cat "$cpu/scaling_max_freq" 2>/dev/null || echo -)" \
      "$(cat "$cpu/scaling_governor" 2>/dev/null || echo -)"
  done
section vcgencmd
for tool in vcgencmd /usr/bin/vcgencmd /opt/vc/bin/vcgencmd; do
  command -v "$tool" >/dev/null 2>&1 || continue
  "$tool" get_throttled 2>&1 </dev/null | head -n 1
  break
done
section loadavg; head -n 1 /proc/loadavg 2>/dev/null
section sysctl
[ "$(uname -s)" = Darwin ] && sysctl -n vm.loadavg 2>/dev/null
section meminfo; grep -E '^MemAvailable:' /proc/meminfo 2>/dev/null
section cgroup
group=$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null)
while :; do
  folder=/sys/fs/cgroup$group
  [ -r "$folder/memory.max" ] && printf '%s %s %s\n' "$(cat "$folder/memory.max")" \
    "$(cat "$folder/memory.current")" "$(sed -n 's/^inactive_file //p' "$folder/memory.stat")"
  [ -n "$group" ] || break
  group=${group%/*}
done
section end
"""

# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled: bits 0-3 hold
# now, bits 16-19 since the board was started.
_THROTTLING: Final = (
    "under-voltage",
    "frequency capped",
    "throttled",
    "soft temperature limit",
)
_STICKY_SHIFT: Final = 16
# Android hides /proc/loadavg, and proot-distro (Termux) puts a file of always this line there.
_MADE_UP_LOAD: Final = "0.12 0.07 0.02 2/165 765"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """What a device is doing; None where it does not say.

    Attributes:
        temperature_c: of the hottest CPU zone, else of the hottest zone.
        governor: of its clocks; several, joined by `+`, when policies differ.
        frequency_khz: current clock of each frequency policy.
        maximum_khz: the clock each policy allows at most.
        throttled: flags as `vcgencmd get_throttled` gives them.
        load_1min: mean of runnable processes over the last minute.
        available_bytes: memory that can be had without swapping, within the limits of the
            control groups that this login's programs run in.
        unavailable: field and reason for each None.
    """

    temperature_c: float | None
    governor: str | None
    frequency_khz: tuple[int, ...] | None
    maximum_khz: tuple[int, ...] | None
    throttled: int | None
    load_1min: float | None
    available_bytes: int | None
    unavailable: tuple[tuple[str, str], ...]


def read_state(device: Device) -> DeviceState:
    """Ask a device what it is doing, in one round trip.

    Raises:
        DeviceError: it has no POSIX shell, or answers with something else.
    """
    result = device.run(
        ["sh", "-c", STATE_SCRIPT],
        timeout_seconds=_TIMEOUT_SECONDS,
        max_output_bytes=_MAX_OUTPUT_BYTES,
    )
    return read_answer(result.text)


def unknown_state(reason: str) -> DeviceState:
    """Give the state of a device that tells nothing any more, for one reason."""
    return DeviceState(
        temperature_c=None,
        governor=None,
        frequency_khz=None,
        maximum_khz=None,
        throttled=None,
        load_1min=None,
        available_bytes=None,
        unavailable=tuple(
            (field.name, reason)
            for field in dataclasses.fields(DeviceState)
            if field.name != "unavailable"
        ),
    )


def read_answer(text: str) -> DeviceState:
    """Read what `STATE_SCRIPT` printed.

    Raises:
        DeviceError: not the script's output.
    """
    sections = split_sections(text)
    if "end" not in sections:
        raise DeviceError(
            "the device did not answer the question what it is doing: expected a POSIX shell, "
            f"got {clean_text(text, limit=80) or 'nothing'!r}",
            remedy="Log in with `ssh` and see whether `sh -c 'uname -a'` works there.",
        )
    missing: dict[str, str] = {}
    temperature = _read_temperature(sections.get("thermal", ()))
    if temperature is None:
        missing["temperature_c"] = "no readable zone in /sys/class/thermal"
    policies = [
        line.split() for line in sections.get("cpufreq", ()) or sections.get("cpufreq_each", ())
    ]
    frequency = _read_clocks(policies, 0)
    maximum = _read_clocks(policies, 1)
    governors = sorted(
        {
            words[2]
            for words in policies
            if len(words) > 2 and re.fullmatch(r"[a-z_0-9]{1,32}", words[2])  # noqa: PLR2004 - third
        }
    )
    no_policy = "no cpufreq in /sys/devices/system/cpu (a virtual machine or a fixed clock)"
    unreadable = "cpufreq gives no number"
    for name, value in (("frequency_khz", frequency), ("maximum_khz", maximum)):
        if value is None:
            missing[name] = unreadable if policies else no_policy
    if not governors:
        missing["governor"] = "cpufreq names no governor" if policies else no_policy
    throttled, reason = _read_throttled(sections.get("vcgencmd", ()))
    if throttled is None:
        missing["throttled"] = reason
    loads = (*sections.get("loadavg", ()), *sections.get("sysctl", ()))
    load = None if _MADE_UP_LOAD in loads else _read_load(loads)
    if load is None:
        missing["load_1min"] = (
            "/proc/loadavg is made up by proot-distro"
            if _MADE_UP_LOAD in loads
            else "no readable /proc/loadavg"
        )
    told = re.match(r"MemAvailable:\s+(\d{1,15}) kB", " ".join(sections.get("meminfo", ())))
    available = None if told is None else int(told[1]) * 1024
    if available is None:
        missing["available_bytes"] = "no MemAvailable in /proc/meminfo"
    else:
        available = min([available, *_read_headrooms(sections.get("cgroup", ()))])
    return DeviceState(
        temperature_c=temperature,
        governor="+".join(governors) or None,
        frequency_khz=frequency,
        maximum_khz=maximum,
        throttled=throttled,
        load_1min=load,
        available_bytes=available,
        unavailable=tuple(
            (field.name, missing[field.name])
            for field in dataclasses.fields(DeviceState)
            if field.name in missing
        ),
    )


def _read_temperature(lines: tuple[str, ...]) -> float | None:
    """Give the hottest zone that is named after a CPU or SoC, else the hottest of all."""
    zones: list[tuple[bool, float]] = []
    for line in lines:
        match = re.fullmatch(r"(-?\d{1,7})(?: (\S.*))?", line)
        if match is None:
            continue
        degrees = int(match[1]) / 1000
        name = (match[2] or "").lower()
        is_cpu = any(word in name for word in ("cpu", "soc", "pkg", "package", "cluster"))
        if _COLDEST_C <= degrees <= _HOTTEST_C:
            zones.append((is_cpu, degrees))
    return max(zones)[1] if zones else None


def _read_clocks(policies: list[list[str]], column: int) -> tuple[int, ...] | None:
    clocks = [
        parse_count(words[column], maximum=10**8) for words in policies if len(words) > column
    ]
    found = tuple(clock for clock in clocks if clock)
    return found if found and len(found) == len(policies) else None


def _read_headrooms(lines: tuple[str, ...]) -> Iterator[int]:
    """Give what each control group with a limit leaves; what was read from files counts as free."""
    for line in lines:
        match = re.fullmatch(r"(\d{1,18}) (\d{1,18}) (\d{1,18})", line)
        if match:
            limit, used, files = map(int, match.groups())
            yield max(0, limit - max(0, used - files))


def _read_throttled(lines: tuple[str, ...]) -> tuple[int | None, str]:
    if not lines:
        return None, "no vcgencmd: not a Raspberry Pi, or its tools are not installed"
    match = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", lines[0])
    if match:
        return int(match[1], 16), ""
    return None, f"vcgencmd answered {clean_text(lines[0], limit=80)!r}"


def _read_load(lines: tuple[str, ...]) -> float | None:
    match = re.match(r"(?:\{ )?(\d{1,6}[.,]\d{1,4})\b", lines[0]) if lines else None
    return float(match[1].replace(",", ".")) if match else None


def active_throttling(flags: int) -> tuple[str, ...]:
    """Name what holds the board back now."""
    return tuple(name for bit, name in enumerate(_THROTTLING) if flags >> bit & 1)


def new_throttling(
    before: DeviceState, after: DeviceState, meanwhile: Sequence[int] = ()
) -> tuple[str, ...]:
    """Name what held the board back between two states, as far as the flags tell.

    Sticky flags that were set before say nothing about the time between; a flag that is
    active in either state, or at a look in between, does, and so does one that arose.

    Args:
        before: the state in the beginning.
        after: the state at the end.
        meanwhile: flags of looks in between, in order; what tells them may be another program, so
            they are held against each other only.
    """
    series = [[each for each in (before.throttled, after.throttled) if each is not None], meanwhile]
    flags = 0
    for looks in series:
        for each in looks:
            flags |= each | (each & ~looks[0]) >> _STICKY_SHIFT
    return active_throttling(flags)


def to_json(state: DeviceState) -> dict[str, object]:
    """Give a state as JSON values; `parse_state` is its inverse."""
    table = dataclasses.asdict(state)
    for key in ("frequency_khz", "maximum_khz"):
        table[key] = None if table[key] is None else list(table[key])
    table["unavailable"] = dict(state.unavailable)
    return table


def parse_state(table: Mapping[str, object]) -> DeviceState:
    """Read back what `to_json` gave.

    Raises:
        DeviceError: another shape; all faults are listed.
    """
    fields = Fields(table)
    unavailable = fields.table("unavailable")
    reasons = tuple(
        (key, unavailable.text(key))
        for key in (field.name for field in dataclasses.fields(DeviceState))
        if unavailable.has(key)
    )
    unavailable.close()

    def clocks(key: str) -> tuple[int, ...] | None:
        return None if fields.raw(key) is None else fields.integers(key, minimum=1)

    def number(key: str) -> float | None:
        return None if fields.raw(key) is None else fields.number(key)

    def count(key: str) -> int | None:
        return None if fields.raw(key) is None else fields.integer(key, minimum=0)

    state = DeviceState(
        temperature_c=number("temperature_c"),
        governor=None if fields.raw("governor") is None else fields.text("governor"),
        frequency_khz=clocks("frequency_khz"),
        maximum_khz=clocks("maximum_khz"),
        throttled=count("throttled"),
        load_1min=number("load_1min"),
        available_bytes=count("available_bytes"),
        unavailable=reasons,
    )
    fields.close()
    if fields.faults:
        raise DeviceError(
            join_faults("device state", fields.faults),
            remedy="The record was changed or comes from another version; measure again.",
        )
    return state
