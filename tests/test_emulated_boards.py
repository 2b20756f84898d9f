"""The whole way on emulated boards, and what is left when they are cut off in the middle of it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack.bundle.archive import Bundle
from edgepack.device.store.releases import list_releases
from edgepack.device.survey.facts import read_facts
from edgepack.errors import ConnectError
from tests.fixtures.board_steps import BoardBench, connected, current_release
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
        bench = BoardBench(second)
        with pytest.raises(ConnectError, match="closed the connection while "):
            bench.run(board, at_launch=board.cut_power)
        assert bench.num_launches == 1
    with boot_board(board_image, model="raspberry-pi-5", disk=disk) as board:
        with connected(board) as device:
            assert current_release(device, read_facts(device, ROOT).root) == first.release
        assert bench.run(board) == 0  # the runtime is whole, too
        assert bench.num_launches == 3


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
