"""One host at a time on a device: a lease that ends by itself when its host vanishes.

    ROOT/lock/<number>    a symbolic link whose text says who holds the device, or `free`

The highest number counts. A link is made with its text by one system call and only where
none is (`ln -s`), so exactly one host gets the next number and no half-written lock exists.
The highest one is never removed: a host that was slow to decide finds its number taken or
a higher one beside it.

A lock is a lease, not a process: `sshd` keeps a vanished host's session for a quarter of an
hour and more. Each step on the device is covered by it beforehand, its time limit included,
and nothing has to be sent while a model is timed. A lease is over when the device's own
uptime says so, when the device was started anew, when its process on this machine is gone,
or when it stood unchanged for as long as it was given, watched from here: so a device
without a clock is served too. A host that lost its lease meanwhile is stopped at the next
step that changes what is current (see `Fence`); all else on a device is by content.
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edgepack.device.layout import RENAME_FUNCTION, STEP_SECONDS, Layout, run_step
from edgepack.device.ownership import host_id, is_alive, user_and_host
from edgepack.device.transport import CommandResult, Device, ProgressCallback
from edgepack.errors import DeviceError, LockedError

WAIT_SECONDS: Final = 300.0
"""How long a device is waited for by default: longer than the lease of a vanished host."""

_LEASE_SECONDS: Final = 180.0
_MARGIN_SECONDS: Final = 30.0
_TURN_SECONDS: Final = 10
# An upload has no limit but that it goes on; a slower one renews its lease when it is over.
_SLOWEST_LINK_BYTES_PER_SECOND: Final = 2**20
_HOLDER: Final = re.compile(
    r"(?P<token>[0-9a-f]{16}) \S{1,64} (?P<end>-|\d{1,12}) (?P<lease>\d{1,6}) "
    r"(?P<host>[0-9a-f]{8}) (?P<process>\d{1,10}) (?P<since>\d{1,12}) "
    r"(?P<purpose>[a-z]{1,20}) (?P<who>[A-Za-z0-9._@-]{1,96})"
)

# `$dir` the folder of locks. Sets `top`, `holder`, `boot` and `now`, the last two to `-` where
# there is no /proc. Links that lead nowhere are found by `-L`, never by `-e`.
_LOOK_FUNCTION: Final = """
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null) || boot=-
look() {
  top=0 holder=
  for entry in "$dir"/*; do
    number=${entry##*/}
    case $number in '' | 0* | *[!0-9]*) continue ;; esac
    [ "$number" -gt "$top" ] && top=$number
  done
  [ "$top" = 0 ] || holder=$(readlink "$dir/$top")
  now=$(cut -d . -f 1 /proc/uptime 2>/dev/null) && [ -n "$now" ] || now=-
}
ends() { if [ "$now" = - ]; then echo -; else echo $((now + $1)); fi; }
"""

# `$1` the folder of locks, `$2` our token, `$3` seconds of lease, `$4` the rest of our text,
# `$5` the text of a holder known to be gone, `$6` turns to wait.
_ACQUIRE: Final = f"""
umask 022
dir=$1 turn=0
mkdir -p -- "$dir" || exit 1
{_LOOK_FUNCTION}
is_free() {{
  [ "$top" = 0 ] || [ "$holder" = free ] || [ "$holder" = "$1" ] && return 0
  set -f; set -- $holder; set +f
  [ "$#" -ge 3 ] || return 1
  [ "$boot" != - ] && [ "$2" != - ] && [ "$boot" != "$2" ] && return 0
  case $3 in '' | *[!0-9]*) return 1 ;; esac
  [ "$now" != - ] && [ "$now" -gt "$3" ]
}}
while :; do
  look
  if is_free "$5"; then
    next=$((top + 1))
    said=$(ln -s "$2 $boot $(ends "$3") $3 $4" "$dir/$next" 2>&1) || {{
      [ -L "$dir/$next" ] && continue
      echo "$said" >&2; exit 1
    }}
    look
    if [ "$top" = "$next" ]; then
      for entry in "$dir"/*; do [ "$entry" = "$dir/$top" ] || rm -f -- "$entry"; done
      echo held; exit 0
    fi
    rm -f -- "$dir/$next"
    continue
  fi
  [ "$turn" -ge "$6" ] && {{ printf 'busy %s\\n' "$holder"; exit 0; }}
  turn=$((turn + 1))
  sleep 1
done
"""

# `$1` the folder of locks, `$2` our token, `$3` seconds of lease (0 gives it back), `$4` the
# rest of our text.
_RENEW: Final = f"""
umask 022
dir=$1
{RENAME_FUNCTION}
{_LOOK_FUNCTION}
look
case $holder in "$2 "*) ;; *) echo lost; exit 0 ;; esac
text=free
[ "$3" = 0 ] || text="$2 $boot $(ends "$3") $3 $4"
rm -f -- "$dir/$2"
mine=$top failed=0
ln -s "$text" "$dir/$2" && rename "$dir/$2" "$dir/$mine" || failed=1
look
[ "$top" = "$mine" ] && [ "$failed" = 1 ] && exit 1
if [ "$top" = "$mine" ]; then echo held; else echo lost; fi
"""

FENCE_FUNCTION: Final = f"""
{_LOOK_FUNCTION}
fence() {{
  [ -n "$1" ] || return 0
  dir=$1
  look
  case $holder in "$2 "*) return 0 ;; esac
  echo 'another host has taken the device over' >&2
  exit 1
}}
"""
"""Shell: `fence DIR TOKEN` ends a script unless the lock is still that token's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fence:
    """What a step that changes what is current proves its right by; empty: it needs none."""

    folder: str = ""
    token: str = ""


NO_FENCE: Final = Fence()


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a device.

    Attributes:
        token: of this one lease.
        host: `ownership.host_id` of the holder's machine.
        process: its process there.
        lease_seconds: how long the lease was given for.
        since: when it was taken, by the holder's clock.
        purpose: verb, such as `bench`.
        who: `user@host`.
    """

    token: str
    host: str
    process: int
    lease_seconds: int
    since: datetime
    purpose: str
    who: str

    @property
    def is_gone(self) -> bool:
        """Whether it is a process of this machine that lives no more, or a lost lease of ours."""
        if self.host != host_id():
            return False
        if self.process == os.getpid():
            with _held_lock:
                return self.token not in _held
        return not is_alive(self.process)

    def __str__(self) -> str:
        return f"{self.who} ({self.purpose} since {self.since:%Y-%m-%d %H:%M:%S} UTC)"


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


_held: Final[set[str]] = set()
_held_lock: Final = threading.Lock()


def read_holder(text: str) -> Holder | None:
    """Read a lock's text; None when it is not one of ours."""
    match = _HOLDER.fullmatch(text)
    if match is None:
        return None
    try:
        since = datetime.fromtimestamp(int(match["since"]), tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return Holder(
        token=match["token"],
        host=match["host"],
        process=int(match["process"]),
        lease_seconds=int(match["lease"]),
        since=since,
        purpose=match["purpose"],
        who=match["who"],
    )


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
        with _held_lock:
            _held.add(self._token)
        while True:
            started = time.monotonic()
            # The first look does not wait, so that the user learns at once who is waited for.
            turns = int(min(_TURN_SECONDS, max(0.0, deadline - started))) if told else 0
            answer = self._ask(_ACQUIRE, f"{_LEASE_SECONDS:.0f}", self._text, gone, str(turns))
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
                    f"{self.name}: {self._folder.rpartition('/')[0]} is held by {who}; waited "
                    f"{self._options.wait_seconds:g} s",
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
            self._ask(_RENEW, "0", self._text)
        finally:
            self.forget()

    def forget(self) -> None:
        """Count the lease as lost without telling the device, which cannot be reached."""
        with _held_lock:
            _held.discard(self._token)

    def _cover(self, seconds: float) -> None:
        """Make the lease outlast a step; take the lock again when others had it meanwhile."""
        started = time.monotonic()
        needed = seconds + _MARGIN_SECONDS
        if started + needed <= self._ends:
            return
        lease = max(_LEASE_SECONDS, needed + 2 * _MARGIN_SECONDS)
        if self._ask(_RENEW, f"{lease:.0f}", self._text) == "held":
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
    ) -> str:
        """Write a file on the device; see `transport.Device.upload`."""
        num_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._cover(timeout_seconds + num_bytes / _SLOWEST_LINK_BYTES_PER_SECOND)
        return self._device.upload(
            source, target, timeout_seconds=timeout_seconds, mode=mode, on_progress=on_progress
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
