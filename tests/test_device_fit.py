"""Does a device fit the target that a bundle is made for, and how it differs."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.catalog import find_profile
from edgepack.device.preflight.finding import Finding, Severity
from edgepack.device.preflight.fit import judge_fit
from edgepack.device.survey.facts import DeviceFacts, read_facts
from edgepack.device.wire.local import LocalDevice
from edgepack.profile import TargetProfile

_PI_FEATURES = ("asimd", "cpuid", "crc32", "evtstrm", "fp")


@pytest.fixture(scope="module")
def pi(tmp_path_factory: pytest.TempPathFactory) -> DeviceFacts:
    """Facts of a Raspberry Pi 4: this machine's with what tells it from one."""
    facts = read_facts(LocalDevice(), str(tmp_path_factory.mktemp("rig")))
    return replace(
        facts,
        system="Linux",
        arch="aarch64",
        cpu="Cortex-A72",
        cpu_features=_PI_FEATURES,
        num_cores=4,
        ram_bytes=3_900 * 2**20,
    )


def _profile(name: str) -> TargetProfile:
    return find_profile(name, user_directory=None)[0]


def errors(found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(each for each in found if each.severity is Severity.ERROR)


def test_a_device_that_fits(pi: DeviceFacts) -> None:
    assert judge_fit(_profile("raspberry-pi-4"), pi) == ()


def test_all_faults_are_named_together(pi: DeviceFacts) -> None:
    wrong = replace(pi, arch="x86_64", cpu_features=())
    (error,) = errors(judge_fit(_profile("raspberry-pi-4"), wrong))
    assert error.message == (
        "the device is no raspberry-pi-4: architecture x86_64, but the target's is aarch64; "
        "no CPU feature asimd, which the target requires"
    )


def test_another_system_is_refused(pi: DeviceFacts) -> None:
    (error,) = errors(judge_fit(_profile("laptop-apple-silicon"), pi))
    assert error.found == "system Linux, but the target's is Darwin"


def test_android_is_served_through_the_linux_inside_it(pi: DeviceFacts) -> None:
    phone = replace(pi, num_cores=8, ram_bytes=8 * 2**30)
    assert judge_fit(_profile("phone-android-arm64"), phone) == ()


def test_a_64_bit_core_has_what_32_bit_targets_require(pi: DeviceFacts) -> None:
    # A 64-bit kernel lists Armv8's names to 32-bit programs too.
    profile = _profile("raspberry-pi-4-32bit")
    needy = replace(profile, hardware=replace(profile.hardware, features=("neon", "vfpv4")))
    assert judge_fit(needy, replace(pi, arch="armv7l")) == ()
    (error,) = errors(judge_fit(needy, replace(pi, arch="armv7l", cpu_features=("vfpv4",))))
    assert error.found == "no CPU feature neon, which the target requires"


def test_less_than_the_target_has_is_warned_of(pi: DeviceFacts) -> None:
    profile = _profile("raspberry-pi-4")
    found = judge_fit(profile, replace(pi, num_cores=2, ram_bytes=512 * 2**20))
    assert {each.severity for each in found} == {Severity.WARNING}
    assert [each.message for each in found] == [
        f"has 512 MiB of RAM, the target {profile.hardware.ram_mib} MiB",
        "has 2 cores, the target 4",
    ]
    assert [(each.expected, each.found) for each in found] == [
        ("1024 MiB of RAM, as raspberry-pi-4 says", "it has 512 MiB"),
        ("4 cores, as raspberry-pi-4 says", "it has 2 online"),
    ]


def test_another_core_of_the_same_kind_is_only_noted(pi: DeviceFacts) -> None:
    (note,) = judge_fit(_profile("raspberry-pi-4"), replace(pi, cpu="Cortex-A76"))
    assert note.severity is Severity.NOTE
    assert (note.expected, note.found) == (
        "the core Cortex-A72, as raspberry-pi-4 says",
        "it has Cortex-A76",
    )


def test_what_the_device_does_not_say_is_no_fault(pi: DeviceFacts) -> None:
    silent = replace(pi, num_cores=None, ram_bytes=None, cpu=None)
    assert judge_fit(_profile("raspberry-pi-4"), silent) == ()


def test_this_machine_says_what_it_is(tmp_path: Path) -> None:
    facts = read_facts(LocalDevice(), str(tmp_path))
    assert facts.root == str(tmp_path)
