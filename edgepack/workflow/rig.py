"""A device made ready to measure: connected, described, checked against the target, provisioned."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from edgepack.cache import Cache
from edgepack.device.preflight.conditions import find_missing_modules, judge_modules
from edgepack.device.preflight.diagnosis import Cargo, diagnose
from edgepack.device.preflight.finding import Finding, Severity, raise_errors
from edgepack.device.preflight.premises import Premises, survey
from edgepack.device.preflight.prospect import find_prospect
from edgepack.device.preflight.signatures import judge_signature
from edgepack.device.runtime.android import AndroidRuntime, check_android
from edgepack.device.runtime.provision import Engine, RunnerChoice, provision
from edgepack.device.store.layout import resolve_root
from edgepack.device.store.lease import NO_FENCE, Fence
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.store.signers import SignersFile
from edgepack.device.store.staging import TransferCallback
from edgepack.device.survey.facts import DeviceFacts
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.transport import Device
from edgepack.profile import TargetProfile
from edgepack.workflow.request import StepCallback
from edgepack.workflow.site import default_root


@dataclass(frozen=True, kw_only=True, slots=True)
class Rig:
    """A connected device with what is known of it.

    Attributes:
        device: the open connection.
        facts: what the device says of itself.
        root: folder on the device for releases and runtimes, absolute.
        engine: the runtime that measures there.
        warnings: how the device falls short of the target without being refused.
        fence: the right to change what is current, since the device is held.
        choice: whose runner was asked for.
        has_runtime: whether the user brought the runtime.
        signers: the device's own list of who may sign; None where it has none.
    """

    device: Device
    facts: DeviceFacts
    root: str
    engine: Engine
    warnings: tuple[str, ...] = ()
    fence: Fence = NO_FENCE
    choice: RunnerChoice = RunnerChoice.AUTO
    has_runtime: bool = False
    signers: SignersFile | None = None

    def num_threads(self, profile: TargetProfile | None) -> int:
        """Give the target's threads, where 0 means as many as the device has cores."""
        if profile is None:
            return 1
        return profile.num_threads or self.facts.num_cores or 1


@contextmanager
def open_rig(
    address: str,
    *,
    connect: ConnectOptions,
    root: str | None,
    profile: TargetProfile | None,
    cache: Cache,
    lock: LockOptions,
    on_step: StepCallback,
    on_transfer: TransferCallback | None = None,
    runner: RunnerChoice = RunnerChoice.AUTO,
    cargo: Cargo | None = None,
    android: AndroidRuntime | None = None,
) -> Iterator[Rig]:
    """Connect to a device, find what stands in the way, and install the runtime it lacks.

    From then on the device is held, so that no other push or benchmark crosses this one. What is
    to be deployed is looked at beforehand where it is known.

    Raises:
        LockedError: another host holds the device for longer than is waited.
        SignatureError: the device's own list of signers does not let the bundle in.
        DeviceError: as `open_device`, `survey`, `raise_errors` and `provision`.
    """
    on_step(f"connecting to {address}")
    with open_device(address, options=connect) as device:
        folder = resolve_root(device, root or default_root(profile))
        facts, premises = survey(device, folder)
        if android is not None:
            check_android(facts, android)
        found = [
            *diagnose(
                facts,
                premises,
                profile=profile,
                cargo=cargo,
                runner=runner,
                has_runtime=android is not None,
            ),
            *(_judge_python(device, facts, premises, runner) if android is None else ()),
            *(_judge_seal(facts, premises, cargo) if cargo is not None else ()),
        ]
        raise_errors(found, device=device.name)  # nothing is written on a device that will not do
        with hold_device(device, root=folder, options=lock) as held:
            on_step(f"checking the runtime on {device.name}")
            engine = provision(
                held,
                facts,
                root=folder,
                cache=cache,
                on_progress=on_step,
                on_transfer=on_transfer,
                runner=runner,
                android=android,
            )
            yield Rig(
                device=held,
                facts=facts,
                root=folder,
                engine=engine,
                warnings=tuple(each.message for each in found if each.severity is Severity.WARNING),
                fence=held.fence,
                choice=runner,
                has_runtime=android is not None,
                signers=premises.signers,
            )


def _judge_python(
    device: Device, facts: DeviceFacts, premises: Premises, runner: RunnerChoice
) -> Iterator[Finding]:
    """Ask a Python for its standard library before a runtime is sent to it.

    One that is installed was imported there, and shows at once whether it still is.
    """
    runtime = find_prospect(facts, runner=runner)
    if runtime is None or runtime.is_native or facts.python is None:
        return
    if runtime.folder_name not in premises.runtimes:
        yield from judge_modules(facts.python, find_missing_modules(device, facts.python))


def _judge_seal(facts: DeviceFacts, premises: Premises, cargo: Cargo) -> Iterator[Finding]:
    """Hold a bundle to the device's own list of signers; a bare model is no release."""
    if cargo.seal is not None:
        now = datetime.now(tz=UTC)
        yield from judge_signature(premises.signers, cargo.seal, root=facts.root, now=now)


def check_cargo(rig: Rig, cargo: Cargo) -> None:
    """Look at a device again for what is known only now that it was made ready.

    Raises:
        DeviceError: as `raise_errors`.
    """
    facts, premises = survey(rig.device, rig.root)
    found = diagnose(facts, premises, cargo=cargo, runner=rig.choice, has_runtime=rig.has_runtime)
    raise_errors([*found, *_judge_seal(facts, premises, cargo)], device=rig.device.name)
