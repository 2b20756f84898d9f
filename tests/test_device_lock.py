"""One host at a time on a device, and none for ever."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.store import lock
from edgepack.device.store.lease import read_holder
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.store.ownership import host_id, user_and_host
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.transport import CommandResult, Device
from edgepack.errors import ConnectError, DeviceError, LockedError
from tests.fixtures.faulty_device import FaultyDevice

PUSH = LockOptions(purpose="push", wait_seconds=0)
BENCH = LockOptions(purpose="bench", wait_seconds=0)
TOKEN = "0123456789abcdef"  # noqa: S105 - names a lease


class ShellDevice(LocalDevice):
    """This machine, where another program is `sh`."""

    def __init__(self, *shell: str) -> None:
        self.shell = shell

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command; `sh` is the other program."""
        words = [*self.shell, *argv[1:]] if argv[0] == "sh" else argv
        return super().run(
            words,
            timeout_seconds=timeout_seconds,
            stdin=stdin,
            max_output_bytes=max_output_bytes,
        )


@pytest.fixture(params=["dash", "bash --posix", "busybox sh"])
def device(request: pytest.FixtureRequest) -> Device:
    return ShellDevice(*request.param.split())


def uptime() -> int:
    return int(float(Path("/proc/uptime").read_text().split()[0]))


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_lock(root: Path, number: int = 1, **parts: object) -> str:
    """Leave another host's lock."""
    text = {
        "token": TOKEN,
        "boot": boot(),
        "end": uptime() + 500,
        "lease": 180,
        "host": "00000000",
        "process": 1,
        "since": 1_700_000_000,
        "purpose": "bench",
        "who": "alice@laptop",
    }
    text |= parts
    (root / "lock").mkdir(parents=True, exist_ok=True)
    line = " ".join(str(part) for part in text.values())
    (root / "lock" / str(number)).symlink_to(line)
    return line


def acquire(device: Device, root: Path, options: LockOptions = PUSH) -> None:
    with hold_device(device, root=str(root), options=options):
        pass


def entries(root: Path) -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in (root / "lock").iterdir()}


def test_held_and_given_back(device: Device, tmp_path: Path) -> None:
    with hold_device(device, root=str(tmp_path), options=PUSH) as held:
        (text,) = entries(tmp_path).values()
        holder = read_holder(text)
        assert holder is not None
        assert (holder.host, holder.process) == (host_id(), os.getpid())
        assert (holder.purpose, holder.who) == ("push", user_and_host())
        assert held.run(["echo", "on"], timeout_seconds=10).text == "on\n"
        with held.stream(["echo", "on"], timeout_seconds=10) as lines:
            assert list(lines) == [b"on"]
        held.upload(b"content", str(tmp_path / "file"), timeout_seconds=10)
        assert (tmp_path / "file").read_bytes() == b"content"
    assert entries(tmp_path) == {"1": "free"}
    acquire(device, tmp_path)
    assert entries(tmp_path) == {"2": "free"}


def test_a_second_one_is_told_who_holds_the_device(device: Device, tmp_path: Path) -> None:
    write_lock(tmp_path)
    with pytest.raises(LockedError) as caught:
        acquire(device, tmp_path)
    assert caught.value.message == (
        f"local: {tmp_path} is held by alice@laptop (bench since 2023-11-14 22:13:20 UTC); "
        "waited 0 s"
    )
    assert caught.value.remedy == (
        "Wait until it is done, or allow more time with --lock-wait. If that host is gone, its "
        "lock ends by itself within 180 s."
    )
    assert list(entries(tmp_path)) == ["1"]


def test_a_push_and_a_bench_of_this_process_do_not_cross(device: Device, tmp_path: Path) -> None:
    with (
        hold_device(device, root=str(tmp_path), options=BENCH),
        pytest.raises(LockedError, match=r"\(bench since "),
    ):
        acquire(device, tmp_path)
    acquire(device, tmp_path)


@pytest.mark.parametrize(
    "parts",
    [
        {"end": 1},  # the lease is over
        {"boot": "11111111-2222-3333-4444-555555555555"},  # the device was started anew
        {"host": host_id(), "process": 2**22 + 1},  # a process of this machine that is gone
    ],
    ids=["over", "rebooted", "killed"],
)
def test_a_lock_whose_holder_is_gone_is_taken_at_once(
    device: Device, tmp_path: Path, parts: dict[str, object]
) -> None:
    write_lock(tmp_path, 7, **parts)
    acquire(device, tmp_path)
    assert entries(tmp_path) == {"8": "free"}


