"""Create, find and remove the isolated environments, one a lock and Python version.

An environment is built beside its final name, under a lock that all processes share, and
renamed when it is whole; its record, which makes it count, is written last. What an
interrupted build left behind is removed by the next one. A venv's console scripts hold
the path they were made under, so they are removed: only `bin/python` is ever run.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock

from edgepack._fields import Fields
from edgepack.cache import cache_directory
from edgepack.errors import ToolchainError
from edgepack.interrupts import hold_interrupts
from edgepack.toolchains.builds import (
    LARGE_BUILD_MIB,
    PLAIN_BUILDS,
    BuildChoice,
    check_builds,
    query_args,
    write_constraints,
)
from edgepack.toolchains.catalog import ToolchainSpec, check_platform
from edgepack.toolchains.interpreter import Interpreter, find_interpreter, probe_interpreter

_RECORD: Final = "edgepack-toolchain.json"
_INCOMPLETE: Final = ".incomplete-"
_MAXIMUM_RECORD_BYTES: Final = 1 << 20
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A complete isolated environment.

    Attributes:
        folder: what holds it.
        spec_name: of the toolchain it belongs to.
        digest: of the lock it was made from.
        python_version: of its interpreter, with dots.
        versions: of the distributions that decide results.
    """

    folder: Path
    spec_name: str
    digest: str
    python_version: str
    versions: tuple[tuple[str, str], ...]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def toolchains_directory() -> Path:
    """Give the folder the isolated environments lie in."""
    return cache_directory() / "toolchains"


def find_environments(spec: ToolchainSpec) -> tuple[Environment, ...]:
    """Give a toolchain's complete environments, of older locks too, in order of name."""
    found = (read_environment(path) for path in _folders(toolchains_directory(), spec))
    return tuple(one for one in found if one is not None)


def read_environment(folder: Path) -> Environment | None:
    """Read an environment's record; None when it is not whole or its Python is gone."""
    try:
        with (folder / _RECORD).open("rb") as file:
            record = json.loads(file.read(_MAXIMUM_RECORD_BYTES))
    except (OSError, ValueError):  # no environment, or not a record
        return None
    fields = Fields(record if isinstance(record, dict) else {})
    versions = fields.raw("versions")
    environment = Environment(
        folder=folder,
        spec_name=fields.text("name"),
        digest=fields.text("digest"),
        python_version=fields.text("python"),
        versions=tuple((str(name), str(version)) for name, version in versions.items())
        if isinstance(versions, dict)
        else (),
    )
    # The interpreter is a link to the system's, which may have been removed since.
    return environment if not fields.faults and environment.python.exists() else None


def ensure_environment(
    spec: ToolchainSpec,
    *,
    choice: BuildChoice = PLAIN_BUILDS,
    on_progress: Callable[[str], None],
) -> Environment:
    """Give the environment of a toolchain's lock, creating it when there is none.

    Args:
        spec: of the toolchain.
        choice: which builds of what stands outside the lock to install.
        on_progress: called with one line at a time.

    Raises:
        ToolchainError: no Python fits, pip failed, or the environment does not hold what
            its lock says.
    """
    platform, digest = check_platform(spec), spec.digest()
    root = toolchains_directory()
    found = _find(spec, digest, platform)
    if found is not None:
        return found
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, spec, on_progress):
            found = _find(spec, digest, platform)
            if found is not None:  # made by the process that held the lock
                return found
            interpreter = find_interpreter(spec)
            final = root / f"{spec.name}-{digest}-{interpreter.tag}-{platform}"
            return _build(spec, digest, interpreter, final, choice, on_progress=on_progress)
    except OSError as error:
        raise ToolchainError(
            f"the {spec.name} toolchain cannot be created in {root}: {error.strerror or error}",
            remedy="Free some space or give the folder write permission, or name another cache "
            "with XDG_CACHE_HOME.",
        ) from error


def remove_environments(spec: ToolchainSpec) -> bool:
    """Remove all of a toolchain's environments and what unfinished ones left; tell if any was.

    Raises:
        ToolchainError: a folder cannot be removed.
    """
    root = toolchains_directory()
    if not root.is_dir():
        return False
    with _locked(root, spec, lambda _line: None):
        paths = [*_folders(root, spec), *_folders(root, spec, prefix=_INCOMPLETE)]
        for path in paths:
            try:
                # The record first: a removal that is cut short leaves nothing that counts.
                (path / _RECORD).unlink(missing_ok=True)
                shutil.rmtree(path)
            except OSError as error:
                raise ToolchainError(
                    f"{path}: cannot be removed: {error.strerror or error}",
                    remedy="Remove the folder yourself.",
                ) from error
    return bool(paths)


