import numpy as np

from edgepack.evaluate import run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.quantizing.bias_scale import hold_biases
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.models import make_feeds
from tests.fixtures.sparse import mobile_model


def _without_a_channel_s_weights() -> Model:
    """Give the network with no weights for one channel of its widest layer, whose bias is 3."""
    tree = read_flatbuffer(mobile_model().data)
    layer = [each for each in find_layers(tree) if each.op == "CONV_2D"][1]
    weights, bias = read_constant(tree, layer.weights), read_constant(tree, layer.bias or 0)
    assert weights is not None
    assert bias is not None
    weights[:8] = 0.0
    bias[:8] = 3.0
    set_constant(tree, layer.weights, weights)
    set_constant(tree, layer.bias or 0, bias)
    return read_model(write_flatbuffer(tree))


def test_a_bias_without_weights_survives_int8() -> None:
    model = _without_a_channel_s_weights()
    feeds = make_feeds(model, num_samples=16)
    reference = run_model(model, feeds)

    def sqnr_db(quantized: Model) -> float:
        answers = run_model(quantized, feeds)
        return compare_outputs(reference, answers, names=("scores",)).sqnr_db

    recipe = stock_recipe(Scheme.INT8)
    assert sqnr_db(quantize(model, recipe, feeds).model) < 10
    held = hold_biases(model)
    assert sqnr_db(held) > 60
    assert sqnr_db(quantize(held, recipe, feeds).model) > 20


def test_a_model_whose_channels_have_weights_stays_as_it_is() -> None:
    model = mobile_model()
    assert hold_biases(model) is model
    changed = hold_biases(_without_a_channel_s_weights())
    assert hold_biases(changed) is changed
    before, after = (
        read_flatbuffer(each.data) for each in (_without_a_channel_s_weights(), changed)
    )
    moved = 0
    for layer in find_layers(before):
        old, new = read_constant(before, layer.weights), read_constant(after, layer.weights)
        assert old is not None
        assert new is not None
        moved += int(np.sum(old != new))
    assert moved == 8
