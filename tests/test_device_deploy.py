"""Pushing releases: what is sent, what stays, and what a vanished link leaves behind."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.bundle.archive import Bundle
from edgepack.device.store.deploy import Deployment, place_files, push_bundle
from edgepack.device.store.layout import Layout, is_confined
from edgepack.device.store.payload import describe_file
from edgepack.device.store.placing import place_folder
from edgepack.device.store.releases import list_releases
from edgepack.device.store.rollback import roll_back
from edgepack.device.store.switching import switch_release
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import ConnectError, DeployError
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.faulty_device import FaultyDevice, Moment
from tests.fixtures.sshd import SshServer, SshServers

Contents = Mapping[str, bytes]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_digits_bundle(tmp_path_factory.mktemp("bundle") / "a.edgepack")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same but for one extra file: all else is on the device after the first push."""
    path = tmp_path_factory.mktemp("bundle") / "b.edgepack"
    return write_digits_bundle(
        path, version="2.0", extra_files={"classes.txt": b"nil\neins\n"}, class_names="classes.txt"
    )


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents_of(bundle: Bundle) -> dict[str, bytes]:
    return {record.path: bundle.read(record.path) for record in bundle.files()}


def total_bytes(bundle: Bundle) -> int:
    return sum(record.num_bytes for record in bundle.files())


def assert_tidy(root: Path) -> None:
    assert list((root / "staging").iterdir()) == []


def test_first_push_sends_all_and_makes_it_current(tmp_path: Path, bundle: Bundle) -> None:
    told: list[tuple[int, int]] = []
    deployment = push_bundle(
        LocalDevice(), bundle, root=str(tmp_path), on_progress=lambda *each: told.append(each)
    )
    assert deployment == Deployment(
        release=bundle.sha256[:12],
        path=f"{tmp_path}/bundles/digits/releases/{bundle.sha256[:12]}",
        sent_bytes=total_bytes(bundle),
        skipped_bytes=0,
        wire_bytes=total_bytes(bundle),
    )
    assert read_tree(Path(deployment.path)) == contents_of(bundle)
    assert (tmp_path / "bundles/digits/current").readlink() == Path(
        f"releases/{deployment.release}"
    )
    assert told[0] == (0, deployment.sent_bytes)
    assert sum(count for count, _ in told) == deployment.sent_bytes
    assert_tidy(tmp_path)


def test_unchanged_bundle_sends_nothing(tmp_path: Path, bundle: Bundle) -> None:
    push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    device = FaultyDevice(device=LocalDevice())
    again = push_bundle(device, bundle, root=str(tmp_path))
    assert (again.sent_bytes, again.skipped_bytes) == (0, total_bytes(bundle))
    assert device.uploads == []
    assert device.num_operations == 1


def test_newer_release_sends_what_differs_and_keeps_the_old(
    tmp_path: Path, bundle: Bundle, newer: Bundle
) -> None:
    push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    deployment = push_bundle(LocalDevice(), newer, root=str(tmp_path))
    changed = {"manifest.json", "files/classes.txt", "example.py"}  # which holds the version
    assert deployment.sent_bytes == sum(
        record.num_bytes for record in newer.files() if record.path in changed
    )
    assert deployment.skipped_bytes == total_bytes(newer) - deployment.sent_bytes
    releases = tmp_path / "bundles/digits/releases"
    assert read_tree(releases / newer.release) == contents_of(newer)
    assert read_tree(releases / bundle.release) == contents_of(bundle)
    assert (tmp_path / "bundles/digits/current").resolve() == releases / newer.release
    assert_tidy(tmp_path)


def test_equal_size_with_other_content_is_sent(tmp_path: Path) -> None:
    layout = Layout(root=str(tmp_path))
    folders = []
    for release, content in (("a" * 12, b"x" * 1000), ("b" * 12, b"y" * 1000)):
        folder = layout.release("m", release)
        file = describe_file("model.tflite", content)
        transfer = place_folder(
            LocalDevice(), layout, folder=folder, files=[file], reuse_siblings=True
        )
        assert transfer.sent_bytes == 1000
        folders.append(Path(folder))
    assert [(folder / "model.tflite").read_bytes()[:1] for folder in folders] == [b"x", b"y"]


def test_a_damaged_neighbor_is_not_reused(tmp_path: Path, bundle: Bundle, newer: Bundle) -> None:
    first = push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    model = Path(first.path) / "model.tflite"
    damaged = bytes(len(model.read_bytes()))
    model.chmod(0o644)
    model.write_bytes(damaged)
    second = push_bundle(LocalDevice(), newer, root=str(tmp_path))
    assert read_tree(Path(second.path)) == contents_of(newer)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "replace_by_link"])
