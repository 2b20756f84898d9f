"""`edgepack history`: what was measured earlier, how it went, and for other programs."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import LIST_WIDTH, note, print_json, print_table, warn
from edgepack.commands.options import OUTPUT_FILE, json_option
from edgepack.errors import HistoryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgepack.measure.history import Entry, History
    from edgepack.measure.record import Measurement


@click.command()
@click.option("--device", help="Only of this device, as it was called.")
@click.option("--model", help="Only of this model or bundle.")
@click.option("--recipe", help="Only of this recipe.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Only so many, the newest [default: 20 in the list, all otherwise].",
)
@click.option("--export", type=OUTPUT_FILE, metavar="FILE", help="Write .csv, .jsonl or .parquet.")
@click.option("--report", type=OUTPUT_FILE, help="Write an HTML page with a trend of each model.")
@click.option("--result", type=click.IntRange(min=1), metavar="N", help="Take this one whole.")
@click.option("-o", "--output", type=OUTPUT_FILE, help="Where --result is written.")
@json_option
def history(
    *,
    limit: int | None,
    export: Path | None,
    report: Path | None,
    result: int | None,
    output: Path | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """List earlier results, write their trend, or take one out whole.

    `bench` and `deploy` keep what they measure in a file on this machine. A result that is taken
    out serves `compare`, `gate` and `report`.
    """
    from dataclasses import asdict

    from edgepack.commands.output import check_outputs, write_bytes, write_text

    if (result is None) != (output is None):
        raise UsageError(
            "--result and -o go together", remedy="Give both: `--result 12 -o result.json`."
        )
    check_outputs(results=output, report=report)
    with _open() as opened:
        if result is not None and output is not None:
            from edgepack.measure.record import write_measurement

            write_bytes(output, write_measurement(opened.load(result)))
            note(f"wrote {output}")
            return
        is_list = export is None and report is None and not as_json
        entries = opened.entries(**wanted, limit=limit or (20 if is_list else None))
    if export is not None:
        from edgepack.report.export import export_entries

        write_bytes(export, export_entries(entries, export))
    if report is not None:
        from edgepack import __version__
        from edgepack.report.trend import render_history

        write_text(report, render_history(entries, tool_version=__version__))
    for path in (export, report):
        if path is not None:
            note(f"wrote {path}")
    if as_json:
        print_json([asdict(each) for each in entries])
    elif is_list:
        _show(entries)


@contextmanager
def _open() -> "Iterator[History]":
    from edgepack.measure.history import History, history_path

    path = history_path()
    if not path.exists():
        raise HistoryError(
            f"{path}: there is no history yet",
            remedy="`edgepack bench` and `edgepack deploy` begin it with their first result.",
        )
    with History(path) as opened:
        yield opened


def _show(entries: "Sequence[Entry]") -> None:
    from rich.table import Table

    from edgepack.report.labels import device_name
    from edgepack.report.trend import change_text, interval_text, series
    from edgepack.report.units import latency

    if not entries:
        note("no result matches")
        return
    changes, models = {}, {}
    for group in series(entries):
        for before, each in zip([None, *group.entries], group.entries, strict=False):
            changes[each.id] = change_text(before, each)
            models[each.id] = group.model
    table = Table(box=None, pad_edge=False)
    for name, right in (
        *(("result", True), ("time (UTC)", False), ("device", False), ("model", False)),
        *(("median", True), ("95%", False), ("change", True), ("verdict", False)),
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for each in entries:
        table.add_row(
            str(each.id),
            each.time[:16].replace("T", " "),
            device_name(each.device),
            models[each.id],
            latency(each.median_ns, interval_ns=each.interval_ns),
            interval_text(each),
            changes[each.id],
            each.verdict,
        )
    print_table(table, width=LIST_WIDTH)


def remember(measured: "Sequence[Measurement]") -> None:
    """Keep results in the history; what was measured is not lost when that fails."""
    from edgepack.measure.history import History, history_path

    if not measured:
        return
    try:
        with History(history_path()) as opened:
            for each in measured:
                opened.add(each)
    except HistoryError as error:
        warn(f"the result is not in the history: {error.message}")
