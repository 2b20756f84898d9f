"""Candidates of a pack as a report orders them: what is on the Pareto front, and what is not.

One candidate dominates another when it is no worse in fidelity, latency and size, and better in
one of them. Only differences that were shown count: latencies whose 95% intervals overlap are no
different, and neither are SQNRs to 0.1 dB and sizes to three digits, as the tables give them.
So the front holds no candidate for the noise in its measurement. (No circle of candidates can
dominate one another: it would have equal fidelity and size, and intervals have an order.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.units import count

_SIZE_DIGITS: Final = 3


class Place(StrEnum):
    """Where a candidate stands among the others."""

    CHOSEN = "chosen"
    FRONT = "front"
    BEHIND = "behind"
    OUTSIDE = "outside"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedRow:
    """A candidate with its number in the report.

    Attributes:
        number: from 1; the same in every table and figure of the report.
        row: what is known of it.
        place: where it stands; the chosen one is `CHOSEN` inside the floors and outside.
        is_front: whether no candidate inside the floors dominates it, and it is inside itself.
    """

    number: int
    row: VariantRow
    place: Place
    is_front: bool


def rank_candidates(pack: PackSummary) -> tuple[RankedRow, ...]:
    """Order a pack's candidates: the chosen one, the front, the dominated, outside, skipped.

    Within each, the quickest comes first, or the smallest where latency was not measured.
    """
    front = find_front(pack.variants)
    placed = [
        (row, _place(row, chosen=pack.chosen, is_front=index in front), index in front)
        for index, row in enumerate(pack.variants)
    ]
    order = list(Place)
    placed.sort(key=lambda each: (order.index(each[1]), _cost(each[0])))
    return tuple(
        RankedRow(number=number, row=row, place=place, is_front=is_front)
        for number, (row, place, is_front) in enumerate(placed, start=1)
    )


def find_front(rows: Sequence[VariantRow]) -> frozenset[int]:
    """Give the positions of rows inside the floors that no other of these dominates.

    Where some have a latency, those without one are compared with none.
    """
    inside = [
        index
        for index, row in enumerate(rows)
        if row.within_budget and row.num_bytes is not None and row.sqnr_db is not None
    ]
    timed = [index for index in inside if rows[index].median_ns is not None]
    compared = timed or inside
    return frozenset(
        index
        for index in compared
        if not any(dominates(rows[other], rows[index]) for other in compared)
    )


def dominates(one: VariantRow, other: VariantRow) -> bool:
    """Tell whether one is shown better in something, and worse in nothing."""
    differences = [*_worth_differences(one, other), _latency_difference(one, other)]
    return min(differences) >= 0 and max(differences) > 0


def tell_others(ranked: Sequence[RankedRow]) -> str:
    """Count the candidates that are neither chosen nor on the front; empty without any."""
    words = (
        (Place.BEHIND, "inside the floors but better in nothing"),
        (Place.OUTSIDE, "outside the floors"),
        (Place.SKIPPED, "skipped"),
    )
    numbers = [(sum(each.place is place for each in ranked), text) for place, text in words]
    others = sum(number for number, _ in numbers)
    if not others:
        return ""
    parts = ", ".join(f"{number} {text}" for number, text in numbers if number)
    return f"{count(others, 'other candidate')}: {parts}"


def _place(row: VariantRow, *, chosen: str, is_front: bool) -> Place:
    if row.skipped_reason is not None:
        return Place.SKIPPED
    if row.recipe == chosen:
        return Place.CHOSEN
    if not row.within_budget:
        return Place.OUTSIDE
    return Place.FRONT if is_front else Place.BEHIND


def _cost(row: VariantRow) -> tuple[float, float]:
    unknown = math.inf
    median = row.median_ns if row.median_ns is not None else unknown
    return median, row.num_bytes if row.num_bytes is not None else unknown


def _worth_differences(one: VariantRow, other: VariantRow) -> tuple[float, float]:
    """Give by how much one is nearer to float and smaller, as far as the tables show."""
    fidelity = round(one.sqnr_db or 0.0, 1) - round(other.sqnr_db or 0.0, 1)
    return fidelity, _rounded(other.num_bytes or 0) - _rounded(one.num_bytes or 0)


def _latency_difference(one: VariantRow, other: VariantRow) -> float:
    """Give by how much one is shown to be quicker, from interval to interval; 0 for a tie."""
    if one.median_ns is None or other.median_ns is None:
        return 0.0
    ours = one.median_ci95_ns or (one.median_ns, one.median_ns)
    theirs = other.median_ci95_ns or (other.median_ns, other.median_ns)
    if ours[1] < theirs[0]:
        return theirs[0] - ours[1]
    return min(0.0, theirs[1] - ours[0])


def _rounded(num_bytes: int) -> int:
    return round(num_bytes, _SIZE_DIGITS - len(str(num_bytes)))
