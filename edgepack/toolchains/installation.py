"""Filling a toolchain's venv with pip, and proving that it holds what it is for."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from edgepack.errors import ToolchainError
from edgepack.interrupts import hold_interrupts
from edgepack.toolchains.builds import BuildChoice, check_builds, query_args, write_constraints
from edgepack.toolchains.catalog import ToolchainSpec
from edgepack.toolchains.interpreter import Interpreter, probe_interpreter

_TAIL_LINES: Final = 12
_SHOWN: Final = (
    "Collecting ",
    "Processing ",
    "Downloading ",
    "Using cached ",
    "Installing collected packages",
)
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")
# pip settings of the user that would install elsewhere or nothing; all others (indexes,
# certificates, proxies, folders of wheels) are theirs to make and stay.
_MISDIRECTING: Final = frozenset({
    "PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_QUIET", "PIP_REPORT", "PIP_ROOT",
    "PIP_TARGET", "PIP_USER", "PYTHONHOME", "PYTHONPATH",
})  # fmt: skip
_UNREACHABLE: Final = re.compile(
    r"NewConnectionError|Failed to establish a new connection|name resolution|ConnectTimeout"
    r"|ReadTimeout|Network is unreachable|ProxyError|Connection refused|ConnectionResetError"
    r"|No matching distribution found"
)


def install(
    spec: ToolchainSpec,
    folder: Path,
    interpreter: Interpreter,
    choice: BuildChoice,
    on_progress: Callable[[str], None],
) -> None:
    """Install what a toolchain's lock names, and what stands outside it, into a venv.

    Raises:
        ToolchainError: pip failed; its last lines and what mends it.
    """
    if spec.lock is None:
        raise ToolchainError(f"the {spec.name} toolchain has no lock", remedy="Report this.")
    # pip unpacks gigabytes into TMPDIR: there they are removed with the rest when it is killed.
    scratch = folder / "tmp"
    scratch.mkdir()

    python = folder / "bin" / "python"

    def run_pip(*args: str | Path, variables: Mapping[str, str]) -> None:
        run(
            [
                python, "-I", "-m", "pip", "install", "--only-binary=:all:", "--no-user",
                "--no-input", "--disable-pip-version-check", "--progress-bar=off",
                *spec.pip_args, *args,
            ],
            subject=f"installing the {spec.name} toolchain with pip",
            environment={"TMPDIR": str(scratch), **variables},
            on_line=lambda line: _report(spec, line, on_progress),
        )  # fmt: skip

    if spec.unhashed and not choice.allow_large:  # before anything is downloaded
        report = scratch / "report.json"
        run_pip(*query_args(spec, report=report), variables=choice.variables)
        check_builds(spec, interpreter, report=report)
    # The lock is complete, so pip resolves nothing (--no-deps), which also keeps out
    # packages that metadata ask for and another one stands for.
    run_pip("--no-deps", "--require-hashes", "--requirement", spec.lock, variables={})
    if spec.unhashed:
        constraints = scratch / "constraints.txt"
        write_constraints(spec, constraints)
        run_pip("--constraint", constraints, *spec.unhashed, variables=choice.variables)
    shutil.rmtree(scratch)


def _report(spec: ToolchainSpec, line: str, on_progress: Callable[[str], None]) -> None:
    text = line.strip()
    if text.startswith(_SHOWN):
        if text.startswith(_SHOWN[-1]):
            text = _SHOWN[-1]  # the rest is a line of all names
        on_progress(f"{spec.name}: {text.partition(' (from ')[0].partition(' ; ')[0]}")


def check_contents(spec: ToolchainSpec, python: Path) -> tuple[tuple[str, str], ...]:
    """Check by running its Python that an environment has what its toolchain needs."""
    found = probe_interpreter(python, modules=spec.modules, distributions=spec.reported)
    if found.missing:
        raise ToolchainError(
            f"the new {spec.name} environment was expected to hold {', '.join(spec.modules)}, "
            f"but lacks {', '.join(found.missing)}",
            remedy="Look for pip settings that keep packages from being installed "
            "(`pip config list`).",
        )
    return found.versions


def import_modules(spec: ToolchainSpec, python: Path, on_progress: Callable[[str], None]) -> None:
    """Import what it is for: what a build lacks (a library, a processor's instruction) shows."""
    modules = ", ".join(spec.modules)
    on_progress(f"{spec.name}: importing {modules}")
    run(
        [python, "-I", "-c", f"import {modules}"],
        subject=f"importing {modules} from the new {spec.name} environment",
        remedy="Mend what the last line names, or name an environment that has the framework "
        "with --toolchain-python.",
    )


def run(
    command: list[str | Path],
    *,
    subject: str,
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
    remedy: str = "",
) -> None:
    """Run a program to its end, reading its output; its children never outlive this call."""
    kept = {name: text for name, text in os.environ.items() if name not in _MISDIRECTING}
    lines: deque[str] = deque(maxlen=200)
    with _running(command, kept | {"PYTHONUNBUFFERED": "1"} | (environment or {})) as process:
        for line in process.stdout or ():
            shown = _CREDENTIALS.sub("", line.rstrip())
            lines.append(shown)
            on_line(shown)
        process.wait()
    if process.returncode != 0:
        raise ToolchainError(
            f"{subject} failed with exit code {process.returncode}:\n"
            + "\n".join(f"  {line}" for line in list(lines)[-_TAIL_LINES:]),
            remedy=remedy or _remedy("\n".join(lines)),
        )


@contextlib.contextmanager
def _running(
    command: list[str | Path], environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a session of its own, which is killed at the end.

    Ctrl-C waits until the process is known: within fork it would leave a child that goes on
    filling the folder that is being removed.
    """
    with contextlib.ExitStack() as stack:
        with hold_interrupts():
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=environment,
                    start_new_session=True,
                )
            )
            stack.callback(_kill_session, process)
        yield process


def _kill_session(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _remedy(output: str) -> str:
    if "No space left on device" in output:
        return "Free some space, or name another cache with XDG_CACHE_HOME."
    if "DO NOT MATCH THE HASHES" in output:
        return (
            "The package index serves other files than the lock names: use the official "
            "index or a faithful mirror of it (`pip config list` shows what pip uses)."
        )
    if _UNREACHABLE.search(output):
        return (
            "Connect to the network, or tell pip where the packages are (PIP_INDEX_URL for a "
            "mirror; PIP_NO_INDEX=1 and PIP_FIND_LINKS for a folder of wheels), or name an "
            "environment that has the framework with --toolchain-python."
        )
    return "Mend what pip names above and try again."
