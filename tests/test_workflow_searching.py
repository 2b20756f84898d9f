"""The driver of a search: progress, and what Ctrl-C leaves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from edgepack.optimize.choosing.choose import Choice, Objective
from edgepack.optimize.choosing.search import SearchSpace, search
from edgepack.optimize.ranking.sensitivity import Sensitivity
from edgepack.optimize.recipes.recipe import Recipe
from edgepack.profile import Scheme
from edgepack.workflow.request import Outcome
from edgepack.workflow.searching import count_evaluations, run_search
from tests.fixtures.outcomes import FLOAT, FLOAT16, INT8

if TYPE_CHECKING:
    from edgepack.workflow.request import SearchProgress

SPACE = SearchSpace(
    base=Scheme.FLOAT32,
    schemes=(Scheme.FLOAT16, Scheme.DYNAMIC_RANGE),
    objective=Objective.SIZE,
    can_fuse=False,
    can_refine=False,
    can_prune=False,
    num_layers=3,
)


def choose_none(_: Sequence[Outcome]) -> Choice:
    return Choice(index=None, reason="none is inside", nearest=0)


def test_ctrl_c_before_there_is_anything_to_keep_ends_everything() -> None:
    def build(recipe: Recipe) -> Outcome:
        if recipe.scheme is Scheme.FLOAT16:
            raise KeyboardInterrupt
        return Outcome(recipe=recipe, skipped_reason="cannot be built")

    with pytest.raises(KeyboardInterrupt):
        run_search(
            search(SPACE, lambda _: ()),
            build,
            choose_none,
            num_planned=3,
            on_progress=lambda _: None,
        )


def test_each_candidate_is_told_of() -> None:
    told: list[SearchProgress] = []
    outcomes, is_interrupted = run_search(
        search(SPACE, lambda _: ()),
        lambda recipe: Outcome(recipe=recipe, skipped_reason="cannot be built"),
        choose_none,
        num_planned=2,
        on_progress=told.append,
    )
    assert [each.recipe.name for each in outcomes] == ["float32", "float16", "dynamic_range"]
    assert not is_interrupted
    assert [(each.num_done, each.num_total) for each in told] == [(1, 2), (2, 2), (3, 3)]
    assert {each.best for each in told} == {None}


def test_the_cost_of_a_search_is_counted_in_runs_over_the_evaluation_samples() -> None:
    outcomes = (FLOAT, INT8, Outcome(recipe=FLOAT16.recipe, skipped_reason="cannot be built"))
    assert count_evaluations(outcomes, None, num_samples=72) == 2.0
    # 36 runs over 8 samples take as long as 4 over 72.
    learned = Sensitivity(layers=(), num_samples=8, num_evaluations=36.0)
    assert count_evaluations(outcomes, learned, num_samples=72) == 6.0
