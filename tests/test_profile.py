"""A profile's file is checked whole, and every fault names its key."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.errors import ProfileError
from edgepack.profile import (
    Architecture,
    BenchmarkDefaults,
    EngineName,
    Hardware,
    Limits,
    OperatingSystem,
    Scheme,
    TargetProfile,
    missing_features,
    parse_profile,
    profile_digest,
    profile_to_json,
    read_profile,
)

MINIMAL = """\
schema = 1
description = "Door camera"
[hardware]
arch = "aarch64"
ram_mib = 1024
[quantization]
schemes = ["int8", "float16"]
"""

words = st.text(min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
bounds = st.none() | st.floats(0.001, 1e9)
profiles = st.builds(
    TargetProfile,
    id=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,62}", fullmatch=True),
    description=words,
    hardware=st.builds(
        Hardware,
        arch=st.sampled_from(Architecture),
        ram_mib=st.integers(1, 10**7),
        cpu=st.text(max_size=9),
        features=st.lists(words, max_size=3).map(tuple),
        num_cores=st.integers(1, 1024),
    ),
    schemes=st.permutations(list(Scheme)).flatmap(
        lambda order: st.integers(1, len(order)).map(lambda count: tuple(order[:count]))
    ),
    os=st.sampled_from(OperatingSystem),
    num_threads=st.integers(0, 1024),
    limits=st.builds(Limits, bundle_mib=bounds, peak_memory_mib=bounds, p95_ms=bounds),
    deploy_root=st.sampled_from(["~/.edgepack", "/opt/edge-pack", "/data/local/tmp/e"]),
    require_signature=st.booleans(),
    benchmark=st.builds(
        BenchmarkDefaults,
        num_launches=st.integers(1, 1000),
        min_runs=st.integers(1, 1000),
        min_seconds=st.floats(0, 3600),
        max_seconds=st.floats(1, 86400),
    ),
)


def message_of(text: str, *, profile_id: str = "door") -> str:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, profile_id=profile_id)
    return caught.value.message


def test_the_least_profile_takes_the_documented_defaults() -> None:
    assert parse_profile(MINIMAL, profile_id="door") == TargetProfile(
        id="door",
        description="Door camera",
        hardware=Hardware(
            arch=Architecture.AARCH64, ram_mib=1024, cpu="", features=(), num_cores=1
        ),
        schemes=(Scheme.INT8, Scheme.FLOAT16),
        os=OperatingSystem.LINUX,
        engines=(EngineName.TFLITE,),
        num_threads=1,
        limits=Limits(bundle_mib=None, peak_memory_mib=None, p95_ms=None),
        deploy_root="~/.edgepack",
        benchmark=BenchmarkDefaults(
            num_launches=10, min_runs=64, min_seconds=1.0, max_seconds=60.0
        ),
    )


@given(profiles)
def test_a_profile_survives_json(profile: TargetProfile) -> None:
    fields = Fields(json.loads(json.dumps(profile_to_json(profile))))
    assert read_profile(fields, profile_id=profile.id) == profile
    assert fields.faults == []


def test_the_digest_is_of_what_is_said_not_of_how() -> None:
    plain = parse_profile(MINIMAL, profile_id="door")
    spelled = parse_profile(
        "# a comment\n" + MINIMAL.replace("1024", "1_024") + "[runtime]\nnum_threads = 1\n",
        profile_id="other-name",
    )
    assert profile_digest(plain) == profile_digest(spelled)
    assert profile_digest(plain) != profile_digest(replace(plain, num_threads=2))


def test_all_faults_come_at_once() -> None:
    text = """\
