"""What lies on a device already and need not be sent: equal files, ranges, the beginning of one.

A push whose link was lost leaves its staging folder: files that arrived, and the part of the
one that was on its way (`NAME.<8 hex>.part`), perhaps behind a `prefix` that an earlier push
had brought. The device hashes each piece as it lies there, and it counts when the host finds
the same bytes at that place of a file it wants to send; its size or name says nothing.

Complete releases hold ranges of a model that was changed in part. Their manifests tell where;
what comes of it is hashed once it is put together (`assembly`).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from edgepack.bundle.manifest import MANIFEST_PATH, MAXIMUM_BLOBS
from edgepack.device.store.assembly import MARK_DIGITS, HeldRange
from edgepack.device.store.layout import Layout, disk_seconds, is_confined, run_step
from edgepack.device.store.payload import PlacedFile
from edgepack.device.wire.hashing import SHA256_FUNCTION
from edgepack.device.wire.sections import parse_count
from edgepack.device.wire.transport import Device

PREFIX: Final = "prefix"
"""Name, in a staging folder, of the beginning of a file whose rest is being sent."""

_MAX_SIBLINGS: Final = 8
_MAX_ABANDONED: Final = 16
# A shorter beginning is sent again sooner than it is found and joined.
_LEAST_PIECE_BYTES: Final = 256 * 1024
_MAX_BYTES: Final = 2**50
_WHOLE: Final = re.compile(r"whole ([0-9a-f]{64}) (/.*)")
_PIECE: Final = re.compile(r"piece ([0-9a-f]{64}) (\d{1,16}) (/.*)")
_STORE: Final = re.compile(r"store (/.*)")
_BLOB: Final = re.compile(rf"blob (\d{{1,10}}) (\d{{1,10}}) ([0-9a-f]{{{MARK_DIGITS}}})")
# Blobs stand near the beginning of a manifest, whose keys are sorted, one a line.
_BLOB_LINES: Final = MAXIMUM_BLOBS + 64

_SPELL_BLOB: Final = (
    r's/^ *"\([0-9]\{1,10\} [0-9]\{1,10\} [0-9a-f]\{'
    rf'{MARK_DIGITS}\}}\)[0-9a-f]\{{{64 - MARK_DIGITS}\}}",*$/blob \1/p'
)

# `$1` folder of siblings or nothing, `$2` the sibling that is being filled, `$3` the sizes
# wanted, `$4` staging, `$5` the file whose blobs are wanted, `$6` its digest; standard input:
# abandoned folders there, an empty line, and marks of the blobs. A model of equal size is hashed
# only where the manifest beside it says that it is the one: a retrained one is another.
_LOOK: Final = f"""
{SHA256_FUNCTION}
sizes=" $3 " model=$5 digest=$6
names() {{ [ -f "$1" ] && grep -q -F -e "$digest" "$1"; }}
look() {{
  find "$1" -type f 2>/dev/null | head -n 4096 | while IFS= read -r path; do
    size=$(wc -c < "$path") || continue
    size=$((size))
    case $path in
    "$1/{PREFIX}" | *.part)
      [ "$size" -ge {_LEAST_PIECE_BYTES} ] || continue
      sum=$(sha256 < "$path") && printf 'piece %s %s %s\\n' "${{sum%% *}}" "$size" "$path"
      ;;
    *)
      case $sizes in *" $size "*) ;; *) continue ;; esac
      [ "$path" != "$1/$model" ] || names "$1/{MANIFEST_PATH}" || continue
      sum=$(sha256 < "$path") && printf 'whole %s %s\\n' "${{sum%% *}}" "$path"
      ;;
    esac
  done
}}
while IFS= read -r folder && [ -n "$folder" ]; do look "$4/$folder"; done
marks=$(cat)
[ -n "$1" ] && [ -d "$1" ] || exit 0
ls -t "$1" | head -n {_MAX_SIBLINGS + 1} | while IFS= read -r sibling; do
  [ "$sibling" != "$2" ] && [ -d "$1/$sibling" ] && [ ! -L "$1/$sibling" ] || continue
  look "$1/$sibling"
  store="$1/$sibling/$5" told="$1/$sibling/{MANIFEST_PATH}"
  [ -n "$marks" ] && [ -f "$store" ] && [ ! -L "$store" ] && [ -f "$told" ] || continue
  printf 'store %s\\n' "$store"
  head -n {_BLOB_LINES} "$told" | sed -n '{_SPELL_BLOB}' | grep -F -e "$marks"
