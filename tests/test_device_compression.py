"""Compression on the wire: only where the link is seen to be slow, and the bytes give way."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.device.store import placing, shipment
from edgepack.device.store.layout import Layout
from edgepack.device.store.payload import describe_file
from edgepack.device.store.placing import Transfer, place_folder
from edgepack.device.wire.compression import (
    Codec,
    Timing,
    can_be_compressed,
    choose_codec,
    compress,
    host_codecs,
    link_rate,
    unpack_command,
)
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.remote_shell import upload_argv
from edgepack.device.wire.sending import read_parts
from edgepack.device.wire.transport import ProgressCallback
from edgepack.errors import DeviceError
from tests.fixtures.sshd import SshServers
from tests.test_device_resume import noise

MB = 10**6
KIB = 1024


@pytest.fixture(params=list(Codec))
def codec(request: pytest.FixtureRequest) -> Codec:
    found: Codec = request.param
    if which(found) is None:
        pytest.skip(f"{found} is not installed")
    return found


def half_zeros(num_bytes: int) -> bytes:
    """Bytes like those of a pruned model, which take half the room."""
    return b"".join(noise(500, seed=start) + bytes(500) for start in range(0, num_bytes, 1000))


def packed(content: bytes, codec: Codec) -> bytes:
    return b"".join(compress(read_parts(content, 64 * KIB), codec))


def unpacked(content: bytes, codec: Codec) -> bytes:
    argv = unpack_command(codec).split()
    return subprocess.run(argv, input=content, capture_output=True, check=True).stdout


def test_what_is_packed_here_is_unpacked_there(codec: Codec) -> None:
    for content in (half_zeros(2 * MB), b"", b"x"):
        assert unpacked(packed(content, codec), codec) == content
    assert len(packed(half_zeros(2 * MB), codec)) < 1.2 * MB


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=8))
def test_any_parts_make_one_stream(parts: list[bytes]) -> None:
    stream = b"".join(compress((memoryview(part) for part in parts), Codec.GZIP))
    assert unpacked(stream, Codec.GZIP) == b"".join(parts)


def test_one_that_is_left_early_leaves_no_program_behind(codec: Codec) -> None:
    stream = compress(read_parts(noise(8 * MB), 64 * KIB), codec)
    assert next(stream)
    del stream  # which closes it; to wait for a program that waits would hang here


def test_a_slow_link_is_known_by_what_it_took_beyond_a_turn() -> None:
    rate = link_rate([Timing(num_bytes=MB, seconds=1.02)], turn_seconds=0.02)
    assert rate == pytest.approx(MB)
    both = [Timing(num_bytes=MB, seconds=0.5), Timing(num_bytes=MB, seconds=0.5)]
    assert link_rate(both, turn_seconds=0) == pytest.approx(2 * MB)


@pytest.mark.parametrize(
    ("timing", "turn_seconds"),
    [
        (Timing(num_bytes=30_000, seconds=0.06), 0.02),  # which may be chance
        (Timing(num_bytes=MB, seconds=0.59), 0.2),  # less than two turns
        (Timing(num_bytes=MB, seconds=0.01), 0.2),
    ],
)
def test_what_may_be_chance_proves_no_slow_link(timing: Timing, turn_seconds: float) -> None:
    assert link_rate([timing], turn_seconds=turn_seconds) is None
    assert link_rate([], turn_seconds=turn_seconds) is None


def test_what_gives_way_is_compressed_on_slow_links_only(tmp_path: Path) -> None:
    content = half_zeros(MB)
    both = (Codec.ZSTD, Codec.GZIP) if which("zstd") else (Codec.GZIP,)
    assert choose_codec(content, rate=2.0 * MB, offered=both) in both
    # A board unpacks gzip more slowly than such a link brings it.
    assert choose_codec(content, rate=20.0 * MB, offered=[Codec.GZIP]) is None
    assert choose_codec(content, rate=120.0 * MB, offered=both) is None
    assert choose_codec(content, rate=None, offered=both) is None
    assert choose_codec(content, rate=2.0 * MB, offered=()) is None
    assert choose_codec(content[:1000], rate=2.0 * MB, offered=both) is None
    assert choose_codec(noise(MB), rate=2.0 * MB, offered=both) is None
    assert not can_be_compressed(noise(MB))
    (tmp_path / "file").write_bytes(content)
    assert choose_codec(tmp_path / "file", rate=2.0 * MB, offered=[Codec.GZIP]) is Codec.GZIP
    assert not can_be_compressed(b"")


@pytest.mark.sshd
def test_over_ssh_the_file_is_stored_and_its_digest_told(
    tmp_path: Path, ssh_servers: SshServers, codec: Codec
) -> None:
    server = ssh_servers.start()
    file = describe_file("x", half_zeros(MB))
    told: list[int] = []
    wire: list[int] = []
    options = ConnectOptions(ssh_config=server.ssh_config)
    with open_device(server.address, options=options) as device:
        stored = device.upload(
            file.load(),
            f"{tmp_path}/x",
            timeout_seconds=30,
            codec=codec,
            on_progress=told.append,
            on_wire=wire.append,
        )
    assert stored == file.sha256
    assert (tmp_path / "x").read_bytes() == file.load()
    assert sum(told) == file.num_bytes
    assert sum(wire) == len(packed(half_zeros(MB), codec))


def test_a_cut_transfer_leaves_the_beginning_of_the_file(tmp_path: Path, codec: Codec) -> None:
    content = noise(MB)
    argv = upload_argv(
        f"{tmp_path}/x",
        partial=f"{tmp_path}/x.0123abcd.part",
        num_bytes=len(content),
        mode=0o644,
        unpack=unpack_command(codec),
    )
    arrived = packed(content, codec)[: 600 * KIB]
    result = LocalDevice().run(argv, timeout_seconds=30, stdin=arrived)
    assert result.exit_code == 74
    part = (tmp_path / "x.0123abcd.part").read_bytes()
    assert len(part) > 300 * KIB
    assert content.startswith(part)


# A push decides by what it sees.


class Wire(LocalDevice):
    """Uploads as over a wire; it takes the clock along.

    Attributes:
        now: seconds.
        uploads: name and codec of each.
    """

    def __init__(self, bytes_per_second: float, *, path: str = "") -> None:
        self.now = 0.0
        self.uploads: list[tuple[str, Codec | None]] = []
        self._bytes_per_second = bytes_per_second
        self._path = path or os.environ["PATH"]

    def upload(
        self,
        source: Path | bytes,
        target: str,
        *,
        timeout_seconds: float,
        mode: int = 0o644,
        on_progress: ProgressCallback | None = None,
        codec: Codec | None = None,
        on_wire: ProgressCallback | None = None,
    ) -> str:
        content = source if isinstance(source, bytes) else source.read_bytes()
        going = content if codec is None else packed(content, codec)
        argv = upload_argv(
            target,
            partial=f"{target}.0123abcd.part",
            num_bytes=len(content),
            mode=mode,
            unpack="" if codec is None else unpack_command(codec),
        )
        self.uploads.append((Path(target).name, codec))
        self.now += len(going) / self._bytes_per_second
        result = self.run(
            ("env", f"PATH={self._path}", *argv), timeout_seconds=timeout_seconds, stdin=going
        )
        if result.exit_code:
            raise DeviceError("not stored", remedy="Repeat.")
        for tell in (on_progress, on_wire):
            if tell is not None:
                tell(len(content) if tell is on_progress else len(going))
        return result.text.strip()


Place = Callable[[Wire, bytes], Transfer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give a function that places a large file and small ones, by the wire's clock."""

    def place(wire: Wire, large: bytes) -> Transfer:
        clock = SimpleNamespace(monotonic=lambda: wire.now)
        for module in (placing, shipment):
            monkeypatch.setattr(module, "time", clock)
        files = [
            describe_file("large", large),
            describe_file("one", noise(100 * KIB)),
            describe_file("two", noise(100 * KIB, seed=2)),
        ]
        transfer = place_folder(
            wire, Layout(root=str(tmp_path)), folder=f"{tmp_path}/models/m", files=files
        )
        assert (tmp_path / "models/m/large").read_bytes() == large
        assert {each.name for each in (tmp_path / "models/m").iterdir()} == {"large", "one", "two"}
        return transfer

    return place


