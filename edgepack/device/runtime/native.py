"""The native runner on a device: chosen by facts, installed once a version, proved by a start.

It is a small program and the C library that TensorFlow Lite is in, for devices without a Python
that a runtime exists for. The library is the one in the wheels of `pymicro-wakeword`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from edgepack.cache import Cache, digest_parts
from edgepack.crossbuild import PROGRAM, build_runner, runner_key
from edgepack.device.runtime.wheel_files import fetch_wheel, unpack_wheel
from edgepack.device.runtime.wheels import (
    ARMV7_FEATURES,
    LIBSTDCXX_REMEDY,
    Wheel,
    check_libc,
    find_wheel,
    judge_needs,
)
from edgepack.device.store.layout import Layout
from edgepack.device.store.payload import PlacedFile, describe_file
from edgepack.device.store.placing import place_proved
from edgepack.device.store.staging import TransferCallback
from edgepack.device.survey.facts import DeviceFacts
from edgepack.device.wire.address import subject
from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.transport import CommandResult, Device
from edgepack.errors import ProvisionError, ToolchainError
from edgepack.profile import missing_features

ENGINE: Final = "tensorflow-lite-c"
VERSION: Final = "2.17.1"
"""What the library says of itself (TfLiteVersion); pymicro-wakeword's own is another."""

_PROJECT: Final = ("pymicro-wakeword", ("2.5.0",), "py3")
_LIBRARY: Final = "libtensorflowlite_c.so"
_CHECK_SECONDS: Final = 60.0
_CHECK: Final = json.dumps({"mode": "check"})
# Files are sent without the right to run them, which the program alone gets.
_CHECK_PRESENT: Final = 'touch -c -- "${1%/*}" 2>/dev/null; exec "$@"'  # see `holdings`
_CHECK_SENT: Final = 'chmod 0555 -- "$1" && exec "$@"'
# What a shell exits with when a program could not be started, and when there is none (POSIX,
# 2.8.2); "none" is also said of a program whose loader, which it names, is not there.
_NOT_STARTED: Final = 126
_NOT_FOUND: Final = 127


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeRuntime:
    """The library that runs models on a device without Python.

    Attributes:
        wheel: what it comes in.
    """

    wheel: Wheel

    @property
    def digest(self) -> str:
        """Hex digest of what is installed: the pinned wheel and what the program is made of."""
        return digest_parts(
            "native-runtime", wheel=self.wheel.sha256, runner=runner_key(self.wheel.arch)
        )

    @property
    def folder_name(self) -> str:
        """Name of its folder on a device."""
        return f"{ENGINE}-{VERSION}-native-{self.digest[:12]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeInstallation:
    """A native runner in place on a device.

    Attributes:
        folder: absolute path of what was installed.
        library_name: file name of the runtime library in it.
        version: what that library says of itself.
        sent_bytes: bytes sent to install it just now; 0 when it was there.
    """

    folder: str
    library_name: str
    version: str
    sent_bytes: int

    @property
    def program(self) -> str:
        """Absolute path of the runner."""
        return f"{self.folder}/{PROGRAM}"

    @property
    def library(self) -> str:
        """Absolute path of the runtime library."""
        return f"{self.folder}/{self.library_name}"


def choose_native(facts: DeviceFacts) -> NativeRuntime:
    """Choose the library that the device's system can load.

    Raises:
        ProvisionError: there is none; says why and what would help.
    """
    check_libc(facts)
    where = facts.os_name or facts.system
    wheel = find_wheel(*_PROJECT, facts)
    if wheel is None:
        raise ProvisionError(
            f"the native runner has no library for {facts.system} {facts.arch}",
            remedy="Give the device a Python that a runtime exists for: 3.9 to 3.14.",
        )
    unmet = judge_needs(wheel.needs, facts)
    if unmet:
        raise ProvisionError(
            f"the native runner's library, {ENGINE} {VERSION}, {unmet}",
            remedy=LIBSTDCXX_REMEDY
            if facts.libstdcxx is None and "libstdc++" in unmet
            else "Upgrade the device's system to one with glibc 2.36, such as Debian 12 or "
            "Raspberry Pi OS bookworm, or give it Python 3.9, for which there is an older runtime.",
        )
    if facts.arch == "armv7l" and facts.cpu_features:
        missing = missing_features(ARMV7_FEATURES, facts.cpu_features)
        if missing:
            raise ProvisionError(
                f"the native runner's library needs a core with {', '.join(ARMV7_FEATURES)}, but "
                f"that of {where} has no {', '.join(missing)}",
                remedy="Give the device Python 3.9 to 3.11 and numpy 1.x instead.",
            )
    return NativeRuntime(wheel=wheel)


def install_native(
    device: Device,
    runtime: NativeRuntime,
    *,
    root: str,
    cache: Cache,
    on_progress: Callable[[str], None],
    on_transfer: TransferCallback | None = None,
) -> NativeInstallation:
    """Make sure that the native runner and its library are on the device and start there.

    Args:
        device: a connected device.
        runtime: what suits it.
        root: absolute deploy root, as in the facts.
        cache: where the wheel and the compiled program are kept.
        on_progress: called with each step in words.
        on_transfer: called as bytes go out.

    Raises:
        ProvisionError: the program cannot be built, the library cannot be downloaded, or they do
            not start there.
        DeployError: no room or permission.
        ConnectError: the link was lost; nothing half-installed is in use.
    """
    return install_program(
        device,
        root=root,
        folder_name=runtime.folder_name,
        library_name=_LIBRARY,
        label=f"{ENGINE} {VERSION}",
        version=VERSION,
        load_files=lambda: _collect_files(runtime, cache, on_progress),
        on_progress=on_progress,
        on_transfer=on_transfer,
    )


