"""Staging folders on a device: one for each push, swept once its owner is gone."""

import hashlib
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgepack.device.layout import Layout, run_step
from edgepack.device.transport import Device
from edgepack.errors import ConnectError, DeviceError, DeviceTimeoutError

TransferCallback = Callable[[int, int], None]
"""Called with the bytes just sent and the bytes to send in all; first with (0, total)."""

_TIDY_SECONDS: Final = 30.0
_STAGED: Final = re.compile(r"[A-Za-z0-9._-]{1,100}\.([0-9a-f]{8})\.(\d{1,10})\.([0-9a-f]{16})")

_SWEEP: Final = """
cd -- "$1" || exit 0
shift
for folder in "$@"; do chmod -R u+w -- "$folder" 2>/dev/null; rm -rf -- "$folder"; done
"""


def _host_id() -> str:
    """Tell this machine (and container) from others that push to the same device."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


_active: Final[set[str]] = set()
_active_lock: Final = threading.Lock()


@contextmanager
def staging_folder(device: Device, layout: Layout, stem: str) -> Iterator[str]:
    """Name a staging folder and remove it afterwards, unless the link is gone by then."""
    name = f"{stem}.{_host_id()}.{os.getpid()}.{secrets.token_hex(8)}"
    with _active_lock:
        _active.add(name)
    try:
        yield f"{layout.staging}/{name}"
    except (ConnectError, DeviceTimeoutError):
        raise  # nobody is there to tidy up with; the next push sweeps
    except BaseException:
        with suppress(DeviceError):
            sweep(device, layout, (name,))
        raise
    else:
        sweep(device, layout, (name,))
    finally:
        with _active_lock:
            _active.discard(name)


def sweep(device: Device, layout: Layout, names: Sequence[str]) -> None:
    """Remove staging folders.

    Raises:
        DeviceError: the device did not do it.
    """
    run_step(
        device,
        _SWEEP,
        layout.staging,
        *names,
        action=f"tidy {layout.staging}",
        timeout_seconds=_TIDY_SECONDS,
    )


def is_abandoned(name: str, *, lies_still: bool) -> bool:
    """Tell whether a staging folder's owner is gone: ours by its process, others' by stillness."""
    match = _STAGED.fullmatch(name)
    if match is None:
        return False
    with _active_lock:
        if name in _active:
            return False
    if match[1] != _host_id():
        return lies_still
    return int(match[2]) == os.getpid() or not _is_alive(int(match[2]))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
