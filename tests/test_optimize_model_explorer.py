"""Node data, as Model Explorer wants it."""

from typing import Any

import pytest

from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import Model
from edgepack.optimize.ranking.layer_costs import Precision, Sensitivity
from edgepack.optimize.ranking.model_explorer import make_node_data
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.models import small_model
from tests.fixtures.sensitivity import layer_cost, made_up


def test_each_layer_has_its_value_under_its_tensors_name(
    digits_model: Model, digits_sensitivity: Sensitivity
) -> None:
    body = make_node_data(digits_model.data, digits_sensitivity, Precision.INT8)
    assert list(body) == ["main"]
    graph = body["main"]
    layers = find_layers(read_flatbuffer(digits_model.data))
    assert list(graph["results"]) == [layer.name for layer in layers]
    for each in digits_sensitivity.at(Precision.INT8):
        assert graph["results"][each.layer] == {"value": round(each.output_sqnr_db, 2)}
    assert [each["stop"] for each in graph["gradient"]] == [0.0, 0.5, 1.0]


# What ai-edge-model-explorer-adapter 0.2.1 calls the graph of each (measured).
@pytest.mark.parametrize(
    ("name", "drops", "expected"),
    [
        (b"prepared", (), "prepared"),
        (None, (), "serving_default"),
        (b"", (), "serving_default"),
        (None, ("signatureDefs",), "main"),
    ],
)
def test_the_graph_is_called_as_the_viewer_calls_it(
    name: bytes | None,
    drops: tuple[str, ...],
    expected: str,
) -> None:
    tree: Any = read_flatbuffer(small_model("cnn").data)
    tree.subgraphs[0].name = name
    for each in drops:
        setattr(tree, each, None)
    found = made_up(layer_cost("a", output_db=3.0))
    assert list(make_node_data(write_flatbuffer(tree), found, Precision.INT8)) == [expected]


def test_layers_of_one_name_have_the_worst_value_and_one_value_no_gradient() -> None:
    found = made_up(layer_cost("a", output_db=30.0), layer_cost("a", output_db=20.0))
    graph = make_node_data(small_model("cnn").data, found, Precision.INT8)["main"]
    assert graph["results"] == {"a": {"value": 20.0}}
    one = made_up(layer_cost("a", output_db=30.0))
    assert make_node_data(small_model("cnn").data, one, Precision.INT8)["main"]["gradient"] == []
