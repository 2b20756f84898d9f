"""This machine as a device."""

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from edgepack.device.wire import faults
from edgepack.device.wire.command import read_lines, read_result
from edgepack.device.wire.compression import Codec
from edgepack.device.wire.sending import read_parts
from edgepack.device.wire.transport import CommandResult, ProgressCallback
from edgepack.interrupts import hold_interrupts, start_thread

_READ_BYTES: Final = 128 * 1024
_STDERR_BYTES: Final = 64 * 1024
_SEND_BYTES: Final = 1024 * 1024
_STOP_SECONDS: Final = 2.0
_NOT_FOUND: Final = 127  # exit codes of sh, so that both wires answer alike
_NOT_EXECUTABLE: Final = 126
_SIGNAL_BASE: Final = 128


class LocalCommand:
    """A command running on this machine, in a process group of its own.

    Used inside `with`: leaving before the end stops the group. Messages show the argv, or
    what is `shown` in its place.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        timeout_seconds: float,
        shown: Sequence[str] | None = None,
    ) -> None:
        if not argv:
            raise ValueError("expected a program, not an empty argv")
        self._argv = argv if shown is None else shown
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._is_late = threading.Event()
        self._has_ended = False
        self._stderr = bytearray()
        # Blocking reads have no timeout of their own: ending the group ends them.
        self._timer = self._start_timer(timeout_seconds)
        self._threads = [start_thread(self._read_stderr)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if not self._has_ended:
            self._stop()
        for thread in self._threads:
            thread.join(timeout=1)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _start_timer(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        self._is_late.set()
        self._stop()

    def _signal_group(self, number: signal.Signals) -> bool:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of zombies
            return False
        return True

    def _stop(self) -> None:
        """End the whole group, also when its first process has ended already."""
        self._signal_group(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_STOP_SECONDS)
        self._signal_group(signal.SIGKILL)
        self._process.wait()

    @property
    def stderr(self) -> str:
        """What the command wrote to standard error, its last part when long."""
        return self.stderr_bytes.decode("utf-8", errors="replace")

    @property
    def stderr_bytes(self) -> bytes:
        """The same as it came."""
        return bytes(self._stderr)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - PIPE was asked for
        with suppress(ValueError):
            while data := self._process.stderr.read(_READ_BYTES):
                self._stderr += data
                del self._stderr[:-_STDERR_BYTES]

    def feed(self, data: bytes) -> None:
        """Send standard input, beside the reading of output, and close it."""
        self._threads.append(start_thread(self._write, data))

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        view = memoryview(data)
        with suppress(BrokenPipeError, ValueError):
            while view:
                view = view[self._process.stdin.write(view) :]
            self._process.stdin.close()

    def send(self, data: memoryview) -> None:
        """Send a part of standard input; the timeout is for each step forward.

        Raises:
            DeviceTimeoutError: nothing could be sent.
            BrokenPipeError: the command has ended.
        """
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        while data:
            try:
                data = data[self._process.stdin.write(data) :]
            except BrokenPipeError:
                if self._is_late.is_set():
                    raise faults.too_late(self._name, self._argv, self._timeout_seconds) from None
                raise
            self._extend(self._timeout_seconds)

    def close_stdin(self, *, more_seconds: float) -> None:
        """Close standard input, and give the command that much longer to answer."""
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        self._process.stdin.close()
        self._extend(self._timeout_seconds + more_seconds)

    def _extend(self, seconds: float) -> None:
        self._timer.cancel()
        if not self._is_late.is_set():
            self._timer = self._start_timer(seconds)

    def read(self) -> bytes:
        """Read the next part of standard output; empty at its end.

        Raises:
            DeviceTimeoutError: the command's time is over.
        """
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        data = self._process.stdout.read(_READ_BYTES)
        if self._is_late.is_set():
            raise faults.too_late(self._name, self._argv, self._timeout_seconds)
        return data or b""

    def wait(self, *, drain_seconds: float = 1.0) -> int:
        """Wait for the exit code, after the end of standard output.

        Standard error may stay open in a process left behind: it is awaited for the
        seconds given.

        Raises:
            DeviceTimeoutError: the command's time is over.
        """
        exit_code = self._process.wait()
        if self._is_late.is_set():
            raise faults.too_late(self._name, self._argv, self._timeout_seconds)
        self._has_ended = True
        self._threads[0].join(timeout=drain_seconds)
        return exit_code if exit_code >= 0 else _SIGNAL_BASE - exit_code


class LocalDevice:
    """This machine; a `transport.Device`."""

    @property
    def name(self) -> str:
        """What the user calls the device."""
        return "local:"

    def _start(self, stack: ExitStack, argv: Sequence[str], timeout_seconds: float) -> LocalCommand:
        with hold_interrupts():
            command = LocalCommand(argv, name=self.name, timeout_seconds=timeout_seconds)
            return stack.enter_context(command)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command to its end; see `transport.Device.run`."""
        with ExitStack() as stack:
            try:
                command = self._start(stack, argv, timeout_seconds)
            except OSError as error:
                return _not_started(argv, error)
            command.feed(stdin)
            return read_result(command, argv, name=self.name, max_output_bytes=max_output_bytes)

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> Iterator[Iterator[bytes]]:
        """Run a command and iterate over its lines; see `transport.Device.stream`."""
        with ExitStack() as stack:
            try:
                command = self._start(stack, argv, timeout_seconds)
            except OSError as error:
                found = _not_started(argv, error)
                raise faults.stream_failed(self.name, argv, found.exit_code, found.stderr) from None
            command.feed(b"")
            yield read_lines(command, argv, name=self.name, max_line_bytes=max_line_bytes)

    def upload(
        self,
        source: Path | bytes,
        target: str,
        *,
        timeout_seconds: float,  # noqa: ARG002 - a local disk has no link to lose
        mode: int = 0o644,
        on_progress: ProgressCallback | None = None,
        codec: Codec | None = None,  # noqa: ARG002 - no wire to compress on
        on_wire: ProgressCallback | None = None,
    ) -> str:
        """Write a file on this machine; see `transport.Device.upload`."""
        partial = Path(f"{target}.{secrets.token_hex(4)}.part")
        try:
            with partial.open("xb") as file:
                for part in read_parts(source, _SEND_BYTES):
                    file.write(part)
                    for tell in (on_progress, on_wire):
                        if tell is not None:
                            tell(len(part))
            with partial.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            partial.chmod(mode)
            partial.replace(target)
        except OSError as error:
            raise faults.upload_fault(self.name, target, 1, error.strerror or str(error)) from None
        finally:
            with suppress(OSError):  # renamed, or never made; a fault has been told already
                partial.unlink()
        return digest


def _not_started(argv: Sequence[str], error: OSError) -> CommandResult:
    # A folder of PATH that may not be read makes the system say "permission denied" of a
    # program that is nowhere.
    is_absent = shutil.which(argv[0], mode=os.F_OK) is None
    return CommandResult(
        exit_code=_NOT_FOUND if is_absent else _NOT_EXECUTABLE,
        stdout=b"",
        stderr=f"{argv[0]}: {'not found' if is_absent else error.strerror}",
    )
