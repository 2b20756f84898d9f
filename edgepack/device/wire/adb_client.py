"""The user's `adb` program: finding it, the devices it sees, and which of them is meant.

The program is asked, never its server: whoever runs the server, on whichever port or
machine (`ANDROID_ADB_SERVER_PORT`, `ADB_SERVER_SOCKET`), the program knows it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.device.wire.remote_shell import show_argv
from edgepack.device.wire.sections import clean_text
from edgepack.errors import AuthError, ConnectError, DeviceTimeoutError, UsageError

_MAX_DEVICES: Final = 64
_READY: Final = "device"
_PASSING: Final = frozenset({"authorizing", "connecting", "offline"})
_NO_ACCESS: Final = "no permissions"

# Serial, state, and what is known of the device (`adb devices -l`). A device without a
# serial stands there as "(no serial number)"; one that cannot be opened as a row of "?".
_ATTACHED: Final = re.compile(
    r"(?P<serial>\(no serial number\)|\S{1,255})\s+"
    r"(?P<state>no permissions|[a-z]{1,20})(?P<more>(?:\s.*)?)"
)
_MODEL: Final = re.compile(r"\smodel:(\S{1,64})")
_NETWORK: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]{2,64}\]|[^\[\]:]{1,253}):[0-9]{1,5}")

# What `adb devices` says of a device that cannot be used, and what to do. Names as in
# packages/modules/adb/adb.cpp, to_string(ConnectionState).
_STATES: Final = {
    "unauthorized": (
        "has not authorized this computer",
        (
            "Unlock its screen and answer the question 'Allow USB debugging?'. If none is shown, "
            "take 'Revoke USB debugging authorizations' in its developer options, and connect it "
            "again."
        ),
    ),
    "authorizing": (
        "is still being asked whether it trusts this computer",
        "Unlock its screen, answer the question there, then repeat.",
    ),
    "connecting": ("is still connecting", "Repeat in a moment, or connect it again."),
    "offline": (
        "does not answer (adb calls it offline)",
        "Connect it again, or switch USB debugging off and on in its developer options.",
    ),
    _NO_ACCESS: (
        "may not be opened by this user",
        (
            "Install the udev rules (Debian: `sudo apt install android-sdk-platform-tools-common`),"
            " see that the user is in the group plugdev, then connect it again."
        ),
    ),
    "recovery": ("is in recovery mode", "Restart it: `adb -s {serial} reboot`."),
    "rescue": ("is in rescue mode", "Restart it: `adb -s {serial} reboot`."),
    "sideload": ("waits for an update (sideload)", "Restart it: `adb -s {serial} reboot`."),
    "bootloader": ("is in its boot loader", "Restart it: `fastboot -s {serial} reboot`."),
    "detached": ("is detached from adb", "Attach it: `adb -s {serial} attach`."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachedDevice:
    """A device that adb lists.

    Attributes:
        serial: what adb calls it: a serial number, or HOST:PORT.
        state: `device` when it can be used, else one of `adb devices`' words.
        model: as the device names itself, or an empty text.
    """

    serial: str
    state: str
    model: str

    def __str__(self) -> str:
        words = [word for word in (self.model, "" if self.is_ready else self.state) if word]
        return f"{self.serial} ({', '.join(words)})" if words else self.serial

    @property
    def is_ready(self) -> bool:
        """Whether commands can be run on it."""
        return self.state == _READY


@dataclass(frozen=True, kw_only=True, slots=True)
class AdbClient:
    """The `adb` program and the device it shall speak to.

    Attributes:
        program: absolute path.
        serial: of the device, as `adb devices` lists it.
    """

    program: str
    serial: str

    def shell_argv(self, command: str) -> tuple[str, ...]:
        """Give the argv that runs a command in the device's shell, without a terminal."""
        return (self.program, "-s", self.serial, "shell", "-T", command)


def parse_devices(text: str) -> tuple[AttachedDevice, ...]:
    """Read what `adb devices -l` printed; lines that name no device are passed over."""
    found: list[AttachedDevice] = []
    for line in text.splitlines():
        match = _ATTACHED.fullmatch(clean_text(line, limit=2000))
        if match is None or line.startswith(("*", "adb ", "adb: ", "List of devices")):
            continue
        model = _MODEL.search(match["more"])
        found.append(
            AttachedDevice(
                serial=match["serial"],
                state=match["state"],
                model=model[1].replace("_", " ") if model else "",
            )
        )
    return tuple(found[:_MAX_DEVICES])


def is_network(serial: str) -> bool:
    """Tell whether a serial is HOST:PORT, which adb must be told to connect to."""
    return bool(_NETWORK.fullmatch(serial))


