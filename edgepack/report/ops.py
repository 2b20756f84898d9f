"""What each op of a model takes: the slowest, and what XNNPACK did not run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edgepack.report.bars import Bar, plot_bars
from edgepack.report.labels import plain
from edgepack.report.markup import cell, plots, row_head, row_number, table
from edgepack.report.summary import OpRow
from edgepack.report.units import count, latency, share

if TYPE_CHECKING:
    from edgepack.measure.profile import OpProfile
    from edgepack.report.svg import Plot

_NUM_BARS: Final = 15
_NUM_NAMED: Final = 6
_LONGEST_NAME: Final = 60


def rank_ops(profile: "OpProfile") -> tuple[OpRow, ...]:
    """Give the ops of a profile, the slowest first."""
    total_ns = sum(op.total_ns for op in profile.ops)
    rows = (
        OpRow(
            place=place,
            name=plain(op.name, longest=_LONGEST_NAME),
            is_delegated=op.xnnpack,
            run_ns=op.total_ns / max(profile.num_runs, 1),
            share=op.total_ns / max(total_ns, 1),
        )
        for place, op in enumerate(profile.ops, start=1)
    )
    return tuple(sorted(rows, key=lambda row: (-row.run_ns, row.place)))


def describe_delegation(rows: Sequence[OpRow]) -> str:
    """Say what part of the time XNNPACK had, and which ops it did not run."""
    others = [row for row in rows if not row.is_delegated]
    delegated = sum(row.share for row in rows if row.is_delegated)
    if not others:
        return "XNNPACK ran all ops"
    names = list(dict.fromkeys(row.name for row in others))
    more = len(names) - _NUM_NAMED
    listed = ", ".join(names[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
    ran = f"XNNPACK ran {share(delegated)} of the time" if delegated else "XNNPACK ran nothing"
    return f"{ran}; on the plain kernels: {listed}"


def plot_ops(rows: Sequence[OpRow]) -> "Plot | None":
    """Draw the slowest ops as bars; those that XNNPACK did not run strongly."""
    shown = rows[:_NUM_BARS]
    longest = max((row.share for row in shown), default=0.0) or 1.0
    bars = [
        Bar(
            name=f"{row.place}. {row.name}",
            length=row.share / longest,
            strong=0.0 if row.is_delegated else row.share / longest,
            value=share(row.share),
            title=f"{row.name}: {latency(row.run_ns)} a run",
        )
        for row in shown
    ]
    left = f" of {len(rows)}" if len(rows) > len(shown) else ""
    return plot_bars(
        bars,
        caption=f"The {len(shown)} slowest{left} ops, numbered as they run; strong ones are not "
        "XNNPACK's. Shares are of the ops' time in runs of their own, not the timed ones.",
        description="; ".join(f"{row.name} {share(row.share)}" for row in shown[:5]) + ".",
    )


def ops_part(rows: Sequence[OpRow]) -> str:
    """Write the ops as a figure and a folded table; nothing without any."""
    if not rows:
        return ""
    columns = (("Op", False), ("Name", False), ("A run", True), ("Share", True), ("Run by", False))
    lines = (
        f"<tr>{row_number(str(row.place))}{row_head(row.name)}{cell(latency(row.run_ns))}"
        f"{cell(share(row.share))}"
        f"{cell('XNNPACK' if row.is_delegated else 'plain kernels', number=False)}</tr>"
        for row in rows
    )
    numbers = table(describe_delegation(rows), columns, lines)
    name = count(len(rows), "op")
    return (
        plots(plot_ops(rows))
        + f"<details><summary>The {name} in numbers</summary>{numbers}</details>"
    )