def test_a_killed_host_process_leaves_nothing_locked(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from edgepack.device.wire.local import LocalDevice\n"
        "from edgepack.device.store.lock import LockOptions, hold_device\n"
        "with hold_device(LocalDevice(), root=sys.argv[1], options=LockOptions(purpose='push')):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        (sys.executable, "-c", program, str(tmp_path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError):
            acquire(LocalDevice(), tmp_path)
        process.send_signal(signal.SIGKILL)
    acquire(LocalDevice(), tmp_path)


@pytest.mark.parametrize("text", ["nonsense", "", "- - - -"])
def test_on_a_device_without_a_clock_who_stands_still_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(lock, "_MARGIN_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_LEASE_SECONDS", 0.5)
    monkeypatch.setattr(lock, "_TURN_SECONDS", 1)
    (tmp_path / "lock").mkdir()
    if text:
        (tmp_path / "lock" / "3").symlink_to(text)
    else:  # what is no link has no text
        (tmp_path / "lock" / "3").write_text("")
    told: list[str] = []
    started = time.monotonic()
    acquire(LocalDevice(), tmp_path, replace(PUSH, wait_seconds=60, on_wait=told.append))
    assert time.monotonic() - started > 0.5
    assert told == ["waiting for local:, held by something that left no name"]


def test_a_lease_without_a_clock_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_MARGIN_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_TURN_SECONDS", 1)
    write_lock(tmp_path, end="-", lease=1)
    with pytest.raises(LockedError):
        acquire(LocalDevice(), tmp_path)
    acquire(LocalDevice(), tmp_path, replace(PUSH, wait_seconds=60))


def test_who_waits_gets_it_when_it_is_given_back(device: Device, tmp_path: Path) -> None:
    told = threading.Event()
    got: list[str] = []

    def wait() -> None:
        options = replace(PUSH, wait_seconds=60, on_wait=lambda _: told.set())
        with hold_device(device, root=str(tmp_path), options=options):
            got.append("second")

    thread = threading.Thread(target=wait)
    with hold_device(device, root=str(tmp_path), options=BENCH):
        thread.start()
        assert told.wait(timeout=60)
        got.append("first")
    thread.join(timeout=60)
    assert got == ["first", "second"]


def test_many_that_want_it_have_it_one_after_the_other(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    faults: list[str] = []

    def work() -> None:
        for _ in range(3):
            with hold_device(
                LocalDevice(), root=str(tmp_path / "root"), options=replace(PUSH, wait_seconds=120)
            ):
                try:
                    inside.mkdir()
                    inside.rmdir()
                except OSError as error:
                    faults.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
    assert faults == []
    assert list(entries(tmp_path / "root").values()) == ["free"]


def test_a_step_is_covered_before_it_begins(tmp_path: Path) -> None:
    def lease() -> int:
        (text,) = entries(tmp_path).values()
        holder = read_holder(text)
        assert holder is not None
        return holder.lease_seconds

    counting = FaultyDevice(device=LocalDevice())
    with hold_device(counting, root=str(tmp_path), options=PUSH) as held:
        held.run(["true"], timeout_seconds=60)
        assert (lease(), counting.num_operations) == (180, 2)
        with held.stream(["true"], timeout_seconds=500) as lines:
            assert list(lines) == []
        assert lease() >= 530
        held.upload(bytes(2**20), str(tmp_path / "file"), timeout_seconds=30)
        assert counting.num_operations == 5


def test_a_lease_that_others_had_meanwhile_is_waited_for(tmp_path: Path) -> None:
    with hold_device(LocalDevice(), root=str(tmp_path), options=PUSH) as held:
        write_lock(tmp_path, 2)
        held.run(["true"], timeout_seconds=10)  # covered still, as far as is known here
        with pytest.raises(LockedError, match="is held by alice@laptop"):
            held.run(["true"], timeout_seconds=1000)
        (tmp_path / "lock" / "2").unlink()
        (tmp_path / "lock" / "2").symlink_to("free")
        held.run(["true"], timeout_seconds=1000)
        assert set(entries(tmp_path)) == {"3"}


def test_a_lost_link_is_no_lock(tmp_path: Path) -> None:
    device = FaultyDevice(device=LocalDevice(), fails_at=1)
    with (
        pytest.raises(ConnectError),
        hold_device(device, root=str(tmp_path), options=PUSH) as held,
    ):
        held.run(["true"], timeout_seconds=10)
    assert read_holder(next(iter(entries(tmp_path).values()))) is not None
    acquire(LocalDevice(), tmp_path)


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DeviceError) as caught:
        acquire(LocalDevice(), tmp_path / "root")
    assert caught.value.message.startswith(f"local: could not hold {tmp_path}/root: ")
    assert caught.value.remedy == (
        "Something else stands where a folder should be; give another `--root`."
    )


@given(st.text(max_size=200))
def test_whatever_a_lock_says_is_read(text: str) -> None:
    holder = read_holder(text)
    assert holder is None or str(holder)


@given(st.integers(0, 10**12 - 1))
def test_any_time_is_read_or_refused(since: int) -> None:
    holder = read_holder(f"{TOKEN} b 1 180 00000000 1 {since} push a@b")
    if holder is not None:
        assert int(holder.since.timestamp()) == since


def test_people_can_read_who_it_is() -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]+@[A-Za-z0-9._-]+", user_and_host())
