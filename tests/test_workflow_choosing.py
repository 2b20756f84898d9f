"""The choice of what is packed, with figures and turns that a machine could have given."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from edgepack.catalog import find_profile
from edgepack.errors import LimitError, MeasureError
from edgepack.importers import ImportOptions
from edgepack.optimize.choosing.choose import Objective
from edgepack.optimize.choosing.variant import Variant
from edgepack.optimize.judging.floors import Floors
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from edgepack.workflow.choosing import HOST, Chosen, choose_outcome, needs_bound
from edgepack.workflow.request import DataRequest, Outcome, PackRequest
from edgepack.workflow.turns import Turns
from tests.fixtures.commands import FLOAT_MODEL
from tests.fixtures.outcomes import FLOAT, FLOAT16, INT8, outcome

PROFILE, _ = find_profile("laptop-x86-64", user_directory=None)
REQUEST = PackRequest(
    model=FLOAT_MODEL,
    profile=PROFILE,
    recipes=(),
    objective=Objective.LATENCY,
    floors=Floors(),
    data=DataRequest(),
    imports=ImportOptions(),
)
QUICKER = Turns(ratio=0.5, ratio_ci95=(0.48, 0.53))
ALIKE = Turns(ratio=1.01, ratio_ci95=(0.97, 1.06))


def answering(**turns: Turns | BaseException) -> Callable[[Variant, Variant], Turns]:
    """Give turns by the recipe's name; one that has none must not be asked for."""

    def take_turns(variant: Variant, reference: Variant) -> Turns:
        assert reference.recipe.name == "float32"
        answer = turns.pop(variant.recipe.name)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return take_turns


choose = partial(choose_outcome, REQUEST, measured_on=HOST)


def test_what_turns_confirm_is_packed() -> None:
    found = choose((FLOAT, INT8, FLOAT16), take_turns=answering(int8=QUICKER))
    assert found == Chosen(
        outcome=INT8, choice=found.choice, outcomes=(FLOAT, INT8, FLOAT16), is_interrupted=False
    )
    assert found.choice.reason == (
        "int8 is the quickest of 3 variants inside the floors on host; in turns with float32 it "
        "takes 0.50x (95%: 0.48 to 0.53)"
    )


def test_what_turns_do_not_confirm_is_passed_over_for_the_next() -> None:
    found = choose((FLOAT, INT8, FLOAT16), take_turns=answering(int8=ALIKE, float16=QUICKER))
    assert found.outcome == FLOAT16
    assert found.choice.reason == (
        "int8 is inside the floors but not shown to be quicker: in turns with float32 it takes "
        "1.01x (95%: 0.97 to 1.06); of the others float16 is the quickest of 2 variants inside the "
        "floors on host; in turns with float32 it takes 0.50x (95%: 0.48 to 0.53)"
    )
    assert [each.skipped_reason for each in found.outcomes] == [
        None,
        "not shown to be quicker: in turns with float32 it takes 1.01x (95%: 0.97 to 1.06)",
        None,
    ]


def test_the_only_rival_that_is_passed_over_was_inside_the_floors_all_the_same() -> None:
    found = choose((INT8, FLOAT), take_turns=answering(int8=ALIKE))
    assert found.outcome == FLOAT
    assert found.choice.reason == (
        "int8 is inside the floors but not shown to be quicker: in turns with float32 it takes "
        "1.01x (95%: 0.97 to 1.06); so float32 stays"
    )


