from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.report import units

FACTORS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}
SIZES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def read(text: str) -> float:
    number, unit = text.split(" ")
    return float(number) * FACTORS[unit]


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0, None, "0 ns"),
        (7, None, "7 ns"),
        (812, None, "812 ns"),
        (999, None, "999 ns"),
        (1_000, None, "1.00 µs"),
        (45_678, None, "45.7 µs"),
        (999_999, None, "1.00 ms"),
        (1_250_000, None, "1.25 ms"),
        (1_250_400, (1_243_000, 1_257_000), "1.250 ms"),
        (1_250_400, (1_250_300, 1_250_500), "1.25040 ms"),
        (4_100_000, (2_100_000, 9_000_000), "4.10 ms"),
        (61_000_000_000, None, "61.0 s"),
    ],
)
def test_latency_has_the_digits_its_interval_supports(
    value: float, interval: tuple[float, float] | None, text: str
) -> None:
    assert units.latency(value, interval_ns=interval) == text


def test_interval_stands_in_the_unit_of_its_value() -> None:
    shown = units.latency_interval((995_000, 1_005_000), value_ns=1_000_100)
    assert shown == "0.995–1.005 ms"  # noqa: RUF001 - a range is written with an en dash


@given(st.integers(1, 10**14))
def test_latency_is_never_rounded_far_or_to_nothing(value: int) -> None:
    text = units.latency(value)
    assert read(text) == pytest.approx(value, rel=0.0051)
    assert re.search(r"[1-9]", text)


@given(st.integers(1, 10**13), st.integers(0, 10**12), st.integers(0, 10**12))
def test_interval_still_holds_its_value_once_written(value: int, below: int, above: int) -> None:
    low, high = max(0, value - below), value + above
    text = units.latency_interval((low, high), value_ns=value)
    numbers, unit = text.split(" ")
    shown_low, shown_high = (float(each) * FACTORS[unit] for each in numbers.split(units.DASH))
    shown = read(units.latency(value, interval_ns=(low, high)))
    assert shown_low <= shown <= shown_high
    if high - low > 0.0001 * high:
        assert shown_low < shown_high


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_999, "1.00 MB"), (34_512, "34.5 kB")],
)
def test_file_size_is_decimal(num_bytes: int, text: str) -> None:
    assert units.file_size(num_bytes) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(1023, "1023 B"), (2**20, "1.00 MiB"), (2**20 - 1, "1.00 MiB"), (4 * 2**30, "4.00 GiB")],
)
def test_memory_size_is_binary(num_bytes: int, text: str) -> None:
    assert units.memory_size(num_bytes) == text


@given(st.integers(1, 2**45))
def test_sizes_are_within_half_a_percent(num_bytes: int) -> None:
    for text in (units.file_size(num_bytes), units.memory_size(num_bytes)):
        number, unit = text.split(" ")
        assert float(number) * SIZES[unit] == pytest.approx(num_bytes, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.9999, ">99.9%"), (0.0001, "<0.1%"), (0.9955, "99.6%")],
)
def test_share_is_all_or_nothing_only_when_it_is(value: float, text: str) -> None:
    assert units.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(300.0, "exact"), (34.16, "34.2 dB"), (-3.04, "-3.0 dB")]
)
def test_decibels(value: float, text: str) -> None:
    assert units.decibels(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0997, "2.10×"), (41.26, "41.3×"), (0.0123, "0.012×"), (0.0, "0×")],  # noqa: RUF001 - sign
)
def test_ratio(value: float, text: str) -> None:
    assert units.ratio(value) == text


def test_small_numbers_are_not_hidden() -> None:
    assert units.small_number(5.96e-8) == "5.96e-08"
    assert units.small_number(0.0) == "0"


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1 launch"), (0, "0 launches"), (2400, "2,400 launches")]
)
def test_count(number: int, text: str) -> None:
    assert units.count(number, "launch", "launches") == text
