"""What does not stop a deployment, and spoils it or its numbers: clock, heat, load, modules."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edgepack.device.preflight.finding import Finding, Severity, Topic
from edgepack.device.preflight.premises import Place
from edgepack.device.store.lease import Holder
from edgepack.device.survey.facts import DeviceFacts, PythonFacts
from edgepack.device.survey.state import DeviceState, active_throttling
from edgepack.device.wire.sections import parse_count
from edgepack.device.wire.transport import Device

_STEP_SECONDS: Final = 30.0
_MODULE_SECONDS: Final = 60.0
_LATEST_CLOCK: Final = 2**33
_LARGEST_SKEW_SECONDS: Final = 60.0
_UNSET_YEAR: Final = 2025
_HOT_C: Final = 70.0  # 10 below where the Raspberry Pi 3 to 5 begin to slow down
_BUSY_SHARE: Final = 0.25
_SLOW_GOVERNORS: Final = frozenset(
    {"ondemand", "conservative", "schedutil", "interactive", "powersave"}
)
_LITTLE_ROOM_BYTES: Final = 2**20

# What numpy and the runner import of the standard library; Debian's python3-minimal and OpenWrt's
# python3-light leave some of it out.
_MODULES: Final = (
    *("_ctypes", "array", "base64", "contextlib", "ctypes", "datetime", "functools", "hashlib"),
    *("json", "pathlib", "pickle", "platform", "struct", "tempfile", "typing", "weakref", "zlib"),
)
# Found, not imported, which takes seconds on the slowest boards.
_FIND_MODULES: Final = """
import sys
from importlib.util import find_spec
for name in sys.argv[1:]:
    if find_spec(name) is None:
        print(name)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockReading:
    """A device's clock, read between two moments of this machine's.

    Attributes:
        device_s: seconds since 1970, whole; None when it did not say.
        before_s: this machine's clock before the question.
        after_s: and after the answer.
    """

    device_s: int | None
    before_s: float
    after_s: float

    @property
    def round_trip_s(self) -> float:
        """How long question and answer took."""
        return self.after_s - self.before_s

    @property
    def skew_s(self) -> float | None:
        """How far the device's clock is surely ahead (or behind, below 0); 0 inside the bounds."""
        if self.device_s is None:
            return None
        # It counts whole seconds: the true value lies up to one above.
        if self.device_s > self.after_s:
            return self.device_s - self.after_s
        return min(0.0, self.device_s + 1 - self.before_s)


def read_clock(device: Device) -> ClockReading:
    """Ask a device for its time."""
    before_s = time.time()
    result = device.run(["date", "-u", "+%s"], timeout_seconds=_STEP_SECONDS)
    after_s = time.time()
    return ClockReading(
        device_s=parse_count(result.text.strip(), maximum=_LATEST_CLOCK),
        before_s=before_s,
        after_s=after_s,
    )


def find_missing_modules(device: Device, python: PythonFacts) -> tuple[str, ...]:
    """Give the modules of the standard library that a device's Python lacks."""
    result = device.run(
        [python.path, "-I", "-c", _FIND_MODULES, *_MODULES], timeout_seconds=_MODULE_SECONDS
    )
    said = set(result.text.split())
    return tuple(name for name in _MODULES if name in said)


def judge_modules(python: PythonFacts, missing: tuple[str, ...]) -> Iterator[Finding]:
    """Refuse a Python without its standard library."""
    if missing:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.PYTHON,
            expected="a Python with its standard library",
            found=f"{python.path} does not have {', '.join(missing)}",
            fix="Install the whole of it: `sudo apt install python3` on Debian, `opkg install "
            "python3` on OpenWrt.",
        )


def judge_holder(holder: Holder | None) -> Iterator[Finding]:
    """Warn of somebody else's work on a device, which a deployment waits for."""
    if holder is not None:
        yield Finding(
            severity=Severity.WARNING,
            topic=Topic.LOCK,
            expected="a device that nobody uses",
            found=f"it is held by {holder}",
            fix="What needs the device waits for it, for `--lock-wait` seconds at most.",
        )


