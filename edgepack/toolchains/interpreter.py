"""Find a Python on the machine and learn what it is and holds, by running it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.errors import ToolchainError
from edgepack.scratch import open_scratch
from edgepack.toolchains.catalog import ToolchainSpec

_PROBE_SECONDS: Final = 60
# Runs on any Python 3, so that a too old one can be named. It finds modules without
# importing them: TensorFlow takes 3 s, and a worker that cannot import it says so itself.
# A venv of a venv is made from the base interpreter, else it would break with the outer one.
_PROBE: Final = """
import json, os, sys
if sys.version_info < (3, 8):
    print(json.dumps({"version": list(sys.version_info[:3]), "base": sys.executable,
                      "can_make_venv": False, "missing": sys.argv[1:2], "versions": {}}))
    sys.exit()
import importlib.metadata, importlib.util
modules, names = sys.argv[1].split(), sys.argv[2].split()
versions = {}
for name in names:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "base": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "can_make_venv": all(importlib.util.find_spec(m) for m in ("venv", "ensurepip")),
    "missing": [m for m in modules if importlib.util.find_spec(m) is None],
    "versions": versions,
}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """A Python and what of a toolchain it holds.

    Attributes:
        path: as it was asked for; of a venv, its own `bin/python`.
        base: the interpreter it was made from, symbolic links resolved.
        version: (major, minor, micro).
        can_make_venv: whether the modules venv and ensurepip are there.
        missing: asked-for modules it cannot import.
        versions: installed versions of the asked-for distributions.
    """

    path: Path
    base: Path
    version: tuple[int, int, int]
    can_make_venv: bool
    missing: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]

    @property
    def tag(self) -> str:
        """The CPython tag, as in wheel names."""
        return f"cp{self.version[0]}{self.version[1]}"

    @property
    def version_text(self) -> str:
        """The version with dots."""
        return ".".join(map(str, self.version))


def probe_interpreter(
    path: Path, *, modules: Sequence[str] = (), distributions: Sequence[str] = ()
) -> Interpreter:
    """Run a Python and ask it what it is.

    Raises:
        ToolchainError: it does not run, or is no Python.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"}
    with open_scratch("probe") as folder:  # `-c` imports from the working directory
        try:
            done = subprocess.run(
                [path, "-c", _PROBE, " ".join(modules), " ".join(distributions)],
                capture_output=True,
                check=True,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                timeout=_PROBE_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ToolchainError(
                f"{path}: expected a Python interpreter: {_why(error)}",
                remedy="Name the `python` of an environment, such as /path/to/venv/bin/python.",
            ) from error
    return _parse(path, done.stdout)


def find_interpreter(spec: ToolchainSpec) -> Interpreter:
    """Find a Python in a toolchain's range that can make environments.

    The one EdgePack runs on is taken first, then the newest on PATH.

    Raises:
        ToolchainError: there is none; the message names what was found.
    """
    rejected = []
    for path in _candidates(spec):
        try:
            found = probe_interpreter(path)
        except ToolchainError:  # a version manager's shim for a Python that is not active
            continue
        if not spec.supports(found.version[:2]):
            rejected.append(f"{path} is Python {found.version_text}")
        elif not found.can_make_venv:
            rejected.append(f"{path} lacks the module venv or ensurepip")
        else:
            return found
    raise ToolchainError(
        join_faults(
            f"the {spec.name} toolchain needs {spec.python_range} on PATH, with the modules "
            "venv and ensurepip",
            rejected or ["no Python was found"],
        ),
        remedy="Install one of these Pythons (on Debian and Ubuntu with python3-venv), or name "
        "an environment that has the framework with --toolchain-python.",
    )


def _candidates(spec: ToolchainSpec) -> Iterator[Path]:
    yield Path(sys.executable)
    (major, low), (_, high) = spec.pythons
    names = [f"python{major}.{minor}" for minor in range(high, low - 1, -1)]
    for name in [*names, f"python{major}", "python"]:
        found = shutil.which(name)
        if found:
            yield Path(found)


def _parse(path: Path, output: bytes) -> Interpreter:
    # A site customization may print, so only the last line is ours.
    lines = output.splitlines()
    try:
        answer = json.loads(lines[-1] if lines else b"")
    except ValueError:
        answer = None
    fields = Fields(answer if isinstance(answer, dict) else {})
    version = fields.integers("version", minimum=0)
    base = fields.text("base")
    versions = fields.raw("versions")
    major, minor, micro, *_ = (*version, 0, 0, 0)
    found = Interpreter(
        path=path,
        base=Path(base),
        version=(major, minor, micro),
        can_make_venv=fields.boolean("can_make_venv"),
        missing=fields.texts("missing"),
        versions=tuple(sorted((str(name), str(text)) for name, text in versions.items()))
        if isinstance(versions, dict)
        else (),
    )
    if fields.faults:
        raise ToolchainError(
            join_faults(f"{path}: expected a Python interpreter's answer", fields.faults),
            remedy="Name the `python` of an environment, such as /path/to/venv/bin/python.",
        )
    return found


def _why(error: OSError | subprocess.SubprocessError) -> str:
    match error:
        case subprocess.CalledProcessError():
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            return f"it ended with exit code {error.returncode}" + (
                f" ({lines[-1][:200]})" if lines else ""
            )
        case subprocess.TimeoutExpired():
            return f"it did not answer within {_PROBE_SECONDS} s"
        case OSError():
            return error.strerror or str(error)
    return str(error)
