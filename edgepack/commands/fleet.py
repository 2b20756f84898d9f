"""Devices as verbs reach them, one at a time, with their work shown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click

from edgepack.commands.boundary import error_json
from edgepack.commands.console import Work, note, show_work, warn
from edgepack.commands.options import (
    android_runtime_from,
    connect_options_from,
    find_target,
    lock_options_from,
)
from edgepack.device.wire.address import subject
from edgepack.errors import EdgePackError

if TYPE_CHECKING:
    from edgepack.cache import Cache
    from edgepack.device.preflight.diagnosis import Cargo
    from edgepack.measure.record import Measurement
    from edgepack.measure.results import StoredResults
    from edgepack.profile import TargetProfile
    from edgepack.workflow.rig import Rig
    from edgepack.workflow.site import Site

T = TypeVar("T")

target_option: Final = click.option(
    "--target", metavar="NAME", help="Target that was packed for, whose deploy root is meant."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached(Generic[T]):
    """What a device gave: a result, or the error in its place."""

    device: str
    result: T | None = None
    error: EdgePackError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyDevice:
    """A device that is made ready, and where its work is shown."""

    rig: "Rig"
    work: Work


@contextmanager
def ready_device(
    address: str,
    *,
    purpose: str,
    given: Mapping[str, Any],
    profile: "TargetProfile | None",
    cache: "Cache",
    cargo: "Cargo | None" = None,
) -> Iterator[ReadyDevice]:
    """Connect to a device and make it ready, showing what is done until the end of the context.

    Args:
        address: as the user wrote it.
        purpose: verb for which the device is held, shown to who waits for it.
        given: values of `device_options` and `lock_option`.
        profile: what the device must be; None takes any.
        cache: where downloaded runtimes are kept.
        cargo: what is to be deployed, where it is known already.

    Raises:
        DeviceError: it cannot be reached, is not of the profile, or cannot run a runtime.
    """
    from edgepack.device.runtime.provision import RunnerChoice
    from edgepack.workflow.rig import open_rig

    with (
        show_work() as work,
        open_rig(
            address,
            connect=connect_options_from(given, work),
            root=given["root"],
            profile=profile,
            cache=cache,
            cargo=cargo,
            runner=RunnerChoice(given["runner"] or "auto"),
            android=android_runtime_from(given),
            lock=lock_options_from(purpose, given, work),
            on_step=work.step,
            on_transfer=work.transfer,
        ) as rig,
    ):
        for warning in rig.warnings:
            warn(f"{subject(rig.device.name)} {warning}")
        yield ReadyDevice(rig=rig, work=work)


@contextmanager
def open_shown_site(
    address: str, given: Mapping[str, Any], *, purpose: str | None
) -> "Iterator[Site]":
    """Open a device's deploy root, showing what is done; see `open_site`.

    Args:
        address: as the user wrote it.
        given: values of `target_option`, `device_options`, `root_option` and `lock_option`.
        purpose: verb for which the device is held; None only looks.
    """
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


def run_one(address: str, action: Callable[[str], T], *, is_only: bool) -> Reached[T]:
    """Run an action for one device.

    Raises:
        EdgePackError: when it is the only device.
    """
    try:
        return Reached(device=address, result=action(address))
    except EdgePackError as error:
        if is_only:
            raise
        note(about(address, error.message))
        if error.remedy:
            note(f"  {error.remedy}")
        return Reached(device=address, error=error)


def about(device: str, text: str) -> str:
    """Put a device's name before a text, unless it begins with it."""
    return text if text.startswith(device) else f"{subject(device)} {text}"


def fleet_json(reached: Sequence[Reached[T]], to_json: Callable[[T], object]) -> object:
    """Give the JSON of one result, or a list in the order of the devices."""
    items = [item_json(each, to_json) for each in reached]
    return items[0] if len(items) == 1 else items


def item_json(reached: Reached[T], to_json: Callable[[T], object]) -> object:
    """Give the JSON of one device's result, or of its error."""
    if reached.result is not None:
        return to_json(reached.result)
    error = error_json(reached.error) if reached.error is not None else None
    return {"device": reached.device, "error": error}


def gather(measured: "Sequence[Measurement]", reached: "Sequence[Reached[Any]]") -> "StoredResults":
    """Put a run's measurements together with the devices that gave none."""
    from edgepack.measure.results import Failure, StoredResults

    failed = [(each.device, each.error) for each in reached if each.error is not None]
    return StoredResults(
        measured=tuple(measured),
        failed=tuple(Failure(device=device, reason=error.message) for device, error in failed),
    )
