"""Waiting before a launch until the device is about as cool as it was at first."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from edgepack._fields import Fields
from edgepack.measure.launch import optional_number

TOLERANCE_C: Final = 2.0
"""So much above where it began counts as cool; sensors tell whole degrees on many boards."""

MAXIMUM_SECONDS: Final = 3600.0
_STEP_SECONDS: Final = 2.0
_MAXIMUM_RESTS: Final = 1000
_LONGEST_SECONDS: Final = 86400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """A wait before a launch.

    Attributes:
        seconds: how long it was.
        temperature_c: at its end; None where no thermometer can be read.
    """

    seconds: float
    temperature_c: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CoolDown:
    """The waits of a measurement in short.

    Attributes:
        num_rests: waits, one before each launch.
        seconds: they took together.
        goal_c: where the device was to be back; None where no thermometer can be read.
        num_warm: launches that began warmer than that.
    """

    num_rests: int
    seconds: float
    goal_c: float | None
    num_warm: int


def rest(
    read_temperature: Callable[[], float | None],
    *,
    began_c: float | None,
    max_seconds: float,
    on_warm: Callable[[float], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Rest:
    """Wait until a device is near where it began, or for all of the time where nothing tells it.

    Args:
        read_temperature: asks the device, in degrees Celsius.
        began_c: its temperature before anything ran; None where it told none.
        max_seconds: after which it is enough.
        on_warm: called with each temperature that is still too high.
        sleep: waits for seconds.
        clock: gives seconds.
    """
    start = clock()
    while True:
        temperature_c = read_temperature()
        spent = clock() - start
        if spent >= max_seconds or _is_cool(temperature_c, began_c):
            return Rest(seconds=spent, temperature_c=temperature_c)
        if temperature_c is not None:
            on_warm(temperature_c)
        sleep(min(_STEP_SECONDS, max_seconds - spent))


def _is_cool(temperature_c: float | None, began_c: float | None) -> bool:
    if temperature_c is None or began_c is None:
        return False
    return temperature_c <= began_c + TOLERANCE_C


def sum_up(rests: Sequence[Rest], *, began_c: float | None) -> CoolDown | None:
    """Give the waits of a measurement in short; None where there were none."""
    if not rests:
        return None
    told = [each.temperature_c for each in rests if each.temperature_c is not None]
    return CoolDown(
        num_rests=len(rests),
        seconds=sum(each.seconds for each in rests),
        goal_c=began_c if told else None,
        num_warm=sum(not _is_cool(each, began_c) for each in told) if began_c is not None else 0,
    )


def to_json(rests: Sequence[Rest]) -> list[dict[str, object]]:
    """Give waits as JSON values; `read_rests` is its inverse."""
    return [asdict(each) for each in rests]


def read_rests(fields: Fields, key: str) -> tuple[Rest, ...]:
    """Read waits from a larger record, noting faults in `fields`; results of old have none."""
    tables = fields.tables(key)
    if len(tables) > _MAXIMUM_RESTS:
        fields.fault(key, f"expected at most {_MAXIMUM_RESTS}, not {len(tables)}")
        return ()
    rests = []
    for table in tables:
        rests.append(
            Rest(
                seconds=table.number("seconds", minimum=0, maximum=_LONGEST_SECONDS),
                temperature_c=optional_number(table, "temperature_c"),
            )
        )
        table.close()
    return tuple(rests)
