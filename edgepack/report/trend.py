"""How latency went from result to result: a chart for each model on each device."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from edgepack.measure.contrast import SMALLEST_MARGIN
from edgepack.measure.history import Entry
from edgepack.measure.validity import DISTURBED
from edgepack.report.axes import Axis, draw_frame, lay_out, linear_axis
from edgepack.report.distinction import are_alike, describe, find_telling
from edgepack.report.document import write_document
from edgepack.report.labels import device_name, model_name, plain
from edgepack.report.markup import cell, latency_cell, plots, row_number, section, table, text_of
from edgepack.report.svg import ACCENT, FAINT, WARN, Plot, diamond, dot, line, picture, polyline
from edgepack.report.units import count, duration_scale, latency, latency_interval, unit_factor

_HEIGHT: Final = 250.0
_MOST_POINTS: Final = 60


def change_text(before: Entry | None, entry: Entry) -> str:
    """Say by how much a median moved since the result before; nothing when that is not shown.

    It is shown when the 95% intervals do not meet, which is stricter than a test of the difference,
    and the medians are more than 1% apart; never of a disturbed device. `compare` tells more apart.
    """
    if before is not None and not DISTURBED.isdisjoint({before.verdict, entry.verdict}):
        return ""
    old = before.interval_ns if before is not None else None
    new = entry.interval_ns
    if before is None or old is None or new is None or before.median_ns == 0:
        return ""
    if old[0] <= new[1] and new[0] <= old[1]:
        return ""
    change = entry.median_ns / before.median_ns - 1
    return f"{change:+.1%}" if abs(change) > SMALLEST_MARGIN else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Results that may stand in one chart: a device, a model, like conditions.

    Attributes:
        model: with what sets the conditions apart from other series of it on the device.
        entries: in time.
    """

    model: str
    entries: tuple[Entry, ...]


def series(entries: Sequence[Entry]) -> tuple[Series, ...]:
    """Put together what may stand in one chart; what a result does not tell is no difference.

    Results of which the conditions were not kept stand by themselves.
    """
    subjects: dict[tuple[str, ...], list[_Group]] = defaultdict(list)
    for entry in entries:
        groups = subjects[entry.device, entry.model, entry.recipe or ""]
        # The last that fits: a machine that went back to what it was goes on there.
        found = next((each for each in reversed(groups) if each.fits(entry)), None)
        if found is None:
            groups.append(found := _Group(first=entry, told={}))
        found.entries.append(entry)
        found.told.update(entry.told_conditions or {})
    return tuple(
        Series(model=name, entries=tuple(group.entries))
        for _, groups in sorted(subjects.items())
        for name, group in zip(_names(groups), groups, strict=True)
    )


@dataclass(kw_only=True, slots=True)
class _Group:
    """A series as it grows."""

    first: Entry
    told: dict[str, str]
    entries: list[Entry] = field(default_factory=list)

    def fits(self, entry: Entry) -> bool:
        """Tell whether a result may stand in this series."""
        first, told = self.first, entry.told_conditions
        if (first.engine, first.runner, first.num_threads, first.conditions is None) != (
            *(entry.engine, entry.runner, entry.num_threads, entry.conditions is None),
        ):
            return False
        return told is None or are_alike(self.told, told)


def _names(groups: Sequence[_Group]) -> Iterator[str]:
    names = find_telling([each.told for each in groups])
    for each in groups:
        parts = describe(each.told, names)
        if each.first.conditions is None and len(groups) > 1:
            parts = ("conditions not kept",)
        yield " · ".join((model_name(each.first.model, each.first.recipe), *parts))