def install_program(
    device: Device,
    *,
    root: str,
    folder_name: str,
    library_name: str,
    label: str,
    version: str | None,
    load_files: Callable[[], tuple[PlacedFile, ...]],
    on_progress: Callable[[str], None],
    on_transfer: TransferCallback | None,
) -> NativeInstallation:
    """Make sure that a runner and its library are on the device and start there.

    Args:
        device: a connected device.
        root: absolute deploy root.
        folder_name: of the folder below the runtimes, which tells the content.
        library_name: file name of the library.
        label: what it is called in messages.
        version: what the library must say of itself; None takes any.
        load_files: gives what is to be in the folder, when it is not there yet.
        on_progress: called with each step in words.
        on_transfer: called as bytes go out.

    Raises:
        ProvisionError: they do not start there.
        DeployError: no room or permission.
        ConnectError: the link was lost; nothing half-installed is in use.
    """
    layout = Layout(root=root)
    folder = f"{layout.runtimes}/{folder_name}"
    present = _start(device, folder, library_name, script=_CHECK_PRESENT)
    found = _read_version(present)
    if present.exit_code == 0 and found is not None:
        return NativeInstallation(
            folder=folder, library_name=library_name, version=found, sent_bytes=0
        )
    files = load_files()
    size = sum(file.num_bytes for file in files) / 2**20
    on_progress(f"installing {label} on {device.name} ({size:.0f} MiB)")
    proved, transfer = place_proved(
        device,
        layout,
        folder=folder,
        files=files,
        prove=lambda staged: _prove(device, staged, library_name, label=label, version=version),
        on_progress=on_transfer,
    )
    return NativeInstallation(
        folder=folder,
        library_name=library_name,
        version=proved,
        sent_bytes=transfer.sent_bytes,
    )


def _collect_files(
    runtime: NativeRuntime, cache: Cache, on_progress: Callable[[str], None]
) -> tuple[PlacedFile, ...]:
    wheel = runtime.wheel
    path = cache.root / "wheels" / wheel.file
    if not path.is_file():
        on_progress(f"downloading {wheel.file} ({wheel.num_bytes / 2**20:.0f} MiB)")
    contents = {
        PurePosixPath(name).name: content
        for name, content in unpack_wheel(fetch_wheel(wheel, path.parent))
        if name.endswith(f"/{_LIBRARY}") or "/LICENSE" in name
    }
    try:
        contents[PROGRAM] = build_runner(wheel.arch, cache=cache, on_progress=on_progress)
    except ToolchainError as error:
        raise ProvisionError(error.message, remedy=error.remedy) from error
    return tuple(describe_file(name, content) for name, content in sorted(contents.items()))


def _start(device: Device, folder: str, library_name: str, *, script: str) -> CommandResult:
    program, library = f"{folder}/{PROGRAM}", f"{folder}/{library_name}"
    return device.run(
        ["sh", "-c", script, "edgepack", program, "--library", library, _CHECK],
        timeout_seconds=_CHECK_SECONDS,
    )


def _read_version(result: CommandResult) -> str | None:
    """Give what the library said of itself; None when it said nothing."""
    for event in _read_events(result):
        version = event.get("version")
        if (event.get("event"), event.get("name")) == ("engine", ENGINE) and version is not None:
            return clean_text(str(version), limit=40)
    return None


def _prove(
    device: Device, folder: str, library_name: str, *, label: str, version: str | None
) -> str:
    """Start the program that was just sent and give the library's version.

    Raises:
        ProvisionError: it does not start; with what it, or the system, said.
    """
    result = _start(device, folder, library_name, script=_CHECK_SENT)
    found = _read_version(result)
    if found is not None and version in {None, found}:
        return found
    events = _read_events(result)
    errors = [event for event in events if event.get("event") == "error"]
    said = str(errors[0].get("message")) if errors else _last_words(result)
    remedy = "Install what is named there on the device, then repeat"
    if result.exit_code == _NOT_STARTED:
        remedy = "Give a --root on a file system that programs may be started from (not noexec)"
    elif result.exit_code == _NOT_FOUND and "shared librar" not in said:
        remedy = "The loader that the program names is not there; run a system with its C library"
    elif "libstdc++" in said:
        remedy = LIBSTDCXX_REMEDY.removesuffix(".")
    raise ProvisionError(
        f"{subject(device.name)} {label} was sent, but it does not start there: "
        f"{clean_text(said, limit=400)}",
        remedy=f"{remedy}; nothing of the runtime is in use.",
    )


def _read_events(result: CommandResult) -> list[dict[str, object]]:
    events: list[dict[str, object]] = []
    for line in result.text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a noisy login
        if isinstance(event, dict):
            events.append(event)
    return events


def _last_words(result: CommandResult) -> str:
    return (result.stderr.strip().splitlines() or [f"exit {result.exit_code}"])[-1]
