"""Folders that appear on a device complete or not at all, whoever vanishes in between."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, TypeVar

from edgepack.device.store.assembly import plan_assembly
from edgepack.device.store.donors import PREFIX, Donors, find_donors
from edgepack.device.store.inventory import Inventory, take_inventory
from edgepack.device.store.layout import (
    RENAME_FUNCTION,
    Layout,
    disk_seconds,
    is_confined,
    run_step,
)
from edgepack.device.store.payload import PlacedFile
from edgepack.device.store.shipment import Link, Load, make_load, send_load
from edgepack.device.store.staging import TransferCallback, staging_folder, sweep
from edgepack.device.wire.address import subject
from edgepack.device.wire.compression import Codec
from edgepack.device.wire.hashing import SHA256_FUNCTION
from edgepack.device.wire.transport import Device
from edgepack.errors import DeployError

T = TypeVar("T")

_MAX_FILES: Final = 65536
_MARGIN_BYTES: Final = 2**20

# `$1` the staging folder to make; standard input: `dir PATH`, or `link`, source, target and hash,
# or `piece PATH`: the next part of a file's beginning.
_STAGE: Final = f"""
{SHA256_FUNCTION}
umask 022
mkdir -- "$1" "$1/new" || exit 1
while IFS=' ' read -r verb path; do
  case $verb in
  dir) mkdir -p -- "$1/new/$path" || exit 1 ;;
  link)
    IFS= read -r source; IFS= read -r expected
    ln -- "$source" "$1/new/$path" 2>/dev/null && continue
    cp -- "$source" "$1/new/$path" || exit 1
    sum=$(sha256 < "$1/new/$path")
    [ "${{sum%% *}}" = "$expected" ] && continue
    echo "$source: changed while it was copied" >&2; exit 1
    ;;
  piece)
    if [ -f "$1/{PREFIX}" ]; then cat -- "$path" >> "$1/{PREFIX}" || exit 1
    else mv -f -- "$path" "$1/{PREFIX}" && chmod u+w "$1/{PREFIX}" || exit 1; fi
    ;;
  esac