def plot_trend(entries: Sequence[Entry]) -> Plot | None:
    """Plot the medians of one series with their intervals; None for fewer than two."""
    shown = entries[-_MOST_POINTS:]
    if len(shown) < 2:  # noqa: PLR2004 - one point is no trend
        return None
    unit, _ = duration_scale(sorted(each.median_ns for each in shown)[len(shown) // 2])
    factor = unit_factor(unit)
    values = [
        value / factor for each in shown for value in (each.median_ns, *(each.interval_ns or ()))
    ]
    days = [(float(place), each.time[5:10]) for place, each in enumerate(shown, start=1)]
    # A day stands at its first result.
    ticks = [
        tick
        for tick, before in zip(days, [None, *days], strict=False)
        if before is None or before[1] != tick[1]
    ]
    across = Axis(
        low=0.4, high=len(shown) + 0.6, ticks=tuple(ticks), name="results in turn, by day"
    )
    upright = linear_axis(0.0, 1.06 * max(values), name=f"median latency, {unit}")
    frame = lay_out(across, upright, height=_HEIGHT)
    parts = draw_frame(frame)
    way = [frame.at(place, each.median_ns / factor) for place, each in enumerate(shown, start=1)]
    parts.append(polyline(way, color=FAINT, width=1.2))
    for place, each in enumerate(shown, start=1):
        is_doubtful = each.verdict != "valid"
        color = WARN if is_doubtful else ACCENT
        if each.interval_ns is not None:
            low, high = (frame.at(place, end / factor) for end in each.interval_ns)
            parts.append(line(low, high, color=color, width=2.0))
        at = frame.at(place, each.median_ns / factor)
        parts.append(
            diamond(at, radius=4.5, color=color)
            if is_doubtful
            else dot(at, radius=3.6, color=color)
        )
    caption = "Medians with their 95% intervals, the oldest first"
    if any(each.verdict != "valid" for each in shown):
        caption += ". A diamond marks a doubtful measurement"
    if len(shown) < len(entries):
        caption += f". The last {len(shown)} of {len(entries)} are shown"
    first, last = shown[0], shown[-1]
    return Plot(
        svg=picture(parts, height=frame.height),
        caption=f"{caption}.",
        description=(
            f"{count(len(shown), 'result')} from {first.time[:10]} to {last.time[:10]}: first "
            f"{latency(first.median_ns)}, last {latency(last.median_ns)}."
        ),
    )


def render_history(entries: Sequence[Entry], *, tool_version: str) -> str:
    """Write earlier results as one HTML document, a section for each series."""
    grouped = series(entries)
    devices = {each.device for each in entries}
    lead = f"{count(len(entries), 'result')} on {count(len(devices), 'device')}"
    return write_document(
        "History",
        header=f'<header><p class="over">EdgePack</p><h1>{escape(lead)}</h1></header>',
        sections=[_section(each) for each in grouped],
        footer=f"EdgePack {text_of(tool_version)}. Intervals are 95% and computed over launches. A "
        "change is told where the intervals do not meet and neither device was disturbed.",
    )


def _section(shown: Series) -> str:
    entries = shown.entries
    entry = entries[-1]
    how = f"{count(entry.num_threads, 'thread')}, {plain(entry.engine, longest=80)}"
    if entry.runner == "native":
        how += ", native runner"
    rows = []
    for before, each in zip([None, *entries], entries, strict=False):
        model = "" if before is not None and before.model_sha256 == each.model_sha256 else "new"
        rows.append(
            f"<tr>{row_number(str(each.id))}{cell(each.time[:16].replace('T', ' '), number=False)}"
            f"{latency_cell(each.median_ns, each.interval_ns)}{cell(change_text(before, each))}"
            f"{latency_cell(each.p90_ns, None)}{cell(model, number=False)}"
            f"{cell(plain(each.verdict, longest=40), number=False)}</tr>"
        )
    columns = (
        *(("Result", False), ("Time (UTC)", False), ("Median", True), ("Change", True)),
        *(("p90", True), ("Model file", False), ("Verdict", False)),
    )
    return section(
        f"{shown.model} on {device_name(entry.device)}",
        plots(plot_trend(entries)),
        table(how, columns, reversed(rows)),
    )


def interval_text(entry: Entry) -> str:
    """Give the interval of a result's median, or nothing."""
    if entry.interval_ns is None:
        return ""
    return latency_interval(entry.interval_ns, value_ns=entry.median_ns)
