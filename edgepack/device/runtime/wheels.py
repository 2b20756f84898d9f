"""Which runtime wheels suit a device, and what of them is sent.

`runtimes.toml` pins each wheel by sha256, with what its ELF files need of the C and C++
libraries as `elf.read_needs` found it; `scripts/lock-runtimes` writes it.
"""

import fnmatch
import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cache as cached
from importlib.resources import files as resource_files
from typing import Final

from edgepack._fields import Fields
from edgepack.device.survey.elf import SymbolNeeds, Version
from edgepack.device.survey.facts import DeviceFacts, PythonFacts
from edgepack.errors import ProvisionError

# What importing the interpreter and numpy needs; found by running them (ai-edge-litert 2.3.0,
# tflite-runtime 2.14.0, numpy 1.26 to 2.3). Of ai-edge-litert's declared dependencies only
# numpy is imported. Its accelerators, converters and vendor plug-ins are three fifths of it.
_KEEP: Final = (
    "*.dist-info/METADATA",
    "*.dist-info/*LICEN[CS]E*",
    "ai_edge_litert/__init__.py",
    "ai_edge_litert/interpreter.py",
    "ai_edge_litert/metrics_interface.py",
    "ai_edge_litert/metrics_portable.py",
    "ai_edge_litert/_pywrap_litert_interpreter_wrapper.so",
    "ai_edge_litert/_pywrap_tensorflow_lite_metrics_wrapper.so",
    "ai_edge_litert/libpywrap_litert_common.*",
    "tflite_runtime/*",
    "numpy/*",
    "numpy.libs/*",
    "pymicro_wakeword/lib/*",
)
_LEAVE_OUT: Final = (
    "*/tests/*",
    "*.pyi",
    "*.pxd",
    "*.pyx",
    "*.a",
    "*.h",
    "*.npz",
    "numpy/*core/_simd.*",
    "numpy/_core/*_tests.*",  # numpy 1's own, in numpy/core, is imported at start
    "numpy/distutils/*",
    "numpy/doc/*",
    "numpy/f2py/*",
    "numpy/_pyinstaller/*",
    "numpy/random/_examples/*",
    "numpy/typing/*",
)

