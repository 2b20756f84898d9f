"""Run one worker script in a toolchain and take its JSON answer.

Workers run foreign code over foreign model files: they segfault, abort, hang and print.
So each is a process group of its own with a scrubbed environment, a time limit and, if
asked, a memory limit; it answers on a pipe of its own (fd 3) and everything it prints
goes to a log file.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import site
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from edgepack.errors import EdgePackError, ToolchainError
from edgepack.toolchains.catalog import Origin, Toolchain

LOG_NAME: Final = "worker.log"
MAXIMUM_ANSWER_BYTES: Final = 16 << 20
_LAUNCH: Final = Path(__file__).with_name("launch.py")
_CHUNK_BYTES: Final = 1 << 16
_TAIL_BYTES: Final = 1 << 14
_TAIL_LINES: Final = 12
_MAXIMUM_TEXT: Final = 4000
# How often a process that holds the pipe open without writing is looked at.
_POLL_SECONDS: Final = 0.1
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")

_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
_SET: Final = {
    "CUDA_VISIBLE_DEVICES": "-1",  # the same kernels on every machine, and no GPU memory taken
    "KERAS_BACKEND": "tensorflow",
    "PYTHONFAULTHANDLER": "1",  # a segfault leaves its Python stack in the log
    "PYTHONHASHSEED": "0",  # converters name tensors in the order of sets
    "PYTHONUTF8": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def run_worker(
    toolchain: Toolchain,
    script: Path,
    request: Mapping[str, object],
    *,
    folder: Path,
    timeout_seconds: float,
    memory_bytes: int | None = None,
) -> dict[str, object]:
    """Run a worker script and give the object it answered under `ok`.

    The script reads `request` as JSON from stdin and writes `{"ok": {...}}` or
    `{"error": {"kind", "message", "remedy"}}` to fd 3. Its working directory, HOME and
    TMPDIR are `folder`; what it prints is in `folder`/worker.log. Nothing of the user's
    environment but the search path, the language and the time zone reaches it.

    Args:
        toolchain: whose Python runs the script.
        script: a Python file; its folder is not put on `sys.path`.
        request: JSON values.
        folder: an existing folder of the caller's for files in both directions.
        timeout_seconds: wall-clock limit for the whole run.
        memory_bytes: limit of the worker's address space; it sees MemoryError beyond.

    Raises:
        EdgePackError: of the class whose `kind` the worker's error names.
        ToolchainError: the worker died, hung, or answered something else.
    """
    folder = folder.resolve()
    log = folder / LOG_NAME
    with _Answer() as answer:
        process = _start(
            toolchain,
            script,
            request,
            folder=folder,
            descriptor=answer.descriptor,
            memory_bytes=memory_bytes,
        )
        try:
            text = answer.read(process, deadline=time.monotonic() + timeout_seconds)
        except TimeoutError as error:
            raise ToolchainError(
                f"{_title(toolchain, script)} did not answer within {timeout_seconds:g} s"
                f"{_tail(log)}",
                remedy="Try again on an idle machine, or with a smaller model.",
            ) from error
        finally:
            _kill_group(process)
    return _judge(text, process.returncode, title=_title(toolchain, script), log=log)


class _Answer:
    """The reading end of a worker's fd 3, bounded in size and time."""

    def __init__(self) -> None:
        self._reading, self.descriptor = os.pipe()
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writing()
        os.close(self._reading)

    def close_writing(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self.descriptor)

    def read(self, process: subprocess.Popen[bytes], *, deadline: float) -> bytes:
        """Read until every holder has closed the pipe, or the worker is gone, or it is too much.

        Raises:
            TimeoutError: the deadline has passed.
        """
        self.close_writing()
        os.set_blocking(self._reading, False)
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            while len(data) <= MAXIMUM_ANSWER_BYTES:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError
                # A grandchild may hold the pipe open for ever, so the worker's own end counts too.
                is_gone = process.poll() is not None
                if selector.select(0 if is_gone else min(remaining, _POLL_SECONDS)):
                    chunk = os.read(self._reading, _CHUNK_BYTES)
                    if not chunk:
                        break
                    data += chunk
                elif is_gone:
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            if len(data) <= MAXIMUM_ANSWER_BYTES:
                process.wait(max(0.0, deadline - time.monotonic()))
        return bytes(data)


