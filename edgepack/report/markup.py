"""Pieces of the page: tables, cells and figures, with every text from outside escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from edgepack.report.headline import Level, Notice
from edgepack.report.labels import plain
from edgepack.report.summary import Fact
from edgepack.report.svg import Plot
from edgepack.report.units import ABSENT, latency, latency_interval, share, share_interval

_DIGEST_LENGTH: Final = 40
# Tables of so many columns fit no phone; their rows are stacked there, each cell with its name.
_WIDE: Final = 4
_LEVEL_NAMES: Final = {Level.NOTE: "Note.", Level.WARNING: "Careful.", Level.FAULT: "Fault."}


def text_of(text: str, *, longest: int = 800) -> str:
    """Give a text from outside, plain and escaped."""
    return escape(plain(text, longest=longest), quote=True)


def notice_item(notice: Notice) -> str:
    """Write a notice as an item of a list, marked by its level."""
    details = "".join(f"<li>{escape(detail)}</li>" for detail in notice.details)
    return (
        f'<li class="{notice.level.value}"><strong>{_LEVEL_NAMES[notice.level]}</strong> '
        f"{escape(notice.text)}" + (f"<ul>{details}</ul>" if details else "") + "</li>"
    )


def section(title: str, *parts: str) -> str:
    """Write a section under a heading of the second level."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def table(
    caption: str,
    columns: Sequence[tuple[str, bool]],
    rows: Iterable[str],
    *,
    is_stacked: bool = True,
) -> str:
    """Write a table in a frame that scrolls by itself.

    Columns are (name, is a number). A phone has the rows of a wide one stacked, for which the names
    must be ours, without quotes.
    """
    heads = "".join(
        f'<th scope="col"{_number(is_number)}>{escape(name)}</th>' for name, is_number in columns
    )
    stacking = _stacking(columns) if is_stacked else ""
    head = f"<thead><tr>{heads}</tr></thead>" if any(name for name, _ in columns) else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table{stacking}><caption><span>{escape(caption)}</span></caption>"
        f"{head}<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _stacking(columns: Sequence[tuple[str, bool]]) -> str:
    if len(columns) < _WIDE:
        return ""
    names = ";".join(f"--c{index}:'{name}'" for index, (name, _) in enumerate(columns, start=1))
    return f' class="wide" style="{escape(names)}"'


def _number(is_number: bool) -> str:  # noqa: FBT001 - an attribute, or none
    return ' class="number"' if is_number else ""


def cell(text: str, *below: str, number: bool = True) -> str:
    """Write a cell with an unescaped text, and intervals or remarks below it, if not empty."""
    more = "".join(f'<span class="interval">{escape(each)}</span>' for each in below if each)
    return f'<td class="{"number" if number else "text"}">{escape(text)}{more}</td>'


def row_head(text: str, *, longest: int = 120, below: str = "") -> str:
    """Write the cell that names a row, and more of it below; both come from outside."""
    more = f'<span class="interval">{text_of(below)}</span>' if below else ""
    return f'<th scope="row">{text_of(text, longest=longest)}{more}</th>'


def row_number(number: str) -> str:
    """Write the cell that numbers a row."""
    return f'<th scope="row" class="ordinal">{escape(number)}</th>'


def plots(*plots: Plot | None) -> str:
    """Write the figures that there are, side by side where there is room."""
    shown = [each for each in plots if each is not None]
    if not shown:
        return ""
    return (
        '<div class="plots">'
        + "".join(
            f'<figure><div role="img" aria-label="{escape(each.description)}">{each.svg}</div>'
            f"<figcaption>{escape(each.caption)}</figcaption></figure>"
            for each in shown
        )
        + "</div>"
    )


def legend(marks: Sequence[tuple[str, str]], ending: str) -> str:
    """Write what the marks of figures mean: each an SVG element and its words."""
    items = "".join(f"<li>{svg} {escape(words)}</li>" for svg, words in marks)
    return f'<ul class="legend">{items}<li>{escape(ending)}</li></ul>'


def noted_row(cells: Sequence[str], notes: Sequence[str], *, kind: str = "") -> str:
    """Write a row and, below it over its whole width, notes from outside."""
    kinds = " ".join(each for each in (kind, "noted" if notes else "") if each)
    row = f'<tr class="{kinds}">{"".join(cells)}</tr>'
    if not notes:
        return row
    lines = "".join(f'<span class="why">{text_of(note)}</span>' for note in notes)
    return f'{row}<tr class="notes"><td colspan="{len(cells)}"><div>{lines}</div></td></tr>'


def share_cell(value: float | None, interval: tuple[float, float] | None) -> str:
    """Write a share of 1 with its interval."""
    if value is None:
        return cell(ABSENT)
    return cell(share(value), share_interval(interval) if interval else "")


def latency_cell(value_ns: float | None, interval_ns: tuple[float, float] | None) -> str:
    """Write a duration with its interval."""
    if value_ns is None:
        return cell(ABSENT)
    interval = latency_interval(interval_ns, value_ns=value_ns) if interval_ns else ""
    return cell(latency(value_ns, interval_ns=interval_ns), interval)


def facts_table(caption: str, facts: Sequence[Fact]) -> str:
    """Write named facts; nothing when there are none."""
    if not facts:
        return ""
    rows = (f"<tr>{row_head(each.name)}{_fact_value(each.value)}</tr>" for each in facts)
    return table(caption, (("", False), ("", False)), rows)


def _fact_value(value: str) -> str:
    shown = text_of(value)
    is_digest = len(value) >= _DIGEST_LENGTH and " " not in value
    return f'<td class="text">{f"<code>{shown}</code>" if is_digest else shown}</td>'
