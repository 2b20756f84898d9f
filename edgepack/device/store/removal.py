"""Taking releases and what lies beside them away from a device, by one rename each."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

from edgepack.device.store.holdings import Holding
from edgepack.device.store.layout import (
    FREE_FUNCTION,
    RENAME_FUNCTION,
    Layout,
    disk_seconds,
    run_step,
)
from edgepack.device.store.lease import FENCE_FUNCTION, NO_FENCE, Fence
from edgepack.device.store.releases import ReleaseFacts
from edgepack.device.store.staging import staging_folder
from edgepack.device.wire.sections import parse_count
from edgepack.device.wire.transport import Device

# `$1` the deploy root, `$2` a staging folder, `$3` the least KiB to stop at or nothing, `$4` and
# `$5` the fence; standard input: `release NAME RELEASE` or `folder STORE NAME`, the first to go
# first. Each leaves by one rename, so that it is never seen half removed. What a process has
# mapped stays, as far as this login may see it (Linux): its next import would fail.
_REMOVE: Final = f"""
{RENAME_FUNCTION}
{FENCE_FUNCTION}
{FREE_FUNCTION}
is_mapped() {{ grep -qsF -- "$root/$1/" /proc/[0-9]*/maps; }}
fence "$4" "$5"
cd -- "$1" 2>/dev/null || exit 0
root=$(pwd -P)
while IFS=' ' read -r verb first second; do
  [ -z "$3" ] || [ "$(free_kib .)" -lt "$3" ] || break
  if [ "$verb" = release ]; then
    path=bundles/$first/releases/$second
    [ "$(readlink "bundles/$first/current" 2>/dev/null)" != "releases/$second" ] || continue
  else
    path=$first/$second
    ! is_mapped "$path" || continue
  fi
  mkdir -p -- "$2" && rename "$path" "$2/$second" || exit 1
  chmod -R u+w -- "$2/$second" && rm -rf -- "$2/$second" || exit 1
  printf 'removed %s %s %s\\n' "$verb" "$first" "$second"
done
rm -rf -- "$2"
printf 'free %s\\n' "$(free_kib .)"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was removed to make room.

    Attributes:
        removed: name and release of each release.
        holdings: what was removed beside releases.
        free_bytes: room there is now; None when the device does not say.
    """

    removed: tuple[tuple[str, str], ...]
    free_bytes: int | None
    holdings: tuple[Holding, ...] = ()


def remove_releases(
    device: Device,
    layout: Layout,
    releases: Sequence[ReleaseFacts],
    *,
    holdings: Sequence[Holding] = (),
    free_bytes: int | None = None,
    fence: Fence = NO_FENCE,
) -> Pruned:
    """Remove releases from a device, and what lies beside them, one after the other.

    Never a current release; and beside releases never what a process has mapped.

    Args:
        device: a connected device.
        layout: of the deploy root.
        releases: the first to go first.
        holdings: likewise; they go before releases.
        free_bytes: stop as soon as this much room is free; None removes them all.
        fence: the right to do so, where the device is held.

    Raises:
        DeployError: the device did not do it, or another host holds it.
        ConnectError: the link was lost; each release is whole or gone.
    """
    if not releases and not holdings and free_bytes is None:
        return Pruned(removed=(), free_bytes=None)
    named = [(facts.name, facts.release) for facts in releases]
    return _remove(
        device,
        layout,
        named,
        holdings=holdings,
        fence=fence,
        free_bytes=free_bytes,
        disk_bytes=sum(each.disk_bytes for each in releases)
        + sum(each.disk_bytes for each in holdings),
    )


def remove_release(
    device: Device, layout: Layout, name: str, release: str, *, fence: Fence = NO_FENCE
) -> None:
    """Remove one release that is not current.

    Raises:
        DeviceError: the device did not do it.
    """
    _remove(device, layout, [(name, release)], fence=fence)


def _remove(
    device: Device,
    layout: Layout,
    named: Sequence[tuple[str, str]],
    *,
    holdings: Sequence[Holding] = (),
    fence: Fence,
    free_bytes: int | None = None,
    disk_bytes: int = 0,
) -> Pruned:
    folders = {tuple(each.path.split("/")): each for each in holdings}
    lines = [*(("folder", *pair) for pair in folders), *(("release", *pair) for pair in named)]
    with staging_folder(device, layout, "removed") as staging:
        result = run_step(
            device,
            _REMOVE,
            layout.root,
            staging,
            "" if free_bytes is None else str(-(-free_bytes // 1024)),
            *astuple(fence),
            action="remove what is old",
            stdin="".join(f"{' '.join(line)}\n" for line in lines).encode(),
            timeout_seconds=disk_seconds(disk_bytes),
        )
    removed: list[tuple[str, str]] = []
    gone: list[Holding] = []
    free_kib: int | None = None
    for line in result.text.splitlines():
        match line.split(" "):
            case ["free", kib]:
                free_kib = parse_count(kib, maximum=2**50)
            case ["removed", "release", name, release] if (name, release) in named:
                removed.append((name, release))
            case ["removed", "folder", store, name] if (store, name) in folders:
                gone.append(folders[store, name])
            case _:
                pass
    return Pruned(
        removed=tuple(removed),
        free_bytes=None if free_kib is None else 1024 * free_kib,
        holdings=tuple(gone),
    )
