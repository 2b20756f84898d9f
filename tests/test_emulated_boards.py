"""The whole way on emulated boards, and what is left when they are cut off in the middle of it."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack.bundle.archive import Bundle
from edgepack.cache import Cache, cache_directory
from edgepack.device.store.deploy import place_files, push_bundle
from edgepack.device.store.layout import Layout
from edgepack.device.store.lock import LockOptions
from edgepack.device.store.releases import list_releases
from edgepack.device.store.rollback import check_release, roll_back
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire import link
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.transport import Device
from edgepack.errors import ConnectError, DeployError
from edgepack.measure.plan import BenchmarkPlan
from edgepack.workflow.benching import bench_placed, place_release
from edgepack.workflow.rig import open_rig
from tests.fixtures.boards import EmulatedBoard, boot_board
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import RunCommand
from tests.fixtures.emulation import copy_disk

# One worker boots the boards that tests share.
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.xdist_group("boards"),
    pytest.mark.timeout(900),
]

ROOT = "~/.edgepack"
QUICK = ("--launches", "2", "--runs", "2", "--max-seconds", "10")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A device of the issue, and what must be seen of it.

    Attributes:
        user: who logs in.
        target: profile its bundles are packed for.
        arch: of its userland.
        cpu: its core.
        board: what it calls itself.
        engine: the runtime that fits.
        has_dot_product: whether its core has XNNPACK's fastest int8 instructions.
    """

    user: str
    target: str
    arch: str
    cpu: str
    board: str
    engine: tuple[str, str]
    has_dot_product: bool = False


PI_4 = {
    "pi-4": Kind(
        user="pi",
        target="raspberry-pi-4",
        arch="aarch64",
        cpu="Cortex-A72",
        board="Raspberry Pi 4 Model B Rev 1.5",
        engine=("ai-edge-litert", "2.3.0"),
    ),
    "pi-4-32bit": Kind(
        user="pi32",
        target="raspberry-pi-4-32bit",
        arch="armv7l",
        cpu="Cortex-A72",
        board="Raspberry Pi 4 Model B Rev 1.5",
        engine=("tflite-runtime", "2.14.0"),
    ),
}
PI_5 = Kind(
    user="pi",
    target="raspberry-pi-5",
    arch="aarch64",
    cpu="Cortex-A76",
    board="Raspberry Pi 5 Model B Rev 1.0",
    engine=("ai-edge-litert", "2.3.0"),
    has_dot_product=True,
)


@pytest.mark.parametrize("name", list(PI_4))
def test_push_bench_and_roll_back(
    run: RunCommand, pi4_board: EmulatedBoard, tmp_path: Path, name: str
) -> None:
    go_the_whole_way(run, pi4_board, PI_4[name], tmp_path)


def test_a_pi_5_whose_power_is_cut_in_mid_bench(
    run: RunCommand, board_image: Path, tmp_path: Path
) -> None:
    disk = copy_disk(board_image, tmp_path / "disk.img")
    with boot_board(board_image, model="raspberry-pi-5", disk=disk) as board:
        first, second = go_the_whole_way(run, board, PI_5, tmp_path)
        bench = Bench(second)
        with pytest.raises(ConnectError, match="closed the connection while "):
            bench.run(board, at_launch=board.cut_power)
        assert bench.num_launches == 1
    with boot_board(board_image, model="raspberry-pi-5", disk=disk) as board:
        with connected(board) as device:
            assert current_release(device, read_facts(device, ROOT).root) == first.release
        assert bench.run(board, at_launch=bool) == 0  # the runtime is whole, too
        assert bench.num_launches == 3


