"""Switching back to a release that lies on a device, after proving that it is whole."""

from typing import Final

from edgepack.bundle.archive import MAXIMUM_MANIFEST_BYTES
from edgepack.bundle.manifest import MANIFEST_PATH, FileRecord
from edgepack.bundle.reading import parse_manifest
from edgepack.device.store.layout import Layout, disk_seconds, resolve_root, run_step
from edgepack.device.store.lease import NO_FENCE, Fence
from edgepack.device.store.releases import ReleaseFacts, find_release, list_releases
from edgepack.device.store.switching import switch_release
from edgepack.device.wire.address import subject
from edgepack.device.wire.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.wire.transport import Device
from edgepack.errors import BundleError, DeployError

# `$1` the release's folder; standard input: the paths to hash.
_HASH: Final = f"""
{SHA256_FUNCTION}
cd -- "$1" || exit 1
while IFS= read -r path; do
  [ -f "$path" ] && sum=$(sha256 < "$path") && printf '%s %s\\n' "${{sum%% *}}" "$path"
done
exit 0
"""


def roll_back(
    device: Device, name: str, *, release: str | None, root: str, fence: Fence = NO_FENCE
) -> tuple[ReleaseFacts, str]:
    """Make an earlier release of a bundle current, once its files are what its manifest says.

    Args:
        device: a connected device.
        name: of the bundle.
        release: its 12 hex digits; None is the one that was current before.
        root: the deploy root; may begin with `~`.
        fence: the right to switch, where the device is held.

    Returns:
        The release that is current now, and the one that was before; empty when none was.

    Raises:
        DeployError: no such release, or it is damaged; what was current stays current.
    """
    layout = Layout(root=resolve_root(device, root))
    wanted = find_release(list_releases(device, root=layout.root), name, release)
    files = check_release(device, layout, name, wanted.release)
    before = switch_release(
        device,
        layout,
        name,
        wanted.release,
        files=files,
        is_rollback=True,
        fence=fence,
    )
    return wanted, before


def check_release(
    device: Device, layout: Layout, name: str, release: str
) -> tuple[FileRecord, ...]:
    """Compare a release's files on the device with its own manifest; give their records.

    The manifest itself is compared with nothing: that takes the bundle (`edgepack push`).

    Raises:
        DeployError: files are missing or differ.
    """
    folder = layout.release(name, release)
    path = f"{folder}/{MANIFEST_PATH}"
    result = run_step(
        device,
        f'[ "$(wc -c < "$1")" -le {MAXIMUM_MANIFEST_BYTES} ] && cat -- "$1"',
        path,
        action=f"read {path}",
    )
    try:
        files = parse_manifest(result.stdout).files
    except BundleError as error:
        raise _damaged(device, name, release, "its manifest cannot be read") from error
    hashed = run_step(
        device,
        _HASH,
        folder,
        action=f"look into {folder}",
        stdin="".join(f"{file.path}\n" for file in files).encode(),
        timeout_seconds=disk_seconds(sum(file.num_bytes for file in files)),
    )
    sizes = {file.path: file.num_bytes for file in files}
    stored = read_hashes(device, hashed.text.splitlines(), folder=folder, sizes=sizes)
    wrong = [file.path for file in files if stored.get(file.path) != file.sha256]
    if wrong:
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        reason = f"{wrong[0]!r}{others} is missing or is not what its manifest says"
        raise _damaged(device, name, release, reason)
    return files


def _damaged(device: Device, name: str, release: str, reason: str) -> DeployError:
    return DeployError(
        f"{subject(device.name)} release {release} of {name} is damaged: {reason}; what is current "
        "stays current",
        remedy="Push that bundle again with `edgepack push`, which mends it.",
    )
