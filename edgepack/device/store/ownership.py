"""Whose something on a device is, and whether that process of this machine still lives."""

import getpass
import hashlib
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")


def host_id() -> str:
    """Tell this machine (and container) from others that use the same device: 8 hex digits."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def user_and_host() -> str:
    """Give `user@host` of this process, for people; only letters, digits, '.', '_', '-', '@'."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in a container's /etc/passwd
        user = str(os.getuid())
    return "@".join(_ODD.sub("-", part)[:40] or "-" for part in (user, socket.gethostname()))


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
