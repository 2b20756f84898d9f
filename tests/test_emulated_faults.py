"""What is left on emulated boards that fall silent, lose power or memory, or have a bad network."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgepack.bundle.archive import Bundle
from edgepack.device.store.deploy import place_files, push_bundle
from edgepack.device.store.rollback import roll_back
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire import link
from edgepack.errors import ConnectError, DeployError
from tests.fixtures.board_steps import BoardBench, connected, current_release
from tests.fixtures.boards import EmulatedBoard, boot_board
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.commands import RunCommand
from tests.fixtures.emulation import copy_disk
from tests.fixtures.faulty_device import FaultyDevice

# One worker boots the boards that tests share.
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.xdist_group("boards"),
    pytest.mark.timeout(900),
]

ROOT = "~/.edgepack"
SILENT = "has been silent for "
FAULTS = ("unplugged", "frozen")


class Silence:
    """A board that can fall silent, which this side notices sooner than it would."""

    def __init__(self, board: EmulatedBoard, fault: str) -> None:
        self._board = board
        self._is_frozen = fault == "frozen"

    def begin(self) -> None:
        self._board.freeze() if self._is_frozen else self._board.set_link(up=False)

    def end(self) -> None:
        self._board.thaw() if self._is_frozen else self._board.set_link(up=True)


@pytest.fixture(params=FAULTS)
def silence(
    request: pytest.FixtureRequest, pi4_board: EmulatedBoard, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Silence]:
    monkeypatch.setattr(link, "ASK_SECONDS", 1.0)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 6.0)
    silence = Silence(pi4_board, request.param)
    yield silence
    silence.end()


@contextmanager
def bad_network(board: EmulatedBoard) -> Iterator[None]:
    """Give a board 100 ms of delay, 2% of loss and 8 Mbit/s."""
    shape = "card=$(ls /sys/class/net | grep -v '^lo$' | head -n 1); tc qdisc {} dev $card root {}"
    with connected(board, "root") as boss:
        netem = shape.format("add", "netem delay 100ms loss 2% rate 8mbit")
        assert boss.run(["sh", "-c", netem], timeout_seconds=60).exit_code == 0
        try:
            yield
        finally:
            boss.run(["sh", "-c", shape.format("del", "")], timeout_seconds=60)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_digits_bundle(tmp_path_factory.mktemp("bundle") / "small.edgepack")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another release, with enough bytes to be cut in the middle of them."""
    files = {"classes.txt": b"zero\n", "more.bin": os.urandom(3_000_000)}
    path = tmp_path_factory.mktemp("bundle") / "large.edgepack"
    return write_digits_bundle(path, version="2.0", extra_files=files)


def new_root(board: EmulatedBoard) -> str:
    """Give a deploy root that no other test has used."""
    with connected(board) as device:
        told = device.run(["mktemp", "-d", "/home/pi/root.XXXXXX"], timeout_seconds=60)
    return told.text.strip()


def after(num_bytes: int, act: Callable[[], None]) -> Callable[[int, int], None]:
    """A progress callback that acts once so much has gone out."""
    sent = 0

    def watch(count: int, _total: int) -> None:
        nonlocal sent
        before, sent = sent, sent + count
        if before < num_bytes <= sent:
            act()

    return watch


def test_a_board_that_falls_silent_in_mid_push(
    pi4_board: EmulatedBoard, silence: Silence, small: Bundle, large: Bundle
) -> None:
    root = new_root(pi4_board)
    with connected(pi4_board) as device:
        push_bundle(device, small, root=root)
        with pytest.raises(ConnectError, match=SILENT):
            push_bundle(device, large, root=root, on_progress=after(1_000_000, silence.begin))
    silence.end()
    with connected(pi4_board) as device:
        assert current_release(device, root) == small.release
        push_bundle(device, large, root=root)
        assert current_release(device, root) == large.release


def test_a_board_that_falls_silent_in_mid_bench(
    pi4_board: EmulatedBoard, silence: Silence, small: Bundle, large: Bundle
) -> None:
    with connected(pi4_board) as device:
        root = read_facts(device, ROOT).root
        push_bundle(device, small, root=root)
    bench = BoardBench(large, num_launches=1)
    with pytest.raises(ConnectError, match=SILENT):
        bench.run(pi4_board, at_launch=silence.begin)
    silence.end()
    bench.run(pi4_board)
    assert bench.num_launches == 2
    with connected(pi4_board) as device:
        assert current_release(device, root) == small.release


