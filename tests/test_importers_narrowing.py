import itertools
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from edgepack.importers.narrowing import find_first, space_evenly


@given(st.data(), st.integers(1, 3000), st.integers(2, 40))
def test_the_first_that_departs_is_found_in_few_rounds(
    data: st.DataObject, num_places: int, most: int
) -> None:
    first = data.draw(st.integers(0, num_places))
    rounds: list[int] = []

    def look(places: Sequence[int]) -> Mapping[int, bool | None]:
        assert len(places) <= most
        assert list(places) == sorted(set(places))
        rounds.append(len(places))
        return {place: place >= first for place in places}

    found = find_first(num_places, look, most=most)
    assert found.departing == (first if first < num_places else None)
    if found.departing is not None:
        assert found.agreeing == (first - 1 if first else None)
        assert found.is_complete
        size, needed = num_places, 1
        while size > most:
            size, needed = -(-size // most) - 1, needed + 1
        assert len(rounds) <= needed + 1
    else:
        assert len(rounds) == 1


@given(st.integers(1, 200), st.sets(st.integers(0, 199)), st.integers(0, 199))
def test_places_that_cannot_be_told_are_named_and_do_not_hang(
    num_places: int, unknown: set[int], first: int
) -> None:
    def look(places: Sequence[int]) -> Mapping[int, bool | None]:
        return {place: None if place in unknown else place >= first for place in places}

    found = find_first(num_places, look, most=8)
    told = [place for place in range(first, num_places) if place not in unknown]
    assert found.departing == (told[0] if told else None)
    if found.departing is not None:
        start = -1 if found.agreeing is None else found.agreeing
        assert found.unknown == tuple(range(start + 1, found.departing))


def test_an_end_before_the_end_is_said() -> None:
    answers = iter([{9: True, 4: False}, {}])
    found = find_first(10, lambda _places: next(answers), most=2)
    assert (found.agreeing, found.departing, found.is_complete) == (4, 9, False)


@given(st.lists(st.integers(), min_size=1, max_size=100, unique=True), st.integers(1, 50))
def test_places_are_spread_evenly_up_to_the_last(places: list[int], most: int) -> None:
    places.sort()
    chosen = space_evenly(places, most)
    assert len(chosen) == min(most, len(places))
    assert chosen[-1] == places[-1]
    steps = [places.index(b) - places.index(a) for a, b in itertools.pairwise(chosen)]
    assert max(steps, default=0) - min(steps, default=0) <= 1
