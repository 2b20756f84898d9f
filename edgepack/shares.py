"""Confidence intervals of shares of samples, and of the difference of two; pure."""

import math
from typing import Final

_Z95: Final = 1.959963984540054  # the normal distribution's 97.5% quantile


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Give Wilson's 95% interval of a proportion (JASA 22, 1927); 0 to 1 without trials."""
    if trials == 0:
        return (0.0, 1.0)
    share = successes / trials
    squared = _Z95**2
    center = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2))
    half /= 1 + squared / trials
    # At the ends the bound is exactly 0 or 1; rounding would leave it a hair off.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == trials else min(1.0, center + half)
    return (low, high)


def paired_drop_interval(lost: int, gained: int, trials: int) -> tuple[float, float]:
    """Give the 95% interval of a paired difference of two shares, (lost - gained) / trials.

    The adjusted Wald interval of Bonett and Price (J. Educ. Behav. Stat. 37, 2012), which
    keeps its coverage for few samples and few disagreements.

    Args:
        lost: samples only the reference gets right.
        gained: samples only the candidate gets right.
        trials: all samples.
    """
    if trials == 0:
        return (-1.0, 1.0)
    down, up = (lost + 1) / (trials + 2), (gained + 1) / (trials + 2)
    half = _Z95 * math.sqrt((down + up - (down - up) ** 2) / (trials + 2))
    return (max(-1.0, down - up - half), min(1.0, down - up + half))