# A GCC release adds both; libstdc++.so.6.0.N has every GLIBCXX up to 3.4.N
# (https://gcc.gnu.org/onlinedocs/libstdc++/manual/abi.html).
_CXXABI_SINCE: Final = {9: 21, 10: 22, 11: 24, 12: 26, 13: 29, 14: 31, 15: 33}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A pinned wheel.

    Attributes:
        project: its name on the package index.
        version: its version.
        tag: the interpreter it is for, such as `cp311`; `py3` for a library without one.
        system: `Linux` or `Darwin`.
        arch: architecture.
        platform: its platform tag, as pip is asked for it.
        file: its file name.
        sha256: hex digest of the file.
        num_bytes: size of the file.
        kept_bytes: of what is sent of it, unpacked.
        kept_files: how many files that is.
        needs: of the ELF files in it that are sent.
        xnnpack: whether the runtime in it has XNNPACK's kernels; None for no runtime.
    """

    project: str
    version: str
    tag: str
    system: str
    arch: str
    platform: str
    file: str
    sha256: str
    num_bytes: int
    kept_bytes: int
    kept_files: int
    needs: SymbolNeeds
    xnnpack: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Wheels that together run models on a device.

    Attributes:
        engine: the runtime's own wheel.
        module: what is imported, such as `ai_edge_litert.interpreter`.
        numpy: numpy's wheel; None where the device's own is used.
    """

    engine: Wheel
    module: str
    numpy: Wheel | None

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """All that is to be installed."""
        return (self.engine,) if self.numpy is None else (self.engine, self.numpy)

    @property
    def digest(self) -> str:
        """Hex digest of what is installed: the pinned wheels and what is kept of them."""
        parts = [[wheel.sha256 for wheel in self.wheels], list(_KEEP), list(_LEAVE_OUT)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of its folder on a device."""
        engine = self.engine
        return f"{engine.project}-{engine.version}-{engine.tag}-{self.digest[:12]}"


LIBSTDCXX_REMEDY: Final = (
    "Install the C++ library, libstdc++.so.6, on the device (`sudo apt install libstdc++6` on "
    "Debian), then repeat."
)
"""What helps a device without a C++ library."""

ARMV7_FEATURES: Final = ("neon", "vfpv4")
"""What the wheels for 32-bit Arm were compiled for: -march=armv7-a -mfpu=neon-vfpv4."""

# Best first. numpy 2 breaks tflite-runtime 2.14, which was built against numpy 1.
_ENGINES: Final = (
    ("ai-edge-litert", "2.3.0", "ai_edge_litert.interpreter", ("2.3.5", "2.2.6"), (1, 23)),
    ("tflite-runtime", "2.14.0", "tflite_runtime.interpreter", ("1.26.4",), (1, 19)),
    ("tflite-runtime", "2.11.0", "tflite_runtime.interpreter", ("1.26.4",), (1, 19)),
)


@cached
def load_wheels() -> tuple[Wheel, ...]:
    """Read the pinned wheels that come with EdgePack."""
    text = resource_files("edgepack.device.runtime").joinpath("runtimes.toml").read_text("utf-8")
    fields = Fields(tomllib.loads(text))
    wheels = tuple(_read_wheel(table) for table in fields.tables("wheel"))
    if fields.faults:
        raise ProvisionError(f"runtimes.toml: {fields.faults[0]}", remedy="Install EdgePack again.")
    return wheels


def _read_wheel(fields: Fields) -> Wheel:
    def version(key: str) -> Version | None:
        text = fields.optional_text(key)
        return tuple(int(part) for part in text.split(".")) if text else None

    return Wheel(
        project=fields.text("project"),
        version=fields.text("version"),
        tag=fields.text("tag"),
        system=fields.text("system"),
        arch=fields.text("arch"),
        platform=fields.text("platform"),
        file=fields.text("file"),
        sha256=fields.text("sha256"),
        num_bytes=fields.integer("num_bytes", minimum=1),
        kept_bytes=fields.integer("kept_bytes", minimum=1),
        kept_files=fields.integer("kept_files", minimum=1),
        needs=SymbolNeeds(
            glibc=version("glibc"), glibcxx=version("glibcxx"), cxxabi=version("cxxabi")
        ),
        xnnpack=fields.boolean("xnnpack") if fields.has("xnnpack") else None,
    )


def find_first_engine(system: str, arch: str) -> tuple[str, str] | None:
    """Give project and version of the best engine with wheels for a system; None without one."""
    present = {
        (wheel.project, wheel.version)
        for wheel in load_wheels()
        if (wheel.system, wheel.arch) == (system, arch)
    }
    names = (each[:2] for each in _ENGINES)
    return next((each for each in names if each in present), None)


def choose_runtime(facts: DeviceFacts) -> Runtime:
    """Choose the best runtime that the device's Python and libraries can load.

    Raises:
        ProvisionError: none can be; says why of each, and what would help.
    """
    python = _check_ground(facts)
    faults: list[str] = []
    for project, version, module, numpy_versions, numpy_minimum in _ENGINES:
        engine = find_wheel(project, (version,), python.tag, facts)
        label = f"{project} {version}"
        if engine is None:
            faults.append(f"{label} has no wheel for {python.tag} on {facts.system} {facts.arch}")
            continue
        unmet = judge_needs(engine.needs, facts)
        if unmet:
            faults.append(f"{label} {unmet}")
            continue
        numpy = find_wheel("numpy", numpy_versions, python.tag, facts)
        unmet = judge_needs(numpy.needs, facts) if numpy else ""
        if numpy is not None and not unmet:
            return Runtime(engine=engine, module=module, numpy=numpy)
        own = _parse_version(python.numpy)
        is_old_abi = project == "tflite-runtime"
        if own >= numpy_minimum and not (is_old_abi and own >= (2,)):
            return Runtime(engine=engine, module=module, numpy=None)
        wanted = f"numpy {'1.x' if is_old_abi else '1.23 or newer'}"
        found = f"numpy {python.numpy}" if python.numpy else "no numpy"
        faults.append(f"{label} needs {wanted}, which has no wheel; the device has {found}")
    raise _no_runtime(facts, python, faults)


def _no_runtime(facts: DeviceFacts, python: PythonFacts, faults: list[str]) -> ProvisionError:
    text = "; ".join(faults)
    remedy = (
        "Upgrade the device's system to one with glibc 2.36, such as Debian 12 or Raspberry Pi OS "
        "bookworm, or give it Python 3.11."
    )
    if "no wheel; the device has" in text:
        remedy = "Run `sudo apt install python3-numpy` on the device, then repeat."
    elif facts.libstdcxx is None and "libstdc++" in text:
        remedy = LIBSTDCXX_REMEDY
    return ProvisionError(
        f"no runtime fits {facts.os_name or facts.system} with Python "
        f"{'.'.join(map(str, python.version))} on {facts.arch}: {text}",
        remedy=remedy,
    )


def check_libc(facts: DeviceFacts) -> None:
    """Refuse systems whose C library no runtime is made for.

    Raises:
        ProvisionError: another C library than glibc, or none; says what works there.
    """
    where = facts.os_name or facts.system
    if facts.libc is None:  # a static BusyBox: where Python has a glibc of its own, it says so
        raise ProvisionError(
            f"every runtime needs glibc, but {where} has no C library: there is no "
            "/lib/ld-linux*.so.*, so nothing but static programs is started",
            remedy="Run a system with glibc there, such as Debian or Raspberry Pi OS.",
        )
    if facts.libc in {"musl", "bionic"}:
        wayout = (
            "Install a Debian with an SSH server in Termux, or bring --runtime and "
            "--runtime-program: docs/devices.md (Android)."
            if facts.libc == "bionic"
            else "Run a system with glibc there, such as Debian or Raspberry Pi OS."
        )
        raise ProvisionError(
            f"every runtime needs glibc, but {where} has {facts.libc}", remedy=wayout
        )


def _check_ground(facts: DeviceFacts) -> PythonFacts:
    """Refuse what no wheel is made for, whatever its version."""
    check_libc(facts)
    where = facts.os_name or facts.system
    if facts.python is None:
        raise ProvisionError(
            f"the runtime needs Python 3.9 to 3.14, but {where} has no python3",
            remedy="Run `sudo apt install python3` on the device, or what its system calls that.",
        )
    version = ".".join(map(str, facts.python.version))
    if not facts.python.tag.startswith("cp") or not ((3, 9) <= facts.python.version[:2] <= (3, 14)):
        raise ProvisionError(
            f"the runtime needs CPython 3.9 to 3.14, but {where} has "
            f"{facts.python.tag} ({version})",
            remedy="Install a fitting python3.N beside it; it is found by its name.",
        )
    is_64 = facts.arch in {"aarch64", "x86_64", "riscv64"}
    if is_64 != (facts.python.bits == 64):  # noqa: PLR2004 - pointer bits
        raise ProvisionError(
            f"{facts.python.path} is a {facts.python.bits}-bit Python in a {facts.arch} system",
            remedy="Install the system's own python3.",
        )
    return facts.python


def find_wheel(
    project: str, versions: tuple[str, ...], tag: str, facts: DeviceFacts
) -> Wheel | None:
    """Find a project's pinned wheel for a device, the first version first."""
    for version in versions:
        for wheel in load_wheels():
            found = (wheel.project, wheel.version, wheel.tag, wheel.system, wheel.arch)
            if found == (project, version, tag, facts.system, facts.arch):
                return wheel
    return None


def judge_needs(needs: SymbolNeeds, facts: DeviceFacts) -> str:
    """Say which library of the device is missing or too old, or nothing.

    A version that the device does not tell passes; the import check there has the last word.
    """
    where = facts.os_name or facts.system
    if needs.glibc and facts.libc == "glibc":
        text = facts.libc_version or ""
        limit = _parse_version(text.removeprefix("<"))
        if limit and (limit <= needs.glibc if text.startswith("<") else limit < needs.glibc):
            has = f"one older than {text[1:]}" if text.startswith("<") else text
            return f"needs glibc {_join(needs.glibc)}, but {where} has {has}"
    if facts.system != "Linux" or not needs.glibcxx:
        return ""
    has_version = _parse_version(facts.libstdcxx)
    wanted = needs.glibcxx
    if needs.cxxabi and len(needs.cxxabi) > 2:  # noqa: PLR2004 - 1.3.N
        wanted = max(wanted, (3, 4, _CXXABI_SINCE.get(needs.cxxabi[2], 0)))
    if facts.libstdcxx is None or (len(has_version) > 2 and has_version < wanted):  # noqa: PLR2004
        has = facts.libstdcxx or "none"
        return f"needs libstdc++ with GLIBCXX_{_join(wanted)}, but {where} has {has}"
    return ""


def _join(version: Version) -> str:
    return ".".join(map(str, version))


def _parse_version(text: str | None) -> Version:
    parts: list[int] = []
    for part in (text or "").split("."):
        if not part.isascii() or not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def is_kept(path: str) -> bool:
    """Tell whether a wheel's file is sent to the device."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in _KEEP) and not any(
        fnmatch.fnmatchcase(path, pattern) for pattern in _LEAVE_OUT
    )
