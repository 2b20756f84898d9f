"""What a device is: architecture, libraries, silicon, Python, room; read once a session."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.device.store.layout import resolve_root
from edgepack.device.survey import probe
from edgepack.device.wire.sections import clean_text, parse_count, split_sections
from edgepack.device.wire.transport import Device
from edgepack.errors import DeviceError

_TIMEOUT_SECONDS: Final = 120.0  # emulated boards on a busy machine took more than 60
_MAX_OUTPUT_BYTES: Final = 2**20
_MAX_BYTES: Final = 2**60
_EARLIEST_CLOCK: Final = 1_735_689_600  # 2025-01-01: no device that runs this is older
_LATEST_CLOCK: Final = 4_102_444_800  # 2100-01-01


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonFacts:
    """A Python interpreter on the device.

    Attributes:
        path: absolute path on the device.
        version: such as (3, 11, 2).
        tag: of its wheels, such as `cp311`; free-threaded builds end in `t`.
        bits: of a pointer.
        platform: as its sysconfig says, such as `linux-aarch64`.
        numpy: version of the numpy it can see; None when it has none.
    """

    path: str
    version: tuple[int, int, int]
    tag: str
    bits: int
    platform: str
    numpy: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """What a device is; None where it does not say.

    Attributes:
        system: kernel family: `Linux` or `Darwin`.
        arch: architecture of the userland, from the ELF header of its shell.
        kernel: release of the kernel.
        kernel_arch: architecture the kernel names.
        os_id: such as `debian`, `alpine`, `android`, `macos`.
        os_version: such as `12`.
        os_name: in full, for people.
        libc: `glibc`, `musl`, `bionic` or `libsystem`.
        libc_version: such as `2.36`; `<2.33` where no more can be told.
        libstdcxx: newest GLIBCXX version its libstdc++ has, such as `3.4.30`; `3.4` where that
            does not tell, None where there is no libstdc++.
        cpu: name of the core.
        cpu_features: in the kernel's spelling, sorted.
        num_cores: cores online.
        ram_bytes: all of it.
        board: model of the board or product.
        python: the interpreter that suits best.
        root: absolute path of the deploy root.
        free_bytes: room at the deploy root.
        clock_s: its clock, seconds since 1970.
    """

    system: str
    arch: str
    kernel: str
    kernel_arch: str
    os_id: str | None
    os_version: str | None
    os_name: str | None
    libc: str | None
    libc_version: str | None
    libstdcxx: str | None
    cpu: str | None
    cpu_features: tuple[str, ...]
    num_cores: int | None
    ram_bytes: int | None
    board: str | None
    python: PythonFacts | None
    root: str
    free_bytes: int | None
    clock_s: int | None

    @property
    def clock_is_plausible(self) -> bool:
        """Tell whether the clock could be right: a board without a battery starts in the past."""
        return self.clock_s is not None and _EARLIEST_CLOCK <= self.clock_s <= _LATEST_CLOCK


def read_facts(device: Device, root: str) -> DeviceFacts:
    """Ask a device what it is.

    Args:
        device: a connected device.
        root: the deploy root, which may begin with `~`.

    Raises:
        DeviceError: it has no POSIX shell, or answers with something else.
    """
    absolute = resolve_root(device, root)
    result = device.run(
        ["sh", "-c", probe.FACTS_SCRIPT, "edgepack", absolute, probe.PYTHON_PROBE],
        timeout_seconds=_TIMEOUT_SECONDS,
        max_output_bytes=_MAX_OUTPUT_BYTES,
    )
    return read_answer(result.text, root=absolute)


def read_answer(text: str, *, root: str) -> DeviceFacts:
    """Read what `probe.FACTS_SCRIPT` printed.

    Raises:
        DeviceError: not the script's output, or a device without a kernel we know.
    """
    sections = split_sections(text)
    uname = " ".join(sections.get("uname", ())).split()
    if len(uname) < 3 or "end" not in sections:  # noqa: PLR2004 - system, release, machine
        raise DeviceError(
            "the device did not answer the question what it is: expected a POSIX shell, "
            f"got {clean_text(text, limit=80) or 'nothing'!r}",
            remedy="Log in with `ssh` and see whether `sh -c 'uname -a'` works there; a login that "
            "starts a menu or a restricted shell cannot be used.",
        )
    system, kernel, machine = (clean_text(word) for word in uname[:3])
    arch = probe.parse_arch(sections.get("shell", ()), machine)
    os_id, os_version, os_name = probe.parse_os(sections)
    libc, libc_version = probe.parse_libc(sections, system, arch)
    sysctl = probe.parse_pairs(sections.get("sysctl", ()))
    memory = parse_count(sysctl.get("hw.memsize", ""), maximum=_MAX_BYTES)
    cpu, features = probe.parse_cpu(sections, sysctl)
    return DeviceFacts(
        system=system,
        arch=arch,
        kernel=kernel,
        kernel_arch=machine,
        os_id=os_id,
        os_version=os_version,
        os_name=os_name,
        libc=libc,
        libc_version=libc_version,
        libstdcxx=probe.parse_libstdcxx(sections.get("libstdcxx", ()), arch),
        cpu=cpu,
        cpu_features=features,
        num_cores=parse_count(
            probe.first_line(sections, "cores") or sysctl.get("hw.ncpu", ""), maximum=4096
        ),
        ram_bytes=memory if memory is not None else probe.parse_memory(sections.get("meminfo", ())),
        board=probe.parse_board(sections, sysctl),
        python=_parse_pythons(sections.get("python", ())),
        root=root,
        free_bytes=probe.parse_free(sections.get("disk", ())),
        clock_s=parse_count(probe.first_line(sections, "clock"), maximum=_MAX_BYTES),
    )


def _parse_pythons(lines: tuple[str, ...]) -> PythonFacts | None:
    """Give the interpreter that a runtime most likely fits: `python3`, unless too old or odd.

    32-bit ARM has runtime wheels up to Python 3.11, all else up to 3.14.
    """
    found = [python for line in lines if (python := _parse_python(line)) is not None]
    served = [
        python
        for python in found
        if (3, 9) <= python.version[:2] <= ((3, 14) if python.bits == 64 else (3, 11))  # noqa: PLR2004
    ]
    regular = [python for python in served if re.fullmatch(r"cp\d+", python.tag)]
    return next(iter(regular or served or found), None)


def _parse_python(line: str) -> PythonFacts | None:
    try:
        table = json.loads(line)
    except ValueError:
        return None
    if not isinstance(table, dict):
        return None
    fields = Fields(table)
    version = fields.integers("version", minimum=0)
    path, platform = fields.text("path"), fields.text("platform")
    implementation = fields.text("implementation")
    abiflags = fields.text("abiflags", "", empty=True)
    bits = fields.integer("bits", minimum=32, maximum=64)
    numpy = fields.raw("numpy")
    valid = (
        not fields.faults
        and len(version) == 3  # noqa: PLR2004 - major, minor, micro
        and max(version) < 1000  # noqa: PLR2004 - no such Python
        and path.startswith("/")
        and path == clean_text(path, limit=1000)
    )
    if not valid:
        return None
    prefix = "cp" if implementation == "cpython" else clean_text(implementation, limit=10)
    tag = f"{prefix}{version[0]}{version[1]}{'t' if 't' in abiflags else ''}"
    return PythonFacts(
        path=path,
        version=(version[0], version[1], version[2]),
        tag=tag,
        bits=bits,
        platform=clean_text(platform, limit=60),
        numpy=clean_text(numpy, limit=40) if isinstance(numpy, str) else None,
    )


def to_json(facts: DeviceFacts) -> dict[str, object]:
    """Give the facts as JSON values, in the order of the fields; `parse_facts` is its inverse."""
    table = dataclasses.asdict(facts)
    table["cpu_features"] = list(facts.cpu_features)
    if facts.python is not None:
        table["python"] = dataclasses.asdict(facts.python)
        table["python"]["version"] = list(facts.python.version)
    table["clock_is_plausible"] = facts.clock_is_plausible
    return table


def parse_facts(table: Mapping[str, object]) -> DeviceFacts:
    """Read back what `to_json` gave.

    Raises:
        DeviceError: another shape; all faults are listed.
    """
    fields = Fields(table)
    fields.raw("clock_is_plausible")
    python = None
    if table.get("python") is not None:
        reader = fields.table("python")
        version = reader.integers("version", minimum=0)
        if len(version) != 3:  # noqa: PLR2004 - major, minor, micro
            reader.fault("version", "expected three numbers")
            version = (0, 0, 0)
        python = PythonFacts(
            path=reader.text("path"),
            version=(version[0], version[1], version[2]),
            tag=reader.text("tag"),
            bits=reader.integer("bits"),
            platform=reader.text("platform"),
            numpy=_nullable_text(reader, "numpy"),
        )
        reader.close()
    fields.raw("python")
    facts = DeviceFacts(
        system=fields.text("system"),
        arch=fields.text("arch"),
        kernel=fields.text("kernel"),
        kernel_arch=fields.text("kernel_arch"),
        os_id=_nullable_text(fields, "os_id"),
        os_version=_nullable_text(fields, "os_version"),
        os_name=_nullable_text(fields, "os_name"),
        libc=_nullable_text(fields, "libc"),
        libc_version=_nullable_text(fields, "libc_version"),
        libstdcxx=_nullable_text(fields, "libstdcxx"),
        cpu=_nullable_text(fields, "cpu"),
        cpu_features=fields.texts("cpu_features"),
        num_cores=_nullable_count(fields, "num_cores"),
        ram_bytes=_nullable_count(fields, "ram_bytes"),
        board=_nullable_text(fields, "board"),
        python=python,
        root=fields.text("root"),
        free_bytes=_nullable_count(fields, "free_bytes"),
        clock_s=_nullable_count(fields, "clock_s"),
    )
    fields.close()
    if fields.faults:
        raise DeviceError(
            join_faults("device facts", fields.faults),
            remedy="The record was changed or comes from another version; measure again.",
        )
    return facts


def _nullable_text(fields: Fields, key: str) -> str | None:
    return None if fields.raw(key) is None else fields.text(key)


def _nullable_count(fields: Fields, key: str) -> int | None:
    return None if fields.raw(key) is None else fields.integer(key, minimum=0)
