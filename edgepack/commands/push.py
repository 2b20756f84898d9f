"""`edgepack push`: a bundle onto devices, verified there, switched atomically."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgepack.commands.console import note, print_json, print_table, show_work, warn
from edgepack.commands.fleet import ReadyDevice, about, ready_device
from edgepack.commands.fleet_options import (
    check_targets,
    fleet_options,
    is_fleet,
    journal_options,
    plan_from,
    read_devices,
)
from edgepack.commands.options import (
    EXISTING_FILE,
    connect_options_from,
    device_options,
    json_option,
    lock_option,
    lock_options_from,
    root_option,
    runtime_options,
)
from edgepack.commands.retention import note_removed, retention_from, retention_options
from edgepack.commands.rollout import (
    end_rollout,
    journal_path,
    keep_journal,
    outcome_json,
    reach_options,
    roll_out,
    root_of,
)
from edgepack.commands.signing_options import check_bundle, signed_json, signers_options
from edgepack.device.wire.address import subject
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgepack.bundle.archive import Bundle
    from edgepack.report.summary import PushSummary
    from edgepack.signing.seal import Signed
    from edgepack.workflow.delivery import Pushed
    from edgepack.workflow.retention import Retention

health_option: Final = click.option(
    "--health-check/--no-health-check",
    default=True,
    help="Run the golden inputs on the device before the release is made current.",
    show_default=True,
)


bundle_only_option: Final = click.option(
    "--bundle-only",
    is_flag=True,
    help="Send nothing but the bundle: no runtime, no look at the device, no health check; for "
    "applications with a runtime of their own.",
)


@click.command()
@click.argument("bundle", type=EXISTING_FILE)
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE|@FLEET.toml...")
@health_option
@bundle_only_option
@signers_options
@retention_options
@fleet_options
@journal_options
@device_options
@root_option
@runtime_options
@lock_option
@json_option
def push(*, bundle: Path, devices: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Put a bundle on devices and make it the current release there.

    Installs the inference runtime too where it is missing. The device runs the bundle's
    golden inputs first; what was current stays current when it answers wrongly. Earlier
    releases stay, unless --keep or --keep-free says otherwise. Several devices are worked on
    at a time; a failure of one keeps no other from being done.
    """
    from edgepack.bundle.archive import open_bundle

    opened = open_bundle(bundle)
    signed = check_bundle(opened, given)
    if is_fleet(devices, given):
        return _push_fleet(opened, devices, given, signed=signed, as_json=as_json)
    pushed = _push_one(opened, devices[0], given)
    if as_json:
        print_json(push_json(pushed, signed))
    else:
        _show([pushed], retention_from(given))
    return ExitCode.DONE


def _push_one(bundle: "Bundle", address: str, given: Mapping[str, Any]) -> "Pushed":
    from edgepack.cache import Cache, cache_directory
    from edgepack.workflow.preflight import weigh_cargo

    if given["bundle_only"]:
        return _push_alone(bundle, address, given)
    with ready_device(
        address,
        purpose="push",
        given=given,
        profile=bundle.manifest.target,
        cache=Cache(root=cache_directory()),
        cargo=weigh_cargo(bundle),
    ) as ready:
        return push_on(ready, bundle, given, retention=retention_from(given))


def _push_alone(bundle: "Bundle", address: str, given: Mapping[str, Any]) -> "Pushed":
    from edgepack.workflow.delivery import deliver_alone
    from edgepack.workflow.site import default_root, open_site

    with (
        show_work() as work,
        open_site(
            address,
            connect=connect_options_from(given, work),
            root=given["root"] or default_root(bundle.manifest.target),
            lock=lock_options_from("push", given, work),
            on_step=work.step,
        ) as site,
    ):
        return deliver_alone(
            site,
            bundle,
            retention=retention_from(given),
            on_step=work.step,
            on_transfer=work.transfer,
        )


