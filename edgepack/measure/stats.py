"""Statistics of latency samples; pure, and the same for the same samples.

Definitions, for n sorted samples x[0] … x[n-1] in nanoseconds:

- A quantile q is the smallest sample that at least q of all samples do not exceed,
  x[ceil(q n) - 1] (type 1 of Hyndman and Fan, Am. Stat. 50, 1996), so every quantile was
  really measured. Medians of an even count are the mean of the middle two, rounded down.
- `median_ns` is the median of the launches' medians; `p90_ns`, `p99_ns`, mean, deviation,
  minimum and maximum are over the samples of all launches together.
- Samples of one launch depend on each other, so no interval is taken over pooled samples.
  The median's 95% interval is the order-statistic interval over launch medians, which assumes
  only that launches are independent; it needs 6 of them. Intervals of other quantiles are
  bootstrapped in two levels, launches and then runs within (Kalibera and Jones, ISMM 2013),
  with a fixed seed. Of few launches a percentile interval is too narrow, so its ends lie
  further out, as those of Student's t do (the expanded percentile interval of Hesterberg 2015,
  "What Teachers Should Know About the Bootstrap", section 5.3).
- p99 needs 100 samples, its interval 368; the interval of p90 needs 36: fewer cannot hold a
  quantile inside their extremes with 95% confidence.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.shares import t_quantile

MINIMUM_LAUNCHES: Final = 6
MOST_LAUNCHES: Final = 1000  # that a plan may have
MINIMUM_P99_SAMPLES: Final = 100
_INTERVAL_SAMPLES: Final = {Fraction(9, 10): 36, Fraction(99, 100): 368}
P90: Final = Fraction(9, 10)
P99: Final = Fraction(99, 100)

_CONFIDENCE: Final = 0.95
_SEED: Final = 20260101
_NUM_RESAMPLES: Final = 1000
_MAXIMUM_RUNS: Final = 1000  # of a launch that take part in resampling

Interval = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencySummary:
    """What the samples of all launches say; the module defines each figure.

    Attributes:
        num_launches: launches.
        num_samples: samples of all launches.
        median_ns: typical latency.
        median_ci95_ns: its 95% interval; None with fewer than 6 launches.
        p90_ns: nine in ten runs take no longer.
        p90_ci95_ns: its interval; None with fewer than 6 launches or 36 samples.
        p99_ns: 99 in 100 runs take no longer; None with fewer than 100 samples.
        p99_ci95_ns: its interval; None with fewer than 6 launches or 368 samples.
        mean_ns: mean.
        std_ns: standard deviation of a sample (n - 1); 0 for one sample.
        min_ns: shortest.
        max_ns: longest.
        cv: largest coefficient of variation (std / mean) of a launch.
        drift: largest share by which a launch's second half is slower (positive) or quicker
            (negative) than its first, by their medians; the one furthest from 0.
        spread: range of the launches' medians, as a share of their median.
        unavailable: figure → why it is None.
    """

    num_launches: int
    num_samples: int
    median_ns: int
    median_ci95_ns: Interval | None
    p90_ns: int
    p90_ci95_ns: Interval | None
    p99_ns: int | None
    p99_ci95_ns: Interval | None
    mean_ns: float
    std_ns: float
    min_ns: int
    max_ns: int
    cv: float
    drift: float
    spread: float
    unavailable: tuple[tuple[str, str], ...]


def summarize(launches: Sequence[Sequence[int]]) -> LatencySummary:
    """Summarize the timed samples of launches; each has at least one.

    Raises:
        ValueError: no launch, or a launch without samples.
    """
    if not launches or not all(launches):
        raise ValueError("expected launches that each hold a sample")
    pooled = np.sort(np.concatenate([np.asarray(each, dtype=np.int64) for each in launches]))
    medians = [median(each) for each in launches]
    unavailable: dict[str, str] = {}
    p99 = quantile(pooled, P99) if pooled.size >= MINIMUM_P99_SAMPLES else None
    if p99 is None:
        unavailable["p99_ns"] = f"needs {MINIMUM_P99_SAMPLES} samples, but there are {pooled.size}"
    interval = order_interval(medians)
    if interval is None:
        unavailable["median_ci95_ns"] = _few_launches(len(launches))
    middle = median(medians)
    return LatencySummary(
        num_launches=len(launches),
        num_samples=int(pooled.size),
        median_ns=middle,
        median_ci95_ns=interval,
        p90_ns=quantile(pooled, P90),
        p90_ci95_ns=_quantile_interval("p90_ci95_ns", launches, P90, unavailable),
        p99_ns=p99,
        p99_ci95_ns=_quantile_interval("p99_ci95_ns", launches, P99, unavailable),
        mean_ns=float(np.mean(pooled)),
        std_ns=float(np.std(pooled, ddof=1)) if pooled.size > 1 else 0.0,
        min_ns=int(pooled[0]),
        max_ns=int(pooled[-1]),
        cv=max(variation(each) for each in launches),
        drift=max((drift(each) for each in launches), key=abs),
        spread=(max(medians) - min(medians)) / middle if middle else 0.0,
        unavailable=tuple(sorted(unavailable.items())),
    )


def median(samples: Sequence[int]) -> int:
    """Give the median; the mean of the middle two, rounded down, when the count is even."""
    return int(statistics.median_low(samples) + statistics.median_high(samples)) // 2


def quantile(ordered: NDArray[np.int64], share: Fraction) -> int:
    """Give a quantile of sorted samples; the module says how it is defined."""
    # Exact arithmetic: in floats 0.9 * 10 rounds up past 9 on no machine, but 0.07 * 100 does.
    return int(ordered[max(1, math.ceil(share * ordered.size)) - 1])


def order_interval(values: Sequence[int]) -> Interval | None:
    """Give the 95% interval of the median of independent values; None for fewer than 6.

    The k-th smallest and k-th largest, k as large as the binomial distribution allows
    (Conover, Practical Nonparametric Statistics, 3.2). Coverage is at least 95%.
    """
    count, tail = len(values), 0.0
    rank = 0
    for k in range(count // 2):
        tail += math.comb(count, k) / 2**count
        if 2 * tail > 1 - _CONFIDENCE:
            break
        rank = k + 1
    if rank == 0:
        return None
    ordered = sorted(values)
    return (ordered[rank - 1], ordered[count - rank])


def bootstrap_interval(
    launches: Sequence[Sequence[int]], share: Fraction, *, num_resamples: int = _NUM_RESAMPLES
) -> Interval:
    """Give the 95% expanded percentile interval of a pooled quantile, by draws in two levels.

    Launches are drawn with replacement, then as many runs within each. Of a launch with more
    than 1,000 runs, 1,000 evenly ranked ones take part, which widens the interval slightly
    and never narrows it.
    """
    generator = np.random.default_rng(_SEED)
    thinned = [thin(np.sort(np.asarray(each, dtype=np.int64))) for each in launches]
    estimates = np.empty(num_resamples, dtype=np.int64)
    for index in range(num_resamples):
        picks = [thinned[pick] for pick in generator.integers(0, len(thinned), len(thinned))]
        drawn = [each[generator.integers(0, each.size, each.size)] for each in picks]
        pooled = np.concatenate(drawn)
        rank = max(1, math.ceil(share * pooled.size)) - 1
        estimates[index] = np.partition(pooled, rank)[rank]
    estimates.sort()
    tail = Fraction(tail_share(len(launches)))
    return (quantile(estimates, tail), quantile(estimates, 1 - tail))


def tail_share(num_launches: int) -> float:
    """Give the share of a bootstrap's draws beyond each end of a 95% interval.

    Of one launch, which says nothing of others, it is 2.5%; of few, less.
    """
    reach = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    if num_launches > 1:
        reach = math.sqrt(num_launches / (num_launches - 1)) * t_quantile(num_launches - 1)
    return NormalDist().cdf(-reach)


def variation(samples: Sequence[int]) -> float:
    """Give the coefficient of variation, std / mean; 0 for one sample."""
    array = np.asarray(samples, dtype=np.float64)
    mean = float(array.mean())
    return float(array.std(ddof=1)) / mean if array.size > 1 and mean > 0 else 0.0


def drift(samples: Sequence[int]) -> float:
    """Give how much slower the second half is than the first, as a share; 0 for one sample."""
    half = len(samples) // 2
    if half == 0:
        return 0.0
    first = median(samples[:half])
    return (median(samples[half:]) - first) / first if first else 0.0


def thin(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give at most 1,000 of a launch's sorted samples, evenly ranked."""
    if ordered.size <= _MAXIMUM_RUNS:
        return ordered
    # The middle of each of 1,000 equal stretches of ranks keeps every quantile in place.
    ranks = (np.arange(_MAXIMUM_RUNS) + 0.5) * (ordered.size / _MAXIMUM_RUNS)
    return ordered[ranks.astype(np.int64)]


def _quantile_interval(
    name: str, launches: Sequence[Sequence[int]], share: Fraction, unavailable: dict[str, str]
) -> Interval | None:
    needed, count = _INTERVAL_SAMPLES[share], sum(len(each) for each in launches)
    if len(launches) < MINIMUM_LAUNCHES:
        unavailable[name] = _few_launches(len(launches))
    elif count < needed:
        unavailable[name] = f"needs {needed} samples, but there are {count}"
    else:
        return bootstrap_interval(launches, share)
    return None


def _few_launches(count: int) -> str:
    return f"needs {MINIMUM_LAUNCHES} launches, but there are {count}"
