"""What spoils a deployment's numbers: the clock against this machine's, heat, load, modules."""

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.preflight.conditions import (
    ClockReading,
    find_missing_modules,
    judge_clock,
    judge_measuring,
    judge_modules,
    judge_sftp,
    judge_temporary,
    read_clock,
)
from edgepack.device.preflight.finding import Finding, Severity
from edgepack.device.preflight.premises import Mount, Place
from edgepack.device.survey import facts as device_facts
from edgepack.device.survey import state as device_state
from edgepack.device.survey.facts import DeviceFacts, PythonFacts
from edgepack.device.survey.state import DeviceState
from edgepack.device.wire.local import LocalDevice

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_795_425_075.25  # 2026-11-23 09:11:15 UTC


def facts() -> DeviceFacts:
    text = (GOLDEN / "facts" / "raspberry-pi-4-bookworm.txt").read_text()
    return device_facts.read_answer(text, root="/r")


def state(name: str) -> DeviceState:
    return device_state.read_answer((GOLDEN / "state" / f"{name}.txt").read_text())


def only(found: Iterable[Finding]) -> Finding:
    (finding,) = found
    return finding


def reading(device_s: int | None, *, round_trip_s: float = 0.5) -> ClockReading:
    return ClockReading(device_s=device_s, before_s=NOW, after_s=NOW + round_trip_s)


def test_this_machines_clock_is_its_own() -> None:
    read = read_clock(LocalDevice())
    assert read.skew_s == 0
    assert 0 < read.round_trip_s < 30
    assert list(judge_clock(read)) == []


@given(st.floats(-1e6, 1e6), st.floats(0, 30), st.floats(0, 1))
def test_skew_is_never_more_than_it_is(skew_s: float, round_trip_s: float, moment: float) -> None:
    """A device that answers at any moment of the round trip is never accused of too much."""
    at_s = NOW + moment * round_trip_s
    read = reading(int(at_s + skew_s), round_trip_s=round_trip_s)
    assert read.skew_s is not None
    assert abs(read.skew_s) <= abs(skew_s) + 1e-3
    assert read.skew_s * skew_s >= 0
    assert abs(read.skew_s) >= abs(skew_s) - round_trip_s - 1 - 1e-3


def test_a_clock_that_starts_in_1970() -> None:
    warning = only(judge_clock(reading(93)))
    assert warning.severity is Severity.WARNING
    assert warning.expected == ("a clock within 60 s of this machine's, 2026-11-23 09:11:15 UTC")
    assert warning.found == (
        "its clock says 1970-01-01 00:01:33 UTC: it was not set since the device was started"
    )


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [
        (-3 * 86400, "3 days behind"),
        (7 * 3600, "7 hours ahead"),
        (600, "10 minutes ahead"),
        (-75, "74 s behind"),
    ],
)
def test_a_clock_that_is_wrong(skew_s: int, words: str) -> None:
    assert only(judge_clock(reading(int(NOW) + skew_s))).found.endswith(f", {words}")


def test_a_clock_within_bounds_or_unknown() -> None:
    assert list(judge_clock(reading(int(NOW) + 50))) == []
    # A slow link is no wrong clock.
    assert list(judge_clock(reading(int(NOW) + 85, round_trip_s=30))) == []
    assert only(judge_clock(reading(None))).found == "`date -u +%s` gives none"


def test_the_whole_library_is_here() -> None:
    python = PythonFacts(
        path="/usr/bin/env", version=(3, 11, 2), tag="cp311", bits=64, platform="x", numpy=None
    )
    here = replace(python, path=sys.executable)
    assert find_missing_modules(LocalDevice(), here) == ()
    assert list(judge_modules(here, ())) == []


def test_a_python_without_part_of_its_library(tmp_path: Path) -> None:
    """Debian's python3-minimal; here an interpreter that is told to find no such modules."""
    python = tmp_path / "python3"
    python.write_text(
        f"#!/bin/sh\nshift 2; code=$1; shift\nexec {sys.executable} -I -c "
        '\'import sys; sys.modules["ctypes"] = sys.modules["pickle"] = None; '
        'exec(sys.argv.pop(1))\' "$code" "$@"\n'
    )
    python.chmod(0o755)
    there = PythonFacts(
        path=str(python), version=(3, 11, 2), tag="cp311", bits=64, platform="x", numpy=None
    )
    missing = find_missing_modules(LocalDevice(), there)
    assert missing == ("ctypes", "pickle")
    error = only(judge_modules(there, missing))
    assert error.severity is Severity.ERROR
    assert error.found == f"{python} does not have ctypes, pickle"


def test_a_board_that_is_throttled() -> None:
    found = list(judge_measuring(facts(), state("raspberry-pi-4-throttled")))
    throttled = found[0]
    assert throttled.severity is Severity.WARNING
    assert throttled.found.startswith("right now: ")
    assert throttled.fix == "Use the board's own power supply and a heat sink or fan."


def idle() -> DeviceState:
    return replace(
        state("raspberry-pi-5-idle"),
        governor="performance",
        temperature_c=48.0,
        load_1min=0.05,
        throttled=0,
    )


def test_a_device_that_is_fit_to_be_measured() -> None:
    assert list(judge_measuring(facts(), idle())) == []


@pytest.mark.parametrize(
    ("change", "severity", "found"),
    [
        ({"temperature_c": 71.6}, Severity.WARNING, "it has 72 °C"),
        ({"load_1min": 1.2}, Severity.WARNING, "the load is 1.2 on 4 cores"),
        (
            {"governor": "ondemand"},
            Severity.NOTE,
            "it is ondemand, so that clocks rise late or not at all",
        ),
        (
            {"governor": "schedutil+powersave"},
            Severity.NOTE,
            "it is powersave and schedutil, so that clocks rise late or not at all",
        ),
    ],
)
def test_what_spoils_a_measurement(
    change: dict[str, object], severity: Severity, found: str
) -> None:
    finding = only(judge_measuring(facts(), replace(idle(), **change)))  # type: ignore[arg-type]  # fields by name
    assert (finding.severity, finding.found) == (severity, found)


def test_the_load_of_a_single_core_reads_well() -> None:
    alone = replace(facts(), num_cores=1)
    finding = only(judge_measuring(alone, replace(idle(), load_1min=0.8)))
    assert finding.found == "the load is 0.8 on 1 core"


def test_temporary_files() -> None:
    mount = Mount(point="/t", source="tmpfs", kind="tmpfs", options=("rw", "noexec"))
    place = Place(folder="/t", is_writable=True, free_bytes=900 * 1024, mount=mount)
    note = only(judge_temporary(place))
    assert (note.severity, note.found) == (
        Severity.NOTE,
        "900 KiB are free; /t is mounted noexec",
    )
    refused = replace(place, is_writable=False, refusal="Read-only file system", mount=None)
    assert only(judge_temporary(refused)).found == "it refuses a file: Read-only file system"
    assert list(judge_temporary(Place(folder="/t", is_writable=True, free_bytes=2**30))) == []


def test_sftp_is_only_noted() -> None:
    assert only(judge_sftp(is_offered=False)).severity is Severity.NOTE
    assert list(judge_sftp(is_offered=True)) == []
    assert list(judge_sftp(is_offered=None)) == []


def test_times_are_of_this_machine() -> None:
    before = time.time()
    read = read_clock(LocalDevice())
    assert before <= read.before_s <= read.after_s <= time.time()
