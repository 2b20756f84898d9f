"""Which channels hurt least: an order within each group, and how far to go in each; pure numpy.

The order is that of the optimal brain surgeon (Hassibi and Stork, 1993) with whole channels, as
in ZipLM (Kurtic et al., arXiv:2302.04089): the channel is next whose loss the others' weights,
fitted anew by least squares, make up for best, in all layers that read it together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.optimize.pruning.channel_table import ChannelAxis, ChannelGroup, ChannelMap
from edgepack.optimize.walking.layers import Layer

# Beyond this the local errors foretell nothing of the model's.
_MOST: Final = 0.75
# Removals kept apart before the inverse is brought up to date.
_NUM_PENDING: Final = 64
_MULTIPLE: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reader:
    """A layer that reads channels of a group.

    Attributes:
        weights: (out, in).
        moments: (in, in) of its inputs about their means, damped so that it can be inverted.
        columns: (num_channels, repeats) inputs of each channel of the group.
        importance: what a squared error of its output counts.
    """

    weights: NDArray[np.float64]
    moments: NDArray[np.float64]
    columns: NDArray[np.intp]
    importance: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RemovalOrder:
    """A group's channels in the order they go.

    Attributes:
        group: whose.
        channels: the first goes first; those that never go are not here.
        costs: (len(channels) + 1,) what having removed the first n counts.
    """

    group: ChannelGroup
    channels: tuple[int, ...]
    costs: NDArray[np.float64]


def order_removals(group: ChannelGroup, readers: Sequence[Reader]) -> RemovalOrder:
    """Give the order in which a group's channels hurt least."""
    states = [_Surgeon(reader) for reader in readers]
    alive = np.ones(len(group.channels), dtype=bool)
    order: list[int] = []
    costs = [0.0]
    for _ in range(int(len(group.channels) * _MOST)):
        losses = sum((state.losses() for state in states), np.zeros(len(alive)))
        losses[~alive] = np.inf
        pick = int(np.argmin(losses))
        alive[pick] = False
        order.append(pick)
        costs.append(costs[-1] + float(max(losses[pick], 0.0)))
        for state in states:
            state.remove(pick)
    return RemovalOrder(
        group=group,
        channels=tuple(group.channels[place] for place in order),
        costs=np.array(costs),
    )


class _Surgeon:
    """The inverse of one reader's moments, and its weights, while inputs go.

    Both are of inputs scaled to a second moment of one. That changes no loss, keeps what is rounded
    off large inputs away from small ones, and the inverse's diagonal never falls below one.

    The inverse is `self._inverse - self._pending.T @ self._pending`: what each removal takes off
    it is kept apart for some time, as one product of matrices is quicker than many of vectors.
    """

    def __init__(self, reader: Reader) -> None:
        self._importance = reader.importance
        scale = np.sqrt(np.diagonal(reader.moments))
        self._weights = reader.weights * scale
        self._inverse = np.linalg.inv(reader.moments / np.outer(scale, scale))
        self._pending = np.zeros((0, len(self._inverse)))
        self._gone = np.zeros(0, dtype=np.intp)
        self._columns = reader.columns.copy()
        self._live = np.arange(len(reader.columns))
        self._num_channels = len(reader.columns)
        self._blocks = self._inverse[self._columns[:, :, None], self._columns[:, None, :]]

    def losses(self) -> NDArray[np.float64]:
        """Give what removing each channel next would cost; those gone cost nothing."""
        losses = np.zeros(self._num_channels)
        if self._columns.shape[1] == 1:
            energies = np.einsum("oi,oi->i", self._weights, self._weights)
            losses[self._live] = energies[self._columns[:, 0]] / self._blocks[:, 0, 0]
        else:
            read = self._weights[:, self._columns].transpose(1, 2, 0)  # (live, repeats, out)
            grams = read @ read.transpose(0, 2, 1)
            solved = np.linalg.solve(self._blocks, grams)
            losses[self._live] = np.trace(solved, axis1=1, axis2=2)
        return losses * self._importance

    def remove(self, channel: int) -> None:
        """Take a channel out, the others' weights making up for it."""
        place = int(np.searchsorted(self._live, channel))
        columns = self._columns[place]
        rows = self._inverse[columns] - self._pending[:, columns].T @ self._pending
        factor = np.linalg.cholesky(_symmetric(rows[:, columns]))
        taken = np.linalg.solve(factor, rows)
        weighed = np.linalg.solve(factor, self._weights[:, columns].T)
        self._weights -= weighed.T @ taken
        self._pending = np.concatenate([self._pending, taken])
        self._gone = np.concatenate([self._gone, columns])
        self._live = np.delete(self._live, place)
        self._columns = np.delete(self._columns, place, axis=0)
        self._blocks = np.delete(self._blocks, place, axis=0)
        parts = taken[:, self._columns].transpose(1, 0, 2)  # (live, removed, repeats)
        self._blocks -= parts.transpose(0, 2, 1) @ parts
        if len(self._pending) >= _NUM_PENDING:
            self._flush()

    def _flush(self) -> None:
        """Bring the inverse up to date, without the inputs that are gone."""
        kept = np.setdiff1d(np.arange(len(self._inverse)), self._gone)
        pending = self._pending[:, kept]
        self._inverse = self._inverse[np.ix_(kept, kept)] - pending.T @ pending
        self._weights = np.ascontiguousarray(self._weights[:, kept])
        place = np.zeros(self._pending.shape[1], dtype=np.intp)
        place[kept] = np.arange(len(kept))
        self._columns = place[self._columns]
        self._pending = np.zeros((0, len(kept)))
        self._gone = np.zeros(0, dtype=np.intp)


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((matrix + matrix.T) / 2)