@pytest.mark.parametrize("silence", ["unplugged"], indirect=True)
def test_a_board_that_falls_silent_at_any_step_of_a_rollback(
    pi4_board: EmulatedBoard, silence: Silence, small: Bundle, large: Bundle
) -> None:
    root = new_root(pi4_board)
    other = {small.release: large.release, large.release: small.release}
    with connected(pi4_board) as device:
        push_bundle(device, small, root=root)
        push_bundle(device, large, root=root)
        counted = FaultyDevice(device=device)
        roll_back(counted, "digits", release=None, root=root)
        current = small.release
    assert counted.num_operations > 3
    for step in range(counted.num_operations):
        with connected(pi4_board) as device:
            faulty = FaultyDevice(device=device, fails_at=step, cut=silence.begin)
            with pytest.raises(ConnectError, match=SILENT):
                roll_back(faulty, "digits", release=other[current], root=root)
        silence.end()
        with connected(pi4_board) as device:
            # What was on its way may be carried out once the link is back.
            current = current_release(device, root)
            roll_back(device, "digits", release=other[current], root=root)
            assert current_release(device, root) == other[current]
            current = other[current]


def test_a_bad_network(pi4_board: EmulatedBoard, small: Bundle, large: Bundle) -> None:
    content = os.urandom(500_000)
    with connected(pi4_board) as device:
        root = read_facts(device, ROOT).root
        push_bundle(device, large, root=root)
        push_bundle(device, small, root=root)
    bench = BoardBench(small, num_launches=1)
    bench.run(pi4_board)  # brings the runtime
    with bad_network(pi4_board):
        with connected(pi4_board) as device:
            folder = place_files(device, {"x.bin": content}, root="/home/pi/lossy")
            told = device.run(["sha256sum", f"{folder}/x.bin"], timeout_seconds=60)
        bench.run(pi4_board)
        with connected(pi4_board) as device:
            roll_back(device, "digits", release=large.release, root=root)
            assert current_release(device, root) == large.release
    assert told.text.split()[0] == hashlib.sha256(content).hexdigest()
    assert bench.num_launches == 2


def test_too_little_memory(pi4_board: EmulatedBoard, run: RunCommand, small: Bundle) -> None:
    """Logins get no more memory than this, all of one together, as a control group has it."""
    there = (pi4_board.address, "--ssh-config", pi4_board.ssh_config)
    pushed = run("push", small.path, *there, "--json")
    assert pushed.code == 0, pushed.err
    with connected(pi4_board, "root") as boss:
        group = "/sys/fs/cgroup/small"
        server = "$(pgrep -o -x sshd)"
        limit = (
            "mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup; "
            "echo +memory > /sys/fs/cgroup/cgroup.subtree_control && "
            f"mkdir {group} && echo 12M > {group}/memory.max && "
            f"echo {server} > {group}/cgroup.procs"
        )
        told = boss.run(["sh", "-c", limit], timeout_seconds=60)
        assert told.exit_code == 0, told.stderr
        try:
            looked = run("doctor", *there, small.path)
            ran = run("bench", small.path, *there, "--launches", "1", "--runs", "2")
        finally:
            back = f"echo {server} > /sys/fs/cgroup/cgroup.procs"
            assert boss.run(["sh", "-c", back], timeout_seconds=60).exit_code == 0
    assert "MiB of the runtime, but" in looked.out
    assert ran.code == 1
    assert ran.err.endswith(
        f"edgepack: {pi4_board.address}: /usr/bin/python3 cannot import ai-edge-litert 2.3.0: "
        "it was killed\n"
        "  Free memory on the device, or use `--runner native`, which needs less.\n"
    )
    with connected(pi4_board) as device:
        assert current_release(device, read_facts(device, ROOT).root) == small.release
    ran = run("bench", small.path, *there, "--launches", "1", "--runs", "2", "--json")
    assert ran.code == 0, ran.err
    assert ran.json()["golden"]["passed"] is True


def test_places_that_are_not_the_users(pi4_board: EmulatedBoard) -> None:
    with connected(pi4_board) as device, pytest.raises(DeployError, match="Permission denied"):
        place_files(device, {"a": b"1"}, root="/usr/share/edgepack")


def test_a_power_cut_in_mid_push_on_a_board_without_a_clock(
    board_image: Path, small: Bundle, large: Bundle, tmp_path: Path
) -> None:
    """Its clock begins in 1970 at each start, so no date tells which release came last."""
    disk = copy_disk(board_image, tmp_path / "disk.img")
    third = write_digits_bundle(tmp_path / "third.edgepack", version="3.0")
    with (
        boot_board(board_image, disk=disk, clock="1970-01-01") as board,
        connected(board) as device,
    ):
        facts = read_facts(device, ROOT)
        assert not facts.clock_is_plausible
        root = facts.root
        push_bundle(device, small, root=root)
        with pytest.raises(ConnectError, match="closed the connection while "):
            push_bundle(device, large, root=root, on_progress=after(1_000_000, board.cut_power))
    with (
        boot_board(board_image, disk=disk, clock="1970-01-01") as board,
        connected(board) as device,
    ):
        assert current_release(device, root) == small.release
        push_bundle(device, large, root=root)
        assert current_release(device, root) == large.release
        push_bundle(device, third, root=root)
        roll_back(device, "digits", release=None, root=root)
        assert current_release(device, root) == large.release
        roll_back(device, "digits", release=None, root=root)
        assert current_release(device, root) == small.release