def judge_clock(reading: ClockReading) -> Iterator[Finding]:
    """Warn of a clock that is far from this machine's."""
    skew_s = reading.skew_s
    if skew_s is None or reading.device_s is None:
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.CLOCK,
            expected="the time in seconds since 1970",
            found="`date -u +%s` gives none",
        )
        return
    if abs(skew_s) <= _LARGEST_SKEW_SECONDS:
        return
    there = datetime.fromtimestamp(reading.device_s, UTC)
    found = f"its clock says {there:%Y-%m-%d %H:%M:%S} UTC"
    if there.year < _UNSET_YEAR:
        found += ": it was not set since the device was started"
    else:
        found += f", {_duration(abs(skew_s))} {'ahead' if skew_s > 0 else 'behind'}"
    yield Finding(
        severity=Severity.WARNING,
        topic=Topic.CLOCK,
        expected=f"a clock within {_LARGEST_SKEW_SECONDS:.0f} s of this machine's, "
        f"{datetime.fromtimestamp(reading.after_s, UTC):%Y-%m-%d %H:%M:%S} UTC",
        found=found,
        fix="Set it (`sudo date -u -s ...`, or a time service such as chrony). EdgePack itself "
        "does without; certificates and the dates of files and logs do not.",
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def judge_measuring(facts: DeviceFacts, state: DeviceState) -> Iterator[Finding]:
    """Say what would spoil a measurement right now."""
    throttling = active_throttling(state.throttled or 0)
    if throttling:
        yield _measuring(
            Severity.WARNING,
            "a board that nothing holds back",
            f"right now: {', '.join(throttling)}",
            "Use the board's own power supply and a heat sink or fan.",
        )
    if state.temperature_c is not None and state.temperature_c >= _HOT_C:
        yield _measuring(
            Severity.WARNING,
            f"a CPU below {_HOT_C:.0f} °C before it is measured",
            f"it has {state.temperature_c:.0f} °C",
            "Let it cool down, or give it a heat sink or fan; most boards slow down at 80 °C.",
        )
    slow = _SLOW_GOVERNORS & set((state.governor or "").split("+"))
    if slow:
        yield _measuring(
            Severity.NOTE,
            "the governor `performance`",
            f"it is {' and '.join(sorted(slow))}, so that clocks rise late or not at all",
            "As root: `echo performance > /sys/devices/system/cpu/cpufreq/policy0/scaling_governor`"
            " for each policy. Warm-up does most of it, where clocks rise.",
        )
    cores = facts.num_cores or 1
    if state.load_1min is not None and state.load_1min > max(0.5, _BUSY_SHARE * cores):
        yield _measuring(
            Severity.WARNING,
            "an idle device",
            f"the load is {state.load_1min:.1f} on {cores} core{'' if cores == 1 else 's'}",
            "Stop what runs there; `top` names it.",
        )


def _measuring(severity: Severity, expected: str, found: str, fix: str) -> Finding:
    return Finding(
        severity=severity, topic=Topic.MEASURING, expected=expected, found=found, fix=fix
    )


def judge_temporary(place: Place) -> Iterator[Finding]:
    """Note a folder for temporary files that other programs will miss; EdgePack uses none."""
    faults = []
    if place.is_writable is False:
        faults.append(f"it refuses a file: {place.refusal or 'no reason given'}")
    elif place.free_bytes is not None and place.free_bytes < _LITTLE_ROOM_BYTES:
        faults.append(f"{math.floor(place.free_bytes / 1024)} KiB are free")
    if place.mount is not None and "noexec" in place.mount.options:
        faults.append(f"{place.mount.point} is mounted noexec")
    if faults:
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.TEMPORARY,
            expected=f"room for files and programs in {place.folder}",
            found="; ".join(faults),
            fix="Nothing of EdgePack's is put there.",
        )


def judge_sftp(*, is_offered: bool | None) -> Iterator[Finding]:
    """Note a server without SFTP, which other programs may want."""
    if is_offered is False:
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.SFTP,
            expected="an SFTP server",
            found="there is none",
            fix="None is needed: files are streamed through a command and checked by their sha256.",
        )