def test_a_damaged_release_is_mended_in_place(tmp_path: Path, bundle: Bundle, damage: str) -> None:
    deployment = push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    model = Path(deployment.path) / "model.tflite"
    content = model.read_bytes()
    model.chmod(0o644)
    if damage == "flip":
        model.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "truncate":
        model.write_bytes(content[:-1])
    else:
        model.unlink()
        if damage == "replace_by_link":
            model.symlink_to("/etc/passwd")
    again = push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    assert again.sent_bytes == len(content)
    assert read_tree(Path(deployment.path)) == contents_of(bundle)
    assert not model.is_symlink()
    assert_tidy(tmp_path)


def test_a_benchmark_does_not_switch_what_is_current(
    tmp_path: Path, bundle: Bundle, newer: Bundle
) -> None:
    push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    deployment = push_bundle(LocalDevice(), newer, root=str(tmp_path), switch=False)
    assert Path(deployment.path).is_dir()
    assert (tmp_path / "bundles/digits/current").resolve().name == bundle.release


def test_bytes_that_change_on_the_way_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    device = FaultyDevice(
        device=LocalDevice(), tamper=lambda content: content[:-1] + bytes([content[-1] ^ 1])
    )
    with pytest.raises(DeployError) as caught:
        push_bundle(device, bundle, root=str(tmp_path))
    assert caught.value.message.startswith("faulty: stored small files with sha256 ")
    assert not (tmp_path / "bundles/digits/current").exists()
    assert list((tmp_path / "bundles/digits/releases").iterdir()) == []
    assert_tidy(tmp_path)


def complete_release(root: Path, known: Mapping[str, Contents]) -> str | None:
    """Give the release `current` leads to, after comparing every byte of every release."""
    releases = root / "bundles/digits/releases"
    for folder in releases.iterdir() if releases.is_dir() else ():
        assert read_tree(folder) == known[folder.name]
    current = root / "bundles/digits/current"
    if not current.is_symlink():
        assert not current.exists()
        return None
    assert current.resolve().parent == releases.resolve()
    assert current.is_dir()
    return current.resolve().name


@pytest.mark.parametrize("moment", list(Moment))
def test_wherever_the_link_dies_current_leads_to_a_whole_release(
    tmp_path: Path, bundle: Bundle, newer: Bundle, moment: Moment
) -> None:
    known = {each.release: contents_of(each) for each in (bundle, newer)}
    counting = FaultyDevice(device=LocalDevice())
    push_bundle(counting, bundle, root=str(tmp_path / "counted"))
    for number in range(counting.num_operations):
        root = tmp_path / f"{number}"
        dying = FaultyDevice(device=LocalDevice(), fails_at=number, moment=moment)
        with pytest.raises(ConnectError):
            push_bundle(dying, bundle, root=str(root))
        assert complete_release(root, known) in {None, bundle.release}
        push_bundle(LocalDevice(), bundle, root=str(root))
        dying = FaultyDevice(device=LocalDevice(), fails_at=number, moment=moment)
        with suppress_lost_link():
            push_bundle(dying, newer, root=str(root))
        assert complete_release(root, known) in {bundle.release, newer.release}
        push_bundle(LocalDevice(), newer, root=str(root))
        assert complete_release(root, known) == newer.release
        assert_tidy(root)


@pytest.mark.sshd
def test_wherever_the_real_connection_is_killed_the_next_push_succeeds(
    tmp_path: Path, bundle: Bundle, newer: Bundle, ssh_servers: SshServers
) -> None:
    server = ssh_servers.start()
    options = ConnectOptions(ssh_config=server.ssh_config)
    known = {each.release: contents_of(each) for each in (bundle, newer)}
    push_bundle(LocalDevice(), bundle, root=str(tmp_path / "prepared"))
    counted = shutil.copytree(tmp_path / "prepared", tmp_path / "counted", symlinks=True)
    with open_device(server.address, options=options) as device:
        counting = FaultyDevice(device=device)
        push_bundle(counting, newer, root=str(counted))
    assert counting.num_operations > 5
    for number in range(counting.num_operations):
        root = shutil.copytree(tmp_path / "prepared", tmp_path / f"{number}", symlinks=True)
        with open_device(server.address, options=options) as device:
            dying = FaultyDevice(device=device, fails_at=number, cut=server.kill_sessions)
            with pytest.raises(ConnectError):
                push_bundle(dying, newer, root=str(root))
        assert complete_release(root, known) in {bundle.release, newer.release}
        with open_device(server.address, options=options) as device:
            push_bundle(device, newer, root=str(root))
            assert complete_release(root, known) == newer.release
            assert_tidy(root)
            roll_back(device, "digits", release=None, root=str(root))
        assert complete_release(root, known) == bundle.release


