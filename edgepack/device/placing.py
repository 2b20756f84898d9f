"""Folders that appear on a device complete or not at all, whoever vanishes in between."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from edgepack.device.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.layout import (
    RENAME_FUNCTION,
    STALL_SECONDS,
    Layout,
    disk_seconds,
    explain_failure,
    is_confined,
    run_step,
)
from edgepack.device.packing import cut_command, join_pack, split_by_size
from edgepack.device.payload import PlacedFile, describe_file
from edgepack.device.sections import parse_count
from edgepack.device.staging import TransferCallback, is_abandoned, staging_folder, sweep
from edgepack.device.transport import Device
from edgepack.errors import ConnectError, DeployError, DeviceError, DeviceTimeoutError

_MAX_DONORS: Final = 8
_MAX_FILES: Final = 65536
_STILL_MINUTES: Final = 10
_MARGIN_BYTES: Final = 2**20
_HASHED: Final = re.compile(r"([0-9a-f]{64}) (.*)")

# `$1` staging, `$2` the folder to fill, `$3` its parent, `$4` a link or nothing; standard
# input: the paths wanted. Where nothing moved for minutes, a host vanished.
_INVENTORY: Final = f"""
{SHA256_FUNCTION}
umask 022
mkdir -p -- "$1" "$3" || exit 1
[ -w "$1" ] && [ -w "$3" ] || {{ echo "$3: Permission denied" >&2; exit 1; }}
for folder in "$1"/*; do
  [ -d "$folder" ] || continue
  recent=$(find "$folder" -mmin -{_STILL_MINUTES} 2>/dev/null | head -n 1)
  [ -n "$recent" ] && word=moving || word=still
  printf '%s %s\\n' "$word" "${{folder##*/}}"
done
df -Pk "$1" 2>/dev/null | {{
  read -r _; read -r _ blocks _ free _
  [ -n "$blocks" ] || read -r _ _ free _
  printf 'free %s\\n' "$free"
}}
[ -n "$4" ] && printf 'link %s\\n' "$(readlink "$4" 2>/dev/null)"
[ -L "$2" ] && {{ echo "$2: Not a directory" >&2; exit 1; }}
[ -d "$2" ] || exit 0
cd -- "$2" || exit 1
printf 'present\\n'
while IFS= read -r path; do
  [ -f "$path" ] && [ ! -L "$path" ] || continue
  sum=$(sha256 < "$path") && printf 'file %s %s\\n' "${{sum%% *}}" "$path"
done
"""

# `$1` folder of siblings, `$2` the sibling that is being filled, `$3` the sizes wanted.
_DONORS: Final = f"""
{SHA256_FUNCTION}
cd -- "$1" || exit 1
ls -t | head -n {_MAX_DONORS + 1} | while IFS= read -r sibling; do
  [ "$sibling" != "$2" ] && [ -d "$sibling" ] && [ ! -L "$sibling" ] || continue
  find "./$sibling" -type f 2>/dev/null | head -n 4096 | while IFS= read -r path; do
    size=$(wc -c < "$path") || continue
    case " $3 " in *" "$((size))" "*) ;; *) continue ;; esac
    sum=$(sha256 < "$path") && printf '%s %s\\n' "${{sum%% *}}" "${{path#./}}"
  done
done
"""

# `$1` the staging folder to make; standard input: `dir PATH`, or `link`, source, target and hash.
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
        was_there: whether the folder was there before, whole or damaged.
        link_target: where the link that was asked for leads; empty when it leads nowhere.
    """

    sent_bytes: int
    skipped_bytes: int
    was_there: bool = False
    link_target: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inventory:
    is_present: bool
    link_target: str
    hashes: Mapping[str, str]
    free_bytes: int | None
    abandoned: tuple[str, ...]


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
    on_progress: TransferCallback | None = None,
) -> Transfer:
    """Make a folder on the device hold exactly these contents.

    What is there is verified by hash on the device; only what is missing or differs is
    sent, to a staging folder, and renamed into place when all of it has been verified.

    Args:
        device: a connected device.
        layout: of the deploy root the folder lies in.
        folder: absolute path on the device.
        files: what it shall hold.
        link: a link on the device whose target is wanted too.
        reuse_siblings: whether equal files of neighboring folders are linked, not sent.
        python: an interpreter on the device, by which small files go together in one upload.
        check: called with a new folder's staging name when it is complete, before it is
            renamed into place; raises to refuse it.
        on_progress: called as bytes go out.

    Raises:
        DeployError: no room, no permission, or what the device stored is not what was sent.
        ConnectError: the link was lost; the device holds what it held before.
        DeviceTimeoutError: it stopped answering.
    """
    _check_paths(files)
    inventory = _take_inventory(device, layout, folder, files, link or "")
    missing = [file for file in files if inventory.hashes.get(file.path) != file.sha256]
    total_bytes = sum(file.num_bytes for file in files)
    donors: dict[str, str] = {}
    if missing and reuse_siblings:
        donors = _find_donors(device, folder, missing)
    to_send = [file for file in missing if file.sha256 not in donors]
    sent_bytes = sum(file.num_bytes for file in to_send)
    _check_room(device, layout, inventory.free_bytes, sent_bytes)
    if inventory.abandoned:
        sweep(device, layout, inventory.abandoned)
    transfer = Transfer(
        sent_bytes=sent_bytes,
        skipped_bytes=total_bytes - sent_bytes,
        was_there=inventory.is_present,
        link_target=inventory.link_target,
    )
    if not missing:
        return transfer
    with staging_folder(device, layout, PurePosixPath(folder).name) as staging:
        _stage(device, staging, missing, donors)
        _send_all(device, staging, to_send, python=python, on_progress=on_progress)
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
    return transfer


