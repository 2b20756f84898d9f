"""Target profiles drafted from devices: valid, the same each time, honest about defaults."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.catalog import find_profile
from edgepack.device.preflight.draft import draft_profile, suggest_id
from edgepack.device.preflight.finding import Severity
from edgepack.device.preflight.fit import judge_fit
from edgepack.device.survey.facts import DeviceFacts, read_answer
from edgepack.errors import DeviceError, ProfileError
from edgepack.profile import parse_profile

GOLDEN = Path(__file__).parent / "golden" / "facts"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.txt"))


def golden(name: str) -> DeviceFacts:
    return read_answer((GOLDEN / f"{name}.txt").read_text(), root="/home/pi/.edgepack")


def test_a_raspberry_pi_5() -> None:
    facts = golden("raspberry-pi-5-bookworm")
    assert suggest_id(facts) == "raspberry-pi-5-model-b-rev-1-0"
    _, text = draft_profile(facts, profile_id="mine")
    assert (
        text
        == """# Drafted by `edgepack targets probe`: what is marked "read" is the device's own word,
# what is marked "default" should be looked at. docs/targets.md describes each key.
# read: Debian GNU/Linux 12 (bookworm), glibc 2.36, Python 3.11.2
# runtime: ai-edge-litert 2.3.0
schema = 1
description = "Raspberry Pi 5 Model B Rev 1.0, Debian GNU/Linux 12 (bookworm)"  # read

[hardware]
arch = "aarch64"  # read: of the userland, from the header of its shell
cpu = "Cortex-A76"  # read
# read: those that kernels are chosen by. Each is required of a device; take out what
# others of this kind may lack.
features = ["asimd", "asimdhp", "asimddp"]
num_cores = 4  # read: those online
# read: what the system has of it. Put in that of the smallest model of this kind.
ram_mib = 8052

[quantization]
# default: what is worth trying, best first; `edgepack pack --device` measures it.
schemes = ["int8", "dynamic_range", "float16", "float32"]

[runtime]
# default: as many as cores. With unlike cores fewer may be quicker: measure --threads.
num_threads = 4

[limits]
# default: none. What a variant may cost at most:
# bundle_mib = 16
# peak_memory_mib = 256
# p95_ms = 50

[deploy]
root = "~/.edgepack"  # default: below the home of the login
"""
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_device_fits_what_it_is_drafted_as(name: str, tmp_path: Path) -> None:
    facts = golden(name)
    profile, text = draft_profile(facts, profile_id=suggest_id(facts))
    assert draft_profile(facts, profile_id=suggest_id(facts)) == (profile, text)
    path = tmp_path / f"{profile.id}.toml"
    path.write_text(text, encoding="utf-8")
    assert find_profile(str(path), user_directory=None)[0] == profile
    assert [each for each in judge_fit(profile, facts) if each.severity is not Severity.NOTE] == []


def test_a_32_bit_userland_is_drafted_as_32_bit() -> None:
    facts = golden("raspberry-pi-4-32bit-userland")
    assert facts.python is not None
    facts = replace(facts, python=replace(facts.python, numpy="1.24.2"))
    profile, text = draft_profile(facts, profile_id="mine")
    assert profile.hardware.arch == "armv7l"
    assert profile.hardware.features == ("neon", "vfpv4")
    assert "Python 3.11.2, aarch64 kernel" in text
    # Its runtime answers wrongly there.
    assert profile.schemes == ("int8", "float16", "float32")
    assert "# dynamic_range is left out: tflite-runtime 2.14.0 answers wrongly" in text


def test_what_the_device_does_not_say_is_a_default() -> None:
    facts = replace(golden("raspberry-pi-4-bookworm"), num_cores=None, ram_bytes=None, cpu=None)
    profile, text = draft_profile(facts, profile_id="mine")
    assert (profile.hardware.num_cores, profile.hardware.ram_mib) == (1, 512)
    assert "num_cores = 1  # default: the device does not say" in text
    assert "ram_mib = 512  # default: the device does not say" in text


def test_ids() -> None:
    facts = golden("x86-vm-debian12")
    assert suggest_id(facts) == "amd-epyc-x86-64"
    assert suggest_id(replace(facts, cpu=None)) == "x86-64"
    assert suggest_id(replace(facts, board="東芝", cpu=None)) == "x86-64"


def test_what_no_profile_can_describe() -> None:
    with pytest.raises(DeviceError) as caught:
        draft_profile(replace(golden("x86-vm-debian12"), arch="riscv64"), profile_id="mine")
    assert caught.value.message == (
        "a target profile: expected Linux or macOS on aarch64, armv7l, x86_64, but the device is "
        "Linux riscv64"
    )
    with pytest.raises(ProfileError, match="file name: expected lowercase letters"):
        draft_profile(golden("x86-vm-debian12"), profile_id="My Board")


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_a_devices_words_stay_words(board: str, system: str, cpu: str) -> None:
    text = (GOLDEN / "raspberry-pi-4-bookworm.txt").read_text()
    for old, new in (
        ("Raspberry Pi 4 Model B Rev 1.5", board),
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"', f"PRETTY_NAME={system}"),
        ("@@cpuinfo\n", f"@@cpuinfo\nmodel name : {cpu}\n"),
    ):
        text = text.replace(old, new)
    facts = read_answer(text, root="/r")
    profile, drafted = draft_profile(facts, profile_id=suggest_id(facts))
    assert parse_profile(drafted, profile_id=profile.id) == profile
    assert profile.hardware.arch == "aarch64"
    assert profile.deploy_root == "~/.edgepack"
