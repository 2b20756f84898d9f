"""What every device can do, whichever wire leads to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgepack.device.wire.compression import Codec

ProgressCallback = Callable[[int], None]
"""Called with the number of bytes just sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """A finished command.

    Attributes:
        exit_code: the command's own; 128 + signal when a signal ended it.
        stdout: what it wrote, bounded by the caller's limit.
        stderr: likewise, as text for messages.
    """

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as text; undecodable bytes are replaced."""
        return self.stdout.decode("utf-8", errors="replace")


class Device(Protocol):
    """A connected device; made by `edgepack.device.wire.connect.open_device`, used inside `with`.

    Commands are argv lists: quoting for the wire happens in the transport and nowhere
    else. Paths on the device are absolute POSIX paths as texts. Every operation ends
    within its timeout.
    """

    @property
    def name(self) -> str:
        """What the user calls the device, free of secrets."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command to its end.

        Raises:
            DeviceTimeoutError: it did not end in time; says which command hung.
            ConnectError: the link was lost.
            DeviceError: it wrote more than `max_output_bytes`.
        """
        ...

    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Run a command and iterate over its standard output's lines as they come.

        Leaving the context before the end stops the command. The iterator ends when the
        command exits with 0.

        Raises:
            DeviceTimeoutError: no end within the timeout.
            ConnectError: the link was lost.
            DeviceError: a non-zero exit code (with the last of stderr), or a line too long.
        """
        ...

    def upload(
        self,
        source: Path | bytes,
        target: str,
        *,
        timeout_seconds: float,
        mode: int = 0o644,
        on_progress: ProgressCallback | None = None,
        codec: Codec | None = None,
        on_wire: ProgressCallback | None = None,
    ) -> str:
        """Write a file on the device, replacing none that others may be reading.

        The target is a staging name chosen by the caller; its folder exists. When the link
        is lost, what arrived may stay beside it, as `TARGET.<8 hex digits>.part`.

        Args:
            source: the file, or its content.
            target: absolute path.
            timeout_seconds: limit for each step forward.
            mode: permissions of the target.
            on_progress: called with bytes of the file as they go out.
            codec: compresses it on the wire; the device has the program that unpacks it. A device
                without a wire does without.
            on_wire: called with bytes as they go over the wire.

        Returns:
            The sha256 hex digest the *device* computed over what it stored.

        Raises:
            DeviceTimeoutError: no progress within the timeout.
            ConnectError: the link was lost.
            DeviceError: the device refused: no space, no permission, read-only.
        """
        ...
