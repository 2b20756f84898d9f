"""Waves: how many devices go first, before the others follow."""

import math
import re
from dataclasses import dataclass
from typing import Final

from edgepack.errors import UsageError

_PART: Final = re.compile(r"(\d{1,6})(%?)")
_WHOLE_PERCENT: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """A number of devices, or a share of the fleet.

    Attributes:
        value: the number, or percents.
        is_share: whether it is percents.
    """

    value: int
    is_share: bool = False

    def of(self, num_devices: int) -> int:
        """Give the number of devices of a fleet of this size, a share rounded up."""
        if not self.is_share:
            return self.value
        return math.ceil(num_devices * self.value / _WHOLE_PERCENT)


CANARY: Final = (Amount(value=1), Amount(value=10, is_share=True))
"""One device, then a tenth of the fleet, then the rest."""


def parse_amount(text: str) -> Amount:
    """Read `3` or `10%`.

    Raises:
        UsageError: neither.
    """
    match = _PART.fullmatch(text.strip())
    if match is None or (match[2] and int(match[1]) > _WHOLE_PERCENT):
        raise UsageError(
            f"{text!r} is no number of devices", remedy="Write a number, or a share such as 10%."
        )
    return Amount(value=int(match[1]), is_share=bool(match[2]))


def parse_waves(text: str) -> tuple[Amount, ...]:
    """Read the sizes of the first waves, such as `1,10%`; the rest is the last wave.

    Raises:
        UsageError: another form, or a wave of nobody.
    """
    amounts = tuple(parse_amount(part) for part in text.split(","))
    if any(each.value == 0 for each in amounts):
        raise UsageError(
            f"--waves {text}: expected at least one device in each wave",
            remedy="Write sizes such as 1,10%; the rest follows by itself.",
        )
    return amounts


def split_waves(num_devices: int, sizes: tuple[Amount, ...]) -> tuple[range, ...]:
    """Give the places of the devices of each wave, in their order; each device is in one."""
    waves: list[range] = []
    start = 0
    for size in (*sizes, Amount(value=num_devices)):
        stop = min(num_devices, start + size.of(num_devices))
        if stop > start:
            waves.append(range(start, stop))
        start = stop
    return tuple(waves)
