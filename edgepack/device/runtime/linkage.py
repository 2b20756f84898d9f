"""What an ELF file links: the loader it asks for, the libraries it needs, the functions it gives.

Sections are read (System V gABI, "Sections", "Dynamic Section"); Android's loader wants them in
every library too.
"""

import struct
from dataclasses import dataclass
from typing import Final

from edgepack.device.survey.elf import parse_machine

_PT_INTERP: Final = 3
_SHT_DYNAMIC: Final = 6
_SHT_DYNSYM: Final = 11
_DT_NEEDED: Final = 1
_MAX_SEGMENTS: Final = 256
_MAX_SECTIONS: Final = 4096
_MAX_SYMBOLS: Final = 1_000_000
_MAX_NAME_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Linkage:
    """What an ELF file links.

    Attributes:
        arch: architecture, as `elf.parse_machine` names it.
        interpreter: path of the loader that a program asks for; None for a library.
        needed: file names of the libraries it needs.
        exported: names of the functions and data it gives.
    """

    arch: str
    interpreter: str | None
    needed: tuple[str, ...]
    exported: frozenset[str]

    @property
    def is_bionic(self) -> bool:
        """Whether it is made for Android's C library: glibc's is libc.so.6."""
        if self.interpreter is not None:
            return self.interpreter in {"/system/bin/linker64", "/system/bin/linker"}
        return "libc.so" in self.needed


def read_linkage(content: bytes) -> Linkage:
    """Read what a little-endian ELF file links.

    Raises:
        ValueError: not ELF, truncated, or not to be understood.
    """
    arch = parse_machine(content)
    if arch is None:
        raise ValueError("not a little-endian ELF file of a known architecture")
    try:
        return _Reader(content).read(arch)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"a damaged ELF file: {error}") from error


class _Reader:
    """Reads the tables of one file."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._is_64 = content[4] == 2  # noqa: PLR2004 - ELFCLASS64

    def read(self, arch: str) -> Linkage:
        needed: list[str] = []
        exported: set[str] = set()
        sections = self._sections()
        for _, kind, _, _, offset, num_bytes, link, *_ in sections:
            if kind == _SHT_DYNAMIC:
                needed += self._needed(offset, num_bytes, sections[link])
            elif kind == _SHT_DYNSYM:
                exported |= self._exported(offset, num_bytes, sections[link])
        return Linkage(
            arch=arch,
            interpreter=self._interpreter(),
            needed=tuple(needed),
            exported=frozenset(exported),
        )

    def _offset(self, at_64: int, at_32: int) -> int:
        layout, at = ("<Q", at_64) if self._is_64 else ("<I", at_32)
        (offset,) = struct.unpack_from(layout, self._content, at)
        return int(offset)

    def _sections(self) -> list[tuple[int, ...]]:
        table = self._offset(40, 32)
        size, count = struct.unpack_from("<HH", self._content, 58 if self._is_64 else 46)
        if count > _MAX_SECTIONS:
            raise IndexError(f"{count} sections")
        layout = "<IIQQQQIIQQ" if self._is_64 else "<10I"
        return [
            struct.unpack_from(layout, self._content, table + index * size)
            for index in range(count)
        ]

    def _interpreter(self) -> str | None:
        table = self._offset(32, 28)
        size, count = struct.unpack_from("<HH", self._content, 54 if self._is_64 else 42)
        if count > _MAX_SEGMENTS:
            raise IndexError(f"{count} segments")
        for index in range(count):
            at = table + index * size
            (kind,) = struct.unpack_from("<I", self._content, at)
            if kind == _PT_INTERP:
                return self._name(self._offset(at + 8, at + 4))
        return None

    def _needed(self, offset: int, num_bytes: int, strings: tuple[int, ...]) -> list[str]:
        layout, size = ("<qQ", 16) if self._is_64 else ("<iI", 8)
        names: list[str] = []
        for index in range(min(num_bytes // size, _MAX_SECTIONS)):
            tag, value = struct.unpack_from(layout, self._content, offset + index * size)
            if tag == _DT_NEEDED:
                names.append(self._name(strings[4] + value))
        return names

    def _exported(self, offset: int, num_bytes: int, strings: tuple[int, ...]) -> set[str]:
        size = 24 if self._is_64 else 16
        count = num_bytes // size
        if count > _MAX_SYMBOLS:
            raise IndexError(f"{count} symbols")
        names: set[str] = set()
        for index in range(count):
            at = offset + index * size
            (name,) = struct.unpack_from("<I", self._content, at)
            (section,) = struct.unpack_from("<H", self._content, at + (6 if self._is_64 else 14))
            if section != 0:  # else it is needed, not given
                names.add(self._name(strings[4] + name))
        return names

    def _name(self, offset: int) -> str:
        end = self._content.find(b"\0", offset, offset + _MAX_NAME_BYTES)
        if offset >= len(self._content) or end < 0:
            raise IndexError("a name without an end")
        return self._content[offset:end].decode("utf-8", "replace")
