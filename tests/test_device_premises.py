"""What a deployment finds on a device: tried on real folders, read from captured answers."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.preflight.premises import (
    Mount,
    Place,
    Premises,
    find_mount,
    read_premises,
    survey,
)
from edgepack.device.store.signers import SignersFile
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.remote_shell import wrap_command
from edgepack.device.wire.transport import CommandResult
from tests.fixtures.faulty_device import FaultyDevice

# A Raspberry Pi with an overlay as its root, and a card that another program fills.
_KIOSK = r"""
@@user
1000

@@missing
find
rsync

@@hash
hash_with_python

@@mounts
overlay / overlay ro,relatime,lowerdir=/lower,upperdir=/upper 0 0
tmpfs /tmp tmpfs rw,nosuid,nodev,noexec,size=1024k 0 0
/dev/mmcblk0p3 /media/my\040card vfat rw,relatime,fmask=0022 0 0

@@root
folder /home/pi
write no mkdir: cannot create directory '/home/pi/.edgepack-trial.812': Read-only file system

@@disk
Filesystem     1024-blocks    Used Available Capacity Mounted on
overlay           30000000 9000000  21000000      30% /

@@root_files
Filesystem      Inodes  IUsed   IFree IUse% Mounted on
overlay              0      0       0     - /

@@temporary
folder /tmp
write yes
execute no
link yes

@@temporary_disk
Filesystem     1024-blocks    Used Available Capacity Mounted on
tmpfs                 1024     512       512      50% /tmp

@@temporary_files
Filesystem      Inodes  IUsed   IFree IUse% Mounted on
tmpfs            57000     10   56990    1% /tmp

@@staged
7240	/home/pi/.edgepack/staging

@@runtimes
tflite-runtime-2.14.0-cp311-0123456789ab

