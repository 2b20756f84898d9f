"""`releases`, `rollback`, and how `push` decides what becomes current and what goes."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.bundle.archive import open_bundle
from edgepack.device.store.deploy import place_files
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.wire.local import LocalDevice
from tests.fixtures.bundle import built_in_profile, digits_golden, write_digits_bundle
from tests.fixtures.commands import RunCommand
from tests.test_commands_bad_input import assert_told


@pytest.fixture
def root(tmp_path: Path, device_root: Path) -> Path:
    """A deploy root of this test's own, with the runtimes that all share."""
    folder = tmp_path / "root"
    folder.mkdir()
    (device_root / "runtimes").mkdir(parents=True, exist_ok=True)
    (folder / "runtimes").symlink_to(device_root / "runtimes")
    return folder


@pytest.fixture
def wrong_bundle(tmp_path: Path) -> Path:
    """A bundle whose golden answers the model does not give."""
    golden = digits_golden()
    path = tmp_path / "wrong.edgepack"
    write_digits_bundle(
        path,
        target=built_in_profile("laptop-x86-64"),
        golden=replace(golden, host=tuple(bytes(len(each)) for each in golden.host)),
    )
    return path


def current(root: Path) -> str:
    return (root / "bundles/digits/current").readlink().name


def test_push_list_and_go_back(
    run: RunCommand, bundle: Path, int8_bundle: Path, root: Path
) -> None:
    older, newer = open_bundle(bundle).release, open_bundle(int8_bundle).release
    for options in ((), ("--prune", "--keep-free", "1GB")):
        ran = run("releases", "local:", "--root", root, *options)
        assert (ran.code, ran.err.endswith("local: no releases\n")) == (0, True)
    first = run("push", bundle, "local:", "--root", root, "--json").json()
    assert (first["previous"], first["health_check"], first["removed"]) == (None, True, [])
    second = run("push", int8_bundle, "local:", "--root", root)
    assert f"checking the answers of {newer} on local:\n" in second.err
    assert f"local: release {newer} is current; before it was {older}\n" in second.err

    listed = run("releases", "local:", "--root", root)
    heading, *rows = listed.out.splitlines()
    assert heading.split() == ["device", "bundle", "release", "placed", "(UTC)", "size"]
    assert re.fullmatch(rf"local:\s+digits\s+{older}\s+previous\s+20\S+ \S+\s+\d+ kB", rows[0])
    assert re.fullmatch(rf"local:\s+digits\s+{newer}\s+current\s+20\S+ \S+\s+\d+ kB", rows[1])

    went = run("rollback", "local:", "--root", root)
    assert went.code == 0
    assert went.out == f"local: release {older} of digits is current; before it was {newer}\n"
    assert current(root) == older
    body = run("rollback", "local:", "digits", "--to", newer, "--root", root, "--json").json()
    assert body == {"device": "local:", "name": "digits", "release": newer, "previous": older}
    body = run("releases", "local:", "--root", root, "--json").json()
    assert [(each["current"], each["previous"]) for each in body["releases"]] == [
        (False, True),
        (True, False),
    ]
    assert set(body["releases"][0]) == {
        *("name", "release", "current", "previous", "placed", "disk_bytes"),
    }


def test_old_ones_go_when_asked(
    run: RunCommand, bundle: Path, int8_bundle: Path, root: Path, tmp_path: Path
) -> None:
    third = tmp_path / "third.edgepack"
    write_digits_bundle(third, target=built_in_profile("laptop-x86-64"))
    releases = [open_bundle(each).release for each in (bundle, int8_bundle, third)]
    for each in (bundle, int8_bundle):
        assert run("push", each, "local:", "--root", root).code == 0
    old, *_ = place_models(root, 3)
    pushed = run("push", third, "local:", "--root", root, "--keep", "2")
    assert f"local: removed release {releases[0]} of digits\n" in pushed.err
    assert f"local: removed model {old[:12]} (" in pushed.err
    listed = run("releases", "local:", "--root", root, "--prune", "--json").json()
    assert (listed["removed"], len(listed["releases"])) == ([], 2)
    listed = run("releases", "local:", "--root", root, "--prune", "--keep", "1", "--json").json()
    assert listed["removed"] == [["digits", releases[1]]]
    assert [each["release"] for each in listed["releases"]] == [releases[2]]
    ran = run("releases", "local:", "--root", root, "--prune", "--keep-free", "900TB")
    assert ran.code == 0
    assert re.search(
        r"warning: local: \S+ \wB are free, not 900000 GB; what is left must ", ran.err
    )
    assert current(root) == releases[2]


