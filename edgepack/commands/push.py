"""`edgepack push`: a bundle onto devices, verified there, switched atomically."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgepack.commands.console import note, print_json, print_table
from edgepack.commands.fleet import (
    Reached,
    ReadyDevice,
    fleet_json,
    ready_device,
    run_each,
    subject,
)
from edgepack.commands.options import (
    EXISTING_FILE,
    device_options,
    json_option,
    lock_option,
    root_option,
    runtime_options,
)
from edgepack.commands.retention import Retention, note_removed, prune, retention_options
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from edgepack.bundle.archive import Bundle
    from edgepack.device.deploy import Deployment
    from edgepack.device.removal import Pruned
    from edgepack.measure.golden import GoldenVerdict
    from edgepack.report.summary import PushSummary

health_option: Final = click.option(
    "--health-check/--no-health-check",
    default=True,
    help="Run the golden inputs on the device before the release is made current.",
    show_default=True,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A finished push: the deployment, its seconds, and the bytes of a runtime before it.

    Attributes:
        device: its name.
        deployment: what stands where.
        runtime_bytes: sent for the runtime.
        seconds: of the transfer.
        example: the command that runs the model on the device; None for a bundle without one,
            and on a device without a Python that suits.
    """

    device: str
    deployment: "Deployment"
    runtime_bytes: int
    seconds: float
    example: str | None
    health: "GoldenVerdict | None" = None
    pruned: "Pruned | None" = None

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that `push --json` prints."""
        return {
            "device": self.device,
            "release": self.deployment.release,
            "path": self.deployment.path,
            "sent_bytes": self.deployment.sent_bytes,
            "skipped_bytes": self.deployment.skipped_bytes,
            "runtime_bytes": self.runtime_bytes,
            "seconds": round(self.seconds, 3),
            "example": self.example,
            "previous": self.deployment.previous,
            "health_check": None if self.health is None else self.health.passed,
            "removed": [] if self.pruned is None else [list(e) for e in self.pruned.removed],
        }


@click.command()
@click.argument("bundle", type=EXISTING_FILE)
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@health_option
@retention_options
@device_options
@root_option
@runtime_options
@lock_option
@json_option
def push(*, bundle: Path, devices: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Put a bundle on devices and make it the current release there.

    Installs the inference runtime too where it is missing. The device runs the bundle's
    golden inputs first; what was current stays current when it answers wrongly. Earlier
    releases stay, unless --keep or --keep-free says otherwise.
    """
    from edgepack.bundle.archive import open_bundle
    from edgepack.cache import Cache, cache_directory
    from edgepack.workflow.preflight import weigh_cargo

    retention = Retention.of(given)
    opened = open_bundle(bundle)
    cargo = weigh_cargo(opened)
    cache = Cache(root=cache_directory())

    def push_one(address: str) -> Pushed:
        profile = opened.manifest.target
        with ready_device(
            address, purpose="push", given=given, profile=profile, cache=cache, cargo=cargo
        ) as ready:
            return push_on(ready, opened, given, retention=retention)

    reached = run_each(devices, push_one)
    if as_json:
        print_json(fleet_json(reached, Pushed.to_json))
    else:
        _show(reached)
    return ExitCode.FAILURE if any(each.error for each in reached) else ExitCode.DONE


def push_on(
    ready: ReadyDevice,
    bundle: "Bundle",
    given: Mapping[str, Any],
    *,
    retention: Retention | None = None,
) -> Pushed:
    """Push a bundle to a device that was made ready."""
    from edgepack.device.layout import Layout
    from edgepack.workflow.pushing import push_release

    rig, work = ready.rig, ready.work
    start = time.monotonic()
    pushed = push_release(
        rig,
        bundle,
        health_check=given["health_check"],
        on_step=work.step,
        on_transfer=work.transfer,
    )
    pruned = None
    if retention is not None:
        name, layout = bundle.manifest.name, Layout(root=rig.root)
        pruned = prune(rig.device, layout, retention, name=name, fence=rig.fence)
    return Pushed(
        device=rig.device.name,
        deployment=pushed.deployment,
        runtime_bytes=rig.engine.runtime_bytes,
        seconds=time.monotonic() - start,
        example=_example_command(bundle, python=rig.engine.python, folder=pushed.deployment.path),
        health=pushed.health,
        pruned=pruned,
    )


def _example_command(bundle: "Bundle", *, python: str | None, folder: str) -> str | None:
    from edgepack.bundle.example import EXAMPLE_PATH

    if python is None or EXAMPLE_PATH not in {each.path for each in bundle.manifest.files}:
        return None
    return f"{shlex.join([python, f'{folder}/{EXAMPLE_PATH}'])} --golden"


def _show(reached: tuple[Reached[Pushed], ...]) -> None:
    from edgepack.report.terminal import render_pushes

    done = [each.result for each in reached if each.result is not None]
    if done:
        print_table(render_pushes([summarize_push(each) for each in done]))
    for each in done:
        note_removed(each.device, each.pruned)
        was = f"; before it was {each.deployment.previous}" if each.deployment.previous else ""
        note(f"{subject(each.device)} release {each.deployment.release} is current{was}")
        note_example(each)


def note_example(pushed: Pushed) -> None:
    """Say how the model is tried on the device by hand."""
    if pushed.example is not None:
        note(f"{subject(pushed.device)} try it there: {pushed.example}")


def summarize_push(pushed: Pushed) -> "PushSummary":
    """Give what a report shows of a push."""
    from edgepack.report.summary import PushSummary

    return PushSummary(
        device=pushed.device,
        release=pushed.deployment.release,
        sent_bytes=pushed.deployment.sent_bytes,
        skipped_bytes=pushed.deployment.skipped_bytes,
        runtime_bytes=pushed.runtime_bytes,
        seconds=pushed.seconds,
    )
