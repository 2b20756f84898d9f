"""How much a layer's errors matter to the outputs."""

import numpy as np
import pytest

from edgepack.evaluate import Feeds
from edgepack.optimize.walking.influence import Influence
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.graphs import GraphMaker, answer

SHAPE = (1, 6, 6, 4)


def make_feeds(count: int) -> Feeds:
    random = np.random.default_rng(0)
    return [(random.normal(size=SHAPE).astype(np.float32),) for _ in range(count)]


def test_a_tenth_of_an_error_counts_a_hundredth() -> None:
    maker = GraphMaker(SHAPE)
    first, second = (maker.layer("CONV_2D", maker.input, 8) for _ in range(2))
    faint = maker.multiply(second, maker.constant(np.array([0.1], np.float32)))
    last = maker.add(first, faint)
    whole, feeds = maker.finish(last, first), make_feeds(12)
    maker.finish(last)
    influence = Influence(maker.tree, feeds)
    rows = np.concatenate([feed[0].reshape(-1, 4) for feed in feeds])
    live = {
        maker.input: [feed[0] for feed in feeds],
        first: [answer(whole, feed[0])[1] for feed in feeds],
    }
    strong, weak = (
        influence.measure(layer, rows.T @ rows / len(rows), live)
        for layer in find_layers(maker.tree)
    )
    assert strong / weak == pytest.approx(100, rel=0.2)


def test_what_reaches_no_output_counts_nothing() -> None:
    maker = GraphMaker(SHAPE)
    idle, last = (maker.layer("CONV_2D", maker.input, 8) for _ in range(2))
    maker.op("RELU", [idle])
    maker.finish(last)
    feeds = make_feeds(3)
    layer = find_layers(maker.tree)[0]
    live = {maker.input: [feed[0] for feed in feeds]}
    assert Influence(maker.tree, feeds).measure(layer, np.eye(4), live) == 0.0


def test_the_model_stays_as_it_was() -> None:
    maker = GraphMaker(SHAPE)
    before = maker.finish(maker.layer("CONV_2D", maker.input, 8))
    feeds = make_feeds(2)
    live = {maker.input: [feed[0] for feed in feeds]}
    Influence(maker.tree, feeds).measure(find_layers(maker.tree)[0], np.eye(4), live)
    assert maker.finish(*maker.tree.subgraphs[0].outputs) == before
