"""Finding the first place in a row that departs, by looking at few places at a time; pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Look = Callable[[Sequence[int]], Mapping[int, bool | None]]
"""Tells of each place whether it departs; None when that cannot be told. No answer ends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrowed:
    """Where the first departing place is.

    Attributes:
        agreeing: the last place before it that agrees; None when there is none.
        departing: the place itself; None when none departs.
        unknown: places between the two that could not be told.
        is_complete: whether every place between the two was looked at.
    """

    agreeing: int | None
    departing: int | None
    unknown: tuple[int, ...]
    is_complete: bool


def find_first(num_places: int, look: Look, *, most: int) -> Narrowed:
    """Find the first of some places that departs.

    The last place is looked at in the first round, so that a row of which nothing departs
    takes one round and no more.

    Args:
        num_places: how many there are.
        look: called with at most so many ascending places.
        most: places a round, at least 2.
    """
    low, high = -1, num_places
    unknown: set[int] = set()
    while True:
        open_places = [place for place in range(low + 1, high) if place not in unknown]
        if not open_places:
            break
        found = look(space_evenly(open_places, most))
        if not found:
            break
        unknown |= {place for place, departs in found.items() if departs is None}
        departing = [place for place, departs in found.items() if departs]
        if departing:
            high = min(departing)
        low = max(
            (place for place, departs in found.items() if departs is False and place < high),
            default=low,
        )
    return Narrowed(
        agreeing=low if low >= 0 else None,
        departing=high if high < num_places else None,
        unknown=tuple(sorted(place for place in unknown if low < place < high)),
        is_complete=all(place in unknown for place in range(low + 1, high)),
    )


def space_evenly(places: Sequence[int], most: int) -> tuple[int, ...]:
    """Give at most so many of the places, evenly spread, the last among them."""
    count = min(most, len(places))
    return tuple(places[(index + 1) * len(places) // count - 1] for index in range(count))