class suppress_lost_link:  # noqa: N801 - reads as contextlib.suppress
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, ConnectError)


Push = tuple[int, int | None, Moment]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.none() | st.integers(0, 9), st.sampled_from(list(Moment))),
        min_size=1,
        max_size=5,
    )
)
def test_any_sequence_of_pushes_and_losses(pushes: list[Push]) -> None:
    versions = [
        {"model.tflite": b"1" * 64, "golden/in.bin": b"same"},
        {"model.tflite": b"2" * 64, "golden/in.bin": b"same"},
        {"model.tflite": b"2" * 64, "files/a b": b""},
    ]
    names = [hashlib.sha256(repr(version).encode()).hexdigest()[:12] for version in versions]
    known = dict(zip(names, versions, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        root, current = Path(folder), None
        layout = Layout(root=folder)
        for index, fails_at, moment in pushes:
            device = FaultyDevice(device=LocalDevice(), fails_at=fails_at, moment=moment)
            has_failed = False
            try:
                place_folder(
                    device,
                    layout,
                    folder=layout.release("digits", names[index]),
                    files=[describe_file(*each) for each in versions[index].items()],
                    reuse_siblings=True,
                )
                switch_release(device, layout, "digits", names[index], files=())
            except ConnectError:
                has_failed = True
            found = complete_release(root, known)
            assert found == names[index] or (has_failed and found == current)
            current = found


def test_a_live_push_of_another_machine_is_not_swept(tmp_path: Path, bundle: Bundle) -> None:
    others = tmp_path / "staging" / f"{'c' * 12}.{'0' * 8}.1.{'d' * 16}"
    others.mkdir(parents=True)
    (others / "file").write_bytes(b"x")
    foreign = tmp_path / "staging" / "what is this"
    foreign.mkdir()
    push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    assert others.is_dir()
    for path in (others / "file", others):
        os.utime(path, (1, 1))
    push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    assert not others.exists()
    assert foreign.is_dir()


def test_what_a_killed_push_left_is_swept(tmp_path: Path, bundle: Bundle, newer: Bundle) -> None:
    dying = FaultyDevice(device=LocalDevice(), fails_at=4)
    with pytest.raises(ConnectError):
        push_bundle(dying, bundle, root=str(tmp_path))
    assert list((tmp_path / "staging").iterdir()) != []
    push_bundle(LocalDevice(), newer, root=str(tmp_path))
    assert_tidy(tmp_path)


def test_no_write_permission(tmp_path: Path, bundle: Bundle) -> None:
    root = tmp_path / "locked"
    root.mkdir(mode=0o555)
    # Root may write everywhere, so the commands run as nobody.
    as_nobody = ("setpriv", "--reuid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    device = FaultyDevice(device=LocalDevice(), prefix=as_nobody)
    with pytest.raises(DeployError) as caught:
        push_bundle(device, bundle, root=str(root))
    assert caught.value.message.startswith(f"faulty: could not look into {root}: ")
    assert caught.value.message.endswith("Permission denied")
    assert caught.value.remedy == (
        "Give a `--root` that this login may write to, or change the owner on the device."
    )
    assert list(root.iterdir()) == []


def test_a_file_where_the_root_should_be(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DeployError) as caught:
        push_bundle(LocalDevice(), bundle, root=f"{tmp_path}/root")
    assert caught.value.message.startswith(f"local: could not look into {tmp_path}/root: ")
    assert caught.value.remedy == (
        "Something else stands where a folder should be; give another `--root`."
    )
    assert (tmp_path / "root").read_text() == "a file"


@pytest.fixture
def full_disk(tmp_path: Path) -> "os.PathLike[str]":
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    return folder


def test_full_disk_is_told_before_anything_is_sent(
    full_disk: Path, bundle: Bundle, newer: Bundle
) -> None:
    try:
        push_bundle(LocalDevice(), bundle, root=f"{full_disk}/root")
        device = FaultyDevice(device=LocalDevice())
        with pytest.raises(DeployError) as caught:
            place_files(device, {"big.bin": bytes(3 * 2**20)}, root=f"{full_disk}/root")
        assert caught.value.message.startswith(
            f"faulty: {full_disk}/root needs 3.0 MiB of room, but "
        )
        assert device.uploads == []
        (full_disk / "filler").write_bytes(bytes(int(1.9 * 2**20) - 200_000))
        with pytest.raises(DeployError):
            push_bundle(LocalDevice(), newer, root=f"{full_disk}/root")
        assert complete_release(
            full_disk / "root", {each.release: contents_of(each) for each in (bundle, newer)}
        ) == (bundle.release)
    finally:
        subprocess.run(["umount", full_disk], check=True)


def test_bare_files_are_placed_by_content(tmp_path: Path) -> None:
    source = tmp_path / "m.tflite"
    source.write_bytes(b"model")
    root = f"{tmp_path}/root"
    folder = place_files(LocalDevice(), {"model.tflite": source, "in/0.bin": b"in"}, root=root)
    assert read_tree(Path(folder)) == {"in/0.bin": b"in", "model.tflite": b"model"}
    device = FaultyDevice(device=LocalDevice())
    same = place_files(device, {"in/0.bin": b"in", "model.tflite": b"model"}, root=root)
    assert (same, device.uploads) == (folder, [])
    other = place_files(device, {"in/0.bin": b"in", "model.tflite": b"modeL"}, root=root)
    assert other != folder


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a//b", "a/../b", "", "a\nb", ".", "a/", "b\\c", "a" * 300, " x", "x "]
)
def test_paths_that_leave_their_folder_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DeployError) as caught:
        place_files(LocalDevice(), {path: b""}, root=f"{tmp_path}/root")
    assert caught.value.message == (
        f"cannot place files: expected distinct relative paths, not {path!r} leaves its folder"
    )
    assert not (tmp_path / "root").exists()


@given(st.text(max_size=40))
def test_confined_paths_stay_below(path: str) -> None:
    if is_confined(path):
        joined = os.path.normpath(f"/root/{path}")
        assert joined.startswith("/root/")
        assert "\n" not in path


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "", "-rf"])
def test_bundle_names_stay_below_the_root(name: str) -> None:
    with pytest.raises(DeployError):
        Layout(root="/r").bundle(name)


