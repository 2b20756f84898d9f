"""What stands in the way of a deployment, from what a device said of itself; pure.

`doctor` shows all of it; `push`, `bench` and `deploy` refuse what is an error here before a byte
is sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgepack.device.preflight.finding import Finding, Severity, Topic
from edgepack.device.preflight.fit import judge_fit
from edgepack.device.preflight.premises import Place, Premises
from edgepack.device.preflight.prospect import (
    Prospect,
    find_prospect,
    judge_runtime,
    judge_workload,
)
from edgepack.device.runtime.provision import RunnerChoice
from edgepack.device.survey.facts import DeviceFacts
from edgepack.profile import TargetProfile
from edgepack.signing.seal import Seal
from edgepack.workload import Workload

# Peak of a launch with a model of 0.2 MB on x86-64: Python 3.11, numpy 2.3, ai-edge-litert 2.3.
_PYTHON_MEMORY_BYTES: Final = 57 * 2**20
_NATIVE_MEMORY_BYTES: Final = 8 * 2**20
# Blocks of small files, compiled Python beside the sources (2.4 MB), and what is being verified.
_MARGIN_BYTES: Final = 4 * 2**20
_FEW_FILES: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Cargo:
    """What is to be deployed.

    Attributes:
        name: of the bundle; None for a bare model.
        release: of the bundle, 12 hex digits; None for a bare model.
        num_bytes: of all its files.
        num_files: how many those are.
        workload: what its model asks for.
        seal: of the bundle; None for a bare model, which nobody signs.
    """

    name: str | None
    release: str | None
    num_bytes: int
    num_files: int
    workload: Workload
    seal: Seal | None = None


def diagnose(
    facts: DeviceFacts,
    premises: Premises,
    *,
    profile: TargetProfile | None = None,
    cargo: Cargo | None = None,
    runner: RunnerChoice = RunnerChoice.AUTO,
    has_runtime: bool = False,
) -> tuple[Finding, ...]:
    """Find all that stands in the way of a deployment.

    Args:
        facts: what the device is.
        premises: what a deployment finds there.
        profile: what the device must be; None takes any.
        cargo: what is to be deployed; None looks at the device alone.
        runner: whose runner shall run it.
        has_runtime: whether the user brings a runtime, of which nothing is known here.
    """
    runtime = None if has_runtime else find_prospect(facts, runner=runner)
    return (
        *(judge_fit(profile, facts) if profile is not None else ()),
        *(() if has_runtime else judge_runtime(facts, runner)),
        *(
            judge_workload(runtime, cargo.workload)
            if runtime is not None and cargo is not None
            else ()
        ),
        *_judge_root(facts, premises),
        *_judge_room(facts, premises, runtime, cargo),
        *_judge_tools(premises),
        *_judge_memory(facts, cargo),
    )


def _judge_root(facts: DeviceFacts, premises: Premises) -> Iterator[Finding]:
    place = premises.root
    if place.is_writable is False and place.refusal != "No space left on device":
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.DEPLOY_ROOT,
            expected=f"to write below {facts.root}",
            found=f"{place.folder} refuses it: {place.refusal or 'no reason given'}{_where(place)}",
            fix=_WRITE_FIXES.get(place.refusal, "Give a `--root` that this login may write to."),
        )
    is_noexec = place.mount is not None and "noexec" in place.mount.options
    if place.mount is not None and is_noexec and not place.can_execute:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.DEPLOY_ROOT,
            expected=f"programs and libraries to be loaded from {facts.root}",
            found=f"{place.mount.point} is mounted noexec{_where(place)}",
            fix="Give a `--root` on another file system, or remount this one with exec.",
        )
    elif place.can_execute is False:
        yield Finding(
            severity=Severity.WARNING,
            topic=Topic.DEPLOY_ROOT,
            expected=f"programs to run from {facts.root}",
            found=f"one that was put into {place.folder} did not",
            fix="See what forbids it (SELinux, AppArmor), or give another `--root`.",
        )
    if place.can_link is False:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.DEPLOY_ROOT,
            expected=f"symbolic links below {facts.root}, which name the current release",
            found=f"none can be made in {place.folder}{_where(place)}",
            fix="Give a `--root` on a Linux file system such as ext4, not FAT or exFAT.",
        )


_WRITE_FIXES: Final = {
    "Read-only file system": "Remount it writable, or give a `--root` on a file system that is.",
    "Permission denied": "Give a `--root` that this login may write to, or change the owner on the "
    "device.",
    "Disk quota exceeded": "Free some room of this login's, or give another `--root`.",
}


def _where(place: Place) -> str:
    mount = place.mount
    return "" if mount is None else f" ({mount.source} at {mount.point}, {mount.kind})"


def needed_bytes(premises: Premises, runtime: Prospect | None, cargo: Cargo | None) -> int:
    """Give the room that is surely needed at the deploy root.

    Files that an earlier release of the bundle may share count nothing, nor does what a cut
    transfer left behind.
    """
    needed = 0
    if runtime is not None and runtime.folder_name not in premises.runtimes:
        needed += runtime.disk_bytes
    if cargo is not None and cargo.name not in {name for name, _ in premises.releases}:
        needed += cargo.num_bytes
    return max(0, needed - premises.staged_bytes) + (_MARGIN_BYTES if needed else 0)


def _judge_room(
    facts: DeviceFacts, premises: Premises, runtime: Prospect | None, cargo: Cargo | None
) -> Iterator[Finding]:
    needed, free = needed_bytes(premises, runtime, cargo), facts.free_bytes
    if free is not None and needed > free:
        parts = []
        if runtime is not None and runtime.folder_name not in premises.runtimes:
            parts.append(runtime.label)
        if cargo is not None:
            parts.append(cargo.name or "the model")
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.DISK,
            expected=f"{needed / 2**20:.1f} MiB of room at {facts.root} for {' and '.join(parts)}",
            found=f"{free / 2**20:.1f} MiB are free{_where(premises.root)}",
            fix=_room_fix(premises),
        )
    files = premises.root.free_files
    if needed and files is not None and files < _FEW_FILES:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.DISK,
            expected=f"room for {_FEW_FILES} files or more at {facts.root}",
            found=f"the file system takes {files} more{_where(premises.root)}",
            fix="Remove small files on the device, or give another `--root`.",
        )


def _room_fix(premises: Premises) -> str:
    names = [name for name, _ in premises.releases]
    if len(names) == len(set(names)) and not premises.runtimes[1:]:  # none that could go
        return "Free some room on the device, or give another `--root`."
    return (
        "Remove old releases and runtimes with `edgepack releases DEVICE --prune` (`--keep 1` "
        "leaves the current ones only), free some room on the device otherwise, or give another "
        "`--root`."
    )


def _judge_tools(premises: Premises) -> Iterator[Finding]:
    if premises.missing_tools:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.TOOLS,
            expected="the programs of a POSIX system",
            found=f"there is no {', '.join(premises.missing_tools)}",
            fix="Install coreutils, findutils and grep on the device, or a BusyBox with them.",
        )
    if premises.hash_tool is None:
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.TOOLS,
            expected="a program that computes sha256",
            found="there is none, so each file is read back over the link and checked here",
            fix="Installing coreutils, BusyBox or openssl on the device makes pushes quicker.",
        )


def _judge_memory(facts: DeviceFacts, cargo: Cargo | None) -> Iterator[Finding]:
    if cargo is None or facts.ram_bytes is None:
        return
    least = cargo.workload.model_bytes + cargo.workload.activation_bytes
    if least > facts.ram_bytes:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.MEMORY,
            expected=f"at least {least / 2**20:.0f} MiB of RAM: {_describe_memory(cargo)}",
            found=f"the device has {facts.ram_bytes / 2**20:.0f} MiB in all",
            fix="Quantize the model further, shrink its inputs, or use a device with more RAM.",
        )


def _describe_memory(cargo: Cargo) -> str:
    workload = cargo.workload
    return (
        f"{workload.model_bytes / 2**20:.1f} MiB of weights and "
        f"{workload.activation_bytes / 2**20:.1f} MiB between layers"
    )


def judge_available_memory(
    cargo: Cargo, runtime: Prospect, available_bytes: int | None
) -> Iterator[Finding]:
    """Warn of a model that needs more than is free just now."""
    workload = cargo.workload
    own_bytes = _NATIVE_MEMORY_BYTES if runtime.is_native else _PYTHON_MEMORY_BYTES
    needed = own_bytes + workload.model_bytes + workload.activation_bytes
    if available_bytes is not None and needed > available_bytes:
        yield Finding(
            severity=Severity.WARNING,
            topic=Topic.MEMORY,
            expected=f"{needed / 2**20:.0f} MiB of free memory: {_describe_memory(cargo)}, "
            f"{own_bytes / 2**20:.0f} MiB of the runtime",
            found=f"{available_bytes / 2**20:.0f} MiB are available",
            fix="Stop other programs on the device, or quantize the model further.",
        )
