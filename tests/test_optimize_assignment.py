import pytest

from edgepack.errors import RecipeError
from edgepack.flatbuffer import read_flatbuffer
from edgepack.optimize.recipes.assignment import assign_schemes, find_exceptions, name_layers
from edgepack.optimize.recipes.recipe import InterfaceType, LayerScheme, Recipe
from edgepack.profile import Scheme
from tests.fixtures.mixtures import row_of_layers

FIRST, PADDED, RECTIFIED, SECOND, THIRD = range(5)


def _assign(
    exceptions: dict[int, Scheme],
    *,
    scheme: Scheme = Scheme.INT8,
    interface: InterfaceType = InterfaceType.FLOAT,
) -> dict[int, Scheme]:
    tree = read_flatbuffer(row_of_layers().data)
    return assign_schemes(tree, exceptions, scheme=scheme, interface=interface)


def _recipe(*layers: str) -> Recipe:
    return Recipe(
        name="mixed",
        scheme=Scheme.INT8,
        layers=tuple(LayerScheme(layer=name, scheme=Scheme.FLOAT32) for name in layers),
    )


def test_without_exceptions_every_op_has_the_recipes_scheme() -> None:
    assert _assign({}) == {}


def test_ops_without_weights_between_float_layers_are_float_too() -> None:
    assert _assign({FIRST: Scheme.FLOAT32, SECOND: Scheme.FLOAT16}) == {
        FIRST: Scheme.FLOAT32,
        PADDED: Scheme.FLOAT32,
        RECTIFIED: Scheme.FLOAT32,
        SECOND: Scheme.FLOAT16,
    }


@pytest.mark.parametrize("position", [FIRST, SECOND])
def test_ops_at_a_boundary_stay_as_the_recipe_says(position: int) -> None:
    assert _assign({position: Scheme.FLOAT32}) == {position: Scheme.FLOAT32}


def test_schemes_with_float_activations_have_no_boundary_between_them() -> None:
    assert _assign({FIRST: Scheme.DYNAMIC_RANGE}, scheme=Scheme.WEIGHT_ONLY_INT8) == {
        FIRST: Scheme.DYNAMIC_RANGE
    }


def test_layers_of_integers_in_a_float_model_take_what_lies_between_along() -> None:
    exceptions = {FIRST: Scheme.INT8, SECOND: Scheme.INT8}
    assert _assign(exceptions, scheme=Scheme.DYNAMIC_RANGE) == exceptions | {
        PADDED: Scheme.INT8,
        RECTIFIED: Scheme.INT8,
    }


def test_the_interface_is_a_neighbor() -> None:
    tree = read_flatbuffer(row_of_layers().data)
    # Only the ops without weights are left behind the input.
    tree.subgraphs[0].operators = tree.subgraphs[0].operators[1:]
    tree.subgraphs[0].inputs = [int(tree.subgraphs[0].operators[0].inputs[0])]
    exceptions = {2: Scheme.FLOAT32}
    for interface, followers in (
        (InterfaceType.FLOAT, {0: Scheme.FLOAT32, 1: Scheme.FLOAT32}),
        (InterfaceType.INTEGER, {}),
    ):
        assigned = assign_schemes(tree, exceptions, scheme=Scheme.INT8, interface=interface)
        assert assigned == exceptions | followers


def test_layers_are_found_and_told_by_the_tensor_they_give() -> None:
    tree = read_flatbuffer(row_of_layers().data)
    recipe = _recipe("second", "padded")
    found = find_exceptions(tree, recipe)
    assert found == {SECOND: Scheme.FLOAT32, PADDED: Scheme.FLOAT32}
    assert set(name_layers(tree, found)) == set(recipe.layers)


def test_a_name_that_repeats_means_every_op_that_gives_it() -> None:
    tree = read_flatbuffer(row_of_layers().data)
    graph = tree.subgraphs[0]
    graph.tensors[int(graph.operators[THIRD].outputs[0])].name = "second"
    assert set(find_exceptions(tree, _recipe("second"))) == {SECOND, THIRD}


def test_unknown_layers_are_named_with_the_nearest_known() -> None:
    tree = read_flatbuffer(row_of_layers().data)
    with pytest.raises(RecipeError) as caught:
        find_exceptions(tree, _recipe("secnod", "first", "xyz"))
    assert str(caught.value) == (
        "recipe 'mixed': 2 faults\n"
        "  - layers: the model has no op that gives 'secnod'; did you mean 'second'?\n"
        "  - layers: the model has no op that gives 'xyz'\n"
        "Name the tensor that the layer's op gives; `edgepack inspect --layers` lists them."
    )
