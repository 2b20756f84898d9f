"""A device behind a wire: all it does is a command that runs there."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from edgepack.device.wire.command import read_lines, read_result
from edgepack.device.wire.compression import Codec
from edgepack.device.wire.sending import SendingCommand, send_file
from edgepack.device.wire.transport import CommandResult, ProgressCallback


class WiredCommand(SendingCommand, Protocol):
    """A command that runs on a device, on whichever wire."""

    def feed(self, data: bytes) -> None:
        """Send standard input, beside the reading of output, and close it."""
        ...


class WiredDevice(ABC):
    """A device reached through a wire; a `transport.Device`.

    Args:
        name: what the user calls it.
        part_bytes: what an upload sends at once.
    """

    def __init__(self, *, name: str, part_bytes: int) -> None:
        self._name = name
        self._part_bytes = part_bytes

    @abstractmethod
    def start(
        self, argv: Sequence[str], timeout_seconds: float
    ) -> AbstractContextManager[WiredCommand]:
        """Start a command on the device; leaving the context stops it."""

    @property
    def name(self) -> str:
        """What the user calls the device."""
        return self._name

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command to its end; see `transport.Device.run`."""
        with self.start(argv, timeout_seconds) as command:
            command.feed(stdin)
            return read_result(command, argv, name=self._name, max_output_bytes=max_output_bytes)

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> Iterator[Iterator[bytes]]:
        """Run a command and iterate over its lines; see `transport.Device.stream`."""
        with self.start(argv, timeout_seconds) as command:
            command.feed(b"")
            yield read_lines(command, argv, name=self._name, max_line_bytes=max_line_bytes)

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
        """Write a file on the device; see `transport.Device.upload`."""
        return send_file(
            self.start,
            source,
            target,
            name=self._name,
            timeout_seconds=timeout_seconds,
            mode=mode,
            part_bytes=self._part_bytes,
            on_progress=on_progress,
            codec=codec,
            on_wire=on_wire,
        )
