"""Files as a stream over a command: stored under a partial name, hashed by the device, renamed."""

import hashlib
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Final, Protocol

from edgepack.device.wire import faults
from edgepack.device.wire.command import RunningCommand, read_result
from edgepack.device.wire.compression import Codec, compress, unpack_command
from edgepack.device.wire.hashing import UNHASHED
from edgepack.device.wire.remote_shell import upload_argv
from edgepack.device.wire.transport import ProgressCallback

SLOWEST_READ_BYTES_PER_SECOND: Final = 4 * 2**20
"""Of a worn card, or of a CPU without instructions for sha256."""

_ANSWER_BYTES: Final = 4096


class SendingCommand(RunningCommand, Protocol):
    """A command that runs on a device and reads a file from its standard input."""

    def send(self, data: memoryview) -> None:
        """Send a part; the command's timeout is for each step forward."""
        ...

    def close_stdin(self, *, num_bytes: int) -> None:
        """End the file; what was sent may be read once more before the answer comes."""
        ...


StartCommand = Callable[[Sequence[str], float], AbstractContextManager[SendingCommand]]
"""Starts an argv with a timeout in seconds, on whichever wire."""


def send_file(
    start: StartCommand,
    source: Path | bytes,
    target: str,
    *,
    name: str,
    timeout_seconds: float,
    mode: int,
    part_bytes: int,
    on_progress: ProgressCallback | None,
    codec: Codec | None = None,
    on_wire: ProgressCallback | None = None,
) -> str:
    """Store a file on a device; see `transport.Device.upload`.

    Args:
        start: starts a command on the device.
        source: the file, or its content.
        target: absolute path on the device.
        name: of the device, for messages.
        timeout_seconds: limit for each step forward.
        mode: permissions of the target.
        part_bytes: what is sent at once.
        on_progress: called with bytes of the file as they go out.
        codec: compresses it on the wire.
        on_wire: called with bytes as they go over the wire.
    """
    num_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    partial = f"{target}.{secrets.token_hex(4)}.part"
    unpack = "" if codec is None else unpack_command(codec)
    argv = upload_argv(target, partial=partial, num_bytes=num_bytes, mode=mode, unpack=unpack)
    with start(argv, timeout_seconds) as command:
        with suppress(BrokenPipeError):  # the device ended it; its words follow
            with closing(_told(read_parts(source, part_bytes), on_progress)) as parts:
                packed = parts if codec is None else compress(parts, codec)
                with closing(_told(packed, on_wire)) as going:
                    for part in going:
                        command.send(part)
            command.close_stdin(num_bytes=num_bytes)
        expected = _digest(source)  # while the device computes its own
        answer = read_result(command, argv, name=name, max_output_bytes=_ANSWER_BYTES)
    stored = answer.text.strip()
    if answer.exit_code != 0:
        raise faults.upload_fault(name, target, answer.exit_code, answer.stderr)
    if stored == UNHASHED:
        stored = _read_back(start, target, num_bytes=num_bytes, timeout_seconds=timeout_seconds)
    if stored != expected:
        argv = ("rm", "-f", "--", target)
        with start(argv, timeout_seconds) as command:
            command.close_stdin(num_bytes=0)
            read_result(command, argv, name=name, max_output_bytes=_ANSWER_BYTES)
        raise faults.digest_fault(name, target, expected=expected, stored=stored)
    return stored


def _told(
    parts: Iterator[memoryview], on_part: ProgressCallback | None
) -> Generator[memoryview, None, None]:
    """Tell the size of each part once it was taken and the next one is asked for."""
    for part in parts:
        yield part
        if on_part is not None:
            on_part(len(part))


def read_parts(source: Path | bytes, part_bytes: int) -> Iterator[memoryview]:
    """Give a file's content in parts."""
    if isinstance(source, bytes):
        view = memoryview(source)
        yield from (view[start : start + part_bytes] for start in range(0, len(view), part_bytes))
        return
    with source.open("rb", buffering=0) as file:
        while part := file.read(part_bytes):
            yield memoryview(part)


def _read_back(start: StartCommand, target: str, *, num_bytes: int, timeout_seconds: float) -> str:
    """Hash here what a device without a program for it has stored."""
    digest = hashlib.sha256()
    with start(("cat", target), timeout_seconds) as command:
        command.close_stdin(num_bytes=num_bytes)
        while data := command.read():
            digest.update(data)
            if (num_bytes := num_bytes - len(data)) < 0:
                break
    return digest.hexdigest()


def _digest(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
