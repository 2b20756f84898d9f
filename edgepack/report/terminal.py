"""Tables for a terminal or a pipe: whole numbers at 80 columns, nothing printed here."""

import io
from collections.abc import Iterable, Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgepack.report.candidates import Place, rank_candidates, tell_others
from edgepack.report.headline import (
    Headline,
    Level,
    chosen_row,
    device_title,
    model_title,
    write_headline,
)
from edgepack.report.labels import device_name, plain
from edgepack.report.losses import account, drop_metric, loss_rows
from edgepack.report.matrix import cell_texts, column_headings, make_matrix
from edgepack.report.ops import describe_delegation
from edgepack.report.rows import (
    Standing,
    figure_rows,
    launch_medians,
    parity_basis,
    parity_notes,
    parity_samples,
    standing,
)
from edgepack.report.summary import (
    BenchmarkSummary,
    DeployReport,
    Fact,
    PackSummary,
    ParitySummary,
    PushSummary,
    VariantRow,
)
from edgepack.report.trust import trust_of
from edgepack.report.units import (
    ABSENT,
    decibels,
    file_size,
    latency,
    latency_ends,
    seconds,
    share,
    share_interval,
    small_number,
    wire_size,
)

_LEVEL_STYLES: Final = {Level.NOTE: "dim", Level.WARNING: "yellow", Level.FAULT: "bold red"}
_STANDING_STYLES: Final = {
    Standing.CHOSEN: "bold green",
    Standing.CHOSEN_OUTSIDE: "bold red",
    Standing.INSIDE: "",
    Standing.OUTSIDE: "red",
    Standing.SKIPPED: "dim",
}
_NUM_MEDIANS: Final = 20
_NUM_OPS: Final = 3
_MANY_VARIANTS: Final = 8
_LONG_RECIPE: Final = 20

PIPED_WIDTH: Final = 100
"""Columns of text that goes to no terminal: what a log or a terminal of today shows in a line."""


def render_report(report: DeployReport) -> RenderableType:
    """Give everything a report says on the terminal."""
    parts: list[RenderableType] = [*render_headline(write_headline(report))]
    if report.pack is not None:
        parts.append(render_pack(report.pack))
    if report.pushes:
        parts.append(render_pushes(report.pushes))
    # The notices at the top hold the reasons of doubtful verdicts already.
    parts += [render_benchmark(each, with_reasons=False) for each in report.benchmarks]
    return Group(*parts)


