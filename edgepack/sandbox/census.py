"""Which processes descend from one, and what memory they hold together."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_HAS_PROPORTIONS: Final = (_PROC / "self" / "smaps_rollup").exists()
_PS_SECONDS: Final = 10
# Fields of /proc/PID/stat after the name in parentheses: proc(5), less the first two.
_PPID, _RSS_PAGES = 1, 21


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A process: its parent's id and its resident memory."""

    parent: int
    resident_bytes: int


def read_processes() -> dict[int, Entry]:
    """Give every process of the machine by its id."""
    return _read_proc() if sys.platform == "linux" else _read_ps()


def descendants(root: int, processes: Mapping[int, Entry]) -> tuple[int, ...]:
    """Give a process's id, if it is there, and those of all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid, entry in processes.items():
        children.setdefault(entry.parent, []).append(pid)
    found = [root] if root in processes else []
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return tuple(found)


def shared_once_bytes(pids: Iterable[int], processes: Mapping[int, Entry]) -> int:
    """Give the memory of processes with pages that several share counted once.

    A forked child shares its parent's pages, so resident sizes say too much. The kernel's
    proportional sizes say it exactly but take milliseconds; where it has none, or refuses
    them, the resident sizes stand.
    """
    return sum(_proportional_bytes(pid, processes[pid].resident_bytes) for pid in pids)


def _proportional_bytes(pid: int, resident_bytes: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        # It ended since it was counted; older kernels (before 4.14) have the file for none.
        return 0 if _HAS_PROPORTIONS else resident_bytes
    except PermissionError:  # another user's
        return resident_bytes
    lines = [line.split() for line in text.splitlines() if line.startswith("Pss:")]
    return int(lines[0][1]) * 1024 if lines else 0


def _read_proc() -> dict[int, Entry]:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    entries: dict[int, Entry] = {}
    for name in os.listdir(_PROC):  # noqa: PTH208 - ten times a second: no Path for each
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (_PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
            entries[int(name)] = Entry(
                parent=int(fields[_PPID]), resident_bytes=int(fields[_RSS_PAGES]) * page_bytes
            )
    return entries


def _read_ps() -> dict[int, Entry]:
    listed = subprocess.run(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,rss="],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=_PS_SECONDS,
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    return {
        int(row[0]): Entry(parent=int(row[1]), resident_bytes=int(row[2]) * 1024)
        for row in rows
        if len(row) == len(("pid", "ppid", "rss")) and all(field.isdigit() for field in row)
    }
