"""Filters: which devices of a fleet are meant."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from edgepack._fields import nearest
from edgepack.errors import FleetError
from edgepack.fleet.inventory import FleetDevice

_FORM: Final = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)(!?=)(.+)", re.DOTALL)
_FORMS: Final = (
    "Write tag=kitchen, target=raspberry-pi-4, address=pi@kitchen-*, or a fact such as "
    "arch=aarch64; tag=a,b takes either, tag!=a all others."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """A condition on a device.

    Attributes:
        key: `tag`, `target`, `address`, or a fact's name.
        patterns: values of which one must match; `*`, `?` and `[...]` as in a shell.
        is_negated: whether none may match.
    """

    key: str
    patterns: tuple[str, ...]
    is_negated: bool = False

    def __str__(self) -> str:
        return f"{self.key}{'!=' if self.is_negated else '='}{','.join(self.patterns)}"

    def takes(self, device: FleetDevice) -> bool:
        """Tell whether a device meets it; one of which nothing is said has no value."""
        is_match = any(
            fnmatchcase(value, pattern)
            for value in _values(device, self.key)
            for pattern in self.patterns
        )
        return is_match is not self.is_negated


def parse_filter(text: str) -> Filter:
    """Read `KEY=VALUE[,VALUE...]` or `KEY!=VALUE[,VALUE...]`.

    Raises:
        FleetError: another form.
    """
    match = _FORM.fullmatch(text)
    patterns = tuple(each.strip() for each in match[3].split(",")) if match else ()
    if match is None or not all(patterns):
        raise FleetError(f"{text!r} is no filter", remedy=_FORMS)
    return Filter(key=match[1], patterns=patterns, is_negated=match[2] == "!=")


def select(devices: Sequence[FleetDevice], filters: Sequence[Filter]) -> tuple[FleetDevice, ...]:
    """Give the devices that meet all filters, in their order.

    Raises:
        FleetError: a filter by what no device has, or none is left.
    """
    known = sorted({"address", "tag", "target", *(key for each in devices for key in each.facts)})
    for each in filters:
        if each.key not in known:
            raise FleetError(
                f"--filter {each}: no device has a fact {each.key!r}{nearest(each.key, known)}",
                remedy=_FORMS,
            )
    chosen = tuple(each for each in devices if all(one.takes(each) for one in filters))
    if not chosen:
        raise FleetError(
            f"none of {len(devices)} devices meets {' and '.join(map(str, filters))}",
            remedy="Loosen the filter, or see to the tags and facts in the fleet file.",
        )
    return chosen


def _values(device: FleetDevice, key: str) -> tuple[str, ...]:
    match key:
        case "tag":
            return device.tags
        case "address":
            return (device.address,)
        case "target":
            return () if device.target is None else (device.target,)
        case _:
            return () if key not in device.facts else (device.facts[key],)