def place_models(root: Path, number: int) -> list[str]:
    """Bare models as benchmarks leave them, the oldest first."""
    placed = []
    for age in range(number):
        folder = Path(place_files(LocalDevice(), {"model.tflite": b"%d" % age}, root=str(root)))
        os.utime(folder, (age, age))
        placed.append(folder.name)
    return placed


def test_old_runtimes_and_bare_models_go_too(run: RunCommand, root: Path) -> None:
    (root / "runtimes").unlink()  # the others' is a link, which is left alone
    names = [f"ai-edge-litert-1.{number}.0-cp311-aaaaaaaaaaa{number}" for number in range(4)]
    for age, name in enumerate(names):
        folder = root / "runtimes" / name / "site"
        folder.mkdir(parents=True)
        (folder / "module.py").write_bytes(bytes(5000))
        os.utime(folder.parent, (age, age))
    models = place_models(root, 4)
    here = ("releases", "local:", "--root", root, "--prune")
    body = run(*here, "--name", "digits", "--json").json()
    assert (body["removed"], body["removed_folders"]) == ([], [])
    ran = run(*here, "--keep", "3")
    assert re.search(rf"local: removed model {models[0][:12]} \([\d.]+ k?B\)\n", ran.err)
    assert re.search(rf"local: removed runtime {re.escape(names[0])} \([\d.]+ kB\)\n", ran.err)
    body = run(*here, "--json").json()
    assert body["removed_folders"] == [f"models/{models[1]}", f"runtimes/{names[1]}"]
    body = run(*here, "--keep-free", "900TB", "--json").json()
    assert body["removed_folders"] == []
    assert {path.name for path in (root / "runtimes").iterdir()} == set(names[2:])


def test_options_that_remove_are_not_taken_for_a_list(run: RunCommand) -> None:
    ran = run("releases", "local:", "--keep", "1")
    assert_told(ran, code=2, message="expected --prune with them", remedy="Add --prune")
    assert_told(run("releases", "local:", "--prune", "--keep-free", "much"), code=2, message="size")


def test_a_model_that_answers_wrongly_is_not_made_current(
    run: RunCommand, bundle: Path, wrong_bundle: Path, root: Path
) -> None:
    assert run("push", bundle, "local:", "--root", root).code == 0
    good, wrong = open_bundle(bundle).release, open_bundle(wrong_bundle).release
    ran = run("push", wrong_bundle, "local:", "--root", root)
    assert ran.code == 1
    assert "the model answers otherwise on local: than where it was packed:\n" in ran.err
    assert (
        f"release {wrong} of digits was not made current, which was taken away again; "
        f"release {good} stays current\n"
    ) in ran.err
    assert current(root) == good
    assert [path.name for path in (root / "bundles/digits/releases").iterdir()] == [good]
    # Whoever says so gets it.
    body = run("push", wrong_bundle, "local:", "--root", root, "--no-health-check", "--json").json()
    assert (body["release"], body["previous"], body["health_check"]) == (wrong, good, None)
    assert current(root) == wrong
    ran = run("push", wrong_bundle, "local:", "--root", root, "--json")
    assert ran.json()["error"]["kind"] == "golden"
    assert "is current, and was before; nothing was changed" in ran.err


