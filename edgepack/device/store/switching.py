"""The one rename that makes a release current, and reading it back."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Final

from edgepack.bundle.manifest import FileRecord
from edgepack.device.store.layout import (
    RENAME_FUNCTION,
    Layout,
    disk_seconds,
    is_release,
    run_step,
)
from edgepack.device.store.lease import FENCE_FUNCTION, NO_FENCE, Fence
from edgepack.device.store.releases import MAX_HISTORY
from edgepack.device.store.staging import staging_folder
from edgepack.device.wire.address import subject
from edgepack.device.wire.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.wire.transport import Device
from edgepack.errors import DeployError

_PUSH: Final = "push"
_BACK: Final = "back"

# `$1` the bundle's folder, `$2` the release, `$3` a staging folder, `$4` `push` or `back`, `$5`
# and `$6` the fence; standard input: paths to hash through `current` afterwards. The history
# is written first: as long as `current` is not its last line, it is read as if it ended there. The
# names reach the disk before the switch is told: a power cut seconds later would take them back.
_SWITCH: Final = f"""
{SHA256_FUNCTION}
{RENAME_FUNCTION}
{FENCE_FUNCTION}
umask 022
fence "$5" "$6"
cd -- "$1" || exit 1
[ -d "releases/$2" ] || {{ echo "releases/$2: No such file or directory" >&2; exit 1; }}
before=$(readlink current 2>/dev/null)
before=${{before#releases/}}
case $before in *[!0-9a-f]*) before= ;; esac
printf 'before %s\n' "$before"
mkdir -p -- "$3" || exit 1
if [ -f history ]; then cat history; fi > "$3/old" || exit 1
if [ "$4" = back ]; then sed "/^$2\\$/q" "$3/old" | grep -v -x -e "$2"
else
  sed "/^$before\\$/q" "$3/old" | grep -v -x -e "$2" -e "$before"
  [ -z "$before" ] || [ "$before" = "$2" ] || echo "$before"
fi | tail -n {MAX_HISTORY - 1} > "$3/history" || exit 1
echo "$2" >> "$3/history" && rename "$3/history" history || exit 1
ln -s -- "releases/$2" "$3/link" && rename "$3/link" current || exit 1
[ "$(readlink current)" = "releases/$2" ] || {{ echo "current does not lead to $2" >&2; exit 1; }}
sync releases . 2>/dev/null || sync
rm -rf -- "$3"
cd current/ || exit 1
prefer 'openssl dgst -sha256 -r'
while IFS= read -r path; do
  sum=$(sha256 < "$path") && printf '%s %s\n' "${{sum%% *}}" "$path"
done
exit 0
"""

# `$1` the bundle's folder, `$2` the release that must still be current, `$3` and `$4` the fence.
_UNLINK: Final = f"""
{FENCE_FUNCTION}
fence "$3" "$4"
cd -- "$1" || exit 1
[ "$(readlink current)" != "releases/$2" ] || rm -f -- current
"""


def switch_release(
    device: Device,
    layout: Layout,
    name: str,
    release: str,
    *,
    files: Sequence[FileRecord],
    is_rollback: bool = False,
    fence: Fence = NO_FENCE,
) -> str:
    """Make a complete release current, and read it back through `current`.

    Args:
        device: a connected device.
        layout: of the deploy root.
        name: of the bundle.
        release: its 12 hex digits.
        files: all that the release holds.
        is_rollback: whether a further rollback shall lead behind it, not back from it.
        fence: the right to do so, where the device is held.

    Returns:
        The release that was current before; empty when none was.

    Raises:
        DeployError: it is not on the device, another host holds the device, or what is read
            back is not the release. What was current before is current then, or nothing
            if nothing was.
    """
    mode = _BACK if is_rollback else _PUSH
    before, stored = _switch(device, layout, name, release, mode=mode, files=files, fence=fence)
    wrong = [file.path for file in files if stored.get(file.path) != file.sha256]
    if not wrong:
        return before
    if before and before != release:
        _switch(device, layout, name, before, mode=_BACK, files=(), fence=fence)
        now = f"release {before} is current again"
    else:
        action = f"take back the switch to {release}"
        run_step(device, _UNLINK, layout.bundle(name), release, *astuple(fence), action=action)
        now = "none is current now"
    raise DeployError(
        f"{subject(device.name)} release {release} of {name} was made current, but {wrong[0]!r} "
        f"reads back with another sha256; {now}",
        remedy="Push again; if it happens again, check the device's storage and memory.",
    )


def _switch(
    device: Device,
    layout: Layout,
    name: str,
    release: str,
    *,
    mode: str,
    files: Sequence[FileRecord],
    fence: Fence,
) -> tuple[str, Mapping[str, str]]:
    """Switch; give what was current before, and each path's digest afterwards."""
    with staging_folder(device, layout, "switch") as staging:
        result = run_step(
            device,
            _SWITCH,
            layout.bundle(name),
            release,
            staging,
            mode,
            *astuple(fence),
            action=f"make {release} the current release of {name}",
            stdin="".join(f"{file.path}\n" for file in files).encode(),
            timeout_seconds=disk_seconds(sum(file.num_bytes for file in files)),
        )
    first, *lines = result.text.splitlines() or [""]
    before = first.removeprefix("before ")
    folder = layout.release(name, release)
    sizes = {file.path: file.num_bytes for file in files}
    digests = read_hashes(device, lines, folder=folder, sizes=sizes)
    return (before if is_release(before) else ""), digests
