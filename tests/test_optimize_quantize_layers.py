import numpy as np
import pytest

from edgepack.errors import RecipeError
from edgepack.evaluate import run_model
from edgepack.fidelity import compare_outputs
from edgepack.flatbuffer import decode_name, op_name, read_flatbuffer, write_flatbuffer
from edgepack.model import Model, read_model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import (
    Granularity,
    LayerScheme,
    RangeMethod,
    Recipe,
    stock_recipe,
)
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.mixtures import (
    detector,
    every_layer,
    image_feeds,
    lay_on_grid,
    row_of_layers,
    scaled_detector,
    tensor_types,
)
from tests.fixtures.models import make_feeds, small_model

FLOAT32, INT32, INT8, INT16, FLOAT16 = 0, 2, 9, 7, 1
_INTEGERS = (Scheme.INT8, Scheme.INT16X8, Scheme.DYNAMIC_RANGE, Scheme.WEIGHT_ONLY_INT8)


def _mixed(scheme: Scheme, **layers: Scheme) -> Recipe:
    return Recipe(
        name="mixed",
        scheme=scheme,
        layers=tuple(LayerScheme(layer=name, scheme=own) for name, own in layers.items()),
    )


def _weights(model: Model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Give the integers and scales of each layer's weights by its op."""
    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    writers = {int(index): op for op in graph.operators for index in op.outputs}
    found = {}
    for operator in graph.operators:
        op = op_name(tree, operator)
        if op not in {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}:
            continue
        index = int(operator.inputs[1])
        if index in writers:  # weight-only: a DEQUANTIZE stands between
            index = int(writers[index].inputs[0])
        tensor = graph.tensors[index]
        data = bytes(tree.buffers[tensor.buffer].data)
        integers = np.frombuffer(data, np.int8).reshape(tensor.shape)
        found[op] = (integers, np.array(tensor.quantization.scale, np.float32))
    return found


def _fidelity(model: Model, candidate: Model, seed: int = 2) -> list[float]:
    feeds = image_feeds(model.signature.inputs[0].shape, seed=seed)
    names = tuple(spec.name for spec in model.signature.outputs)
    output = compare_outputs(
        run_model(model, feeds), run_model(candidate, feeds), names=names
    ).outputs[0]
    return [output.sqnr_db, output.worst_channel_sqnr_db or output.sqnr_db]


@pytest.mark.parametrize("scheme", _INTEGERS)
def test_weights_on_the_grid_come_back_as_their_integers(scheme: Scheme) -> None:
    tree = every_layer()
    grids = lay_on_grid(tree, largest=127)
    model = read_model(write_flatbuffer(tree))
    quantized = quantize(model, stock_recipe(scheme), image_feeds((1, 4, 4, 3))).model
    for op, (integers, scales) in _weights(quantized).items():
        assert np.array_equal(integers, grids[op][0]), op
        assert np.array_equal(scales, grids[op][1]), op


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.WEIGHT_ONLY_INT8])
def test_bounds_say_what_the_greatest_integer_stands_for(scheme: Scheme) -> None:
    tree = every_layer()
    grids = lay_on_grid(tree, largest=90)
    bounds = {layer.weights: 127 * grids[layer.op][1] for layer in find_layers(tree)}
    model = read_model(write_flatbuffer(tree))
    quantized = quantize(
        model, stock_recipe(scheme), image_feeds((1, 4, 4, 3)), weight_bounds=bounds
    ).model
    weights = _weights(quantized)
    assert len(weights) == 4
    for op, (integers, scales) in weights.items():
        assert np.array_equal(integers, grids[op][0]), op
        assert np.array_equal(scales, grids[op][1]), op


def test_layers_get_their_own_scheme_and_padding_between_float_layers_is_float() -> None:
    model = row_of_layers()
    recipe = _mixed(Scheme.INT8, first=Scheme.FLOAT32, second=Scheme.FLOAT16)
    quantized = quantize(model, recipe, image_feeds()).model
    assert quantized.signature == model.signature
    types = tensor_types(quantized)
    assert {types[name] for name in ("first", "padded", "rectified", "second")} == {FLOAT32}
    assert FLOAT16 in types.values()
    ops = dict(quantized.op_counts)
    # One boundary: int8 begins before the third convolution.
    assert ops["QUANTIZE"] == 1
    assert (
        _fidelity(model, quantized)[0]
        > _fidelity(model, quantize(model, stock_recipe(Scheme.INT8), image_feeds()).model)[0]
    )


def test_integers_in_a_float_model_need_calibration() -> None:
    model = row_of_layers()
    recipe = _mixed(Scheme.WEIGHT_ONLY_INT8, second=Scheme.INT8)
    with pytest.raises(RecipeError, match="no calibration data was given"):
        quantize(model, recipe)
    quantized = quantize(model, recipe, image_feeds()).model
    assert quantized.signature == model.signature
    ops = dict(quantized.op_counts)
    assert ops["QUANTIZE"] == 1  # before the second convolution
    assert _fidelity(model, quantized)[0] > 30.0


