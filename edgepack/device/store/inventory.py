"""What lies on a device before a folder is filled there: one question, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from edgepack.device.store.layout import (
    FREE_FUNCTION,
    SIGNERS_NAME,
    Layout,
    disk_seconds,
    run_step,
)
from edgepack.device.store.payload import PlacedFile
from edgepack.device.store.staging import is_abandoned
from edgepack.device.wire.compression import Codec, host_codecs
from edgepack.device.wire.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.wire.sections import parse_count
from edgepack.device.wire.transport import Device

_STILL_MINUTES: Final = 10

# `$1` staging, `$2` the folder to fill, `$3` its parent, `$4` a link or nothing; standard
# input: the paths wanted. Where nothing moved for minutes, a host vanished.
_INVENTORY: Final = f"""
{SHA256_FUNCTION}
{FREE_FUNCTION}
umask 022
mkdir -p -- "$1" "$3" || exit 1
[ -w "$1" ] && [ -w "$3" ] || {{ echo "$3: Permission denied" >&2; exit 1; }}
for folder in "$1"/*; do
  [ -d "$folder" ] || continue
  recent=$(find "$folder" -mmin -{_STILL_MINUTES} 2>/dev/null | head -n 1)
  [ -n "$recent" ] && word=moving || word=still
  printf '%s %s\\n' "$word" "${{folder##*/}}"
done
printf 'free %s\\n' "$(free_kib "$1")"
for codec in {" ".join(Codec)}; do
  command -v "$codec" >/dev/null 2>&1 && printf 'unpacks %s\\n' "$codec"
done
{{ [ -e "${{1%/*}}/{SIGNERS_NAME}" ] || [ -L "${{1%/*}}/{SIGNERS_NAME}" ]; }} && printf 'guarded\\n'
[ -n "$4" ] && printf 'link %s\\n' "$(readlink "$4" 2>/dev/null)"
for sibling in "$3"/*; do
  [ -d "$sibling" ] && [ "$sibling" != "$2" ] && {{ echo siblings; break; }}
done
[ -L "$2" ] && {{ echo "$2: Not a directory" >&2; exit 1; }}
[ -d "$2" ] || exit 0
cd -- "$2" || exit 1
case $3 in */models) touch -c -- . 2>/dev/null ;; esac  # its last use: see `holdings`
printf 'present\\n'
while IFS= read -r path; do
  [ -f "$path" ] && [ ! -L "$path" ] || continue
  sum=$(sha256 < "$path") && printf 'file %s %s\\n' "${{sum%% *}}" "$path"
done
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """What was found.

    Attributes:
        is_present: whether the folder is there.
        link_target: where the link leads; empty when it leads nowhere.
        hashes: hex sha256 of each wanted file that the folder holds, by its path.
        free_bytes: room; None where the device does not tell.
        abandoned: staging folders whose host is gone.
        has_siblings: whether other folders stand beside it.
        is_guarded: whether the device has a list of allowed signers.
        codecs: what it can unpack, of what this machine can pack, the preferred one first.
    """

    is_present: bool
    link_target: str
    hashes: Mapping[str, str]
    free_bytes: int | None
    abandoned: tuple[str, ...]
    has_siblings: bool
    is_guarded: bool
    codecs: tuple[Codec, ...]


def take_inventory(
    device: Device, layout: Layout, folder: str, files: Sequence[PlacedFile], link: str
) -> Inventory:
    """Look at what a folder holds already, and what else lies around it.

    Args:
        device: a connected device.
        layout: of the deploy root; its folders are made where they are missing.
        folder: absolute path of the folder that is to be filled.
        files: what it is to hold.
        link: absolute path of a link whose target is wanted; empty for none.

    Raises:
        DeployError: no permission, or something else stands there.
    """
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
    unpacked: list[str] = []
    free_kib: int | None = None
    is_present, has_siblings, is_guarded, link_target = False, False, False, ""
    for line in result.text.splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "present":
            is_present = True
        elif verb == "siblings":
            has_siblings = True
        elif verb == "guarded":
            is_guarded = True
        elif verb == "link":
            link_target = rest
        elif verb == "unpacks":
            unpacked.append(rest)
        elif verb == "free":
            free_kib = parse_count(rest, maximum=2**50)
        elif verb == "file":
            hashed.append(rest)
        elif verb in {"still", "moving"} and is_abandoned(rest, lies_still=verb == "still"):
            abandoned.append(rest)
    return Inventory(
        is_present=is_present,
        link_target=link_target,
        hashes=read_hashes(
            device, hashed, folder=folder, sizes={file.path: file.num_bytes for file in files}
        ),
        free_bytes=None if free_kib is None else free_kib * 1024,
        abandoned=tuple(abandoned),
        has_siblings=has_siblings,
        is_guarded=is_guarded,
        codecs=tuple(codec for codec in host_codecs() if codec in unpacked),
    )
