"""How latency, clock and heat went through a measurement."""

from collections.abc import Sequence
from typing import Final

from edgepack.report.axes import draw_frame, lay_out, linear_axis
from edgepack.report.summary import TimePoint
from edgepack.report.svg import ACCENT, Plot, Point, dot, picture, polyline
from edgepack.report.units import count, duration_scale, unit_factor

_HEIGHT: Final = 190.0
_MINUTES: Final = 180.0
"""So many seconds are shown as minutes."""
_MOST_DOTS: Final = 60


def plot_timelines(points: Sequence[TimePoint]) -> tuple[Plot, ...]:
    """Plot latency, clock and temperature over the seconds of inference; none where none is told.

    Latency alone, without a clock or a temperature to explain it, is drawn for a single launch:
    the launches' own plot shows it otherwise.
    """
    if not points:
        return ()
    latencies = [(each.seconds, float(each.median_ns)) for each in points]
    unit, _ = duration_scale(sorted(value for _, value in latencies)[len(latencies) // 2])
    factor = unit_factor(unit)
    clocks = [
        (each.seconds, each.frequency_khz / 1e6)
        for each in points
        if each.frequency_khz is not None
    ]
    heats = [
        (each.seconds, each.temperature_c) for each in points if each.temperature_c is not None
    ]
    is_explained = len(clocks) > 1 or len(heats) > 1
    if not is_explained and len({each.launch for each in points}) > 1:
        return ()
    plots = (
        _plot([(at, value / factor) for at, value in latencies], f"median latency, {unit}"),
        _plot(clocks, "clock of the fastest core, GHz"),
        _plot(heats, "temperature of the hottest zone, °C", from_zero=False),
    )
    return tuple(plot for plot in plots if plot is not None)


def _plot(values: Sequence[Point], name: str, *, from_zero: bool = True) -> Plot | None:
    if len(values) < 2:  # noqa: PLR2004 - one point is no line
        return None
    last = values[-1][0]
    per = 60.0 if last >= _MINUTES else 1.0
    heights = [value for _, value in values]
    low = 0.0 if from_zero else min(heights) - 2
    frame = lay_out(
        linear_axis(0.0, last / per, name=f"{'minutes' if per > 1 else 'seconds'} of inference"),
        linear_axis(low, 1.08 * max(heights), name=name, num_ticks=5),
        height=_HEIGHT,
    )
    places = [frame.at(at / per, value) for at, value in values]
    parts = [*draw_frame(frame), polyline(places, color=ACCENT, width=1.6)]
    if len(places) <= _MOST_DOTS:
        parts += [dot(place, radius=2.4, color=ACCENT) for place in places]
    return Plot(
        svg=picture(parts, height=frame.height),
        caption=f"{name[0].upper()}{name[1:]}, through the timed runs.",
        description=f"{name}: {count(len(values), 'look')}, from {min(heights):.3g} to "
        f"{max(heights):.3g}; {heights[0]:.3g} at first, {heights[-1]:.3g} at last.",
    )