def _start(
    toolchain: Toolchain,
    script: Path,
    request: Mapping[str, object],
    *,
    folder: Path,
    descriptor: int,
    memory_bytes: int | None,
) -> subprocess.Popen[bytes]:
    # -P: the script's folder, whose modules are named after formats (onnx.py), would
    # shadow the frameworks themselves.
    flags = ["-P"] if toolchain.origin is not Origin.ISOLATED else ["-P", "-s"]
    launch = [str(_LAUNCH), str(os.getpid()), str(descriptor), str(memory_bytes or 0)]
    python = str(toolchain.python)
    # A file as stdin cannot block, however large the request and slow the reader.
    with tempfile.TemporaryFile() as stdin, (folder / LOG_NAME).open("wb") as log:
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        try:
            return subprocess.Popen(
                [python, *flags, *launch, python, *flags, str(script.resolve())],
                stdin=stdin,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
                cwd=folder,
                env=_environment(toolchain, folder),
                start_new_session=True,
            )
        except OSError as error:
            raise ToolchainError(
                f"{python} of the {toolchain.name} toolchain cannot be started: "
                f"{error.strerror or error}",
                remedy=f"Run `edgepack toolchain remove {toolchain.name}` and try again.",
            ) from error


def _environment(toolchain: Toolchain, folder: Path) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    if toolchain.origin is not Origin.ISOLATED:
        # The user's own environment may lie in the user site or on PYTHONPATH, and HOME,
        # from which the user site is derived, is not theirs in a worker.
        environment["PYTHONUSERBASE"] = site.getuserbase()
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return environment | _SET | {"HOME": str(folder), "TMPDIR": str(folder)}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group, not the process alone: it may have children, which outlive it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _judge(text: bytes, returncode: int, *, title: str, log: Path) -> dict[str, object]:
    if len(text) > MAXIMUM_ANSWER_BYTES:
        raise ToolchainError(
            f"{title} answered with more than {MAXIMUM_ANSWER_BYTES >> 20} MiB{_tail(log)}",
            remedy="Report this as a bug of EdgePack, with the model if you can.",
        )
    if not text:
        raise ToolchainError(
            f"{title} {_describe_end(returncode)} before it answered{_tail(log)}",
            remedy=_remedy(returncode),
        )
    # A whole answer counts even when the process died afterwards: frameworks abort while
    # they are unloaded, and a worker answers last.
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deep
        answer = None
    match answer:
        case {"ok": dict() as ok}:
            return ok
        case {"error": {"kind": str() as kind, "message": str() as message, **rest}}:
            remedy = rest.get("remedy")
            raise _error_class(kind)(
                _clean(message), remedy=_clean(remedy) if isinstance(remedy, str) else ""
            )
        case _:
            raise ToolchainError(
                f"expected a JSON object with `ok` or `error` from {title}, which "
                f"{_describe_end(returncode)}, but {_clean(text[:80].decode(errors='replace'))!r} "
                f"came{_tail(log)}",
                remedy="Report this as a bug of EdgePack, with the model if you can.",
            )


def _title(toolchain: Toolchain, script: Path) -> str:
    return f"the worker {script.stem} of the {toolchain.name} toolchain"


def _describe_end(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"was killed by signal {-returncode}"


def _remedy(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "The system probably ran out of memory: free some, or use a smaller model."
    if returncode < 0:
        return "The framework itself crashed on this model: export the model again."
    return "Read the lines above: they are the framework's own."


def _error_class(kind: str) -> type[EdgePackError]:
    """Find the error class a worker names; an unknown name is the toolchain's fault."""
    return next((cls for cls in _subclasses(EdgePackError) if cls.kind == kind), ToolchainError)


def _subclasses(cls: type[EdgePackError]) -> Iterator[type[EdgePackError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _clean(text: str) -> str:
    """Take terminal codes out of foreign text, and bound it."""
    text = _CONTROL.sub("", text.replace("\r", "\n"))
    return text if len(text) <= _MAXIMUM_TEXT else f"{text[:_MAXIMUM_TEXT]}..."


def _tail(log: Path) -> str:
    """Give the last lines of a log, indented, to append to a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:  # the worker may have removed it
        return ""
    lines = [line.rstrip() for line in _clean_lines(text) if line.strip()][-_TAIL_LINES:]
    return ":\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _clean_lines(text: str) -> Iterator[str]:
    for line in _CONTROL.sub("", text.replace("\r", "\n")).splitlines():
        yield line if len(line) <= _MAXIMUM_TEXT else f"{line[:_MAXIMUM_TEXT]}..."
