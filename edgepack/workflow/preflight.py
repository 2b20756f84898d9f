"""The preflight of a deployment: a device is asked everything that could stand in the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import MODEL_PATH
from edgepack.bundle.sealing import read_seal
from edgepack.device.preflight.conditions import (
    find_missing_modules,
    judge_clock,
    judge_holder,
    judge_measuring,
    judge_modules,
    judge_sftp,
    judge_temporary,
    read_clock,
)
from edgepack.device.preflight.diagnosis import Cargo, diagnose, judge_available_memory
from edgepack.device.preflight.finding import Finding, Severity, Topic
from edgepack.device.preflight.premises import Premises, survey
from edgepack.device.preflight.prospect import Prospect, find_prospect, refused_runtime
from edgepack.device.preflight.signatures import judge_signature
from edgepack.device.runtime.android import AndroidRuntime, check_android
from edgepack.device.runtime.provision import RunnerChoice
from edgepack.device.store.lock import find_holder
from edgepack.device.survey.facts import DeviceFacts
from edgepack.device.survey.state import read_state
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.ssh import SshDevice
from edgepack.device.wire.transport import Device
from edgepack.errors import (
    AuthError,
    ConnectError,
    DeviceError,
    DeviceTimeoutError,
    HostKeyError,
    ProvisionError,
)
from edgepack.model import Model
from edgepack.profile import TargetProfile
from edgepack.workflow.request import StepCallback
from edgepack.workload import read_workload

_SFTP_SECONDS: Final = 10.0
_ORDER: Final = tuple(Severity)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What a preflight found.

    Attributes:
        device: its name.
        facts: what it is; None when it could not be asked.
        runtime: that is or would be installed there; None when none fits.
        is_installed: whether that runtime's folder is there already.
        round_trip_s: of one command; None when it could not be asked.
        findings: errors first.
        examined: what was looked at, in the order of `Topic`.
    """

    device: str
    facts: DeviceFacts | None = None
    runtime: Prospect | None = None
    is_installed: bool = False
    round_trip_s: float | None = None
    findings: tuple[Finding, ...]
    examined: tuple[Topic, ...] = ()

    @property
    def fine(self) -> tuple[Topic, ...]:
        """What was looked at without finding anything."""
        found = {each.topic for each in self.findings}
        return tuple(topic for topic in self.examined if topic not in found)


def weigh_cargo(content: Bundle | Model) -> Cargo:
    """Tell what a bundle or a bare model asks of a device.

    Raises:
        BundleError: the bundle changed since it was opened.
        ModelError: its model cannot be read.
    """
    if isinstance(content, Bundle):
        return Cargo(
            name=content.manifest.name,
            release=content.release,
            num_bytes=sum(record.num_bytes for record in content.files()),
            num_files=len(content.files()),
            workload=read_workload(content.read(MODEL_PATH)),
            seal=read_seal(content),
        )
    return Cargo(
        name=None,
        release=None,
        num_bytes=content.num_bytes,
        num_files=1,
        workload=read_workload(content.data),
    )


def examine(
    address: str,
    *,
    connect: ConnectOptions,
    root: str,
    profile: TargetProfile | None,
    cargo: Cargo | None,
    runner: RunnerChoice,
    on_step: StepCallback,
    android: AndroidRuntime | None = None,
) -> Preflight:
    """Ask a device everything that could stand in the way of a deployment.

    Nothing is installed or left there.

    Args:
        address: as the user wrote it.
        connect: how to connect.
        root: the deploy root; may begin with `~`.
        profile: what the device must be; None takes any.
        cargo: what is to be deployed; None looks at the device alone.
        runner: whose runner shall run it.
        on_step: called with each step in words.
        android: what the user brings for stock Android.

    Raises:
        DeviceError: it cannot be asked; `without_answer` makes a finding of it.
        UsageError: the address, an option or the SSH configuration is not right.
    """
    on_step(f"connecting to {address}")
    with open_device(address, options=connect) as device:
        on_step(f"examining {device.name}")
        return _examine(
            device, root=root, profile=profile, cargo=cargo, runner=runner, android=android
        )


