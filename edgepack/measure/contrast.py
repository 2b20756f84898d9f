"""Whether one model is faster than another on a device, from launches of both; pure.

The ratio is that of the medians, each the median of its launches' medians. Its 95% interval is a
bootstrap in two levels, launches and then the runs within each (Kalibera and Jones, ISMM 2013,
"Rigorous Benchmarking in Reasonable Time"). Launches that were taken in turns are drawn as pairs,
so that what changed slowly on the device cancels. With few launches a percentile interval is too
narrow, so its ends lie further out, as those of Student's t do (the expanded percentile interval
of Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3).

A difference is claimed only when the interval excludes 1 by more than a margin: 1%, or what the
same model differs from itself in these very launches, if that is more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import MeasureError
from edgepack.measure.stats import (
    MINIMUM_LAUNCHES,
    MOST_LAUNCHES,
    median,
    quantile,
    tail_share,
    thin,
)

SMALLEST_MARGIN: Final = 0.01
TOLD_APART: Final = 0.02
"""The difference whose showing `Contrast.num_more` speaks of."""

_SEED: Final = 20260103
_NUM_RESAMPLES: Final = 4000
_SCALE: Final = 10**9  # ratios as integers for exact quantiles

Launches = Sequence[Sequence[int]]
Samples = NDArray[np.int64]


class Difference(StrEnum):
    """What two models' launches show."""

    FASTER = "faster"
    SLOWER = "slower"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """How a model's latency stands to another's.

    Attributes:
        speedup: the other's median as a multiple of this one's: above 1 this one is faster.
        speedup_ci95: its 95% interval.
        margin: by how much the interval must exclude 1.
        difference: what is shown of this one.
        num_launches: of each.
        is_paired: whether they were taken in turns.
        num_more: further launches of each, about, after which a difference of 2% would show;
            None when that takes more than a plan may have.
    """

    speedup: float
    speedup_ci95: tuple[float, float]
    margin: float
    difference: Difference
    num_launches: int
    is_paired: bool
    num_more: int | None

    @property
    def reach(self) -> float:
        """How far the interval reaches to its further side, as a share of the speed-up."""
        low, high = self.speedup_ci95
        return max(high - self.speedup, self.speedup - low) / self.speedup

    @property
    def text(self) -> str:
        """Say it: `1.34x faster (95%: 1.30 to 1.38)`, or that no difference is shown."""
        low, high = self.speedup_ci95
        if self.difference is Difference.FASTER:
            return f"{self.speedup:.2f}x faster (95%: {low:.2f} to {high:.2f})"
        if self.difference is Difference.SLOWER:
            slower = (1 / self.speedup, 1 / high, 1 / low)
            return "{:.2f}x slower (95%: {:.2f} to {:.2f})".format(*slower)
        return f"no difference shown ({self.speedup:.3f}x, 95%: {low:.3f} to {high:.3f})"


def to_json(found: Contrast) -> dict[str, object]:
    """Give a comparison as JSON values."""
    return {
        "speedup": found.speedup,
        "speedup_ci95": list(found.speedup_ci95),
        "reach": found.reach,
        "margin": found.margin,
        "difference": found.difference.value,
        "num_launches": found.num_launches,
        "in_turns": found.is_paired,
        "num_more_launches_for_2_percent": found.num_more,
        "text": found.text,
    }


def contrast(ours: Launches, theirs: Launches, *, is_paired: bool) -> Contrast:
    """Compare the launches of two models.

    Args:
        ours: samples in ns of each launch of the one, in the order they were taken.
        theirs: of the other.
        is_paired: whether the launches of one place were taken one right after the other.

    Raises:
        MeasureError: fewer than 6 launches of either, an empty one, or pairs that do not match.
    """
    _check(ours, theirs, is_paired=is_paired)
    middles = [[median(each) for each in side] for side in (ours, theirs)]
    speedup = median(middles[1]) / max(median(middles[0]), 1)
    low, high = _interval(ours, theirs, is_paired=is_paired)
    margin = max(SMALLEST_MARGIN, *(_self_difference(side) for side in middles))
    difference = Difference.NONE
    if low > 1 + margin:
        difference = Difference.FASTER
    elif high < 1 / (1 + margin):
        difference = Difference.SLOWER
    num_launches = min(len(ours), len(theirs))
    return Contrast(
        speedup=speedup,
        speedup_ci95=(low, high),
        margin=margin,
        difference=difference,
        num_launches=num_launches,
        is_paired=is_paired,
        num_more=_count_more(low, high, margin, num_launches),
    )


