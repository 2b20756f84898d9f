"""Waves: each device in one of them, in their order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import UsageError
from edgepack.fleet.waves import CANARY, Amount, parse_amount, parse_waves, split_waves


@pytest.mark.parametrize(
    ("num_devices", "sizes"),
    [(1, [1]), (2, [1, 1]), (5, [1, 1, 3]), (100, [1, 10, 89]), (1000, [1, 100, 899])],
)
def test_the_canary_is_one_then_a_tenth_then_the_rest(num_devices: int, sizes: list[int]) -> None:
    assert [len(wave) for wave in split_waves(num_devices, CANARY)] == sizes


_AMOUNTS = st.lists(
    st.builds(Amount, value=st.integers(1, 50))
    | st.builds(Amount, value=st.integers(1, 100), is_share=st.just(True)),
    max_size=5,
).map(tuple)


@given(st.integers(1, 400), _AMOUNTS)
def test_each_device_is_in_one_wave(num_devices: int, sizes: tuple[Amount, ...]) -> None:
    waves = split_waves(num_devices, sizes)
    assert [place for wave in waves for place in wave] == list(range(num_devices))
    assert all(waves)
    assert len(waves) <= len(sizes) + 1


@given(_AMOUNTS.filter(bool))
def test_sizes_are_read_back_as_they_are_written(sizes: tuple[Amount, ...]) -> None:
    text = ",".join(f"{each.value}{'%' if each.is_share else ''}" for each in sizes)
    assert parse_waves(text) == sizes


@pytest.mark.parametrize("text", ["", "1,", "x", "101%", "-1", "1.5"])
def test_what_is_no_number_of_devices_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of devices"):
        parse_waves(text)


def test_a_wave_of_nobody_is_refused_and_no_failures_are_a_limit() -> None:
    with pytest.raises(UsageError) as caught:
        parse_waves("1,0%")
    assert caught.value.message == "--waves 1,0%: expected at least one device in each wave"
    assert parse_amount("0").of(100) == 0
    assert parse_amount("3%").of(50) == 2
