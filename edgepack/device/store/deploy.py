"""Putting a bundle on a device and making it current there; placing bare files."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import MODEL_PATH, FileRecord
from edgepack.device.store.layout import Layout, is_release, resolve_root
from edgepack.device.store.lease import NO_FENCE, Fence
from edgepack.device.store.payload import PlacedFile, content_digest, describe_file
from edgepack.device.store.placing import place_folder
from edgepack.device.store.removal import remove_release
from edgepack.device.store.staging import TransferCallback
from edgepack.device.store.switching import switch_release
from edgepack.device.wire.compression import Codec
from edgepack.device.wire.transport import Device
from edgepack.errors import ConnectError, DeviceError, DeviceTimeoutError, EdgePackError


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A bundle's release that is complete and current on a device.

    Attributes:
        release: 12 hex digits of the bundle's digest.
        path: absolute path of the release's own folder, which no later push changes.
        sent_bytes: payload that went over the wire.
        skipped_bytes: payload the device already had, verified there by hash.
        wire_bytes: what was sent as it went over the wire, compressed or not.
        codec: what compressed some of it; None where nothing was.
        previous: the release that was current before the switch; None without a switch, and
            when there was none.
    """

    release: str
    path: str
    sent_bytes: int
    skipped_bytes: int
    wire_bytes: int = 0
    codec: Codec | None = None
    previous: str | None = None


def push_bundle(
    device: Device,
    bundle: Bundle,
    *,
    root: str,
    switch: bool = True,
    before_switch: Callable[[str], None] | None = None,
    fence: Fence = NO_FENCE,
    on_progress: TransferCallback | None = None,
) -> Deployment:
    """Make a bundle's release complete on the device, and current.

    Earlier releases stay. Only content that the device does not hold is sent: equality is
    by sha256, computed on the device each time. After the switch, all of it is read back
    through `current`; what was current before is current again when that fails.

    Args:
        device: a connected device.
        bundle: an opened, verified bundle.
        root: the deploy root; may begin with `~`.
        switch: whether `current` shall lead to it; a benchmark leaves it alone.
        before_switch: called with the folder of the complete release before the switch; what
            it raises refuses the release, which is taken away again if it is new.
        fence: the right to switch, where the device is held.
        on_progress: called as bytes go out.

    Raises:
        SignatureError: the device's own list of signers does not let the bundle in.
        DeployError: no room, no permission, or damage on the way; `current` is as it was.
        ConnectError: the link was lost; `current` leads to a complete release.
    """
    layout = Layout(root=resolve_root(device, root))
    name, release = bundle.manifest.name, bundle.release
    folder = layout.release(name, release)

    def reader(record: FileRecord) -> PlacedFile:
        return PlacedFile(
            path=record.path,
            sha256=record.sha256,
            num_bytes=record.num_bytes,
            load=lambda: bundle.read(record.path),
            blobs=bundle.manifest.blobs if record.path == MODEL_PATH else (),
        )

    records = bundle.files()
    transfer = place_folder(
        device,
        layout,
        folder=folder,
        files=[reader(record) for record in records],
        link=layout.current(name) if switch else None,
        reuse_siblings=True,
        admit=lambda: _admit(device, bundle, layout),
        on_progress=on_progress,
    )
    current = transfer.link_target.removeprefix("releases/")
    if switch and before_switch is not None:
        try:
            before_switch(folder)
        except (ConnectError, DeviceTimeoutError):
            raise
        except EdgePackError as error:
            is_new = not transfer.was_there and current != release
            if is_new:
                with suppress(DeviceError):
                    remove_release(device, layout, name, release, fence=fence)
            raise _refused(error, name, release, current, is_new=is_new) from error
    if switch and current != release:
        current = switch_release(device, layout, name, release, files=records, fence=fence)
    return Deployment(
        release=release,
        path=folder,
        sent_bytes=transfer.sent_bytes,
        skipped_bytes=transfer.skipped_bytes,
        wire_bytes=transfer.wire_bytes,
        codec=transfer.codec,
        previous=current if is_release(current) and current != release else None,
    )


def _admit(device: Device, bundle: Bundle, layout: Layout) -> None:
    """Hold a bundle to the device's list of allowed signers."""
    # A process that pushes to devices without such a list need not know how to read one.
    from edgepack.bundle.sealing import read_seal  # noqa: PLC0415
    from edgepack.device.store.signers import admit_bundle  # noqa: PLC0415

    admit_bundle(device, read_seal(bundle), root=layout.root)


def _refused(
    error: EdgePackError, name: str, release: str, current: str, *, is_new: bool
) -> EdgePackError:
    """Say with an error which release is current now."""
    if current == release:
        state = f"release {release} of {name} is current, and was before; nothing was changed"
    else:
        taken = ", which was taken away again" if is_new else ""
        stays = f"release {current} stays" if is_release(current) else "none is"
        state = f"release {release} of {name} was not made current{taken}; {stays} current"
    return type(error)(f"{error.message}\n{state}", remedy=error.remedy)


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