def test_a_slow_link_gets_the_large_file_compressed(place: Place) -> None:
    wire = Wire(bytes_per_second=100_000)
    large = half_zeros(2 * MB)
    transfer = place(wire, large)
    best = host_codecs()[0]
    assert wire.uploads == [("pack", None), ("large", best)]
    assert transfer.sent_bytes == 200 * KIB + len(large)
    assert transfer.wire_bytes == 200 * KIB + len(packed(large, best))
    assert transfer.codec is best


def test_a_fast_link_does_not(place: Place) -> None:
    wire = Wire(bytes_per_second=1e9)
    transfer = place(wire, half_zeros(2 * MB))
    assert [codec for _, codec in wire.uploads] == [None, None]
    assert transfer.wire_bytes == transfer.sent_bytes
    assert transfer.codec is None


def test_what_does_not_give_way_goes_first_and_as_it_is(place: Place) -> None:
    wire = Wire(bytes_per_second=100_000)
    transfer = place(wire, noise(2 * MB))
    assert wire.uploads == [("large", None), ("pack", None)]
    assert transfer.wire_bytes == transfer.sent_bytes


def test_a_program_that_does_not_unpack_is_done_without(place: Place, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for codec in Codec:
        (tools / codec).write_text("#!/bin/sh\necho 'no' >&2\nexit 1\n")
        (tools / codec).chmod(0o755)
    wire = Wire(bytes_per_second=100_000, path=f"{tools}:{os.environ['PATH']}")
    transfer = place(wire, half_zeros(2 * MB))
    assert wire.uploads == [("pack", None), ("large", host_codecs()[0]), ("large", None)]
    assert transfer.codec is None
    assert transfer.wire_bytes >= transfer.sent_bytes