class Bench:
    """Benchmarks of a bundle on boards, counting launches as they begin."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.num_launches = 0

    def run(self, board: EmulatedBoard, *, at_launch: Callable[[], object]) -> int:
        """Measure; gives the bytes of the runtime that had to be sent."""

        def watch(step: str) -> None:
            if step.startswith("launch "):
                self.num_launches += 1
                at_launch()

        with open_rig(
            board.address,
            connect=ConnectOptions(ssh_config=board.ssh_config),
            root=None,
            profile=None,
            cache=Cache(root=cache_directory()),
            lock=LockOptions(purpose="bench"),
            on_step=lambda _: None,
        ) as rig:
            plan = BenchmarkPlan(num_launches=2, min_runs=2, max_seconds=10)
            placed = place_release(rig, self._bundle, on_step=watch)
            measurement = bench_placed(rig, placed, plan=plan, on_step=watch)
            assert measurement.golden is not None
            assert measurement.golden.passed
            return rig.engine.runtime_bytes


def go_the_whole_way(
    run: RunCommand, board: EmulatedBoard, kind: Kind, tmp_path: Path
) -> tuple[Bundle, Bundle]:
    """Push a release, measure it, push another, switch back; gives both."""
    target = built_in_profile(kind.target)
    first = write_digits_bundle(tmp_path / "first.edgepack", target=target)
    second = write_digits_bundle(tmp_path / "second.edgepack", target=target, version="2.0")
    there = (f"{kind.user}@127.0.0.1:{board.port}", "--ssh-config", board.ssh_config, "--json")

    pushed = run("push", first.path, *there)
    assert pushed.code == 0, pushed.err
    assert pushed.json()["runtime_bytes"] > 2**20
    ran = run("bench", first.path, *there, *QUICK)
    assert ran.code == 0, ran.err
    body = ran.json()
    facts, engine = body["device"], body["engine"]
    assert (facts["arch"], facts["kernel_arch"]) == (kind.arch, "aarch64")
    assert (facts["cpu"], facts["board"]) == (kind.cpu, kind.board)
    assert ("asimddp" in facts["cpu_features"]) == kind.has_dot_product
    assert (engine["name"], engine["version"]) == kind.engine
    assert body["golden"]["passed"] is True
    assert len(body["launches"]) == 2

    pushed = run("push", second.path, *there)
    assert pushed.code == 0, pushed.err
    assert pushed.json()["runtime_bytes"] == 0
    rolled = run("rollback", there[0], "digits", *there[1:])
    assert rolled.code == 0, rolled.err
    with connected(board, kind.user) as device:
        now = {each.release: each.is_current for each in list_releases(device, root=ROOT)}
    assert now == {first.release: True, second.release: False}
    return first, second


@contextmanager
def connected(board: EmulatedBoard, user: str = "pi") -> Iterator[Device]:
    options = ConnectOptions(ssh_config=board.ssh_config)
    with open_device(f"{user}@127.0.0.1:{board.port}", options=options) as device:
        yield device


def current_release(device: Device, root: str) -> str:
    """The release that is current, after the device has hashed all of it."""
    layout = Layout(root=root)
    (current,) = [each for each in list_releases(device, root=root) if each.is_current]
    check_release(device, layout, current.name, current.release)
    return current.release


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_digits_bundle(tmp_path_factory.mktemp("bundle") / "small.edgepack")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another release, with enough bytes to be cut in the middle of them."""
    files = {"classes.txt": b"zero\n", "more.bin": os.urandom(3_000_000)}
    path = tmp_path_factory.mktemp("bundle") / "large.edgepack"
    return write_digits_bundle(path, version="2.0", extra_files=files)


def after(num_bytes: int, act: Callable[[], None]) -> Callable[[int, int], None]:
    """A progress callback that acts once so much has gone out."""
    sent = 0

    def watch(count: int, _total: int) -> None:
        nonlocal sent
        before, sent = sent, sent + count
        if before < num_bytes <= sent:
            act()

    return watch


@pytest.mark.parametrize("fault", ["unplugged", "frozen"])
def test_a_board_that_falls_silent_in_mid_push(
    pi4_board: EmulatedBoard,
    small: Bundle,
    large: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    root = f"/home/pi/{fault}"
    with connected(pi4_board) as device:
        push_bundle(device, small, root=root)

    def cut() -> None:
        pi4_board.set_link(up=False) if fault == "unplugged" else pi4_board.freeze()

    def mend() -> None:
        pi4_board.set_link(up=True) if fault == "unplugged" else pi4_board.thaw()

    with monkeypatch.context() as patch:
        patch.setattr(link, "ASK_SECONDS", 1.0)
        patch.setattr(link, "SILENCE_SECONDS", 6.0)
        with ExitStack() as stack:
            device = stack.enter_context(connected(pi4_board))
            stack.callback(mend)
            with pytest.raises(ConnectError, match="has been silent for "):
                push_bundle(device, large, root=root, on_progress=after(1_000_000, cut))
    with connected(pi4_board) as device:
        assert current_release(device, root) == small.release
        push_bundle(device, large, root=root)
        assert current_release(device, root) == large.release


def test_a_bad_network(pi4_board: EmulatedBoard) -> None:
    content = os.urandom(500_000)
    shape = "card=$(ls /sys/class/net | grep -v '^lo$' | head -n 1); tc qdisc {} dev $card root {}"
    with connected(pi4_board, "root") as boss:
        netem = shape.format("add", "netem delay 100ms loss 2% rate 8mbit")
        assert boss.run(["sh", "-c", netem], timeout_seconds=60).exit_code == 0
        try:
            with connected(pi4_board) as device:
                folder = place_files(device, {"x.bin": content}, root="/home/pi/lossy")
                told = device.run(["sha256sum", f"{folder}/x.bin"], timeout_seconds=60)
        finally:
            boss.run(["sh", "-c", shape.format("del", "")], timeout_seconds=60)
    assert told.text.split()[0] == hashlib.sha256(content).hexdigest()


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