done
exit 0
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Bytes on a device that may be a part of a file.

    Attributes:
        path: where they lie, absolute.
        sha256: digest that the device computed over them.
        num_bytes: how many they are.
    """

    path: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Donors:
    """What a device holds of what is wanted.

    Attributes:
        files: digest → absolute path of a file with that content.
        pieces: what an earlier push left unfinished.
        ranges: the first digits of a blob's digest → where it is said to be.
    """

    files: Mapping[str, str]
    pieces: tuple[Piece, ...] = ()
    ranges: Mapping[str, tuple[HeldRange, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """A file whose beginning is on the device.

    Attributes:
        sha256: digest of the whole file.
        num_bytes: how much of it is there.
        pieces: where, in order.
    """

    sha256: str
    num_bytes: int
    pieces: tuple[Piece, ...]


def find_donors(
    device: Device,
    layout: Layout,
    folder: str,
    missing: Sequence[PlacedFile],
    *,
    reuse_siblings: bool,
    abandoned: Sequence[str],
) -> Donors:
    """Look for wanted contents in neighboring folders and in abandoned staging folders.

    A file whose blobs are known is looked for in parts too, in complete neighbors.

    Args:
        device: a connected device.
        layout: of the deploy root.
        folder: the one that is being filled, absolute.
        missing: what it lacks.
        reuse_siblings: whether its neighbors may give theirs.
        abandoned: names of staging folders.

    Raises:
        DeployError: the device could not look.
    """
    parent = str(PurePosixPath(folder).parent)
    wanted_bytes = sum(file.num_bytes for file in missing)
    in_blobs = next((file for file in missing if file.blobs), None)
    marks = [each.sha256[:MARK_DIGITS] for each in in_blobs.blobs] if in_blobs else []
    result = run_step(
        device,
        _LOOK,
        parent if reuse_siblings else "",
        PurePosixPath(folder).name,
        " ".join(str(file.num_bytes) for file in missing),
        layout.staging,
        in_blobs.path if in_blobs else "",
        in_blobs.sha256 if in_blobs else "",
        action=f"look into {layout.root}",
        stdin="".join(f"{each}\n" for each in (*abandoned[:_MAX_ABANDONED], "", *marks)).encode(),
        timeout_seconds=disk_seconds(2 * wanted_bytes),
    )
    wanted = {file.sha256 for file in missing}
    files: dict[str, str] = {}
    pieces: list[Piece] = []
    ranges: dict[str, tuple[HeldRange, ...]] = {}
    store = ""
    for line in result.text.splitlines():
        if told := _STORE.fullmatch(line):
            store = told[1] if _is_below(told[1], parent) else ""
        elif (blob := _BLOB.fullmatch(line)) and store:
            held = HeldRange(path=store, offset=int(blob[1]), num_bytes=int(blob[2]))
            ranges[blob[3]] = (*ranges.get(blob[3], ()), held)
        whole, piece = _WHOLE.fullmatch(line), _PIECE.fullmatch(line)
        if whole and whole[1] in wanted and _is_below(whole[2], parent, layout.staging):
            files.setdefault(whole[1], whole[2])
        elif piece and _is_below(piece[3], layout.staging):
            num_bytes = parse_count(piece[2], maximum=_MAX_BYTES)
            if num_bytes:
                pieces.append(Piece(path=piece[3], sha256=piece[1], num_bytes=num_bytes))
    return Donors(files=files, pieces=tuple(pieces), ranges=ranges)


def _is_below(path: str, *folders: str) -> bool:
    return any(
        path.startswith(f"{folder}/") and is_confined(path.removeprefix(f"{folder}/"))
        for folder in folders
    )


def find_resumption(pieces: Sequence[Piece], files: Sequence[PlacedFile]) -> Resumption | None:
    """Find the file of whose beginning the most is on the device.

    Args:
        pieces: as the device hashed them.
        files: what is to be sent.
    """
    found: list[Resumption] = []
    for file in files if pieces else ():
        if file.num_bytes < _LEAST_PIECE_BYTES:
            continue
        content = file.load()
        view = memoryview(content.read_bytes() if isinstance(content, Path) else content)
        chain = _chain(view, pieces)
        if chain:
            num_bytes = sum(piece.num_bytes for piece in chain)
            found.append(Resumption(sha256=file.sha256, num_bytes=num_bytes, pieces=chain))
    return max(found, key=lambda each: each.num_bytes, default=None)


def _chain(content: memoryview, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Give the pieces that lie one behind the other from the content's first byte on."""
    chain: list[Piece] = []
    left, offset = sorted(pieces, key=lambda piece: -piece.num_bytes), 0
    while True:
        for piece in left:
            end = offset + piece.num_bytes
            if end > len(content):
                continue
            if hashlib.sha256(content[offset:end]).hexdigest() == piece.sha256:
                chain.append(piece)
                left.remove(piece)
                offset = end
                break
        else:
            return tuple(chain)
