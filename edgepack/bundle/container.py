"""The ZIP container of a bundle: stored entries, laid out in exactly one way.

A bundle can be opened by any ZIP program, but only one byte sequence is right for given
contents: every header field has one allowed value, entries stand one behind the other, and
nothing stands before, between or after them. So a flipped bit anywhere is found, and the
tricks of hostile archives (compression bombs, links, overlapping or encrypted entries,
headers that contradict each other, hidden bytes) have no room.

Entries are stored, not compressed: compressed bytes depend on the zlib they were made with,
which would make neither "same inputs, same bytes" nor this check hold between machines.

Source of the layout: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

import hashlib
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from edgepack.errors import BundleError

MAXIMUM_ENTRIES: Final = 1000
# Offsets and sizes are 32-bit: the ZIP64 extension is not part of the layout.
MAXIMUM_BYTES: Final = 2**32 - 2
_MAXIMUM_PATH: Final = 200
_MAXIMUM_QUOTE: Final = 80
_CHUNK_BYTES: Final = 2**20

# Portable to every file system and shell: no case folding, Unicode forms, quoting or options.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_CENTRAL_MAGIC: Final = b"PK\x01\x02"
_END_MAGIC: Final = b"PK\x05\x06"

_VERSION: Final = 20
_MADE_BY: Final = 3 << 8 | _VERSION  # 3: Unix, so that the mode below counts
_STORED: Final = 0
_MODE: Final = (stat.S_IFREG | 0o644) << 16
_DATE: Final = 1 << 5 | 1  # 1980-01-01, the earliest a ZIP can say
_ENCRYPTED: Final = 1

_REMEDY: Final = "Copy the bundle again, or pack it again; a bundle may not be edited or re-zipped."


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file in a container.

    Attributes:
        path: relative POSIX path.
        offset: where its data start in the container.
        num_bytes: size of its data.
        crc32: ZIP's checksum of its data.
        sha256: hex digest of its data.
    """

    path: str
    offset: int
    num_bytes: int
    crc32: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What a container holds.

    Attributes:
        entries: the entries that could be read, in their order.
        sha256: hex digest of the whole file.
        content_sha256: hex digest of the file as it would be without its detached entry.
        num_bytes: size of the whole file.
        faults: what is not as `write_container` writes it.
    """

    entries: tuple[Entry, ...]
    sha256: str
    content_sha256: str
    num_bytes: int
    faults: tuple[str, ...]


def path_fault(path: str) -> str | None:
    """Say why a path may not stand in a bundle; None when it may."""
    if len(path) > _MAXIMUM_PATH:
        return f"expected a path of at most {_MAXIMUM_PATH} characters, not {len(path)}"
    if all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        return None
    return (
        "expected a relative path of letters, digits and '._+-' whose parts neither start with "
        f"'.' or '-' nor end with '.', not {_quote(path)}"
    )


def _quote(path: str) -> str:
    text = repr(path)
    return text if len(text) <= _MAXIMUM_QUOTE else f"{text[:_MAXIMUM_QUOTE]}..."


def path_faults(paths: Iterable[str]) -> tuple[str, ...]:
    """Give the faults of paths that are to stand in one bundle, clashes among them included."""
    faults: list[str] = []
    seen: dict[str, str] = {}
    for path in paths:
        fault = path_fault(path)
        if fault is not None:
            faults.append(f"entry {_quote(path)}: {fault}")
            continue
        folded = path.casefold()
        if folded in seen:
            faults.append(
                f"entry {path!r}: clashes with {seen[folded]!r}, which differs by case at most"
            )
        seen.setdefault(folded, path)
    for folded, path in seen.items():
        parts = folded.split("/")
        for length in range(1, len(parts)):
            parent = seen.get("/".join(parts[:length]))
            if parent is not None:
                faults.append(f"entry {path!r}: lies below {parent!r}, which is a file")
    return tuple(faults)


def write_container(file: BinaryIO, contents: Sequence[tuple[str, bytes]]) -> None:
    """Write a container; the same contents give the same bytes on every machine.

    Raises:
        BundleError: a path that is unsafe or clashes, too many entries, or too many bytes.
    """
    faults = list(path_faults(path for path, _ in contents))
    if len(contents) > MAXIMUM_ENTRIES:
        faults.append(f"expected at most {MAXIMUM_ENTRIES} files, not {len(contents)}")
    total = _END.size + sum(
        _LOCAL.size + _CENTRAL.size + 2 * len(path) + len(data) for path, data in contents
    )
    if total > MAXIMUM_BYTES:
        faults.append(f"expected less than 4 GiB in all, not {total} bytes")
    if faults:
        raise BundleError(
            "\n".join(faults),
            remedy="Rename the files, or leave out what the device can do without.",
        )
    directory: list[bytes] = []
    offset = 0
    for path, data in contents:
        name = path.encode("ascii")
        crc32 = zlib.crc32(data)
        header = _local_header(name, crc32, len(data))
        file.write(header)
        file.write(data)
        directory.append(_central_header(name, crc32, len(data), offset))
        offset += len(header) + len(data)
    central = b"".join(directory)
    file.write(central)
    file.write(_end_record(len(contents), len(central), offset))


def _local_header(name: bytes, crc32: int, num_bytes: int) -> bytes:
    values = (_VERSION, 0, _STORED, 0, _DATE, crc32, num_bytes, num_bytes, len(name), 0)
    return _LOCAL.pack(_LOCAL_MAGIC, *values) + name


def _central_header(name: bytes, crc32: int, num_bytes: int, offset: int) -> bytes:
    values = (_MADE_BY, _VERSION, 0, _STORED, 0, _DATE, crc32, num_bytes, num_bytes)
    rest = (len(name), 0, 0, 0, 0, _MODE, offset)
    return _CENTRAL.pack(_CENTRAL_MAGIC, *values, *rest) + name


def _end_record(num_entries: int, central_bytes: int, central_offset: int) -> bytes:
    counts = (0, 0, num_entries, num_entries)
    return _END.pack(_END_MAGIC, *counts, central_bytes, central_offset, 0)


def scan_container(file: BinaryIO, *, detached: str | None = None) -> Scan:
    """Read every byte of a container and account for it.

    Nothing is trusted: memory is bounded by a chunk and the directory (1000 entries), time
    by the file's size.

    Args:
        file: the container.
        detached: path of an entry that is no part of the content when it is the last one.

    Raises:
        BundleError: not a container, or so damaged that its entries cannot be told apart.
    """
    num_bytes = file.seek(0, 2)
    file.seek(0)
    faults: list[str] = []
    num_entries, central_offset, central = _read_directory(file, num_bytes, faults)
    headers = _parse_directory(central, num_entries, faults)
    faults += path_faults(name for name, _, _ in headers)
    whole = content = hashlib.sha256()
    file.seek(0)
    position = 0
    entries: list[Entry] = []
    has_detached = bool(headers) and headers[-1][0] == detached
    for index, (name, crc32, size) in enumerate(headers, 1):
        if has_detached and index == len(headers):
            content = whole.copy()
        raw = name.encode("ascii", errors="replace")
        expected = _local_header(raw, crc32, size)
        if position + len(expected) + size > central_offset:
            faults.append(f"entry {_quote(name)}: its {size} bytes reach beyond the entries' end")
            break
        header = file.read(len(expected))
        whole.update(header)
        if header != expected:
            faults.append(f"entry {_quote(name)}: its two headers differ, or are not a bundle's")
        digest = hashlib.sha256()
        computed = _copy_digest(file, size, (whole, digest))
        if computed != crc32:
            faults.append(f"entry {_quote(name)}: its data do not match their checksum")
        offset = position + len(expected)
        position = offset + size
        entries.append(
            Entry(path=name, offset=offset, num_bytes=size, crc32=crc32, sha256=digest.hexdigest())
        )
    if position != central_offset and len(entries) == len(headers):
        faults.append(f"{central_offset - position} bytes stand between the entries and their end")
    _copy_digest(file, num_bytes - position, (whole,))
    # The last word: whatever the checks above may not have named, the directory must be the
    # very bytes that the writer would have put there.
    right, start = [], 0
    for entry in entries:
        name_bytes = entry.path.encode("ascii", errors="replace")
        right.append(_central_header(name_bytes, entry.crc32, entry.num_bytes, start))
        start = entry.offset + entry.num_bytes
    if not faults and b"".join(right) != central:
        faults.append("the directory is not as a bundle's is")
    if has_detached and len(entries) == len(headers):
        rest = b"".join(right[:-1])
        end = entries[-2].offset + entries[-2].num_bytes if len(entries) > 1 else 0
        content.update(rest + _end_record(len(entries) - 1, len(rest), end))
    return Scan(
        entries=tuple(entries),
        sha256=whole.hexdigest(),
        content_sha256=content.hexdigest(),
        num_bytes=num_bytes,
        faults=tuple(faults),
    )


def _read_directory(file: BinaryIO, num_bytes: int, faults: list[str]) -> tuple[int, int, bytes]:
    """Give the number of entries, where the central directory starts, and its bytes."""
    start = file.read(4)
    if start != _LOCAL_MAGIC:
        came = "an empty file" if not num_bytes else f"{num_bytes} bytes starting {start!r}"
        raise BundleError(
            f"expected a bundle (a ZIP archive from its first byte), but got {came}",
            remedy="Give the .edgepack file that `edgepack pack` wrote.",
        )
    if not _END.size <= num_bytes <= MAXIMUM_BYTES:
        raise BundleError(
            f"expected a bundle below 4 GiB and with an end record, but got {num_bytes} bytes",
            remedy=_REMEDY,
        )
    file.seek(num_bytes - _END.size)
    end = file.read(_END.size)
    magic, *_, num_entries, central_bytes, central_offset, _ = _END.unpack(end)
    if magic != _END_MAGIC:
        raise BundleError(
            "expected the archive's end record in the last 22 bytes: the bundle is cut short, "
            "damaged there, or something was appended to it",
            remedy=_REMEDY,
        )
    if num_entries > MAXIMUM_ENTRIES:
        raise BundleError(
            f"expected at most {MAXIMUM_ENTRIES} entries, not {num_entries}", remedy=_REMEDY
        )
    if central_offset + central_bytes + _END.size != num_bytes:
        raise BundleError(
            "expected the archive's directory right before its end record: the bundle is damaged, "
            "or something was put before it",
            remedy=_REMEDY,
        )
    if end != _end_record(num_entries, central_bytes, central_offset):
        faults.append("the end record is not as a bundle's is")
    if central_bytes > num_entries * (_CENTRAL.size + _MAXIMUM_PATH):
        raise BundleError(
            f"expected a directory of {num_entries} entries, not one of {central_bytes} bytes",
            remedy=_REMEDY,
        )
    file.seek(central_offset)
    return num_entries, central_offset, file.read(central_bytes)


def _parse_directory(
    central: bytes, num_entries: int, faults: list[str]
) -> list[tuple[str, int, int]]:
    """Give each entry's name, checksum and size."""
    headers: list[tuple[str, int, int]] = []
    position = 0
    for index in range(num_entries):
        if position + _CENTRAL.size > len(central):
            faults.append(f"the directory ends before entry {index + 1} of {num_entries}")
            return headers
        values = _CENTRAL.unpack_from(central, position)
        magic, made_by, version, flags, method, time, date, crc32, stored, size = values[:10]
        name_bytes, extra_bytes, comment_bytes, disk, internal, attributes, _ = values[10:]
        position += _CENTRAL.size
        raw = central[position : position + name_bytes]
        position += name_bytes + extra_bytes + comment_bytes
        name = raw.decode("ascii", errors="backslashreplace")
        label = f"entry {_quote(name)}"
        if magic != _CENTRAL_MAGIC or len(raw) != name_bytes:
            faults.append(f"the directory is damaged at entry {index + 1} of {num_entries}")
            return headers
        if flags & _ENCRYPTED:
            faults.append(f"{label}: is encrypted; a bundle's entries are not")
        elif method != _STORED or stored != size:
            faults.append(f"{label}: is compressed; a bundle's entries are stored as they are")
        if stat.S_IFMT(attributes >> 16) not in {stat.S_IFREG, 0}:
            faults.append(f"{label}: is a link or special file; a bundle holds plain files only")
        fixed = (made_by, version, flags, method, time, date, extra_bytes, comment_bytes, disk)
        if (*fixed, internal, attributes) != (
            *(_MADE_BY, _VERSION, 0, _STORED, 0, _DATE, 0, 0, 0),
            *(0, _MODE),
        ):
            faults.append(f"{label}: its header is not as a bundle's is")
        headers.append((name, crc32, stored))
    if position != len(central):
        faults.append(f"{len(central) - position} bytes stand behind the directory's last entry")
    return headers


def _copy_digest(file: BinaryIO, num_bytes: int, digests: Sequence["hashlib._Hash"]) -> int:
    """Feed the file's next bytes to digests and give their CRC-32."""
    crc32, left = 0, num_bytes
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise BundleError("the bundle became shorter while it was read", remedy=_REMEDY)
        crc32 = zlib.crc32(chunk, crc32)
        for digest in digests:
            digest.update(chunk)
        left -= len(chunk)
    return crc32
