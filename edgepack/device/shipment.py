"""What goes over the wire for a folder, and what is checked of it on the other side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgepack.device.assembly import Assembly, assembly_lines
from edgepack.device.donors import PREFIX, Piece, Resumption, find_resumption
from edgepack.device.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.layout import STALL_SECONDS, disk_seconds, explain_failure, run_step
from edgepack.device.packing import (
    CUT_BELOW_BYTES,
    PACKED_BELOW_BYTES,
    cut_by_shell,
    cut_command,
    index_by_digest,
    index_by_offset,
    join_pack,
    split_by_size,
)
from edgepack.device.payload import PlacedFile, describe_file
from edgepack.device.staging import TransferCallback
from edgepack.device.transport import Device
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
    """

    payload_bytes: int


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
    device: Device, staging: str, load: Load, *, on_progress: TransferCallback | None
) -> Sent:
    """Send everything into a staging folder, below `new`, each file verified by the device.

    A file that came out wrong where it was put together is sent whole.

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
    for file in load.files:
        if file is not begun:
            _upload(device, f"{staging}/{_target(file, load)}", file, on_progress=tell)
    if load.pack is None and load.assembly is None:
        return Sent(payload_bytes=load.num_bytes)
    is_whole = _cut_apart(device, staging, load)
    if is_whole or load.assembly is None:
        return Sent(payload_bytes=load.num_bytes)
    file = load.assembly.file
    total_bytes = load.num_bytes + file.num_bytes
    tell_more = None if on_progress is None else lambda sent: on_progress(sent, total_bytes)
    _upload(device, f"{staging}/new/{file.path}", file, on_progress=tell_more)
    return Sent(payload_bytes=total_bytes)


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
    device: Device, target: str, file: PlacedFile, *, on_progress: Callable[[int], None] | None
) -> None:
    """Upload one file and compare the digest that the device computed."""
    try:
        stored = device.upload(
            file.load(),
            target,
            timeout_seconds=STALL_SECONDS,
            mode=0o444,
            on_progress=on_progress,
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
            f"{device.name}: stored {file.path} with sha256 {stored[:12]}, "
            f"but {file.sha256[:12]} was sent",
            remedy="Repeat; if it happens again, check the device's storage and memory.",
        )
