"""A file put together on the device: ranges of files it holds, and what is sent of it.

The model files of complete releases are the store: their manifests say which range holds which
blob, so that no blob takes room twice. What they say is only a hint. The device hashes what it
put together, and the host compares; a file that came out wrong is sent whole.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgepack.device.store.payload import PlacedFile, describe_file

MARK_DIGITS: Final = 16
"""Hex digits of a blob's digest by which it is looked for."""

_BLOCK_BYTES: Final = 64 * 1024
# What a range costs is four programs started on the device; less is sent sooner.
_LEAST_RUN_BYTES: Final = 1024
_MAX_RUNS: Final = 64
_LEAST_SHARE: Final = 0.1
_NUM_CUT_OUTS: Final = 2

_cut_outs: Final[dict[tuple[str, tuple[tuple[int, int], ...]], bytes]] = {}
_cut_out_lock: Final = threading.Lock()

# `$1` the pack, gone or not; `$2` the folder; `$3` the file's path in it. Standard input: `source`
# and on the next line its path, or a block to begin at, blocks, and if only a part of one, its
# first byte counted from 1 and its size. `dd` seeks in every userland, by blocks only; BusyBox's
# `head -c` reads byte by byte, so it gets at most a block there. Debian's toybox 0.8.9 has none.
PUT_TOGETHER: Final = f"""
if command -v dd >/dev/null 2>&1; then
  blocks() {{ dd if="$source" bs={_BLOCK_BYTES} skip="$1" count="$2" 2>/dev/null; }}
else
  blocks() {{
    tail -c "+$(($1 * {_BLOCK_BYTES} + 1))" "$source" | head -c "$(($2 * {_BLOCK_BYTES}))"
  }}
fi
if [ -n "$3" ]; then
  while IFS=' ' read -r block count first size; do
    case $block in source) IFS= read -r source; continue ;; esac
    if [ -z "$size" ]; then blocks "$block" "$count"
    else blocks "$block" "$count" | tail -c "+$first" | head -c "$size"; fi
  done > "$2/$3"
  chmod 444 "$2/$3"
  sum=$(sha256 < "$2/$3") && printf '%s %s\\n' "${{sum%% *}}" "$3"
fi
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRange:
    """A range of a file on a device that is said to be a blob.

    Attributes:
        path: of the file, absolute.
        offset: of its first byte there.
        num_bytes: its size.
    """

    path: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Bytes that come from one place.

    Attributes:
        path: of the file on the device, absolute; None is what is sent.
        offset: of the first byte there; in what is sent, where it begins.
        num_bytes: how many they are.
    """

    path: str | None
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """How a file comes about on a device.

    Attributes:
        file: the file.
        runs: what it consists of, in order.
        delta: what is sent of it, one run behind the other.
    """

    file: PlacedFile
    runs: tuple[Run, ...]
    delta: PlacedFile


def plan_assembly(file: PlacedFile, held: Mapping[str, Sequence[HeldRange]]) -> Assembly | None:
    """Choose where a file's bytes come from; None where it is better sent whole.

    Args:
        file: what is wanted, with its blobs.
        held: the first `MARK_DIGITS` digits of a digest → where its blob is said to be.
    """
    runs: list[Run] = []
    for blob in file.blobs:
        places = [
            each
            for each in held.get(blob.sha256[:MARK_DIGITS], ())
            if each.num_bytes == blob.num_bytes
        ]
        last = runs[-1] if runs else None
        going_on = (each for each in places if last is not None and _goes_on(last, each))
        place = next(going_on, places[0] if places else None)
        if place is None:
            runs.append(Run(path=None, offset=0, num_bytes=blob.num_bytes))
        else:
            runs.append(Run(path=place.path, offset=place.offset, num_bytes=place.num_bytes))
    runs = _merge(runs)
    reused = sorted((each.num_bytes for each in runs if each.path is not None), reverse=True)
    least_bytes = max([_LEAST_RUN_BYTES, *reused[_MAX_RUNS : _MAX_RUNS + 1]])
    runs = _merge(
        [
            replace(each, path=None) if each.path and each.num_bytes <= least_bytes else each
            for each in runs
        ]
    )
    if sum(each.num_bytes for each in runs if each.path) < _LEAST_SHARE * file.num_bytes:
        return None
    spans: list[tuple[int, int]] = []
    placed: list[Run] = []
    end = sent_bytes = 0
    for run in runs:
        placed.append(run if run.path is not None else replace(run, offset=sent_bytes))
        if run.path is None:
            spans.append((end, end + run.num_bytes))
            sent_bytes += run.num_bytes
        end += run.num_bytes
    delta = describe_file(f"what changed in {file.path}", _cut_out(file, tuple(spans)))
    return Assembly(file=file, runs=tuple(placed), delta=delta)


def _cut_out(file: PlacedFile, spans: tuple[tuple[int, int], ...]) -> bytes:
    """Give a file's bytes within these bounds, one behind the other.

    Devices of a fleet mostly hold the same release, and lack the same of the next: as long as it
    is in use they share one copy.
    """
    key = (file.sha256, spans)
    with _cut_out_lock:
        found = _cut_outs.get(key)
        if found is None:
            content = file.load()
            view = memoryview(content.read_bytes() if isinstance(content, Path) else content)
            found = b"".join(view[start:end] for start, end in spans)
            while len(_cut_outs) >= _NUM_CUT_OUTS:
                _cut_outs.pop(next(iter(_cut_outs)))
            _cut_outs[key] = found
        return found


def _goes_on(run: Run, place: HeldRange) -> bool:
    return run.path == place.path and run.offset + run.num_bytes == place.offset


def _merge(runs: Sequence[Run]) -> list[Run]:
    merged: list[Run] = []
    for run in runs:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.path == run.path
            and (run.path is None or last.offset + last.num_bytes == run.offset)
        ):
            merged[-1] = replace(last, num_bytes=last.num_bytes + run.num_bytes)
        else:
            merged.append(run)
    return merged


def assembly_lines(assembly: Assembly, *, delta: str, delta_offset: int) -> bytes:
    """Give what `PUT_TOGETHER` reads.

    Args:
        assembly: what is put together.
        delta: path on the device of the file that holds what was sent.
        delta_offset: of its first byte there.
    """
    lines: list[str] = []
    source = ""
    for run in assembly.runs:
        path, offset = run.path, run.offset
        if path is None:
            path, offset = delta, delta_offset + run.offset
        if path != source:
            lines += ["source", path]
            source = path
        lines += _cuts(offset, offset + run.num_bytes)
    return "".join(f"{line}\n" for line in lines).encode()


def _cuts(first: int, end: int) -> list[str]:
    """Cut a range where blocks end: part of a block, whole blocks, part of a block."""
    lines: list[str] = []
    while first < end:
        block, skip = divmod(first, _BLOCK_BYTES)
        num_blocks = (end - first) // _BLOCK_BYTES
        if skip == 0 and num_blocks:
            lines.append(f"{block} {num_blocks}")
            first += num_blocks * _BLOCK_BYTES
        else:
            num_bytes = min(end - first, _BLOCK_BYTES - skip)
            lines.append(f"{block} 1 {skip + 1} {num_bytes}")
            first += num_bytes
    return lines
