"""Run one worker script in a toolchain and take its JSON answer.

Workers run foreign code over foreign model files: they segfault, abort, hang and print.
So each runs in the sandbox with a scrubbed environment; it answers on a pipe of its own
(fd 3) and everything it prints goes to a log file.
"""

import contextlib
import json
import os
import re
import signal
import site
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from edgepack.errors import EdgePackError, ToolchainError
from edgepack.sandbox import (
    Bounds,
    Ended,
    Limit,
    Usage,
    default_memory_bytes,
    machine_memory_bytes,
    run_bounded,
)
from edgepack.toolchains.catalog import Origin, Toolchain

LOG_NAME: Final = "worker.log"
TIMEOUT_SECONDS: Final = 3600.0
_TAIL_BYTES: Final = 1 << 14
_TAIL_LINES: Final = 12
_MAXIMUM_TEXT: Final = 4000
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")

# How Python, C++ and the system say it.
_NO_MEMORY: Final = re.compile(r"\bMemoryError\b|bad_alloc|Cannot allocate memory")
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
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_bytes: int | None = None,
    own_code: bool = False,
    on_usage: Callable[[Usage], None] = lambda _usage: None,
) -> dict[str, object]:
    """Run a worker script and give the object it answered under `ok`.

    The script reads `request` as JSON from stdin and writes `{"ok": {...}}` or
    `{"error": {"kind", "message", "remedy"}}` to fd 3. Its working directory, HOME and
    TMPDIR are `folder`, outside which it can change nothing where the kernel has Landlock;
    what it prints is in `folder`/worker.log. Nothing of the user's environment but the search
    path, the language and the time zone reaches it. No process of it outlives this call.

    Args:
        toolchain: whose Python runs the script.
        script: a Python file; its folder is not put on `sys.path`.
        request: JSON values.
        folder: an existing folder of the caller's for files in both directions.
        timeout_seconds: wall-clock limit for the whole run.
        memory_bytes: resident memory the worker and its children may take together; None is
            three quarters of the machine's.
        own_code: whether it runs the user's own code, which may use TCP and shared memory.
        on_usage: called once with what the run took, also when it fails.

    Raises:
        EdgePackError: of the class whose `kind` the worker's error names.
        ToolchainError: the worker died, ran into a limit, or answered something else.
    """
    bounds = Bounds(
        timeout_seconds=timeout_seconds, memory_bytes=memory_bytes or default_memory_bytes()
    )
    python = _check_python(toolchain)
    # -P: the script's folder, whose modules are named after formats (onnx.py), would
    # shadow the frameworks themselves.
    flags = ["-P"] if toolchain.origin is not Origin.ISOLATED else ["-P", "-s"]
    # Kept open: the worker could put a link in the file's place.
    with (folder / LOG_NAME).open("w+b") as log:
        try:
            ended = run_bounded(
                [python, *flags, str(script.resolve())],
                folder=folder,
                log=log,
                bounds=bounds,
                # The one interpreter that is known to run: a toolchain's may be damaged.
                python=sys.executable,
                flags=["-I", "-S"],
                environment=_environment(toolchain, folder.resolve()),
                request=json.dumps(request).encode(),
                own_code=own_code,
            )
        except OSError as error:
            raise ToolchainError(
                f"the {toolchain.name} toolchain cannot be started: {error.strerror or error}",
                remedy="Free some memory or disk space and try again.",
            ) from error
        on_usage(ended.usage)
        return _judge(ended, bounds, title=_title(toolchain, script), log=log)


def _environment(toolchain: Toolchain, folder: Path) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    if toolchain.origin is not Origin.ISOLATED:
        # The user's own environment may lie in the user site or on PYTHONPATH, and HOME,
        # from which the user site is derived, is not theirs in a worker.
        environment["PYTHONUSERBASE"] = site.getuserbase()
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return environment | _SET | {"HOME": str(folder), "TMPDIR": str(folder)}


