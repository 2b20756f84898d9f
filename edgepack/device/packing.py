"""Many small files over one upload: a pack that the device's own Python cuts apart.

A round trip a file costs more than a small file does: the 180 small files of a runtime
take 20 s one by one over a link of 50 ms, and one upload together. A pack is no archive:
the files' bytes one after the other; their paths, sizes and digests travel beside it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgepack.device.payload import PlacedFile

PACKED_BELOW_BYTES: Final = 4 * 2**20

# `argv`: the pack, the folder to fill; standard input: [[path, sha256, num_bytes], …]. Runs on
# Python 3.8 and later, isolated, without site-packages. Each file is new, below the folder,
# and counted only when its digest is right.
_CUT: Final = """
import hashlib, json, os, sys
pack, folder = sys.argv[1], os.path.realpath(sys.argv[2])
with open(pack, "rb") as source:
    for path, digest, size in json.load(sys.stdin):
        target = os.path.realpath(os.path.join(folder, path))
        if not target.startswith(folder + os.sep):
            sys.exit("a path leaves its folder")
        content = source.read(size)
        if hashlib.sha256(content).hexdigest() != digest:
            sys.exit("a file was damaged on the way")
        with open(target, "xb") as file:
            file.write(content)
        os.chmod(target, 0o444)
    if source.read(1):
        sys.exit("more bytes than files")
os.remove(pack)
"""


def split_by_size(
    files: Sequence[PlacedFile],
) -> tuple[tuple[PlacedFile, ...], tuple[PlacedFile, ...]]:
    """Give the files that go one by one, and those that go in a pack."""
    large = tuple(file for file in files if file.num_bytes >= PACKED_BELOW_BYTES)
    small = tuple(file for file in files if file.num_bytes < PACKED_BELOW_BYTES)
    return (large, small) if len(small) > 1 else (tuple(files), ())


def join_pack(files: Sequence[PlacedFile]) -> tuple[bytes, bytes]:
    """Give the pack's bytes and the index to cut it by."""
    contents = [file.load() for file in files]
    pack = b"".join(
        content.read_bytes() if isinstance(content, Path) else content for content in contents
    )
    index = [[file.path, file.sha256, file.num_bytes] for file in files]
    return pack, json.dumps(index).encode()


def cut_command(python: str, pack: str, folder: str) -> tuple[str, ...]:
    """Give the argv that cuts a pack on the device; the index is its standard input."""
    return (python, "-I", "-S", "-c", _CUT, pack, folder)
