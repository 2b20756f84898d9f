"""Timing in turns: the order of launches, and what their ratios show; pure."""

from hypothesis import given
from hypothesis import strategies as st

from edgepack.optimize.choosing.variant import Variant
from edgepack.workflow.turns import NUM_PAIRS, Turns, alternate, summarize_turns
from tests.fixtures.outcomes import FLOAT, INT8


def test_launches_alternate_and_neither_always_comes_first() -> None:
    asked: list[str] = []

    def time(variant: Variant) -> int:
        asked.append(variant.recipe.name)
        # A machine that gets busier all the time, on which int8 takes half of float's time.
        busy = 1000 * (10 + len(asked))
        return busy // 2 if variant.recipe.name == "int8" else busy

    assert INT8.variant is not None
    assert FLOAT.variant is not None
    turns = alternate(time, INT8.variant, FLOAT.variant)
    pairs = [("int8", "float32"), ("float32", "int8")]
    assert list(zip(asked[::2], asked[1::2], strict=True)) == [*(pairs * NUM_PAIRS)[:NUM_PAIRS]]
    assert turns.is_quicker
    low, high = turns.ratio_ci95
    assert 0.45 < low <= turns.ratio <= high < 0.55


def test_one_disturbed_launch_does_not_decide() -> None:
    theirs = [1000] * NUM_PAIRS
    assert summarize_turns([900] * (NUM_PAIRS - 1) + [9000], theirs).is_quicker
    assert not summarize_turns([900] * (NUM_PAIRS - 2) + [9000] * 2, theirs).is_quicker


def test_what_is_alike_is_not_quicker() -> None:
    turns = summarize_turns([999, 1001] * 4, [1000] * 8)
    assert not turns.is_quicker
    assert not Turns(ratio=0.99, ratio_ci95=(0.98, 1.0)).is_quicker


def test_turns_are_told_with_their_interval() -> None:
    turns = Turns(ratio=0.5512, ratio_ci95=(0.5301, 0.5699))
    assert turns.text == "0.55x (95%: 0.53 to 0.57)"


_TIMES = st.lists(st.integers(0, 10**9), min_size=NUM_PAIRS, max_size=NUM_PAIRS)


@given(_TIMES, _TIMES)
def test_the_ratio_lies_in_its_interval(ours: list[int], theirs: list[int]) -> None:
    turns = summarize_turns(ours, theirs)
    assert turns.ratio_ci95[0] <= turns.ratio <= turns.ratio_ci95[1]
