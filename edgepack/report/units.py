"""Numbers as people read them: durations, sizes, decibels and shares, never rounded to a lie."""

import math
from collections.abc import Sequence
from typing import Final

EXACT_DB: Final = 300.0
"""What exact equality reads in a record (infinity has no JSON)."""

_NANOSECOND_UNITS: Final = (("ns", 1, 0), ("µs", 10**3, 3), ("ms", 10**6, 6), ("s", 10**9, 9))
_DECIMAL_UNITS: Final = (("B", 1, 0), ("kB", 10**3, 3), ("MB", 10**6, 6), ("GB", 10**9, 9))
_BINARY_UNITS: Final = (("B", 1, 0), ("KiB", 2**10, 3), ("MiB", 2**20, 6), ("GiB", 2**30, 9))
_ENERGY_UNITS: Final = (("nJ", 1), ("µJ", 10**3), ("mJ", 10**6), ("J", 10**9))
_MINIMUM_DIGITS: Final = 3
_MAXIMUM_DIGITS: Final = 6
_INTERVAL_DIGITS: Final = 2

DASH: Final = "–"  # noqa: RUF001 - a range is written with an en dash
ABSENT: Final = "—"


def latency(value_ns: float, *, interval_ns: tuple[float, float] | None = None) -> str:
    """Write a duration in ns with its unit, as finely as its interval says.

    At least three digits; more when the interval is narrower than they show; never finer
    than a nanosecond, never 0 for what is not 0.
    """
    unit, decimals = duration_scale(value_ns, interval_ns=interval_ns)
    return f"{_scaled(value_ns, unit, decimals)} {unit}"


def latency_interval(interval_ns: tuple[float, float], *, value_ns: float) -> str:
    """Write an interval's ends in the unit and with the decimals of its value."""
    unit, _ = duration_scale(value_ns, interval_ns=interval_ns)
    return f"{latency_ends(interval_ns, value_ns=value_ns)} {unit}"


def latency_ends(interval_ns: tuple[float, float], *, value_ns: float) -> str:
    """Write an interval as `latency_interval` does, without the unit, to stand below its value."""
    unit, decimals = duration_scale(value_ns, interval_ns=interval_ns)
    low, high = interval_ns
    return f"{_scaled(low, unit, decimals)}{DASH}{_scaled(high, unit, decimals)}"


def duration_scale(
    value_ns: float, *, interval_ns: tuple[float, float] | None = None
) -> tuple[str, int]:
    """Choose the unit and the decimals of a duration in ns."""
    width = interval_ns[1] - interval_ns[0] if interval_ns else 0.0
    for unit, factor, finest in _NANOSECOND_UNITS:
        scaled = abs(value_ns) / factor
        decimals = _decimals(scaled, width / factor, finest)
        if round(scaled, decimals) < 1000 or unit == "s":  # noqa: PLR2004 - the next unit's 1
            return unit, decimals
    raise AssertionError


def unit_factor(unit: str) -> int:
    """Give how many nanoseconds a duration's unit has."""
    return {name: factor for name, factor, _ in _NANOSECOND_UNITS}[unit]


def _decimals(scaled: float, width: float, finest: int) -> int:
    if scaled == 0:
        return 0
    leading = math.floor(math.log10(scaled)) + 1
    if round(scaled, _MINIMUM_DIGITS - leading) >= 10.0**leading:  # 9.996 reads 10.0
        leading += 1
    decimals = _MINIMUM_DIGITS - leading
    if width > 0:
        decimals = max(decimals, _INTERVAL_DIGITS - 1 - math.floor(math.log10(width)))
    return max(0, min(decimals, finest, max(_MAXIMUM_DIGITS, _MINIMUM_DIGITS) - leading))


def _scaled(value_ns: float, unit: str, decimals: int) -> str:
    return f"{value_ns / unit_factor(unit):.{decimals}f}"


def _size(num_bytes: int, units: Sequence[tuple[str, int, int]]) -> str:
    for unit, factor, finest in units:
        scaled = num_bytes / factor
        decimals = 0 if factor == 1 else _decimals(scaled, 0.0, finest)
        step = 1000 if units is _DECIMAL_UNITS else 1024
        if round(scaled, decimals) < step or unit == units[-1][0]:
            return f"{scaled:.{decimals}f} {unit}"
    raise AssertionError


def file_size(num_bytes: int) -> str:
    """Write the size of a file or a transfer in decimal units: 1 kB is 1000 bytes."""
    return _size(num_bytes, _DECIMAL_UNITS)


def wire_size(num_bytes: int, compression: str | None) -> str:
    """Write an amount that went over a wire, and what compressed it: `3.4 MB zstd`."""
    return " ".join(each for each in (file_size(num_bytes), compression) if each)


def memory_size(num_bytes: int) -> str:
    """Write an amount of memory in binary units: 1 MiB is 1048576 bytes."""
    return _size(num_bytes, _BINARY_UNITS)


def energy(value_nj: float) -> str:
    """Write an energy in nJ with its unit and three digits."""
    sign = "-" if value_nj < 0 else ""
    for unit, factor in _ENERGY_UNITS:
        scaled = abs(value_nj) / factor
        decimals = _decimals(scaled, 0.0, 3)
        if round(scaled, decimals) < 1000 or unit == "J":  # noqa: PLR2004 - the next unit's 1
            return f"{sign}{scaled:.{decimals}f} {unit}"
    raise AssertionError


def energy_interval(interval_nj: tuple[float, float]) -> str:
    """Write the ends of an energy's interval, each with its unit."""
    return DASH.join(energy(each) for each in interval_nj)


def decibels(value_db: float) -> str:
    """Write a signal-to-noise ratio; a record's 300 dB reads `exact`."""
    if value_db >= EXACT_DB:
        return "exact"
    return f"{value_db:.1f} dB"


def decibel_ends(interval_db: tuple[float, float]) -> str:
    """Write a ratio's interval, without the unit, to stand below its value."""
    low, high = (min(each, EXACT_DB) for each in interval_db)
    ends = [f"{each:.1f}" if each < EXACT_DB else "exact" for each in (low, high)]
    return DASH.join(ends)


def share(value: float, *, decimals: int = 1) -> str:
    """Write a share of 1 in percent; neither 0% nor 100% unless it is exactly that."""
    text = f"{value * 100:.{decimals}f}"
    smallest = 10.0**-decimals
    if value < 1 and float(text) >= 100:  # noqa: PLR2004 - all of it
        return f">{100 - smallest:.{decimals}f}%"
    if value > 0 and float(text) == 0:
        return f"<{smallest:.{decimals}f}%"
    return f"{text}%"


def share_interval(interval: tuple[float, float]) -> str:
    """Write the interval of a share of 1 in percent."""
    low, high = interval
    return f"{low * 100:.1f}{DASH}{high * 100:.1f}%"


def ratio(value: float) -> str:
    """Write a factor with three digits, such as 3.92 times, with its sign."""
    if value == 0:
        return "0×"  # noqa: RUF001 - the sign of multiplication
    digits = _MINIMUM_DIGITS - (math.floor(math.log10(abs(value))) + 1)
    return f"{value:.{max(0, min(digits, 3))}f}×"  # noqa: RUF001 - the sign of multiplication


def small_number(value: float) -> str:
    """Write an error's magnitude with three digits, in exponent form when need be."""
    return "0" if value == 0 else f"{value:.3g}"


def seconds(value_seconds: float) -> str:
    """Write a duration of a step, such as a transfer."""
    return latency(value_seconds * 1e9) if value_seconds > 0 else "0 s"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun, such as `1 launch` or `1,280 runs`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
