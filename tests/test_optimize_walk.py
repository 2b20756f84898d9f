"""Walking a model op by op on both sides."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds, run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant
from edgepack.model import Model, read_model
from edgepack.optimize.walking.layers import Layer
from edgepack.optimize.walking.walk import LayerChange, Samples, walk
from tests.fixtures.layers import RELU, LayerPlan, chain_model

SHAPE = (1, 8, 8, 3)
PLANS = (
    LayerPlan(op="CONV_2D", num_out=4, kernel=(3, 3), activation=RELU),
    LayerPlan(op="DEPTHWISE_CONV_2D", num_out=1, kernel=(3, 3), stride=(2, 2)),
    LayerPlan(op="CONV_2D", num_out=5),
)


def make_feeds(count: int) -> Feeds:
    random = np.random.default_rng(7)
    return [(random.normal(size=SHAPE).astype(np.float32),) for _ in range(count)]


class Recorder:
    """Keeps what it sees; halves the weights of the layers it is told to."""

    def __init__(self, tree: Any, halved: tuple[int, ...] = ()) -> None:  # noqa: ANN401 - the generated classes are untyped
        self.tree = tree
        self.halved = halved
        self.same: list[bool] = []
        self.seen: dict[int, tuple[list[NDArray[Any]], list[NDArray[Any]]]] = {}

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> LayerChange | None:
        self.same.append(reference is changed)
        if layer.position not in self.halved:
            return None
        weights = read_constant(self.tree, layer.weights)
        assert weights is not None
        return LayerChange(weights=(weights / 2).astype(np.float32))

    def observe(
        self, tensor: int, reference: Samples, changed: Samples
    ) -> Iterable[NDArray[Any]] | None:
        self.seen[tensor] = (list(reference), list(changed))
        return None


def last(recorder: Recorder, side: int) -> list[NDArray[Any]]:
    return recorder.seen[int(recorder.tree.subgraphs[0].outputs[0])][side]


def answers(model: Model, feeds: Feeds) -> list[NDArray[Any]]:
    return [sample[0] for sample in run_model(model, feeds)]


@pytest.mark.parametrize("budget_bytes", [0, 2**20])
def test_both_sides_are_the_models_before_and_after(tmp_path: Path, budget_bytes: int) -> None:
    before = chain_model(PLANS, SHAPE)
    feeds, tree = make_feeds(3), read_flatbuffer(before)
    recorder = Recorder(tree, halved=(1,))
    walk(tree, feeds, recorder, folder=tmp_path, budget_bytes=budget_bytes)
    after = read_model(write_flatbuffer(tree))
    np.testing.assert_allclose(last(recorder, 0), answers(read_model(before), feeds), atol=1e-5)
    np.testing.assert_allclose(last(recorder, 1), answers(after, feeds), atol=1e-5)
    assert not np.allclose(last(recorder, 0), last(recorder, 1))
    # The sides part at the layer that was changed.
    assert recorder.same == [True, True, False]
    assert list(tmp_path.iterdir()) == []


def test_what_is_observed_may_be_replaced(tmp_path: Path) -> None:
    tree = read_flatbuffer(chain_model(PLANS, SHAPE))
    source = int(tree.subgraphs[0].inputs[0])

    class Silencer(Recorder):
        def observe(
            self, tensor: int, reference: Samples, changed: Samples
        ) -> Iterable[NDArray[Any]] | None:
            super().observe(tensor, reference, changed)
            return [np.zeros_like(each) for each in changed] if tensor == source else None

    silencer = Silencer(tree)
    walk(tree, make_feeds(2), silencer, folder=tmp_path)
    quiet = answers(
        read_model(chain_model(PLANS, SHAPE)), [(np.zeros(SHAPE, np.float32),) for _ in range(2)]
    )
    np.testing.assert_allclose(last(silencer, 1), quiet, atol=1e-5)
    assert not np.allclose(last(silencer, 0), quiet)


def test_an_op_that_cannot_run_is_named(tmp_path: Path) -> None:
    tree = read_flatbuffer(chain_model(PLANS, SHAPE))
    tree.operatorCodes[0].builtinCode = tree.operatorCodes[0].deprecatedBuiltinCode = 32
    tree.operatorCodes[0].customCode = "Nobody"
    with pytest.raises(OptimizeError) as caught:
        walk(tree, make_feeds(1), Recorder(tree), folder=tmp_path)
    assert caught.value.message.startswith("op Nobody cannot be run by itself: ")