def _check(ours: Launches, theirs: Launches, *, is_paired: bool) -> None:
    fewest = min(len(ours), len(theirs))
    if fewest < MINIMUM_LAUNCHES:
        raise MeasureError(
            f"a comparison needs {MINIMUM_LAUNCHES} launches of each, but there are {fewest}",
            remedy="Measure with --launches 10; where fewer fit, with more --max-seconds.",
        )
    if not all((*ours, *theirs)):
        raise MeasureError(
            "expected launches that each hold a sample, but one is empty",
            remedy="Measure again.",
        )
    if is_paired and len(ours) != len(theirs):
        raise MeasureError(
            f"expected as many launches of both, taken in turns, not {len(ours)} and {len(theirs)}",
            remedy="Measure again.",
        )


def _interval(ours: Launches, theirs: Launches, *, is_paired: bool) -> tuple[float, float]:
    generator = np.random.default_rng(_SEED)
    picks = [
        generator.integers(0, len(side), (_NUM_RESAMPLES, len(side))) for side in (ours, theirs)
    ]
    if is_paired:
        picks[1] = picks[0]
    drawn = [
        np.median(_draw_medians(side, picked, generator), axis=1)
        for side, picked in zip((ours, theirs), picks, strict=True)
    ]
    ratios = np.sort((drawn[1] / np.maximum(drawn[0], 1) * _SCALE).astype(np.int64))
    tail = tail_share(min(len(ours), len(theirs)))
    ends = (quantile(ratios, Fraction(share)) / _SCALE for share in (tail, 1 - tail))
    return next(ends), next(ends)


def _draw_medians(
    launches: Launches, picked: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the runs of each picked launch anew and give the median of each draw.

    The median of n values drawn with replacement is the value at the share that the median of n
    uniform numbers is: Beta((n + 1) / 2, (n + 1) / 2).
    """
    table, sizes = _table(launches)
    counts = sizes[picked].astype(np.float64)
    shares = generator.beta((counts + 1) / 2, (counts + 1) / 2)
    places = np.minimum((shares * counts).astype(np.int64), sizes[picked] - 1)
    return np.asarray(table[picked, places], dtype=np.float64)


def _table(launches: Launches) -> tuple[Samples, Samples]:
    """Give sorted samples of each launch in a row, and how many there are."""
    rows = [thin(np.sort(np.asarray(each, dtype=np.int64))) for each in launches]
    sizes = np.array([row.size for row in rows], dtype=np.int64)
    table = np.zeros((len(rows), int(sizes.max())), dtype=np.int64)
    for row, place in zip(rows, table, strict=True):
        place[: row.size] = row
    return table, sizes


def _self_difference(middles: Sequence[int]) -> float:
    """Give by how much a model's odd launches differ from its even ones."""
    first, second = median(middles[::2]), median(middles[1::2])
    low, high = sorted((max(first, 1), max(second, 1)))
    return high / low - 1


def _count_more(low: float, high: float, margin: float, num_launches: int) -> int | None:
    """Give how many more launches would narrow the interval so that 2% stand out of it.

    What a model differs from itself is mostly chance of few launches, and shrinks as the interval.
    """
    if low <= 0:
        return None
    smallest = math.log1p(SMALLEST_MARGIN)
    reach = math.log(high / low) / 2 + math.log1p(margin) - smallest
    wanted = math.ceil(num_launches * (reach / (math.log1p(TOLD_APART) - smallest)) ** 2)
    return max(0, wanted - num_launches) if wanted <= MOST_LAUNCHES else None
