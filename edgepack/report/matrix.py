"""Variants on devices: the latency of each pair with its interval and its verdict."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from typing import Final

from edgepack.report.headline import device_title, model_title
from edgepack.report.labels import device_name, plain
from edgepack.report.markup import plots, row_head, section, table
from edgepack.report.summary import BenchmarkSummary
from edgepack.report.svg import (
    ACCENT,
    MUTED,
    WARN,
    WIDTH,
    Plot,
    diamond,
    picture,
    plot_label,
    rectangle,
    text,
    text_width,
    titled,
)
from edgepack.report.trust import trust_of
from edgepack.report.units import ABSENT, count, latency, latency_ends, latency_interval

_MOST_COLUMNS: Final = 5
_MOST_ROWS: Final = 20
_HEADING: Final = 26.0
_LINE: Final = 14.0
_PART: Final = " · "  # between the parts of a variant's title
_PITCH: Final = 42.0
_GAP: Final = 6.0
_EDGE: Final = 1.5
_LONGEST_LABEL: Final = 16
_NOT_MEASURED: Final = "not measured"
# Text on the strongest shade stays readable, on light and on dark paper.
_FAINTEST, _STRONGEST = 0.08, 0.42


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """What was measured, device by device and variant by variant.

    Attributes:
        devices: titles of the rows.
        variants: titles of the columns.
        cells: for each device and each variant what was measured, in the order given.
    """

    devices: tuple[str, ...]
    variants: tuple[str, ...]
    cells: tuple[tuple[tuple[BenchmarkSummary, ...], ...], ...]

    def last(self, row: int, column: int) -> BenchmarkSummary | None:
        """Give the last measurement of a pair; None where there is none."""
        found = self.cells[row][column]
        return found[-1] if found else None


def make_matrix(benchmarks: Sequence[BenchmarkSummary]) -> Matrix | None:
    """Put measurements in order; None unless there are several devices and several variants."""
    places = [*zip(_row_titles(benchmarks), map(_variant, benchmarks), strict=True)]
    devices = tuple(dict.fromkeys(device for device, _ in places))
    variants = tuple(dict.fromkeys(variant for _, variant in places))
    if min(len(devices), len(variants)) < 2:  # noqa: PLR2004 - a list says as much
        return None
    return Matrix(
        devices=devices,
        variants=variants,
        cells=tuple(
            tuple(
                tuple(
                    each
                    for each, place in zip(benchmarks, places, strict=True)
                    if place == (device, variant)
                )
                for variant in variants
            )
            for device in devices
        ),
    )


def _row_titles(benchmarks: Sequence[BenchmarkSummary]) -> list[str]:
    """Name each one's device; one that was not reached tells no board, but may have done before."""
    known = {each.device: each for each in reversed(benchmarks) if each.board}
    return [
        device_title(each if each.board else known.get(each.device, each)) for each in benchmarks
    ]


def _variant(benchmark: BenchmarkSummary) -> str:
    """Name a variant; a runtime without XNNPACK makes another one of it."""
    title = model_title(benchmark)
    return f"{title}, without XNNPACK" if benchmark.lacks_xnnpack else title


def cell_texts(matrix: Matrix, row: int, column: int) -> tuple[str, str, str, str]:
    """Give a cell's median, its interval, its verdict and a remark; empty where there is none."""
    last = matrix.last(row, column)
    if last is None:
        return ABSENT, "", "", ""
    number = len(matrix.cells[row][column])
    remark = f"the last of {number}" if number > 1 else ""
    figures = last.latency
    if figures is None:
        return "", "", _NOT_MEASURED, remark
    median, ends = figures.median_ns, figures.median_ci95_ns
    interval = latency_interval(ends, value_ns=median) if ends is not None else "no interval"
    return latency(median, interval_ns=ends), interval, trust_of(last).text, remark


def matrix_section(benchmarks: Sequence[BenchmarkSummary]) -> str:
    """Write the matrix as a figure, where it fits, and a table; nothing without one."""
    matrix = make_matrix(benchmarks)
    if matrix is None:
        return ""
    rows = (
        f"<tr>{row_head(device)}"
        + "".join(_cell(*cell_texts(matrix, row, each)) for each in range(len(matrix.variants)))
        + "</tr>"
        for row, device in enumerate(matrix.devices)
    )
    common, headings = column_headings(matrix)
    names = [plain(_PART.join(each), longest=80) for each in headings]
    caption = "Median latency with its 95% interval, and whether the measurement can be believed"
    caption = f"{plain(common)}: {caption.lower()}" if common else caption
    return section(
        "Variants on devices",
        plots(plot_matrix(matrix)),
        table(
            caption,
            [("Device", False), *((name, True) for name in names)],
            rows,
            is_stacked=False,
        ),
    )


def _cell(median: str, interval: str, verdict: str, remark: str) -> str:
    level = {"valid": "good", _NOT_MEASURED: "fault"}.get(verdict, "warning")
    badge = f'<div class="badge {level}">{escape(verdict)}</div>' if verdict else ""
    below = "".join(
        f'<span class="interval">{escape(each)}</span>' for each in (interval, remark) if each
    )
    return f'<td class="number">{escape(median)}{below}{badge}</td>'


