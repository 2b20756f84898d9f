"""A rollback from its beginning to its end, as a function that any process can run."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edgepack._fields import Fields, join_faults
from edgepack.device.store.releases import list_releases
from edgepack.device.store.rollback import roll_back
from edgepack.device.wire.address import subject
from edgepack.errors import (
    ConnectError,
    DeployError,
    DeviceTimeoutError,
    JournalError,
    UncertainError,
)
from edgepack.workflow.delivery import ReachOptions, ignore_step
from edgepack.workflow.site import Site, open_site

if TYPE_CHECKING:
    from edgepack.workflow.request import StepCallback


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackTask:
    """A rollback on one device.

    Attributes:
        address: of the device.
        root: its deploy root; may begin with `~`.
        name: of the bundle; None where there is one only.
        release: to go back to; None is the one that was current before.
        reach: how the device is reached.
    """

    address: str
    root: str
    name: str | None
    release: str | None
    reach: ReachOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class RolledBack:
    """A release that is current again.

    Attributes:
        device: its name.
        name: of the bundle.
        release: that is current now.
        previous: that was current before; None when none was.
    """

    device: str
    name: str
    release: str
    previous: str | None

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that `rollback --json` prints."""
        return asdict(self)


def read_rolled_back(stored: object) -> RolledBack:
    """Read what `RolledBack.to_json` gave; its inverse.

    Raises:
        JournalError: it is not that.
    """
    fields = Fields(stored if isinstance(stored, dict) else {})
    done = RolledBack(
        device=fields.text("device"),
        name=fields.text("name"),
        release=fields.text("release"),
        previous=fields.nullable_text("previous"),
    )
    fields.close()
    if fields.faults:
        raise JournalError(
            join_faults("expected a rollback", fields.faults),
            remedy="Leave --resume out, and choose with --filter the devices that are left.",
        )
    return done


def rollback_task(task: RollbackTask, *, on_step: "StepCallback" = ignore_step) -> RolledBack:
    """Carry a rollback out.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        DeviceError: as `open_site` and `return_once`.
    """
    with open_site(
        task.address,
        connect=task.reach.connect,
        root=task.root,
        lock=task.reach.lock_options("rollback", on_step),
        on_step=on_step,
    ) as site:
        on_step(f"going back on {site.device.name}")
        return return_once(site, name=task.name, release=task.release)


def return_once(site: Site, *, name: str | None, release: str | None) -> RolledBack:
    """Go back so that nobody tries it again who does not know whether it was done.

    Raises:
        UncertainError: the link was lost; that a release is named makes it safe to repeat.
        DeviceError: as `return_site`.
    """
    try:
        return return_site(site, name=name, release=release)
    except (ConnectError, DeviceTimeoutError) as error:
        if release is not None:
            raise
        raise UncertainError(
            f"{error.message}\nwhether it went back is not known",
            remedy="See what is current with `edgepack releases`, and name the release with --to "
            "where it has to go back still.",
        ) from error


def return_site(site: Site, *, name: str | None, release: str | None) -> RolledBack:
    """Go back on a device that is held.

    Raises:
        DeployError: as `roll_back`, or it is not clear which bundle is meant.
    """
    name = name or _only_name(site)
    now, before = roll_back(
        site.device, name, release=release, root=site.layout.root, fence=site.fence
    )
    return RolledBack(
        device=site.device.name, name=name, release=now.release, previous=before or None
    )


def _only_name(site: Site) -> str:
    names = sorted({facts.name for facts in list_releases(site.device, root=site.layout.root)})
    if len(names) == 1:
        return names[0]
    device, root = subject(site.device.name), site.layout.root
    if not names:
        raise DeployError(
            f"{device} there are no releases in {root}",
            remedy="Push a bundle first; `--root` or `--target` says where others were pushed to.",
        )
    raise DeployError(
        f"{device} expected the name of a bundle, since there are {len(names)} in {root}: "
        f"{', '.join(names)}",
        remedy="Name it: `edgepack rollback DEVICE NAME`.",
    )
