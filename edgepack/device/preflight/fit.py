"""How a device differs from the target profile that it is to be; pure."""

from typing import Final

from edgepack.device.preflight.finding import Finding, Severity, Topic
from edgepack.device.survey.facts import DeviceFacts
from edgepack.profile import OperatingSystem, TargetProfile, missing_features

SYSTEMS: Final = {
    OperatingSystem.LINUX: "Linux",
    OperatingSystem.ANDROID: "Linux",
    OperatingSystem.MACOS: "Darwin",
}
"""Kernel families as `uname -s` says. Android is served through a Debian inside it, which says
Linux like any other."""


def judge_fit(profile: TargetProfile, facts: DeviceFacts) -> tuple[Finding, ...]:
    """Compare a device with the target that a bundle is made for.

    Another architecture or system, or a missing CPU feature that is required, is an error. Less
    RAM or fewer cores are warnings. What the device does not say is none.
    """
    return (*_judge_kind(profile, facts), *_judge_size(profile, facts))


def _judge_kind(profile: TargetProfile, facts: DeviceFacts) -> tuple[Finding, ...]:
    faults: list[str] = []
    if facts.arch != profile.hardware.arch:
        faults.append(f"architecture {facts.arch}, but the target's is {profile.hardware.arch}")
    if facts.system != SYSTEMS[profile.os]:
        faults.append(f"system {facts.system}, but the target's is {SYSTEMS[profile.os]}")
    missing = missing_features(profile.hardware.features, facts.cpu_features)
    if missing:
        faults.append(f"no CPU feature {', '.join(missing)}, which the target requires")
    if not faults:
        return ()
    found = "; ".join(faults)
    return (
        Finding(
            severity=Severity.ERROR,
            topic=Topic.TARGET,
            expected=f"a {profile.id}",
            found=found,
            fix="Pack for the target the device is; `edgepack targets list` shows them all, and "
            "`edgepack targets probe DEVICE` writes one.",
            sentence=f"the device is no {profile.id}: {found}",
        ),
    )


def _judge_size(profile: TargetProfile, facts: DeviceFacts) -> tuple[Finding, ...]:
    hardware = profile.hardware
    found: list[Finding] = []

    def add(
        expected: str, there: str, fix: str, sentence: str, severity: Severity = Severity.WARNING
    ) -> None:
        found.append(
            Finding(
                severity=severity,
                topic=Topic.TARGET,
                expected=expected,
                found=there,
                fix=fix,
                sentence=sentence,
            )
        )

    # Firmware and the graphics memory take their part of what the box says.
    least_bytes = hardware.ram_mib * 2**20 * 3 // 4
    if facts.ram_bytes is not None and facts.ram_bytes < least_bytes:
        ram_mib = facts.ram_bytes // 2**20
        add(
            f"{hardware.ram_mib} MiB of RAM, as {profile.id} says",
            f"it has {ram_mib} MiB",
            "Choose the target of the smaller model, or write a profile of this device with "
            "`edgepack targets probe`.",
            f"has {ram_mib} MiB of RAM, the target {hardware.ram_mib} MiB",
        )
    if facts.num_cores is not None and facts.num_cores < hardware.num_cores:
        add(
            f"{hardware.num_cores} cores, as {profile.id} says",
            f"it has {facts.num_cores} online",
            "Bring the other cores online, or measure with --threads "
            f"{max(1, facts.num_cores)} at most.",
            f"has {facts.num_cores} cores, the target {hardware.num_cores}",
        )
    if hardware.cpu and facts.cpu and hardware.cpu != facts.cpu:
        add(
            f"the core {hardware.cpu}, as {profile.id} says",
            f"it has {facts.cpu}",
            "Latencies of one say nothing of the other: choose the target that names this core.",
            f"has the core {facts.cpu}, the target {hardware.cpu}",
            Severity.NOTE,  # a profile names the smallest of its kind
        )
    return tuple(found)
