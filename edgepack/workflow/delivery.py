"""A push from its beginning to its end, as a function that any process can run."""

import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bundle.archive import Bundle, open_bundle
from edgepack.bundle.example import EXAMPLE_PATH
from edgepack.bundle.kept import KeptBundle, keep_bundle
from edgepack.cache import Cache
from edgepack.device.android import AndroidRuntime
from edgepack.device.connect import ConnectOptions
from edgepack.device.deploy import Deployment, push_bundle
from edgepack.device.diagnosis import Cargo
from edgepack.device.facts import DeviceFacts
from edgepack.device.layout import Layout
from edgepack.device.lock import WAIT_SECONDS, LockOptions
from edgepack.device.provision import RunnerChoice
from edgepack.device.releases import current_release
from edgepack.device.removal import Pruned
from edgepack.device.staging import TransferCallback
from edgepack.errors import BundleError
from edgepack.measure.golden import GoldenVerdict
from edgepack.workflow.preflight import weigh_cargo
from edgepack.workflow.pushing import push_release
from edgepack.workflow.request import StepCallback
from edgepack.workflow.retention import Retention, prune, removed_json
from edgepack.workflow.rig import Rig, default_root, open_rig
from edgepack.workflow.site import Site, open_site


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
    """

    device: str
    deployment: Deployment
    runtime_bytes: int
    seconds: float
    example: str | None
    health: GoldenVerdict | None = None
    pruned: Pruned | None = None
    warnings: tuple[str, ...] = ()
    is_checked_only: bool = False

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
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ReachOptions:
    """How devices are reached and held, and what runs models there.

    Attributes:
        connect: how to connect; without a prompt it can be sent to other processes.
        cache_root: where downloaded runtimes are kept.
        lock_wait_seconds: how long another user of the device is waited for.
        runner: whose runner shall run models.
        android: what the user brings for stock Android.
    """

    connect: ConnectOptions
    cache_root: Path
    lock_wait_seconds: float = WAIT_SECONDS
    runner: RunnerChoice = RunnerChoice.AUTO
    android: AndroidRuntime | None = None

    def lock_options(self, purpose: str, on_wait: StepCallback) -> LockOptions:
        """Make the options that a device is held with."""
        return LockOptions(purpose=purpose, wait_seconds=self.lock_wait_seconds, on_wait=on_wait)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushTask:
    """A push to one device.

    Attributes:
        bundle: where the bundle lies; the process that runs the task must find it there.
        sha256: hex digest of the bundle that is meant.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """A bundle that a process opened once, for all its tasks."""

    bundle: KeptBundle
    cargo: Cargo


_shelves: Final[dict[tuple[Path, str], Shelf]] = {}
_shelves_lock: Final = threading.Lock()


def take_bundle(path: Path, sha256: str) -> Shelf:
    """Give a bundle that is opened, verified and read once in this process.

    Raises:
        BundleError: it is damaged, or another one than is meant.
    """
    with _shelves_lock:
        found = _shelves.get((path, sha256))
        if found is not None:
            return found
        opened = open_bundle(path)
        if opened.sha256 != sha256:
            raise BundleError(
                f"{path}: expected the bundle with sha256 {sha256[:12]}, but it is "
                f"{opened.sha256[:12]}",
                remedy="Do not replace a bundle while it is in use; run the command again.",
            )
        shelf = Shelf(bundle=keep_bundle(opened), cargo=weigh_cargo(opened))
        _shelves.clear()  # a process works on one bundle at a time
        _shelves[path, sha256] = shelf
        return shelf


def ignore_step(_text: str) -> None:
    """Say nothing."""