done
"""

# `$1` the staging folder, `$2` the folder to fill; standard input: each staged file. Files
# reach the disk before names do, so that a power cut leaves no name without its bytes; a
# damaged folder is mended file by file, because `current` may be leading there right now.
_FINISH: Final = f"""
{RENAME_FUNCTION}
umask 022
find "$1/new" -type f -exec sync {{}} + 2>/dev/null || sync
if [ -d "$2" ]; then
  while IFS= read -r path; do
    case $path in */*) mkdir -p -- "$2/${{path%/*}}" || exit 1 ;; esac
    rename "$1/new/$path" "$2/$path" || exit 1
  done
else rename "$1/new" "$2" || [ -d "$2" ] || exit 1; fi
rm -rf -- "$1"
exit 0
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """What placing a folder took.

    Attributes:
        sent_bytes: payload that went over the wire.
        skipped_bytes: payload the device already had, verified there by hash.
        wire_bytes: what was sent as it went over the wire, compressed or not.
        codec: what compressed some of it; None where nothing was.
        was_there: whether the folder was there before, whole or damaged.
        link_target: where the link that was asked for leads; empty when it leads nowhere.
    """

    sent_bytes: int
    skipped_bytes: int
    wire_bytes: int = 0
    codec: Codec | None = None
    was_there: bool = False
    link_target: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    folder: str
    files: tuple[PlacedFile, ...]
    link: str
    reuse_siblings: bool
    python: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    inventory: Inventory
    missing: tuple[PlacedFile, ...]
    donors: Donors
    load: Load


def place_folder(
    device: Device,
    layout: Layout,
    *,
    folder: str,
    files: Sequence[PlacedFile],
    link: str | None = None,
    reuse_siblings: bool = False,
    python: str | None = None,
    check: Callable[[str], None] | None = None,
    admit: Callable[[], None] | None = None,
    on_progress: TransferCallback | None = None,
) -> Transfer:
    """Make a folder on the device hold exactly these contents.

    What is there is verified by hash on the device; only what is missing or differs is
    sent, to a staging folder, and renamed into place when all of it has been verified. Of a
    file whose blobs are known only those are sent that no neighbor holds. A
    file that was on its way when a link was lost goes on from where it stopped.

    Args:
        device: a connected device.
        layout: of the deploy root the folder lies in.
        folder: absolute path on the device.
        files: what it shall hold.
        link: a link on the device whose target is wanted too.
        reuse_siblings: whether equal files of neighboring folders are linked, not sent.
        python: an interpreter on the device that cuts small files apart, which go together;
            None leaves that to the shell.
        check: called with a new folder's staging name when it is complete, before it is
            renamed into place; raises to refuse it.
        admit: called before anything is sent where the device has a list of allowed signers;
            raises to refuse the files.
        on_progress: called as bytes go out.

    Raises:
        DeployError: no room, no permission, or what the device stored is not what was sent.
        ConnectError: the link was lost; the device holds what it held before.
        DeviceTimeoutError: it stopped answering.
    """
    _check_paths(files)
    wanted = _Wanted(
        folder=folder,
        files=tuple(files),
        link=link or "",
        reuse_siblings=reuse_siblings,
        python=python,
    )
    plan = _make_plan(device, layout, wanted)
    if admit is not None and plan.inventory.is_guarded:
        admit()
    if plan.inventory.abandoned and _is_short(plan.inventory.free_bytes, plan.load.room_bytes):
        # What an earlier push left takes the room itself.
        sweep(device, layout, plan.inventory.abandoned)
        plan = _make_plan(device, layout, wanted)
    inventory, missing = plan.inventory, plan.missing
    total_bytes = sum(file.num_bytes for file in files)
    _check_room(device, layout, inventory.free_bytes, plan.load.room_bytes)
    transfer = Transfer(
        sent_bytes=0,
        skipped_bytes=total_bytes,
        was_there=inventory.is_present,
        link_target=inventory.link_target,
    )
    if not missing:
        if inventory.abandoned:
            sweep(device, layout, inventory.abandoned)
        return transfer
    with staging_folder(device, layout, PurePosixPath(folder).name) as staging:
        start = time.monotonic()
        _stage(device, staging, plan)
        way = Link(turn_seconds=time.monotonic() - start, codecs=inventory.codecs)
        if inventory.abandoned:
            sweep(device, layout, inventory.abandoned)
        sent = send_load(device, staging, plan.load, link=way, on_progress=on_progress)
        if check is not None and not inventory.is_present:
            check(f"{staging}/new")
        run_step(
            device,
            _FINISH,
            staging,
            folder,
            action=f"put {folder} into place",
            stdin="".join(f"{file.path}\n" for file in missing).encode(),
            timeout_seconds=disk_seconds(total_bytes),
        )
    return replace(
        transfer,
        sent_bytes=sent.payload_bytes,
        skipped_bytes=max(0, total_bytes - sent.payload_bytes),
        wire_bytes=sent.wire_bytes,
        codec=sent.codec,
    )


def place_proved(
    device: Device,
    layout: Layout,
    *,
    folder: str,
    files: Sequence[PlacedFile],
    prove: Callable[[str], T],
    python: str | None = None,
    on_progress: TransferCallback | None = None,
) -> tuple[T, Transfer]:
    """Make a folder hold these contents once they are proved, and give what the proof gave.

    Args:
        device: as in `place_folder`, which has the others too.
        layout: likewise.
        folder: likewise.
        files: likewise.
        prove: called with the folder while it is staged, or where it stands when a damaged one
            was mended; raises to refuse it.
        python: likewise.
        on_progress: likewise.

    Raises:
        DeployError, ConnectError, DeviceTimeoutError: as `place_folder`.
    """
    proved: list[T] = []
    transfer = place_folder(
        device,
        layout,
        folder=folder,
        files=files,
        python=python,
        check=lambda staged: proved.append(prove(staged)),
        on_progress=on_progress,
    )
    return (proved[0] if proved else prove(folder)), transfer


def _make_plan(device: Device, layout: Layout, wanted: _Wanted) -> _Plan:
    inventory = take_inventory(device, layout, wanted.folder, wanted.files, wanted.link)
    missing = tuple(file for file in wanted.files if inventory.hashes.get(file.path) != file.sha256)
    donors = Donors(files={})
    if missing and ((wanted.reuse_siblings and inventory.has_siblings) or inventory.abandoned):
        donors = find_donors(
            device,
            layout,
            wanted.folder,
            missing,
            reuse_siblings=wanted.reuse_siblings,
            abandoned=inventory.abandoned,
        )
    to_send = [file for file in missing if file.sha256 not in donors.files]
    assemblies = (plan_assembly(file, donors.ranges) for file in to_send if file.blobs)
    assembly = next((each for each in assemblies if each is not None), None)
    load = make_load(
        [file for file in to_send if assembly is None or file is not assembly.file],
        assembly=assembly,
        pieces=donors.pieces,
        python=wanted.python,
    )
    return _Plan(inventory=inventory, missing=missing, donors=donors, load=load)


def _check_paths(files: Sequence[PlacedFile]) -> None:
    paths = {file.path for file in files}
    bad = sorted(path for path in paths if not is_confined(path) or path != path.strip())
    if bad or len(paths) != len(files) or len(files) > _MAX_FILES or not files:
        reason = f"{bad[0]!r} leaves its folder" if bad else f"{len(files)} files, or a path twice"
        raise DeployError(
            f"cannot place files: expected distinct relative paths, not {reason}",
            remedy="Pack the bundle again.",
        )


def _is_short(free_bytes: int | None, needed: int) -> bool:
    return free_bytes is not None and needed > 0 and needed + _MARGIN_BYTES > free_bytes


def _check_room(device: Device, layout: Layout, free_bytes: int | None, needed: int) -> None:
    if free_bytes is not None and _is_short(free_bytes, needed):
        raise DeployError(
            f"{subject(device.name)} {layout.root} needs {needed / 2**20:.1f} MiB of room, "
            f"but {free_bytes / 2**20:.1f} MiB are free",
            remedy="Remove old releases with `edgepack releases DEVICE --prune`, free some room "
            "on the device, or give another `--root`.",
        )


def _stage(device: Device, staging: str, plan: _Plan) -> None:
    missing, donors = plan.missing, plan.donors.files
    folders = sorted({str(PurePosixPath(file.path).parent) for file in missing} - {"."})
    lines = [f"dir {path}" for path in folders]
    for file in missing:
        if file.sha256 in donors:
            lines += [f"link {file.path}", donors[file.sha256], file.sha256]
    if plan.load.resumption is not None:
        lines += [f"piece {piece.path}" for piece in plan.load.resumption.pieces]
    run_step(
        device,
        _STAGE,
        staging,
        action=f"make {staging}",
        stdin="".join(f"{line}\n" for line in lines).encode(),
        timeout_seconds=disk_seconds(sum(file.num_bytes for file in missing)),
    )
