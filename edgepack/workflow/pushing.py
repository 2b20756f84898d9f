"""A bundle put on a device that was made ready: placed, tried there, made current."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.bundle.archive import Bundle
from edgepack.device.store.deploy import Deployment, push_bundle
from edgepack.device.store.staging import TransferCallback
from edgepack.errors import GoldenError
from edgepack.measure.asking import WRONG_ANSWERS_REMEDY, ask_answers
from edgepack.measure.golden import GoldenVerdict
from edgepack.measure.plan import plan_from
from edgepack.profile import BenchmarkDefaults
from edgepack.workflow.benching import timed_release
from edgepack.workflow.request import StepCallback

if TYPE_CHECKING:
    from edgepack.workflow.rig import Rig


@dataclass(frozen=True, kw_only=True, slots=True)
class PushedRelease:
    """A release that is current on a device.

    Attributes:
        deployment: what stands where.
        health: what the device answered to the golden inputs before the switch; None when
            it was not asked.
    """

    deployment: Deployment
    health: GoldenVerdict | None


def push_release(
    rig: "Rig",
    bundle: Bundle,
    *,
    health_check: bool,
    on_step: StepCallback,
    on_transfer: TransferCallback | None = None,
) -> PushedRelease:
    """Put a bundle's release on a device and make it current once it answers rightly there.

    Args:
        rig: the device.
        bundle: an opened, verified bundle.
        health_check: whether the device runs the golden inputs before the switch.
        on_step: called with what is being done.
        on_transfer: called as bytes go out.

    Raises:
        GoldenError: it answers wrongly; what was current stays current.
        EdgePackError: as `push_bundle` and `ask_answers`; likewise.
    """
    verdicts: list[GoldenVerdict] = []

    def check(folder: str) -> None:
        on_step(f"checking the answers of {bundle.release} on {rig.device.name}")
        profile = bundle.manifest.target
        verdict = ask_answers(
            rig.device,
            engine=rig.engine,
            model=timed_release(bundle, folder),
            plan=plan_from(BenchmarkDefaults(), num_threads=rig.num_threads(profile)),
            root=rig.root,
        )
        if verdict is None:
            return
        if not verdict.passed:
            reasons = "\n".join(f"  - {reason}" for reason in verdict.reasons)
            raise GoldenError(
                f"the model answers otherwise on {rig.device.name} than where it was packed:\n"
                f"{reasons}",
                remedy=WRONG_ANSWERS_REMEDY,
            )
        verdicts.append(verdict)

    on_step(f"pushing {bundle.manifest.name} {bundle.release} to {rig.device.name}")
    deployment = push_bundle(
        rig.device,
        bundle,
        root=rig.root,
        before_switch=check if health_check else None,
        fence=rig.fence,
        on_progress=on_transfer,
    )
    return PushedRelease(deployment=deployment, health=verdicts[0] if verdicts else None)
