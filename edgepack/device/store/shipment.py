"""What goes over the wire for a folder, and what is checked of it on the other side."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgepack.device.store.assembly import Assembly, assembly_lines
from edgepack.device.store.donors import PREFIX, Piece, Resumption, find_resumption
from edgepack.device.store.layout import STALL_SECONDS, disk_seconds, explain_failure, run_step
from edgepack.device.store.packing import (
    CUT_BELOW_BYTES,
    PACKED_BELOW_BYTES,
    cut_by_shell,
    cut_command,
    index_by_digest,
    index_by_offset,
    join_pack,
    split_by_size,
)
from edgepack.device.store.payload import PlacedFile, describe_file
from edgepack.device.store.staging import TransferCallback
from edgepack.device.wire.address import subject
from edgepack.device.wire.compression import (
    Codec,
    Timing,
    can_be_compressed,
    choose_codec,
    link_rate,
)
from edgepack.device.wire.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.wire.transport import Device
from edgepack.errors import ConnectError, DeployError, DeviceError, DeviceTimeoutError

# `$1` the staging folder, `$2` where in it the whole file goes.
_JOIN: Final = f"""
{SHA256_FUNCTION}
cd -- "$1" || exit 1
cat rest >> {PREFIX} && rm -f rest || exit 1
sum=$(sha256 < {PREFIX}) || exit 1
chmod 444 {PREFIX} && mv -f {PREFIX} "$2" || exit 1
printf '%s %s\\n' "${{sum%% *}}" "$2"
"""


# `$1` a file that did not arrive.
_DROP_PARTS: Final = """
rm -f -- "$1".*.part
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What goes over the wire.

    Attributes:
        single: files that go one by one.
        pack: the others, one behind the other; None when there are none.
        packed: what is in it.
        python: the interpreter on the device that cuts it; None leaves that to the shell.
        resumption: of one of them, the beginning that is there already.
        assembly: of a file that is put together on the device; its delta goes last in the pack,
            or by itself where it is large.
    """

    single: tuple[PlacedFile, ...]
    pack: PlacedFile | None = None
    packed: tuple[PlacedFile, ...] = ()
    python: str | None = None
    resumption: Resumption | None = None
    assembly: Assembly | None = None

    @property
    def files(self) -> tuple[PlacedFile, ...]:
        """All of it, as it goes."""
        return self.single if self.pack is None else (*self.single, self.pack)

    @property
    def num_bytes(self) -> int:
        """What is sent."""
        there = self.resumption.num_bytes if self.resumption is not None else 0
        return sum(file.num_bytes for file in self.files) - there

    @property
    def room_bytes(self) -> int:
        """What it takes on the device until it is in place: a pack lies beside its files."""
        beside = 0 if self.pack is None else self.pack.num_bytes
        return self.num_bytes + beside + (self.assembly.file.num_bytes if self.assembly else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What went over the wire.

    Attributes:
        payload_bytes: of files, or of parts of them.
        wire_bytes: what that was on the wire.
        codec: what compressed some of it; None where nothing was.
    """

    payload_bytes: int
    wire_bytes: int
    codec: Codec | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """What is known of the way to a device.

    Attributes:
        turn_seconds: what a command took that sent nothing to speak of.
        codecs: what this machine packs and the device unpacks, the better first.
        timings: of what was sent just now.
        codec: what compressed some of it.
    """

    turn_seconds: float
    codecs: tuple[Codec, ...] = ()
    timings: tuple[Timing, ...] = ()
    codec: Codec | None = None


