"""What goes over the wire for a folder, and what is checked of it on the other side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgepack.device.donors import PREFIX, Piece, Resumption, find_resumption
from edgepack.device.faults import subject
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
    """

    single: tuple[PlacedFile, ...]
    pack: PlacedFile | None = None
    packed: tuple[PlacedFile, ...] = ()
    python: str | None = None
    resumption: Resumption | None = None

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
        return self.num_bytes + (self.pack.num_bytes if self.pack is not None else 0)


def make_load(
    files: Sequence[PlacedFile], *, pieces: Sequence[Piece] = (), python: str | None = None
) -> Load:
    """Sort files into those that go one by one and those that go together.

    Args:
        files: what is to be sent.
        pieces: what an earlier push left on the device.
        python: an interpreter there, that cuts small files apart, which go together.
    """
    below_bytes = CUT_BELOW_BYTES if python is None else PACKED_BELOW_BYTES
    single, packed = split_by_size(files, below_bytes=below_bytes)
    load = Load(single=single)
    if packed:
        pack = describe_file("small files", join_pack(packed))
        load = Load(single=single, pack=pack, packed=packed, python=python)
    return replace(load, resumption=find_resumption(pieces, load.files))


def send_load(
    device: Device, staging: str, load: Load, *, on_progress: TransferCallback | None
) -> None:
    """Send everything into a staging folder, below `new`, each file verified by the device.

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
    if load.pack is not None:
        _cut_apart(device, staging, load)


def _cut_apart(device: Device, staging: str, load: Load) -> None:
    pack, folder = f"{staging}/pack", f"{staging}/new"
    if load.python is not None:
        argv, index = cut_command(load.python, pack, folder), index_by_digest(load.packed)
    else:
        argv, index = cut_by_shell(pack, folder), index_by_offset(load.packed)
    num_bytes = sum(file.num_bytes for file in load.packed)
    result = device.run(argv, stdin=index, timeout_seconds=disk_seconds(2 * num_bytes))
    if result.exit_code:
        raise explain_failure(
            result, action=f"unpack {staging}", where=device.name, error=DeployError
        )
    if load.python is not None:
        return  # which compared the digests itself
    sizes = {file.path: file.num_bytes for file in load.packed}
    stored = read_hashes(device, result.text.splitlines(), folder=folder, sizes=sizes)
    for file in load.packed:
        _check_stored(device, file, stored.get(file.path, "nothing"))


def _is_begun(file: PlacedFile, resumption: Resumption | None) -> bool:
    return resumption is not None and file.sha256 == resumption.sha256


def _target(file: PlacedFile, load: Load) -> str:
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
    device: Device, target: str, file: PlacedFile, *, on_progress: Callable[[int], None]
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
            f"{subject(device.name)} stored {file.path} with sha256 {stored[:12]}, "
            f"but {file.sha256[:12]} was sent",
            remedy="Repeat; if it happens again, check the device's storage and memory.",
        )
