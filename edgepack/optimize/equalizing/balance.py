"""Choosing how the channels of each group of tensors are balanced, by what it does to the outputs.

See `edgepack.optimize.equalizing.equalize` for the methods.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.evaluate import Feeds
from edgepack.graph import Tree
from edgepack.optimize.equalizing.offsets import Offsets, find_offsets
from edgepack.optimize.equalizing.rounding_trial import RoundingTrial
from edgepack.optimize.equalizing.scaling import ScaleGroup, ScaleMap
from edgepack.optimize.walking.channel_ranges import ChannelRanges

_MIGRATIONS: Final = (1.0, 0.5)
_CLIP: Final = 6.0
# What a channel below RELU6's bound may grow by: on other photographs than those it was seen
# on, EfficientNet-Lite0 in float is 38.6 dB from itself with 1.25, and 48.7 dB with 2.
_HEADROOM: Final = 2.0
_FACTOR_LIMIT: Final = 2.0**12
# A channel that hardly ever was seen above 0 may go anywhere on another sample.
_BOUNDED_FACTOR_LIMIT: Final = 4.0
_LEVELS: Final = 255
# Less is within what another choice of samples would say.
_LEAST_GAIN_DB: Final = 0.2
# A group so far below all groups together does not count.
_NEGLIGIBLE_DB: Final = 20.0
# What a RELU6 bounds is exact only on what was seen, so it must be worth it.
_LEAST_BOUNDED_GAIN_DB: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Balance:
    """How one group is changed.

    Attributes:
        factors: (num_classes,) of all classes; 1 outside the group.
        offsets: what is taken out of its tensors first; None for nothing.
        is_exact: whether the float model stays the same on any input.
    """

    factors: NDArray[np.float64]
    offsets: Offsets | None
    is_exact: bool


class Balancer:
    """Tries changes of each group on samples, with the group's tensors rounded."""

    def __init__(
        self,
        tree: Tree,
        scale_map: ScaleMap,
        ranges: Mapping[int, ChannelRanges],
        feeds: Feeds,
    ) -> None:
        self._tree = tree
        self._map = scale_map
        self._ranges = ranges
        self._tensors = [
            tuple(
                index for index in group.tensors if index in ranges and index in scale_map.rounded
            )
            for group in scale_map.groups
        ]
        reaches = {index: ranges[index].reach for each in self._tensors for index in each}
        self.trial = RoundingTrial(tree, feeds, reaches)

    def choose(self) -> dict[int, Balance]:
        """Give what is done to each group by its number; groups left alone are left out."""
        total = self.total_db({})
        choices: dict[int, Balance] = {}
        for number, group in enumerate(self._map.groups):
            least = self._db({number: None})
            if least > total + _NEGLIGIBLE_DB:
                continue
            for choice in self._candidates(group):
                gain = _LEAST_GAIN_DB if choice.is_exact else _LEAST_BOUNDED_GAIN_DB
                came = self._db({number: choice})
                if came > least + (0.0 if number in choices else gain):
                    least, choices[number] = came, choice
        return choices

    def total_db(self, choices: Mapping[int, Balance]) -> float:
        """Give the SQNR of the outputs when all groups' tensors are rounded."""
        return self._db({number: choices.get(number) for number in range(len(self._tensors))})

    def _db(self, groups: Mapping[int, Balance | None]) -> float:
        steps = {
            index: self._steps(index, choice)
            for number, choice in groups.items()
            for index in self._tensors[number]
        }
        return self.trial.sqnr_db(steps)

    def _steps(self, index: int, choice: Balance | None) -> NDArray[np.float64]:
        """Give what a tensor's channels are rounded to multiples of, in the original's scale."""
        seen, labels = self._ranges[index], self._map.labels[index]
        factors = np.ones(len(labels)) if choice is None else choice.factors[labels]
        offset = 0.0 if choice is None or choice.offsets is None else choice.offsets[index]
        highest = max(0.0, float(((seen.highest - offset) * factors).max()))
        lowest = min(0.0, float(((seen.lowest - offset) * factors).min()))
        step = max(highest - lowest, 1e-30) / _LEVELS
        return np.asarray(step / factors)

    def _candidates(self, group: ScaleGroup) -> list[Balance]:
        offsets = find_offsets(self._tree, self._map, group, self._ranges)
        is_linear = all(layer.activation == "NONE" for layer in group.writers)
        bounds, is_bounded = self._bounds(group)
        is_exact = not is_bounded and (offsets is None or is_linear)
        found: list[Balance] = []
        for migration in _MIGRATIONS:
            factors = self._factors(group, offsets, migration, bounds)
            if offsets is not None or np.any(factors != 1):
                found.append(Balance(factors=factors, offsets=offsets, is_exact=is_exact))
        return found

    def _bounds(self, group: ScaleGroup) -> tuple[NDArray[np.float64], bool]:
        """Give what each class may grow by at most, and whether RELU6 bounds any of them."""
        bounds = np.full(self._map.num_classes, _FACTOR_LIMIT)
        is_bounded = False
        for index in group.tensors:
            if index in self._map.bounded and index in self._ranges:
                highest = np.maximum(self._ranges[index].highest, _CLIP / _FACTOR_LIMIT)
                most = np.clip(_CLIP / (_HEADROOM * highest), 1.0, _BOUNDED_FACTOR_LIMIT)
                np.minimum.at(bounds, self._map.labels[index], most)
                is_bounded = True
        return bounds, is_bounded

    def _factors(
        self,
        group: ScaleGroup,
        offsets: Offsets | None,
        migration: float,
        bounds: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Give factors that bring the group's channels towards the reach of the widest."""
        reach = np.zeros(self._map.num_classes)
        for index in group.tensors:
            if index in self._ranges:
                offset = 0.0 if offsets is None else offsets[index]
                seen = self._ranges[index]
                each = np.maximum(np.abs(seen.highest - offset), np.abs(seen.lowest - offset))
                np.maximum.at(reach, self._map.labels[index], each)
        widest = float(reach.max())
        factors = np.ones(self._map.num_classes)
        # A channel that is always 0 is rounded to 0 whatever its factor.
        alive = group.classes[reach[group.classes] > widest / _FACTOR_LIMIT]
        if widest > 0:
            factors[alive] = np.clip(
                (widest / reach[alive]) ** migration, 1.0, np.minimum(bounds[alive], _FACTOR_LIMIT)
            )
        return factors
