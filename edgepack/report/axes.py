"""Axes of a plot: round ticks, places of values in the picture, grid and names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from edgepack.report.svg import FONT_SIZE, GRID, INK, MUTED, WIDTH, Point, line, text, text_width

_NUM_TICKS: Final = 8
_GAP: Final = 7.0
_EDGE: Final = 8.0
_LINE: Final = 1.5 * FONT_SIZE
_TICK: Final = 3.5
# Parts of an axis: beside its outermost values, and beyond a cut.
_MARGIN: Final = 0.06
_BEYOND: Final = 0.09
_CLEAR: Final = 0.04
# Two values nearer than this share of themselves are one, as far as an axis can show.
_NARROWEST: Final = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One direction of a plot.

    Attributes:
        low: The value at the left or the bottom; it may be the larger one.
        high: The value at the right or the top.
        ticks: The values that are marked, each with its text.
        name: What the axis counts, with its unit.
        logarithmic: Whether equal ways are equal factors; then all values are above 0.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    name: str = ""
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Give how far a value lies on the way from low to high: 0 to 1 inside the axis."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


def linear_axis(low: float, high: float, *, name: str, num_ticks: int = _NUM_TICKS) -> Axis:
    """Make an axis over a range with ticks at round values."""
    if high - low <= _NARROWEST * max(abs(low), abs(high)):
        margin = 0.01 * abs(high) or 1.0
        low, high = low - margin, high + margin
    return Axis(low=low, high=high, ticks=round_ticks(low, high, num_ticks=num_ticks), name=name)


def log_axis(low: float, high: float, *, name: str) -> Axis:
    """Make a logarithmic axis over a range above 0, with ticks at powers of ten.

    Over less than three decades, twice and five times the powers have ticks too.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if math.log10(high / low) < 3 else (1,)  # noqa: PLR2004 - few powers
    ticks = [
        (float(f"{factor}e{power}"), f"{float(f'{factor}e{power}'):,.{max(0, -power)}f}")
        for power in range(first, last + 1)
        for factor in factors
    ]
    inside = tuple(tick for tick in ticks if low <= tick[0] <= high)
    return Axis(low=low, high=high, ticks=inside, name=name, logarithmic=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutAxis:
    """An axis that is cut at an end, beyond which all that lies too far off stands on one line.

    Attributes:
        axis: with the room beyond the cuts.
        low: where it is cut below, or the axis's low.
        high: where it is cut above, or the axis's high.
    """

    axis: Axis
    low: float
    high: float

    def place(self, value: float) -> float:
        """Give where on the axis a value stands."""
        if value > self.high:
            return _between(self.high, self.axis.high, self.axis)
        return _between(self.low, self.axis.low, self.axis) if value < self.low else value

    def holds(self, value: float) -> bool:
        """Tell whether a value lies between the cuts."""
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        """Give the nearest value between the cuts."""
        return min(max(value, self.low), self.high)

    @property
    def cuts(self) -> tuple[float, ...]:
        """The values at which the axis is cut."""
        ends = ((self.low, self.axis.low), (self.high, self.axis.high))
        return tuple(cut for cut, end in ends if cut != end)


def cut_axis(
    values: Sequence[float],
    *,
    name: str,
    is_over: bool = False,
    is_under: bool = False,
    logarithmic: bool = False,
    least: float | None = None,
    most: float | None = None,
) -> CutAxis:
    """Make an axis over values with a margin, cut where others lie over or under them.

    Args:
        values: that are to be told apart; at least one, above 0 on a logarithmic axis.
        name: what the axis counts.
        is_over: whether there are more above, to stand beyond a cut.
        is_under: whether there are more below.
        logarithmic: whether equal ways are equal factors.
        least: no axis reaches below it.
        most: no tick stands above it.
    """
    low, high = min(values), max(values)
    if logarithmic:
        margin, beyond = (high / low) ** _MARGIN, (high / low) ** _BEYOND
        low, high = low / margin, high * margin
        top, bottom = high * beyond, low / beyond
        ticks = log_axis(low, high, name=name).ticks
    else:
        margin = _MARGIN * (high - low) or 0.01 * abs(high) or 1.0
        low, high = low - margin, high + margin
        low = low if least is None else max(low, least)
        beyond = _BEYOND * (high - low)
        top, bottom = high + beyond, low - beyond
        last = high if most is None else min(high, most)
        ticks = round_ticks(low, last, num_ticks=_NUM_TICKS)
    axis = Axis(
        low=bottom if is_under else low,
        high=top if is_over else high,
        ticks=ticks,
        name=name,
        logarithmic=logarithmic,
    )
    # The cut's own mark needs the room of a tick beside it.
    inner = [
        tick
        for tick in axis.ticks
        if not (is_under and axis.share(tick[0]) < axis.share(low) + _CLEAR)
        and not (is_over and axis.share(tick[0]) > axis.share(high) - _CLEAR)
    ]
    under = [(_between(axis.low, low, axis), f"< {_short(low)}")] if is_under else []
    over = [(_between(high, axis.high, axis), f"> {_short(high)}")] if is_over else []
    return CutAxis(axis=replace(axis, ticks=(*under, *inner, *over)), low=low, high=high)


def _between(one: float, other: float, axis: Axis) -> float:
    return math.sqrt(one * other) if axis.logarithmic else (one + other) / 2


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"  # noqa: PLR2004 - two digits


def round_ticks(low: float, high: float, *, num_ticks: int) -> tuple[tuple[float, str], ...]:
    """Give round values inside a range, each with its text.

    They are 1, 2 or 5 times a power of ten apart, and at most one more than asked for. When
    five or more are asked for, there are at least two.
    """
    wanted = (high - low) / num_ticks
    power = math.floor(math.log10(wanted))
    factor = next((each for each in (1, 2, 5) if each * 10.0**power >= wanted), 10)
    if factor == 10:  # noqa: PLR2004 - the next power's 1
        factor, power = 1, power + 1
    step = float(f"{factor}e{power}")
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # A product of whole numbers read as decimal is the nearest number; 3 * 0.1 is not 0.3.
    values = [float(f"{index * factor}e{power}") for index in range(first, last + 1)]
    return tuple((value, f"{value:,.{max(0, -power)}f}") for value in values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Where two axes lie in a picture, in its units; the picture's top is 0."""

    across: Axis
    upright: Axis
    left: float
    right: float
    top: float
    bottom: float
    height: float

    def x(self, value: float) -> float:
        """Place a value of the lower axis."""
        return self.left + self.across.share(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Place a value of the upright axis."""
        return self.bottom - self.upright.share(value) * (self.bottom - self.top)

    def at(self, across: float, upright: float) -> Point:
        """Place a pair of values."""
        return self.x(across), self.y(upright)


def lay_out(across: Axis, upright: Axis, *, height: float) -> Frame:
    """Place two axes in a picture of the common width so that their texts have room."""
    texts = [text_width(label) for _, label in upright.ticks]
    frame = Frame(
        across=across,
        upright=upright,
        left=max(texts, default=0.0) + _GAP + 2,
        right=WIDTH - _EDGE,
        top=_LINE + _GAP if upright.name else _EDGE,
        bottom=height - (2 * _LINE + _GAP if across.name else _LINE + _GAP),
        height=height,
    )
    # The last tick's text reaches over the axis's end.
    over = [frame.x(value) + text_width(label) / 2 - WIDTH for value, label in across.ticks]
    frame = replace(frame, right=frame.right - max([0.0, *over]))
    return replace(frame, across=replace(across, ticks=_fitting(frame)))


def _fitting(frame: Frame) -> tuple[tuple[float, str], ...]:
    """Leave out ticks evenly until their texts stand apart."""
    ticks = frame.across.ticks
    while len(ticks) > 1 and _crowded([(frame.x(v), text_width(t)) for v, t in ticks]):
        ticks = ticks[::2]
    return ticks


def _crowded(texts: Sequence[tuple[float, float]]) -> bool:
    return any(
        other - one < (width + other_width) / 2 + _GAP
        for (one, width), (other, other_width) in pairwise(texts)
    )


def draw_frame(frame: Frame, *, rows: bool = False) -> list[str]:
    """Write grid, ticks and names; the upright axis may count rows, which need no lines."""
    parts = []
    for value, label in frame.across.ticks:
        x = frame.x(value)
        parts.append(line((x, frame.top), (x, frame.bottom), color=GRID, width=0.8))
        parts.append(line((x, frame.bottom), (x, frame.bottom + _TICK), color=MUTED, width=0.8))
        at = (x, frame.bottom + _GAP + 0.5 * FONT_SIZE)
        parts.append(text(at, label, color=MUTED, anchor="middle"))
    for value, label in frame.upright.ticks:
        y = frame.y(value)
        if not rows:
            parts.append(line((frame.left, y), (frame.right, y), color=GRID, width=0.8))
        color = INK if rows and not frame.upright.name else MUTED
        parts.append(text((frame.left - _GAP, y), label, color=color, anchor="end"))
    ends = (frame.left, frame.bottom), (frame.right, frame.bottom)
    parts.append(line(*ends, color=MUTED, width=0.8))
    if frame.across.name:
        at = ((frame.left + frame.right) / 2, frame.height - 0.6 * FONT_SIZE)
        parts.append(text(at, frame.across.name, color=MUTED, anchor="middle"))
    if frame.upright.name:
        parts.append(text((2.0, 0.7 * FONT_SIZE), frame.upright.name, color=MUTED))
    return parts
