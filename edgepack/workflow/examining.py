"""A preflight of one device of many, as a function that any process can run."""

from dataclasses import dataclass

from edgepack.device.preflight.diagnosis import Cargo
from edgepack.device.runtime.provision import RunnerChoice
from edgepack.profile import TargetProfile
from edgepack.workflow.delivery import ReachOptions, ignore_step
from edgepack.workflow.preflight import Preflight, examine
from edgepack.workflow.request import StepCallback


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamineTask:
    """A preflight of one device.

    Attributes:
        address: of the device.
        root: its deploy root; may begin with `~`.
        profile: what the device must be; None takes any.
        cargo: what is to be deployed; None looks at the device alone.
        reach: how it is reached.
    """

    address: str
    root: str
    profile: TargetProfile | None
    cargo: Cargo | None
    reach: ReachOptions


def examine_task(task: ExamineTask, *, on_step: StepCallback = ignore_step) -> Preflight:
    """Carry a preflight out.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        DeviceError: the device cannot be asked, so that whoever runs it may try once more.
    """
    return examine(
        task.address,
        connect=task.reach.connect,
        root=task.root,
        profile=task.profile,
        cargo=task.cargo,
        runner=RunnerChoice(task.reach.runner),
        android=task.reach.android,
        on_step=on_step,
    )