def make_load(
    files: Sequence[PlacedFile],
    *,
    assembly: Assembly | None = None,
    pieces: Sequence[Piece] = (),
    python: str | None = None,
) -> Load:
    """Sort files into those that go one by one and those that go together.

    Args:
        files: what is to be sent, but for a file that is put together.
        assembly: of that one.
        pieces: what an earlier push left on the device.
        python: an interpreter there, that cuts small files apart, which go together.
    """
    below_bytes = CUT_BELOW_BYTES if python is None else PACKED_BELOW_BYTES
    # Only the shell's script puts files together, and it takes what is sent for them out of a pack.
    python = None if assembly is not None else python
    delta = () if assembly is None or not assembly.delta.num_bytes else (assembly.delta,)
    single, packed = split_by_size((*files, *delta), below_bytes=below_bytes)
    load = Load(single=single, assembly=assembly, python=python)
    if packed:
        pack = describe_file("small files", join_pack(packed))
        load = replace(load, pack=pack, packed=packed)
    return replace(load, resumption=find_resumption(pieces, load.files))


def send_load(
    device: Device, staging: str, load: Load, *, link: Link, on_progress: TransferCallback | None
) -> Sent:
    """Send everything into a staging folder, below `new`, each file verified by the device.

    A file that came out wrong where it was put together is sent whole. What can be compressed
    is, once the files before it showed that the link is slow.

    Raises:
        DeployError: the device refused a file, or stored another.
        ConnectError: the link was lost.
        DeviceTimeoutError: it stopped answering.
    """

    def tell(num_bytes: int) -> None:
        if on_progress is not None:
            on_progress(num_bytes, load.num_bytes)

    tell(0)
    resumption = load.resumption
    begun = next((file for file in load.files if _is_begun(file, resumption)), None)
    if begun is not None and resumption is not None:
        _send_rest(device, staging, _target(begun, load), begun, resumption, on_progress=tell)
    largest = max(load.files, key=lambda file: file.num_bytes, default=None)
    content = largest.load() if largest is not None and link.codecs else None
    files = load.files
    if content is not None and can_be_compressed(content):
        # The small ones show what the link carries. Otherwise large ones go first, so that a cut
        # leaves the beginning of one.
        files = tuple(sorted(files, key=lambda file: file.num_bytes))
    for file in files:
        if file is not begun:
            read = content if file is largest else None
            target = f"{staging}/{_target(file, load)}"
            link = _upload_timed(device, target, file, link, content=read, on_progress=tell)
    sent_bytes = load.num_bytes
    is_whole = (load.pack is None and load.assembly is None) or _cut_apart(device, staging, load)
    if load.assembly is not None and not is_whole:
        file = load.assembly.file
        sent_bytes += file.num_bytes
        tell_more = None if on_progress is None else lambda sent: on_progress(sent, sent_bytes)
        link = _upload_timed(
            device, f"{staging}/new/{file.path}", file, link, on_progress=tell_more
        )
    rest_bytes = (
        0 if begun is None or resumption is None else begun.num_bytes - resumption.num_bytes
    )
    wire_bytes = rest_bytes + sum(each.num_bytes for each in link.timings)
    return Sent(payload_bytes=sent_bytes, wire_bytes=wire_bytes, codec=link.codec)


def _upload_timed(
    device: Device,
    target: str,
    file: PlacedFile,
    link: Link,
    *,
    content: bytes | Path | None = None,
    on_progress: Callable[[int], None] | None,
) -> Link:
    """Upload a file, compressed where that pays; give what is known of the link then."""
    content = file.load() if content is None else content
    rate = link_rate(link.timings, turn_seconds=link.turn_seconds)
    codec = choose_codec(content, rate=rate, offered=link.codecs)
    wire: list[int] = []
    start = time.monotonic()
    try:
        _upload(
            device,
            target,
            file,
            content=content,
            on_progress=on_progress,
            codec=codec,
            on_wire=wire.append,
        )
    except DeployError:
        if codec is None:
            raise
        # A program that is there and does not unpack is no reason to fail.
        plain = replace(link, codecs=(), timings=(*link.timings, _timing(wire, start)))
        run_step(device, _DROP_PARTS, target, action=f"tidy up after {file.path}")
        return _upload_timed(device, target, file, plain, content=content, on_progress=None)
    return replace(link, timings=(*link.timings, _timing(wire, start)), codec=codec or link.codec)


def _timing(wire: Sequence[int], start: float) -> Timing:
    return Timing(num_bytes=sum(wire), seconds=time.monotonic() - start)


