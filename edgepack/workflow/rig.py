"""A device made ready to measure: connected, described, checked against the target, provisioned."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from edgepack.cache import Cache
from edgepack.device.connect import ConnectOptions, open_device
from edgepack.device.facts import DeviceFacts, read_facts
from edgepack.device.layout import resolve_root
from edgepack.device.lock import NO_FENCE, Fence, LockOptions, hold_device
from edgepack.device.provision import Engine, RunnerChoice, choose_engine, provision
from edgepack.device.staging import TransferCallback
from edgepack.device.transport import Device
from edgepack.errors import DeviceError
from edgepack.profile import OperatingSystem, TargetProfile, missing_features
from edgepack.workflow.request import StepCallback

DEFAULT_ROOT: Final = "~/.edgepack"
# Kernel families as `uname -s` says. Android is served through a Debian inside it, which says
# Linux like any other.
_SYSTEMS: Final = {
    OperatingSystem.LINUX: "Linux",
    OperatingSystem.ANDROID: "Linux",
    OperatingSystem.MACOS: "Darwin",
}


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
    """

    device: Device
    facts: DeviceFacts
    root: str
    engine: Engine
    warnings: tuple[str, ...] = ()
    fence: Fence = NO_FENCE

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
) -> Iterator[Rig]:
    """Connect to a device, check it against the target, and install the runtime it lacks.

    From then on the device is held, so that no other push or benchmark crosses this one.

    Raises:
        LockedError: another host holds the device for longer than is waited.
        DeviceError: as `open_device`, `read_facts`, `check_fit` and `provision`.
    """
    on_step(f"connecting to {address}")
    with open_device(address, options=connect) as device:
        wanted = root or (profile.deploy_root if profile else DEFAULT_ROOT)
        folder = resolve_root(device, wanted)
        facts = read_facts(device, folder)
        warnings = check_fit(profile, facts) if profile is not None else ()
        choose_engine(facts, runner=runner)  # nothing is written on a device that nothing fits
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
            )
            yield Rig(
                device=held,
                facts=facts,
                root=folder,
                engine=engine,
                warnings=warnings,
                fence=held.fence,
            )


def check_fit(profile: TargetProfile, facts: DeviceFacts) -> tuple[str, ...]:
    """Compare a device with the target that a bundle is made for.

    Returns:
        Warnings: less RAM, fewer cores than the profile says.

    Raises:
        DeviceError: another architecture or system, or a required CPU feature is missing.
    """
    faults: list[str] = []
    if facts.arch != profile.hardware.arch:
        faults.append(f"architecture {facts.arch}, but the target's is {profile.hardware.arch}")
    if facts.system != _SYSTEMS[profile.os]:
        faults.append(f"system {facts.system}, but the target's is {_SYSTEMS[profile.os]}")
    missing = missing_features(profile.hardware.features, facts.cpu_features)
    if missing:
        faults.append(f"no CPU feature {', '.join(missing)}, which the target requires")
    if faults:
        raise DeviceError(
            f"the device is no {profile.id}: {'; '.join(faults)}",
            remedy="Pack for the target the device is; `edgepack targets list` shows them all.",
        )
    warnings: list[str] = []
    # Firmware and the graphics memory take their part of what the box says.
    least_bytes = profile.hardware.ram_mib * 2**20 * 3 // 4
    if facts.ram_bytes is not None and facts.ram_bytes < least_bytes:
        ram_mib = facts.ram_bytes // 2**20
        warnings.append(f"has {ram_mib} MiB of RAM, the target {profile.hardware.ram_mib} MiB")
    if facts.num_cores is not None and facts.num_cores < profile.hardware.num_cores:
        warnings.append(f"has {facts.num_cores} cores, the target {profile.hardware.num_cores}")
    return tuple(warnings)
