"""Profiles are found by path, among the user's own and among the built-in ones, in that order."""

import re
import tomllib
from pathlib import Path

import pytest

from edgepack.catalog import (
    ListedProfile,
    OriginKind,
    built_in_text,
    find_profile,
    list_profiles,
    user_profile_directory,
)
from edgepack.errors import ProfileError
from edgepack.profile import Scheme, TargetProfile, parse_profile

BUILT_IN = (
    "generic-arm64",
    "generic-armv7",
    "laptop-apple-silicon",
    "laptop-x86-64",
    "phone-android-arm64",
    "phone-linux-arm64",
    "raspberry-pi-3",
    "raspberry-pi-4",
    "raspberry-pi-4-32bit",
    "raspberry-pi-5",
    "raspberry-pi-zero-2w",
    "tablet-android-arm64",
)
MINIMAL = """\
schema = 1
description = "Door camera"
[hardware]
arch = "aarch64"
ram_mib = 1024
[quantization]
schemes = ["float16"]
"""


def built_in(name: str) -> TargetProfile:
    return find_profile(name, user_directory=None)[0]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The user's directory with a profile of their own in it."""
    directory = tmp_path / "targets"
    directory.mkdir()
    (directory / "door-camera.toml").write_text(MINIMAL)
    return directory


def test_the_built_in_profiles_are_these() -> None:
    listed = list_profiles(user_directory=None)
    assert tuple(each.id for each in listed) == BUILT_IN
    assert all(each.profile is not None and not each.fault for each in listed)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_profile_names_its_source_and_tries_float_last(name: str) -> None:
    assert "Source: " in built_in_text(name).split("schema = 1")[0]
    schemes = built_in(name).schemes
    assert schemes[0] is Scheme.INT8
    assert schemes[-1] is Scheme.FLOAT32
    # Measured 45 times slower than int8, so never built unasked.
    assert Scheme.INT16X8 not in schemes


def test_dot_product_is_required_where_the_core_has_it() -> None:
    # Cortex-A53 and A72 are Armv8.0; the A76 is Armv8.2 with FEAT_DotProd (Arm TRMs).
    with_dot = {name for name in BUILT_IN if "asimddp" in built_in(name).hardware.features}
    assert with_dot == {"raspberry-pi-5"}


def test_the_documented_table_is_what_the_files_say(repository: Path) -> None:
    text = (repository / "docs" / "targets.md").read_text()
    table = text.split("## Built in")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", table, flags=re.MULTILINE)
    expected = []
    for each in list_profiles(user_directory=None):
        assert each.profile is not None
        hardware = each.profile.hardware
        cells = (
            hardware.arch.value,
            hardware.cpu or "various",
            str(hardware.num_cores),
            str(hardware.ram_mib),
            ", ".join(hardware.features) or "none",
        )
        expected.append((each.id, " | ".join(cells)))
    assert documented == expected


def test_the_documented_keys_are_those_the_reader_knows(repository: Path) -> None:
    text = (repository / "docs" / "targets.md").read_text()
    table = text.split("## Every key")[1]
    documented = set(re.findall(r"^\| `([a-z0-9_.]+)` \| ", table, flags=re.MULTILINE))
    known: set[str] = set()
    for name in ("", "hardware", "quantization", "runtime", "limits", "deploy", "benchmark"):
        wrong = "zzzzzz = 1"
        section = f"[{name}]\n{wrong}" if name else wrong
        with pytest.raises(ProfileError) as caught:
            parse_profile(section, profile_id="x")
        (keys,) = re.findall(r"zzzzzz: unknown key; known: (.*)", caught.value.message)
        known |= {f"{name}.{key}".lstrip(".") for key in keys.split(", ")}
    assert documented == known - {
        *("hardware", "quantization", "runtime", "limits", "deploy", "benchmark"),
    }


