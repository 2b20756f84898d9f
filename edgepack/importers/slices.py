"""Parts of an output that a figure over all of it would hide; pure.

A detector's output holds boxes in the hundreds of pixels beside scores below 1: with every
score wrong, the whole still reads more than 60 dB. So the slices along the first and the last
axis, where exporters put channels, are looked at one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.comparison import ratio_db

# What rounding leaves of the output's largest values in a slice of small ones.
_ROUNDING: Final = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstSlice:
    """The slice of an output that is farthest from the reference, relative to itself.

    Attributes:
        axis: of one sample's array.
        index: along it.
        sqnr_db: over all samples.
    """

    axis: int
    index: int
    sqnr_db: float


def find_worst_slice(
    reference: Sequence[NDArray[Any]], candidate: Sequence[NDArray[Any]]
) -> WorstSlice | None:
    """Give the slice of least SQNR among those that differ by more than rounding does.

    Args:
        reference: one output's array of each sample.
        candidate: likewise, of the same shapes; values that are not finite are left out.

    Returns:
        None when no slice differs so, or the output has but one.
    """
    if len({array.shape for array in reference}) != 1:
        return None
    ours, theirs = (np.stack(each).astype(np.float64) for each in (reference, candidate))
    finite = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = np.where(finite, ours, 0.0), np.where(finite, theirs, 0.0)
    if ours.size == 0:
        return None
    noise = ours - theirs
    audible = np.abs(noise) > _ROUNDING * np.max(np.abs(ours))
    worst: WorstSlice | None = None
    # Axis 0 is the samples', 1 the batch's.
    for axis in sorted({2, ours.ndim - 1} if ours.ndim > 2 else ()):  # noqa: PLR2004 - see above
        if ours.shape[axis] == 1:
            continue
        others = tuple(each for each in range(ours.ndim) if each != axis)
        signals = np.sum(np.square(ours), axis=others)
        noises = np.sum(np.square(noise), axis=others)
        for index in np.flatnonzero(audible.any(axis=others)):
            found = ratio_db(float(signals[index]), float(noises[index]))
            if worst is None or found < worst.sqnr_db:
                worst = WorstSlice(axis=axis - 1, index=int(index), sqnr_db=found)
    return worst
