"""The questions that tell what a device is, and how each answer reads.

One POSIX-sh script gathers raw text in one round trip; pure functions read it. The text
is untrusted: every value is bounded and validated, and what cannot be read is None.
"""

import re
from collections.abc import Mapping
from typing import Final

from edgepack.device.survey.elf import parse_machine
from edgepack.device.wire.sections import clean_text, parse_count

_MAX_BYTES: Final = 2**60

# `-I` keeps user site-packages and the environment out, as the runner does, so that what is
# seen is what will run. The exit code says whether to look no further: some runtime has
# wheels for this version. Only what is loaded at start anyway is imported, and no
# importlib.metadata: this also runs on the slowest boards.
PYTHON_PROBE: Final = """
import json, os, sys
numpy = None
for folder in sys.path:
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    for name in names:
        if numpy is None and name.startswith("numpy-") and name.endswith("-info"):
            numpy = name[6:].rsplit(".", 1)[0].split("-")[0]
bits = 64 if sys.maxsize > 2**32 else 32
name = "CS_GNU_LIBC_VERSION"
libc = os.confstr(name) if name in getattr(os, "confstr_names", ()) else None
print(json.dumps({
    "path": sys.executable, "version": list(sys.version_info[:3]), "bits": bits,
    "implementation": sys.implementation.name, "abiflags": getattr(sys, "abiflags", ""),
    "platform": sys.platform + "-" + os.uname().machine, "numpy": numpy,
    "libc": libc,
}))
newest = (3, 14) if bits == 64 else (3, 11)
sys.exit(not (3, 9) <= sys.version_info[:2] <= newest)
"""

# `$1` the deploy root, `$2` PYTHON_PROBE.
FACTS_SCRIPT: Final = r"""
export LC_ALL=C
section() { printf '\n@@%s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }
section uname; uname=$(uname -srm); printf %s\\n "$uname"
section shell
for sh in /bin/sh "${PREFIX:-/data/data/com.termux/files/usr}/bin/sh" /system/bin/sh; do
  [ -r "$sh" ] || continue
  if has od; then head -c 20 "$sh" | od -An -v -tx1
  elif has xxd; then head -c 20 "$sh" | xxd -p
  elif has hexdump; then head -c 20 "$sh" | hexdump -v -e '1/1 "%02x "'
  fi
  break
done 2>/dev/null
section os
head -c 4096 /etc/os-release 2>/dev/null || head -c 4096 /usr/lib/os-release 2>/dev/null
section macos; has sw_vers && sw_vers 2>/dev/null
section android
for getprop in getprop /system/bin/getprop; do
  has "$getprop" || continue
  "$getprop" ro.build.version.release; "$getprop" ro.product.model; break
done 2>/dev/null
section bionic; ls -d /system/bin/linker64 /system/bin/linker 2>/dev/null
section glibc; glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null); printf %s\\n "$glibc"
section ldd; [ -n "$glibc" ] || ldd --version 2>&1 </dev/null | head -n 4
section loaders
[ -n "$glibc" ] ||
  for loader in /lib/ld-musl-*.so.1 /lib*/ld-linux*.so.* /lib/*/ld-linux*.so.*; do
    [ -e "$loader" ] || continue
    printf %s\\n "$loader"
    "$loader" --version 2>&1 </dev/null | head -n 2
  done | head -n 16
section libc
[ -n "$glibc" ] ||
  for file in /lib/*/libc.so.6 /lib*/libc.so.6; do
    [ -L "$file" ] && echo "$file $(readlink "$file" 2>/dev/null)"
  done
section libstdcxx
python=$(readlink -f "$(command -v python3)" 2>/dev/null)
for folder in /usr/lib/* /lib/* /usr/lib /usr/lib64 /lib64 /usr/local/lib /usr/local/lib64 \
  "${python%/bin/*}/lib" $(IFS=:; echo $LD_LIBRARY_PATH); do
  file=$folder/libstdc++.so.6
  [ -e "$file" ] && echo "$file $(readlink -f "$file" 2>/dev/null)"
done
section cpuinfo; sed -n -e '/^[Ss]erial/d' -e '1,40p' /proc/cpuinfo 2>/dev/null
section cpumodel; sed -n -e '/^Model[[:space:]]*:/p' /proc/cpuinfo 2>/dev/null
section sysctl
[ "${uname%% *}" = Darwin ] &&
  for key in machdep.cpu.brand_string hw.ncpu hw.memsize hw.model; do
    printf '%s: ' "$key"; sysctl -n "$key"
  done 2>/dev/null
section cores
getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null ||
  grep -c '^processor' /proc/cpuinfo 2>/dev/null
section meminfo; grep -E '^MemTotal:' /proc/meminfo 2>/dev/null
section board
[ -r /proc/device-tree/model ] && tr '\000' '\n' </proc/device-tree/model 2>/dev/null
section product
[ -r /sys/class/dmi/id/product_name ] && cat /sys/class/dmi/id/product_name 2>/dev/null
section python
for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
  has "$name" || continue
  "$name" -I -c "$2" </dev/null 2>/dev/null && break
done
section disk
folder=$1
while [ ! -d "$folder" ] && [ -n "$folder" ]; do folder=${folder%/*}; done
df -Pk "${folder:-/}" 2>/dev/null
section clock; date -u +%s 2>/dev/null
section end
"""


