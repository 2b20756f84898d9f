"""One host at a time on a device, until the end of a context: see `lease`."""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.device.store.layout import STEP_SECONDS, Layout, run_step
from edgepack.device.store.lease import (
    ACQUIRE,
    RENEW,
    SHOW,
    Fence,
    Holder,
    held_lock,
    held_tokens,
    read_holder,
)
from edgepack.device.store.ownership import host_id, user_and_host
from edgepack.device.wire.address import subject
from edgepack.device.wire.compression import Codec
from edgepack.device.wire.transport import CommandResult, Device, ProgressCallback
from edgepack.errors import DeviceError, LockedError

WAIT_SECONDS: Final = 300.0
"""How long a device is waited for by default: longer than the lease of a vanished host."""

_LEASE_SECONDS: Final = 180.0
_MARGIN_SECONDS: Final = 30.0
_TURN_SECONDS: Final = 10
# An upload has no limit but that it goes on; a slower one renews its lease when it is over.
_SLOWEST_LINK_BYTES_PER_SECOND: Final = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class LockOptions:
    """How a device is held.

    Attributes:
        purpose: verb, in lower-case letters, shown to who waits.
        wait_seconds: how long to wait for another holder.
        on_wait: called with a sentence once the device is found held.
    """

    purpose: str
    wait_seconds: float = WAIT_SECONDS
    on_wait: Callable[[str], None] = lambda _: None


class HeldDevice:
    """A device that is held: a `transport.Device` whose lease covers each of its steps."""

    def __init__(self, device: Device, layout: Layout, options: LockOptions) -> None:
        self._device = device
        self._folder = layout.lock
        self._options = options
        self._token = secrets.token_hex(8)
        self._text = (
            f"{host_id()} {os.getpid()} {int(time.time())} {options.purpose} {user_and_host()}"
        )
        self._ends = 0.0

    @property
    def name(self) -> str:
        """What the user calls the device."""
        return self._device.name

    @property
    def fence(self) -> Fence:
        """The right to change what is current."""
        return Fence(folder=self._folder, token=self._token)

    def acquire(self) -> None:
        """Take the lock, waiting for another holder.

        Raises:
            LockedError: another host holds it for longer than is waited.
            DeviceError: it cannot be taken there: no permission, read-only, a lost link.
        """
        deadline = time.monotonic() + self._options.wait_seconds
        gone, seen, told, seen_at = "-", "-", "", 0.0
        with held_lock:
            held_tokens.add(self._token)
        while True:
            started = time.monotonic()
            # The first look does not wait, so that the user learns at once who is waited for.
            turns = int(min(_TURN_SECONDS, max(0.0, deadline - started))) if told else 0
            answer = self._ask(ACQUIRE, f"{_LEASE_SECONDS:.0f}", self._text, gone, str(turns))
            if answer == "held":
                self._ends = started + _LEASE_SECONDS
                return
            text = answer.partition(" ")[2]
            holder = read_holder(text)
            if text != seen:
                seen, seen_at = text, time.monotonic()
            lease = holder.lease_seconds if holder is not None else _LEASE_SECONDS
            watched = time.monotonic() - seen_at
            is_over = watched > lease + _MARGIN_SECONDS
            if gone != text and (is_over or (holder is not None and holder.is_gone)):
                gone = text
                continue
            who = str(holder) if holder is not None else "something that left no name"
            if time.monotonic() >= deadline:
                raise LockedError(
                    f"{subject(self.name)} {self._folder.rpartition('/')[0]} is held by {who}; "
                    f"waited {self._options.wait_seconds:g} s",
                    remedy="Wait until it is done, or allow more time with --lock-wait. If that "
                    f"host is gone, its lock ends by itself within {lease:.0f} s.",
                )
            if who != told:
                self._options.on_wait(f"waiting for {self.name}, held by {who}")
                told = who

    def release(self) -> None:
        """Give the lock back; who waits gets it at once.

        Raises:
            DeviceError: the device did not do it; the lease ends by itself.
        """
        try:
            self._ask(RENEW, "0", self._text)
        finally:
            self.forget()

    def forget(self) -> None:
        """Count the lease as lost without telling the device, which cannot be reached."""
        with held_lock:
            held_tokens.discard(self._token)

    def _cover(self, seconds: float) -> None:
        """Make the lease outlast a step; take the lock again when others had it meanwhile."""
        started = time.monotonic()
        needed = seconds + _MARGIN_SECONDS
        if started + needed <= self._ends:
            return
        lease = max(_LEASE_SECONDS, needed + 2 * _MARGIN_SECONDS)
        if self._ask(RENEW, f"{lease:.0f}", self._text) == "held":
            self._ends = started + lease
            return
        self.acquire()
        if needed > self._ends - time.monotonic():
            self._cover(seconds)

    def _ask(self, script: str, *arguments: str) -> str:
        result = run_step(
            self._device,
            script,
            self._folder,
            self._token,
            *arguments,
            action=f"hold {self._folder.rpartition('/')[0]}",
            error=DeviceError,
            timeout_seconds=STEP_SECONDS,
        )
        return result.text.strip()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command to its end; see `transport.Device.run`."""
        self._cover(timeout_seconds)
        return self._device.run(
            argv,
            timeout_seconds=timeout_seconds,
            stdin=stdin,
            max_output_bytes=max_output_bytes,
        )

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> Iterator[Iterator[bytes]]:
        """Run a command and iterate over its lines; see `transport.Device.stream`."""
        self._cover(timeout_seconds)
        with self._device.stream(
            argv, timeout_seconds=timeout_seconds, max_line_bytes=max_line_bytes
        ) as lines:
            yield lines

    def upload(
        self,
        source: Path | bytes,
        target: str,
        *,
        timeout_seconds: float,
        mode: int = 0o644,
        on_progress: ProgressCallback | None = None,
        codec: Codec | None = None,
        on_wire: ProgressCallback | None = None,
    ) -> str:
        """Write a file on the device; see `transport.Device.upload`."""
        num_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._cover(timeout_seconds + num_bytes / _SLOWEST_LINK_BYTES_PER_SECOND)
        return self._device.upload(
            source,
            target,
            timeout_seconds=timeout_seconds,
            mode=mode,
            on_progress=on_progress,
            codec=codec,
            on_wire=on_wire,
        )


@contextmanager
def hold_device(device: Device, *, root: str, options: LockOptions) -> Iterator[HeldDevice]:
    """Hold a device until the end of the context.

    Args:
        device: a connected device.
        root: the deploy root, absolute; hosts that use another root are not kept out.
        options: for what, and how long to wait.

    Raises:
        LockedError: another host holds it for longer than is waited.
        DeviceError: it cannot be held.
    """
    held = HeldDevice(device, Layout(root=root), options)
    try:
        held.acquire()
        yield held
    finally:
        # A lost link leaves a lease that ends by itself; what failed before counts more.
        with suppress(DeviceError):
            held.release()
        held.forget()


def find_holder(device: Device, *, root: str) -> Holder | None:
    """Tell who holds a device now; None where nobody does, or a lock does not say who.

    Args:
        device: a connected device.
        root: the deploy root, absolute.

    Raises:
        DeviceError: its locks cannot be looked at.
    """
    folder = Layout(root=root).lock
    result = run_step(device, SHOW, folder, action=f"look at {folder}", error=DeviceError)
    holder = read_holder(result.text.strip())
    return None if holder is None or holder.is_gone else holder
