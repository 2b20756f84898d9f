"""What is old taken from a device, as far as it need not stay."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.device.layout import Layout
from edgepack.device.lease import Fence
from edgepack.device.releases import choose_removable, list_releases
from edgepack.device.removal import Pruned, remove_releases
from edgepack.device.transport import Device

if TYPE_CHECKING:
    from edgepack.device.facts import DeviceFacts
    from edgepack.device.holdings import Holding


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What stays.

    Attributes:
        keep: releases of each bundle, the current one among them; and of runtimes and of bare
            models those used last.
        free_bytes: room that shall be free; None removes all that need not stay.
    """

    keep: int
    free_bytes: int | None


def prune(
    device: Device,
    layout: Layout,
    retention: Retention,
    *,
    name: str | None,
    facts: "DeviceFacts | None",
    fence: Fence,
) -> Pruned:
    """Remove what need not stay.

    Args:
        device: a connected device that is held.
        layout: of the deploy root.
        retention: what stays.
        name: of the bundle whose releases are meant; None is all of them.
        facts: of the device, whose runtimes and bare models are meant too; None: releases only.
        fence: the right to do so.

    Raises:
        DeviceError: as `list_releases`, `list_holdings` and `remove_releases`.
    """
    present = list_releases(device, root=layout.root)
    removable = choose_removable(present, keep=retention.keep, name=name)
    surplus: tuple[Holding, ...] = ()
    if facts is not None:
        # They import what knows of wheels; a push of a bundle alone does without.
        from edgepack.device.holdings import (  # noqa: PLC0415
            choose_surplus,
            fitting_runtimes,
            list_holdings,
        )

        held, runtimes = list_holdings(device, layout), fitting_runtimes(facts)
        surplus = choose_surplus(held, keep=retention.keep, runtimes=runtimes)
    return remove_releases(
        device,
        layout,
        removable,
        holdings=surplus,
        free_bytes=retention.free_bytes,
        fence=fence,
    )


def removed_json(pruned: Pruned | None) -> dict[str, object]:
    """Give what was removed as `push --json` and `releases --json` print it."""
    releases, holdings = ((), ()) if pruned is None else (pruned.removed, pruned.holdings)
    return {
        "removed": [list(each) for each in releases],
        "removed_folders": [each.path for each in holdings],
    }
