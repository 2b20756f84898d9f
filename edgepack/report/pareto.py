"""Every candidate of a pack: what it keeps of the float model against what it costs.

Four panels at most, with the same marks in each: latency and size across, SQNR and answers
(agreement with float, or accuracy) upward. Shapes tell as much as colors do, for print and for
eyes that see red and green alike: the chosen one has a ring around it, those on the Pareto front
are large, dominated ones small, and those outside the floors hollow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgepack.report.axes import CutAxis, Frame, cut_axis, draw_frame, lay_out
from edgepack.report.candidates import Place, RankedRow, rank_candidates
from edgepack.report.labels import device_name, plain
from edgepack.report.merits import (
    Answers,
    Cost,
    Worth,
    cost_of,
    judge_answers,
    worth_ends,
    worth_of,
)
from edgepack.report.placement import Box, Label, draw_fitting, line_boxes
from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.svg import (
    ACCENT,
    FAINT,
    FONT_SIZE,
    INK,
    MUTED,
    WARN,
    Plot,
    Point,
    dashed_line,
    dot,
    picture,
    plot_label,
    polyline,
    ring,
    text,
    text_width,
    titled,
)
from edgepack.report.units import decibels, duration_scale, file_size, latency, share, unit_factor

_LONGEST_LABEL: Final = 24
_HEIGHT: Final = 300.0
# So many candidates all have room for their names.
_FEW: Final = 8
# From here on a linear axis would press the quick or small candidates together.
_MANY_TIMES: Final = 5.0
# What costs more than so many times the costliest inside the floors lies beyond the axis.
_MANY_TIMES_MORE: Final = 2.0
# How far an upright axis reaches below and above the floor before it is cut.
_REACH_DB: Final = (15.0, 30.0)
_REACH_PERCENT: Final = (25.0, 100.0)
# In dB or percentage points.
_LEAST_REACH: Final = 4.0
_MIDDLE_DB: Final = 25.0
_MIDDLE_PERCENT: Final = 90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mark:
    """A candidate at its place in the picture, with the ends of its intervals there."""

    ranked: RankedRow
    at: Point
    bars: tuple[tuple[Point, Point], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """What one panel shows and where its axes lie; `factor` is ns or bytes in a unit across."""

    pack: PackSummary
    cost: Cost
    worth: Worth
    across: CutAxis
    upright: CutAxis
    factor: float
    frame: Frame


def plot_pareto(pack: PackSummary, *, cost: Cost, worth: Worth) -> Plot | None:
    """Plot a pack's candidates; None with fewer than two that have both figures."""
    shown = [
        each
        for each in rank_candidates(pack)
        if cost_of(each.row, cost) is not None and worth_of(each.row, worth, pack) is not None
    ]
    if len(shown) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    answers = judge_answers(pack)
    floor = pack.min_sqnr_db if worth is Worth.SQNR else answers.floor
    across, factor = _across([each.row for each in shown], cost)
    values = [worth_of(each.row, worth, pack) or 0.0 for each in shown]
    upright = _upright(values, floor, answers=None if worth is Worth.SQNR else answers)
    frame = lay_out(across.axis, upright.axis, height=_HEIGHT)
    panel = _Panel(
        pack=pack,
        cost=cost,
        worth=worth,
        across=across,
        upright=upright,
        factor=factor,
        frame=frame,
    )
    marks = [_mark(each, panel) for each in shown]
    parts = draw_frame(frame)
    for cut in upright.cuts:
        ends = (frame.left, frame.y(cut)), (frame.right, frame.y(cut))
        parts.append(dashed_line(*ends, color=FAINT, width=0.8))
    for cut in across.cuts:
        ends = (frame.x(cut), frame.top), (frame.x(cut), frame.bottom)
        parts.append(dashed_line(*ends, color=FAINT, width=0.8))
    parts.append(_staircase(marks))
    obstacles: list[Box] = []
    if floor is not None:
        unit = " dB" if worth is Worth.SQNR else "%" if answers.is_percent else ""
        drawn, covered = _draw_floor(frame, floor, f"floor {floor:.4g}{unit}")
        parts += drawn
        obstacles += covered
    # What is drawn last lies on top.
    for mark in reversed(marks):
        parts.append(_draw_mark(mark))
        obstacles += [box for bar in mark.bars for box in line_boxes(bar, half_width=2.0)]
    bounds = (frame.left, frame.top, frame.right, frame.bottom)
    labels = [_label(mark, is_few=len(marks) <= _FEW) for mark in marks]
    parts += draw_fitting(labels, bounds=bounds, obstacles=obstacles)
    return Plot(
        svg=picture(parts, height=frame.height),
        caption=_caption(pack, cost=cost, worth=worth, is_cut=bool(across.cuts or upright.cuts)),
        description=_describe(shown, pack, cost=cost, worth=worth),
    )


