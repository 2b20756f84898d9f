"""Which build of a package is taken that stands outside its toolchain's lock.

PyTorch's builds for CPU and for CUDA bear one version and differ in file, so no sha256 serves
both. The package index's builds for Linux need gigabytes of CUDA libraries, which EdgePack,
computing on the CPU, makes no use of: such a build is taken only when it is asked for.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from edgepack._fields import Fields
from edgepack.errors import ToolchainError
from edgepack.toolchains.catalog import ToolchainSpec
from edgepack.toolchains.interpreter import Interpreter

LARGE_BUILD_MIB: Final = 9000
"""Free disk space that a CUDA build of PyTorch and its libraries need besides."""

_MAXIMUM_REPORT_BYTES: Final = 64 << 20
_PIN: Final = re.compile(r"(?m)^([a-z0-9-]+)==([^\s\\]+)( ; [^\\\n]+)?")
_MOST_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildChoice:
    """Which builds of the packages outside a lock the user wants.

    Attributes:
        index_url: package index they come from; None is pip's own.
        allow_large: take builds that need libraries outside the lock.
    """

    index_url: str | None = None
    allow_large: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """Give the environment pip runs in; not its arguments, which other users can read."""
        if self.index_url is None:
            return {}
        return {"PIP_INDEX_URL": self.index_url, "PIP_EXTRA_INDEX_URL": ""}


PLAIN_BUILDS: Final = BuildChoice()


def query_args(spec: ToolchainSpec, *, report: Path) -> list[str]:
    """Give pip's arguments that tell which builds it would take, without installing any."""
    return ["--dry-run", "--ignore-installed", "--no-deps", f"--report={report}", *spec.unhashed]


def check_builds(spec: ToolchainSpec, interpreter: Interpreter, *, report: Path) -> None:
    """Refuse builds that need packages outside the lock.

    Args:
        spec: of the toolchain.
        interpreter: they would be installed for.
        report: what pip wrote, asked with `query_args`.

    Raises:
        ToolchainError: a build needs more, or pip's report is none.
    """
    locked = {match[1] for match in _PIN.finditer(spec.read_lock().decode())}
    major, minor, _ = interpreter.version
    environment: dict[str, str] = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_version": f"{major}.{minor}",
        "python_full_version": interpreter.version_text,
        "extra": "",
    }
    for title, requirements in _read_report(report):
        needed = {
            canonicalize_name(each.name)
            for each in requirements
            if each.marker is None or each.marker.evaluate(environment)
        }
        outside = sorted(needed - locked)
        if outside:
            shown = outside[:_MOST_SHOWN]
            more = len(outside) - len(shown)
            raise ToolchainError(
                f"the {spec.name} toolchain computes on the CPU, but the build of {title} that "
                f"pip would install needs gigabytes of other libraries: {', '.join(shown)}"
                + (f" and {more} more" if more else ""),
                remedy=f"Run `edgepack toolchain install {spec.name} --index-url URL` with "
                f"{spec.plain_index} (about 200 MB to download), or give --cuda instead to take "
                f"this one ({LARGE_BUILD_MIB} MiB on disk).",
            )


def write_constraints(spec: ToolchainSpec, path: Path) -> None:
    """Write the lock's versions without hashes, for pip to resolve the other packages by."""
    pins = (match[0] for match in _PIN.finditer(spec.read_lock().decode()))
    path.write_text("\n".join(pins) + "\n")


def _read_report(path: Path) -> list[tuple[str, list[Requirement]]]:
    """Give name and version of each package pip would install, with what it requires."""
    try:
        with path.open("rb") as file:
            report = json.loads(file.read(_MAXIMUM_REPORT_BYTES))
    except (OSError, ValueError):
        report = None
    fields = Fields(report if isinstance(report, dict) else {})
    found: list[tuple[str, list[Requirement]]] = []
    for item in fields.tables("install"):
        metadata = item.table("metadata")
        title = f"{metadata.text('name')} {metadata.text('version')}"
        texts = metadata.texts("requires_dist") if metadata.has("requires_dist") else ()
        try:
            found.append((title, [Requirement(text) for text in texts]))
        except InvalidRequirement:
            continue  # pip will say so itself
    if fields.faults or not found:
        raise ToolchainError(
            "expected pip to tell what it would install, but its report cannot be read",
            remedy="Update pip's own Python (`python -m ensurepip --upgrade`) and try again.",
        )
    return found
