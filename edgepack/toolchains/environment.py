"""Create, find and remove the isolated environments, one a lock and Python version.

An environment is built beside its final name, under a lock that all processes share, and
renamed when it is whole; its record, which makes it count, is written last. What an
interrupted build left behind is removed by the next one. A venv's console scripts hold
the path they were made under, so they are removed: only `bin/python` is ever run.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock

from edgepack._fields import Fields
from edgepack.cache import cache_directory
from edgepack.errors import ToolchainError
from edgepack.toolchains.builds import LARGE_BUILD_MIB, PLAIN_BUILDS, BuildChoice
from edgepack.toolchains.catalog import ToolchainSpec, check_platform
from edgepack.toolchains.installation import check_contents, import_modules, install, run
from edgepack.toolchains.interpreter import Interpreter, find_interpreter

_RECORD: Final = "edgepack-toolchain.json"
_INCOMPLETE: Final = ".incomplete-"
_MAXIMUM_RECORD_BYTES: Final = 1 << 20


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
        run(
            [interpreter.base, "-I", "-m", "venv", temporary],
            subject=f"creating an environment with {interpreter.base}",
        )
        install(spec, temporary, interpreter, choice, on_progress)
        versions = check_contents(spec, temporary / "bin" / "python")
        import_modules(spec, temporary / "bin" / "python", on_progress)
        for script in (temporary / "bin").iterdir():
            if not script.name.startswith("python"):
                script.unlink()
        temporary.rename(final)
        check_contents(spec, final / "bin" / "python")
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
