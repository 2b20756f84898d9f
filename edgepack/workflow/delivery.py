"""A push from its beginning to its end, as a function that any process can run."""

import threading
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgepack.bundle.archive import Bundle, open_bundle
from edgepack.bundle.kept import KeptBundle, keep_bundle
from edgepack.device.store.deploy import Deployment, push_bundle
from edgepack.device.store.lock import WAIT_SECONDS, LockOptions
from edgepack.device.store.releases import current_release
from edgepack.device.store.removal import Pruned
from edgepack.device.store.staging import TransferCallback
from edgepack.device.wire.connect import ConnectOptions
from edgepack.errors import BundleError, DeviceError
from edgepack.workflow.retention import Retention, prune, removed_json
from edgepack.workflow.site import Site, default_root, open_site

if TYPE_CHECKING:
    from edgepack.device.runtime.android import AndroidRuntime
    from edgepack.device.survey.facts import DeviceFacts
    from edgepack.measure.golden import GoldenVerdict
    from edgepack.workflow.request import StepCallback


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A finished push: the deployment, its seconds, and the bytes of a runtime before it.

    Attributes:
        device: its name.
        deployment: what stands where.
        runtime_bytes: sent for the runtime.
        seconds: of the transfer.
        example: the command that runs the model on the device; None for a bundle without one,
            and on a device without a Python that suits.
        health: what the device answered to the golden inputs; None when it was not asked.
        pruned: what was removed; None when nothing was to be.
        warnings: how the device falls short of the target without being refused.
        is_checked_only: whether it was current already and nothing else was looked at.
        prune_error: why what is old was not removed, all the same; None when it was, or was not
            to be.
    """

    device: str
    deployment: Deployment
    runtime_bytes: int
    seconds: float
    example: str | None
    health: "GoldenVerdict | None" = None
    pruned: Pruned | None = None
    warnings: tuple[str, ...] = ()
    is_checked_only: bool = False
    prune_error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that `push --json` prints."""
        return {
            "device": self.device,
            "release": self.deployment.release,
            "path": self.deployment.path,
            "sent_bytes": self.deployment.sent_bytes,
            "skipped_bytes": self.deployment.skipped_bytes,
            "wire_bytes": self.deployment.wire_bytes,
            "compression": self.deployment.codec,
            "runtime_bytes": self.runtime_bytes,
            "seconds": round(self.seconds, 3),
            "example": self.example,
            "previous": self.deployment.previous,
            "health_check": None if self.health is None else self.health.passed,
            **removed_json(self.pruned),
            "prune_error": self.prune_error,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ReachOptions:
    """How devices are reached and held, and what runs models there.

    Attributes:
        connect: how to connect; without a prompt it can be sent to other processes.
        cache_root: where downloaded runtimes are kept.
        lock_wait_seconds: how long another user of the device is waited for.
        runner: whose runner shall run models, a `RunnerChoice`.
        android: what the user brings for stock Android.
    """

    connect: ConnectOptions
    cache_root: Path
    lock_wait_seconds: float = WAIT_SECONDS
    runner: str = "auto"
    android: "AndroidRuntime | None" = None

    def lock_options(self, purpose: str, on_wait: "StepCallback") -> LockOptions:
        """Make the options that a device is held with."""
        return LockOptions(purpose=purpose, wait_seconds=self.lock_wait_seconds, on_wait=on_wait)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushTask:
    """A push to one device.

    Attributes:
        bundle: where the bundle lies; the process that runs the task must find it there.
        sha256: hex digest of the whole file that is meant, signature and all.
        address: of the device.
        root: its deploy root; None for the target's.
        reach: how it is reached.
        health_check: whether the device runs the golden inputs before the switch.
        bundle_only: whether nothing but the bundle is sent: no runtime is looked for.
        retention: which old releases stay; None removes none.
        was_done: whether an earlier run says it is done: when the release is current there,
            nothing else is looked at.
    """

    bundle: Path
    sha256: str
    address: str
    root: str | None
    reach: ReachOptions
    health_check: bool = True
    bundle_only: bool = False
    retention: Retention | None = None
    was_done: bool = False


_kept_lock: Final = threading.Lock()


def take_bundle(path: Path, sha256: str) -> KeptBundle:
    """Give a bundle that is opened, verified and read once in this process.

    Raises:
        BundleError: it is damaged, or another one than is meant.
    """
    with _kept_lock:  # whose threads ask together, and one is to read
        return _take_bundle(path, sha256)


@lru_cache(maxsize=1)  # a process works on one bundle at a time
def _take_bundle(path: Path, sha256: str) -> KeptBundle:
    opened = open_bundle(path)
    if opened.file_sha256 != sha256:
        raise BundleError(
            f"{path}: expected the bundle with sha256 {sha256[:12]}, but it is "
            f"{opened.file_sha256[:12]}",
            remedy="Do not replace a bundle while it is in use; run the command again.",
        )
    return keep_bundle(opened)


def ignore_step(_text: str) -> None:
    """Say nothing."""


def push_task(task: PushTask, *, on_step: "StepCallback" = ignore_step) -> Pushed:
    """Carry a push out.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        EdgePackError: as `open_rig` and `push_release`.
    """
    bundle = take_bundle(task.bundle, task.sha256)
    if task.was_done:
        found = _find_current(task, bundle, on_step)
        if found is not None:
            return found
    if task.bundle_only:
        with open_site(
            task.address,
            connect=task.reach.connect,
            root=task.root or default_root(bundle.manifest.target),
            lock=task.reach.lock_options("push", on_step),
            on_step=on_step,
        ) as site:
            return deliver_alone(site, bundle, retention=task.retention, on_step=on_step)
    # A second to import, which a process that sends bundles alone need not spend.
    from edgepack.workflow.outfitting import outfit_task  # noqa: PLC0415

    return outfit_task(task, bundle, on_step=on_step)


def _find_current(task: PushTask, bundle: Bundle, on_step: "StepCallback") -> Pushed | None:
    """Tell that the release is current on the device; None when it is not."""
    started = time.monotonic()
    root, name = task.root or default_root(bundle.manifest.target), bundle.manifest.name
    with open_site(
        task.address, connect=task.reach.connect, root=root, lock=None, on_step=on_step
    ) as site:
        if current_release(site.device, site.layout, name) != bundle.release:
            return None
        return Pushed(
            device=site.device.name,
            deployment=Deployment(
                release=bundle.release,
                path=site.layout.release(name, bundle.release),
                sent_bytes=0,
                skipped_bytes=0,  # nothing was hashed
            ),
            runtime_bytes=0,
            seconds=time.monotonic() - started,
            example=None,
            is_checked_only=True,
        )


def deliver_alone(
    site: Site,
    bundle: Bundle,
    *,
    retention: Retention | None,
    on_step: "StepCallback",
    on_transfer: TransferCallback | None = None,
) -> Pushed:
    """Put a bundle on a held device whose application brings its own runtime.

    What the device is and how the model answers there is not looked at.

    Raises:
        EdgePackError: as `push_bundle`.
    """
    start = time.monotonic()
    on_step(f"pushing {bundle.manifest.name} {bundle.release} to {site.device.name}")
    deployment = push_bundle(
        site.device, bundle, root=site.layout.root, fence=site.fence, on_progress=on_transfer
    )
    pushed = Pushed(
        device=site.device.name,
        deployment=deployment,
        runtime_bytes=0,
        seconds=time.monotonic() - start,
        example=None,
    )
    return prune_behind(pushed, site, bundle, retention, None)


def prune_behind(
    pushed: Pushed,
    site: Site,
    bundle: Bundle,
    retention: Retention | None,
    facts: "DeviceFacts | None",
) -> Pushed:
    """Take away what is old and need not stay, once a push is done, and add what came of it.

    The release is current by then: what fails here makes no failure of the push.
    """
    if retention is None:
        return pushed
    name = bundle.manifest.name
    try:
        pruned = prune(
            site.device, site.layout, retention, name=name, facts=facts, fence=site.fence
        )
    except DeviceError as error:
        return replace(pushed, prune_error=error.message)
    return replace(pushed, pruned=pruned)