def first_line(sections: Mapping[str, tuple[str, ...]], name: str) -> str:
    """Give a section's first line, or an empty text."""
    lines = sections.get(name, ())
    return lines[0] if lines else ""


def parse_pairs(lines: tuple[str, ...], *, separator: str = ":") -> dict[str, str]:
    """Read `key: value` lines; the first of each key counts."""
    pairs: dict[str, str] = {}
    for line in lines:
        key, found, value = line.partition(separator)
        if found:
            pairs.setdefault(key.strip(), clean_text(value, limit=4096))
    return pairs


def parse_arch(shell: tuple[str, ...], machine: str) -> str:
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


def parse_os(sections: Mapping[str, tuple[str, ...]]) -> tuple[str | None, str | None, str | None]:
    """Give the system's id, version and full name."""
    if sections.get("macos"):
        pairs = parse_pairs(sections["macos"])
        version = clean_text(pairs.get("ProductVersion", "")) or None
        return "macos", version, f"macOS {version}" if version else "macOS"
    release = {
        key: clean_text(value.strip("\"'"))
        for key, value in parse_pairs(sections.get("os", ()), separator="=").items()
    }
    if release.get("ID"):
        return release["ID"], release.get("VERSION_ID") or None, release.get("PRETTY_NAME") or None
    if sections.get("android"):
        version = clean_text(sections["android"][0])
        return "android", version, f"Android {version}"
    if sections.get("bionic"):
        return "android", None, "Android"
    return None, None, None


def parse_libc(
    sections: Mapping[str, tuple[str, ...]], system: str, arch: str
) -> tuple[str | None, str | None]:
    """Give the C library's kind and version; `<2.33` where no more can be told."""
    if system == "Darwin":
        return "libsystem", None
    ldd = " ".join(sections.get("ldd", ()))
    loaders = " ".join(sections.get("loaders", ()))
    number = r"(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)"
    for kind, match in (
        ("glibc", re.fullmatch(rf"glibc {number}", first_line(sections, "glibc"))),
        ("musl", re.search(rf"musl libc.*?Version {number}", ldd)),
        ("glibc", re.match(rf"ldd \(.*?\) {number}\b", ldd)),
        # The loaders tell it themselves: musl's always, glibc's from 2.33 on.
        ("musl", re.search(rf"musl libc.*?Version {number}", loaders)),
        ("glibc", re.search(rf"ld\.so \(.*?\) stable release version {number}", loaders)),
        ("glibc", re.search(rf'"libc": "glibc {number}"', " ".join(sections.get("python", ())))),
    ):
        if match:
            return kind, match[1]
    if "ld-musl" in loaders:
        return "musl", None
    if "ld-linux" in loaders:  # a Debian in Termux sees Android's own files too
        return "glibc", _parse_old_glibc(sections.get("libc", ()), loaders, arch)
    return ("bionic" if sections.get("bionic") or sections.get("android") else None), None


