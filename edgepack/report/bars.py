"""Bars beside names: as an SVG picture, and as characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgepack.report.svg import (
    ACCENT,
    FAINT,
    GRID,
    MUTED,
    WIDTH,
    Plot,
    line,
    picture,
    plot_label,
    rectangle,
    text,
    text_width,
    titled,
)

_PITCH: Final = 19.0
_THICKNESS: Final = 11.0
_TOP: Final = 4.0
_GAP: Final = 6.0
_LONGEST_LABEL: Final = 28
# What a bar is at least, so that the least of them is still seen.
_LEAST: Final = 1.5
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_BLOCK: Final = "█"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: what it is of, from outside.
        length: from 0 to 1.
        strong: the part of it that is drawn strongly, from its beginning; at most `length`.
        value: what stands at its end.
        title: what a browser shows where the pointer rests on it.
    """

    name: str
    length: float
    strong: float
    value: str
    title: str


def plot_bars(bars: Sequence[Bar], *, caption: str, description: str) -> Plot | None:
    """Draw bars one below the other, each with its name and its value; None without any."""
    if not bars:
        return None
    names = [plot_label(each.name, longest=_LONGEST_LABEL, otherwise="?") for each in bars]
    left = max(map(text_width, names)) + _GAP
    right = WIDTH - max(text_width(each.value) for each in bars) - _GAP
    height = _TOP + _PITCH * len(bars)
    parts = [line((left, 0), (left, height), color=GRID, width=1)]
    for place, (name, bar) in enumerate(zip(names, bars, strict=True)):
        middle = _TOP + _PITCH * (place + 0.5)
        end, strong_end = (
            left + max(_LEAST, share * (right - left)) for share in (bar.length, bar.strong)
        )
        upper, lower = middle - _THICKNESS / 2, middle + _THICKNESS / 2
        drawn = [
            text((left - _GAP, middle), name, anchor="end"),
            rectangle((left, upper), (end, lower), color=FAINT),
            *([rectangle((left, upper), (strong_end, lower), color=ACCENT)] if bar.strong else ()),
            text((end + _GAP, middle), bar.value, color=MUTED),
        ]
        parts.append(titled(drawn, bar.title))
    return Plot(svg=picture(parts, height=height), caption=caption, description=description)


def character_bar(length: float, *, width: int) -> str:
    """Write a bar of block characters, to an eighth of one; nothing only for a length of 0.

    Args:
        length: from 0 to 1.
        width: characters that the longest bar takes.
    """
    eighths = round(min(1.0, max(0.0, length)) * width * 8)
    if length > 0:
        eighths = max(1, eighths)
    return (_BLOCK * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
