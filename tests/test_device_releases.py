"""Releases on a device: their history, going back, taking old ones away, taking a switch back."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.bundle.archive import Bundle
from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.layout import Layout
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.store.releases import (
    ReleaseFacts,
    choose_removable,
    list_releases,
    previous_release,
)
from edgepack.device.store.removal import remove_releases
from edgepack.device.store.rollback import roll_back
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.transport import CommandResult
from edgepack.errors import DeployError, GoldenError
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.faulty_device import FaultyDevice


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    """Four versions with files in common."""
    folder = tmp_path_factory.mktemp("bundles")
    return tuple(
        write_digits_bundle(
            folder / f"{number}.edgepack",
            version=f"{number}.0",
            extra_files={"classes.txt": b"class\n" * number},
        )
        for number in range(1, 5)
    )


def push(root: Path, bundle: Bundle, *, switch: bool = True) -> None:
    push_bundle(LocalDevice(), bundle, root=str(root), switch=switch)


def back(root: Path, release: str | None = None) -> str:
    now, _ = roll_back(LocalDevice(), "digits", release=release, root=str(root))
    assert current(root) == now.release
    return now.release


def current(root: Path) -> str:
    return (root / "bundles/digits/current").readlink().name


def marks(root: Path) -> tuple[str | None, str | None]:
    """What is listed as current and as previous."""
    listed = list_releases(LocalDevice(), root=str(root))
    now = [each.release for each in listed if each.is_current]
    before = [each.release for each in listed if each.is_previous]
    assert len(now) <= 1
    assert len(before) <= 1
    return next(iter(now), None), next(iter(before), None)


def test_each_rollback_goes_one_further_back(tmp_path: Path, bundles: tuple[Bundle, ...]) -> None:
    one, two, three, four = (each.release for each in bundles)
    for bundle in bundles[:3]:
        push(tmp_path, bundle)
    assert marks(tmp_path) == (three, two)
    assert back(tmp_path) == two
    assert marks(tmp_path) == (two, one)
    assert back(tmp_path) == one
    with pytest.raises(DeployError) as caught:
        back(tmp_path)
    assert caught.value.message == (
        "digits: expected a release before the current one on the device; "
        f"there: {one}, {two}, {three}"
    )
    push(tmp_path, bundles[3])
    assert marks(tmp_path) == (four, one)
    assert back(tmp_path, three) == three
    assert back(tmp_path) == four


def test_pushing_an_older_one_again_makes_it_the_newest(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    one, two, *_ = (each.release for each in bundles)
    for index in (0, 1, 0):
        push(tmp_path, bundles[index])
    assert marks(tmp_path) == (one, two)
    assert back(tmp_path) == two


def test_a_benchmark_leaves_nothing_to_go_back_to(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    push(tmp_path, bundles[0])
    push(tmp_path, bundles[1], switch=False)
    push(tmp_path, bundles[2])
    assert marks(tmp_path) == (bundles[2].release, bundles[0].release)


def test_the_clock_of_the_device_does_not_decide(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    for bundle in bundles[:3]:
        push(tmp_path, bundle)
    os.utime(tmp_path / "bundles/digits/releases" / bundles[2].release, (1, 1))
    os.utime(tmp_path / "bundles/digits/releases" / bundles[0].release, (2**31, 2**31))
    assert back(tmp_path) == bundles[1].release


def test_without_a_history_the_order_of_placing_counts(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    for age, bundle in enumerate(bundles[:3]):
        push(tmp_path, bundle)
        os.utime(tmp_path / "bundles/digits/releases" / bundle.release, (age, age))
    (tmp_path / "bundles/digits/history").unlink()
    assert marks(tmp_path) == (bundles[2].release, bundles[1].release)


def test_what_is_listed(tmp_path: Path, bundles: tuple[Bundle, ...]) -> None:
    push(tmp_path, bundles[0])
    folder = tmp_path / "bundles/digits/releases" / bundles[0].release
    os.utime(folder, (1_700_000_000, 1_700_000_000))
    (tmp_path / "bundles/what is this/releases/x").mkdir(parents=True)
    (tmp_path / "bundles/digits/releases/half.tmp").mkdir()
    (facts,) = list_releases(LocalDevice(), root=str(tmp_path))
    assert facts.placed == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (facts.name, facts.release) == ("digits", bundles[0].release)
    assert facts.disk_bytes >= sum(record.num_bytes for record in bundles[0].files())


@pytest.mark.parametrize("damage", ["change", "remove", "no manifest", "foreign manifest"])
def test_a_damaged_release_is_not_gone_back_to(
    tmp_path: Path, bundles: tuple[Bundle, ...], damage: str
) -> None:
    for bundle in bundles[:2]:
        push(tmp_path, bundle)
    folder = tmp_path / "bundles/digits/releases" / bundles[0].release
    if damage == "no manifest":
        (folder / "manifest.json").unlink()
        said = "could not read "
    elif damage == "foreign manifest":
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text("{}")
        said = f"release {bundles[0].release} of digits is damaged: its manifest cannot be read"
    else:
        # A copy, so that the other release, which shares the file, stays whole.
        content = (folder / "model.tflite").read_bytes()
        (folder / "model.tflite").unlink()
        if damage == "change":
            (folder / "model.tflite").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        said = (
            f"release {bundles[0].release} of digits is damaged: 'model.tflite' is missing or is "
            "not what its manifest says; what is current stays current"
        )
    with pytest.raises(DeployError) as caught:
        back(tmp_path)
    assert caught.value.message.startswith(f"local: {said}")
    assert marks(tmp_path) == (bundles[1].release, bundles[0].release)


class Meddler(LocalDevice):
    """A device whose storage loses a bit of the model as soon as a release becomes current."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command; before a switch, damage the model."""
        if "fence()" in argv[2] and self.model.exists() and b"model.tflite" in stdin:
            content = self.model.read_bytes()
            self.model.unlink()
            self.model.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        return super().run(
            argv, timeout_seconds=timeout_seconds, stdin=stdin, max_output_bytes=max_output_bytes
        )


