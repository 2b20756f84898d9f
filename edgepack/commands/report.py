"""`edgepack report`: stored results as one HTML file."""

from pathlib import Path

import click

from edgepack.commands.bench import bench_report
from edgepack.commands.console import print_json, print_table, warn
from edgepack.commands.figures import FORMATS, write_figures
from edgepack.commands.options import EXISTING_FILE, OUTPUT_FILE, json_option
from edgepack.commands.output import check_outputs, write_report


@click.command()
@click.argument("results", nargs=-1, required=True, type=EXISTING_FILE, metavar="RESULT...")
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each figure as a file of its own too.",
)
@click.option(
    "--format",
    "figure_format",
    type=click.Choice(FORMATS),
    default="svg",
    show_default=True,
    help="Of these files.",
)
@click.option("--title", help="Title of the report [default: what was measured].")
@json_option
def report(
    *,
    results: tuple[Path, ...],
    output: Path,
    figures: Path | None,
    figure_format: str,
    title: str | None,
    as_json: bool,
) -> None:
    """Write an HTML report of results that `bench -o` or `deploy --results` wrote."""
    from edgepack.measure.results import load_results
    from edgepack.report.labels import device_name, plain
    from edgepack.report.terminal import render_matrix

    check_outputs(report=output)
    stored = [load_results(path) for path in results]
    measured = [each for one in stored for each in one.measured]
    failed = [each for one in stored for each in one.failed]
    names = dict.fromkeys(each.model.name for each in measured)
    shown = bench_report(title or ", ".join(names), stored)
    # What cannot be drawn is refused before the report is written.
    drawn = write_figures(figures, shown, figure_format) if figures is not None else ()
    write_report(output, shown)
    if as_json:
        print_json(
            {
                "report": str(output.resolve()),
                "figures": [str(path.resolve()) for path in drawn],
                "measurements": [
                    {
                        "device": each.device_name,
                        "model": each.model.name,
                        "median_ns": each.summary.median_ns,
                        "verdict": each.validity.verdict.value,
                    }
                    for each in measured
                ],
                "failed": [{"device": each.device, "error": each.reason} for each in failed],
            }
        )
        return
    for each in dict.fromkeys(failed):  # a device may have failed in each file
        reason = plain(each.reason.removeprefix(f"{each.device}: "))
        warn(f"{device_name(each.device)} was not measured: {reason}")
    table = render_matrix(shown.benchmarks)
    if table is not None:
        print_table(table)
    click.echo(f"report: {output.resolve()}")
    if figures is not None:
        click.echo(f"figures: {len(drawn)} in {figures.resolve()}")
