"""Releases on a device: push one, place bare files, list, switch back."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bundle.archive import Bundle
from edgepack.device.layout import RENAME_FUNCTION, Layout, is_release, resolve_root, run_step
from edgepack.device.payload import PlacedFile, content_digest, describe_file
from edgepack.device.placing import Link, place_folder
from edgepack.device.sections import parse_count
from edgepack.device.staging import TransferCallback
from edgepack.device.transport import Device
from edgepack.errors import DeployError

_LISTED: Final = re.compile(r"(\S+) ([0-9a-f]{12}) ([01]) (\d+)")

_LIST: Final = """
cd -- "$1" 2>/dev/null || exit 0
for folder in *; do
  [ -d "$folder/releases" ] || continue
  current=$(readlink "$folder/current" 2>/dev/null)
  ls -tr "$folder/releases" | while IFS= read -r release; do
    [ -d "$folder/releases/$release" ] || continue
    used=0; [ "$current" = "releases/$release" ] && used=1
    kib=$(du -sk "$folder/releases/$release" | cut -f 1)
    printf '%s %s %s %s\\n' "$folder" "$release" "$used" "$kib"
  done
done
"""

# `$1` the bundle's folder, `$2` the release, `$3` a name for the new link until the rename that
# nobody else uses: made over a link that was left behind, it would land in that link's folder,
# and `current` lead to another release.
_SWITCH: Final = f"""
{RENAME_FUNCTION}
cd -- "$1" || exit 1
[ -d "releases/$2" ] || {{ echo "releases/$2: No such file or directory" >&2; exit 1; }}
ln -s -- "releases/$2" "$3" || exit 1
rename "$3" current || {{ rm -f -- "$3"; exit 1; }}
[ "$(readlink current)" = "releases/$2" ] || {{ echo "current does not lead to $2" >&2; exit 1; }}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A bundle's release that is complete and current on a device.

    Attributes:
        release: 12 hex digits of the bundle's digest.
        path: absolute path of the release's own folder, which no later push changes.
        sent_bytes: payload that went over the wire.
        skipped_bytes: payload the device already had, verified there by hash.
    """

    release: str
    path: str
    sent_bytes: int
    skipped_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseFacts:
    """A release that lies on a device.

    Attributes:
        name: of the bundle.
        release: 12 hex digits.
        is_current: whether `current` leads to it.
        disk_bytes: room its folder takes; files shared with other releases count in each.
    """

    name: str
    release: str
    is_current: bool
    disk_bytes: int


def push_bundle(
    device: Device,
    bundle: Bundle,
    *,
    root: str,
    switch: bool = True,
    on_progress: TransferCallback | None = None,
) -> Deployment:
    """Make a bundle's release complete on the device, and current.

    Earlier releases stay. Only content that the device does not hold is sent: equality is
    by sha256, computed on the device each time.

    Args:
        device: a connected device.
        bundle: an opened, verified bundle.
        root: the deploy root; may begin with `~`.
        switch: whether `current` shall lead to it; a benchmark leaves it alone.
        on_progress: called as bytes go out.

    Raises:
        DeployError: no room, no permission, or damage on the way; `current` is as it was.
        ConnectError: the link was lost; `current` leads to a complete release.
    """
    layout = Layout(root=resolve_root(device, root))
    name, release = bundle.manifest.name, bundle.release
    folder = layout.release(name, release)

    def reader(path: str) -> PlacedFile:
        record = records[path]
        return PlacedFile(
            path=path,
            sha256=record.sha256,
            num_bytes=record.num_bytes,
            load=lambda: bundle.read(path),
        )

    records = {record.path: record for record in bundle.files()}
    transfer = place_folder(
        device,
        layout,
        folder=folder,
        files=[reader(path) for path in records],
        link=Link(path=layout.current(name), target=f"releases/{release}") if switch else None,
        reuse_siblings=True,
        on_progress=on_progress,
    )
    return Deployment(
        release=release,
        path=folder,
        sent_bytes=transfer.sent_bytes,
        skipped_bytes=transfer.skipped_bytes,
    )


def place_files(
    device: Device,
    files: Mapping[str, bytes | Path],
    *,
    root: str,
    on_progress: TransferCallback | None = None,
) -> str:
    """Place files in a folder named by their content: a bare model, a runner.

    Args:
        device: a connected device.
        files: relative POSIX path → content, or a file on this machine.
        root: the deploy root; may begin with `~`.
        on_progress: called as bytes go out.

    Returns:
        The folder's absolute path on the device.

    Raises:
        DeployError: no room, no permission, or damage on the way.
        ConnectError: the link was lost.
    """
    layout = Layout(root=resolve_root(device, root))
    placed = sorted(
        (describe_file(path, content) for path, content in files.items()),
        key=lambda file: file.path,
    )
    folder = f"{layout.models}/{content_digest(placed)}"
    place_folder(device, layout, folder=folder, files=placed, on_progress=on_progress)
    return folder


def list_releases(device: Device, *, root: str) -> tuple[ReleaseFacts, ...]:
    """List the releases on a device, by bundle, oldest first.

    Raises:
        DeployError: the folder of releases cannot be read.
    """
    layout = Layout(root=resolve_root(device, root))
    result = run_step(device, _LIST, layout.bundles, action=f"list {layout.bundles}")
    releases: list[ReleaseFacts] = []
    for line in result.text.splitlines():
        match = _LISTED.fullmatch(line)
        kib = parse_count(match[4], maximum=2**50) if match else None
        if match and kib is not None:
            releases.append(
                ReleaseFacts(
                    name=match[1],
                    release=match[2],
                    is_current=match[3] == "1",
                    disk_bytes=kib * 1024,
                )
            )
    return tuple(releases)


def switch_release(device: Device, name: str, *, release: str | None, root: str) -> ReleaseFacts:
    """Make another release of a bundle current.

    Args:
        device: a connected device.
        name: of the bundle.
        release: its 12 hex digits; None is the one placed before the current one.
        root: the deploy root; may begin with `~`.

    Raises:
        DeployError: no such bundle or release on the device.
    """
    layout = Layout(root=resolve_root(device, root))
    present = [facts for facts in list_releases(device, root=layout.root) if facts.name == name]
    wanted = _find_release(present, name, release)
    run_step(
        device,
        _SWITCH,
        layout.bundle(name),
        wanted.release,
        f"current.{secrets.token_hex(8)}.new",
        action=f"make {wanted.release} the current release of {name}",
    )
    return ReleaseFacts(
        name=name, release=wanted.release, is_current=True, disk_bytes=wanted.disk_bytes
    )


def _find_release(present: list[ReleaseFacts], name: str, release: str | None) -> ReleaseFacts:
    if release is not None and not is_release(release):
        raise DeployError(
            f"a release: expected 12 hex digits, not {release!r}",
            remedy="List the releases on the device with `edgepack releases DEVICE`.",
        )
    current = next((index for index, facts in enumerate(present) if facts.is_current), None)
    if release is None and current:
        return present[current - 1]
    for facts in present:
        if facts.release == release:
            return facts
    known = ", ".join(facts.release for facts in present) or "none"
    wanted = f"release {release}" if release else "release before the current one"
    raise DeployError(
        f"{name}: expected a {wanted} on the device; there: {known}",
        remedy="Push the bundle you want with `edgepack push`.",
    )
