"""The search's proposals, answered by rules that a machine could have; pure."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.optimize.choosing.choose import Objective
from edgepack.optimize.choosing.search import SearchSpace, Trial, search
from edgepack.optimize.recipes.recipe import (
    NO_PRUNING,
    InterfaceType,
    PruneKind,
    Pruning,
    Recipe,
    Rounding,
)
from edgepack.profile import Scheme

INTEGER_NARROWED = "int8+refined+structured0.1"
LAYERS = tuple(f"layer{number}" for number in range(50))
Rule = Callable[[Recipe], Trial]


def space(**changes: object) -> SearchSpace:
    given: dict[str, object] = {
        "base": Scheme.FLOAT32,
        "schemes": (Scheme.INT8, Scheme.DYNAMIC_RANGE, Scheme.FLOAT16),
        "objective": Objective.LATENCY,
        "can_refine": True,
        "can_fuse": False,
        "can_prune": True,
        "num_layers": len(LAYERS),
    }
    return SearchSpace(**(given | changes))  # type: ignore[arg-type] # the keys are the fields


def run(where: SearchSpace, rule: Rule) -> list[Recipe]:
    """Answer a search until it ends; give what it proposed."""
    proposals: list[Recipe] = []
    conversation = search(where, lambda _: LAYERS)
    try:
        recipe = next(conversation)
        while True:
            proposals.append(recipe)
            recipe = conversation.send(rule(recipe))
    except StopIteration:
        return proposals


def fine(recipe: Recipe) -> Trial:
    """Everything is inside; fewer bits are quicker."""
    quick = {Scheme.INT8: 4.0, Scheme.DYNAMIC_RANGE: 9.0}.get(recipe.scheme, 8.0)
    return Trial(is_inside=True, num_bytes=100, median_ns=quick * (1 - recipe.pruning.share))


def test_the_float_model_comes_first_and_schemes_in_the_targets_order() -> None:
    names = [recipe.name for recipe in run(space(can_prune=False), fine)]
    assert names == ["float32", "float16", "int8+refined", "dynamic_range+refined"]


def test_without_samples_schemes_are_stock() -> None:
    found = run(space(can_refine=False, can_prune=False, schemes=(Scheme.DYNAMIC_RANGE,)), fine)
    assert [recipe.name for recipe in found] == ["float32", "dynamic_range"]
    assert not any(recipe.is_refined for recipe in found)


def test_a_model_with_ops_to_spare_is_fused_first_and_in_every_scheme() -> None:
    found = run(space(can_fuse=True, can_prune=False), fine)
    assert [(recipe.name, recipe.fuse) for recipe in found] == [
        ("float32", False),
        ("float32+fused", True),
        ("float16+fused", True),
        ("int8+refined", True),
        ("dynamic_range+refined", True),
    ]


def test_channels_are_taken_out_of_the_fused_float_model_when_it_is_best() -> None:
    def rule(recipe: Recipe) -> Trial:
        return Trial(is_inside=True, num_bytes=9, median_ns=1.0 if recipe.fuse else 2.0)

    found = run(space(can_fuse=True, schemes=()), rule)
    assert [recipe.name for recipe in found[:3]] == [
        "float32",
        "float32+fused",
        "float32+fused+structured0.1",
    ]


def test_refined_recipes_have_every_pass() -> None:
    (int8,) = (each for each in run(space(can_prune=False), fine) if each.scheme is Scheme.INT8)
    assert int8.bias_correction
    assert int8.equalize
    assert int8.fuse
    assert int8.rounding is Rounding.GPTQ


@given(st.integers(1, 25))
def test_layers_are_left_in_float_in_few_trials(needed: int) -> None:
    def rule(recipe: Recipe) -> Trial:
        kept = {each.layer for each in recipe.layers}
        is_inside = recipe.scheme is not Scheme.INT8 or kept >= {*LAYERS[:needed]}
        return Trial(is_inside=is_inside, num_bytes=100 + len(kept), median_ns=1.0)

    found = run(space(schemes=(Scheme.INT8,), can_prune=False), rule)
    inside = [each for each in found if each.layers and rule(each).is_inside]
    fewest = min(len(each.layers) for each in inside)
    # Within an eighth of the fewest, and far from one trial a layer.
    assert needed <= fewest <= needed + max(1, fewest // 8)
    assert len(found) <= 2 + 2 * needed.bit_length()
    assert len({each.name for each in found}) == len(found)


def test_a_scheme_that_no_layer_saves_is_given_up_at_half_of_them() -> None:
    def rule(recipe: Recipe) -> Trial:
        return Trial(is_inside=recipe.scheme is not Scheme.INT8, num_bytes=1, median_ns=1.0)

    found = run(space(schemes=(Scheme.INT8,), can_prune=False), rule)
    assert [len(each.layers) for each in found] == [0, 0, 1, 2, 4, 8, 16, 25]


def test_where_bytes_matter_layers_are_left_in_float16_if_the_target_takes_it() -> None:
    def rule(recipe: Recipe) -> Trial:
        return Trial(is_inside=len(recipe.layers) > 1, num_bytes=1, median_ns=1.0)

    for schemes, kept in (((Scheme.INT8, Scheme.FLOAT16), "half"), ((Scheme.INT8,), "float")):
        where = space(schemes=schemes, can_prune=False, objective=Objective.SIZE)
        found = run(where, rule)[-2:]
        assert [each.name for each in found] == [f"int8+refined+{kept}{n}" for n in (1, 2)]
        scheme = Scheme.FLOAT16 if kept == "half" else Scheme.FLOAT32
        assert {each.scheme for recipe in found for each in recipe.layers} == {scheme}


def test_what_could_not_be_built_is_not_tried_with_fewer_layers() -> None:
    def rule(recipe: Recipe) -> Trial:
        if recipe.scheme is Scheme.INT8:
            return Trial(is_inside=False)
        return fine(recipe)

    found = run(space(schemes=(Scheme.INT8,), can_prune=False), rule)
    assert [each.name for each in found] == ["float32", "int8+refined"]


@given(st.integers(0, 9))
def test_the_most_channels_that_may_go_are_found_to_a_tenth(most: int) -> None:
    def rule(recipe: Recipe) -> Trial:
        return Trial(is_inside=recipe.pruning.share <= most / 10, num_bytes=1, median_ns=1.0)

    found = [each.pruning.share for each in run(space(schemes=()), rule) if each.pruning.share]
    assert max([0, *(share for share in found if share <= most / 10)]) == min(most, 8) / 10
    assert len(found) == len(set(found)) <= 6


def test_channels_are_taken_out_of_the_quickest_until_it_is_outside() -> None:
    def rule(recipe: Recipe) -> Trial:
        if recipe.pruning.share > 0.25:
            return Trial(is_inside=False, num_bytes=50, median_ns=1.0)
        return fine(recipe)

    found = run(space(), rule)
    pruned = [each for each in found if each.pruning.share]
    assert [each.pruning.share for each in pruned] == [0.1, 0.2, 0.4, 0.3]
    assert {each.scheme for each in pruned} == {Scheme.INT8}
    assert {each.pruning.kind for each in pruned} == {PruneKind.STRUCTURED}
    assert pruned[0].name == "int8+refined+structured0.1"


def test_channels_are_taken_out_of_what_takes_least_memory_when_that_is_the_objective() -> None:
    def rule(recipe: Recipe) -> Trial:
        memory = {Scheme.INT8: 30, Scheme.DYNAMIC_RANGE: 20}.get(recipe.scheme, 40)
        return Trial(is_inside=True, num_bytes=9, median_ns=1.0, memory_bytes=memory)

    found = run(space(objective=Objective.MEMORY), rule)
    assert {each.scheme for each in found if each.pruning.share} == {Scheme.DYNAMIC_RANGE}


def test_channels_are_taken_out_of_float16_when_it_is_the_smallest_inside() -> None:
    def rule(recipe: Recipe) -> Trial:
        sizes = {Scheme.FLOAT32: 40, Scheme.FLOAT16: 20}
        return Trial(is_inside=recipe.scheme in sizes, num_bytes=sizes.get(recipe.scheme, 10))

    found = run(space(objective=Objective.SIZE), rule)
    assert {each.name for each in found if each.pruning.share} >= {"float16+structured0.1"}
    assert {each.scheme for each in found if each.pruning.share} == {Scheme.FLOAT16}


@pytest.mark.parametrize("objective", [Objective.SIZE, Objective.LATENCY])
def test_what_the_user_asks_holds_for_every_variant(objective: Objective) -> None:
    wish = Pruning(share=0.5)
    first, *found = run(space(objective=objective, pruning=wish), fine)
    assert (first.name, first.pruning) == ("float32", NO_PRUNING)  # the reference of latency
    assert [each.name for each in found[:2]] == ["float32+prune0.5", "float16+prune0.5"]
    assert {each.pruning for each in found} == {wish}


def test_where_integers_are_asked_for_nothing_else_is_tried_beside_float() -> None:
    found = run(space(interface=InterfaceType.INTEGER, can_fuse=True), fine)
    assert [each.name for each in found[:3]] == ["float32", "int8+refined", INTEGER_NARROWED]
    assert {each.interface for each in found[1:]} == {InterfaceType.INTEGER}


def test_no_channels_are_taken_out_of_float_where_integers_are_asked_for() -> None:
    def rule(recipe: Recipe) -> Trial:
        return Trial(is_inside=recipe.scheme is Scheme.FLOAT32, num_bytes=1, median_ns=1.0)

    found = run(space(interface=InterfaceType.INTEGER, num_layers=1), rule)
    assert [each.name for each in found] == ["float32", "int8+refined"]