def _cut_apart(device: Device, staging: str, load: Load) -> bool:
    """Have the pack cut and the file put together; tell whether that came out right."""
    pack, folder = f"{staging}/pack", f"{staging}/new"
    assembly = load.assembly
    packed = tuple(file for file in load.packed if assembly is None or file is not assembly.delta)
    if load.python is not None:
        argv, index = cut_command(load.python, pack, folder), index_by_digest(packed)
    else:
        argv = cut_by_shell(pack, folder, assembled=assembly.file.path if assembly else "")
        index = index_by_offset(packed)
    if assembly is not None:
        is_packed = assembly.delta in load.packed
        index += b"\n" + assembly_lines(
            assembly,
            delta=pack if is_packed else f"{staging}/{_target(assembly.delta, load)}",
            delta_offset=sum(file.num_bytes for file in packed) if is_packed else 0,
        )
    written = (*packed, *((assembly.file,) if assembly else ()))
    num_bytes = sum(file.num_bytes for file in written)
    result = device.run(argv, stdin=index, timeout_seconds=disk_seconds(2 * num_bytes))
    if result.exit_code:
        raise explain_failure(
            result, action=f"unpack {staging}", where=device.name, error=DeployError
        )
    if load.python is not None:
        return True  # which compared the digests itself
    sizes = {file.path: file.num_bytes for file in written}
    stored = read_hashes(device, result.text.splitlines(), folder=folder, sizes=sizes)
    for file in packed:
        _check_stored(device, file, stored.get(file.path, "nothing"))
    return assembly is None or stored.get(assembly.file.path) == assembly.file.sha256


def _is_begun(file: PlacedFile, resumption: Resumption | None) -> bool:
    return resumption is not None and file.sha256 == resumption.sha256


def _target(file: PlacedFile, load: Load) -> str:
    if load.assembly is not None and file is load.assembly.delta:
        return "delta"
    return "pack" if file is load.pack else f"new/{file.path}"


def _send_rest(
    device: Device,
    staging: str,
    target: str,
    file: PlacedFile,
    resumption: Resumption,
    *,
    on_progress: Callable[[int], None],
) -> None:
    """Send what is missing of a file, join it to its beginning, and have the whole hashed."""
    content = file.load()
    data = content.read_bytes() if isinstance(content, Path) else content
    rest = describe_file(file.path, data[resumption.num_bytes :])
    _upload(device, f"{staging}/rest", rest, on_progress=on_progress)
    result = run_step(
        device,
        _JOIN,
        staging,
        target,
        action=f"join {file.path}",
        timeout_seconds=disk_seconds(2 * file.num_bytes),
    )
    sizes = {target: file.num_bytes}
    stored = read_hashes(device, result.text.splitlines(), folder=staging, sizes=sizes)
    _check_stored(device, file, stored.get(target, "nothing"))


def _upload(
    device: Device,
    target: str,
    file: PlacedFile,
    *,
    content: bytes | Path | None = None,
    on_progress: Callable[[int], None] | None,
    codec: Codec | None = None,
    on_wire: Callable[[int], None] | None = None,
) -> None:
    """Upload one file and compare the digest that the device computed."""
    try:
        stored = device.upload(
            file.load() if content is None else content,
            target,
            timeout_seconds=STALL_SECONDS,
            mode=0o444,
            on_progress=on_progress,
            codec=codec,
            on_wire=on_wire,
        )
    except (ConnectError, DeviceTimeoutError):
        raise
    except DeviceError as error:
        raise DeployError(
            f"could not send {file.path}: {error.message}", remedy=error.remedy
        ) from error
    _check_stored(device, file, stored)


def _check_stored(device: Device, file: PlacedFile, stored: str) -> None:
    if stored != file.sha256:
        raise DeployError(
            f"{subject(device.name)} stored {file.path} with sha256 {stored[:12]}, "
            f"but {file.sha256[:12]} was sent",
            remedy="Repeat; if it happens again, check the device's storage and memory.",
        )