def choose_channels(
    orders: Sequence[RemovalOrder],
    channel_map: ChannelMap,
    layers: Sequence[Layer],
    *,
    share: float,
) -> frozenset[int]:
    """Give the channels to remove so that a share of the multiplications goes at least cost.

    What remains of a group is a multiple of 8 (of 4 below 16 channels), as kernels like it.

    Returns:
        The channels; all that may go where the share cannot be reached.
    """
    work = _Work(orders, channel_map, layers)
    missing = share * sum(layer.num_macs for layer in layers)
    counts = [0] * len(orders)
    while missing > 0:
        steps = [
            _Step(order=index, count=count, cost=cost, saving=saving)
            for index, order in enumerate(orders)
            for count, cost, saving in work.steps(index, order, counts)
        ]
        if not steps:
            break
        step = min(steps, key=lambda each: each.cost / each.saving)
        if step.saving >= missing:
            # The last step need not go farther than it must.
            step = min(
                (each for each in steps if each.saving >= missing), key=lambda each: each.cost
            )
        counts[step.order] = step.count
        missing -= step.saving
    return frozenset(
        channel
        for order, count in zip(orders, counts, strict=True)
        for channel in order.channels[:count]
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """Going on in one order up to a count."""

    order: int
    count: int
    cost: float
    saving: float


class _Work:
    """Multiplications as a function of how far each order has gone."""

    def __init__(
        self, orders: Sequence[RemovalOrder], channel_map: ChannelMap, layers: Sequence[Layer]
    ) -> None:
        ranks = {
            channel: (index, place)
            for index, order in enumerate(orders)
            for place, channel in enumerate(order.channels)
        }
        sizes = [len(order.channels) + 1 for order in orders]
        # For each layer, for each axis of its weights, the share of the places that an order
        # has taken after n removals.
        self._layers = [
            (
                layer.num_macs,
                [_gone_shares(axis, ranks, sizes) for axis in channel_map.axes[layer.weights]],
            )
            for layer in layers
            if layer.weights in channel_map.axes
        ]

    def steps(
        self, index: int, order: RemovalOrder, counts: Sequence[int]
    ) -> list[tuple[int, float, float]]:
        """Give (count, cost, saving) of each way to go on in one order."""
        left = np.zeros(len(order.channels) + 1)
        for num_macs, axes in self._layers:
            if not any(index in shares for shares in axes):
                continue
            work = np.full(len(left), float(num_macs))
            for shares in axes:
                rest = sum(
                    float(gone[counts[other]]) for other, gone in shares.items() if other != index
                )
                work *= 1 - rest - shares.get(index, 0.0)
            left += work
        size = len(order.group.channels)
        multiple = _MULTIPLE if size >= 2 * _MULTIPLE else _MULTIPLE // 2
        now = counts[index]
        return [
            (count, float(order.costs[count] - order.costs[now]), float(left[now] - left[count]))
            for count in range(now + 1, len(left))
            if (size - count) % multiple == 0 and size > count and left[now] > left[count]
        ]


def _gone_shares(
    axis: ChannelAxis, ranks: Mapping[int, tuple[int, int]], sizes: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    counts: dict[int, NDArray[np.float64]] = {}
    for channel in axis.channels:
        if channel in ranks:
            index, place = ranks[channel]
            counts.setdefault(index, np.zeros(sizes[index]))[place + 1] += 1
    return {index: np.cumsum(each) / len(axis.channels) for index, each in counts.items()}
