"""Staging folders on a device: one for each push, swept once its owner is gone."""

import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from edgepack.device.store.layout import Layout, run_step
from edgepack.device.store.ownership import host_id, is_alive
from edgepack.device.wire.transport import Device
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


_active: Final[set[str]] = set()
_active_lock: Final = threading.Lock()


@contextmanager
def staging_folder(device: Device, layout: Layout, stem: str) -> Iterator[str]:
    """Name a staging folder, and remove it when what is done in it fails.

    The last step that succeeds removes it itself, which saves a round trip. When the link is
    gone, the next push sweeps.
    """
    name = f"{stem}.{host_id()}.{os.getpid()}.{secrets.token_hex(8)}"
    with _active_lock:
        _active.add(name)
    try:
        yield f"{layout.staging}/{name}"
    except (ConnectError, DeviceTimeoutError):
        raise  # nobody is there to tidy up with
    except BaseException:
        with suppress(DeviceError):
            sweep(device, layout, (name,))
        raise
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
    if match[1] != host_id():
        return lies_still
    return int(match[2]) == os.getpid() or not is_alive(int(match[2]))