def rough(outcome: Outcome) -> Outcome:
    """Give an outcome whose trial was on a machine that was not quiet."""
    assert outcome.host is not None
    median_ns = outcome.host.median_ns
    ends = (median_ns // 2, 2 * median_ns)
    return replace(outcome, host=replace(outcome.host, median_ci95_ns=ends))


ROUGH_FLOAT, ROUGH_INT8, ROUGH_FLOAT16 = (
    rough(FLOAT),
    rough(outcome(Scheme.INT8, 600)),
    rough(FLOAT16),
)


def test_what_the_trials_only_promise_is_timed_in_turns() -> None:
    found = choose((ROUGH_FLOAT, ROUGH_FLOAT16, ROUGH_INT8), take_turns=answering(int8=QUICKER))
    assert found.outcome == ROUGH_INT8
    assert found.choice.reason == (
        "int8 has the least median inside the floors on host, though the trials alone do not tell "
        "it from float32; in turns with float32 it takes 0.50x (95%: 0.48 to 0.53)"
    )


def test_what_turns_do_not_confirm_of_it_leaves_float() -> None:
    found = choose(
        (ROUGH_FLOAT, ROUGH_FLOAT16, ROUGH_INT8), take_turns=answering(int8=ALIKE, float16=ALIKE)
    )
    assert found.outcome == ROUGH_FLOAT
    in_turns = "not shown to be quicker: in turns with float32 it takes 1.01x (95%: 0.97 to 1.06)"
    assert found.choice.reason == (
        f"int8 is inside the floors but {in_turns}; float16 is inside the floors but {in_turns}; "
        "so float32 stays"
    )


@pytest.mark.parametrize(
    "rival",
    [
        replace(ROUGH_INT8, outside=("5 dB, below 20 dB",)),
        rough(outcome(Scheme.INT8, 960)),  # too little to gain
        rough(outcome(Scheme.INT8, 1200)),
    ],
)
def test_what_promises_nothing_is_not_timed_in_turns(rival: Outcome) -> None:
    found = choose((ROUGH_FLOAT, rival), take_turns=answering())
    assert found.outcome == ROUGH_FLOAT


def test_ctrl_c_while_a_promise_is_timed_keeps_float() -> None:
    found = choose((ROUGH_FLOAT, ROUGH_INT8), take_turns=answering(int8=KeyboardInterrupt()))
    assert found.is_interrupted
    assert found.outcome == ROUGH_FLOAT
    assert found.choice.reason == (
        "int8 is not shown to be quicker on host than float32, which stays; timing int8 in turns "
        "with float32 was interrupted, so the trials alone decide"
    )


def test_a_variant_that_cannot_be_timed_in_turns_is_not_shown_to_be_quicker() -> None:
    error = MeasureError("the runner died", remedy="Try again.")
    found = choose((FLOAT, INT8), take_turns=answering(int8=error))
    assert found.outcome == FLOAT
    assert found.choice.reason == (
        "int8 is inside the floors but not shown to be quicker: it could not be timed in turns: "
        "the runner died; so float32 stays"
    )


def test_ctrl_c_in_turns_keeps_what_the_trials_chose() -> None:
    found = choose((FLOAT, INT8), take_turns=answering(int8=KeyboardInterrupt()))
    assert found.is_interrupted
    assert found.outcome == INT8
    assert found.outcomes == (FLOAT, INT8)
    assert found.choice.reason == (
        "int8 is the quickest of 2 variants inside the floors on host; timing it in turns with "
        "float32 was interrupted, so the trials alone decide"
    )


def test_a_second_ctrl_c_ends_everything() -> None:
    with pytest.raises(KeyboardInterrupt):
        choose((FLOAT, INT8), take_turns=answering(int8=KeyboardInterrupt()), is_interrupted=True)


@pytest.mark.parametrize(
    "outcomes",
    [
        # Both are the model as it came: there is nothing that turns could show.
        (replace(FLOAT, recipe=stock_recipe(Scheme.AS_IS)), FLOAT),
        # It could not be measured on the device.
        (replace(FLOAT, skipped_reason="out of memory", host=None), INT8),
        (replace(FLOAT, host=None), replace(INT8, host=None)),
    ],
    ids=["the same", "no bound", "not measured"],
)
def test_turns_are_taken_only_where_they_can_show_something(outcomes: tuple[Outcome, ...]) -> None:
    found = choose(outcomes, take_turns=answering())
    assert found.outcomes == outcomes


def test_other_objectives_take_no_turns() -> None:
    smallest = replace(REQUEST, objective=Objective.SIZE)
    found = choose_outcome(smallest, (INT8, FLOAT), measured_on=HOST, take_turns=answering())
    assert found.outcome.recipe.scheme is Scheme.FLOAT32  # of one size, the nearest to itself


def test_nothing_inside_the_floors_is_a_limit() -> None:
    poor = outcome(Scheme.INT8, 400, outside=("SQNR is low",))
    with pytest.raises(LimitError, match=r"^no variant is inside the floors; the nearest is int8"):
        choose((poor,), take_turns=answering())


def test_named_recipes_get_the_float_model_beside_them_where_latency_chooses() -> None:
    request = replace(REQUEST, recipes=(INT8.recipe, FLOAT16.recipe))
    assert needs_bound(request, (INT8, FLOAT16), measured_on=HOST)
    assert not needs_bound(request, (INT8, FLOAT16), measured_on=None)
    assert not needs_bound(request, (INT8, FLOAT), measured_on=HOST)
    assert not needs_bound(replace(request, recipes=(INT8.recipe,)), (INT8,), measured_on=HOST)
    assert not needs_bound(
        replace(request, objective=Objective.SIZE), (INT8, FLOAT16), measured_on=HOST
    )
    # Nothing keeps the floors, and the float model was not asked for.
    poor = replace(INT8, outside=("SQNR is low",))
    assert not needs_bound(request, (poor,), measured_on=HOST)