def draw_legend(place: Place) -> str:
    """Write the mark of a place as a picture of its own, to stand in a line of text."""
    at = (12.0, 10.0)
    return picture(_shape(at, place=place, is_outside=place is Place.OUTSIDE), height=20, width=24)


def _across(rows: Sequence[VariantRow], cost: Cost) -> tuple[CutAxis, float]:
    """Make the axis of what it costs; give how many ns or bytes its unit has too.

    It is cut where candidates cost many times more than any inside the floors.
    """
    values = [cost_of(row, cost) or 0.0 for row in rows]
    kept = [cost_of(row, cost) or 0.0 for row in rows if row.within_budget] or values
    reach = _MANY_TIMES_MORE * max(kept)
    near = [value for value in values if value <= reach]
    if cost is Cost.LATENCY:
        unit, _ = duration_scale(max(near))
        factor, name = unit_factor(unit), "median latency"
    else:
        unit = file_size(int(max(near))).split()[1]
        factor, name = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}[unit], "model size"
    axis = cut_axis(
        [value / factor for value in near],
        name=f"{name}, {unit}",
        is_over=len(near) < len(values),
        logarithmic=0 < _MANY_TIMES * min(near) < max(near),
        least=0.0,
    )
    return axis, factor


def _upright(values: Sequence[float], floor: float | None, *, answers: Answers | None) -> CutAxis:
    """Make the axis of SQNR or, if given, of answers; cut where values lie far from the floor."""
    near = list(values)
    if answers is None or answers.is_percent:
        below, above = _REACH_DB if answers is None else _REACH_PERCENT
        middle = _MIDDLE_DB if answers is None else _MIDDLE_PERCENT
        middle = middle if floor is None else floor
        near = [each for each in values if middle - below <= each <= middle + above]
    if floor is not None:
        # A hair's breadth about the floor is no axis to see others by.
        least = 0.0 if answers is not None and not answers.is_percent else _LEAST_REACH
        near += [floor - least, floor, floor + least]
    near = near or list(values)
    if answers is not None and answers.is_percent:
        near.append(max(near) - _LEAST_REACH)
        near = [min(each, 100.0) for each in near]
    return cut_axis(
        near,
        name="SQNR to float, dB" if answers is None else answers.name,
        is_over=max(values) > max(near),
        is_under=min(values) < min(near),
        most=100.0 if answers is not None and answers.is_percent else None,
    )


def _mark(ranked: RankedRow, panel: _Panel) -> _Mark:
    row, pack, frame = ranked.row, panel.pack, panel.frame
    across = panel.across.place((cost_of(row, panel.cost) or 0.0) / panel.factor)
    upright = panel.upright.place(worth_of(row, panel.worth, pack) or 0.0)
    bars: list[tuple[Point, Point]] = []
    # Forty intervals would hide the candidates they belong to.
    if ranked.place is Place.CHOSEN or ranked.is_front:
        if (
            panel.cost is Cost.LATENCY
            and row.median_ci95_ns is not None
            and panel.across.holds(across)
        ):
            low, high = (panel.across.clip(end / panel.factor) for end in row.median_ci95_ns)
            bars.append((frame.at(low, upright), frame.at(high, upright)))
        interval = worth_ends(row, panel.worth, pack)
        if interval is not None and panel.upright.holds(upright):
            low, high = (panel.upright.clip(end) for end in interval)
            bars.append((frame.at(across, low), frame.at(across, high)))
    return _Mark(ranked=ranked, at=frame.at(across, upright), bars=tuple(bars))


def _staircase(marks: Sequence[_Mark]) -> str:
    """Write the border of what is inside the floors: nothing lies beyond it on both axes."""
    inside = sorted(mark.at for mark in marks if mark.ranked.row.within_budget)
    steps: list[Point] = []
    for x, y in inside:
        if not steps:
            steps.append((x, y))
        elif y < steps[-1][1]:  # up is less
            steps += [(x, steps[-1][1]), (x, y)]
    return polyline(steps, color=ACCENT, width=1.2, opacity=0.4) if len(steps) > 1 else ""


