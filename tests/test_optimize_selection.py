"""The order in which channels go, and how far each group goes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepack.flatbuffer import read_flatbuffer
from edgepack.optimize.pruning.channel_table import ChannelGroup
from edgepack.optimize.pruning.channels import map_channels
from edgepack.optimize.pruning.removal import remove_channels
from edgepack.optimize.pruning.selection import (
    Reader,
    RemovalOrder,
    choose_channels,
    order_removals,
)
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.graphs import GraphMaker


def group_of(count: int) -> ChannelGroup:
    return ChannelGroup(
        name="x", producers=(0,), channels=tuple(range(100, 100 + count)), blocked=None
    )


def make_reader(seed: int, count: int, repeats: int = 1, importance: float = 1.0) -> Reader:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(200, count * repeats)) @ random.normal(size=(count * repeats,) * 2)
    return Reader(
        weights=random.normal(size=(5, count * repeats)),
        moments=mixed.T @ mixed,
        columns=np.arange(count * repeats).reshape(repeats, count).T,
        importance=importance,
    )


def residual(reader: Reader, gone: NDArray[np.intp]) -> float:
    """Give the least squared error that remains without some channels, the long way."""
    columns = reader.columns[gone].reshape(-1)
    kept = np.setdiff1d(np.arange(len(reader.moments)), columns)
    wanted = reader.moments @ reader.weights.T
    solved = np.linalg.solve(reader.moments[np.ix_(kept, kept)], wanted[kept])
    return float(np.sum(reader.weights.T * wanted) - np.sum(solved * wanted[kept]))


@given(st.integers(0, 50), st.integers(4, 12), st.integers(1, 3))
def test_what_an_order_costs_is_what_least_squares_leave(
    seed: int, count: int, repeats: int
) -> None:
    readers = [make_reader(seed, count, repeats), make_reader(seed + 1, count, 1, 0.5)]
    order = order_removals(group_of(count), readers)
    for step in range(1, len(order.channels) + 1):
        gone = np.array(order.channels[:step]) - 100
        expected = residual(readers[0], gone) + 0.5 * residual(readers[1], gone)
        assert order.costs[step] == pytest.approx(expected, rel=1e-5)


def test_a_long_order_costs_the_same() -> None:
    """The inverse is brought up to date in between."""
    reader = make_reader(1, 150)
    order = order_removals(group_of(150), [reader])
    assert len(order.channels) == 112
    gone = np.array(order.channels) - 100
    assert order.costs[-1] == pytest.approx(residual(reader, gone), rel=1e-4)


def test_what_others_can_stand_for_goes_first() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(400, 8))
    inputs[:, 3] = inputs[:, 5] + inputs[:, 6]  # the largest, and superfluous
    moments = inputs.T @ inputs + 1e-6 * np.eye(8)
    reader = Reader(
        weights=random.normal(size=(4, 8)) + 3 * np.eye(4, 8),
        moments=moments,
        columns=np.arange(8)[:, np.newaxis],
        importance=1.0,
    )
    order = order_removals(group_of(8), [reader])
    assert order.channels[0] - 100 in {3, 5, 6}
    assert order.costs[1] < 1e-3 * order.costs[2]


def model(*widths: int) -> bytes:
    maker = GraphMaker((1, 8, 8, 3))
    last = maker.input
    for width in widths:
        last = maker.layer("CONV_2D", last, width)
    return maker.finish(maker.layer("CONV_2D", last, 2))


def orders_of(data: bytes, costs: dict[int, float]) -> list[RemovalOrder]:
    """Give orders whose groups cost the same for each channel, by the group's size."""
    return [
        RemovalOrder(
            group=group,
            channels=group.channels[:-4],
            costs=costs[len(group.channels)] * np.arange(len(group.channels) - 3.0),
        )
        for group in map_channels(read_flatbuffer(data)).groups
        if group.blocked is None
    ]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_is_reached_and_counts_are_what_kernels_like(share: float) -> None:
    data = model(24, 40, 12)
    tree = read_flatbuffer(data)
    channel_map, layers = map_channels(tree), find_layers(tree)
    removed = choose_channels(
        orders_of(data, {24: 1.0, 40: 1.0, 12: 1.0}), channel_map, layers, share=share
    )
    kept = [len(set(group.channels) - removed) for group in channel_map.groups if not group.blocked]
    assert all(
        count % (8 if size > 12 else 4) == 0 for count, size in zip(kept, (24, 40, 12), strict=True)
    )
    before = sum(layer.num_macs for layer in layers)
    remove_channels(tree, channel_map, removed)
    gone = 1 - sum(layer.num_macs for layer in find_layers(tree)) / before
    assert share <= gone <= share + 0.2


def test_the_cheaper_group_goes_first() -> None:
    data = model(24, 40, 32)
    tree = read_flatbuffer(data)
    channel_map = map_channels(tree)
    removed = choose_channels(
        orders_of(data, {24: 1.0, 40: 0.001, 32: 1.0}), channel_map, find_layers(tree), share=0.3
    )
    gone = [len(set(group.channels) & removed) for group in channel_map.groups]
    assert [bool(count) for count in gone] == [False, False, True, False, False]


def test_what_cannot_be_reached_takes_all_that_may_go() -> None:
    data = model(16)
    tree = read_flatbuffer(data)
    channel_map = map_channels(tree)
    removed = choose_channels(orders_of(data, {16: 1.0}), channel_map, find_layers(tree), share=0.9)
    assert len(removed) == 8


@given(seed=st.integers(0, 99), spread=st.floats(0.0, 6.0), repeats=st.integers(1, 3))
def test_inputs_of_unlike_sizes_that_depend_on_each_other_are_ordered(
    seed: int, spread: float, repeats: int
) -> None:
    """Fewer sources than inputs, a million times as large here as there."""
    random = np.random.default_rng(seed)
    count = 48 * repeats
    sources = random.normal(size=(400, 12)) @ random.normal(size=(12, count))
    sizes = 10 ** random.uniform(-spread, spread, count)
    inputs = sources * sizes
    moments = inputs.T @ inputs / 400
    diagonal = np.diagonal(moments)
    moments += np.diag(1e-4 * diagonal + 1e-6 * diagonal.mean())
    reader = Reader(
        weights=random.normal(size=(5, count)) / sizes,
        moments=moments,
        columns=np.arange(count).reshape(repeats, 48).T,
        importance=1.0,
    )
    order = order_removals(group_of(48), [reader])
    assert len(set(order.channels)) == 36
    assert np.all(np.isfinite(order.costs))
    gone = np.array(order.channels) - 100
    whole = float(np.sum((reader.weights @ moments) * reader.weights))
    assert order.costs[-1] == pytest.approx(residual(reader, gone), rel=1e-3, abs=1e-9 * whole)
