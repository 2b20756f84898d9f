"""Devices as they are: other userlands, servers, shells, C libraries and disks, each a real one."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack.bundle.archive import Bundle
from edgepack.device.preflight.premises import survey
from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.releases import list_releases
from edgepack.device.store.rollback import roll_back
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire.connect import open_device
from edgepack.errors import DeployError, DeviceTimeoutError
from tests.fixtures import userlands
from tests.fixtures.bundle import (
    built_in_profile,
    retrained_digits_golden,
    retrained_digits_model,
    write_digits_bundle,
)
from tests.fixtures.commands import QUICK, RunCommand
from tests.fixtures.macos import add_macos
from tests.fixtures.runners import share_program
from tests.fixtures.userlands import Userland, make_root, require, serve
from tests.test_commands_bad_input import assert_told
from tests.test_device_contract import await_end

pytestmark = pytest.mark.sshd

ROOT = "~/.edgepack"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "a.edgepack"
    return write_digits_bundle(path, target=built_in_profile("laptop-x86-64"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with another last layer."""
    return write_digits_bundle(
        tmp_path_factory.mktemp("bundle") / "b.edgepack",
        version="2.0",
        model=retrained_digits_model(),
        golden=retrained_digits_golden(),
        target=built_in_profile("laptop-x86-64"),
    )


def contents_of(bundle: Bundle) -> dict[str, bytes]:
    return {record.path: bundle.read(record.path) for record in bundle.files()}


