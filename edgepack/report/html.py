"""One self-contained page: no script, no network, every text from outside escaped.

The page's own content security policy forbids scripts and any loading, so that a fault in the
escaping would still be harmless.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from edgepack.report.document import write_document
from edgepack.report.figures import plot_comparison, plot_distribution, plot_launches
from edgepack.report.headline import Headline, device_title, model_title, write_headline
from edgepack.report.labels import device_name, plain
from edgepack.report.markup import (
    cell,
    facts_table,
    latency_cell,
    noted_row,
    notice_item,
    plots,
    row_head,
    row_number,
    section,
    table,
    text_of,
)
from edgepack.report.matrix import matrix_section
from edgepack.report.ops import ops_part
from edgepack.report.rows import (
    figure_rows,
    launch_rows,
    parity_basis,
    parity_notes,
    parity_samples,
)
from edgepack.report.summary import (
    BenchmarkSummary,
    Condition,
    DeployReport,
    PackSummary,
    ParitySummary,
    PushSummary,
)
from edgepack.report.timeline import plot_timelines
from edgepack.report.trust import Trust, trust_of
from edgepack.report.units import (
    ABSENT,
    count,
    decibels,
    file_size,
    seconds,
    small_number,
    wire_size,
)
from edgepack.report.variants import variants_section

WITHOUT_XNNPACK: Final = (
    "Its runtime has no XNNPACK, so this latency is not to be compared with those of runtimes "
    "that have it."
)
# A number and its unit stay on one line.
_UNIT: Final = re.compile(r"(\d) (ns|µs|ms|s)\b")
_KEPT: Final = r"\1&nbsp;\2"


def render_page(report: DeployReport) -> str:
    """Write a report as one HTML document."""
    headline = write_headline(report)
    sections = [each for each in (matrix_section(report.benchmarks),) if each]
    if len(report.benchmarks) > 1:
        sections.append(_comparison(report.benchmarks))
    if report.pack is not None:
        sections.append(variants_section(report.pack))
    sections += [
        _benchmark(each, with_reasons=len(report.benchmarks) > 1) for each in report.benchmarks
    ]
    if report.pushes:
        sections.append(_pushes(report.pushes))
    if report.pack is not None:
        sections.append(_origin(report.pack))
    made = " · ".join(
        text_of(part)
        for part in (
            f"EdgePack {report.tool_version}" if report.tool_version else "EdgePack",
            report.created,
        )
        if part
    )
    return write_document(
        report.title,
        header=_header(report, headline),
        sections=sections,
        footer=f"{made}. Latency: intervals are 95% and computed over launches. "
        "Sizes: 1 kB is 1000 bytes; memory: 1 MiB is 1048576 bytes.",
    )


def _header(report: DeployReport, headline: Headline) -> str:
    tiles = "".join(
        f"<div><dt>{escape(tile.name)}</dt>"
        f'<dd class="value">{escape(tile.value)}</dd>'
        f'<dd class="detail">{escape(tile.detail)}</dd></div>'
        for tile in headline.tiles
    )
    parts = [
        f'<p class="over">{text_of(report.title)}</p>',
        f"<h1>{_UNIT.sub(_KEPT, escape(headline.sentence))}</h1>",
    ]
    verdicts = " ".join(
        _verdict(each) for each in report.benchmarks[:1] if len(report.benchmarks) == 1
    )
    if verdicts:
        parts.append(f"<p>{verdicts}</p>")
    if headline.notices:
        parts.append(f'<ul class="notices">{"".join(map(notice_item, headline.notices))}</ul>')
    if tiles:
        parts.append(f'<dl class="tiles">{tiles}</dl>')
    return f"<header>{''.join(parts)}</header>"


def _verdict(benchmark: BenchmarkSummary) -> str:
    trust = trust_of(benchmark)
    meaning = f' <span class="lead">{escape(trust.meaning)}</span>' if trust.meaning else ""
    return f"{_badge(trust)}{meaning}"


def _badge(trust: Trust) -> str:
    return f'<span class="badge {trust.badge}">{escape(trust.text)}</span>'


def _comparison(benchmarks: Sequence[BenchmarkSummary]) -> str:
    rows = []
    number = 0
    for each in benchmarks:
        figures = each.latency
        number += figures is not None
        name = f"{number}. {model_title(each)}" if figures else model_title(each)
        cells = [row_head(name), cell(device_title(each), number=False)]
        if figures is None:
            cells += [cell(ABSENT)] * 3
        else:
            cells.append(latency_cell(figures.median_ns, figures.median_ci95_ns))
            cells.append(latency_cell(figures.p90_ns, figures.p90_ci95_ns))
            cells.append(cell(f"{each.num_runs:,}"))
        cells.append(f'<td class="text">{_badge(trust_of(each))}</td>')
        notes = (each.error,) if each.error is not None else ()
        if each.lacks_xnnpack:
            notes = (*notes, WITHOUT_XNNPACK)
        rows.append(noted_row(cells, notes))
    columns = [("Model", False), ("Device", False), ("Median", True), ("p90", True)]
    columns += [("Runs", True), ("Verdict", False)]
    caption = f"{count(number, 'measurement')}; each is shown in full below"
    if number < len(benchmarks):
        caption = f"{count(len(benchmarks) - number, 'failure')} and {caption}"
    return section(
        "Measurements",
        plots(plot_comparison(benchmarks), plot_comparison(benchmarks, without_xnnpack=True)),
        table(caption, columns, rows),
    )


def _benchmark(benchmark: BenchmarkSummary, *, with_reasons: bool) -> str:
    title = f"{model_title(benchmark)} on {device_name(benchmark.device)}"
    if benchmark.error is not None:
        return section(title, f"<p>{_verdict(benchmark)} {text_of(benchmark.error)}</p>")
    parts = [f"<p>{_verdict(benchmark)}</p>"]
    if benchmark.reasons and with_reasons:
        reasons = "".join(f"<li>{text_of(reason)}</li>" for reason in benchmark.reasons)
        parts.append(f"<ul>{reasons}</ul>")
    parts.append(
        plots(
            plot_distribution(benchmark),
            plot_launches(benchmark),
            *plot_timelines(benchmark.timeline),
        )
    )
    figures = table(
        "Latency and cost",
        (("Figure", False), ("Value", True), ("95% interval or remark", False)),
        (
            f"<tr>{row_head(name)}{cell(value)}{cell(remark, number=False)}</tr>"
            for name, value, remark in figure_rows(benchmark)
        ),
    )
    device = facts_table(f"What {device_name(benchmark.device)} is", benchmark.facts)
    states = _conditions(benchmark)
    parts.append(f'<div class="columns"><div>{figures}</div><div>{device}{states}</div></div>')
    parts += (_launches(benchmark), ops_part(benchmark.ops))
    parts.append(facts_table("Identity of this measurement", benchmark.provenance))
    return section(title, *parts)


def _launches(benchmark: BenchmarkSummary) -> str:
    if not benchmark.launches:
        return ""
    columns = [("Launch", False), ("Median", True), ("p5", True), ("p95", True), ("Runs", True)]
    columns += [("Init", True), ("First inference", True), ("Peak memory", True), ("Marks", False)]
    rows = (
        f"<tr>{row_number(name)}{''.join(map(cell, values))}{cell(marks, number=False)}</tr>"
        for name, values, marks in launch_rows(benchmark)
    )
    numbers = table("Every launch is a fresh process", columns, rows)
    name = count(len(benchmark.launches), "launch", "launches")
    return f"<details><summary>The {escape(name)} in numbers</summary>{numbers}</details>"


def _conditions(benchmark: BenchmarkSummary) -> str:
    if not benchmark.conditions:
        return ""
    rows = (f"<tr>{row_head(each.name)}{_states(each)}</tr>" for each in benchmark.conditions)
    columns = (("State", False), ("Before", False), ("After", False))
    return table("The device's state before and after", columns, rows)


def _states(condition: Condition) -> str:
    before, after = text_of(condition.before), text_of(condition.after)
    if condition.is_throughout:
        return f'<td class="text" colspan="2">{before}</td>'
    if not condition.is_known and before == after:
        return f'<td class="text unknown" colspan="2">{before}</td>'
    return f'<td class="text">{before}</td><td class="text">{after}</td>'


def _pushes(pushes: Sequence[PushSummary]) -> str:
    rows = []
    for push in pushes:
        cells = [row_head(device_name(push.device))]
        if push.error is not None:
            cells.append(cell(f"failed: {plain(push.error)}", number=False))
            cells += [cell(ABSENT)] * 5
        else:
            cells.append(f'<td class="text"><code>{text_of(push.release)}</code></td>')
            amounts = (push.skipped_bytes, push.runtime_bytes)
            wire = wire_size(push.wire_bytes, push.compression)
            cells += [cell(file_size(push.sent_bytes)), cell(wire)]
            cells += [cell(file_size(amount)) for amount in amounts]
            cells.append(cell(seconds(push.seconds)))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    columns = [("Device", False), ("Release", False), ("Sent", True)]
    columns += [("On the wire", True), ("Already there", True), ("Runtime", True), ("Time", True)]
    caption = "Payload sent and skipped by content hash; the runtime is counted apart"
    return section("Push", table(caption, columns, rows))


def _origin(pack: PackSummary) -> str:
    parts = []
    if pack.parity is not None:
        parts.append(_parity(pack.parity))
    parts.append(facts_table("Provenance", pack.provenance))
    return section("Where the model comes from", *parts)


def _parity(parity: ParitySummary) -> str:
    rows = (
        f"<tr>{row_head(row.output)}{cell(decibels(row.sqnr_db))}"
        f"{cell(small_number(row.max_abs_error))}"
        f"{cell(f'{row.cosine:.6f}' if row.cosine is not None else ABSENT)}"
        f"{cell(parity_basis(row), number=False)}</tr>"
        for row in parity.rows
    )
    caption = (
        f"The converted float model against {plain(parity.reference, longest=80)} on "
        f"{parity_samples(parity)}; at least {parity.minimum_db:g} dB was required"
    )
    columns = (
        *(("Output", False), ("SQNR", True), ("Max abs error", True), ("Cosine", True)),
        ("Judged by", False),
    )
    caption = "; ".join((caption, *parity_notes(parity)))
    return table(caption, columns, rows)
