"""Channels that never speak become copies of those whose rounding hurts most."""

from typing import Any

import numpy as np
import pytest

from edgepack.evaluate import Feeds, run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.equalizing.equalize import equalize
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.layers import RELU, RELU6, LayerPlan, add_layer, new_tree

_SHAPE = (1, 6, 6, 4)
_LOUD, _SILENT = 2, (5, 6, 7)


def _feeds(seed: int = 2) -> Feeds:
    random = np.random.default_rng(seed)
    return [(random.uniform(-1, 1, _SHAPE).astype(np.float32),) for _ in range(12)]


def _set(tree: Any, index: int | None, change: Any) -> None:  # noqa: ANN401 - a function on arrays
    values = read_constant(tree, index or 0)
    assert values is not None
    change(values)
    set_constant(tree, index or 0, values)


def _model(activation: int, *, is_depthwise: bool, silent_bias: float = -40.0) -> Model:
    """Give a model with one channel that the last layer listens to most, and three silent ones."""
    tree, random = new_tree(_SHAPE), np.random.default_rng(0)
    plan = LayerPlan(op="CONV_2D", num_out=8, kernel=(3, 3), activation=activation)
    last = add_layer(tree, plan, 0, random)
    if is_depthwise:
        plan = LayerPlan(op="DEPTHWISE_CONV_2D", num_out=1, kernel=(3, 3), activation=activation)
        last = add_layer(tree, plan, last, random)
    tree.subgraphs[0].outputs = [
        add_layer(tree, LayerPlan(op="CONV_2D", num_out=3, kernel=(3, 3)), last, random)
    ]
    layers = find_layers(tree)

    def silence(bias: Any) -> None:  # noqa: ANN401 - an array
        bias[list(_SILENT)] = silent_bias

    def rest(bias: Any) -> None:  # noqa: ANN401 - an array
        bias[list(_SILENT)] = -0.1

    def listen(weights: Any) -> None:  # noqa: ANN401 - an array
        weights[..., _LOUD] *= 40

    _set(tree, layers[0].bias, silence)
    if is_depthwise:
        _set(tree, layers[1].bias, rest)
    _set(tree, layers[-1].weights, listen)
    return read_model(write_flatbuffer(tree))


def _sqnr_db(model: Model, other: Model, feeds: Feeds) -> float:
    names = tuple(spec.name for spec in model.signature.outputs)
    return compare_outputs(run_model(model, feeds), run_model(other, feeds), names=names).sqnr_db


@pytest.mark.parametrize("activation", [RELU, RELU6])
@pytest.mark.parametrize("is_depthwise", [False, True])
def test_silent_channels_hold_copies_of_the_one_that_matters(
    activation: int, *, is_depthwise: bool
) -> None:
    model = _model(activation, is_depthwise=is_depthwise)
    changed, facts = equalize(model, _feeds())
    assert facts.num_copied == len(_SILENT)
    assert facts.after_db > facts.before_db + 1
    assert changed.num_bytes <= 1.01 * model.num_bytes
    assert _sqnr_db(model, changed, _feeds(seed=9)) > 100
    tree = read_flatbuffer(changed.data)
    weights = read_constant(tree, find_layers(tree)[0].weights)
    assert weights is not None
    for target in _SILENT:
        ratio = weights[target] / weights[_LOUD]
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)


@pytest.mark.parametrize("is_depthwise", [False, True])
def test_a_channel_that_other_inputs_could_wake_is_left_alone(*, is_depthwise: bool) -> None:
    # Silent on these samples, but twice their size would bring it above 0.
    model = _model(RELU, is_depthwise=is_depthwise, silent_bias=-9.0)
    changed, facts = equalize(model, _feeds())
    assert facts.num_copied == 0
    assert _sqnr_db(model, changed, _feeds(seed=9)) > 100


def test_a_channel_that_speaks_behind_the_depthwise_layer_is_left_alone() -> None:
    tree = read_flatbuffer(_model(RELU, is_depthwise=True).data)

    def speak(bias: Any) -> None:  # noqa: ANN401 - an array
        bias[list(_SILENT)] = 1

    _set(tree, find_layers(tree)[1].bias, speak)
    model = read_model(write_flatbuffer(tree))
    changed, facts = equalize(model, _feeds())
    assert facts.num_copied == 0
    assert _sqnr_db(model, changed, _feeds(seed=9)) > 100