def _find(spec: ToolchainSpec, digest: str, platform: str) -> Environment | None:
    """Find an environment of this lock, whichever supported Python it was made with."""
    return next(
        (
            one
            for one in find_environments(spec)
            if one.digest == digest and one.folder.name.endswith(f"-{platform}")
        ),
        None,
    )


@contextlib.contextmanager
def _locked(root: Path, spec: ToolchainSpec, on_progress: Callable[[str], None]) -> Iterator[None]:
    lock = filelock.FileLock(root / f".{spec.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        on_progress(f"waiting for another EdgePack that works on the {spec.name} toolchain")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _folders(root: Path, spec: ToolchainSpec, *, prefix: str = "") -> list[Path]:
    """Give the folders of one toolchain, and not of another whose name begins alike."""
    name = re.compile(re.escape(f"{prefix}{spec.name}-") + r"[0-9a-f]{12}-cp[0-9]+-.+")
    paths = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in paths if name.fullmatch(path.name))


def _build(
    spec: ToolchainSpec,
    digest: str,
    interpreter: Interpreter,
    final: Path,
    choice: BuildChoice,
    *,
    on_progress: Callable[[str], None],
) -> Environment:
    root = final.parent
    for path in _folders(
        root, spec, prefix=_INCOMPLETE
    ):  # the lock is held, so nobody is at work there
        shutil.rmtree(path)
    if final.exists():  # without a valid record, or with a Python that is gone
        shutil.rmtree(final)
    _check_space(spec, root, choice)
    on_progress(
        f"creating the {spec.name} toolchain with Python {interpreter.version_text} "
        f"(once, about {spec.installed_mib} MiB)"
    )
    temporary = root / f"{_INCOMPLETE}{final.name}"
    try:
        _run(
            [interpreter.base, "-I", "-m", "venv", temporary],
            subject=f"creating an environment with {interpreter.base}",
        )
        _install(spec, temporary, interpreter, choice, on_progress)
        versions = _check_contents(spec, temporary / "bin" / "python")
        _import_modules(spec, temporary / "bin" / "python", on_progress)
        for script in (temporary / "bin").iterdir():
            if not script.name.startswith("python"):
                script.unlink()
        temporary.rename(final)
        _check_contents(spec, final / "bin" / "python")
        record = {
            "name": spec.name,
            "digest": digest,
            "python": interpreter.version_text,
            "versions": dict(versions),
        }
        partial = final / f"{_RECORD}.partial"
        partial.write_text(json.dumps(record, indent=1))
        partial.rename(final / _RECORD)
    except BaseException:  # Ctrl-C too: gigabytes must not stay
        for path in (temporary, final):
            shutil.rmtree(path, ignore_errors=True)
        raise
    on_progress(f"the {spec.name} toolchain is ready")
    return Environment(
        folder=final,
        spec_name=spec.name,
        digest=digest,
        python_version=interpreter.version_text,
        versions=versions,
    )


def _check_space(spec: ToolchainSpec, root: Path, choice: BuildChoice) -> None:
    free_mib = shutil.disk_usage(root).free >> 20
    needed_mib = spec.installed_mib + (LARGE_BUILD_MIB if choice.allow_large else 0)
    if free_mib < needed_mib:
        raise ToolchainError(
            f"the {spec.name} toolchain needs {needed_mib} MiB in {root}, which has "
            f"{free_mib} MiB free",
            remedy="Free some space, or name another cache with XDG_CACHE_HOME.",
        )


def _install(
    spec: ToolchainSpec,
    folder: Path,
    interpreter: Interpreter,
    choice: BuildChoice,
    on_progress: Callable[[str], None],
) -> None:
    if spec.lock is None:
        raise ToolchainError(f"the {spec.name} toolchain has no lock", remedy="Report this.")
    # pip unpacks gigabytes into TMPDIR: there they are removed with the rest when it is killed.
    scratch = folder / "tmp"
    scratch.mkdir()

    python = folder / "bin" / "python"

    def run_pip(*args: str | Path, variables: Mapping[str, str]) -> None:
        _run(
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


def _check_contents(spec: ToolchainSpec, python: Path) -> tuple[tuple[str, str], ...]:
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


def _import_modules(spec: ToolchainSpec, python: Path, on_progress: Callable[[str], None]) -> None:
    """Import what it is for: what a build lacks (a library, a processor's instruction) shows."""
    modules = ", ".join(spec.modules)
    on_progress(f"{spec.name}: importing {modules}")
    _run(
        [python, "-I", "-c", f"import {modules}"],
        subject=f"importing {modules} from the new {spec.name} environment",
        remedy="Mend what the last line names, or name an environment that has the framework "
        "with --toolchain-python.",
    )


def _run(
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
