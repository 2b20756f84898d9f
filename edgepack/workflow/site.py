"""A deploy root on a connected device, for what needs no runtime there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgepack.device.store.layout import Layout, resolve_root
from edgepack.device.store.lease import NO_FENCE, Fence
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.transport import Device
from edgepack.profile import TargetProfile

if TYPE_CHECKING:
    from edgepack.workflow.request import StepCallback

DEFAULT_ROOT: Final = "~/.edgepack"


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A deploy root.

    Attributes:
        device: the open connection.
        layout: where things stand, below an absolute root.
        fence: the right to change what is current, where the device is held.
    """

    device: Device
    layout: Layout
    fence: Fence = NO_FENCE


def default_root(profile: TargetProfile | None) -> str:
    """Give the deploy root where the user names none."""
    return profile.deploy_root if profile is not None else DEFAULT_ROOT


@contextmanager
def open_site(
    address: str,
    *,
    connect: ConnectOptions,
    root: str,
    lock: LockOptions | None,
    on_step: "StepCallback",
) -> Iterator[Site]:
    """Connect to a device, find its deploy root, and hold the device until the end.

    Args:
        address: as the user wrote it.
        connect: how to connect.
        root: the deploy root; may begin with `~`.
        lock: for what the device is held; None only looks.
        on_step: called with what is being done.

    Raises:
        DeviceError: as `open_device`, `resolve_root` and `hold_device`.
    """
    on_step(f"connecting to {address}")
    with open_device(address, options=connect) as device:
        layout = Layout(root=resolve_root(device, root))
        if lock is None:
            yield Site(device=device, layout=layout)
            return
        with hold_device(device, root=layout.root, options=lock) as held:
            yield Site(device=held, layout=layout, fence=held.fence)
