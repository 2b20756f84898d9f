"""Bare models, inputs and runtimes on a device: what was used last, and which may go.

Nothing that is current needs any of them: a release is whole in its own folder, and what a push
or a benchmark lacks is sent again. A folder's date is that of its last use, for which `placing`
and the checks of the runtimes touch it.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack.device.store.layout import Layout, run_step
from edgepack.device.wire.sections import parse_count
from edgepack.device.wire.transport import Device

_LISTED: Final = re.compile(
    r"(?P<kind>model|inputs) (?P<content>[0-9a-f]{64}) (?P<kib>\d{1,16})"
    r"|runtime (?P<runtime>[A-Za-z0-9_][A-Za-z0-9._-]{0,254}) (?P<runtime_kib>\d{1,16})"
)

# `$1` the deploy root. What is a link leads to a place of the user's own, which others may share.
_LIST: Final = """
for store in models runtimes; do
  [ -d "$1/$store" ] && [ ! -L "$1/$store" ] || continue
  ls -tr "$1/$store" | while IFS= read -r name; do
    path=$1/$store/$name kind=runtime
    [ -d "$path" ] && [ ! -L "$path" ] || continue
    if [ "$store" = models ]; then
      kind=inputs
      [ -f "$path/model.tflite" ] && kind=model
    fi
    printf '%s %s %s\\n' "$kind" "$name" "$(du -sk "$path" | cut -f 1)"
  done
done
"""


class HoldingKind(StrEnum):
    """What a folder beside the releases holds."""

    MODEL = "model"  # a bare one, as `bench model.tflite` places it
    INPUTS = "inputs"  # the golden ones of a model, with Python's runner
    RUNTIME = "runtime"


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """A folder that lies on a device beside the releases.

    Attributes:
        kind: what is in it.
        name: of the folder, which tells its content.
        disk_bytes: room it takes.
    """

    kind: HoldingKind
    name: str
    disk_bytes: int

    @property
    def is_by_content(self) -> bool:
        """Whether its name is the digest of its content."""
        return self.kind is not HoldingKind.RUNTIME

    @property
    def path(self) -> str:
        """Where it lies below the deploy root."""
        store = "models" if self.is_by_content else "runtimes"
        return f"{store}/{self.name}"


def list_holdings(device: Device, layout: Layout) -> tuple[Holding, ...]:
    """List what lies beside the releases on a device; what was used last comes last.

    Raises:
        DeployError: the deploy root cannot be read.
    """
    result = run_step(device, _LIST, layout.root, action=f"list {layout.root}")
    holdings: list[Holding] = []
    for line in result.text.splitlines():
        match = _LISTED.fullmatch(line)
        if match is None:
            continue
        kib = parse_count(match["kib"] or match["runtime_kib"], maximum=2**50)
        holdings.append(
            Holding(
                kind=HoldingKind(match["kind"] or "runtime"),
                name=match["content"] or match["runtime"],
                disk_bytes=1024 * (kib or 0),
            )
        )
    return tuple(holdings)


def choose_surplus(
    present: Sequence[Holding], *, keep: int, runtimes: Collection[str]
) -> tuple[Holding, ...]:
    """Choose what may go, the first to go first: models, inputs, then runtimes.

    Never what was used last of its kind, and never a runtime that is named.

    Args:
        present: as `list_holdings` gives it.
        keep: how many of each kind stay, those among them; at least 1.
        runtimes: folders of runtimes that stay.
    """
    surplus: list[Holding] = []
    for kind in HoldingKind:
        of_kind = [each for each in present if each.kind is kind]
        others = [
            each
            for each in of_kind[:-1]
            if kind is not HoldingKind.RUNTIME or each.name not in runtimes
        ]
        stay = max(0, keep - (len(of_kind) - len(others)))
        surplus += others[: max(0, len(others) - stay)]
    return tuple(surplus)
