from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgepack.report.candidates import (
    Place,
    dominates,
    find_front,
    rank_candidates,
    tell_others,
)
from edgepack.report.summary import VariantRow
from tests.fixtures.report import pack, search_pack


def row(
    sqnr_db: float = 25.0,
    num_bytes: int = 5_350_000,
    ns: tuple[float, float] | None = (4.0e6, 4.2e6),
) -> VariantRow:
    return VariantRow(
        recipe="x",
        sqnr_db=sqnr_db,
        num_bytes=num_bytes,
        median_ns=sum(ns) / 2 if ns else None,
        median_ci95_ns=ns,
        within_budget=True,
    )


def test_better_in_one_thing_and_worse_in_none_dominates() -> None:
    plain = row()
    assert dominates(row(sqnr_db=26.0), plain)
    assert dominates(row(num_bytes=5_000_000), plain)
    assert dominates(row(ns=(3.0e6, 3.9e6)), plain)
    assert not dominates(row(sqnr_db=26.0, num_bytes=5_400_000), plain)
    assert not dominates(plain, row(ns=(3.0e6, 3.9e6)))


def test_what_was_not_shown_is_no_difference() -> None:
    plain = row()
    for like in (
        row(ns=(3.5e6, 4.0e6)),
        row(num_bytes=5_350_400),
        row(sqnr_db=25.04),
        row(ns=None),
    ):
        assert not dominates(like, plain)
        assert not dominates(plain, like)
    # Better fidelity counts, whichever of both happened to be timed as the quicker.
    assert dominates(row(sqnr_db=26.0, ns=(4.1e6, 4.4e6)), plain)


rows = st.lists(
    st.builds(
        row,
        sqnr_db=st.floats(-300, 300),
        num_bytes=st.integers(1, 10**8),
        ns=st.tuples(st.floats(1, 1e6), st.floats(0, 1e6)).map(lambda e: (e[0], e[0] + e[1])),
    ),
    min_size=1,
    max_size=12,
)


@given(rows)
def test_there_is_a_front_that_nothing_dominates_and_the_rest_is_dominated(
    rows: list[VariantRow],
) -> None:
    front = find_front(rows)
    assert front
    for index, each in enumerate(rows):
        beaten = any(dominates(other, each) for other in rows)
        assert beaten != (index in front)


@given(rows)
def test_no_two_dominate_each_other(rows: list[VariantRow]) -> None:
    for one in rows:
        assert not any(dominates(one, other) and dominates(other, one) for other in rows)


def test_outside_the_floors_and_untimed_ones_are_on_no_front() -> None:
    best = replace(row(sqnr_db=50.0, num_bytes=1, ns=(1.0, 2.0)), within_budget=False)
    assert find_front([row(), best, row(sqnr_db=60.0, ns=None)]) == {0}
    assert find_front([row(ns=None), row(sqnr_db=60.0, ns=None)]) == {1}


def test_candidates_are_numbered_from_the_chosen_one() -> None:
    ranked = rank_candidates(pack())
    assert [(each.number, each.row.recipe, each.place) for each in ranked] == [
        (1, "int8", Place.CHOSEN),
        (2, "dynamic_range", Place.FRONT),
        (3, "float32", Place.FRONT),
        (4, "float16", Place.FRONT),
        (5, "int8+prune0.5", Place.OUTSIDE),
        (6, "int16x8", Place.SKIPPED),
    ]


def test_the_chosen_one_is_told_even_outside_the_floors() -> None:
    ranked = rank_candidates(pack(chosen="int8+prune0.5"))
    assert ranked[0].place is Place.CHOSEN
    assert not ranked[0].is_front
    assert [each.row.recipe for each in ranked if each.place is Place.CHOSEN] == ["int8+prune0.5"]


def test_the_others_are_counted() -> None:
    ranked = rank_candidates(search_pack())
    places = [each.place for each in ranked]
    assert tell_others(ranked) == (
        f"{41 - places.count(Place.CHOSEN) - places.count(Place.FRONT)} other candidates: "
        f"{places.count(Place.BEHIND)} inside the floors but better in nothing, "
        f"{places.count(Place.OUTSIDE)} outside the floors, 1 skipped"
    )
    assert tell_others(ranked[:1]) == ""
    assert tell_others([ranked[-1]]) == "1 other candidate: 1 skipped"
