"""What a device is: architecture, libraries, silicon, Python, room; read once a session.

One POSIX-sh script gathers raw text in one round trip; pure functions read it. The text
is untrusted: every value is bounded and validated, and what cannot be read is None.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.device.elf import parse_machine
from edgepack.device.layout import resolve_root
from edgepack.device.sections import clean_text, parse_count, split_sections
from edgepack.device.transport import Device
from edgepack.errors import DeviceError

_TIMEOUT_SECONDS: Final = 60.0
_MAX_OUTPUT_BYTES: Final = 2**20
_MAX_BYTES: Final = 2**60
_EARLIEST_CLOCK: Final = 1_735_689_600  # 2025-01-01: no device that runs this is older
_LATEST_CLOCK: Final = 4_102_444_800  # 2100-01-01

# The newest interpreters first among the versioned names; `python3`, which users expect,
# is asked first of all. `-I` keeps user site-packages and the environment out, as the
# runner does, so that what is seen is what will run.
_PYTHON_PROBE: Final = (
    "import json,platform,struct,sys,sysconfig\n"
    "try:\n"
    " from importlib.metadata import version\n"
    " numpy=version('numpy')\n"
    "except Exception:\n"
    " numpy=None\n"
    "print(json.dumps({'path':sys.executable,'version':list(sys.version_info[:3]),"
    "'implementation':sys.implementation.name,'bits':struct.calcsize('P')*8,"
    "'abiflags':getattr(sys,'abiflags',''),'platform':sysconfig.get_platform(),"
    "'numpy':numpy}))"
)

FACTS_SCRIPT: Final = r"""
export LC_ALL=C
section() { printf '\n@@%s\n' "$1"; }
section uname; uname -s; uname -r; uname -m
section shell
for sh in /bin/sh "${PREFIX:-/data/data/com.termux/files/usr}/bin/sh" /system/bin/sh; do
  [ -r "$sh" ] || continue
  if command -v od >/dev/null 2>&1; then head -c 20 "$sh" | od -An -v -tx1
  elif command -v xxd >/dev/null 2>&1; then head -c 20 "$sh" | xxd -p
  elif command -v hexdump >/dev/null 2>&1; then head -c 20 "$sh" | hexdump -v -e '1/1 "%02x "'
  fi
  break