def push_task(task: PushTask, *, on_step: StepCallback = ignore_step) -> Pushed:
    """Carry a push out.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        EdgePackError: as `open_rig`, `push_release` and `prune`.
    """
    shelf = take_bundle(task.bundle, task.sha256)
    if task.was_done:
        found = _find_current(task, shelf.bundle, on_step)
        if found is not None:
            return found
    if task.bundle_only:
        with open_site(
            task.address,
            connect=task.reach.connect,
            root=task.root or default_root(shelf.bundle.manifest.target),
            lock=task.reach.lock_options("push", on_step),
            on_step=on_step,
        ) as site:
            return deliver_alone(site, shelf.bundle, retention=task.retention, on_step=on_step)
    with open_reached(
        task.address,
        task.reach,
        purpose="push",
        root=task.root,
        bundle=shelf.bundle,
        cargo=shelf.cargo,
        on_step=on_step,
    ) as rig:
        return deliver(
            rig,
            shelf.bundle,
            health_check=task.health_check,
            retention=task.retention,
            on_step=on_step,
        )


@contextmanager
def open_reached(
    address: str,
    reach: ReachOptions,
    *,
    purpose: str,
    root: str | None,
    bundle: Bundle | None,
    cargo: Cargo | None,
    on_step: StepCallback,
) -> Iterator[Rig]:
    """Make a device ready as the options of a task say; see `open_rig`."""
    with open_rig(
        address,
        connect=reach.connect,
        root=root,
        profile=None if bundle is None else bundle.manifest.target,
        cache=Cache(root=reach.cache_root),
        cargo=cargo,
        runner=reach.runner,
        android=reach.android,
        lock=reach.lock_options(purpose, on_step),
        on_step=on_step,
    ) as rig:
        yield rig


def _find_current(task: PushTask, bundle: Bundle, on_step: StepCallback) -> Pushed | None:
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


def deliver(
    rig: Rig,
    bundle: Bundle,
    *,
    health_check: bool,
    retention: Retention | None,
    on_step: StepCallback,
    on_transfer: TransferCallback | None = None,
) -> Pushed:
    """Put a bundle on a device that was made ready, and take old releases away.

    Raises:
        EdgePackError: as `push_release` and `prune`.
    """
    start = time.monotonic()
    pushed = push_release(
        rig, bundle, health_check=health_check, on_step=on_step, on_transfer=on_transfer
    )
    site = Site(device=rig.device, layout=Layout(root=rig.root), fence=rig.fence)
    pruned = _prune(site, bundle, retention, rig.facts)
    return Pushed(
        device=rig.device.name,
        deployment=pushed.deployment,
        runtime_bytes=rig.engine.runtime_bytes,
        seconds=time.monotonic() - start,
        example=_example_command(bundle, python=rig.engine.python, folder=pushed.deployment.path),
        health=pushed.health,
        pruned=pruned,
        warnings=rig.warnings,
    )


def deliver_alone(
    site: Site,
    bundle: Bundle,
    *,
    retention: Retention | None,
    on_step: StepCallback,
    on_transfer: TransferCallback | None = None,
) -> Pushed:
    """Put a bundle on a held device whose application brings its own runtime.

    What the device is and how the model answers there is not looked at.

    Raises:
        EdgePackError: as `push_bundle` and `prune`.
    """
    start = time.monotonic()
    on_step(f"pushing {bundle.manifest.name} {bundle.release} to {site.device.name}")
    deployment = push_bundle(
        site.device, bundle, root=site.layout.root, fence=site.fence, on_progress=on_transfer
    )
    return Pushed(
        device=site.device.name,
        deployment=deployment,
        runtime_bytes=0,
        seconds=time.monotonic() - start,
        example=None,
        pruned=_prune(site, bundle, retention, None),
    )


def _prune(
    site: Site, bundle: Bundle, retention: Retention | None, facts: DeviceFacts | None
) -> Pruned | None:
    if retention is None:
        return None
    name = bundle.manifest.name
    return prune(site.device, site.layout, retention, name=name, facts=facts, fence=site.fence)


def _example_command(bundle: Bundle, *, python: str | None, folder: str) -> str | None:
    if python is None or EXAMPLE_PATH not in {each.path for each in bundle.manifest.files}:
        return None
    return f"{shlex.join([python, f'{folder}/{EXAMPLE_PATH}'])} --golden"
