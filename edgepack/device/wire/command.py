"""A running command, read to its end or line by line, on whichever wire."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from edgepack.device.wire import faults
from edgepack.device.wire.transport import CommandResult


class RunningCommand(Protocol):
    """What the wires promise of a command that runs."""

    @property
    def stderr(self) -> str:
        """What the command wrote to standard error, its last part when long."""
        ...

    def read(self) -> bytes:
        """Read the next part of standard output; empty at its end."""
        ...

    def wait(self) -> int:
        """Wait for the exit code, after the end of standard output."""
        ...


def read_result(
    command: RunningCommand, argv: Sequence[str], *, name: str, max_output_bytes: int
) -> CommandResult:
    """Read a command to its end.

    Raises:
        DeviceError: it wrote more than `max_output_bytes`.
    """
    output = bytearray()
    while data := command.read():
        output += data
        if len(output) > max_output_bytes:
            raise faults.output_too_long(name, argv, max_output_bytes)
    exit_code = command.wait()
    return CommandResult(exit_code=exit_code, stdout=bytes(output), stderr=command.stderr)


def read_lines(
    command: RunningCommand, argv: Sequence[str], *, name: str, max_line_bytes: int
) -> Iterator[bytes]:
    """Give a command's lines as they come, without their newlines.

    Raises:
        DeviceError: a line is longer than `max_line_bytes`, or the exit code is not 0.
    """
    pending = bytearray()
    while data := command.read():
        *ends, rest = data.split(b"\n")
        for end in ends:
            pending += end
            if len(pending) > max_line_bytes:
                raise faults.line_too_long(name, argv, max_line_bytes)
            yield bytes(pending)
            pending.clear()
        pending += rest
        if len(pending) > max_line_bytes:
            raise faults.line_too_long(name, argv, max_line_bytes)
    if pending:
        yield bytes(pending)
    exit_code = command.wait()
    if exit_code != 0:
        raise faults.stream_failed(name, argv, exit_code, command.stderr)
