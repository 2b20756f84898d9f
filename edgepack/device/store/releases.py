"""Releases that lie on a device: which is current, where a rollback leads, which may go."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edgepack.device.store.layout import (
    Layout,
    is_release,
    resolve_root,
    run_step,
)
from edgepack.device.wire.sections import parse_count
from edgepack.device.wire.transport import Device
from edgepack.errors import DeployError

MAX_HISTORY: Final = 100
_BUNDLE: Final = re.compile(r"bundle ([A-Za-z0-9_][A-Za-z0-9._-]{0,63})")
_CURRENT: Final = re.compile(r"current releases/([0-9a-f]{12})")
_HISTORY: Final = re.compile(r"history ([0-9a-f]{12})")
_LISTED: Final = re.compile(r"release ([0-9a-f]{12}) (\d{1,12}|-) (\d{1,16})")

# GNU and BusyBox know `stat -c`, macOS `stat -f`.
_LIST: Final = f"""
cd -- "$1" 2>/dev/null || exit 0
for folder in *; do
  [ -d "$folder/releases" ] || continue
  printf 'bundle %s\\ncurrent %s\\n' "$folder" "$(readlink "$folder/current" 2>/dev/null)"
  tail -n {MAX_HISTORY} "$folder/history" 2>/dev/null | sed 's/^/history /'
  ls -tr "$folder/releases" | while IFS= read -r release; do
    path=$folder/releases/$release
    [ -d "$path" ] && [ ! -L "$path" ] || continue
    placed=$(stat -c %Y "$path" 2>/dev/null || stat -f %m "$path" 2>/dev/null || echo -)
    kib=$(du -sk "$path" | cut -f 1)
    printf 'release %s %s %s\\n' "$release" "$placed" "$kib"
  done
done
"""


_CURRENT_OF: Final = 'readlink "$1" 2>/dev/null; exit 0'


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseFacts:
    """A release that lies on a device.

    Attributes:
        name: of the bundle.
        release: 12 hex digits.
        is_current: whether `current` leads to it.
        is_previous: whether a rollback leads to it.
        placed: when it was put there, by the device's clock; None when it does not say.
        disk_bytes: room its folder takes; files shared with other releases count in each.
    """

    name: str
    release: str
    is_current: bool
    is_previous: bool
    placed: datetime | None
    disk_bytes: int


def list_releases(device: Device, *, root: str) -> tuple[ReleaseFacts, ...]:
    """List the releases on a device, by bundle, oldest first.

    Raises:
        DeployError: the folder of releases cannot be read.
    """
    layout = Layout(root=resolve_root(device, root))
    result = run_step(device, _LIST, layout.bundles, action=f"list {layout.bundles}")
    releases: list[ReleaseFacts] = []
    name, current = "", ""
    history: list[str] = []
    found: list[tuple[str, str, int]] = []
    for line in (*result.text.splitlines(), "bundle end"):
        if match := _BUNDLE.fullmatch(line):
            releases += _describe(name, current, history, found)
            name, current, history, found = match[1], "", [], []
        elif match := _CURRENT.fullmatch(line):
            current = match[1]
        elif match := _HISTORY.fullmatch(line):
            history.append(match[1])
        elif match := _LISTED.fullmatch(line):
            kib = parse_count(match[3], maximum=2**50)
            found.append((match[1], match[2], 1024 * (kib or 0)))
    return tuple(releases)


def current_release(device: Device, layout: Layout, name: str) -> str | None:
    """Tell which release of a bundle is current; None when none is. Its files are not looked at.

    Raises:
        DeviceError: the device does not say.
    """
    link = layout.current(name)
    result = run_step(device, _CURRENT_OF, link, action=f"read {link}")
    release = result.text.strip().removeprefix("releases/")
    return release if is_release(release) else None


def _describe(
    name: str, current: str, history: Sequence[str], found: Sequence[tuple[str, str, int]]
) -> list[ReleaseFacts]:
    if not name:
        return []
    present = tuple(release for release, _, _ in found)
    previous = previous_release(current, history, present)
    return [
        ReleaseFacts(
            name=name,
            release=release,
            is_current=release == current,
            is_previous=release == previous,
            placed=_read_time(placed),
            disk_bytes=disk_bytes,
        )
        for release, placed, disk_bytes in found
    ]


def _read_time(text: str) -> datetime | None:
    seconds = parse_count(text, maximum=2**36)
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)


def previous_release(current: str, history: Sequence[str], present: Sequence[str]) -> str | None:
    """Give the release that was current before, as far as it is still there.

    Args:
        current: what `current` leads to; empty when it leads nowhere.
        history: what was current, in order; what follows `current` there never was.
        present: the releases on the device, oldest first; their order counts only where
            there is no history.
    """
    if not current:
        return None
    trail = list(history) or list(present)
    if current in trail:
        trail = trail[: len(trail) - 1 - trail[::-1].index(current)]
    before = [release for release in trail if release in present and release != current]
    return before[-1] if before else None


def find_release(present: Sequence[ReleaseFacts], name: str, release: str | None) -> ReleaseFacts:
    """Find where a rollback leads among the releases on a device.

    Args:
        present: as `list_releases` gives them.
        name: of the bundle.
        release: the one that is wanted; None is the one that was current before.

    Raises:
        DeployError: no such bundle or release on the device.
    """
    if release is not None and not is_release(release):
        raise DeployError(
            f"a release: expected 12 hex digits, not {release!r}",
            remedy="List the releases on the device with `edgepack releases DEVICE`.",
        )
    of_name = [facts for facts in present if facts.name == name]
    for facts in of_name:
        if facts.release == release or (release is None and facts.is_previous):
            return facts
    known = ", ".join(facts.release for facts in of_name) or "none"
    wanted = f"release {release}" if release else "release before the current one"
    raise DeployError(
        f"{name}: expected a {wanted} on the device; there: {known}",
        remedy="Push the bundle you want with `edgepack push`.",
    )


def choose_removable(
    present: Sequence[ReleaseFacts], *, keep: int, name: str | None = None
) -> tuple[ReleaseFacts, ...]:
    """Choose the releases that may go, the first to go first.

    Never the current one; and never the one a rollback leads to unless only one is kept.
    Releases that were placed long ago go first.

    Args:
        present: as `list_releases` gives them.
        keep: how many of each bundle stay, those two among them; at least 1.
        name: of one bundle; None is all of them.
    """
    removable: list[ReleaseFacts] = []
    for each in sorted({facts.name for facts in present}):
        if name not in {None, each}:
            continue
        of_name = [facts for facts in present if facts.name == each]
        kept = [facts for facts in of_name if facts.is_current]
        kept += [facts for facts in of_name if facts.is_previous and keep > 1]
        others = [facts for facts in of_name if facts not in kept]
        stay = max(0, keep - len(kept))
        removable += others[: max(0, len(others) - stay)]
    return tuple(sorted(removable, key=_by_age))


def _by_age(facts: ReleaseFacts) -> float:
    return facts.placed.timestamp() if facts.placed is not None else 0.0
