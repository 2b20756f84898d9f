"""A push and a benchmark over one connection, as a function that any process can run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.archive import Bundle
from edgepack.errors import BundleError, EdgePackError
from edgepack.measure.record import Measurement
from edgepack.workflow.delivery import Pushed, ReachOptions, ignore_step
from edgepack.workflow.outfitting import deliver, open_reached
from edgepack.workflow.request import StepCallback
from edgepack.workflow.timing import PlanWishes, bench_subjects, take_subject


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployTask:
    """A bundle to be pushed to one device and measured there.

    Attributes:
        bundle: file of the bundle, and its hex sha256, signature and all.
        address: of the device.
        root: its deploy root; None for the target's.
        reach: how it is reached.
        health_check: whether the device runs the golden inputs before the switch.
        wishes: how long to measure.
    """

    bundle: tuple[Path, str]
    address: str
    root: str | None
    reach: ReachOptions
    health_check: bool
    wishes: PlanWishes


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployed:
    """A bundle that was pushed to a device and measured there.

    Attributes:
        push: is done, also where the measurement failed.
        measurement: None where it failed.
        error: why it failed.
    """

    push: Pushed
    measurement: Measurement | None = None
    error: EdgePackError | None = None


def measure_deployed(pushed: Pushed, measure: Callable[[], Measurement]) -> Deployed:
    """Measure what was pushed; that a measurement fails takes nothing from the push."""
    try:
        return Deployed(push=pushed, measurement=measure())
    except EdgePackError as error:
        return Deployed(push=pushed, error=error)


def deploy_task(task: DeployTask, *, on_step: StepCallback = ignore_step) -> Deployed:
    """Push a bundle to a device and measure it there, while the device is held once.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        EdgePackError: as `open_rig` and `deliver`.
    """
    taken = take_subject(*task.bundle)
    bundle = taken.subject.content
    if not isinstance(bundle, Bundle):
        raise BundleError(
            f"{task.bundle[0]}: expected a bundle, but it is a bare model",
            remedy="Do not replace a bundle while it is in use; run the command again.",
        )
    with open_reached(
        task.address,
        task.reach,
        purpose="deploy",
        root=task.root,
        bundle=bundle,
        cargo=taken.cargo,
        on_step=on_step,
    ) as rig:
        pushed = deliver(
            rig, bundle, health_check=task.health_check, retention=None, on_step=on_step
        )
        subjects = [(taken.subject, taken.golden)]
        return measure_deployed(
            pushed,
            lambda: bench_subjects(rig, subjects, wishes=task.wishes, on_step=on_step)[0],
        )