@@releases
digits/releases/0123456789ab
digits/releases/ba9876543210
../releases/0123456789ab
digits/releases/latest
"""


def test_what_was_captured_on_a_kiosk() -> None:
    assert read_premises(_KIOSK) == Premises(
        user_id=1000,
        missing_tools=("find",),
        hash_tool="python",
        root=Place(
            folder="/home/pi",
            is_writable=False,
            refusal="Read-only file system",
            free_bytes=21000000 * 1024,
            mount=Mount(
                point="/",
                source="overlay",
                kind="overlay",
                options=("ro", "relatime", "lowerdir=/lower", "upperdir=/upper"),
            ),
        ),
        temporary=Place(
            folder="/tmp",  # noqa: S108 - as captured
            is_writable=True,
            can_execute=False,
            can_link=True,
            free_bytes=512 * 1024,
            free_files=56990,
            mount=Mount(
                point="/tmp",  # noqa: S108 - as captured
                source="tmpfs",
                kind="tmpfs",
                options=("rw", "nosuid", "nodev", "noexec", "size=1024k"),
            ),
        ),
        staged_bytes=7240 * 1024,
        runtimes=("tflite-runtime-2.14.0-cp311-0123456789ab",),
        releases=(("digits", "0123456789ab"), ("digits", "ba9876543210")),
    )


def test_a_device_that_says_nothing() -> None:
    premises = read_premises("")
    assert premises.hash_tool is None
    assert premises.missing_tools == ()
    assert (premises.root, premises.temporary) == (Place(folder=""), None)


@given(st.text(max_size=300))
def test_any_content_is_survived(noise: str) -> None:
    for section in ("user", "mounts", "root", "disk", "root_files", "staged", "releases"):
        read = read_premises(_KIOSK.replace(f"@@{section}\n", f"@@{section}\n{noise}\n"))
        assert read.root.refusal.isprintable()
        assert all(name.isprintable() and len(name) <= 200 for name in read.runtimes)


@pytest.mark.parametrize(
    ("folder", "point"),
    [
        ("/home/pi/.edgepack", "/home"),
        ("/homes", "/"),
        ("/home", "/home"),
        ("/media/my card/x", "/media/my card"),
    ],
)
def test_the_file_system_of_a_folder(folder: str, point: str) -> None:
    mounts = tuple(
        Mount(point=each, source="x", kind="ext4", options=())
        for each in ("/", "/home", "/media/my card")
    )
    mount = find_mount(folder, mounts)
    assert mount is not None
    assert mount.point == point
    assert find_mount(folder, ()) is None


def test_what_is_mounted_over_another_counts() -> None:
    lower, upper = (Mount(point="/data", source=s, kind="ext4", options=()) for s in ("a", "b"))
    assert find_mount("/data/x", (lower, upper)) == upper


def test_this_machine(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet"
    facts, premises = survey(LocalDevice(), str(root))
    assert facts.root == str(root)
    assert facts.python is not None
    place = premises.root
    assert place.folder == str(tmp_path)
    assert (place.is_writable, place.can_execute, place.can_link) == (True, True, True)
    assert place.free_bytes == pytest.approx(facts.free_bytes, rel=0.2)
    assert premises.user_id == os.geteuid()
    assert premises.missing_tools == ()
    assert premises.hash_tool == "sha256sum"
    assert (premises.runtimes, premises.releases, premises.staged_bytes) == ((), (), 0)
    assert list(tmp_path.iterdir()) == []  # nothing is left there


def test_what_is_there_already(tmp_path: Path) -> None:
    for path in ("runtimes/r-1", "bundles/digits/releases/0123456789ab", "staging/x"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "staging" / "x" / "part").write_bytes(bytes(300_000))
    premises = survey(LocalDevice(), str(tmp_path))[1]
    assert premises.runtimes == ("r-1",)
    assert premises.releases == (("digits", "0123456789ab"),)
    assert 300_000 <= premises.staged_bytes < 400_000


def signers_of(root: Path) -> SignersFile | None:
    return survey(LocalDevice(), str(root))[1].signers


def test_a_list_of_allowed_signers_comes_as_it_stands(tmp_path: Path) -> None:
    assert signers_of(tmp_path) is None
    path = tmp_path / "allowed_signers"
    path.write_text("# ours\n\n@@signers\n:a\tb c \nlast")
    assert signers_of(tmp_path) == SignersFile(text="# ours\n\n@@signers\n:a b c\nlast")
    path.write_text("")
    assert signers_of(tmp_path) == SignersFile()
    path.write_text("one\u2028@@releases\n")  # whose second half looks like an answer of ours
    assert signers_of(tmp_path) == SignersFile(text="one")
    path.write_text("one\u2028two\n")
    assert signers_of(tmp_path) == SignersFile(fault="it is no text")
    path.write_bytes(b"x" * 4000 + b"\n" + b"x\n" * 600)
    assert signers_of(tmp_path) == SignersFile(fault="it has 512 lines or more")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI is root")
class TestMounts:
    def test_read_only(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "ro"):
            place = survey(LocalDevice(), f"{tmp_path}/disk/root")[1].root
        assert (place.is_writable, place.refusal) == (False, "Read-only file system")
        assert place.can_execute is None

    def test_noexec(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "noexec,size=1m"):
            place = survey(LocalDevice(), f"{tmp_path}/disk/root")[1].root
            assert list((tmp_path / "disk").iterdir()) == []
        assert (place.is_writable, place.can_execute) == (True, False)
        assert place.mount is not None
        assert place.mount.point == str(tmp_path / "disk")
        assert "noexec" in place.mount.options

    def test_a_link_to_another_file_system(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "noexec,size=1m"):
            (tmp_path / "root").symlink_to(tmp_path / "disk")
            place = survey(LocalDevice(), f"{tmp_path}/root")[1].root
        assert place.folder == str(tmp_path / "root")
        assert place.mount is not None
        assert place.mount.point == str(tmp_path / "disk")

    def test_full(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "size=1m"):
            (tmp_path / "disk" / "filler").write_bytes(bytes(2**20))
            place = survey(LocalDevice(), f"{tmp_path}/disk/root")[1].root
            assert [each.name for each in (tmp_path / "disk").iterdir()] == ["filler"]
        assert (place.is_writable, place.refusal) == (False, "No space left on device")
        assert place.free_bytes == 0

    def test_no_more_files(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "size=1m,nr_inodes=9"):
            place = survey(LocalDevice(), f"{tmp_path}/disk/root")[1].root
        assert place.free_files == 8

    def test_another_login(self, tmp_path: Path) -> None:
        prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        device = FaultyDevice(device=LocalDevice(), prefix=prefix)
        tmp_path.chmod(0o755)
        premises = survey(device, f"{tmp_path}/root", is_thorough=True)[1]
        assert premises.user_id == 65534
        assert (premises.root.is_writable, premises.root.refusal) == (False, "Permission denied")
        assert premises.temporary is not None
        assert premises.temporary.is_writable is True


def test_programs_that_are_missing(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "cat", "head", "mkdir", "rm", "ls", "id", "uname", "sed", "tr"):
        (programs / name).symlink_to(f"/bin/{name}")
    prefix = ("/usr/bin/env", "-i", f"PATH={programs}")
    device = FaultyDevice(device=LocalDevice(), prefix=prefix)
    premises = survey(device, f"{tmp_path}/root")[1]
    assert premises.missing_tools == (
        *("chmod", "cp", "cut", "df", "find", "grep", "ln", "mv", "readlink", "tail", "wc"),
    )
    assert premises.hash_tool is None
    assert premises.root.free_bytes is None


def test_the_question_is_short_enough_for_dropbear(tmp_path: Path) -> None:
    """It closes the connection at a command of more than 9000 bytes."""
    asked: list[int] = []

    class Listening(LocalDevice):
        def run(self, argv: Sequence[str], **rest: Any) -> CommandResult:  # noqa: ANN401 - as given
            asked.append(len(wrap_command(argv).text))
            return super().run(argv, **rest)

    survey(Listening(), f"{tmp_path}/{'long' * 25}", is_thorough=True)
    assert 5000 < max(asked) < 8900
