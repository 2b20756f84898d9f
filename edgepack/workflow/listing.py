"""A look at the releases on a device, and old ones taken away, as a function for any process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.device.store.releases import ReleaseFacts, list_releases
from edgepack.device.store.removal import Pruned
from edgepack.device.survey.facts import read_facts
from edgepack.workflow.delivery import ReachOptions, ignore_step
from edgepack.workflow.retention import Retention, prune, removed_json
from edgepack.workflow.site import Site, open_site

if TYPE_CHECKING:
    from edgepack.workflow.request import StepCallback


@dataclass(frozen=True, kw_only=True, slots=True)
class ListTask:
    """A look at one device.

    Attributes:
        address: of the device.
        root: its deploy root; may begin with `~`.
        name: of the bundle that is meant; None is all of them.
        retention: what stays, where old releases are taken away first; None takes none.
        reach: how the device is reached.
    """

    address: str
    root: str
    name: str | None
    retention: Retention | None
    reach: ReachOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The releases on a device, and what was removed before."""

    device: str
    releases: tuple[ReleaseFacts, ...]
    pruned: Pruned | None = None

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that `releases --json` prints."""
        return {
            "device": self.device,
            "releases": [_release_json(each) for each in self.releases],
            **({} if self.pruned is None else removed_json(self.pruned)),
        }


def _release_json(facts: ReleaseFacts) -> dict[str, object]:
    return {
        "name": facts.name,
        "release": facts.release,
        "current": facts.is_current,
        "previous": facts.is_previous,
        "placed": None if facts.placed is None else facts.placed.isoformat(),
        "disk_bytes": facts.disk_bytes,
    }


def list_task(task: ListTask, *, on_step: "StepCallback" = ignore_step) -> Listed:
    """Look at a device, and take old releases away where that is asked for.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        DeviceError: as `open_site` and `list_site`.
    """
    with open_site(
        task.address,
        connect=task.reach.connect,
        root=task.root,
        lock=None if task.retention is None else task.reach.lock_options("prune", on_step),
        on_step=on_step,
    ) as site:
        on_step(f"looking at {site.device.name}")
        return list_site(site, name=task.name, retention=task.retention)


def list_site(site: Site, *, name: str | None, retention: Retention | None) -> Listed:
    """List the releases, once old ones are taken away; for that the device must be held.

    Raises:
        DeviceError: as `list_releases` and `prune`.
    """
    pruned = None
    if retention is not None:
        facts = None if name else read_facts(site.device, site.layout.root)
        pruned = prune(
            site.device, site.layout, retention, name=name, facts=facts, fence=site.fence
        )
    found = list_releases(site.device, root=site.layout.root)
    of_name = tuple(facts for facts in found if name in {None, facts.name})
    return Listed(device=site.device.name, releases=of_name, pruned=pruned)
