"""Files that are to be placed on a device, known by their content."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.manifest import Blob


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedFile:
    """A file to be placed on a device.

    Attributes:
        path: relative POSIX path below the folder.
        sha256: hex digest of its content.
        num_bytes: its size.
        load: gives its content, or where on this machine it lies.
        blobs: it in stretches, one behind the other, that the device may hold already.
    """

    path: str
    sha256: str
    num_bytes: int
    load: Callable[[], bytes | Path]
    blobs: tuple[Blob, ...] = ()


def describe_file(path: str, content: bytes | Path) -> PlacedFile:
    """Hash a file that is to be placed."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = content.stat().st_size
    else:
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
    return PlacedFile(path=path, sha256=digest, num_bytes=size, load=lambda: content)


def content_digest(files: Sequence[PlacedFile]) -> str:
    """Give one hex digest of files' paths and contents, in any order."""
    lines = sorted(f"{file.path}\0{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
