"""A push to a device that is made ready first: runtime, health check, bundle."""

import shlex
import threading
import time
from contextlib import AbstractContextManager
from typing import Final

from edgepack.bundle.archive import Bundle
from edgepack.bundle.example import EXAMPLE_PATH
from edgepack.cache import Cache
from edgepack.device.preflight.diagnosis import Cargo
from edgepack.device.runtime.provision import RunnerChoice
from edgepack.device.store.layout import Layout
from edgepack.device.store.staging import TransferCallback
from edgepack.workflow.delivery import Pushed, PushTask, ReachOptions, prune_behind
from edgepack.workflow.preflight import weigh_cargo
from edgepack.workflow.pushing import push_release
from edgepack.workflow.request import StepCallback
from edgepack.workflow.retention import Retention
from edgepack.workflow.rig import Rig, open_rig
from edgepack.workflow.site import Site

_cargoes: Final[dict[str, Cargo]] = {}
_cargoes_lock: Final = threading.Lock()


def outfit_task(task: PushTask, bundle: Bundle, *, on_step: StepCallback) -> Pushed:
    """Carry out a push that brings the runtime too; see `push_task`.

    Raises:
        EdgePackError: as `open_rig` and `push_release`.
    """
    with _cargoes_lock:
        cargo = _cargoes.get(bundle.file_sha256) or _cargoes.setdefault(
            bundle.file_sha256, weigh_cargo(bundle)
        )
    with open_reached(
        task.address,
        task.reach,
        purpose="push",
        root=task.root,
        bundle=bundle,
        cargo=cargo,
        on_step=on_step,
    ) as rig:
        return deliver(
            rig,
            bundle,
            health_check=task.health_check,
            retention=task.retention,
            on_step=on_step,
        )


def open_reached(
    address: str,
    reach: ReachOptions,
    *,
    purpose: str,
    root: str | None,
    bundle: Bundle | None,
    cargo: Cargo | None,
    on_step: StepCallback,
) -> AbstractContextManager[Rig]:
    """Make a device ready as the options of a task say; see `open_rig`."""
    return open_rig(
        address,
        connect=reach.connect,
        root=root,
        profile=None if bundle is None else bundle.manifest.target,
        cache=Cache(root=reach.cache_root),
        cargo=cargo,
        runner=RunnerChoice(reach.runner),
        android=reach.android,
        lock=reach.lock_options(purpose, on_step),
        on_step=on_step,
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
        EdgePackError: as `push_release`.
    """
    start = time.monotonic()
    pushed = push_release(
        rig, bundle, health_check=health_check, on_step=on_step, on_transfer=on_transfer
    )
    done = Pushed(
        device=rig.device.name,
        deployment=pushed.deployment,
        runtime_bytes=rig.engine.runtime_bytes,
        seconds=time.monotonic() - start,
        example=_example_command(bundle, python=rig.engine.python, folder=pushed.deployment.path),
        health=pushed.health,
        warnings=rig.warnings,
    )
    site = Site(device=rig.device, layout=Layout(root=rig.root), fence=rig.fence)
    return prune_behind(done, site, bundle, retention, rig.facts)


def _example_command(bundle: Bundle, *, python: str | None, folder: str) -> str | None:
    if python is None or EXAMPLE_PATH not in {each.path for each in bundle.manifest.files}:
        return None
    return f"{shlex.join([python, f'{folder}/{EXAMPLE_PATH}'])} --golden"
