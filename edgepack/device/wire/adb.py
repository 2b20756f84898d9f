"""A device behind adb: a phone, a tablet, or a board that runs adbd."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final, Self

from edgepack.device.wire.adb_client import AdbClient
from edgepack.device.wire.local import LocalCommand
from edgepack.device.wire.remote_shell import (
    END_CODE,
    show_argv,
    split_end,
    split_start,
    stop_argv,
    wrap_command,
)
from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.sending import SLOWEST_READ_BYTES_PER_SECOND
from edgepack.device.wire.wired import WiredDevice
from edgepack.errors import ConnectError, DeviceError, EdgePackError, KilledError
from edgepack.interrupts import enter_held

# adb 29 writes the length of what it asks its server in four hex digits, and asks wrongly
# for more than they hold.
_MAX_COMMAND_BYTES: Final = 60 * 1024
_SEND_BYTES: Final = 64 * 1024
_NOISE_BYTES: Final = 64 * 1024
_STOP_SECONDS: Final = 6.0
_SIGNAL_BASE: Final = 128


class AdbCommand:
    """A command running on the device, behind an `adb shell` of its own on this machine.

    Used inside `with`: leaving before the end stops the process on the device.

    `adb shell` ends with 0 when the device goes away (adb 29: unplugged in the middle of a
    command, it looks like success), so that the command ends with a code of our own, which
    comes after the last of its output, and tells its true one on standard error.
    """

    def __init__(
        self, client: AdbClient, argv: Sequence[str], *, name: str, timeout_seconds: float
    ) -> None:
        self._client = client
        self._argv = argv
        self._name = name
        self._command = wrap_command(argv, tells_end=True, max_bytes=_MAX_COMMAND_BYTES)
        self._process: int | None = None
        self._pending = b""
        self._has_ended = False
        self._shell = LocalCommand(
            client.shell_argv(self._command.text),
            name=name,
            timeout_seconds=timeout_seconds,
            shown=argv,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._shell.__exit__(*exception)
        if not self._has_ended and self._process is not None:
            self._stop(self._process)

    @property
    def stderr(self) -> str:
        """What the command wrote to standard error, its last part when long."""
        _, said = split_end(self._command, self._shell.stderr_bytes)
        return said.decode("utf-8", errors="replace")

    def feed(self, data: bytes) -> None:
        """Send standard input, beside the reading of output, and close it."""
        self._shell.feed(data)

    def send(self, data: memoryview) -> None:
        """Send a part of standard input; the timeout is for each step forward.

        Raises:
            DeviceTimeoutError: nothing could be sent.
            BrokenPipeError: the command has ended, or the link.
        """
        self._shell.send(data)

    def close_stdin(self, *, num_bytes: int) -> None:
        """Close standard input; what was sent may be read once more before the answer comes."""
        self._shell.close_stdin(more_seconds=num_bytes / SLOWEST_READ_BYTES_PER_SECOND)

    def read(self) -> bytes:
        """Read the next part of standard output; empty at its end.

        Raises:
            DeviceTimeoutError: the command's time is over.
            ConnectError: the link was lost.
            DeviceError: the device's shell did not run the command.
        """
        if self._process is None:
            self._await_marker()
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        return self._shell.read()

    def _await_marker(self) -> None:
        received = b""
        while True:
            start = split_start(self._command, received)
            if start is not None:
                self._process, self._pending = start
                return
            data = self._shell.read()
            if not data:
                self._end()
                said = clean_text(f"{received.decode(errors='replace')} {self.stderr}")
                raise self._not_run(f"it said: {said}" if said else "it said nothing")
            received += data
            if len(received) > _NOISE_BYTES:
                raise self._not_run(f"it printed more than {_NOISE_BYTES} bytes instead")

    def _not_run(self, reason: str) -> DeviceError:
        return DeviceError(
            f"{self._name}: the device's shell did not run {show_argv(self._argv)}; {reason}.",
            remedy="See whether `adb shell uname -a` works.",
        )

    def _end(self) -> int | None:
        """Wait for the end of `adb shell`; give the command's own exit code when it told one.

        Raises:
            DeviceTimeoutError: the command's time is over.
            ConnectError: the link was lost.
        """
        code = self._shell.wait(drain_seconds=_STOP_SECONDS)
        self._has_ended = True
        exit_code, said = split_end(self._command, self._shell.stderr_bytes)
        if code == END_CODE and exit_code is not None:
            return exit_code
        if code > _SIGNAL_BASE:  # the device's own shell was killed
            return None
        words = clean_text(said.decode("utf-8", errors="replace")) if self._process is None else ""
        raise ConnectError(
            f"{self._name}: the connection was lost while {show_argv(self._argv)} ran"
            + (f" ({words})." if words else "."),
            remedy="See whether the device is still attached (`adb devices`), then try again.",
        )

    def wait(self) -> int:
        """Wait for the exit code, after the end of standard output.

        Raises:
            DeviceTimeoutError: the command's time is over.
            ConnectError: the link was lost.
            DeviceError: the command ended without an exit code.
        """
        exit_code = self._end()
        if exit_code is None:
            raise KilledError(
                f"{self._name}: {show_argv(self._argv)} was killed.",
                remedy="See whether the device ran out of memory (`adb logcat` says so).",
            )
        return exit_code

    def _stop(self, process: int) -> None:
        """End the process on the device; without a link there is no way to."""
        argv = stop_argv(process)
        text = wrap_command(argv, tells_end=True).text
        with (
            suppress(EdgePackError),  # the process meets its closed output at its next line
            LocalCommand(
                self._client.shell_argv(text),
                name=self._name,
                timeout_seconds=_STOP_SECONDS,
            ) as command,
        ):
            command.feed(b"")
            while command.read():
                pass
            command.wait()


class AdbDevice(WiredDevice):
    """A device reached through the user's `adb` program; a `transport.Device`."""

    def __init__(self, client: AdbClient) -> None:
        super().__init__(name=f"adb:{client.serial}", part_bytes=_SEND_BYTES)
        self._client = client

    def start(
        self, argv: Sequence[str], timeout_seconds: float
    ) -> AbstractContextManager[AdbCommand]:
        """Start a command on the device."""
        return enter_held(
            lambda: AdbCommand(self._client, argv, name=self.name, timeout_seconds=timeout_seconds)
        )