def find_program(environment: Mapping[str, str] | None = None) -> str:
    """Find the `adb` program: on PATH, or in the Android SDK's folder.

    Raises:
        ConnectError: there is none.
    """
    environment = os.environ if environment is None else environment
    sdk = [environment.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT")]
    folders = [str(Path(folder) / "platform-tools") for folder in sdk if folder]
    places = os.pathsep.join([environment.get("PATH", os.defpath), *folders])
    program = shutil.which("adb", path=places)
    if program is None:
        raise ConnectError(
            "adb: expected the adb program on PATH or in ANDROID_HOME/platform-tools, found none.",
            remedy="Install it (Debian: `sudo apt install adb`; macOS: `brew install "
            "android-platform-tools`), or set ANDROID_HOME to the Android SDK.",
        )
    return str(Path(program).absolute())


def connect_client(serial: str, *, timeout_seconds: float) -> AdbClient:
    """Find the device that is meant, and see that adb can run commands on it.

    Args:
        serial: a serial number, HOST:PORT, or an empty text for `ANDROID_SERIAL`, else the
            only device attached.
        timeout_seconds: limit of each step.

    Raises:
        UsageError: several devices are attached, and none was named.
        AuthError: the device does not trust this computer, or this user may not open it.
        ConnectError: there is no such device, or it is not ready.
        DeviceTimeoutError: a step took too long.
    """
    program = find_program()
    serial = serial or os.environ.get("ANDROID_SERIAL", "")
    if is_network(serial):
        _connect_network(program, serial, timeout_seconds)
    device = choose_device(_list_devices(program, timeout_seconds), serial)
    if device.state in _PASSING:
        device = _await_ready(program, device, timeout_seconds)
    if not device.is_ready:
        raise explain_state(device)
    client = AdbClient(program=program, serial=device.serial)
    _check_shell(client, timeout_seconds)
    return client


def choose_device(attached: Sequence[AttachedDevice], serial: str) -> AttachedDevice:
    """Give the device of this serial, or the only one when none is named.

    Raises:
        UsageError: none was named, and there are several.
        ConnectError: there is none, or none of this serial.
    """
    shown = ", ".join(map(str, attached))
    if serial:
        for device in attached:
            if device.serial == serial:
                return device
        if attached:
            there = f"there {'is' if len(attached) == 1 else 'are'} {shown}"
            raise ConnectError(
                f"adb:{serial}: no such device is attached; {there}.",
                remedy=f"Name {'that one' if len(attached) == 1 else 'one of them'}, or connect "
                "it; a device on the network is written adb:HOST:5555.",
            )
    if not attached:
        raise ConnectError(
            f"adb:{serial}: no device is attached." if serial else "adb: no device is attached.",
            remedy="Switch on USB debugging in its developer options and plug it in, or write "
            "adb:HOST:5555 for a device on the network.",
        )
    if len(attached) > 1:
        raise UsageError(
            f"adb: expected one attached device, found {len(attached)}: {shown}.",
            remedy=f"Name the one that is meant, as in adb:{attached[0].serial}, or set "
            "ANDROID_SERIAL.",
        )
    return attached[0]


def explain_state(device: AttachedDevice) -> ConnectError:
    """Make the error for a device that is attached and cannot be used."""
    what, remedy = _STATES.get(
        device.state,
        (f"is in the state {device.state!r}", "See `adb devices`, and connect it again."),
    )
    refused = device.state in {"unauthorized", "authorizing", _NO_ACCESS}
    kind = AuthError if refused else ConnectError
    return kind(f"adb:{device.serial} {what}.", remedy=remedy.format(serial=device.serial))


def _list_devices(program: str, timeout_seconds: float) -> tuple[AttachedDevice, ...]:
    result = _ask([program, "devices", "-l"], timeout_seconds)
    if result.returncode:
        raise ConnectError(
            f"adb: its server gave no list of devices: {_last_words(result)}",
            remedy="See what `adb devices` says; `adb kill-server` lets it start anew.",
        )
    return parse_devices(result.stdout)


def _connect_network(program: str, serial: str, timeout_seconds: float) -> None:
    result = _ask([program, "connect", serial], timeout_seconds)
    said = clean_text(result.stdout)
    # adb 29 says what went wrong on standard output and exits with 0, later ones with 1.
    if "connected to" in said or "failed to authenticate" in said:
        return
    raise ConnectError(
        f"adb:{serial}: {said or _last_words(result)}.",
        remedy="See that wireless debugging (or adbd's TCP port) is on there, and that this "
        "machine reaches the port; a device of Android 11 or later wants `adb pair` once.",
    )


def _await_ready(program: str, device: AttachedDevice, timeout_seconds: float) -> AttachedDevice:
    """Wait for a state that passes by itself; one that stays is given as it is."""
    if device.state == "offline" and is_network(device.serial):
        # The connection was lost once; adb keeps the dead one under the same name.
        _ask([program, "disconnect", device.serial], timeout_seconds)
        _connect_network(program, device.serial, timeout_seconds)
    with suppress(DeviceTimeoutError):  # the state says more than the time that passed
        _ask([program, "-s", device.serial, "wait-for-device"], timeout_seconds)
    return choose_device(_list_devices(program, timeout_seconds), device.serial)


def _check_shell(client: AdbClient, timeout_seconds: float) -> None:
    argv = [client.program, "-s", client.serial, "features"]
    result = _ask(argv, timeout_seconds)
    if result.returncode:
        raise ConnectError(
            f"adb:{client.serial} did not say what it can do: {_last_words(result)}",
            remedy="Connect it again; `adb devices` must call it 'device'.",
        )
    if "shell_v2" not in result.stdout.split():
        raise ConnectError(
            f"adb:{client.serial}: its adb gives no exit codes (no shell_v2), so a failure there "
            "would look like success.",
            remedy="Use Android 7 or later, or reach the device over SSH.",
        )


def _ask(argv: Sequence[str], timeout_seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceTimeoutError(
            f"adb: {show_argv(['adb', *argv[1:]])} did not end within {timeout_seconds:g} s.",
            remedy="See whether the device is up; `adb kill-server` lets adb start anew.",
        ) from None
    except OSError as error:
        raise ConnectError(
            f"adb: {argv[0]} cannot be run: {error.strerror}.",
            remedy="Install adb for this machine.",
        ) from None


def _last_words(result: subprocess.CompletedProcess[str]) -> str:
    lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return clean_text(lines[-1]) if lines else f"exit code {result.returncode}"