def test_a_switch_that_reads_back_wrong_is_taken_back(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    older, newer = bundles[:2]
    push(tmp_path, older)
    model = tmp_path / "bundles/digits/releases" / newer.release / "model.tflite"
    with pytest.raises(DeployError) as caught:
        push_bundle(Meddler(model), newer, root=str(tmp_path))
    assert caught.value.message == (
        f"local: release {newer.release} of digits was made current, but 'model.tflite' reads "
        f"back with another sha256; release {older.release} is current again"
    )
    assert marks(tmp_path) == (older.release, None)
    push(tmp_path, newer)  # which mends it
    assert marks(tmp_path) == (newer.release, older.release)


def test_a_first_switch_that_reads_back_wrong_leaves_nothing_current(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    model = tmp_path / "bundles/digits/releases" / bundles[0].release / "model.tflite"
    with pytest.raises(DeployError, match=r"another sha256; none is current now"):
        push_bundle(Meddler(model), bundles[0], root=str(tmp_path))
    assert not (tmp_path / "bundles/digits/current").is_symlink()


def refuse(folder: str) -> None:
    assert (Path(folder) / "model.tflite").is_file()
    raise GoldenError("it answers wrongly.", remedy="Pack again.")


def test_a_release_that_is_refused_never_becomes_current(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    older, newer = bundles[:2]

    def try_push(bundle: Bundle) -> str:
        with pytest.raises(GoldenError) as caught:
            push_bundle(LocalDevice(), bundle, root=str(tmp_path), before_switch=refuse)
        assert caught.value.remedy == "Pack again."
        return caught.value.message

    assert try_push(older) == (
        f"it answers wrongly.\nrelease {older.release} of digits was not made current, which was "
        "taken away again; none is current"
    )
    push(tmp_path, older)
    assert try_push(newer) == (
        f"it answers wrongly.\nrelease {newer.release} of digits was not made current, which was "
        f"taken away again; release {older.release} stays current"
    )
    assert [each.release for each in list_releases(LocalDevice(), root=str(tmp_path))] == [
        older.release
    ]
    assert list((tmp_path / "staging").iterdir()) == []
    push(tmp_path, newer, switch=False)
    assert "taken away" not in try_push(newer)  # a benchmark put it there
    assert try_push(older) == (
        f"it answers wrongly.\nrelease {older.release} of digits is current, and was before; "
        "nothing was changed"
    )
    assert marks(tmp_path) == (older.release, None)


def test_who_lost_the_device_changes_nothing_that_is_current(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    older, newer = bundles[:2]
    push(tmp_path, older)
    options = LockOptions(purpose="push", wait_seconds=0)
    with hold_device(LocalDevice(), root=str(tmp_path), options=options) as held:
        with hold_device(LocalDevice(), root=f"{tmp_path}/other", options=options):
            (theirs,) = (tmp_path / "other/lock").iterdir()
            shutil.copy(theirs, tmp_path / "lock" / "2", follow_symlinks=False)
        expected = "another host has taken the device over"
        with pytest.raises(DeployError, match=expected):
            push_bundle(held, newer, root=str(tmp_path), fence=held.fence)
        layout, listed = Layout(root=str(tmp_path)), list_releases(held, root=str(tmp_path))
        with pytest.raises(DeployError, match=expected):
            remove_releases(held, layout, listed, fence=held.fence)
        with pytest.raises(DeployError, match=expected):
            roll_back(held, "digits", release=newer.release, root=str(tmp_path), fence=held.fence)
    assert current(tmp_path) == older.release
    assert len(list_releases(LocalDevice(), root=str(tmp_path))) == 2


def test_old_releases_go_by_count(tmp_path: Path, bundles: tuple[Bundle, ...]) -> None:
    one, two, three, four = (each.release for each in bundles)
    for age, bundle in enumerate(bundles):
        push(tmp_path, bundle)
        os.utime(tmp_path / "bundles/digits/releases" / bundle.release, (age, age))
    back(tmp_path)
    back(tmp_path)
    assert marks(tmp_path) == (two, one)
    layout, present = Layout(root=str(tmp_path)), list_releases(LocalDevice(), root=str(tmp_path))

    def removable(keep: int) -> list[str]:
        return [each.release for each in choose_removable(present, keep=keep)]

    assert removable(4) == []
    assert removable(3) == [three]
    assert removable(2) == [three, four]
    assert removable(1) == [one, three, four]
    pruned = remove_releases(LocalDevice(), layout, choose_removable(present, keep=2))
    assert pruned.removed == (("digits", three), ("digits", four))
    assert pruned.free_bytes is not None
    assert {each.release for each in list_releases(LocalDevice(), root=str(tmp_path))} == {one, two}
    assert list((tmp_path / "staging").iterdir()) == []
    push(tmp_path, bundles[2])
    assert marks(tmp_path) == (three, two)


def test_a_current_release_is_not_removed_whoever_asks(
    tmp_path: Path, bundles: tuple[Bundle, ...]
) -> None:
    push(tmp_path, bundles[0])
    listed = list_releases(LocalDevice(), root=str(tmp_path))
    pruned = remove_releases(LocalDevice(), Layout(root=str(tmp_path)), listed)
    assert pruned.removed == ()
    assert current(tmp_path) == bundles[0].release
    assert remove_releases(LocalDevice(), Layout(root=str(tmp_path)), ()).removed == ()


def test_removing_is_one_step_on_the_device(tmp_path: Path, bundles: tuple[Bundle, ...]) -> None:
    for bundle in bundles[:3]:
        push(tmp_path, bundle)
    old = choose_removable(list_releases(LocalDevice(), root=str(tmp_path)), keep=2)
    assert [each.release for each in old] == [bundles[0].release]
    device = FaultyDevice(device=LocalDevice())
    remove_releases(device, Layout(root=str(tmp_path)), old)
    assert device.num_operations == 1


def test_old_releases_go_until_there_is_room(tmp_path: Path, bundles: tuple[Bundle, ...]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk))
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        for age, bundle in enumerate(bundles):
            push(disk, bundle)
            folder = disk / "bundles/digits/releases" / bundle.release
            (folder / "weights").write_bytes(bytes(2**20))
            os.utime(folder, (age, age))
        removable = choose_removable(list_releases(LocalDevice(), root=str(disk)), keep=1)
        free_bytes = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        pruned = remove_releases(
            LocalDevice(), Layout(root=str(disk)), removable, free_bytes=free_bytes + 2**20
        )
        assert pruned.removed == (("digits", bundles[0].release),)
        assert pruned.free_bytes is not None
        assert pruned.free_bytes >= free_bytes + 2**20
        pruned = remove_releases(
            LocalDevice(), Layout(root=str(disk)), removable[1:], free_bytes=2**30
        )
        assert len(pruned.removed) == 2
        assert current(disk) == bundles[3].release
    finally:
        subprocess.run(("umount", str(disk)), check=True)


@given(
    st.lists(st.sampled_from("abcdef"), max_size=8),
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.sampled_from(["", *"abcdef"]),
)
def test_where_a_rollback_leads(history: list[str], present: list[str], now: str) -> None:
    found = previous_release(now, history, present)
    if found is not None:
        assert found in present
        assert found != now
    if now and now not in history and history and history[-1] in present:
        assert found == history[-1]  # as after a cut between the history and the switch


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("pqrst"), st.integers(0, 9)),
        unique_by=lambda each: each[:2],
    ),
    st.integers(1, 5),
)
def test_what_may_go(parts: list[tuple[str, str, int]], keep: int) -> None:
    present = [
        ReleaseFacts(
            name=name,
            release=release,
            is_current=release == "q",
            is_previous=release == "r",
            placed=datetime.fromtimestamp(age, tz=UTC),
            disk_bytes=1,
        )
        for name, release, age in sorted(parts, key=lambda part: part[2])
    ]
    removable = choose_removable(present, keep=keep)
    assert not any(each.is_current for each in removable)
    assert keep == 1 or not any(each.is_previous for each in removable)
    for name in "ab":
        num_present = sum(each.name == name for each in present)
        num_left = num_present - sum(each.name == name for each in removable)
        marked = sum(
            each.name == name and (each.is_current or each.is_previous) for each in present
        )
        assert num_left >= min(num_present, keep)
        assert num_left <= max(keep, marked)
