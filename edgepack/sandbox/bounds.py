"""What a process may take, what it took, and how much of the machine that is."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

# The kernel's own count of a container's memory, cgroup v2 and v1.
_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_SHARE: Final = 0.75


class Limit(StrEnum):
    """A bound that ended a process."""

    TIME = "time"
    MEMORY = "memory"
    PROCESSES = "processes"
    LOG = "log"
    ANSWER = "answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a process and all its children may take together.

    Attributes:
        timeout_seconds: wall-clock time.
        memory_bytes: resident memory; pages that several share count once.
        num_processes: at one time.
        file_bytes: size of each file they write.
        log_bytes: what they may print.
        answer_bytes: what they may answer.
    """

    timeout_seconds: float
    memory_bytes: int
    num_processes: int = 256
    file_bytes: int = 16 << 30
    log_bytes: int = 256 << 20
    answer_bytes: int = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process and its children took.

    Attributes:
        seconds: wall-clock time.
        peak_bytes: most resident memory at one time.
    """

    seconds: float
    peak_bytes: int


def machine_memory_bytes() -> int:
    """Give the memory of this machine, or of the container that this is."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # else it is "max"
            total = min(total, int(text))
    return total


def default_memory_bytes() -> int:
    """Give three quarters of the machine's memory: the rest is the user's and EdgePack's own."""
    return int(machine_memory_bytes() * _SHARE)