def render_text(renderable: RenderableType, *, width: int = PIPED_WIDTH) -> str:
    """Write a renderable as plain text, without color or trailing spaces."""
    console = Console(
        file=io.StringIO(), width=width, color_system=None, force_terminal=False, highlight=False
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def render_headline(headline: Headline) -> tuple[RenderableType, ...]:
    """Give the result in one sentence, then the notices."""
    parts: list[RenderableType] = [Text(headline.sentence, style="bold")]
    for notice in headline.notices:
        text = Text(f"{notice.level.value}: {notice.text}", style=_LEVEL_STYLES[notice.level])
        parts.append(text)
        parts += [_bullet(detail, indent=2) for detail in notice.details]
    return tuple(parts)


def render_pack(pack: PackSummary) -> RenderableType:
    """Give the variants as a table, then why which was chosen, then parity.

    Of many, only the Pareto front and the chosen one have rows; the others are counted.
    """
    heading = f"Variants of {plain(pack.model, longest=80)} for {plain(pack.target, longest=64)}"
    with_latency = any(row.median_ns is not None for row in pack.variants)
    answers = _answers(pack)
    table = _table()
    table.add_column("recipe", overflow="fold", min_width=8)
    for name in ("size", "packed", "SQNR"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(answers, justify="right", no_wrap=True)
    if with_latency:
        table.add_column("median", justify="right", no_wrap=True)
    table.add_column("", overflow="fold", min_width=7)
    rows, others = _shown(pack)
    for row in rows:
        table.add_row(*_variant_cells(row, pack, with_latency=with_latency, answers=answers))
    parts: list[RenderableType] = [_heading(heading), table]
    notes = [
        f"{plain(row.recipe, longest=64)}: {plain(reason)}"
        for row in rows
        for reason in ((row.skipped_reason,) if row.skipped_reason else row.reasons)
    ]
    parts += [_indented(note) for note in notes]
    if others:
        parts.append(_indented(f"{others} (the report and --json have them all)"))
    parts.append(_indented(f"chosen: {plain(pack.chosen_reason)}"))
    best = chosen_row(pack)
    if best is not None and best.passes not in {"", best.recipe}:
        parts.append(_indented(f"recipe: {plain(best.passes, longest=200)}"))
    if best is not None:
        parts += _losses(best, pack)
    if with_latency and pack.latency_on is not None:
        parts.append(_indented(f"latency measured on {device_name(pack.latency_on)}"))
    if pack.bundle is not None:
        size = f" ({file_size(pack.bundle_bytes)})" if pack.bundle_bytes is not None else ""
        parts.append(_indented(f"bundle: {plain(pack.bundle)}{size}"))
    if pack.parity is not None:
        parts.append(render_parity(pack.parity))
    return Group(*parts)


def _answers(pack: PackSummary) -> str:
    """Name the figure of answers that the table has: what the floors are about."""
    if any(row.metric is not None for row in pack.variants):
        return "metric"
    has_labels = any(row.accuracy is not None for row in pack.variants)
    return "accuracy" if has_labels else "agreement"


def _losses(best: VariantRow, pack: PackSummary) -> list[RenderableType]:
    """Give what the chosen variant keeps and loses, and what was done to it."""
    rows = loss_rows(best, pack)
    parts: list[RenderableType] = []
    if rows:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value, remark in rows:
            table.add_row(name, value, Text(remark, style="dim"))
        parts.append(Padding(table, (0, 0, 0, 2)))
    return [*parts, *(_bullet(plain(each), indent=2) for each in account(best))]


def _shown(pack: PackSummary) -> tuple[Sequence[VariantRow], str]:
    """Give the rows that are shown, and how many others there are in words."""
    if len(pack.variants) <= _MANY_VARIANTS:
        return pack.variants, ""
    ranked = rank_candidates(pack)
    best = [each.row for each in ranked if each.place in {Place.CHOSEN, Place.FRONT}]
    return (best, tell_others(ranked)) if best else (pack.variants, "")


def _variant_cells(
    row: VariantRow, pack: PackSummary, *, with_latency: bool, answers: str
) -> list[Text]:
    chosen = row.recipe == pack.chosen
    cells = [
        Text(_broken(plain(row.recipe, longest=64)), style="bold" if chosen else ""),
        Text(file_size(row.num_bytes) if row.num_bytes is not None else ABSENT),
        Text(file_size(row.compressed_bytes) if row.compressed_bytes is not None else ABSENT),
        Text(decibels(row.sqnr_db) if row.sqnr_db is not None else ABSENT),
        _answer_cell(row, answers),
    ]
    if with_latency:
        cells.append(_latency_cell(row.median_ns, row.median_ci95_ns))
    state = standing(row, chosen=pack.chosen)
    cells.append(Text(state.value, style=_STANDING_STYLES[state]))
    return cells


def _broken(recipe: str) -> str:
    """Break a long name before its parts, rather than anywhere."""
    first, *rest = recipe.split("+")
    lines = [first]
    for part in rest:
        if len(lines[-1]) + len(part) < _LONG_RECIPE:
            lines[-1] += f"+{part}"
        else:
            lines.append(f"  +{part}")
    return "\n".join(lines)


def _answer_cell(row: VariantRow, answers: str) -> Text:
    if answers == "metric":
        value = row.metric.value if row.metric is not None else None
        return Text(ABSENT) if value is None else _stacked(f"{value:.4g}", drop_metric(row)[0])
    value, interval = (
        (row.accuracy, row.accuracy_ci95)
        if answers == "accuracy"
        else (row.top1_agreement, row.top1_agreement_ci95)
    )
    if value is None:
        return Text(ABSENT)
    return _stacked(share(value), share_interval(interval).rstrip("%") if interval else "")


def _latency_cell(value_ns: float | None, interval_ns: tuple[float, float] | None) -> Text:
    if value_ns is None:
        return Text(ABSENT)
    interval = latency_ends(interval_ns, value_ns=value_ns) if interval_ns else ""
    return _stacked(latency(value_ns, interval_ns=interval_ns), interval)


def _stacked(value: str, interval: str) -> Text:
    text = Text(value)
    if interval:
        text.append(f"\n{interval}", style="dim")
    return text


def render_parity(parity: ParitySummary) -> RenderableType:
    """Give how near the converted model is to its source, output by output."""
    table = _table()
    table.add_column("output", overflow="fold", min_width=8)
    for name in ("SQNR", "max abs error", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("judged by", overflow="fold")
    for row in parity.rows:
        table.add_row(
            Text(plain(row.output, longest=120)),
            decibels(row.sqnr_db),
            small_number(row.max_abs_error),
            f"{row.cosine:.6f}" if row.cosine is not None else ABSENT,
            parity_basis(row),
        )
    heading = f"Parity with {plain(parity.reference, longest=80)}, "
    heading += f"{parity_samples(parity)}, at least {parity.minimum_db:g} dB"
    notes = [Padding(Text(note, style="dim"), (0, 2)) for note in parity_notes(parity)]
    return Group(_heading(heading), table, *notes)


def render_pushes(pushes: Sequence[PushSummary]) -> RenderableType:
    """Give each transfer: what was sent and how, what was there already, how long it took."""
    table = _table()
    table.add_column("device", overflow="fold", min_width=8)
    table.add_column("release", overflow="fold", min_width=8)
    for name in ("sent", "on wire", "reused", "runtime", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for push in pushes:
        device = Text(device_name(push.device))
        if push.error is not None:
            table.add_row(device, Text("failed", style="red"), *[ABSENT] * 5)
            continue
        table.add_row(
            device,
            Text(plain(push.release, longest=80)),
            file_size(push.sent_bytes),
            wire_size(push.wire_bytes, push.compression),
            *(file_size(each) for each in (push.skipped_bytes, push.runtime_bytes)),
            seconds(push.seconds),
        )
    errors = [
        _indented(f"{device_name(push.device)}: {plain(push.error)}")
        for push in pushes
        if push.error is not None
    ]
    return Group(_heading("Push"), table, *errors)


def render_benchmark(benchmark: BenchmarkSummary, *, with_reasons: bool = True) -> RenderableType:
    """Give one measurement: verdict first, then the figures with their intervals."""
    heading = _heading(f"{model_title(benchmark)} on {device_title(benchmark)}")
    if benchmark.error is not None:
        return Group(heading, _indented(f"not measured: {plain(benchmark.error)}"))
    trust = trust_of(benchmark)
    parts: list[RenderableType] = [heading]
    style = "green" if trust.badge == "good" else "bold yellow"
    parts.append(Padding(Text.assemble("verdict: ", (trust.text, style)), (0, 0, 0, 2)))
    if with_reasons:
        parts += [_bullet(plain(each), indent=4) for each in benchmark.reasons]
    table = _table(show_header=False)
    table.add_column("figure", style="dim", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95% interval or remark", overflow="fold")
    for name, value, remark in figure_rows(benchmark):
        table.add_row(name, value, remark)
    parts.append(table)
    medians = launch_medians(benchmark)
    if medians:
        shown = " ".join(medians[:_NUM_MEDIANS])
        more = len(medians) - _NUM_MEDIANS
        shown += f" and {more} more" if more > 0 else ""
        parts.append(_indented(f"launch medians: {shown}"))
    for each in benchmark.conditions:
        if each.is_throughout:
            parts.append(_indented(f"{plain(each.name).lower()}: {plain(each.before)}"))
    if benchmark.ops:
        slowest = ", ".join(
            f"{row.place}. {row.name} {share(row.share)}" for row in benchmark.ops[:_NUM_OPS]
        )
        parts.append(_indented(f"slowest ops: {slowest}"))
        parts.append(_indented(describe_delegation(benchmark.ops)))
    return Group(*parts)


def render_matrix(benchmarks: Sequence[BenchmarkSummary]) -> RenderableType | None:
    """Give variants on devices as a table; None unless there are several of both."""
    matrix = make_matrix(benchmarks)
    if matrix is None:
        return None
    table = _table()
    table.add_column("device", overflow="fold", min_width=8)
    common, headings = column_headings(matrix)
    for parts in headings:
        heading = "\n".join(plain(each, longest=80) for each in parts)
        table.add_column(Text(heading), justify="right", overflow="fold")
    for row, device in enumerate(matrix.devices):
        cells = []
        for column in range(len(matrix.variants)):
            first, *more = filter(None, cell_texts(matrix, row, column))
            cells.append(_stacked(first, "\n".join(more)))
        table.add_row(Text(device), *cells)
    title = "Variants on devices"
    return Group(_heading(f"{title}: {plain(common)}" if common else title), table)


def render_facts(facts: Iterable[Fact]) -> RenderableType:
    """Give named facts as two columns."""
    table = _table(show_header=False)
    table.add_column("fact", style="dim", overflow="fold")
    table.add_column("value", overflow="fold")
    for fact in facts:
        table.add_row(Text(plain(fact.name, longest=60)), Text(plain(fact.value)))
    return table


def _table(*, show_header: bool = True) -> Table:
    return Table(box=SIMPLE_HEAD, show_header=show_header, pad_edge=False, padding=(0, 1, 0, 0))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _bullet(text: str, *, indent: int) -> Padding:
    """Give a text after a dash, its further lines below its first."""
    item = Table.grid(padding=(0, 1, 0, 0))
    item.add_row("-", Text(text))
    return Padding(item, (0, 0, 0, indent))


def _indented(text: str) -> Padding:
    return Padding(Text(text), (0, 0, 0, 2))