def read_release(device: Userland, bundle: Bundle) -> dict[str, bytes]:
    folder = device.home / ".edgepack/bundles/digits/releases" / bundle.release
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def add_musl(root: Path) -> None:
    """BusyBox beside musl's loader, as Alpine and OpenWrt have it."""
    userlands.add_busybox(root)
    shutil.copy2("/lib/x86_64-linux-musl/libc.so", root / "lib/ld-musl-x86_64.so.1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A device without Python and SFTP.

    Attributes:
        programs: what this machine must have for it.
        fill: puts its programs into its root.
        server: of SSH.
        libc: what its C library is seen as.
        hash_tool: what it computes sha256 with.
    """

    programs: tuple[str, ...] = ()
    fill: Callable[[Path], None]
    server: str = "openssh"
    libc: str | None
    hash_tool: str | None = "sha256sum"


KINDS = {
    "busybox": Kind(programs=("busybox",), fill=userlands.add_busybox, libc=None),
    "busybox-dropbear": Kind(
        programs=("busybox", "dropbear", "dropbearkey"),
        fill=userlands.add_busybox,
        server="dropbear",
        libc="glibc",
    ),
    "toybox": Kind(programs=("toybox", "mksh"), fill=userlands.add_toybox, libc="glibc"),
    "nothing-that-hashes": Kind(fill=userlands.add_base, libc="glibc", hash_tool=None),
    "macos": Kind(programs=("shasum",), fill=add_macos, libc="libsystem", hash_tool="shasum"),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[Userland, Kind]]:
    """A device, and what it is."""
    kind = KINDS[request.param]
    require(*kind.programs)
    with make_root() as root:
        kind.fill(root)
        with serve(root, server=kind.server, has_proc=kind.libc != "libsystem") as device:
            yield device, kind


def test_push_verify_mend_and_switch_back(
    kind: tuple[Userland, Kind], bundle: Bundle, newer: Bundle
) -> None:
    userland, expected = kind
    total_bytes = sum(record.num_bytes for record in bundle.files())
    model_bytes = len(bundle.read("model.tflite"))
    with open_device(userland.address, options=userland.options) as device:
        facts, premises = survey(device, ROOT)
        assert (facts.arch, facts.libc, facts.python) == ("x86_64", expected.libc, None)
        assert premises.hash_tool == expected.hash_tool
        assert premises.missing_tools == ()
        assert facts.free_bytes
        assert push_bundle(device, bundle, root=ROOT).sent_bytes == total_bytes
        assert read_release(userland, bundle) == contents_of(bundle)
        assert push_bundle(device, bundle, root=ROOT).sent_bytes == 0
        # What was trained anew goes, and the device puts the rest of the model beside it.
        assert 2560 < push_bundle(device, newer, root=ROOT).sent_bytes < model_bytes / 2
        assert read_release(userland, newer) == contents_of(newer)
        facts_of = {each.release: each for each in list_releases(device, root=ROOT)}
        assert facts_of.keys() == {bundle.release, newer.release}
        assert facts_of[newer.release].is_current
        roll_back(device, "digits", release=None, root=ROOT)
        current = userland.home / ".edgepack/bundles/digits/current"
        assert current.readlink() == Path("releases", bundle.release)

        model = current / "model.tflite"
        content = model.read_bytes()
        model.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        # The other release has all of it but the head.
        assert 2560 <= push_bundle(device, bundle, root=ROOT).sent_bytes < model_bytes / 2
        assert read_release(userland, bundle) == contents_of(bundle)
        assert not list((userland.home / ".edgepack/staging").iterdir())


def test_what_hangs_is_stopped_with_its_children(kind: tuple[Userland, Kind]) -> None:
    userland, _ = kind
    with open_device(userland.address, options=userland.options) as device:
        with pytest.raises(DeviceTimeoutError):
            device.run(["sh", "-c", "sleep 600 & echo $! > /tmp/pid; sleep 601"], timeout_seconds=1)
        assert await_end(int((userland.root / "tmp/pid").read_text()))


def test_musl_is_told_before_anything_is_sent(run: RunCommand, bundle: Bundle) -> None:
    require("busybox")
    if not Path("/lib/x86_64-linux-musl/libc.so").exists():
        pytest.skip("musl is not installed")
    with make_root() as root:
        add_musl(root)
        with serve(root) as userland:
            with open_device(userland.address, options=userland.options) as device:
                facts = read_facts(device, ROOT)
            assert (facts.libc, facts.libc_version) == ("musl", "1.2.3")
            ran = run("push", bundle.path, userland.address, "--ssh-config", userland.ssh_config)
            assert_told(ran, code=1, message="glibc")
            assert not (userland.home / ".edgepack").exists()


OLD_LOADER = """#!/bin/sh
echo "$1: error while loading shared libraries: $1: cannot open shared object file" >&2
exit 127
"""  # what loaders before glibc 2.33 say when they are asked for their version


def add_old_glibc(root: Path) -> None:
    """BusyBox beside a C library that is too old for the native runner."""
    userlands.add_busybox(root)
    loader = root / "lib/ld-linux-x86-64.so.2"
    loader.write_text(OLD_LOADER)
    loader.chmod(0o755)


def add_named_glibc(root: Path) -> None:
    """The same, with the version in the library's name."""
    add_old_glibc(root)
    (root / "lib/libc.so.6").symlink_to("libc-2.31.so")


@pytest.mark.parametrize(
    ("fill", "libc", "message"),
    [
        (
            userlands.add_busybox,
            (None, None),
            "every runtime needs glibc, but Linux has no C libra",
        ),
        (add_old_glibc, ("glibc", "<2.33"), "needs glibc 2.34, but Linux has one older than 2.33"),
        (add_named_glibc, ("glibc", "2.31"), "needs glibc 2.34, but Linux has 2.31"),
        (userlands.add_base, ("glibc", "2.36"), "needs libstdc++ with GLIBCXX_3.4.30, but Linux "),
    ],
)
def test_what_no_library_loads_on_is_told_before_anything_is_sent(
    run: RunCommand,
    bundle: Bundle,
    fill: Callable[[Path], None],
    libc: tuple[str | None, str | None],
    message: str,
) -> None:
    require("busybox")
    with make_root() as root:
        fill(root)
        with serve(root) as userland:
            with open_device(userland.address, options=userland.options) as device:
                facts = read_facts(device, ROOT)
            assert (facts.libc, facts.libc_version, facts.libstdcxx) == (*libc, None)
            there = (userland.address, "--ssh-config", userland.ssh_config)
            assert_told(run("push", bundle.path, *there), code=1, message=message)
            ran = run("bench", bundle.path, *there, "--runner", "native")
            assert_told(ran, code=1, message=message)
            assert not (userland.home / ".edgepack").exists()


WELCOME = "Welcome to the lab. Your password expires in 3 days!"
LOGINS = {
    "bash": ("/usr/bin/bash", {".bashrc": "echo {}", ".profile": "echo {}"}),
    "fish": ("/usr/bin/fish", {".config/fish/config.fish": "echo '{}'"}),
    "csh": ("/usr/bin/tcsh", {".cshrc": "echo '{}'", ".login": "echo '{}'"}),
}


@contextmanager
def this_system(
    *, login: str = "bash", mounts: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Userland]:
    """A device with this machine's programs, Python among them, and a login that greets."""
    shell, files = LOGINS[login]
    require(Path(shell).name)
    if not Path("/usr/bin/python3").exists():
        pytest.skip("this userland needs the system's own python3")
    with make_root() as root:
        usr = userlands.add_this_system(root)
        for name, line in files.items():
            path = root / "home/pi" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(line.format(WELCOME) + "\n")
        (root / "opt").chmod(0o777)
        with serve(root, shell=shell, mounts=[usr, *mounts], options=options) as device:
            yield device


@pytest.mark.parametrize("login", list(LOGINS))
def test_login_shells_and_their_noise(
    login: str, tmp_path: Path, bundle: Bundle, newer: Bundle
) -> None:
    tmp_path.joinpath("banner").write_text("Authorized use only.\n" * 100)
    with (
        this_system(login=login, options=[f"Banner {tmp_path / 'banner'}"]) as userland,
        open_device(userland.address, options=userland.options) as device,
    ):
        raw = subprocess.run(
            ["ssh", "-F", userland.ssh_config, "-p", str(userland.port), "pi@127.0.0.1", "true"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert WELCOME in raw.stdout  # the noise is there
        facts = read_facts(device, ROOT)
        assert facts.python is not None
        push_bundle(device, bundle, root=ROOT)
        push_bundle(device, newer, root=ROOT)
        assert read_release(userland, newer) == contents_of(newer)
        assert len(list_releases(device, root=ROOT)) == 2
        odd = ["a b", "it's", "!", "\\", "$HOME", "*", "\n", "é", ""]
        told = device.run(["printf", "%s\\0", *odd], timeout_seconds=20)
        assert told.text.split("\0")[:-1] == odd
        with device.stream(["sh", "-c", "echo 1; echo 2"], timeout_seconds=20) as lines:
            assert list(lines) == [b"1", b"2"]


def test_a_full_tmp_and_a_fish_are_no_hindrance(
    run: RunCommand, bundle: Bundle, tmp_path: Path
) -> None:
    tmp = 'mount -t tmpfs -o size=4k,mode=1777 tmpfs "$root/tmp"; echo x > "$root/tmp/full"'
    with this_system(login="fish", mounts=[tmp]) as userland:
        result = tmp_path / "r.json"
        ran = run(
            *("bench", bundle.path, userland.address, "--ssh-config", userland.ssh_config),
            *(*QUICK, "-o", result),
        )
        assert ran.code == 0, ran.err
        measurement = json.loads(result.read_text())
        assert measurement["golden"]["passed"] is True
        assert len(measurement["launches"]) == 6


def test_a_home_that_cannot_be_written(run: RunCommand, bundle: Bundle) -> None:
    read_only = 'mount --bind "$root/home" "$root/home"; mount -o remount,bind,ro "$root/home"'
    with this_system(mounts=[read_only]) as userland:
        ran = run("push", bundle.path, userland.address, "--ssh-config", userland.ssh_config)
        assert_told(ran, code=1, message="ead-only file system", remedy="--root")
        assert not (userland.home / ".edgepack").exists()


def test_a_disk_that_fills_up_on_the_way(bundle: Bundle, tmp_path: Path) -> None:
    content = os.urandom(4_000_000)
    files = {"classes.txt": b"zero\n", "more.bin": content}
    large = write_digits_bundle(tmp_path / "large", version="3", extra_files=files)
    require()
    small = 'mount -t tmpfs -o size=8m,uid=1000,gid=1000 tmpfs "$root/home/pi"'
    with make_root() as root:
        userlands.add_base(root)
        with (
            serve(root, mounts=[small]) as userland,
            open_device(userland.address, options=userland.options) as device,
        ):
            push_bundle(device, bundle, root=ROOT)

            def fill(_sent: int, _total: int) -> None:
                device.run(["sh", "-c", "cat /dev/zero > ~/filler"], timeout_seconds=30)

            with pytest.raises(DeployError, match="No space left on device") as caught:
                push_bundle(device, large, root=ROOT, on_progress=fill)
            assert "Free" in caught.value.remedy
            (now,) = list_releases(device, root=ROOT)
            assert (now.release, now.is_current) == (bundle.release, True)
            with pytest.raises(DeployError, match=r"MiB of room, but 0\.0 MiB are free"):
                push_bundle(device, large, root=ROOT)
            device.run(["rm", "/home/pi/filler"], timeout_seconds=10)
            push_bundle(device, large, root=ROOT)
            assert [each.is_current for each in list_releases(device, root=ROOT)] == [False, True]


def test_a_home_without_programs(run: RunCommand, bundle: Bundle) -> None:
    noexec = 'mount -t tmpfs -o noexec,size=200m,uid=1000,gid=1000 tmpfs "$root/home/pi"'
    with this_system(mounts=[noexec]) as userland:
        options = ("--ssh-config", userland.ssh_config)
        ran = run("push", bundle.path, userland.address, *options)
        assert_told(ran, code=1, message="noexec", remedy="--root")
        with open_device(userland.address, options=userland.options) as device:
            assert device.run(["ls", "-A", "/home/pi/.edgepack"], timeout_seconds=10).text == ""
        ran = run("push", bundle.path, userland.address, *options, "--root", "/opt/edgepack")
        assert ran.code == 0, ran.err
        assert (userland.root / "opt/edgepack/bundles/digits/current").is_symlink()


@pytest.mark.toolchain
def test_busybox_behind_dropbear_pushes_and_measures_without_python(
    run: RunCommand, cache_home: Path, bundle: Bundle, newer: Bundle
) -> None:
    """What a small Linux needs beside BusyBox: the GNU libraries that the runtime loads."""
    share_program(cache_home, "x86_64")
    require("busybox", "dropbear", "dropbearkey")
    with make_root() as root:
        userlands.add_busybox(root)
        userlands.add_libraries(root, "libdl.so.2", "libgcc_s.so.1", "libm.so.6")
        userlands.add_libraries(root, "libpthread.so.0", "librt.so.1", "libstdc++.so.6")
        with serve(root, server="dropbear") as userland:
            there = (userland.address, "--ssh-config", userland.ssh_config, "--json")
            pushed = run("push", bundle.path, *there)
            assert pushed.code == 0, pushed.err
            ran = run("bench", bundle.path, *there, *QUICK)
            assert ran.code == 0, ran.err
            body = ran.json()
            assert (body["device"]["libc"], body["device"]["python"]) == ("glibc", None)
            assert body["device"]["libstdcxx"].startswith("3.4.")
            assert body["engine"]["runner"] == "native"
            assert body["golden"]["passed"] is True
            assert len(body["launches"]) == 6
            assert run("push", newer.path, *there).code == 0
            rolled = run("rollback", userland.address, "digits", *there[1:])
            assert rolled.code == 0, rolled.err
            current = userland.home / ".edgepack/bundles/digits/current"
            assert current.readlink() == Path("releases", bundle.release)