done 2>/dev/null
section os
head -c 4096 /etc/os-release 2>/dev/null || head -c 4096 /usr/lib/os-release 2>/dev/null
section macos; command -v sw_vers >/dev/null 2>&1 && sw_vers 2>/dev/null
section android
command -v getprop >/dev/null 2>&1 && { getprop ro.build.version.release; getprop ro.product.model; } 2>/dev/null
section glibc; getconf GNU_LIBC_VERSION 2>/dev/null
section ldd; ldd --version 2>&1 </dev/null | head -n 4
section loaders; ls -d /lib/ld-musl-*.so.1 /lib*/ld-linux*.so.* /lib/*/ld-linux*.so.* 2>/dev/null | head -n 16
section libstdcxx
for f in /usr/lib/*/libstdc++.so.6 /lib/*/libstdc++.so.6 /usr/lib/libstdc++.so.6 /usr/lib64/libstdc++.so.6 /lib64/libstdc++.so.6; do
  [ -e "$f" ] && printf '%s %s\n' "$f" "$(readlink -f "$f" 2>/dev/null)"
done
section cpuinfo; sed -n '1,40p' /proc/cpuinfo 2>/dev/null | grep -v -i '^serial'
section cpumodel; grep -E '^(Model|Hardware)[[:space:]]*:' /proc/cpuinfo 2>/dev/null | head -n 2
section sysctl
[ "$(uname -s)" = Darwin ] && for key in machdep.cpu.brand_string hw.ncpu hw.memsize hw.model; do printf '%s: ' "$key"; sysctl -n "$key"; done 2>/dev/null
section cores; getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null || grep -c '^processor' /proc/cpuinfo 2>/dev/null
section meminfo; grep -E '^MemTotal:' /proc/meminfo 2>/dev/null
section board; head -c 200 /proc/device-tree/model 2>/dev/null | tr '\000' '\n'
section product; head -c 200 /sys/class/dmi/id/product_name 2>/dev/null
section python
for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
  command -v "$name" >/dev/null 2>&1 || continue
  "$name" -I -c "$2" </dev/null 2>/dev/null; printf '\n'
done
section disk
folder=$1
while [ ! -d "$folder" ] && [ "$folder" != / ] && [ -n "$folder" ]; do folder=${folder%/*}; done
df -Pk "${folder:-/}" 2>/dev/null
section clock; date -u +%s 2>/dev/null
section end
"""


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
        libc_version: such as `2.36`.
        libstdcxx: newest GLIBCXX version its libstdc++ has, such as `3.4.30`.
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
        ["sh", "-c", FACTS_SCRIPT, "edgepack", absolute, _PYTHON_PROBE],
        timeout_seconds=_TIMEOUT_SECONDS,
        max_output_bytes=_MAX_OUTPUT_BYTES,
    )
    return read_answer(result.text, root=absolute)


def read_answer(text: str, *, root: str) -> DeviceFacts:
    """Read what `FACTS_SCRIPT` printed.

    Raises:
        DeviceError: not the script's output, or a device without a kernel we know.
    """
    sections = split_sections(text)
    uname = sections.get("uname", ())
    if len(uname) < 3 or "end" not in sections:  # noqa: PLR2004 - system, release, machine
        raise DeviceError(
            "the device did not answer the question what it is: expected a POSIX shell, "
            f"got {clean_text(text, limit=80) or 'nothing'!r}",
            remedy="Log in with `ssh` and see whether `sh -c 'uname -a'` works there; a login that "
            "starts a menu or a restricted shell cannot be used.",
        )
    system, kernel, machine = (clean_text(line) for line in uname[:3])
    arch = _parse_arch(sections.get("shell", ()), machine)
    os_id, os_version, os_name = _parse_os(sections)
    libc, libc_version = _parse_libc(sections, system)
    sysctl = _parse_pairs(sections.get("sysctl", ()))
    memory = parse_count(sysctl.get("hw.memsize", ""), maximum=_MAX_BYTES)
    cpu, features = _parse_cpu(sections, sysctl)
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
        libstdcxx=_parse_libstdcxx(sections.get("libstdcxx", ()), arch),
        cpu=cpu,
        cpu_features=features,
        num_cores=parse_count(_first(sections, "cores") or sysctl.get("hw.ncpu", ""), maximum=4096),
        ram_bytes=memory if memory is not None else _parse_memory(sections.get("meminfo", ())),
        board=_parse_board(sections, sysctl),
        python=_parse_pythons(sections.get("python", ())),
        root=root,
        free_bytes=_parse_free(sections.get("disk", ())),
        clock_s=parse_count(_first(sections, "clock"), maximum=_MAX_BYTES),
    )


def _first(sections: Mapping[str, tuple[str, ...]], name: str) -> str:
    lines = sections.get(name, ())
    return lines[0] if lines else ""


def _parse_pairs(lines: tuple[str, ...], *, separator: str = ":") -> dict[str, str]:
    """Read `key: value` lines; the first of each key counts."""
    pairs: dict[str, str] = {}
    for line in lines:
        key, found, value = line.partition(separator)
        if found:
            pairs.setdefault(key.strip(), clean_text(value, limit=4096))
    return pairs


def _parse_arch(shell: tuple[str, ...], machine: str) -> str:
    """Give the userland's architecture; the kernel's own when the shell cannot be read."""
    digits = "".join("".join(shell).split())
    if re.fullmatch(r"([0-9a-f]{2}){8,64}", digits):
        header = bytes.fromhex(digits)
        elf = parse_machine(header)
        if elf == "armv7l" and machine.startswith(("armv6", "armv5")):
            return machine
        if elf is not None:
            return elf
        if header[:4] == b"\xcf\xfa\xed\xfe":  # a thin 64-bit Mach-O
            return {12: "aarch64", 7: "x86_64"}.get(header[4], machine)
    return {"arm64": "aarch64", "armv8l": "armv7l", "amd64": "x86_64"}.get(machine, machine)


def _parse_os(sections: Mapping[str, tuple[str, ...]]) -> tuple[str | None, str | None, str | None]:
    if sections.get("macos"):
        pairs = _parse_pairs(sections["macos"])
        version = clean_text(pairs.get("ProductVersion", "")) or None
        return "macos", version, f"macOS {version}" if version else "macOS"
    release = {
        key: clean_text(value.strip("\"'"))
        for key, value in _parse_pairs(sections.get("os", ()), separator="=").items()
    }
    if release.get("ID"):
        return release["ID"], release.get("VERSION_ID") or None, release.get("PRETTY_NAME") or None
    if sections.get("android"):
        version = clean_text(sections["android"][0])
        return "android", version, f"Android {version}"
    return None, None, None


def _parse_libc(
    sections: Mapping[str, tuple[str, ...]], system: str
) -> tuple[str | None, str | None]:
    if system == "Darwin":
        return "libsystem", None
    match = re.fullmatch(r"glibc (\d{1,3}\.\d{1,3})(\.\d+)*", _first(sections, "glibc"))
    if match:
        return "glibc", match[1]
    ldd = " ".join(sections.get("ldd", ()))
    match = re.search(r"musl libc.*?Version (\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)", ldd)
    if match:
        return "musl", match[1]
    match = re.match(r"ldd \(.*?\) (\d{1,3}\.\d{1,3})\b", ldd)
    if match:
        return "glibc", match[1]
    loaders = " ".join(sections.get("loaders", ()))
    if "ld-musl" in loaders:
        return "musl", None
    if sections.get("android"):
        return "bionic", None
    return ("glibc", None) if "ld-linux" in loaders else (None, None)


_TRIPLETS: Final = {
    "aarch64": "aarch64-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
    "x86_64": "x86_64-linux-gnu",
    "i686": "i386-linux-gnu",
}


def _parse_libstdcxx(lines: tuple[str, ...], arch: str) -> str | None:
    """Give the GLIBCXX version: libstdc++.so.6.0.N holds all up to GLIBCXX_3.4.N."""
    own = _TRIPLETS.get(arch, "")
    found: list[tuple[bool, int]] = []
    for line in lines:
        match = re.fullmatch(r"(\S+) \S*libstdc\+\+\.so\.6\.0\.(\d{1,3})", line)
        foreign = match and any(
            f"/{triplet}/" in match[1] for triplet in _TRIPLETS.values() if triplet != own
        )
        if match and not foreign:
            found.append((f"/{own}/" in match[1], int(match[2])))
    return f"3.4.{max(found)[1]}" if found else None


# Arm's part numbers (`CPU part`, Arm's Main ID Register documentation); the kernel gives no names.
_ARM_PARTS: Final = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd44": "Cortex-X1",
    "0xd49": "Neoverse-N2",
}


def _parse_cpu(
    sections: Mapping[str, tuple[str, ...]], sysctl: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    info = _parse_pairs(sections.get("cpuinfo", ()))
    name = info.get("model name") or sysctl.get("machdep.cpu.brand_string", "")
    if info.get("CPU implementer") == "0x41":
        name = _ARM_PARTS.get(info.get("CPU part", ""), name)
    words = (info.get("Features") or info.get("flags") or "").split()
    features = sorted({word for word in words if re.fullmatch(r"[a-z0-9_.]{1,32}", word)})
    return clean_text(name) or None, tuple(features)


def _parse_memory(lines: tuple[str, ...]) -> int | None:
    match = re.match(r"MemTotal:\s+(\d{1,15}) kB", " ".join(lines))
    return int(match[1]) * 1024 if match else None


def _parse_board(sections: Mapping[str, tuple[str, ...]], sysctl: Mapping[str, str]) -> str | None:
    android = sections.get("android", ())
    cpu_model = _parse_pairs(sections.get("cpumodel", ()))
    candidates = (
        _first(sections, "board"),
        android[1] if len(android) > 1 else "",
        cpu_model.get("Model", ""),
        sysctl.get("hw.model", ""),
        _first(sections, "product"),
    )
    return next((clean_text(text) for text in candidates if clean_text(text)), None)


def _parse_free(lines: tuple[str, ...]) -> int | None:
    """Read `df -Pk`; a long device name may stand on a line of its own in old BusyBox."""
    words = " ".join(lines[1:]).split()
    numbers = [index for index, word in enumerate(words) if re.fullmatch(r"\d{1,3}%", word)]
    available = words[numbers[0] - 1] if numbers and numbers[0] else ""
    kib = parse_count(available, maximum=_MAX_BYTES // 1024)
    return None if kib is None else kib * 1024


def _parse_pythons(lines: tuple[str, ...]) -> PythonFacts | None:
    """Give the interpreter that a runtime most likely fits: `python3`, unless too old or odd."""
    found = [python for line in lines if (python := _parse_python(line)) is not None]
    served = [python for python in found if (3, 9) <= python.version[:2] <= (3, 14)]
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
    """Give the facts as JSON values, in the order of the fields."""
    table = dataclasses.asdict(facts)
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
