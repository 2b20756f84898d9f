"""What an ELF file says of itself: its architecture, and the symbol versions it needs.

Enough of the format (System V gABI, chapter "Object Files"; Linux Standard Base,
"Symbol Versioning") to judge whether a device's C and C++ libraries can load a file.
Tags on wheels cannot be believed: ai-edge-litert 2.3.0 is tagged glibc 2.27 and needs
2.34, tflite-runtime 2.14 for ARM is tagged 2.34 and needs 2.27.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

_MAGIC: Final = b"\x7fELF"
_MACHINES: Final = {
    (3, 32): "i686",
    (40, 32): "armv7l",
    (62, 32): "x32",
    (62, 64): "x86_64",
    (183, 64): "aarch64",
    (243, 64): "riscv64",
}
_SHT_GNU_VERNEED: Final = 0x6FFFFFFE
_MAX_ENTRIES: Final = 4096
_VERSION: Final = re.compile(r"(GLIBC|GLIBCXX|CXXABI)_(\d{1,4}(?:\.\d{1,4}){1,3})")

Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SymbolNeeds:
    """The newest symbol versions a file asks of the C and C++ libraries; None: none.

    Attributes:
        glibc: of libc and its companions, such as (2, 34).
        glibcxx: of libstdc++, such as (3, 4, 30).
        cxxabi: of libstdc++'s runtime support, such as (1, 3, 9).
    """

    glibc: Version | None = None
    glibcxx: Version | None = None
    cxxabi: Version | None = None

    def join(self, other: "SymbolNeeds") -> "SymbolNeeds":
        """Give what both together need."""
        return SymbolNeeds(
            glibc=max(filter(None, (self.glibc, other.glibc)), default=None),
            glibcxx=max(filter(None, (self.glibcxx, other.glibcxx)), default=None),
            cxxabi=max(filter(None, (self.cxxabi, other.cxxabi)), default=None),
        )


def is_elf(content: bytes) -> bool:
    """Tell whether a file is ELF."""
    return content.startswith(_MAGIC)


def parse_machine(header: bytes) -> str | None:
    """Give the architecture in the first 20 bytes of an ELF file; None for anything else."""
    if len(header) < 20 or not is_elf(header):  # noqa: PLR2004 - up to and with e_machine
        return None
    order = {1: "<", 2: ">"}.get(header[5])
    bits = {1: 32, 2: 64}.get(header[4])
    if order is None or bits is None:
        return None
    (machine,) = struct.unpack_from(f"{order}H", header, 18)
    name = _MACHINES.get((machine, bits))
    return None if order == ">" else name  # no big-endian device is served


def read_needs(content: bytes) -> SymbolNeeds:
    """Read the version needs (`.gnu.version_r`) of a little-endian ELF file.

    Raises:
        ValueError: not ELF, truncated, or not to be understood.
    """
    if parse_machine(content) is None:
        raise ValueError("not a little-endian ELF file of a known architecture")
    try:
        names = _needed_versions(content)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"a damaged ELF file: {error}") from error
    newest: dict[str, Version] = {}
    for name in names:
        match = _VERSION.fullmatch(name)
        if match:
            version = tuple(int(part) for part in match[2].split("."))
            newest[match[1]] = max(newest.get(match[1], ()), version)
    return SymbolNeeds(
        glibc=newest.get("GLIBC"), glibcxx=newest.get("GLIBCXX"), cxxabi=newest.get("CXXABI")
    )


def _needed_versions(content: bytes) -> list[str]:
    """Walk the section headers to `.gnu.version_r`, then its chains of needs."""
    is_64 = content[4] == 2  # noqa: PLR2004 - ELFCLASS64
    if is_64:
        (table,) = struct.unpack_from("<Q", content, 40)
        entry_bytes, num_sections = struct.unpack_from("<HH", content, 58)
        layout = "<IIQQQQIIQQ"
    else:
        (table,) = struct.unpack_from("<I", content, 32)
        entry_bytes, num_sections = struct.unpack_from("<HH", content, 46)
        layout = "<10I"
    if num_sections > _MAX_ENTRIES:
        raise IndexError(f"{num_sections} sections")
    sections = [
        struct.unpack_from(layout, content, table + index * entry_bytes)
        for index in range(num_sections)
    ]
    names: list[str] = []
    for _, kind, _, _, offset, _, link, num_needs, _, _ in sections:
        if kind == _SHT_GNU_VERNEED:
            strings = sections[link]
            names += _walk_needs(content, offset, num_needs, strings[4], strings[5])
    return names


def _walk_needs(
    content: bytes, offset: int, num_needs: int, strings_offset: int, strings_bytes: int
) -> list[str]:
    strings = content[strings_offset : strings_offset + strings_bytes]
    names: list[str] = []
    for _ in range(min(num_needs, _MAX_ENTRIES)):
        _, num_versions, _, first, step = struct.unpack_from("<HHIII", content, offset)
        at = offset + first
        for _ in range(num_versions):
            _, _, _, name, next_version = struct.unpack_from("<IHHII", content, at)
            if name >= len(strings) or len(names) > _MAX_ENTRIES:
                raise IndexError("a version's name lies outside the string table")
            names.append(strings[name : strings.find(b"\0", name)].decode("ascii", "replace"))
            if not next_version:
                break
            at += next_version
        if not step:
            break
        offset += step
    return names
