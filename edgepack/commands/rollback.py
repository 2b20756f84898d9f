"""`edgepack rollback`: an earlier release of a bundle current again."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json
from edgepack.commands.fleet import open_shown_site, target_option
from edgepack.commands.fleet_options import (
    fleet_options,
    is_fleet,
    journal_options,
    plan_from,
    read_devices,
)
from edgepack.commands.options import device_options, json_option, lock_option, root_option
from edgepack.commands.rollout import (
    end_rollout,
    journal_path,
    keep_journal,
    outcome_json,
    reach_options,
    read_earlier,
    roll_out,
    site_root,
)
from edgepack.device.wire.address import subject
from edgepack.errors import ExitCode, UncertainError

if TYPE_CHECKING:
    from edgepack.fleet.journal import Journal
    from edgepack.fleet.rollout import Outcome
    from edgepack.workflow.returning import RolledBack


@click.command()
@click.argument("device", metavar="DEVICE|@FLEET.toml")
@click.argument("name", required=False)
@click.option(
    "--to", "release", metavar="RELEASE", help="Which one [default: the one current before]."
)
@fleet_options
@journal_options
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
    with open_shown_site(device, given, purpose="rollback") as site:
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

    devices = read_devices((named,), given["filters"])
    reach = reach_options(given)
    tasks = [
        RollbackTask(
            address=each.address,
            root=site_root(each, given),
            name=name,
            release=release,
            reach=reach,
        )
        for each in devices
    ]
    plan = plan_from(devices, given)
    goal = f"{name or 'bundle'}-{release or 'previous'}"
    path = journal_path((named,), given, verb="rollback", release=goal)
    what = f"rollback {name or 'the only bundle'} to {release or 'the release before'}"
    with keep_journal(path, subject=what, resume=given["resume"]) as journal:
        earlier = None if journal is None else _read_earlier(journal, plan.devices)
        rolled = roll_out(
            tasks,
            rollback_task,
            plan=plan,
            given=given,
            journal=journal,
            stored=RolledBack.to_json,
            earlier=earlier,
        )
    if as_json:
        print_json([outcome_json(each, RolledBack.to_json) for each in rolled.outcomes])
    else:
        for each in rolled.outcomes:
            if each.result is not None:
                _tell_current(each.result)
    return end_rollout(rolled, path)


def _read_earlier(journal: "Journal", devices: Sequence[str]) -> "dict[str, Outcome[RolledBack]]":
    """Give what came of devices that must not go back once more.

    Raises:
        JournalError: it does not say to which release one went back.
    """
    from edgepack.fleet.rollout import Outcome
    from edgepack.workflow.returning import read_rolled_back

    found = read_earlier(journal, devices, lambda _, stored: read_rolled_back(stored))
    for device in devices:
        entry = journal.past.entries.get(device)
        fault = entry.error if entry is not None else None
        if entry is not None and fault is not None and fault["kind"] == UncertainError.kind:
            error = UncertainError(fault["message"], remedy=fault["remedy"])
            found[device] = Outcome(
                device=device, state=entry.state, num_tries=entry.num_tries, error=error
            )
    return found


def _tell_current(done: "RolledBack") -> None:
    before = done.previous
    was = f"; before it was {before}" if before and before != done.release else ""
    click.echo(f"{subject(done.device)} release {done.release} of {done.name} is current{was}")
