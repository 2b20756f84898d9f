"""What a caller does to an input before the model, and to an output after it; pure numpy."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Head(StrEnum):
    """What is done to an output at the end of the model."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    ARGMAX = "argmax"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How raw values become an input: (raw * scale - mean) / std.

    Attributes:
        scale: of raw values.
        mean: subtracted after scaling; one value, or one a channel.
        std: divided by after that; one value, or one a channel.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def num_channels(self) -> int:
        """As many channels as there are values; 1 serves any number."""
        return max(len(self.mean), len(self.std))

    @property
    def multiplier(self) -> NDArray[np.float64]:
        """What raw values are multiplied by, (1,) or one a channel."""
        return np.broadcast_to(
            self.scale / np.asarray(self.std, np.float64), (self.num_channels,)
        ).copy()

    @property
    def offset(self) -> NDArray[np.float64]:
        """What is added after that, (1,) or one a channel."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        # 0.0 - x gives no negative zero.
        return np.broadcast_to(0.0 - mean / std, (self.num_channels,)).copy()

    def apply(self, raw: NDArray[Any], *, channel_axis: int) -> NDArray[np.float32]:
        """Give the input that raw values stand for, computed in float64."""
        values = raw.astype(np.float64) * self._along(self.multiplier, raw.ndim, channel_axis)
        values += self._along(self.offset, raw.ndim, channel_axis)
        return values.astype(np.float32)

    def invert(self, values: NDArray[Any], *, channel_axis: int) -> NDArray[np.float32]:
        """Give the raw values that stand for an input, computed in float64."""
        raw = values.astype(np.float64) - self._along(self.offset, values.ndim, channel_axis)
        raw /= self._along(self.multiplier, values.ndim, channel_axis)
        return raw.astype(np.float32)

    @staticmethod
    def _along(values: NDArray[np.float64], rank: int, axis: int) -> NDArray[np.float64]:
        shape = [1] * rank
        if values.size > 1:
            shape[axis] = -1
        return values.reshape(shape)


def apply_head(array: NDArray[Any], head: Head | None, *, axis: int) -> NDArray[Any]:
    """Give an output with softmax, sigmoid or argmax done to it, computed in float64."""
    if head is None:
        return array
    if head is Head.ARGMAX:
        ids: NDArray[np.int32] = np.argmax(array, axis=axis).astype(np.int32)
        return ids
    real = array.astype(np.float64)
    if head is Head.SIGMOID:
        # exp of a positive number may overflow; of a negative one it only becomes 0.
        small = np.exp(-np.abs(real))
        return np.where(real >= 0, 1.0, small).astype(np.float64) / (1.0 + small)
    powers = np.exp(real - real.max(axis=axis, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=axis, keepdims=True)
    return shares
