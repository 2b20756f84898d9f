"""Choose the environment that serves as a toolchain, and list what there is."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from edgepack.errors import ToolchainError, UsageError
from edgepack.toolchains.builds import PLAIN_BUILDS, BuildChoice
from edgepack.toolchains.catalog import SPECS, Origin, Toolchain, ToolchainSpec, find_spec
from edgepack.toolchains.environment import (
    Environment,
    ensure_environment,
    find_environments,
    remove_environments,
)
from edgepack.toolchains.interpreter import probe_interpreter

PYTHON_VARIABLE: Final = "EDGEPACK_TOOLCHAIN_PYTHON"


class ToolchainState(StrEnum):
    """What would happen if a toolchain were asked for now."""

    CURRENT = "current"  # the environment EdgePack runs in serves
    INSTALLED = "installed"  # an isolated one is there
    OUTDATED = "outdated"  # an isolated one of another lock is there: nothing uses it
    AVAILABLE = "available"  # it would be created
    MISSING = "missing"  # it has no lock, and the current environment does not serve


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolchainStatus:
    """A line of `edgepack toolchain list`.

    Attributes:
        name: of the toolchain.
        purpose: what it is for.
        state: what would happen if it were asked for.
        path: its folder, or the current environment's Python.
        size_bytes: on disk; None when it is not isolated.
        python_version: with dots; None when there is none yet.
        versions: name and version of the distributions that decide results.
    """

    name: str
    purpose: str
    state: ToolchainState
    path: Path | None
    size_bytes: int | None
    python_version: str | None
    versions: tuple[tuple[str, str], ...]


def ensure_toolchain(
    name: str,
    *,
    python: Path | None = None,
    choice: BuildChoice = PLAIN_BUILDS,
    on_progress: Callable[[str], None],
) -> Toolchain:
    """Give an environment that serves as a toolchain, creating one if need be.

    In this order: `python`; the interpreter named by EDGEPACK_TOOLCHAIN_PYTHON; the
    current environment when the extra of this name is installed in it; the isolated
    environment of the toolchain's lock.

    Args:
        name: `tensorflow`, `onnx` or `pytorch`.
        python: an interpreter, or the folder of a virtual environment.
        choice: which builds to install of what stands outside the toolchain's lock.
        on_progress: called with one line at a time.

    Raises:
        UsageError: the toolchain is unknown, or leaves no choice of builds.
        ToolchainError: the given environment lacks something, or
            the isolated one could not be created.
    """
    spec = find_spec(name)
    if choice != PLAIN_BUILDS and not spec.unhashed:
        raise UsageError(
            f"the {name} toolchain is locked as a whole, so there is no choice of builds",
            remedy="Leave --index-url and --cuda out; PIP_INDEX_URL names a mirror of the "
            "package index.",
        )
    variable = os.environ.get(PYTHON_VARIABLE)
    if python is not None:
        return _given(spec, python, named_by="--toolchain-python")
    if variable:
        return _given(spec, Path(variable), named_by=PYTHON_VARIABLE)
    current = _current(spec)
    if current is not None:
        return current
    return _isolated(spec, ensure_environment(spec, choice=choice, on_progress=on_progress))


def list_toolchains() -> tuple[ToolchainStatus, ...]:
    """Give the state of every toolchain, and of environments left from other locks."""
    return tuple(status for spec in SPECS for status in _statuses(spec))


def remove_toolchain(name: str) -> bool:
    """Remove a toolchain's isolated environments; tell whether there was one.

    Raises:
        UsageError: the toolchain is unknown.
        ToolchainError: a folder cannot be removed.
    """
    return remove_environments(find_spec(name))


def _given(spec: ToolchainSpec, path: Path, *, named_by: str) -> Toolchain:
    path = path.expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    # Not resolved: a venv's python is a link, and its target is another environment.
    path = path.absolute()
    found = probe_interpreter(path, modules=spec.modules, distributions=spec.reported)
    if not spec.supports(found.version[:2]):
        raise ToolchainError(
            f"{path}: expected {spec.python_range} from {named_by} for the {spec.name} "
            f"toolchain, not Python {found.version_text}",
            remedy="Name an environment made with one of these.",
        )
    if found.missing:
        raise ToolchainError(
            f"{path}: expected {', '.join(spec.modules)} in the environment named by {named_by} "
            f"for the {spec.name} toolchain; missing: {', '.join(found.missing)}",
            remedy=f"Install them there, or leave {named_by} away to use EdgePack's own "
            "isolated environment.",
        )
    return Toolchain(name=spec.name, python=path, versions=found.versions, origin=Origin.GIVEN)


def _current(spec: ToolchainSpec) -> Toolchain | None:
    if not spec.serving or not spec.supports(sys.version_info[:2]):
        return None
    wanted = [[Requirement(one) for one in group.split("|")] for group in spec.serving]
    names = [requirement.name for group in wanted for requirement in group]
    if not _may_serve(names):
        return None
    path = Path(sys.executable)
    found = probe_interpreter(path, modules=spec.modules, distributions=[*names, *spec.reported])
    installed = dict(found.versions)
    if found.missing or not all(_satisfies(group, installed) for group in wanted):
        return None
    versions = tuple(item for item in found.versions if item[0] in spec.reported)
    return Toolchain(name=spec.name, python=path, versions=versions, origin=Origin.CURRENT)


def _may_serve(names: Sequence[str]) -> bool:
    """Tell quickly, without a process, whether any of the distributions is here."""
    import importlib.metadata  # noqa: PLC0415 - 20 ms that --help need not wait for

    return any(True for name in names for _ in importlib.metadata.distributions(name=name))


def _satisfies(group: Sequence[Requirement], installed: dict[str, str]) -> bool:
    return any(
        one.name in installed and one.specifier.contains(installed[one.name], prereleases=True)
        for one in group
    )


def _isolated(spec: ToolchainSpec, environment: Environment) -> Toolchain:
    return Toolchain(
        name=spec.name,
        python=environment.python,
        versions=environment.versions,
        origin=Origin.ISOLATED,
    )


def _statuses(spec: ToolchainSpec) -> list[ToolchainStatus]:
    environments = find_environments(spec)
    digest = None if spec.lock is None else spec.digest()
    current = _current(spec)
    statuses = []
    if current is not None:
        statuses.append(
            ToolchainStatus(
                name=spec.name,
                purpose=spec.purpose,
                state=ToolchainState.CURRENT,
                path=current.python,
                size_bytes=None,
                python_version=".".join(map(str, sys.version_info[:3])),
                versions=current.versions,
            )
        )
    statuses += [
        ToolchainStatus(
            name=spec.name,
            purpose=spec.purpose,
            state=ToolchainState.INSTALLED if one.digest == digest else ToolchainState.OUTDATED,
            path=one.folder,
            size_bytes=_size_bytes(one.folder),
            python_version=one.python_version,
            versions=one.versions,
        )
        for one in environments
    ]
    if not any(
        status.state in {ToolchainState.CURRENT, ToolchainState.INSTALLED} for status in statuses
    ):
        state = ToolchainState.MISSING if spec.lock is None else ToolchainState.AVAILABLE
        statuses.insert(
            0,
            ToolchainStatus(
                name=spec.name,
                purpose=spec.purpose,
                state=state,
                path=None,
                size_bytes=None,
                python_version=None,
                versions=(),
            ),
        )
    return statuses


def _size_bytes(folder: Path) -> int:
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink()
    )
