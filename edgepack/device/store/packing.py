"""Many small files over one upload: a pack that the device cuts apart.

A round trip a file costs more than a small file does: the 180 small files of a runtime
take 20 s one by one over a link of 50 ms, and one upload together. A pack is no archive:
the files' bytes one after the other; their paths, sizes and digests travel beside it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgepack.device.store.assembly import PUT_TOGETHER
from edgepack.device.store.payload import PlacedFile
from edgepack.device.wire.hashing import SHA256_FUNCTION

# `$1` the pack, `$2` the folder to fill, `$3` a file that is put together there, or nothing;
# standard input: two lines a file, its first byte in the pack counted from 1 and its size, and its
# path; an empty line, and what `PUT_TOGETHER` reads. macOS's `head` takes no count of 0.
_CUT_BY_SHELL: Final = f"""
{SHA256_FUNCTION}
umask 022
while IFS=' ' read -r first size && [ -n "$first" ]; do
  IFS= read -r path
  if [ "$size" = 0 ]; then : > "$2/$path"
  else tail -c "+$first" "$1" | head -c "$size" > "$2/$path"; fi && chmod 444 "$2/$path" || exit 1
  sum=$(sha256 < "$2/$path") && printf '%s %s\\n' "${{sum%% *}}" "$path"
done
{PUT_TOGETHER}
rm -f -- "$1"
"""

PACKED_BELOW_BYTES: Final = 4 * 2**20
"""Smaller files go together where Python cuts them apart: runtimes, of hundreds of files."""

CUT_BELOW_BYTES: Final = 2**18
"""Likewise where the shell does: bundles, of ten; more is written sooner than twice."""

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
    files: Sequence[PlacedFile], *, below_bytes: int
) -> tuple[tuple[PlacedFile, ...], tuple[PlacedFile, ...]]:
    """Give the files that go one by one, and those that go in a pack."""
    large = tuple(file for file in files if file.num_bytes >= below_bytes)
    small = tuple(file for file in files if file.num_bytes < below_bytes)
    return (large, small) if len(small) > 1 else (tuple(files), ())


def join_pack(files: Sequence[PlacedFile]) -> bytes:
    """Give the pack's bytes."""
    contents = [file.load() for file in files]
    return b"".join(
        content.read_bytes() if isinstance(content, Path) else content for content in contents
    )


def index_by_digest(files: Sequence[PlacedFile]) -> bytes:
    """Give what `cut_command` reads: it compares the digests itself."""
    return json.dumps([[file.path, file.sha256, file.num_bytes] for file in files]).encode()


def index_by_offset(files: Sequence[PlacedFile]) -> bytes:
    """Give what `cut_by_shell` reads."""
    lines: list[str] = []
    offset = 0
    for file in files:
        lines += [f"{offset + 1} {file.num_bytes}\n", f"{file.path}\n"]
        offset += file.num_bytes
    return "".join(lines).encode()


def cut_command(python: str, pack: str, folder: str) -> tuple[str, ...]:
    """Give the argv that cuts a pack on the device; the index is its standard input."""
    return (python, "-I", "-S", "-c", _CUT, pack, folder)


def cut_by_shell(pack: str, folder: str, *, assembled: str = "") -> tuple[str, ...]:
    """Give the argv that cuts a pack without Python and prints `DIGEST PATH` of each file.

    For some ten files: three programs are started for each.

    Args:
        pack: absolute path on the device; it may be that there is none.
        folder: absolute path of the one to fill.
        assembled: path in it of a file that is put together, see `assembly`; empty for none.
    """
    return ("sh", "-c", _CUT_BY_SHELL, "edgepack", pack, folder, assembled)