def _push_fleet(
    bundle: "Bundle",
    named: tuple[str, ...],
    given: Mapping[str, Any],
    *,
    signed: "Signed | None",
    as_json: bool,
) -> int:
    from edgepack.workflow.delivery import PushTask, push_task

    devices = read_devices(named, given["filters"])
    check_targets(devices, bundle.manifest.target.id)
    plan = plan_from(devices, given)
    reach, retention = reach_options(given), retention_from(given)
    path = journal_path(named, given, verb="push", release=bundle.release)
    what = f"push {bundle.file_sha256}"
    with keep_journal(path, subject=what, resume=given["resume"]) as journal:
        done = journal.past.done if journal is not None else frozenset[str]()
        tasks = [
            PushTask(
                bundle=bundle.path.resolve(),
                sha256=bundle.file_sha256,
                address=each.address,
                root=root_of(each, given),
                reach=reach,
                health_check=given["health_check"],
                bundle_only=given["bundle_only"],
                retention=retention,
                was_done=each.address in done,
            )
            for each in devices
        ]
        rolled = roll_out(tasks, push_task, plan=plan, given=given, journal=journal)
    if as_json:
        print_json(
            [
                outcome_json(each, lambda pushed: _fleet_json(pushed, signed))
                for each in rolled.outcomes
            ]
        )
    else:
        _show_fleet([each.result for each in rolled.outcomes if each.result], retention)
    return end_rollout(rolled, path)


def _fleet_json(pushed: "Pushed", signed: "Signed | None") -> dict[str, object]:
    return {**push_json(pushed, signed), "already_done": pushed.is_checked_only}


def push_json(pushed: "Pushed", signed: "Signed | None") -> dict[str, object]:
    """Give the JSON form that `push --json` prints: what was done, and who signed the bundle."""
    return {**pushed.to_json(), "signature": signed_json(signed)}


def push_on(
    ready: ReadyDevice,
    bundle: "Bundle",
    given: Mapping[str, Any],
    *,
    retention: "Retention | None" = None,
) -> "Pushed":
    """Push a bundle to a device that was made ready."""
    from edgepack.workflow.outfitting import deliver

    return deliver(
        ready.rig,
        bundle,
        health_check=given["health_check"],
        retention=retention,
        on_step=ready.work.step,
        on_transfer=ready.work.transfer,
    )


def _show(done: "Sequence[Pushed]", retention: "Retention | None") -> None:
    from edgepack.report.terminal import render_pushes

    print_table(render_pushes([summarize_push(each) for each in done]))
    for each in done:
        _tell_removed(each, retention)
        was = f"; before it was {each.deployment.previous}" if each.deployment.previous else ""
        note(f"{subject(each.device)} release {each.deployment.release} is current{was}")
        note_example(each)


def _show_fleet(done: "Sequence[Pushed]", retention: "Retention | None") -> None:
    from edgepack.report.terminal import render_pushes

    if done:
        print_table(render_pushes([summarize_push(each) for each in done]))
    for each in done:
        _tell_removed(each, retention)
        for warning in each.warnings:
            warn(f"{subject(each.device)} {warning}")


def _tell_removed(pushed: "Pushed", retention: "Retention | None") -> None:
    note_removed(pushed.device, pushed.pruned, retention)
    if pushed.prune_error is not None:
        warn(about(pushed.device, f"what is old was not removed: {pushed.prune_error}"))


def note_example(pushed: "Pushed") -> None:
    """Say how the model is tried on the device by hand."""
    if pushed.example is not None:
        note(f"{subject(pushed.device)} try it there: {pushed.example}")


def summarize_push(pushed: "Pushed") -> "PushSummary":
    """Give what a report shows of a push."""
    from edgepack.report.summary import PushSummary

    return PushSummary(
        device=pushed.device,
        release=pushed.deployment.release,
        sent_bytes=pushed.deployment.sent_bytes,
        skipped_bytes=pushed.deployment.skipped_bytes,
        wire_bytes=pushed.deployment.wire_bytes,
        compression=pushed.deployment.codec,
        runtime_bytes=pushed.runtime_bytes,
        seconds=pushed.seconds,
    )
