"""Run a command within bounds, and see it and all its children end."""

import contextlib
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self

from edgepack.sandbox.bounds import Bounds, Limit, Usage
from edgepack.sandbox.census import descendants, read_processes, shared_once_bytes
from edgepack.scratch import open_scratch_file

_LAUNCH: Final = Path(__file__).with_name("launch.py")
_CHUNK_BYTES: Final = 1 << 16
_REPORT_BYTES: Final = 1 << 12
# How often memory is looked at, and how much of a core looking may take at most.
_LOOK_SECONDS: Final = 0.1
_LOOKING_SHARE: Final = 0.05
# The supervisor kills and reaps; if it does not end itself by then, it is killed.
_GRACE_SECONDS: Final = 10.0
# A huge allocation fails at once; memory that is only reserved, as thread stacks are, passes.
_DATA_FACTOR: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        answer: what it wrote to fd 3, at most one byte more than the bound.
        exit_code: its own; negative is the signal that ended it.
        limit: the bound that ended it; None when it ended by itself.
        usage: what it and its children took.
    """

    answer: bytes
    exit_code: int
    limit: Limit | None
    usage: Usage


def run_bounded(
    command: Sequence[str],
    *,
    folder: Path,
    log: BinaryIO,
    bounds: Bounds,
    python: str = sys.executable,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    request: bytes = b"",
    own_code: bool = False,
) -> Ended:
    """Run a command until it ends or reaches a bound; then nothing of it is left running.

    On Linux with Landlock (5.13), it and its children can change files in `folder` only.
    Afterwards the folder holds plain files and folders that can be read and removed: links,
    pipes and the like are taken out of it.

    Args:
        command: its argv; the first is a path.
        folder: what it may write to, an existing one of the caller's.
        log: a file for what it prints.
        bounds: what it may take.
        python: an interpreter for the program that sets the process up.
        flags: of that interpreter.
        environment: its variables; None is EdgePack's own.
        directory: where it starts; None is `folder`.
        request: its standard input.
        own_code: whether it is the user's own, which may use TCP and shared memory.

    Raises:
        OSError: it cannot be started.
    """
    folder = folder.resolve()
    with _Pipe() as answer, _Pipe() as report, open_scratch_file() as stdin:
        # A file as stdin cannot block, however large the request and slow the reader.
        stdin.write(request)
        stdin.seek(0)
        setup = {
            "parent": os.getpid(),
            "answer_fd": answer.writing,
            "report_fd": report.writing,
            "folder": str(folder),
            "data_bytes": bounds.memory_bytes * _DATA_FACTOR,
            "file_bytes": bounds.file_bytes,
            "own_code": own_code,
        }
        start = time.monotonic()
        process = subprocess.Popen(
            [python, *flags, str(_LAUNCH), json.dumps(setup), *command],
            stdin=stdin,
            stdout=log,
            stderr=log,
            pass_fds=(answer.writing, report.writing),
            cwd=directory or folder,
            env=environment,
            start_new_session=True,
        )
        watch = _Watch(process.pid, bounds, start=start, log=log)
        try:
            answer.close_writing()
            report.close_writing()
            ended = watch.run(answer, report)
        finally:
            final = _end(process, report)
            _settle(folder)
    status = process.returncode if final is None else final.exit_code
    peak = max(watch.peak_bytes, 0 if final is None else final.peak_bytes)
    usage = Usage(seconds=time.monotonic() - start, peak_bytes=peak)
    return replace(ended, exit_code=status, usage=usage)


class _Pipe:
    """A pipe whose reading end never blocks."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._is_open = True
        os.set_blocking(self.reading, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writing()
        os.close(self.reading)

    def close_writing(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self.writing)

    def read(self, num_bytes: int) -> bytes | None:
        """Give what is there: nothing at the end, None when there is none yet."""
        try:
            return os.read(self.reading, num_bytes)
        except BlockingIOError:
            return None


class _Watch:
    """Gathers an answer while it looks at what a process takes."""

    def __init__(self, pid: int, bounds: Bounds, *, start: float, log: BinaryIO) -> None:
        self._pid = pid
        self._bounds = bounds
        self._log = log
        self._start = start
        self._next_look = start
        self.peak_bytes = 0

    def run(self, answer: _Pipe, report: _Pipe) -> Ended:
        """Read the answer until the process has ended, or a bound is reached."""
        data, limit, is_running = bytearray(), None, True
        with selectors.DefaultSelector() as selector:
            selector.register(answer.reading, selectors.EVENT_READ)
            # The report comes when everything has ended; its pipe closes even without one.
            selector.register(report.reading, selectors.EVENT_READ)
            while is_running and limit is None:
                ready = {key.fd for key, _ in selector.select(self._pause())}
                is_running = report.reading not in ready
                if answer.reading in ready and not self._take(answer, data):
                    selector.unregister(answer.reading)
                limit = self._reached(len(data))
        while not is_running and len(data) <= self._bounds.answer_bytes:
            if not self._take(answer, data):
                break
        if len(data) > self._bounds.answer_bytes:
            limit = Limit.ANSWER
        return Ended(
            answer=bytes(data),
            exit_code=0,
            limit=limit,
            usage=Usage(seconds=0.0, peak_bytes=0),
        )

    def _take(self, answer: _Pipe, data: bytearray) -> bool:
        chunk = answer.read(_CHUNK_BYTES)
        data += chunk or b""
        return bool(chunk)

    def _pause(self) -> float:
        now = time.monotonic()
        deadline = self._start + self._bounds.timeout_seconds
        return max(0.0, min(deadline, self._next_look) - now)

    def _reached(self, answer_bytes: int) -> Limit | None:
        now = time.monotonic()
        if answer_bytes > self._bounds.answer_bytes:
            return Limit.ANSWER
        if now >= self._start + self._bounds.timeout_seconds:
            return Limit.TIME
        if now < self._next_look:
            return None
        limit = self._look()
        spent = time.monotonic() - now
        self._next_look = time.monotonic() + max(_LOOK_SECONDS, spent / _LOOKING_SHARE)
        return limit

    def _look(self) -> Limit | None:
        processes = read_processes()
        # The first is the supervisor, which is ours.
        pids = descendants(self._pid, processes)[1:]
        resident = sum(processes[pid].resident_bytes for pid in pids)
        if resident > self._bounds.memory_bytes:
            resident = shared_once_bytes(pids, processes)
        self.peak_bytes = max(self.peak_bytes, resident)
        if resident > self._bounds.memory_bytes:
            return Limit.MEMORY
        if len(pids) > self._bounds.num_processes:
            return Limit.PROCESSES
        if os.fstat(self._log.fileno()).st_size > self._bounds.log_bytes:
            return Limit.LOG
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Report:
    """What the supervisor says at its end."""

    exit_code: int
    peak_bytes: int


def _end(process: subprocess.Popen[bytes], report: _Pipe) -> _Report | None:
    """End whatever still runs; give the supervisor's report, if it came to that."""
    # The supervisor sees to the children, also those in other sessions.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, signal.SIGTERM)
    text = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(report.reading, selectors.EVENT_READ)
        deadline = time.monotonic() + _GRACE_SECONDS
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = report.read(_REPORT_BYTES)
            text += chunk or b""
            if not chunk:
                break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    match _parse(bytes(text)):
        case {"status": int() as status, "peak_bytes": int() as peak_bytes}:
            return _Report(exit_code=os.waitstatus_to_exitcode(status), peak_bytes=peak_bytes)
        case _:
            return None


def _parse(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:  # it was killed before
        return None


def _settle(folder: Path) -> None:
    """Leave plain files and folders only, all of which can be read and removed.

    A link would lead whoever reads the folder out of it, and a pipe or device would block.
    """
    waiting = [folder]
    while waiting:
        each = waiting.pop()
        with contextlib.suppress(OSError):  # what cannot be changed is met when it is read
            if each.stat().st_mode & stat.S_IRWXU != stat.S_IRWXU:
                each.chmod(stat.S_IRWXU)
            for entry in os.scandir(each):
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif not entry.is_file(follow_symlinks=False):
                    path.unlink()
                elif not entry.stat(follow_symlinks=False).st_mode & stat.S_IRUSR:
                    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
