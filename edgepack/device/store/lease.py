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
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edgepack.device.store.layout import RENAME_FUNCTION
from edgepack.device.store.ownership import host_id, is_alive

_HOLDER: Final = re.compile(
    r"(?P<token>[0-9a-f]{16}) \S{1,64} (?P<end>-|\d{1,12}) (?P<lease>\d{1,6}) "
    r"(?P<host>[0-9a-f]{8}) (?P<process>\d{1,10}) (?P<since>\d{1,12}) "
    r"(?P<purpose>[a-z]{1,20}) (?P<who>[A-Za-z0-9._@-]{1,96})"
)

held_tokens: Final[set[str]] = set()
held_lock: Final = threading.Lock()

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

# After `look`: whether nobody holds the device, or only who `$1` says, or whose time is over.
_FREE_FUNCTION: Final = """
is_free() {
  [ "$top" = 0 ] || [ "$holder" = free ] || [ "$holder" = "$1" ] && return 0
  set -f; set -- $holder; set +f
  [ "$#" -ge 3 ] || return 1
  [ "$boot" != - ] && [ "$2" != - ] && [ "$boot" != "$2" ] && return 0
  case $3 in '' | *[!0-9]*) return 1 ;; esac
  [ "$now" != - ] && [ "$now" -gt "$3" ]
}
"""

# `$1` the folder of locks; prints who holds the device.
SHOW: Final = f"""
dir=$1
{_LOOK_FUNCTION}
{_FREE_FUNCTION}
look
is_free free || printf '%s\n' "$holder"
"""

# `$1` the folder of locks, `$2` our token, `$3` seconds of lease, `$4` the rest of our text,
# `$5` the text of a holder known to be gone, `$6` turns to wait.
ACQUIRE: Final = f"""
umask 022
dir=$1 turn=0
mkdir -p -- "$dir" || exit 1
{_LOOK_FUNCTION}
{_FREE_FUNCTION}
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
RENEW: Final = f"""
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
            with held_lock:
                return self.token not in held_tokens
        return not is_alive(self.process)

    def __str__(self) -> str:
        return f"{self.who} ({self.purpose} since {self.since:%Y-%m-%d %H:%M:%S} UTC)"


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
