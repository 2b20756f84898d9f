"""`edgepack push`: a bundle onto devices, verified there, switched atomically."""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
)
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from edgepack.bundle.archive import Bundle
    from edgepack.device.deploy import Deployment
    from edgepack.report.summary import PushSummary


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A finished push: the deployment, its seconds, and the bytes of a runtime before it.

    Attributes:
        device: its name.
        deployment: what stands where.
        runtime_bytes: sent for the runtime.
        seconds: of the transfer.
        example: the command that runs the model on the device; None for a bundle without one.
    """

    device: str
    deployment: "Deployment"
    runtime_bytes: int
    seconds: float
    example: str | None

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
        }


@click.command()
@click.argument("bundle", type=EXISTING_FILE)
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@device_options
@json_option
def push(*, bundle: Path, devices: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Put a bundle on devices and make it the current release there.

    Installs the inference runtime too where it is missing. Earlier releases stay.
    """
    from edgepack.bundle.archive import open_bundle
    from edgepack.cache import Cache, cache_directory

    opened = open_bundle(bundle)
    cache = Cache(root=cache_directory())

    def push_one(address: str) -> Pushed:
        profile = opened.manifest.target
        with ready_device(address, given=given, profile=profile, cache=cache) as ready:
            return push_on(ready, opened)

    reached = run_each(devices, push_one)
    if as_json:
        print_json(fleet_json(reached, Pushed.to_json))
    else:
        _show(reached)
    return ExitCode.FAILURE if any(each.error for each in reached) else ExitCode.DONE


def push_on(ready: ReadyDevice, bundle: "Bundle") -> Pushed:
    """Push a bundle to a device that was made ready."""
    from edgepack.device.deploy import push_bundle

    rig = ready.rig
    ready.work.step(f"pushing {bundle.manifest.name} {bundle.release} to {rig.device.name}")
    start = time.monotonic()
    deployment = push_bundle(rig.device, bundle, root=rig.root, on_progress=ready.work.transfer)
    return Pushed(
        device=rig.device.name,
        deployment=deployment,
        runtime_bytes=rig.engine.runtime_bytes,
        seconds=time.monotonic() - start,
        example=_example_command(bundle, python=rig.engine.python, folder=deployment.path),
    )


def _example_command(bundle: "Bundle", *, python: str, folder: str) -> str | None:
    from edgepack.bundle.example import EXAMPLE_PATH

    if EXAMPLE_PATH not in {each.path for each in bundle.manifest.files}:
        return None
    return f"{shlex.join([python, f'{folder}/{EXAMPLE_PATH}'])} --golden"


def _show(reached: tuple[Reached[Pushed], ...]) -> None:
    from edgepack.report.terminal import render_pushes

    done = [each.result for each in reached if each.result is not None]
    if done:
        print_table(render_pushes([summarize_push(each) for each in done]))
    for each in done:
        note(f"{subject(each.device)} release {each.deployment.release} is current")
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