def _check_python(toolchain: Toolchain) -> str:
    try:
        toolchain.python.stat()
    except OSError as error:
        raise ToolchainError(
            f"{toolchain.python} of the {toolchain.name} toolchain cannot be started: "
            f"{error.strerror or error}",
            remedy=f"Run `edgepack toolchain remove {toolchain.name}` and try again.",
        ) from error
    return str(toolchain.python)


def _judge(ended: Ended, bounds: Bounds, *, title: str, log: BinaryIO) -> dict[str, object]:
    # A whole answer counts even when the process died afterwards: frameworks abort while
    # they are unloaded, and a worker answers last.
    try:
        answer = None if ended.limit is Limit.ANSWER else json.loads(ended.answer)
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
    limit = ended.limit
    if not ended.answer and ended.exit_code != 0 and _NO_MEMORY.search(_tail(log)):
        limit = Limit.MEMORY  # one allocation far beyond it fails before the memory is used
    if limit is not None:
        raise _limit_error(limit, ended.usage, bounds, title=title, tail=_tail(log))
    if not ended.answer:
        raise ToolchainError(
            f"{title} {_describe_end(ended.exit_code)} before it answered{_tail(log)}",
            remedy=_remedy(ended.exit_code),
        )
    shown = _clean(ended.answer[:80].decode(errors="replace"))
    raise ToolchainError(
        f"expected a JSON object with `ok` or `error` from {title}, which "
        f"{_describe_end(ended.exit_code)}, but {shown!r} came{_tail(log)}",
        remedy="Report this as a bug of EdgePack, with the model if you can.",
    )


def _limit_error(
    limit: Limit, usage: Usage, bounds: Bounds, *, title: str, tail: str
) -> ToolchainError:
    took = f"after {usage.seconds:.0f} s, with a peak of {_mib(usage.peak_bytes)} MiB of memory"
    match limit:
        case Limit.TIME:
            return ToolchainError(
                f"{title} did not answer within {bounds.timeout_seconds:g} s (its peak was "
                f"{_mib(usage.peak_bytes)} MiB of memory){tail}",
                remedy="Allow more with --convert-timeout, try again on an idle machine, or take a "
                "smaller model.",
            )
        case Limit.MEMORY:
            return ToolchainError(
                f"{title} was stopped {took}: its limit is {_mib(bounds.memory_bytes)} MiB{tail}",
                remedy="Allow more with --convert-memory (this machine has "
                f"{machine_memory_bytes() / 2**30:.1f} GiB), or take a smaller model or smaller "
                "shapes with --input-shape.",
            )
        case Limit.PROCESSES:
            return ToolchainError(
                f"{title} was stopped {took}: it started more than {bounds.num_processes} "
                f"processes{tail}",
                remedy="Look for code in the model that starts processes.",
            )
        case Limit.LOG:
            return ToolchainError(
                f"{title} was stopped {took}: it printed more than "
                f"{_mib(bounds.log_bytes)} MiB{tail}",
                remedy="Report this as a bug of EdgePack, with the model if you can.",
            )
        case Limit.ANSWER:
            return ToolchainError(
                f"{title} answered with more than {_mib(bounds.answer_bytes)} MiB{tail}",
                remedy="Report this as a bug of EdgePack, with the model if you can.",
            )


def _mib(num_bytes: int) -> int:
    return -(-num_bytes // 2**20)


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


def _tail(log: BinaryIO) -> str:
    """Give the last lines of a log, indented, to append to a message."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
    text = log.read(_TAIL_BYTES).decode(errors="replace")
    lines = [line.rstrip() for line in _clean_lines(text) if line.strip()]
    lines = _final_words(lines)[-_TAIL_LINES:]
    return ":\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _final_words(lines: list[str]) -> list[str]:
    """Leave a traceback's stack out: what was raised says it, and the whole is in the log."""
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (most ")]
    for index in range(starts[-1] + 1 if starts else len(lines), len(lines)):
        if not lines[index].startswith(" "):
            return lines[index:]
    return lines


def _clean_lines(text: str) -> Iterator[str]:
    for line in _CONTROL.sub("", text.replace("\r", "\n")).splitlines():
        yield line if len(line) <= _MAXIMUM_TEXT else f"{line[:_MAXIMUM_TEXT]}..."
