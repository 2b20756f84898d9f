"""What stands in the way of a deployment: captured devices, and what is said of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.catalog import find_profile
from edgepack.device.preflight.diagnosis import (
    Cargo,
    diagnose,
    judge_available_memory,
    needed_bytes,
)
from edgepack.device.preflight.finding import Finding, Severity, Topic, raise_errors
from edgepack.device.preflight.premises import Mount, Place, Premises
from edgepack.device.preflight.prospect import find_prospect
from edgepack.device.runtime.provision import RunnerChoice
from edgepack.device.survey.facts import DeviceFacts, read_answer
from edgepack.errors import DeployError, DeviceError, ProvisionError
from edgepack.workload import Workload, read_workload

GOLDEN = Path(__file__).parent / "golden" / "facts"
DATA = Path(__file__).parent / "data"
_EXT4 = Mount(point="/", source="/dev/mmcblk0p2", kind="ext4", options=("rw", "noatime"))
_PLACE = Place(
    folder="/home/pi",
    is_writable=True,
    can_execute=True,
    can_link=True,
    free_bytes=20 * 2**30,
    free_files=100_000,
    mount=_EXT4,
)
READY = Premises(
    user_id=1000,
    missing_tools=(),
    hash_tool="sha256sum",
    root=_PLACE,
    temporary=_PLACE,
    staged_bytes=0,
    runtimes=(),
    releases=(),
)
CARGO = Cargo(
    name="digits",
    release="0123456789ab",
    num_bytes=200_000,
    num_files=8,
    workload=read_workload((DATA / "digits.tflite").read_bytes()),
)
_MIB = 2**20


def golden(name: str) -> DeviceFacts:
    text = (GOLDEN / f"{name}.txt").read_text()
    return read_answer(text, root="/home/pi/.edgepack")


def only(found: tuple[Finding, ...], topic: Topic) -> Finding:
    (finding,) = [each for each in found if each.topic is topic]
    return finding


def test_a_device_that_is_ready() -> None:
    profile = find_profile("raspberry-pi-4", user_directory=None)[0]
    facts = golden("raspberry-pi-4-bookworm")
    assert diagnose(facts, READY, profile=profile, cargo=CARGO) == ()


def test_a_device_of_another_kind() -> None:
    profile = find_profile("raspberry-pi-5", user_directory=None)[0]
    found = diagnose(golden("raspberry-pi-4-bookworm"), READY, profile=profile)
    error = only(tuple(each for each in found if each.severity is Severity.ERROR), Topic.TARGET)
    assert error.found == "no CPU feature asimddp, asimdhp, fphp, which the target requires"


def test_musl_gets_a_clear_verdict() -> None:
    (error,) = diagnose(golden("alpine-busybox-without-python"), READY)
    assert (error.severity, error.topic) == (Severity.ERROR, Topic.RUNTIME)
    assert error.message == "every runtime needs glibc, but Alpine Linux v3.19 has musl"
    assert error.fix == "Run a system with glibc there, such as Debian or Raspberry Pi OS."


@pytest.mark.parametrize("runner", list(RunnerChoice))
def test_without_a_c_library_nothing_is_served(runner: RunnerChoice) -> None:
    facts = replace(golden("raspberry-pi-4-bookworm"), libc=None, libc_version=None)
    (error,) = diagnose(facts, READY, runner=runner)
    assert (error.severity, error.topic) == (Severity.ERROR, Topic.RUNTIME)
    assert error.message == (
        "every runtime needs glibc, but Debian GNU/Linux 12 (bookworm) has no C library: there is "
        "no /lib/ld-linux*.so.*, so nothing but static programs is started"
    )


@pytest.mark.parametrize(
    ("version", "found"), [(None, "the device has one"), ("<2.33", "one older than 2.33")]
)
def test_a_c_library_of_unknown_version_is_a_warning(version: str | None, found: str) -> None:
    facts = replace(golden("debian-11-bullseye"), libc_version=version)
    (warning,) = diagnose(facts, READY)
    assert (warning.severity, warning.topic) == (Severity.WARNING, Topic.RUNTIME)
    assert warning.expected == "glibc 2.27 or newer, which tflite-runtime 2.14.0 needs"
    assert found in warning.found


def test_a_32_bit_userland_on_a_64_bit_kernel_is_noted() -> None:
    facts = golden("raspberry-pi-4-32bit-userland")
    assert facts.python is not None
    facts = replace(facts, python=replace(facts.python, numpy="1.24.2"))
    note = only(diagnose(facts, READY)[:1], Topic.RUNTIME)
    assert note.severity is Severity.NOTE
    assert note.found == "the userland is 32-bit under a 64-bit kernel"
    assert find_prospect(facts) is not None


def test_a_32_bit_core_without_neon_is_refused() -> None:
    facts = golden("raspberry-pi-4-32bit-userland")
    assert facts.python is not None
    facts = replace(
        facts, cpu_features=("half", "vfp"), python=replace(facts.python, numpy="1.24.2")
    )
    error = diagnose(facts, READY)[0]
    assert error.severity is Severity.ERROR
    assert error.expected == (
        "the CPU features neon and vfpv4, which 32-bit runtimes are compiled for"
    )
    assert error.found == "the CPU has no neon and no vfpv4"


def test_without_python_the_native_runner_serves() -> None:
    facts = replace(golden("raspberry-pi-4-bookworm"), python=None)
    (note,) = diagnose(facts, READY)
    assert (note.severity, note.topic) == (Severity.NOTE, Topic.PYTHON)
    assert note.found == (
        "the runtime needs Python 3.9 to 3.14, but Debian GNU/Linux 12 (bookworm) has no python3"
    )
    assert note.fix.startswith("The native runner measures there with tensorflow-lite-c 2.17.1.")
    (error,) = diagnose(facts, READY, runner=RunnerChoice.PYTHON)
    assert (error.severity, error.topic) == (Severity.ERROR, Topic.RUNTIME)


def test_ops_that_the_devices_runtime_does_not_load() -> None:
    facts = golden("debian-11-bullseye")
    workload = read_workload((DATA / "kinds" / "dynamic_range.tflite").read_bytes())
    error = only(diagnose(facts, READY, cargo=replace(CARGO, workload=workload)), Topic.OPS)
    assert error.severity is Severity.ERROR
    assert error.message == (
        "ops: expected the op FULLY_CONNECTED at version 12, but tflite-runtime 2.14.0 loads up "
        "to version 10"
    )
    newer = golden("raspberry-pi-4-bookworm")
    assert diagnose(newer, READY, cargo=replace(CARGO, workload=workload)) == ()


@pytest.mark.parametrize(
    ("place", "message", "fix"),
    [
        (
            replace(_PLACE, is_writable=False, refusal="Read-only file system"),
            (
                "deploy root: expected to write below /home/pi/.edgepack, but /home/pi refuses it: "
                "Read-only file system (/dev/mmcblk0p2 at /, ext4)"
            ),
            "Remount it writable, or give a `--root` on a file system that is.",
        ),
        (
            replace(_PLACE, is_writable=False, refusal="Permission denied", mount=None),
            (
                "deploy root: expected to write below /home/pi/.edgepack, but /home/pi refuses it: "
                "Permission denied"
            ),
            "Give a `--root` that this login may write to, or change the owner on the device.",
        ),
        (
            replace(
                _PLACE,
                can_execute=False,
                mount=replace(_EXT4, point="/home", options=("rw", "noexec")),
            ),
            (
                "deploy root: expected programs and libraries to be loaded from "
                "/home/pi/.edgepack, but /home is mounted noexec (/dev/mmcblk0p2 at /home, ext4)"
            ),
            "Give a `--root` on another file system, or remount this one with exec.",
        ),
        (
            replace(_PLACE, can_link=False, mount=replace(_EXT4, kind="vfat")),
            (
                "deploy root: expected symbolic links below /home/pi/.edgepack, which name the "
                "current release, but none can be made in /home/pi (/dev/mmcblk0p2 at /, vfat)"
            ),
            "Give a `--root` on a Linux file system such as ext4, not FAT or exFAT.",
        ),
        (
            replace(_PLACE, free_files=7),
            (
                "disk: expected room for 64 files or more at /home/pi/.edgepack, but the file "
                "system takes 7 more (/dev/mmcblk0p2 at /, ext4)"
            ),
            "Remove small files on the device, or give another `--root`.",
        ),
    ],
)
def test_a_deploy_root_that_will_not_do(place: Place, message: str, fix: str) -> None:
    facts = golden("raspberry-pi-4-bookworm")
    (error,) = diagnose(facts, replace(READY, root=place), cargo=CARGO)
    assert (error.severity, error.message, error.fix) == (Severity.ERROR, message, fix)


def test_a_program_that_does_not_run_for_reasons_unknown_is_a_warning() -> None:
    facts = golden("raspberry-pi-4-bookworm")
    (warning,) = diagnose(facts, replace(READY, root=replace(_PLACE, can_execute=False)))
    assert (warning.severity, warning.found) == (
        Severity.WARNING,
        "one that was put into /home/pi did not",
    )
    # What ran there does run, whatever the list of mounts says.
    odd = replace(_PLACE, mount=replace(_EXT4, options=("noexec",)))
    assert diagnose(facts, replace(READY, root=odd)) == ()


def test_room_is_judged_by_what_is_surely_sent() -> None:
    facts = golden("raspberry-pi-4-bookworm")
    runtime = find_prospect(facts)
    assert runtime is not None
    both = needed_bytes(READY, runtime, CARGO)
    assert both == runtime.disk_bytes + CARGO.num_bytes + 4 * _MIB
    assert 60 * _MIB < both < 80 * _MIB
    installed = replace(READY, runtimes=(runtime.folder_name,))
    assert needed_bytes(installed, runtime, CARGO) == CARGO.num_bytes + 4 * _MIB
    # Files of another release of the same bundle may be linked.
    earlier = replace(installed, releases=(("digits", "ba9876543210"),))
    assert needed_bytes(earlier, runtime, CARGO) == 0
    # A transfer that was cut goes on, or makes room.
    cut = replace(READY, staged_bytes=20 * _MIB)
    assert needed_bytes(cut, runtime, CARGO) == both - 20 * _MIB

    tight = replace(facts, free_bytes=both - 1)
    error = only(diagnose(tight, READY, cargo=CARGO), Topic.DISK)
    assert error.severity is Severity.ERROR
    assert error.expected == (
        f"{both / _MIB:.1f} MiB of room at /home/pi/.edgepack for ai-edge-litert 2.3.0 and digits"
    )
    assert error.found == f"{(both - 1) / _MIB:.1f} MiB are free (/dev/mmcblk0p2 at /, ext4)"
    assert error.fix == "Free some room on the device, or give another `--root`."
    assert diagnose(tight, installed, cargo=CARGO) == ()
    other = replace(READY, releases=(("other", "0123456789ab"), ("other", "ba9876543210")))
    for surplus in (other, replace(READY, runtimes=("a-1.0-cp311-0", "b-1.0-cp311-0"))):
        error = only(diagnose(tight, surplus, cargo=CARGO), Topic.DISK)
        assert error.fix == (
            "Remove old releases and runtimes with `edgepack releases DEVICE --prune` (`--keep 1` "
            "leaves the current ones only), free some room on the device otherwise, or give "
            "another `--root`."
        )
    assert diagnose(replace(facts, free_bytes=None), READY, cargo=CARGO) == ()


def test_programs_that_are_missing() -> None:
    facts = golden("raspberry-pi-4-bookworm")
    found = diagnose(facts, replace(READY, missing_tools=("find", "readlink"), hash_tool=None))
    error, note = found
    assert error.message == (
        "tools: expected the programs of a POSIX system, but there is no find, readlink"
    )
    assert (error.severity, note.severity) == (Severity.ERROR, Severity.NOTE)
    assert note.found == "there is none, so each file is read back over the link and checked here"


def test_memory() -> None:
    facts = replace(golden("raspberry-pi-zero-2w-bookworm"), ram_bytes=100 * _MIB)
    workload = Workload(ops=(), model_bytes=60 * _MIB, activation_bytes=60 * _MIB)
    cargo = replace(CARGO, workload=workload)
    error = only(diagnose(facts, READY, cargo=cargo), Topic.MEMORY)
    assert error.message == (
        "memory: expected at least 120 MiB of RAM: 60.0 MiB of weights and 60.0 MiB between "
        "layers, but the device has 100 MiB in all"
    )
    roomy = replace(facts, ram_bytes=400 * _MIB)
    assert diagnose(roomy, READY, cargo=cargo) == ()
    runtime = find_prospect(roomy)
    assert runtime is not None
    (warning,) = judge_available_memory(cargo, runtime, 150 * _MIB)
    assert warning.severity is Severity.WARNING
    assert warning.expected == (
        "177 MiB of free memory: 60.0 MiB of weights and 60.0 MiB between layers, 57 MiB of the "
        "runtime"
    )
    assert warning.found == "150 MiB are available"
    assert list(judge_available_memory(cargo, runtime, 180 * _MIB)) == []
    assert list(judge_available_memory(cargo, runtime, None)) == []


def test_all_that_stands_in_the_way_is_told_together() -> None:
    profile = find_profile("raspberry-pi-4", user_directory=None)[0]
    facts = replace(golden("laptop-ubuntu-22.04"), free_bytes=5 * _MIB, root="/r")
    mount = replace(_EXT4, options=("rw", "noexec"))
    noexec = replace(_PLACE, can_execute=False, mount=mount)
    found = diagnose(facts, replace(READY, root=noexec), profile=profile, cargo=CARGO)
    with pytest.raises(DeviceError) as caught:
        raise_errors(found, device="local:")
    assert caught.value.message == (
        "local cannot be deployed to: 3 faults\n"
        "  - the device is no raspberry-pi-4: architecture x86_64, but the target's is aarch64; "
        "no CPU feature asimd, which the target requires\n"
        "  - deploy root: expected programs and libraries to be loaded from /r, but / is mounted "
        "noexec (/dev/mmcblk0p2 at /, ext4)\n"
        "  - disk: expected 66.3 MiB of room at /r for ai-edge-litert 2.3.0 and digits, but 5.0 "
        "MiB are free (/dev/mmcblk0p2 at /, ext4)"
    )
    assert caught.value.remedy.startswith("Pack for the target the device is; ")
    assert caught.value.remedy.endswith("Free some room on the device, or give another `--root`.")


def test_a_single_error_keeps_its_kind() -> None:
    facts = golden("raspberry-pi-4-bookworm")
    with pytest.raises(ProvisionError, match="every runtime needs glibc"):
        raise_errors(diagnose(replace(facts, libc="musl"), READY), device="pi")
    full = replace(READY, root=replace(_PLACE, can_link=False))
    with pytest.raises(DeployError, match="expected symbolic links"):
        raise_errors(diagnose(facts, full), device="pi")
    raise_errors(diagnose(facts, replace(READY, hash_tool=None)), device="pi")
