"""Devices behind the stock adb program: what they refuse, and what becomes of a lost link."""

import hashlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.layout import Layout
from edgepack.device.store.releases import list_releases
from edgepack.device.store.rollback import check_release, roll_back
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.errors import (
    AuthError,
    ConnectError,
    DeviceError,
    DeviceTimeoutError,
    EdgePackError,
    UsageError,
)
from tests.fixtures.adbd import Adbd, AdbServer, start_adbd
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.commands import FLOAT_MODEL, QUICK, RunCommand, listing

pytestmark = [pytest.mark.adb, pytest.mark.usefixtures("adb_environment")]


@pytest.fixture
def board() -> Iterator[Adbd]:
    """A board with adbd, whose root is this machine's."""
    with start_adbd() as device:
        yield device


def refusal(address: str, kind: type[EdgePackError] = ConnectError) -> EdgePackError:
    with pytest.raises(kind) as caught, open_device(address):
        pass
    return caught.value


def await_end(argument: str) -> bool:
    """Tell whether all processes with an argument end within 20 s."""
    deadline = time.monotonic() + 20
    while is_running(argument) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return not is_running(argument)


def is_running(argument: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if argument.encode() in path.read_bytes():
                return True
    return False


def test_the_only_device_is_opened_under_its_serial(
    board: Adbd, adb_environment: AdbServer
) -> None:
    adb_environment.forget_devices()
    adb_environment.run("connect", board.serial)
    with open_device("adb:") as device:
        assert device.name == board.address
        assert device.run(["echo", "on"], timeout_seconds=20).text == "on\n"


def test_several_devices_are_listed(
    board: Adbd, adb_environment: AdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    adb_environment.forget_devices()
    with start_adbd() as other:
        for each in (board, other):
            adb_environment.run("connect", each.serial)
        message = refusal("adb:", UsageError).message
        assert message.startswith("adb: expected one attached device, found 2: ")
        assert f"{board.serial} (Scripted Phone)" in message
        assert f"{other.serial} (Scripted Phone)" in message
        monkeypatch.setenv("ANDROID_SERIAL", other.serial)
        with open_device("adb:") as device:
            assert device.name == other.address


def test_a_computer_that_is_not_authorized_is_told_so_until_it_is() -> None:
    with start_adbd(is_authorized=False) as locked:
        error = refusal(locked.address, AuthError)
        assert error.message == f"{locked.address} has not authorized this computer."
        assert error.remedy.startswith("Unlock its screen and answer the question")
        locked.authorize()
        with open_device(locked.address) as device:
            assert device.run(["true"], timeout_seconds=20).exit_code == 0


def test_recovery_is_no_place_to_measure() -> None:
    with start_adbd(mode="recovery") as device:
        assert refusal(device.address).message == f"{device.address} is in recovery mode."


def test_a_device_without_exit_codes_is_refused() -> None:
    with start_adbd(features=("cmd",)) as old:
        assert refusal(old.address).message == (
            f"{old.address}: its adb gives no exit codes (no shell_v2), so a failure there would "
            "look like success."
        )
        assert old.commands == []


def test_a_device_that_says_nothing() -> None:
    with (
        start_adbd(is_silent=True) as mute,
        pytest.raises(DeviceTimeoutError) as caught,
        open_device(mute.address, options=ConnectOptions(connect_timeout_seconds=0.5)),
    ):
        pass
    assert caught.value.message == (f"adb: adb connect {mute.serial} did not end within 0.5 s.")


def test_nobody_listens() -> None:
    with start_adbd() as gone:
        address = gone.address
    assert refusal(address).message == (
        f"{address}: failed to connect to '{address[4:]}': Connection refused."
    )


def test_unplugged_in_the_middle_of_a_command_is_no_success(board: Adbd) -> None:
    script = "echo on; sleep 60"
    with (
        open_device(board.address) as device,
        device.stream(["sh", "-c", script], timeout_seconds=30) as lines,
    ):
        assert next(lines) == b"on"
        board.unplug()
        with pytest.raises(ConnectError) as caught:
            list(lines)
    assert caught.value.message == (
        f"{board.address}: the connection was lost while sh -c '{script}' ran."
    )
    with open_device(board.address) as device:  # plugged in again
        assert device.run(["echo", "back"], timeout_seconds=20).text == "back\n"


def test_a_device_that_is_gone_between_two_commands(
    board: Adbd, adb_environment: AdbServer
) -> None:
    with open_device(board.address) as device:
        adb_environment.forget_devices()
        with pytest.raises(ConnectError) as caught:
            device.run(["true"], timeout_seconds=20)
    assert caught.value.message == (
        f"{board.address}: the connection was lost while true ran "
        f"(error: device '{board.serial}' not found)."
    )


def test_unplugged_in_the_middle_of_an_upload_leaves_a_part(board: Adbd, tmp_path: Path) -> None:
    target = tmp_path / "model"

    def unplug(_: int) -> None:
        parts = list(tmp_path.iterdir())
        if parts:
            board.unplug()

    with open_device(board.address) as device, pytest.raises(ConnectError):
        device.upload(b"x" * 50_000_000, str(target), timeout_seconds=30, on_progress=unplug)
    (part,) = tmp_path.iterdir()
    assert re.fullmatch(r"model\.[0-9a-f]{8}\.part", part.name)
    assert 0 < part.stat().st_size < 50_000_000


def test_unplugged_in_the_middle_of_a_push(board: Adbd, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    first = write_digits_bundle(tmp_path / "first.edgepack")
    files = {"classes.txt": b"zero\n", "more.bin": os.urandom(8_000_000)}
    second = write_digits_bundle(tmp_path / "second.edgepack", version="2.0", extra_files=files)
    staging = tmp_path / "root/staging"

    def unplug(_sent: int, _total: int) -> None:
        if any(part.stat().st_size > 2**20 for part in staging.rglob("*.part")):
            board.unplug()

    def current() -> str:
        with open_device(board.address) as device:
            (only,) = [each for each in list_releases(device, root=root) if each.is_current]
            check_release(device, Layout(root=root), only.name, only.release)
        return only.release

    with open_device(board.address) as device:
        push_bundle(device, first, root=root)
        with pytest.raises(ConnectError, match="the connection was lost while "):
            push_bundle(device, second, root=root, on_progress=unplug)
    assert current() == first.release
    with open_device(board.address) as device:  # plugged in again
        total_bytes = sum(record.num_bytes for record in second.files())
        assert push_bundle(device, second, root=root).sent_bytes <= total_bytes - 2**20
    assert current() == second.release
    with open_device(board.address) as device:
        roll_back(device, "digits", release=None, root=root)
    assert current() == first.release
    assert list(staging.iterdir()) == []


def test_the_exit_code_that_stands_for_the_end_is_a_code_like_any_other(board: Adbd) -> None:
    with open_device(board.address) as device:
        for code in (0, 1, 113, 255):
            result = device.run(["sh", "-c", f"printf err >&2; exit {code}"], timeout_seconds=20)
            assert (result.exit_code, result.stderr) == (code, "err")


def test_a_shell_that_was_killed_is_no_success(board: Adbd) -> None:
    script = "kill -KILL $PPID"
    with open_device(board.address) as device, pytest.raises(DeviceError) as caught:
        device.run(["sh", "-c", script], timeout_seconds=20)
    assert caught.value.message == f"{board.address}: sh -c '{script}' was killed."


def test_a_command_longer_than_adb_can_ask_for(board: Adbd) -> None:
    with open_device(board.address) as device:
        assert len(device.run(["echo", "x" * 60_000], timeout_seconds=20).stdout) == 60_001
        with pytest.raises(DeviceError) as caught:
            device.run(["echo", "x" * 62_000], timeout_seconds=20)
    assert caught.value.message.endswith("a device takes at most 61440 bytes.")


def test_a_linux_board_behind_adb_is_measured_like_any_other(
    run: RunCommand, board: Adbd, device_root: Path
) -> None:
    ran = run("bench", FLOAT_MODEL, board.address, "--root", device_root, *QUICK, "--json")
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["device"]["name"] == board.address
    assert body["golden"]["passed"] is True
    assert len(body["launches"]) == 6


class TestAndroid:
    def test_it_is_recognized(self, phone: Adbd) -> None:
        with open_device(phone.address) as device:
            facts = read_facts(device, "~/.edgepack")
        assert (facts.os_id, facts.os_name, facts.libc) == ("android", "Android 14", "bionic")
        assert facts.board == "Pixel 7"
        assert facts.python is None
        assert facts.root == "/data/local/tmp/.edgepack"

    def test_it_is_refused_before_anything_is_sent(self, run: RunCommand, phone: Adbd) -> None:
        assert phone.root is not None
        before = listing(phone.root)
        ran = run("bench", FLOAT_MODEL, phone.address, *QUICK)
        assert ran.code == 1
        message, remedy = ran.err.splitlines()[-2:]
        assert message == "edgepack: every runtime needs glibc, but Android 14 has bionic"
        assert remedy == (
            "  Install a Debian with an SSH server in Termux, or bring --runtime and "
            "--runtime-program: docs/devices.md (Android)."
        )
        assert listing(phone.root) == before

    def test_doctor_says_it_too(self, run: RunCommand, phone: Adbd) -> None:
        ran = run("doctor", phone.address, "--json")
        assert ran.code == 1
        (error,) = (each for each in ran.json()["findings"] if each["severity"] == "error")
        assert error["found"] == "every runtime needs glibc, but Android 14 has bionic"

    def test_its_own_shell_stops_what_hangs(self, phone: Adbd) -> None:
        seconds = str(time.time_ns())  # tells these processes from all others
        script = f"sleep {seconds} & sleep {seconds}"
        with open_device(phone.address) as device, pytest.raises(DeviceTimeoutError):
            device.run(["sh", "-c", script], timeout_seconds=1)
        assert await_end(seconds)

    def test_its_own_shell_and_tools_store_a_file(self, phone: Adbd) -> None:
        assert phone.root is not None
        content = os.urandom(1_000_000)
        with open_device(phone.address) as device:
            digest = device.upload(content, "/data/local/tmp/it's", timeout_seconds=30)
        assert digest == hashlib.sha256(content).hexdigest()
        stored = phone.root / "data/local/tmp/it's"
        assert stored.read_bytes() == content
        stored.unlink()

    def test_its_own_shell_takes_odd_arguments(self, phone: Adbd) -> None:
        odd = ["", "a b", "'", '"', "$HOME", "`id`", "\\", "!", "\n", "*", "é", "-n", "%s"]
        with open_device(phone.address) as device:
            result = device.run(["printf", "%s\\0", *odd], timeout_seconds=20)
            missing = device.run(["no-such-program"], timeout_seconds=20)
            killed = device.run(["sh", "-c", "kill -9 $$"], timeout_seconds=20)
        assert result.stdout.decode().split("\0")[:-1] == odd
        assert missing.exit_code == 127
        assert killed.exit_code == 128 + signal.SIGKILL
