"""The devices that adb lists, and which of them is meant."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.wire.adb_client import (
    AttachedDevice,
    choose_device,
    connect_client,
    explain_state,
    find_program,
    is_network,
    parse_devices,
)
from edgepack.errors import AuthError, ConnectError, UsageError

# Of adb 29 to 35; the emulator's and the phones' lines are cut from bug reports.
LISTED = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
emulator-5554          device product:sdk_gphone64_arm64 model:sdk_gphone64_arm64 \
device:emu64a transport_id:1
R58M123ABC             device usb:1-1 product:panther model:Pixel_7 device:panther transport_id:2
192.168.1.20:5555      offline transport_id:3
0123456789ABCDEF       unauthorized usb:1-2 transport_id:4
????????????           no permissions (user in plugdev group; are your udev rules wrong?); \
see [http://developer.android.com/tools/device.html] usb:1-3 transport_id:5
(no serial number)     recovery usb:1-4 transport_id:6
adb-R58M-x._adb-tls-connect._tcp device product:a model:b device:c transport_id:7

"""


def device(serial: str, state: str = "device", model: str = "") -> AttachedDevice:
    return AttachedDevice(serial=serial, state=state, model=model)


def test_every_listed_device_is_read() -> None:
    assert parse_devices(LISTED) == (
        device("emulator-5554", model="sdk gphone64 arm64"),
        device("R58M123ABC", model="Pixel 7"),
        device("192.168.1.20:5555", "offline"),
        device("0123456789ABCDEF", "unauthorized"),
        device("????????????", "no permissions"),
        device("(no serial number)", "recovery"),
        device("adb-R58M-x._adb-tls-connect._tcp", model="b"),
    )
    assert parse_devices("List of devices attached\n\n") == ()


@given(st.text())
def test_any_list_is_survived(text: str) -> None:
    for found in parse_devices(text):
        assert found.serial.isprintable()
        assert len(str(found)) < 400


@pytest.mark.parametrize(
    ("serial", "answer"),
    [
        ("192.168.1.20:5555", True),
        ("[fe80::1%eth0]:5555", True),
        ("board.local:5555", True),
        ("R58M123ABC", False),
        ("usb:1-1", False),
        ("emulator-5554", False),
        ("", False),
    ],
)
def test_a_host_and_a_port_are_a_network_device(serial: str, answer: bool) -> None:  # noqa: FBT001 - a table's column
    assert is_network(serial) is answer


ONE, OTHER = device("R58M123ABC", model="Pixel 7"), device("emulator-5554", "offline")


def test_the_only_device_needs_no_name() -> None:
    assert choose_device([ONE], "") is ONE
    assert choose_device([ONE, OTHER], "emulator-5554") is OTHER


def test_among_several_none_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        choose_device([ONE, OTHER], "")
    assert caught.value.message == (
        "adb: expected one attached device, found 2: R58M123ABC (Pixel 7), emulator-5554 (offline)."
    )
    assert caught.value.remedy == (
        "Name the one that is meant, as in adb:R58M123ABC, or set ANDROID_SERIAL."
    )


@pytest.mark.parametrize(
    ("attached", "serial", "message", "remedy"),
    [
        ([], "", "adb: no device is attached.", "Switch on USB debugging"),
        ([], "X1", "adb:X1: no device is attached.", "Switch on USB debugging"),
        (
            [ONE],
            "X1",
            "adb:X1: no such device is attached; there is R58M123ABC (Pixel 7).",
            "Name that one, or ",
        ),
        (
            [ONE, OTHER],
            "X1",
            (
                "adb:X1: no such device is attached; there are R58M123ABC (Pixel 7), "
                "emulator-5554 (offline)."
            ),
            "Name one of them, or ",
        ),
    ],
)
def test_a_device_that_is_not_there(
    attached: list[AttachedDevice], serial: str, message: str, remedy: str
) -> None:
    with pytest.raises(ConnectError) as caught:
        choose_device(attached, serial)
    assert caught.value.message == message
    assert caught.value.remedy.startswith(remedy)
    assert "adb:HOST:5555" in caught.value.remedy


@pytest.mark.parametrize(
    ("state", "kind", "message", "remedy"),
    [
        ("unauthorized", AuthError, "adb:X1 has not authorized this computer.", "Allow USB debugg"),
        ("no permissions", AuthError, "adb:X1 may not be opened by this user.", "plugdev"),
        ("offline", ConnectError, "adb:X1 does not answer (adb calls it offline).", "Connect it"),
        ("recovery", ConnectError, "adb:X1 is in recovery mode.", "`adb -s X1 reboot`"),
        ("sideload", ConnectError, "adb:X1 waits for an update (sideload).", "-s X1 reboot`"),
        ("bootloader", ConnectError, "adb:X1 is in its boot loader.", "fastboot -s X1 reboot"),
        ("host", ConnectError, "adb:X1 is in the state 'host'.", "See `adb devices`"),
    ],
)
def test_a_state_is_explained(
    state: str, kind: type[ConnectError], message: str, remedy: str
) -> None:
    error = explain_state(device("X1", state))
    assert type(error) is kind
    assert error.message == message
    assert remedy in error.remedy


def test_the_program_is_found_on_path_or_in_the_sdk(tmp_path: Path) -> None:
    program = tmp_path / "sdk" / "platform-tools" / "adb"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    own = tmp_path / "bin"
    own.mkdir()
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        found = find_program({"PATH": str(own), name: str(tmp_path / "sdk")})
        assert found == str(program)
    (own / "adb").symlink_to(program)
    assert find_program({"PATH": str(own)}) == str(own / "adb")


def test_a_missing_program_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    with pytest.raises(ConnectError) as caught:
        connect_client("", timeout_seconds=5)
    assert caught.value.message == (
        "adb: expected the adb program on PATH or in ANDROID_HOME/platform-tools, found none."
    )
    assert "sudo apt install adb" in caught.value.remedy


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\necho 'cannot connect to daemon' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConnectError) as caught:
        connect_client("X1", timeout_seconds=20)
    assert caught.value.message == (
        "adb: its server gave no list of devices: cannot connect to daemon"
    )
