"""Taking releases away from a device, by one rename each."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

from edgepack.device.layout import FREE_FUNCTION, RENAME_FUNCTION, Layout, disk_seconds, run_step
from edgepack.device.lease import FENCE_FUNCTION, NO_FENCE, Fence
from edgepack.device.releases import ReleaseFacts
from edgepack.device.sections import parse_count
from edgepack.device.staging import staging_folder
from edgepack.device.transport import Device

# `$1` the folder of bundles, `$2` a staging folder, `$3` the least KiB to stop at or nothing,
# `$4` and `$5` the fence; standard input: `NAME RELEASE`, the first to go first. A release
# leaves by one rename, so that it is never seen half removed.
_REMOVE: Final = f"""
{RENAME_FUNCTION}
{FENCE_FUNCTION}
{FREE_FUNCTION}
fence "$4" "$5"
cd -- "$1" 2>/dev/null || exit 0
while IFS=' ' read -r name release; do
  [ -z "$3" ] || [ "$(free_kib .)" -lt "$3" ] || break
  [ "$(readlink "$name/current" 2>/dev/null)" != "releases/$release" ] || continue
  mkdir -p -- "$2" && rename "$name/releases/$release" "$2/$release" || exit 1
  chmod -R u+w -- "$2/$release" && rm -rf -- "$2/$release" || exit 1
  printf 'removed %s %s\\n' "$name" "$release"
done
rm -rf -- "$2"
printf 'free %s\\n' "$(free_kib .)"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was removed to make room.

    Attributes:
        removed: name and release of each.
        free_bytes: room there is now; None when the device does not say.
    """

    removed: tuple[tuple[str, str], ...]
    free_bytes: int | None


def remove_releases(
    device: Device,
    layout: Layout,
    releases: Sequence[ReleaseFacts],
    *,
    free_bytes: int | None = None,
    fence: Fence = NO_FENCE,
) -> Pruned:
    """Remove releases from a device, one after the other; never a current one.

    Args:
        device: a connected device.
        layout: of the deploy root.
        releases: the first to go first.
        free_bytes: stop as soon as this much room is free; None removes them all.
        fence: the right to do so, where the device is held.

    Raises:
        DeployError: the device did not do it, or another host holds it.
        ConnectError: the link was lost; each release is whole or gone.
    """
    if not releases and free_bytes is None:
        return Pruned(removed=(), free_bytes=None)
    named = [(facts.name, facts.release) for facts in releases]
    disk_bytes = sum(facts.disk_bytes for facts in releases)
    return _remove(device, layout, named, fence=fence, free_bytes=free_bytes, disk_bytes=disk_bytes)


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
    fence: Fence,
    free_bytes: int | None = None,
    disk_bytes: int = 0,
) -> Pruned:
    with staging_folder(device, layout, "removed") as staging:
        result = run_step(
            device,
            _REMOVE,
            layout.bundles,
            staging,
            "" if free_bytes is None else str(-(-free_bytes // 1024)),
            *astuple(fence),
            action="remove releases",
            stdin="".join(f"{name} {release}\n" for name, release in named).encode(),
            timeout_seconds=disk_seconds(disk_bytes),
        )
    removed: list[tuple[str, str]] = []
    free_kib: int | None = None
    for line in result.text.splitlines():
        verb, _, rest = line.partition(" ")
        name, _, release = rest.partition(" ")
        if verb == "removed" and (name, release) in named:
            removed.append((name, release))
        elif verb == "free":
            free_kib = parse_count(rest, maximum=2**50)
    return Pruned(removed=tuple(removed), free_bytes=None if free_kib is None else 1024 * free_kib)
