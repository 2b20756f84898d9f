"""`edgepack releases`: what lies on devices, and old releases taken away."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import LIST_WIDTH, note, print_json, print_table
from edgepack.commands.fleet import open_shown_site, target_option
from edgepack.commands.fleet_options import choice_options, is_fleet, plan_from, read_devices
from edgepack.commands.options import device_options, json_option, lock_option, root_option
from edgepack.commands.retention import note_removed, retention_from, retention_options
from edgepack.commands.rollout import (
    end_rollout,
    outcome_json,
    reach_options,
    roll_out,
    site_root,
)
from edgepack.device.wire.address import subject
from edgepack.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgepack.workflow.listing import Listed
    from edgepack.workflow.retention import Retention


@click.command()
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE|@FLEET.toml...")
@click.option("--name", metavar="NAME", help="Of this bundle only.")
@click.option("--prune", "is_pruning", is_flag=True, help="Remove what is old first.")
@retention_options
@choice_options
@target_option
@device_options
@root_option
@lock_option
@json_option
def releases(
    *,
    devices: tuple[str, ...],
    name: str | None,
    is_pruning: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """List the releases on devices, and with --prune remove old ones.

    Never removed: the current release, and the one a rollback leads to unless --keep 1 asks
    for it. --prune alone keeps those two of each bundle. Runtimes and the bare models of
    benchmarks go too, but for the two that were used last and what fits the device; with
    --name only releases do.
    """
    from edgepack.workflow.listing import list_site

    retention = retention_from(given, is_asked=is_pruning)
    if retention is not None and not is_pruning:
        raise UsageError(
            "--keep and --keep-free: expected --prune with them, since they remove releases",
            remedy="Add --prune, or leave them out to list only.",
        )
    if is_fleet(devices, given):
        return _list_fleet(devices, given, name=name, retention=retention, as_json=as_json)
    purpose = "prune" if retention is not None else None
    with open_shown_site(devices[0], given, purpose=purpose) as site:
        listed = list_site(site, name=name, retention=retention)
    if as_json:
        print_json(listed.to_json())
    else:
        _show([listed], retention)
    return ExitCode.DONE


def _list_fleet(
    named: tuple[str, ...],
    given: Mapping[str, Any],
    *,
    name: str | None,
    retention: "Retention | None",
    as_json: bool,
) -> int:
    from edgepack.workflow.listing import Listed, ListTask, list_task

    devices = read_devices(named, given["filters"])
    reach = reach_options(given)
    tasks = [
        ListTask(
            address=each.address,
            root=site_root(each, given),
            name=name,
            retention=retention,
            reach=reach,
        )
        for each in devices
    ]
    rolled = roll_out(tasks, list_task, plan=plan_from(devices, given), given=given)
    if as_json:
        print_json([outcome_json(each, Listed.to_json) for each in rolled.outcomes])
    else:
        _show([each.result for each in rolled.outcomes if each.result], retention)
    return end_rollout(rolled)


def _show(listed: "Sequence[Listed]", retention: "Retention | None") -> None:
    from rich.table import Table

    from edgepack.report.units import file_size

    table = Table(box=None, pad_edge=False)
    for column in ("device", "bundle", "release", "", "placed (UTC)", "size"):
        right = column == "size"
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for each in listed:
        note_removed(each.device, each.pruned, retention)
        for facts in each.releases:
            state = "current" if facts.is_current else "previous" if facts.is_previous else ""
            placed = "-" if facts.placed is None else f"{facts.placed:%Y-%m-%d %H:%M:%S}"
            size = file_size(facts.disk_bytes)
            table.add_row(each.device, facts.name, facts.release, state, placed, size)
        if not each.releases:
            note(f"{subject(each.device)} no releases")
    if table.row_count:
        print_table(table, width=LIST_WIDTH)
