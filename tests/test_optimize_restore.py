"""Float16 weights made float32 again."""

import copy

import numpy as np
import pytest

from edgepack.errors import OptimizeError
from edgepack.evaluate import run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import read_model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.quantizing.restore import restore_float32
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from edgepack.traits import Numerics
from tests.fixtures.models import came_as, make_feeds, small_model


def test_tensorflows_float16_model_answers_the_same_in_float32() -> None:
    model = came_as("float16")
    restored = restore_float32(model)
    assert restored.signature == model.signature
    assert restored.traits.numerics is Numerics.FLOAT32
    assert "DEQUANTIZE" not in dict(restored.op_counts)
    # The weights take twice the bytes, and the old ones none.
    assert 1.2 * model.num_bytes < restored.num_bytes < 2 * model.num_bytes
    feeds = make_feeds(model)
    for before, after in zip(run_model(model, feeds), run_model(restored, feeds), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["cnn", "embedding", "two"])
def test_what_edgepack_made_float16_comes_back_with_its_roundings(name: str) -> None:
    model = quantize(small_model(name), stock_recipe(Scheme.FLOAT16)).model
    restored = restore_float32(model)
    assert restored.signature == model.signature
    feeds = make_feeds(model)
    for before, after in zip(run_model(model, feeds), run_model(restored, feeds), strict=True):
        for first, second in zip(before, after, strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_weight_that_two_ops_dequantize_is_restored_once() -> None:
    model = came_as("float16")
    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    first = graph.operators[0]
    again, tensor = copy.deepcopy(first), copy.deepcopy(graph.tensors[first.outputs[0]])
    tensor.name = "again"
    graph.tensors.append(tensor)
    again.outputs = [len(graph.tensors) - 1]
    graph.operators.insert(1, again)
    for operator in graph.operators[2:]:
        operator.inputs = [
            again.outputs[0] if index == first.outputs[0] else index for index in operator.inputs
        ]
    restored = restore_float32(read_model(write_flatbuffer(tree)))
    assert "DEQUANTIZE" not in dict(restored.op_counts)
    feeds = make_feeds(model, num_samples=2)
    for before, after in zip(run_model(model, feeds), run_model(restored, feeds), strict=True):
        np.testing.assert_array_equal(before, after)


def test_other_numbers_than_float16_are_refused() -> None:
    with pytest.raises(OptimizeError) as caught:
        restore_float32(came_as("dynamic_range"))
    assert caught.value.message == (
        "expected float16 weights that are made float32 before they are used, but dynamic_range "
        "numbers are left"
    )