@pytest.mark.parametrize(
    ("scheme", "own"),
    [
        (Scheme.INT8, Scheme.INT16X8),
        (Scheme.INT8, Scheme.DYNAMIC_RANGE),
        (Scheme.INT8, Scheme.WEIGHT_ONLY_INT8),
        (Scheme.DYNAMIC_RANGE, Scheme.FLOAT32),
        (Scheme.DYNAMIC_RANGE, Scheme.WEIGHT_ONLY_INT8),
        (Scheme.FLOAT32, Scheme.DYNAMIC_RANGE),
    ],
)
def test_schemes_mix(scheme: Scheme, own: Scheme) -> None:
    model = row_of_layers()
    quantized = quantize(model, _mixed(scheme, second=own), image_feeds()).model
    assert quantized.signature == model.signature
    assert quantized.data != quantize(model, _mixed(scheme), image_feeds()).model.data
    assert _fidelity(model, quantized)[0] > 25.0


def test_names_that_mean_something_in_a_regex_or_repeat_are_no_trouble() -> None:
    tree = read_flatbuffer(row_of_layers().data)
    graph = tree.subgraphs[0]
    for name in ("first", "second"):
        index = next(i for i, each in enumerate(graph.tensors) if decode_name(each.name) == name)
        graph.tensors[index].name = ".*(;first|["
    model = read_model(write_flatbuffer(tree))
    recipe = _mixed(Scheme.INT8, **{".*(;first|[": Scheme.FLOAT32})
    quantized = quantize(model, recipe, image_feeds()).model
    assert quantized.signature == model.signature
    assert dict(quantized.op_counts)["QUANTIZE"] == 1
    named = [name for name in tensor_types(quantized) if name == ".*(;first|["]
    assert named


def test_a_layer_that_the_model_has_not_is_refused_before_any_work() -> None:
    with pytest.raises(RecipeError, match="no op that gives 'frist'; did you mean 'first'"):
        quantize(row_of_layers(), _mixed(Scheme.INT8, frist=Scheme.FLOAT32), image_feeds())


def test_scores_beside_boxes_survive_int8() -> None:
    model = detector()
    done = quantize(model, stock_recipe(Scheme.INT8), image_feeds())
    assert done.float_layers == ("joined", "detections")
    assert done.model.signature == model.signature
    whole, worst = _fidelity(model, done.model)
    assert min(whole, worst) > 25.0
    types = tensor_types(done.model)
    # Only what joins them is float: each part has integers of its own.
    assert (types["boxes"], types["scores_share"], types["joined"]) == (INT8, INT8, FLOAT32)


def test_scores_survive_where_channels_stand_before_anchors() -> None:
    model = scaled_detector()
    done = quantize(model, stock_recipe(Scheme.INT8), image_feeds())
    assert done.float_layers == ("detections",)
    whole, worst = _fidelity(model, done.model)
    assert min(whole, worst) > 25.0


def test_a_recipe_may_still_have_the_scores_in_integers() -> None:
    model = detector()
    recipe = _mixed(Scheme.INT8, joined=Scheme.INT8, detections=Scheme.INT8)
    done = quantize(model, recipe, image_feeds())
    assert done.float_layers == ()
    whole, worst = _fidelity(model, done.model)
    # The output as a whole looks well: what was lost shows in its worst channel alone.
    assert whole > 20.0
    assert worst < 5.0


@pytest.mark.parametrize("method", list(RangeMethod))
def test_every_method_of_ranges_gives_a_usable_model(method: RangeMethod) -> None:
    model = row_of_layers()
    recipe = Recipe(name="ranges", scheme=Scheme.INT8, activation_ranges=method)
    quantized = quantize(model, recipe, image_feeds(num_samples=32)).model
    assert quantized.signature == model.signature
    assert _fidelity(model, quantized)[0] > 20.0


def test_one_scale_for_all_weights_leaves_depthwise_channels_their_own() -> None:
    # The runtime answers wrongly without a word when they share one: -5 dB instead of 40.
    model = small_model("depthwise")
    recipe = Recipe(name="one", scheme=Scheme.DYNAMIC_RANGE, granularity=Granularity.TENSORWISE)
    quantized = quantize(model, recipe).model
    feeds = make_feeds(model)
    names = tuple(spec.name for spec in model.signature.outputs)
    compared = compare_outputs(run_model(model, feeds), run_model(quantized, feeds), names=names)
    assert compared.sqnr_db > 20.0
    scales = {op: len(each) for op, (_, each) in _weights(quantized).items()}
    assert scales["DEPTHWISE_CONV_2D"] > 1
    assert scales["FULLY_CONNECTED"] == 1