schema = 2
host = "192.168.0.7"
descripton = "typo"
[hardware]
arch = "arm64"
ram_mib = "4 GB"
num_cores = 0
user = "pi"
[quantization]
schemes = ["int8", "int9", "int8"]
[runtime]
num_threads = true
[limits]
p95_ms = nan
bundle_mib = -1
[deploy]
root = "~/../etc"
[benchmark]
max_seconds = 0
[sounds]
"""
    assert message_of(text) == (
        "target profile 'door': 16 faults\n"
        "  - schema: expected 1, not 2\n"
        "  - description: missing; expected a text\n"
        "  - hardware.arch: unknown value 'arm64'; did you mean 'aarch64'?\n"
        "  - hardware.ram_mib: expected a whole number, not a text ('4 GB')\n"
        "  - hardware.num_cores: expected at least 1, not 0\n"
        "  - hardware.user: a profile describes a kind of device; give addresses and credentials "
        "on the command line or in your SSH configuration\n"
        "  - quantization.schemes[1]: unknown value 'int9'; did you mean 'int8'?\n"
        "  - quantization.schemes[2]: 'int8' stands twice\n"
        "  - runtime.num_threads: expected a whole number, not true or false (True)\n"
        "  - limits.bundle_mib: expected at least 0.001, not -1.0\n"
        "  - limits.p95_ms: expected a finite number, not nan\n"
        "  - deploy.root: expected an absolute path or one below '~/', not '~/../etc'\n"
        "  - benchmark.max_seconds: expected at least 1, not 0.0\n"
        "  - host: a profile describes a kind of device; give addresses and credentials on the "
        "command line or in your SSH configuration\n"
        "  - descripton: unknown key; did you mean 'description'?\n"
        "  - sounds: unknown key; known: benchmark, deploy, description, hardware, limits, os, "
        "quantization, runtime, schema"
    )


def test_what_is_no_toml_says_where() -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile("schema = 1\ndescription = ", profile_id="door")
    assert caught.value.message == (
        "target profile 'door': not valid TOML: Invalid value (at end of document)"
    )
    assert caught.value.remedy == (
        "Mend the line; `edgepack targets show raspberry-pi-4` prints an example."
    )


@pytest.mark.parametrize(
    "root", ["relative", "~", "/", "~root/x", "/a/../b", "/a b", "/a;rm", "", "/a/$(x)", "~/a\n"]
)
def test_a_root_that_could_lead_elsewhere_is_refused(root: str) -> None:
    assert "deploy.root: " in message_of(f"{MINIMAL}[deploy]\nroot = {json.dumps(root)}\n")


@pytest.mark.parametrize("profile_id", ["Pi", "a b", "-a", "", "ä", "a" * 64])
def test_a_file_name_that_is_no_id_is_refused(profile_id: str) -> None:
    assert message_of(MINIMAL, profile_id=profile_id) == (
        f"target profile {profile_id!r}: file name: expected lowercase letters, digits, '.' and "
        f"'-', not {profile_id!r}"
    )


def test_no_schemes_and_no_engines_are_refused() -> None:
    empty = MINIMAL.replace('["int8", "float16"]', "[]") + "[runtime]\nengines = []\n"
    assert message_of(empty) == (
        "target profile 'door': 2 faults\n"
        "  - quantization.schemes: expected at least one scheme\n"
        "  - runtime.engines: expected at least one engine"
    )


@given(st.text(max_size=60))
def test_any_text_is_a_profile_error(text: str) -> None:
    with pytest.raises(ProfileError):
        parse_profile(text, profile_id="door")


@given(st.data())
def test_any_value_of_another_kind_is_noted(data: st.DataObject) -> None:
    table: Any = profile_to_json(parse_profile(MINIMAL, profile_id="door"))
    key = data.draw(st.sampled_from(sorted(table)))
    place = table
    if isinstance(table[key], dict) and table[key] and data.draw(st.booleans()):
        place, key = table[key], data.draw(st.sampled_from(sorted(table[key])))
    place[key] = data.draw(st.sampled_from([None, [None], {"x": 1}, -5, b"x", object()]))
    fields = Fields(table)
    read_profile(fields, profile_id="door")
    assert fields.faults


def test_armv8_implies_what_a_32_bit_system_asks_for() -> None:
    raspberry_pi_4 = ("fp", "asimd", "evtstrm", "crc32", "cpuid")
    assert missing_features(("neon", "vfpv4"), raspberry_pi_4) == ()
    assert missing_features(("asimd", "asimddp", "fphp"), raspberry_pi_4) == ("asimddp", "fphp")
    tegra_2 = ("swp", "half", "thumb", "fastmult", "vfp", "edsp", "vfpv3", "vfpv3d16", "tls")
    assert missing_features(("neon", "vfpv4"), tegra_2) == ("neon", "vfpv4")
    assert missing_features((), ()) == ()
