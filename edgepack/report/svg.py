"""Drawing with matplotlib into inline SVG that takes the page's colors and font.

Drawn through Figure objects, never pyplot, so nothing global is left behind. Text stays text,
and colors become CSS variables, so one picture serves light and dark pages. The same values
give the same bytes.
"""

import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from edgepack.report.labels import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

# Colors that stand for the page's; no picture shows them as they are.
INK: Final = "#010101"
MUTED: Final = "#020202"
GRID: Final = "#030303"
FAINT: Final = "#040404"
ACCENT: Final = "#050505"
WARN: Final = "#060606"
_VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    FAINT: "var(--faint)",
    ACCENT: "var(--accent)",
    WARN: "var(--warn)",
}
_WIDTH_INCHES: Final = 6.6
_FONT: Final = "DejaVu Sans"
_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"
# Typed loosely: the keys are a Literal of some 300 names, in new versions of matplotlib only.
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "font.family": _FONT,
    "font.size": 11.5,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "text.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One figure: its inline SVG, its caption and what it shows in words."""

    svg: str
    caption: str
    description: str


@contextmanager
def plot_style(key: str) -> "Iterator[None]":
    """Set the look of all plots for a `with` block, whatever the user's matplotlibrc says.

    The key keeps the ids of one plot apart from another's in the same page.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": key})
        yield


def new_axes(*, height_inches: float) -> tuple[Figure, "Axes"]:
    """Make a figure of the report's width with one set of axes; use inside `plot_style`."""
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def plot_label(text: str, *, longest: int, otherwise: str) -> str:
    """Give a name as a plot can draw it: plain, short, and of letters its font has.

    matplotlib warns about letters it has no shape for, and lays them out by boxes.
    """
    label = plain(text, longest=longest)
    font = get_font(findfont(FontProperties(family=[_FONT])))
    # Right-to-left runs would be reordered by the browser and not by the layout.
    known = all(font.get_char_index(ord(char)) and ord(char) < 0x590 for char in label)  # noqa: PLR2004
    return label if label and known else otherwise


def draw(figure: Figure, *, key: str) -> str:
    """Draw a figure as an SVG element for a page; use inside `plot_style`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), key=key)


def _inline(document: str, *, key: str) -> str:
    """Make an element of a document: no size, no metadata, own ids, the page's colors."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(document)  # noqa: S314 - matplotlib wrote it a moment ago
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    # The page names the figure; a screen reader need not walk through its parts.
    root.set("aria-hidden", "true")
    root.set("focusable", "false")
    for element in root.iter():
        _adopt(element, key)
    return ET.tostring(root, encoding="unicode")


def _adopt(element: ET.Element, key: str) -> None:
    for name, value in element.attrib.items():
        if name == "id":
            element.set(name, f"{key}-{value}")
        elif name == f"{{{_XLINK}}}href":
            element.set(name, f"#{key}-{value.removeprefix('#')}")
        elif name == "clip-path":
            element.set(name, re.sub(r"url\(#", f"url(#{key}-", value))
        elif name == "style":
            element.set(name, _restyle(value))


def _restyle(style: str) -> str:
    for color, variable in _VARIABLES.items():
        style = style.replace(color, variable)
    return style.replace(f"'{_FONT}'", "inherit")