def _draw_floor(frame: Frame, floor: float, name: str) -> tuple[list[str], tuple[Box, ...]]:
    """Write the floor's line and its name, and give what they cover."""
    ends = frame.at(frame.across.low, floor), frame.at(frame.across.high, floor)
    x, y = ends[1]
    low = y + 1.25 * FONT_SIZE
    parts = [
        dashed_line(*ends, color=WARN, width=1.2),
        text((x, (y + low) / 2), name, color=WARN, anchor="end"),
    ]
    return parts, (*line_boxes(ends, half_width=1.0), (x - text_width(name), y, x, low))


def _draw_mark(mark: _Mark) -> str:
    ranked = mark.ranked
    color = ACCENT if ranked.row.within_budget else WARN
    parts = [polyline(bar, color=color, width=1.4, opacity=0.7) for bar in mark.bars]
    parts += _shape(mark.at, place=ranked.place, is_outside=not ranked.row.within_budget)
    return titled(parts, _title(ranked))


def _shape(at: Point, *, place: Place, is_outside: bool) -> list[str]:
    """Write a candidate's mark."""
    if place is Place.CHOSEN:
        inner = (
            ring(at, radius=4.0, color=WARN) if is_outside else dot(at, radius=4.6, color=ACCENT)
        )
        return [ring(at, radius=8.0, color=ACCENT), inner]
    if is_outside:
        return [ring(at, radius=3.4, color=WARN)]
    if place is Place.FRONT:
        return [dot(at, radius=4.6, color=ACCENT)]
    return [dot(at, radius=2.8, color=MUTED)]


def _label(mark: _Mark, *, is_few: bool) -> Label:
    """Give what may stand beside a mark, the best first: its name or its number in the table."""
    ranked = mark.ranked
    is_best = ranked.is_front or ranked.place is Place.CHOSEN
    name = plot_label(ranked.row.recipe, longest=_LONGEST_LABEL, otherwise="")
    texts = (f"{ranked.number}. {name}",) if name and (is_best or is_few) else ()
    return Label(
        at=mark.at,
        texts=(*texts, str(ranked.number)),
        color=INK if is_best else MUTED,
        is_needed=is_best,
    )


def _title(ranked: RankedRow) -> str:
    row = ranked.row
    parts = [f"{ranked.number}. {plain(row.recipe, longest=64)}"]
    if row.passes:
        parts.append(plain(row.passes, longest=200))
    parts += [
        words
        for words in (
            latency(row.median_ns, interval_ns=row.median_ci95_ns) if row.median_ns else None,
            file_size(row.num_bytes) if row.num_bytes is not None else None,
            decibels(row.sqnr_db) if row.sqnr_db is not None else None,
            f"agreement {share(row.top1_agreement)}" if row.top1_agreement is not None else None,
            f"accuracy {share(row.accuracy)}" if row.accuracy is not None else None,
            f"metric {row.metric.value:.4g}" if row.metric and row.metric.value is not None else "",
        )
        if words
    ]
    return "\n".join(parts)


def _caption(pack: PackSummary, *, cost: Cost, worth: Worth, is_cut: bool) -> str:
    kept = "Fidelity" if worth is Worth.SQNR else "Answers"
    caption = f"{kept} against size"
    if cost is Cost.LATENCY:
        where = device_name(pack.latency_on or "local:")
        caption = f"{kept} against median latency on {where}, with its 95% interval"
    caption += "; nearer the upper left is better."
    return caption + (" Beyond a thin dashed line the axis is cut." if is_cut else "")


def _describe(shown: Sequence[RankedRow], pack: PackSummary, *, cost: Cost, worth: Worth) -> str:
    told = []
    for each in shown:
        kept = worth_of(each.row, worth, pack) or 0.0
        took = cost_of(each.row, cost) or 0
        told.append(
            f"{each.number}. {plain(each.row.recipe, longest=64)}: "
            + (latency(took) if cost is Cost.LATENCY else file_size(int(took)))
            + ", "
            + (decibels(kept) if worth is Worth.SQNR else _told_answers(kept, pack))
            + (" (chosen)" if each.place is Place.CHOSEN else "")
        )
    return "; ".join(told) + "."


def _told_answers(value: float, pack: PackSummary) -> str:
    return share(value / 100) if judge_answers(pack).is_percent else f"{value:.4g}"
