"""A child process for native code that may crash, hang or write to the terminal.

Damaged or unusual models make the runtime and the quantizer abort or fault, which no
exception handler catches. So they run in a child of this very interpreter, in the sandbox;
arrays and models travel in files of a temporary folder, and the child's answer is the file
`answer.json`: `{"ok": {…}}` or `{"error": {"kind": …, "message": …}}`.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.sandbox import Bounds, Limit, default_memory_bytes, run_bounded

ANSWER_NAME: Final = "answer.json"
_LOG_NAME: Final = "child.log"
_TAIL_BYTES: Final = 64 * 2**10
_TRACEBACK: Final = "Traceback (most recent call last):"
_NUM_LAST_LINES: Final = 5
_MAXIMUM_ANSWER_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildExit:
    """How a child process ended.

    Attributes:
        answer: what it answered with; None when it died before.
        exit_code: its own; negative is the signal that ended it; None when it was stopped.
        log: the last 64 KiB of what it and its libraries wrote.
        limit: the limit at which it was stopped, in words; None when it ended by itself.
    """

    answer: dict[str, Any] | None
    exit_code: int | None
    log: str
    limit: str | None = None

    @property
    def cause(self) -> str:
        """Say how it ended, such as `stopped by SIGSEGV`."""
        if self.exit_code is None:
            return f"stopped at its limit of {self.limit}"
        if self.exit_code >= 0:
            return f"ended with exit code {self.exit_code} and no answer"
        try:
            return f"stopped by {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"stopped by signal {-self.exit_code}"

    @property
    def last_words(self) -> str:
        """The end of its log: of a traceback only the error that it ends with."""
        lines = [line for line in self.log.splitlines() if line.strip()]
        if _TRACEBACK in lines:
            begin = len(lines) - lines[::-1].index(_TRACEBACK)
            told = [line for line in lines[begin:] if not line.startswith(" ")]
            return "\n".join(told[:_NUM_LAST_LINES])
        return "\n".join(lines[-_NUM_LAST_LINES:])


def run_child(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    timeout_seconds: float,
    memory_bytes: int | None = None,
) -> ChildExit:
    """Run a module of this package as a program and wait for its answer.

    Args:
        module: dotted name of the module, run with `python -m`.
        arguments: its command line.
        folder: where its log and its answer go; the caller's own temporary folder. Where the
            kernel has Landlock, the child can change files nowhere else.
        timeout_seconds: after which it is killed.
        memory_bytes: resident memory it may take; None is three quarters of the machine's.

    Raises:
        OSError: it cannot be started.
    """
    bounds = Bounds(
        timeout_seconds=timeout_seconds, memory_bytes=memory_bytes or default_memory_bytes()
    )
    # -P: a file of the user's folder, such as `json.py`, must not shadow a library.
    argv = [sys.executable, "-P", "-m", module, str(folder), *arguments]
    with (folder / _LOG_NAME).open("w+b") as log:
        ended = run_bounded(
            argv,
            folder=folder,
            log=log,
            bounds=bounds,
            flags=("-I", "-S"),
            environment={**os.environ, "TMPDIR": str(folder)},
            directory=Path(),  # the caller's own
        )
        exit_code = None if ended.limit is not None else ended.exit_code
        return ChildExit(
            answer=_read_answer(folder / ANSWER_NAME) if exit_code in {0, 1} else None,
            exit_code=exit_code,
            log=_read_tail(log),
            limit=_describe(ended.limit, bounds),
        )


def _describe(limit: Limit | None, bounds: Bounds) -> str | None:
    match limit:
        case None:
            return None
        case Limit.TIME:
            return f"{bounds.timeout_seconds:g} s"
        case Limit.MEMORY:
            return f"{bounds.memory_bytes >> 20} MiB of memory"
        case Limit.PROCESSES:
            return f"{bounds.num_processes} processes"
        case Limit.LOG:
            return f"{bounds.log_bytes >> 20} MiB of output"
        case Limit.ANSWER:
            return f"{bounds.answer_bytes >> 20} MiB of answer"


def write_answer(folder: Path, answer: dict[str, Any]) -> None:
    """Write the child's answer, as its last act."""
    (folder / ANSWER_NAME).write_text(json.dumps(answer), encoding="utf-8")


def write_arrays(path: Path, arrays: Iterable[NDArray[Any]]) -> None:
    """Write arrays one after another, each in numpy's own format."""
    with path.open("wb") as file:
        for array in arrays:
            np.save(file, array, allow_pickle=False)


def read_arrays(path: Path) -> Iterator[NDArray[Any]]:
    """Read arrays one after another, as `write_arrays` wrote them."""
    with path.open("rb") as file:
        size = path.stat().st_size
        while file.tell() < size:
            yield _read_array(file)


def _read_array(file: BinaryIO) -> NDArray[Any]:
    array: NDArray[Any] = np.load(file, allow_pickle=False)
    return array


def _read_answer(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            answer = json.loads(file.read(_MAXIMUM_ANSWER_BYTES))
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _read_tail(log: BinaryIO) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
    return log.read(_TAIL_BYTES).decode("utf-8", errors="replace")