def test_odd_but_allowed_names_survive_the_shell(tmp_path: Path) -> None:
    files = {"a b": b"1", "c'd": b"2", "$(touch x)": b"3", "-n": b"4", "e*/f;g": b"5", "ü": b"6"}
    folder = place_files(LocalDevice(), files, root=str(tmp_path))
    assert read_tree(Path(folder)) == files
    assert place_files(LocalDevice(), files, root=str(tmp_path)) == folder


def test_list_and_switch_back(tmp_path: Path, bundle: Bundle, newer: Bundle) -> None:
    root = str(tmp_path)
    assert list_releases(LocalDevice(), root=root) == ()
    push_bundle(LocalDevice(), bundle, root=root)
    os.utime(tmp_path / "bundles/digits/releases" / bundle.release, (1, 1))
    push_bundle(LocalDevice(), newer, root=root)
    found = list_releases(LocalDevice(), root=root)
    assert [(each.name, each.release, each.is_current) for each in found] == [
        ("digits", bundle.release, False),
        ("digits", newer.release, True),
    ]
    assert all(each.disk_bytes > 0 for each in found)
    back, before = roll_back(LocalDevice(), "digits", release=None, root=root)
    assert (back.release, before) == (bundle.release, newer.release)
    assert (tmp_path / "bundles/digits/current").resolve().name == bundle.release
    with pytest.raises(DeployError) as caught:
        roll_back(LocalDevice(), "digits", release=None, root=root)
    assert caught.value.message == (
        "digits: expected a release before the current one on the device; "
        f"there: {bundle.release}, {newer.release}"
    )
    roll_back(LocalDevice(), "digits", release=newer.release, root=root)
    assert (tmp_path / "bundles/digits/current").resolve().name == newer.release


def test_a_failing_device_says_what_it_said(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "bundles/digits/current").mkdir(parents=True)
    (tmp_path / "bundles/digits/current/file").write_text("not ours")
    with pytest.raises(DeployError) as caught:
        push_bundle(LocalDevice(), bundle, root=str(tmp_path))
    assert caught.value.message.startswith("local: could not make ")
    assert (tmp_path / "bundles/digits/current/file").read_text() == "not ours"
    assert_tidy(tmp_path)


@pytest.mark.sshd
def test_over_ssh(tmp_path: Path, bundle: Bundle, newer: Bundle, ssh_server: SshServer) -> None:
    options = ConnectOptions(ssh_config=ssh_server.ssh_config)
    with open_device(ssh_server.address, options=options) as device:
        first = push_bundle(device, bundle, root=str(tmp_path))
        assert (first.sent_bytes, first.skipped_bytes) == (total_bytes(bundle), 0)
        again = push_bundle(device, bundle, root=str(tmp_path))
        assert (again.sent_bytes, again.skipped_bytes) == (0, total_bytes(bundle))
        second = push_bundle(device, newer, root=str(tmp_path))
        assert 0 < second.sent_bytes < total_bytes(newer) / 2
    assert read_tree(Path(second.path)) == contents_of(newer)
    assert (tmp_path / "bundles/digits/current").resolve() == Path(second.path)
    assert_tidy(tmp_path)