def plot_matrix(matrix: Matrix) -> Plot | None:
    """Draw the matrix, the slower the stronger; None where it is too large for a figure."""
    if len(matrix.variants) > _MOST_COLUMNS or len(matrix.devices) > _MOST_ROWS:
        return None
    names = [
        plot_label(_row_name(cells), longest=_LONGEST_LABEL, otherwise="?")
        for cells in matrix.cells
    ]
    left = max(map(text_width, names)) + _GAP
    width = (WIDTH - left) / len(matrix.variants)
    medians = [last.latency.median_ns for last in _all(matrix) if last.latency is not None]
    low, high = min(medians, default=1.0), max(medians, default=1.0)
    fitting = max(4, int(width / text_width("0")))
    _, headings = column_headings(matrix)
    num_lines = max(map(len, headings))
    parts = [
        text(
            (left + (column + 0.5) * width, _HEADING / 2 + line * _LINE),
            plot_label(word, longest=fitting, otherwise="?"),
            color=MUTED,
            anchor="middle",
        )
        for column, words in enumerate(headings)
        for line, word in enumerate(words, start=num_lines - len(words))
    ]
    heading = _HEADING + (num_lines - 1) * _LINE
    for row, name in enumerate(names):
        top = heading + row * _PITCH
        parts.append(text((left - _GAP, top + _PITCH / 2), name, anchor="end"))
        for column in range(len(matrix.variants)):
            corner = (left + column * width, top)
            parts += _draw_cell(matrix, row, column, corner=corner, width=width, ends=(low, high))
    is_doubtful = any(last.verdict != "valid" for last in _all(matrix) if last.latency)
    caption = "Median latency with its 95% interval: the slower, the stronger the shade."
    caption += " A diamond marks a doubtful measurement." if is_doubtful else ""
    return Plot(
        svg=picture(parts, height=heading + len(names) * _PITCH),
        caption=caption,
        description=_describe(matrix),
    )


def _draw_cell(
    matrix: Matrix,
    row: int,
    column: int,
    *,
    corner: tuple[float, float],
    width: float,
    ends: tuple[float, float],
) -> list[str]:
    last = matrix.last(row, column)
    x, y = corner
    middle = x + width / 2
    if last is None or last.latency is None:
        missing = ABSENT if last is None else _NOT_MEASURED
        return [text((middle, y + _PITCH / 2), missing, color=MUTED, anchor="middle")]
    figures = last.latency
    median, interval, verdict, _ = cell_texts(matrix, row, column)
    inner = (x + _EDGE, y + _EDGE), (x + width - _EDGE, y + _PITCH - _EDGE)
    drawn = [rectangle(*inner, color=ACCENT, opacity=_shade(figures.median_ns, *ends))]
    short = (
        latency_ends(figures.median_ci95_ns, value_ns=figures.median_ns)
        if figures.median_ci95_ns is not None
        else ""
    )
    is_room = bool(short) and text_width(short) < width - 2 * _GAP
    lines = ((0.33, median), (0.7, short)) if is_room else ((0.5, median),)
    drawn += [
        text((middle, y + _PITCH * down), each, anchor="middle", has_halo=False)
        for down, each in lines
    ]
    if last.verdict != "valid":
        drawn.append(diamond((x + width - 9, y + 9), radius=4, color=WARN))
    return [titled(drawn, f"{median} ({interval}), {verdict}")]


def _shade(value: float, low: float, high: float) -> float:
    if low <= 0 or high <= low:
        return _FAINTEST
    return _FAINTEST + (_STRONGEST - _FAINTEST) * math.log(value / low) / math.log(high / low)


def column_headings(matrix: Matrix) -> tuple[str, list[list[str]]]:
    """Give what all variants' titles begin with, and the parts of each that come after it."""
    parts = [each.split(_PART) for each in matrix.variants]
    shared = takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    num_common = min(len([*shared]), min(map(len, parts)) - 1)
    return _PART.join(parts[0][:num_common]), [each[num_common:] for each in parts]


def _row_name(cells: Sequence[Sequence[BenchmarkSummary]]) -> str:
    return next(device_name(each.device) for found in cells for each in found)


def _all(matrix: Matrix) -> Iterator[BenchmarkSummary]:
    return (each[-1] for cells in matrix.cells for each in cells if each)


def _tell(matrix: Matrix, row: int, column: int) -> str:
    median, _, verdict, _ = cell_texts(matrix, row, column)
    if not median:
        return verdict
    return median if verdict == "valid" else f"{median} ({verdict})"


def _describe(matrix: Matrix) -> str:
    shown = f"{count(len(matrix.variants), 'variant')} on {count(len(matrix.devices), 'device')}"
    lines = []
    for row, device in enumerate(matrix.devices):
        told = (
            f"{variant} {_tell(matrix, row, column)}"
            for column, variant in enumerate(matrix.variants)
            if matrix.last(row, column) is not None
        )
        lines.append(f"on {device}: {', '.join(told)}")
    return f"Median latency of {shown}; {'; '.join(lines)}."
