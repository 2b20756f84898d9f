"""`edgepack releases` and `edgepack rollback`: what lies on a device, and going back."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from edgepack.commands.console import LIST_WIDTH, note, print_json, print_table, show_work
from edgepack.commands.fleet import Reached, fleet_json, run_each
from edgepack.commands.fleet_options import fleet_options, is_fleet, plan_from, read_devices
from edgepack.commands.options import (
    connect_options_from,
    device_options,
    find_target,
    json_option,
    lock_option,
    lock_options_from,
    root_option,
)
from edgepack.commands.retention import note_removed, retention_from, retention_options
from edgepack.commands.rollout import (
    end_rollout,
    outcome_json,
    reach_options,
    roll_out,
    root_of,
)
from edgepack.device.wire.address import subject
from edgepack.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepack.device.store.releases import ReleaseFacts
    from edgepack.device.store.removal import Pruned
    from edgepack.workflow.returning import RolledBack
    from edgepack.workflow.site import Site


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The releases on a device, and what was removed before."""

    device: str
    releases: "tuple[ReleaseFacts, ...]"
    pruned: "Pruned | None" = None

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that `releases --json` prints."""
        from edgepack.workflow.retention import removed_json

        return {
            "device": self.device,
            "releases": [_release_json(each) for each in self.releases],
            **({} if self.pruned is None else removed_json(self.pruned)),
        }


def _release_json(facts: "ReleaseFacts") -> dict[str, object]:
    return {
        "name": facts.name,
        "release": facts.release,
        "current": facts.is_current,
        "previous": facts.is_previous,
        "placed": None if facts.placed is None else facts.placed.isoformat(),
        "disk_bytes": facts.disk_bytes,
    }


target_option: Final = click.option(
    "--target", metavar="NAME", help="Target that was packed for, whose deploy root is meant."
)


@click.command()
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@click.option("--name", metavar="NAME", help="Of this bundle only.")
@click.option("--prune", "is_pruning", is_flag=True, help="Remove what is old first.")
@retention_options
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
    retention = retention_from(given, is_asked=is_pruning)
    if retention is not None and not is_pruning:
        raise UsageError(
            "--keep and --keep-free: expected --prune with them, since they remove releases",
            remedy="Add --prune, or leave them out to list only.",
        )

    def look(address: str) -> Listed:
        from edgepack.device.store.releases import list_releases
        from edgepack.device.survey.facts import read_facts
        from edgepack.workflow.retention import prune

        with _open_site(address, given, purpose="prune" if is_pruning else None) as site:
            pruned = None
            if retention is not None:
                facts = None if name else read_facts(site.device, site.layout.root)
                pruned = prune(
                    site.device, site.layout, retention, name=name, facts=facts, fence=site.fence
                )
                note_removed(site.device.name, pruned, retention)
            found = list_releases(site.device, root=site.layout.root)
            of_name = tuple(facts for facts in found if name in {None, facts.name})
            return Listed(device=site.device.name, releases=of_name, pruned=pruned)

    reached = run_each(devices, look)
    if as_json:
        print_json(fleet_json(reached, Listed.to_json))
    else:
        _show(reached)
    return ExitCode.FAILURE if any(each.error for each in reached) else ExitCode.DONE


@click.command()
@click.argument("device", metavar="DEVICE|@FLEET.toml")
@click.argument("name", required=False)
@click.option(
    "--to", "release", metavar="RELEASE", help="Which one [default: the one current before]."
)
@fleet_options
@target_option
@device_options
@root_option
@lock_option
@json_option
def rollback(
    *, device: str, name: str | None, release: str | None, as_json: bool, **given: Any
) -> int:
    """Make an earlier release of a bundle current again.

    NAME may be left out where there is one bundle only. The release's files are compared
    with its manifest first; what is current stays current when one is damaged.
    """
    from edgepack.workflow.returning import return_site

    if is_fleet((device,), given):
        return _roll_fleet_back(device, given, name=name, release=release, as_json=as_json)
    with _open_site(device, given, purpose="rollback") as site:
        done = return_site(site, name=name, release=release)
    if as_json:
        print_json(done.to_json())
    else:
        _tell_current(done)
    return ExitCode.DONE


def _roll_fleet_back(
    named: str,
    given: Mapping[str, Any],
    *,
    name: str | None,
    release: str | None,
    as_json: bool,
) -> int:
    from edgepack.workflow.returning import RollbackTask, RolledBack, rollback_task
    from edgepack.workflow.site import default_root

    profile = find_target(given["target"])
    devices = read_devices((named,), given["filters"])
    reach = reach_options(given)
    tasks = [
        RollbackTask(
            address=each.address,
            root=root_of(each, given)
            or default_root(profile if profile is not None else find_target(each.target)),
            name=name,
            release=release,
            reach=reach,
        )
        for each in devices
    ]
    rolled = roll_out(tasks, rollback_task, plan=plan_from(devices, given), given=given)
    if as_json:
        print_json([outcome_json(each, RolledBack.to_json) for each in rolled.outcomes])
    else:
        for each in rolled.outcomes:
            if each.result is not None:
                _tell_current(each.result)
    return end_rollout(rolled)


def _tell_current(done: "RolledBack") -> None:
    before = done.previous
    was = f"; before it was {before}" if before and before != done.release else ""
    click.echo(f"{subject(done.device)} release {done.release} of {done.name} is current{was}")


@contextmanager
def _open_site(address: str, given: Mapping[str, Any], *, purpose: str | None) -> "Iterator[Site]":
    from edgepack.workflow.site import default_root, open_site

    profile = find_target(given["target"])
    with (
        show_work() as work,
        open_site(
            address,
            connect=connect_options_from(given, work),
            root=given["root"] or default_root(profile),
            lock=None if purpose is None else lock_options_from(purpose, given, work),
            on_step=work.step,
        ) as site,
    ):
        yield site


def _show(reached: Sequence[Reached[Listed]]) -> None:
    from rich.table import Table

    from edgepack.report.units import file_size

    table = Table(box=None, pad_edge=False)
    for column in ("device", "bundle", "release", "", "placed (UTC)", "size"):
        right = column == "size"
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    listed = [each.result for each in reached if each.result is not None]
    for each in listed:
        for facts in each.releases:
            state = "current" if facts.is_current else "previous" if facts.is_previous else ""
            placed = "-" if facts.placed is None else f"{facts.placed:%Y-%m-%d %H:%M:%S}"
            size = file_size(facts.disk_bytes)
            table.add_row(each.device, facts.name, facts.release, state, placed, size)
        if not each.releases:
            note(f"{subject(each.device)} no releases")
    if table.row_count:
        print_table(table, width=LIST_WIDTH)
