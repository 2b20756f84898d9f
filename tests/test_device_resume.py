"""Pushes that go on from where an earlier one was cut."""

import hashlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.archive import Bundle
from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.donors import Piece, Resumption, find_resumption
from edgepack.device.store.layout import Layout
from edgepack.device.store.payload import describe_file
from edgepack.device.store.placing import place_folder
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import ConnectError, DeployError
from tests.fixtures.broken_wire import BrokenWire
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.sshd import SshServers

MIB = 2**20


def noise(num_bytes: int, *, seed: int = 1) -> bytes:
    """Bytes that look nowhere like themselves."""
    return np.random.default_rng(seed).bytes(num_bytes)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with one file of 4 MiB, which goes first; the small ones follow together."""
    return write_digits_bundle(
        tmp_path_factory.mktemp("bundle") / "large.edgepack",
        extra_files={"classes.txt": b"nil\n", "weights.bin": noise(4 * MIB)},
    )


def total_bytes(bundle: Bundle) -> int:
    return sum(record.num_bytes for record in bundle.files())


def assert_whole(root: Path, bundle: Bundle) -> None:
    folder = root / "bundles/digits/current"
    for record in bundle.files():
        assert (folder / record.path).read_bytes() == bundle.read(record.path)
    assert list((root / "staging").iterdir()) == []


def cut_at(root: Path, bundle: Bundle, num_bytes: int) -> None:
    with pytest.raises(ConnectError):
        push_bundle(BrokenWire(num_bytes), bundle, root=str(root))


def test_the_next_push_sends_what_did_not_arrive(tmp_path: Path, large: Bundle) -> None:
    arrived = 3 * MIB + 12_345
    cut_at(tmp_path, large, arrived)
    device = BrokenWire()
    told: list[tuple[int, int]] = []
    deployment = push_bundle(
        device, large, root=str(tmp_path), on_progress=lambda *each: told.append(each)
    )
    assert deployment.sent_bytes == total_bytes(large) - arrived == device.sent_bytes
    assert deployment.skipped_bytes == arrived
    assert told[0] == (0, deployment.sent_bytes)
    assert sum(count for count, _ in told) == deployment.sent_bytes
    assert_whole(tmp_path, large)


def test_cut_again_and_again_each_push_goes_on(tmp_path: Path, large: Bundle) -> None:
    cut_at(tmp_path, large, MIB)
    for _ in range(3):
        cut_at(tmp_path, large, 700_000)
    device = BrokenWire()
    push_bundle(device, large, root=str(tmp_path))
    assert device.sent_bytes == total_bytes(large) - (MIB + 3 * 700_000)
    assert_whole(tmp_path, large)


@pytest.mark.parametrize("damage", ["flip the first byte", "flip the last byte", "zeros"])
def test_no_byte_is_trusted_for_its_size(tmp_path: Path, large: Bundle, damage: str) -> None:
    cut_at(tmp_path, large, 2 * MIB)
    (part,) = (tmp_path / "staging").rglob("*.part")
    content = bytearray(part.read_bytes())
    assert len(content) == 2 * MIB
    if damage == "zeros":  # as after a power cut, when the size reached the disk before the bytes
        content[MIB:] = bytes(MIB)
    else:
        content[0 if "first" in damage else -1] ^= 1
    part.write_bytes(content)
    device = BrokenWire()
    push_bundle(device, large, root=str(tmp_path))
    assert device.sent_bytes == total_bytes(large)
    assert_whole(tmp_path, large)


def test_a_beginning_that_changes_after_it_was_hashed_is_found(
    tmp_path: Path, large: Bundle
) -> None:
    cut_at(tmp_path, large, 2 * MIB)

    class Meddler(BrokenWire):
        def upload(self, *arguments: object, **named: object) -> str:
            for prefix in (tmp_path / "staging").rglob("prefix"):
                with prefix.open("r+b") as file:
                    file.write(b"other bytes")
            return super().upload(*arguments, **named)  # type: ignore[arg-type]  # passed on

    with pytest.raises(DeployError, match=r"local: stored files/weights.bin with sha256 "):
        push_bundle(Meddler(), large, root=str(tmp_path))
    assert not (tmp_path / "bundles/digits/current").exists()
    push_bundle(LocalDevice(), large, root=str(tmp_path))
    assert_whole(tmp_path, large)


def test_a_pack_of_small_files_goes_on_too(tmp_path: Path) -> None:
    files = [describe_file(f"site/{number}.py", noise(400_000, seed=number)) for number in range(5)]

    def place(device: LocalDevice) -> int:
        transfer = place_folder(
            device,
            Layout(root=str(tmp_path)),
            folder=f"{tmp_path}/runtimes/r",
            files=files,
            python=sys.executable,
        )
        return transfer.sent_bytes

    with pytest.raises(ConnectError):
        place(BrokenWire(1_500_000))
    assert place(BrokenWire()) == 500_000
    for file in files:
        assert (tmp_path / "runtimes/r" / file.path).read_bytes() == file.load()
    assert list((tmp_path / "staging").iterdir()) == []


def test_what_a_cut_push_left_gives_way_when_room_is_short(tmp_path: Path, large: Bundle) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=7m", "none", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        cut_at(disk, large, MIB)
        (part,) = (disk / "staging").rglob("weights.bin.*.part")
        part.write_bytes(noise(5 * MIB, seed=2))  # of no use, and in the way
        push_bundle(LocalDevice(), large, root=str(disk))
        assert_whole(disk, large)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.sshd
def test_a_killed_session_is_gone_on_from(
    tmp_path: Path, large: Bundle, ssh_servers: SshServers
) -> None:
    server = ssh_servers.start()
    options = ConnectOptions(ssh_config=server.ssh_config)
    half = total_bytes(large) // 2
    sent = 0

    def kill_session(num_bytes: int, _: int) -> None:
        nonlocal sent
        sent += num_bytes
        if sent >= half:
            sent = -(2**40)
            # Once what was sent is on the disk, or there would be nothing to go on from.
            while not any(
                part.stat().st_size >= MIB for part in (tmp_path / "staging").rglob("*.part")
            ):
                threading.Event().wait(0.01)
            server.kill_sessions()

    with (
        open_device(server.address, options=options) as device,
        pytest.raises(ConnectError),
    ):
        push_bundle(device, large, root=str(tmp_path), on_progress=kill_session)
    with open_device(server.address, options=options) as device:
        deployment = push_bundle(device, large, root=str(tmp_path))
    assert deployment.sent_bytes <= total_bytes(large) - MIB
    assert_whole(tmp_path, large)


def piece(content: bytes, number: int = 0) -> Piece:
    return Piece(
        path=f"/{number}", sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content)
    )


@given(
    st.lists(st.integers(1, 200_000), max_size=5),
    st.randoms(use_true_random=False),
    st.lists(st.binary(min_size=1, max_size=50), max_size=3),
)
def test_pieces_in_any_order_are_put_together(
    sizes: list[int], chance: random.Random, others: list[bytes]
) -> None:
    content = noise(1_000_000)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    parts = [content[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    pieces = [piece(part, number) for number, part in enumerate([*parts, *others])]
    chance.shuffle(pieces)
    file = describe_file("model.tflite", content)
    found = find_resumption(pieces, [file])
    joined = sum(sizes)
    if found is None:
        assert not any(content.startswith(each) for each in [*parts, *others])
        return
    assert found.sha256 == file.sha256
    assert found.num_bytes >= joined
    at = {f"/{number}": part for number, part in enumerate([*parts, *others])}
    assert b"".join(at[each.path] for each in found.pieces) == content[: found.num_bytes]


def test_small_files_and_foreign_pieces_are_no_beginning() -> None:
    content = noise(600_000)
    files = [describe_file("small", content[:1000]), describe_file("model", content)]
    assert find_resumption([piece(b"foreign")], files) is None
    assert find_resumption([piece(content + b"more")], files) is None
    assert find_resumption([], files) is None
    assert find_resumption([piece(content[:400_000])], files) == Resumption(
        sha256=files[1].sha256, num_bytes=400_000, pieces=(piece(content[:400_000]),)
    )
