"""What is old taken from a device, as far as it need not stay."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.device.store.holdings import Holding, choose_surplus, list_holdings
from edgepack.device.store.layout import Layout
from edgepack.device.store.lease import Fence
from edgepack.device.store.releases import choose_removable, list_releases
from edgepack.device.store.removal import Pruned, remove_releases
from edgepack.device.wire.transport import Device

if TYPE_CHECKING:
    from edgepack.device.survey.facts import DeviceFacts


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
    surplus = () if facts is None else _find_surplus(device, layout, facts, keep=retention.keep)
    return remove_releases(
        device,
        layout,
        removable,
        holdings=surplus,
        free_bytes=retention.free_bytes,
        fence=fence,
    )


def _find_surplus(
    device: Device, layout: Layout, facts: "DeviceFacts", *, keep: int
) -> tuple[Holding, ...]:
    # It imports what knows of wheels; a push of a bundle alone does without.
    from edgepack.device.runtime.provision import fitting_runtimes  # noqa: PLC0415

    return choose_surplus(
        list_holdings(device, layout), keep=keep, runtimes=fitting_runtimes(facts)
    )


def removed_json(pruned: Pruned | None) -> dict[str, object]:
    """Give what was removed as `push --json` and `releases --json` print it."""
    releases, holdings = ((), ()) if pruned is None else (pruned.removed, pruned.holdings)
    return {
        "removed": [list(each) for each in releases],
        "removed_folders": [each.path for each in holdings],
    }