def test_a_push_and_a_bench_do_not_cross(run: RunCommand, bundle: Path, root: Path) -> None:
    options = LockOptions(purpose="bench", wait_seconds=0)
    with hold_device(LocalDevice(), root=str(root), options=options):
        for verb in ("push", "bench"):
            ran = run(verb, bundle, "local:", "--root", root, "--lock-wait", "0", "--json")
            assert ran.json()["error"]["kind"] == "locked"
            assert re.search(
                r"local: \S+ is held by \S+ \(bench since .* UTC\); waited 0 s", ran.err
            )
        ran = run("rollback", "local:", "--root", root, "--lock-wait", "0")
        assert "allow more time with --lock-wait" in ran.err
        assert run("releases", "local:", "--root", root).code == 0  # which only looks
    assert run("push", bundle, "local:", "--root", root).code == 0


def test_going_back_says_what_it_cannot_do(run: RunCommand, bundle: Path, root: Path) -> None:
    ran = run("rollback", "local:", "--root", root)
    assert ran.err.splitlines()[-2:] == [
        f"edgepack: local: there are no releases in {root}",
        "  Push a bundle first; `--root` or `--target` says where others were pushed to.",
    ]
    assert run("push", bundle, "local:", "--root", root).code == 0
    release = open_bundle(bundle).release
    ran = run("rollback", "local:", "--root", root)
    assert_told(ran, code=1, message=f"before the current one on the device; there: {release}")
    ran = run("rollback", "local:", "--to", "latest", "--root", root)
    assert_told(ran, code=1, message="expected 12 hex digits, not 'latest'")
    ran = run("rollback", "local:", "other", "--root", root)
    assert_told(ran, code=1, message="there: none")
    (root / "bundles/other/releases" / release).mkdir(parents=True)
    ran = run("rollback", "local:", "--root", root)
    assert_told(
        ran,
        code=1,
        message=f"local: expected the name of a bundle, since there are 2 in {root}: digits, other",
        remedy="edgepack rollback DEVICE NAME",
    )


def test_the_targets_deploy_root_is_meant(run: RunCommand, bundle: Path, root: Path) -> None:
    """`push` goes where the bundle's target says, which only that target knows."""
    text = run("targets", "probe", "local:", "--id", "mine").out
    Path("mine.toml").write_text(text.replace("~/.edgepack", str(root)))
    assert run("push", bundle, "local:", "--root", root).code == 0
    for verb in ("releases", "rollback"):
        assert "--runner" not in run(verb, "--help").out
    assert "--runner" not in run("targets", "probe", "--help").out
    (listed,) = run("releases", "local:", "--target", "mine.toml", "--json").json()["releases"]
    assert (listed["name"], listed["current"]) == ("digits", True)
    ran = run("rollback", "local:", "--target", "mine.toml")
    there = f"before the current one on the device; there: {listed['release']}"
    assert_told(ran, code=1, message=there)
    assert_told(run("releases", "local:", "--target", "mime"), code=2, message="unknown target")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=12m", "none", str(folder))
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(("umount", str(folder)), check=True)


def test_a_disk_that_cannot_be_written(run: RunCommand, bundle: Path, disk: Path) -> None:
    subprocess.run(("mount", "-o", "remount,ro", str(disk)), check=True)
    ran = run("push", bundle, "local:", "--root", disk / "root")
    assert_told(
        ran,
        code=1,
        message="local cannot be deployed to: ",
        remedy="give a `--root` on a file system that is.",
    )
    assert list(disk.iterdir()) == []


def test_a_full_disk(
    run: RunCommand, bundle: Path, int8_bundle: Path, device_root: Path, disk: Path
) -> None:
    (device_root / "runtimes").mkdir(parents=True, exist_ok=True)
    (disk / "runtimes").symlink_to(device_root / "runtimes")
    assert run("push", bundle, "local:", "--root", disk).code == 0
    before = current(disk)
    facts = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(facts.f_bavail * facts.f_frsize - 300_000))
    ran = run("push", int8_bundle, "local:", "--root", disk)
    assert_told(ran, code=1, message=" MiB of room", remedy="ree some room on the device")
    assert current(disk) == before
    assert list((disk / "staging").iterdir()) == []
    (disk / "filler").unlink()
    assert run("push", int8_bundle, "local:", "--root", disk).code == 0
