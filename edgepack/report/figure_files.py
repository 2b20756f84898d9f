"""The figures of a report as files of their own: SVG as it is drawn, or PNG made of it."""

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from html import escape
from typing import Final

from edgepack.errors import UsageError
from edgepack.report.figures import plot_comparison, plot_distribution, plot_launches
from edgepack.report.matrix import make_matrix, plot_matrix
from edgepack.report.ops import plot_ops
from edgepack.report.style import STYLE_SHEET
from edgepack.report.summary import BenchmarkSummary, DeployReport
from edgepack.report.svg import Plot
from edgepack.report.timeline import plot_timelines

_PIXELS: Final = 3
"""Pixels of a PNG for each unit of the drawing: 1320 across, for print at 300 dpi in 11 cm."""

_FONTS: Final = "Helvetica Neue, Arial, Liberation Sans, Noto Sans, DejaVu Sans, sans-serif"
_HEAD: Final = re.compile(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*style="([^"]*)">')
_VARIABLE: Final = re.compile(r"var\(--([a-z-]+)\)")
_COLOR: Final = re.compile(r"--([a-z-]+): (#[0-9a-f]{6});")
_LONGEST_NAME: Final = 40
_LETTER: Final = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'


class FigureFormat(StrEnum):
    """What a figure's file is."""

    SVG = "svg"
    PNG = "png"


def list_figures(report: DeployReport) -> tuple[tuple[str, Plot], ...]:
    """Give all figures of measurements, each with a name for its file, without an ending."""
    return tuple((name, plot) for name, plot in _plots(report) if plot is not None)


def _plots(report: DeployReport) -> Iterator[tuple[str, Plot | None]]:
    matrix = make_matrix(report.benchmarks)
    yield "matrix", None if matrix is None else plot_matrix(matrix)
    yield "comparison", plot_comparison(report.benchmarks)
    yield "comparison-without-xnnpack", plot_comparison(report.benchmarks, without_xnnpack=True)
    for number, each in enumerate(report.benchmarks, start=1):
        if each.error is None:
            for name, plot in _plots_of(each):
                yield f"{number}-{_file_name(each.model)}-{name}", plot


def _plots_of(benchmark: BenchmarkSummary) -> Iterator[tuple[str, Plot | None]]:
    yield "distribution", plot_distribution(benchmark)
    yield "launches", plot_launches(benchmark)
    for number, plot in enumerate(plot_timelines(benchmark.timeline), start=1):
        yield f"timeline-{number}", plot
    if benchmark.ops:
        yield "ops", plot_ops(benchmark.ops)


def _file_name(text: str) -> str:
    """Give the part of a file's name that a text from outside may be."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text)[:_LONGEST_NAME].strip("-") or "model"


def write_figure(plot: Plot, kind: FigureFormat) -> bytes:
    """Write a figure as a file that needs no page around it, in the page's light colors.

    Raises:
        UsageError: PNG is asked for, and resvg or any font is missing.
    """
    svg = _stand_alone(plot)
    return svg.encode() if kind is FigureFormat.SVG else _to_png(svg)


def _stand_alone(plot: Plot) -> str:
    colors = dict(_COLOR.findall(STYLE_SHEET.partition("}")[0]))
    head = _HEAD.match(plot.svg)
    if head is None:
        raise AssertionError(plot.svg[:200])  # another module of this package drew it
    width, height, style = head.groups()
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" font-family="{_FONTS}" style="{style}">'
        f"<title>{escape(plot.caption)}</title><desc>{escape(plot.description)}</desc>"
        f'<rect width="{width}" height="{height}" style="fill:{colors["paper"]}"/>'
    )
    drawn = _VARIABLE.sub(lambda match: colors[match[1]], plot.svg[head.end() :])
    return f"{start}{drawn}\n"


def _to_png(svg: str) -> bytes:
    try:
        import resvg_py  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "PNG needs resvg, which is not installed",
            remedy="Run `pip install 'edgepack[png]'`, or take --format svg.",
        ) from error
    if not _has_font():
        raise UsageError(
            "PNG needs a font to write with, and this machine has none that is known",
            remedy="Install one, such as fonts-dejavu-core or Liberation Sans, or take "
            "--format svg.",
        )
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_PIXELS))


@cache
def _has_font() -> bool:
    """Tell whether a letter is drawn: resvg leaves it out without a word otherwise (0.5.0)."""
    import resvg_py  # noqa: PLC0415 - an extra

    letter = f'<text x="2" y="15" font-family="{_FONTS}">x</text>'
    drawn, blank = (resvg_py.svg_to_bytes(svg_string=_LETTER.format(each)) for each in (letter, ""))
    return bool(drawn != blank)
