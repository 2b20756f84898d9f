"""Elements of an inline SVG picture that takes the page's colors and font.

Text stays text, colors are the page's CSS variables, and no element has an id, so one picture
serves light and dark pages and pictures never meet. The same values give the same bytes.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

from edgepack.report.labels import plain

WIDTH: Final = 440.0
"""Every picture's width in its own units; the page scales it to the room there is."""

FONT_SIZE: Final = 11.5

INK: Final = "var(--ink)"
MUTED: Final = "var(--muted)"
GRID: Final = "var(--grid)"
FAINT: Final = "var(--faint)"
ACCENT: Final = "var(--accent)"
WARN: Final = "var(--warn)"
_PAPER: Final = "var(--paper)"

Point = tuple[float, float]
"""Across and down, in the picture's units."""

Anchor = Literal["start", "middle", "end"]

# Ems that a character takes at most: DejaVu Sans and Verdana are the widest fonts in use.
_EMS: Final = {
    **dict.fromkeys("iIjlJ'", 0.3),
    **dict.fromkeys(" ,.:;|/\\-f", 0.37),
    **dict.fromkeys("()[]tr!", 0.42),
    **dict.fromkeys('"*_`csz?', 0.56),
    **dict.fromkeys("abdeghknopquvxy0123456789${}FLT", 0.65),
    **dict.fromkeys("ABCDEGHKNOPQRSUVXYZ&w", 0.82),
}
_WIDEST_EMS: Final = 1.0
_EMOJI_EMS: Final = 1.4
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One figure: its inline SVG, its caption and what it shows in words."""

    svg: str
    caption: str
    description: str


def picture(parts: Iterable[str], *, height: float, width: float = WIDTH) -> str:
    """Write an SVG element, as wide as the page lets it be."""
    # The page names the figure; a screen reader need not walk through its parts.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'aria-hidden="true" focusable="false" style="font-size:{_n(FONT_SIZE)}px">'
        f"{''.join(parts)}</svg>"
    )


def text_width(text: str) -> float:
    """Estimate the width of a text at the pictures' font size, rather too much than too little."""
    return FONT_SIZE * sum(map(_ems, text))


def _ems(char: str) -> float:
    if char in _EMS:
        return _EMS[char]
    category = unicodedata.category(char)
    if category.startswith("M"):  # drawn over the letter before it
        return 0.0
    return _EMOJI_EMS if category == "So" else _WIDEST_EMS


def plot_label(text: str, *, longest: int, otherwise: str) -> str:
    """Give a name as a plot can draw it: plain, short, and running from left to right.

    A browser would turn a right-to-left run around, away from the place laid out for it.
    """
    label = plain(text, longest=longest)
    turned = any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in label)
    return otherwise if turned or not label else label


def line(start: Point, end: Point, *, color: str, width: float, opacity: float = 1.0) -> str:
    """Write a straight line."""
    return polyline((start, end), color=color, width=width, opacity=opacity)


def dashed_line(start: Point, end: Point, *, color: str, width: float) -> str:
    """Write a straight line of dashes."""
    dashes = f"stroke-dasharray:{_n(4 * width)} {_n(3 * width)}"
    return (
        f'<path d="{_path((start, end))}" '
        f'style="fill:none;stroke:{color};stroke-width:{_n(width)};{dashes}"/>'
    )


def polyline(points: Sequence[Point], *, color: str, width: float, opacity: float = 1.0) -> str:
    """Write a line through points."""
    faded = f";opacity:{_n(opacity)}" if opacity < 1 else ""
    return (
        f'<path d="{_path(points)}" style="fill:none;stroke:{color};'
        f'stroke-width:{_n(width)};stroke-linejoin:round{faded}"/>'
    )


def rectangle(corner: Point, other: Point, *, color: str, opacity: float = 1.0) -> str:
    """Write a filled rectangle between two corners."""
    left, right = sorted((corner[0], other[0]))
    top, bottom = sorted((corner[1], other[1]))
    return (
        f'<rect x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" '
        f'height="{_n(bottom - top)}" style="fill:{color};opacity:{_n(opacity)}"/>'
    )


def dot(center: Point, *, radius: float, color: str) -> str:
    """Write a filled circle."""
    return f'<circle {_circle(center, radius)} style="fill:{color}"/>'


def ring(center: Point, *, radius: float, color: str) -> str:
    """Write an empty circle."""
    return f'<circle {_circle(center, radius)} style="fill:none;stroke:{color};stroke-width:1.5"/>'


def diamond(center: Point, *, radius: float, color: str) -> str:
    """Write a filled square that stands on its corner."""
    x, y = center
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    return f'<path d="{_path(corners)}Z" style="fill:{color}"/>'


def titled(parts: Iterable[str], title: str) -> str:
    """Write a group with a title, which a browser shows where the pointer rests on it."""
    # Hollow marks answer to the pointer too.
    return f'<g style="pointer-events:all"><title>{escape(title)}</title>{"".join(parts)}</g>'


def text(
    at: Point,
    content: str,
    *,
    color: str = INK,
    anchor: Anchor = "start",
    has_halo: bool = True,
) -> str:
    """Write a text whose middle height is at a point; its halo keeps lines below it off."""
    halo = f"stroke:{_PAPER};stroke-width:3px;stroke-linejoin:round;paint-order:stroke"
    placed = "" if anchor == "start" else f";text-anchor:{anchor}"
    # The baseline lies about a third of the font's size below the middle of its digits.
    return (
        f'<text x="{_n(at[0])}" y="{_n(at[1] + 0.35 * FONT_SIZE)}" style="fill:{color}'
        f'{f";{halo}" if has_halo else ""}{placed}">{escape(content)}</text>'
    )


def _circle(center: Point, radius: float) -> str:
    return f'cx="{_n(center[0])}" cy="{_n(center[1])}" r="{_n(radius)}"'


def _path(points: Sequence[Point]) -> str:
    shown: list[str] = []
    for x, y in points:
        place = f"{_n(x)} {_n(y)}"
        if not shown or shown[-1] != place:
            shown.append(place)
    return "M" + "L".join(shown)


def _n(number: float) -> str:
    """Write a number to a hundredth, without zeros that say nothing and without `-0`."""
    return f"{round(float(number), 2) + 0.0:.2f}".rstrip("0").rstrip(".")