def _check_paths(files: Sequence[PlacedFile]) -> None:
    paths = {file.path for file in files}
    bad = sorted(path for path in paths if not is_confined(path) or path != path.strip())
    if bad or len(paths) != len(files) or len(files) > _MAX_FILES or not files:
        reason = f"{bad[0]!r} leaves its folder" if bad else f"{len(files)} files, or a path twice"
        raise DeployError(
            f"cannot place files: expected distinct relative paths, not {reason}",
            remedy="Pack the bundle again.",
        )


def _take_inventory(
    device: Device, layout: Layout, folder: str, files: Sequence[PlacedFile], link: str
) -> _Inventory:
    result = run_step(
        device,
        _INVENTORY,
        layout.staging,
        folder,
        str(PurePosixPath(folder).parent),
        link,
        action=f"look into {layout.root}",
        stdin="".join(f"{file.path}\n" for file in files).encode(),
        timeout_seconds=disk_seconds(sum(file.num_bytes for file in files)),
    )
    hashed: list[str] = []
    abandoned: list[str] = []
    free_kib: int | None = None
    is_present, link_target = False, ""
    for line in result.text.splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "present":
            is_present = True
        elif verb == "link":
            link_target = rest
        elif verb == "free":
            free_kib = parse_count(rest, maximum=2**50)
        elif verb == "file":
            hashed.append(rest)
        elif verb in {"still", "moving"} and is_abandoned(rest, lies_still=verb == "still"):
            abandoned.append(rest)
    return _Inventory(
        is_present=is_present,
        link_target=link_target,
        hashes=read_hashes(
            device, hashed, folder=folder, sizes={file.path: file.num_bytes for file in files}
        ),
        free_bytes=None if free_kib is None else free_kib * 1024,
        abandoned=tuple(abandoned),
    )


def _find_donors(device: Device, folder: str, missing: Sequence[PlacedFile]) -> dict[str, str]:
    """Give where on the device files of the wanted contents lie, as the device hashed them."""
    parent = PurePosixPath(folder).parent
    result = run_step(
        device,
        _DONORS,
        str(parent),
        PurePosixPath(folder).name,
        " ".join(str(file.num_bytes) for file in missing),
        action=f"look into {parent}",
        timeout_seconds=disk_seconds(_MAX_DONORS * sum(file.num_bytes for file in missing)),
    )
    wanted = {file.sha256 for file in missing}
    donors: dict[str, str] = {}
    for line in result.text.splitlines():
        hashed = _HASHED.fullmatch(line)
        if hashed and hashed[1] in wanted and is_confined(hashed[2]):
            donors.setdefault(hashed[1], f"{parent}/{hashed[2]}")
    return donors


def _check_room(device: Device, layout: Layout, free_bytes: int | None, needed: int) -> None:
    if free_bytes is not None and needed and needed + _MARGIN_BYTES > free_bytes:
        raise DeployError(
            f"{device.name}: {layout.root} needs {needed / 2**20:.1f} MiB of room, "
            f"but {free_bytes / 2**20:.1f} MiB are free",
            remedy="Free some room on the device, or give another `--root`.",
        )


def _stage(
    device: Device, staging: str, missing: Sequence[PlacedFile], donors: Mapping[str, str]
) -> None:
    folders = sorted({str(PurePosixPath(file.path).parent) for file in missing} - {"."})
    lines = [f"dir {path}" for path in folders]
    for file in missing:
        if file.sha256 in donors:
            lines += [f"link {file.path}", donors[file.sha256], file.sha256]
    run_step(
        device,
        _STAGE,
        staging,
        action=f"make {staging}",
        stdin="".join(f"{line}\n" for line in lines).encode(),
        timeout_seconds=disk_seconds(sum(file.num_bytes for file in missing)),
    )


def _send_all(
    device: Device,
    staging: str,
    files: Sequence[PlacedFile],
    *,
    python: str | None,
    on_progress: TransferCallback | None,
) -> None:
    total_bytes = sum(file.num_bytes for file in files)

    def tell(num_bytes: int) -> None:
        if on_progress is not None:
            on_progress(num_bytes, total_bytes)

    tell(0)
    single, packed = (tuple(files), ()) if python is None else split_by_size(files)
    for file in single:
        _upload(device, f"{staging}/new/{file.path}", file, on_progress=tell)
    if packed and python is not None:
        content, index = join_pack(packed)
        pack = describe_file("small files", content)
        _upload(device, f"{staging}/pack", pack, on_progress=tell)
        result = device.run(
            cut_command(python, f"{staging}/pack", f"{staging}/new"),
            stdin=index,
            timeout_seconds=disk_seconds(pack.num_bytes),
        )
        if result.exit_code:
            raise explain_failure(
                result, action=f"unpack {staging}", where=device.name, error=DeployError
            )


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
    if stored != file.sha256:
        raise DeployError(
            f"{device.name}: stored {file.path} with sha256 {stored[:12]}, "
            f"but {file.sha256[:12]} was sent",
            remedy="Repeat; if it happens again, check the device's storage and memory.",
        )
