"""What stays on a device of what is old: options, and telling what was removed."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgepack.commands.console import note, warn
from edgepack.commands.options import apply_options, read_size
from edgepack.device.wire.address import subject

if TYPE_CHECKING:
    from edgepack.device.store.removal import Pruned
    from edgepack.workflow.retention import Retention

F = TypeVar("F", bound=Callable[..., Any])


def retention_from(given: Mapping[str, Any], *, is_asked: bool = False) -> "Retention | None":
    """Read `retention_options`; None when nothing is to be removed.

    Args:
        given: the options' values.
        is_asked: whether something is to be removed even if neither was given.
    """
    from edgepack.workflow.retention import Retention

    if given["keep"] is None and given["keep_free"] is None and not is_asked:
        return None
    # The current one, and the one a rollback leads to.
    return Retention(keep=given["keep"] or 2, free_bytes=given["keep_free"])


def retention_options(function: F) -> F:
    """Add the options that say what stays of what is old."""
    return apply_options(
        click.option(
            "--keep",
            type=click.IntRange(1, 1000),
            metavar="NUMBER",
            help="Remove older releases of a bundle beyond so many, the current one counted, and "
            "runtimes and bare models but for so many that were used last. Only with 1 the "
            "release goes that a rollback leads to.",
        ),
        click.option(
            "--keep-free",
            type=read_size,
            metavar="SIZE",
            help="Remove what is old only until so much room is free, such as 500MB.",
        ),
    )(function)


def note_removed(device: str, pruned: "Pruned | None", retention: "Retention | None") -> None:
    """Say what was removed; warn when too little room is free all the same."""
    from edgepack.report.units import file_size

    if pruned is None or retention is None:
        return
    wanted, free = retention.free_bytes, pruned.free_bytes
    if wanted is not None and free is not None and free < wanted:
        warn(
            f"{subject(device)} {file_size(free)} are free, not {file_size(wanted)}; what is "
            "left must stay"
        )
    for name, release in pruned.removed:
        note(f"{subject(device)} removed release {release} of {name}")
    for each in pruned.holdings:
        name = each.name[:12] if each.is_by_content else each.name
        note(f"{subject(device)} removed {each.kind} {name} ({file_size(each.disk_bytes)})")