def _parse_old_glibc(files: tuple[str, ...], loaders: str, arch: str) -> str | None:
    """Give the version of a glibc whose loader does not tell it.

    Up to 2.33 `libc.so.6` is a link to a file with the version in its name. Loaders before 2.33
    take `--version` for the program that they are to start.
    """
    for line in files:
        match = re.fullmatch(r"(\S+) \S*\blibc-(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)\.so", line)
        if match and not _is_foreign(match[1], arch):
            return match[2]
    return "<2.33" if "--version: cannot open shared object file" in loaders else None


_TRIPLETS: Final = {
    "aarch64": "aarch64-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
    "x86_64": "x86_64-linux-gnu",
    "i686": "i386-linux-gnu",
}


def _is_foreign(path: str, arch: str) -> bool:
    """Tell whether a library lies in another architecture's folder."""
    own = _TRIPLETS.get(arch, "")
    return any(f"/{triplet}/" in path for triplet in _TRIPLETS.values() if triplet != own)


def parse_libstdcxx(lines: tuple[str, ...], arch: str) -> str | None:
    """Give the GLIBCXX version: libstdc++.so.6.0.N holds all up to GLIBCXX_3.4.N.

    A library whose file does not tell it is `3.4`.
    """
    own = _TRIPLETS.get(arch, "")
    found: list[tuple[bool, int]] = []
    for line in lines:
        match = re.fullmatch(r"(\S+/libstdc\+\+\.so\.6)(?: (\S*))?", line)
        if match is None or _is_foreign(match[1], arch):
            continue
        number = re.search(r"/libstdc\+\+\.so\.6\.0\.(\d{1,3})$", match[2] or "")
        found.append((f"/{own}/" in match[1], int(number[1]) if number else -1))
    if not found:
        return None
    newest = max(found)[1]
    return "3.4" if newest < 0 else f"3.4.{newest}"


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


def parse_cpu(
    sections: Mapping[str, tuple[str, ...]], sysctl: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    """Give the core's name and its features, sorted."""
    info = parse_pairs(sections.get("cpuinfo", ()))
    name = info.get("model name") or sysctl.get("machdep.cpu.brand_string", "")
    if info.get("CPU implementer") == "0x41":
        name = _ARM_PARTS.get(info.get("CPU part", ""), name)
    words = (info.get("Features") or info.get("flags") or "").split()
    features = sorted({word for word in words if re.fullmatch(r"[a-z0-9_.]{1,32}", word)})
    return clean_text(name) or None, tuple(features)


def parse_memory(lines: tuple[str, ...]) -> int | None:
    """Give the RAM in bytes."""
    match = re.match(r"MemTotal:\s+(\d{1,15}) kB", " ".join(lines))
    return int(match[1]) * 1024 if match else None


def parse_board(sections: Mapping[str, tuple[str, ...]], sysctl: Mapping[str, str]) -> str | None:
    """Give the model of the board or product."""
    android = sections.get("android", ())
    cpu_model = parse_pairs(sections.get("cpumodel", ()))
    candidates = (
        first_line(sections, "board"),
        android[1] if len(android) > 1 else "",
        cpu_model.get("Model", ""),
        sysctl.get("hw.model", ""),
        first_line(sections, "product"),
    )
    return next((clean_text(text) for text in candidates if clean_text(text)), None)


def parse_free(lines: tuple[str, ...]) -> int | None:
    """Read `df -Pk`; a long device name may stand on a line of its own in old BusyBox."""
    words = " ".join(lines[1:]).split()
    numbers = [index for index, word in enumerate(words) if re.fullmatch(r"\d{1,3}%", word)]
    available = words[numbers[0] - 1] if numbers and numbers[0] else ""
    kib = parse_count(available, maximum=_MAX_BYTES // 1024)
    return None if kib is None else kib * 1024
