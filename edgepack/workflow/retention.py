"""Old releases taken from a device, as far as they need not stay."""

from dataclasses import dataclass

from edgepack.device.layout import Layout
from edgepack.device.lease import Fence
from edgepack.device.releases import choose_removable, list_releases
from edgepack.device.removal import Pruned, remove_releases
from edgepack.device.transport import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What stays.

    Attributes:
        keep: releases of each bundle, the current one among them.
        free_bytes: room that shall be free; None removes all that need not stay.
    """

    keep: int
    free_bytes: int | None


def prune(
    device: Device, layout: Layout, retention: Retention, *, name: str | None, fence: Fence
) -> Pruned:
    """Remove the releases that need not stay.

    Args:
        device: a connected device.
        layout: of its deploy root.
        retention: what stays.
        name: of the bundle; None prunes those of all.
        fence: the right to do so.

    Raises:
        DeviceError: as `list_releases` and `remove_releases`.
    """
    present = list_releases(device, root=layout.root)
    removable = choose_removable(present, keep=retention.keep, name=name)
    return remove_releases(device, layout, removable, free_bytes=retention.free_bytes, fence=fence)