def without_answer(address: str, error: DeviceError) -> Preflight:
    """Give the preflight of a device that could not be asked: why not is what was found."""
    return Preflight(device=address, findings=(_describe_failure(error),))


def _describe_failure(error: DeviceError) -> Finding:
    topic, expected = Topic.SHELL, "a login shell that runs commands"
    if isinstance(error, HostKeyError):
        topic, expected = Topic.HOST_KEY, "a host key that is known"
    elif isinstance(error, AuthError):
        topic, expected = Topic.LOGIN, "a login that is accepted"
    elif isinstance(error, ConnectError):
        topic, expected = Topic.CONNECTION, "a connection"
    elif isinstance(error, DeviceTimeoutError):
        topic, expected = Topic.CONNECTION, "an answer in time"
    return Finding(
        severity=Severity.ERROR,
        topic=topic,
        expected=expected,
        found=error.message,
        fix=error.remedy,
        sentence=error.message,
    )


def _examine(
    device: Device,
    *,
    root: str,
    profile: TargetProfile | None,
    cargo: Cargo | None,
    runner: RunnerChoice,
    android: AndroidRuntime | None,
) -> Preflight:
    facts, premises = survey(device, root, is_thorough=True)
    clock, state = read_clock(device), read_state(device)
    runtime = find_prospect(facts, runner=runner) if android is None else None
    examined = set(Topic) - {Topic.SFTP}
    if not isinstance(device, SshDevice):
        examined -= {Topic.HOST_KEY, Topic.LOGIN}
    if profile is None:
        examined.discard(Topic.TARGET)
    if cargo is None:
        examined -= {Topic.OPS, Topic.MEMORY}
    if premises.signers is None or cargo is None or cargo.seal is None:
        examined.discard(Topic.SIGNATURE)
    findings = [
        *diagnose(
            facts,
            premises,
            profile=profile,
            cargo=cargo,
            runner=runner,
            has_runtime=android is not None,
        ),
        *(_judge_android(facts, android) if android is not None else ()),
        *judge_holder(find_holder(device, root=facts.root)),
        *judge_clock(clock),
        *(judge_temporary(premises.temporary) if premises.temporary is not None else ()),
        *judge_measuring(facts, state),
        *_judge_signature(facts, premises, cargo),
    ]
    if cargo is not None and runtime is not None:
        findings += judge_available_memory(cargo, runtime, state.available_bytes)
    if runtime is None or runtime.is_native:
        examined.discard(Topic.PYTHON)
    elif facts.python is not None:
        findings += judge_modules(facts.python, find_missing_modules(device, facts.python))
    if isinstance(device, SshDevice):
        is_offered = device.offers_sftp(timeout_seconds=_SFTP_SECONDS)
        findings += judge_sftp(is_offered=is_offered)
        examined.add(Topic.SFTP)
    return Preflight(
        device=device.name,
        facts=facts,
        runtime=runtime,
        is_installed=_is_installed(runtime, premises),
        round_trip_s=clock.round_trip_s,
        findings=tuple(sorted(findings, key=lambda each: _ORDER.index(each.severity))),
        examined=tuple(topic for topic in Topic if topic in examined),
    )


def _judge_android(facts: DeviceFacts, android: AndroidRuntime) -> Iterator[Finding]:
    """Refuse a device that the runtime the user brings is not for."""
    try:
        check_android(facts, android)
    except ProvisionError as error:
        yield refused_runtime(error)


def _judge_signature(
    facts: DeviceFacts, premises: Premises, cargo: Cargo | None
) -> Iterator[Finding]:
    seal = cargo.seal if cargo is not None else None
    yield from judge_signature(premises.signers, seal, root=facts.root, now=datetime.now(tz=UTC))


def _is_installed(runtime: Prospect | None, premises: Premises) -> bool:
    return runtime is not None and runtime.folder_name in premises.runtimes