def test_the_documented_example_is_a_profile(repository: Path) -> None:
    text = (repository / "docs" / "targets.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    profile = parse_profile(example, profile_id="door-camera")
    assert profile.schemes == (Scheme.INT8, Scheme.FLOAT16)


def test_a_profile_of_the_users_own_is_found_before_the_built_in_one(own: Path) -> None:
    profile, origin = find_profile("door-camera", user_directory=own)
    assert profile.id == "door-camera"
    assert origin.kind is OriginKind.USER
    assert origin.path == own / "door-camera.toml"
    assert origin.text == MINIMAL
    assert not origin.shadows_built_in
    (own / "raspberry-pi-4.toml").write_text(MINIMAL)
    profile, origin = find_profile("raspberry-pi-4", user_directory=own)
    assert profile.description == "Door camera"
    assert origin.shadows_built_in
    _, origin = find_profile("raspberry-pi-4", user_directory=None)
    assert (origin.kind, origin.path) == (OriginKind.BUILT_IN, None)
    assert tomllib.loads(origin.text)["hardware"]["cpu"] == "Cortex-A72"


def test_a_path_is_read_whatever_lies_elsewhere(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raspberry-pi-4.toml").write_text(MINIMAL)
    for given in ("raspberry-pi-4.toml", "./raspberry-pi-4.toml", str(own / "door-camera.toml")):
        profile, origin = find_profile(given, user_directory=own)
        assert profile.description == "Door camera"
        assert origin.kind is OriginKind.PATH
        assert not origin.shadows_built_in


def test_the_list_holds_all_and_the_faults_of_the_users_files(own: Path) -> None:
    (own / "raspberry-pi-5.toml").write_text(MINIMAL)
    (own / "broken.toml").write_text("schema = ")
    (own / "notes.txt").write_text("not a profile")
    listed = {each.id: each for each in list_profiles(user_directory=own)}
    assert set(listed) == {*BUILT_IN, "door-camera", "broken"}
    assert listed["raspberry-pi-5"] == ListedProfile(
        id="raspberry-pi-5",
        profile=parse_profile(MINIMAL, profile_id="raspberry-pi-5"),
        kind=OriginKind.USER,
        path=own / "raspberry-pi-5.toml",
        shadows_built_in=True,
    )
    assert listed["broken"].profile is None
    assert listed["broken"].fault.startswith("target profile 'broken': not valid TOML: ")


def test_an_unknown_target_names_the_nearest(own: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile("rasberry-pi4", user_directory=own)
    assert caught.value.message == "unknown target 'rasberry-pi4'; did you mean 'raspberry-pi-4'?"
    assert caught.value.remedy == (
        "`edgepack targets list` shows the known ones; a path to a .toml file works too."
    )
    with pytest.raises(ProfileError, match="did you mean 'door-camera'"):
        find_profile("dor-camera", user_directory=own)


@pytest.mark.parametrize("name", ["", "..", "qqqq", "__init__", "raspberry-pi-4\n", "a" * 5000])
def test_an_odd_name_is_merely_unknown(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"^unknown target "):
        find_profile(name, user_directory=tmp_path / "none")


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile(f"{tmp_path}/none.toml", user_directory=None)
    assert caught.value.message == (
        f"target profile {tmp_path}/none.toml: cannot be read: No such file or directory"
    )
    (tmp_path / "latin.toml").write_bytes(b"description = 'gr\xf6sser'")
    with pytest.raises(ProfileError) as caught:
        find_profile(f"{tmp_path}/latin.toml", user_directory=None)
    assert caught.value.message == (
        f"target profile {tmp_path}/latin.toml: expected UTF-8 text, but byte 17 is not"
    )
    (tmp_path / "large.toml").write_text("#" * 70_000)
    with pytest.raises(ProfileError, match="expected at most 65536 bytes"):
        find_profile(f"{tmp_path}/large.toml", user_directory=None)
    with pytest.raises(ProfileError, match="Is a directory"):
        find_profile(f"{tmp_path}/", user_directory=None)


def test_the_users_directory_follows_the_xdg_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    fallback = Path("/home/ada/.config/edgepack/targets")
    given = user_profile_directory({"XDG_CONFIG_HOME": str(tmp_path)})
    assert given == tmp_path / "edgepack" / "targets"
    assert user_profile_directory({}) == fallback
    assert user_profile_directory({"XDG_CONFIG_HOME": ""}) == fallback
    assert user_profile_directory({"XDG_CONFIG_HOME": "relative"}) == fallback
