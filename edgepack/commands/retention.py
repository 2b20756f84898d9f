"""Which old releases stay on a device: options, and removing the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from edgepack.commands.console import note, warn
from edgepack.commands.fleet import subject
from edgepack.commands.options import apply_options, read_size

if TYPE_CHECKING:
    from edgepack.device.layout import Layout
    from edgepack.device.lease import Fence
    from edgepack.device.removal import Pruned
    from edgepack.device.transport import Device

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What stays.

    Attributes:
        keep: releases of each bundle, the current one among them.
        free_bytes: room that shall be free; None removes all that need not stay.
    """

    keep: int
    free_bytes: int | None

    @classmethod
    def of(cls, given: Mapping[str, Any], *, is_asked: bool = False) -> Self | None:
        """Read `retention_options`; None when nothing is to be removed.

        Args:
            given: the options' values.
            is_asked: whether something is to be removed even if neither was given.
        """
        if given["keep"] is None and given["keep_free"] is None and not is_asked:
            return None
        # The current one, and the one a rollback leads to.
        return cls(keep=given["keep"] or 2, free_bytes=given["keep_free"])


def retention_options(function: F) -> F:
    """Add the options that say which old releases stay."""
    return apply_options(
        click.option(
            "--keep",
            type=click.IntRange(1, 1000),
            metavar="NUMBER",
            help="Remove older releases of a bundle beyond so many, the current one counted. "
            "Only with 1 the one goes that a rollback leads to.",
        ),
        click.option(
            "--keep-free",
            type=read_size,
            metavar="SIZE",
            help="Remove older releases only until so much room is free, such as 500MB.",
        ),
    )(function)


def prune(
    device: "Device",
    layout: "Layout",
    retention: Retention,
    *,
    name: str | None,
    fence: "Fence",
) -> "Pruned":
    """Remove the releases that need not stay; warn when too little room is free all the same."""
    from edgepack.device.releases import choose_removable, list_releases
    from edgepack.device.removal import remove_releases
    from edgepack.report.units import file_size

    present = list_releases(device, root=layout.root)
    removable = choose_removable(present, keep=retention.keep, name=name)
    pruned = remove_releases(
        device, layout, removable, free_bytes=retention.free_bytes, fence=fence
    )
    wanted, free = retention.free_bytes, pruned.free_bytes
    if wanted is not None and free is not None and free < wanted:
        warn(
            f"{subject(device.name)} {file_size(free)} are free, not {file_size(wanted)}; what is "
            "left must stay"
        )
    return pruned


def note_removed(device: str, pruned: "Pruned | None") -> None:
    """Say which releases were removed."""
    for name, release in pruned.removed if pruned is not None else ():
        note(f"{subject(device)} removed release {release} of {name}")
