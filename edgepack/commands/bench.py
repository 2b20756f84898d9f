"""`edgepack bench`: the shortest way to a believable number."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgepack.commands.boundary import end_early
from edgepack.commands.compare import describe_contrast
from edgepack.commands.console import note, print_json, print_table, warn
from edgepack.commands.fleet import (
    Reached,
    ReadyDevice,
    about,
    fleet_json,
    gather,
    item_json,
    ready_device,
)
from edgepack.commands.fleet_options import fleet_options, is_fleet, journal_options
from edgepack.commands.history import remember
from edgepack.commands.op_times import check_op_times, write_op_times
from edgepack.commands.options import (
    EXISTING_FILE,
    OUTPUT_FILE,
    check_plan_options,
    device_options,
    json_option,
    lock_option,
    plan_options,
    root_option,
    runtime_options,
    wishes_from,
)
from edgepack.commands.output import check_outputs, write_report, write_text
from edgepack.commands.signing_options import check_bundle, signers_options
from edgepack.errors import ExitCode, MeasureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgepack.measure.contrast import Contrast
    from edgepack.measure.record import Measurement
    from edgepack.measure.results import StoredResults
    from edgepack.profile import TargetProfile
    from edgepack.report.summary import DeployReport
    from edgepack.workflow.subject import Subject

    Contrasts = Mapping[str, Contrast | MeasureError]  # by the device

_MANY_DEVICES: Final = 3
"""Beyond so many, a line each says more than a page each."""


@click.command()
@click.argument("subject", type=EXISTING_FILE, metavar="TFLITE|BUNDLE")
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE|@FLEET.toml...")
@plan_options
@fleet_options
@journal_options
@device_options
@root_option
@runtime_options
@lock_option
@signers_options
@click.option(
    "--against",
    type=EXISTING_FILE,
    metavar="TFLITE|BUNDLE",
    help="Measure this one too, in launches that take turns, and say which is faster.",
)
@click.option("-o", "--output", type=OUTPUT_FILE, help="Write the result, raw samples and all.")
@click.option("--report", "report_path", type=OUTPUT_FILE, help="Write an HTML report.")
@click.option(
    "--model-explorer",
    "node_data_path",
    type=OUTPUT_FILE,
    metavar="FILE",
    help="Write each op's time as node data for Model Explorer; of one model on one device, with "
    "the native runner.",
)
@json_option
def bench(
    *,
    subject: Path,
    devices: tuple[str, ...],
    against: Path | None,
    output: Path | None,
    report_path: Path | None,
    node_data_path: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure the latency of a .tflite model or a bundle on devices.

    The answers are checked before anything is timed; then fresh launches are timed, each
    after a warm-up, and the result says how far it can be trusted. Several devices are measured
    at a time, each by itself, and all of them stand in one result; what a journal holds of an
    earlier run is not measured again with --resume.
    """
    from edgepack.measure.record import to_json
    from edgepack.workflow.subject import open_subject

    check_plan_options(given)
    check_outputs(results=output, report=report_path, node_data=node_data_path)
    check_op_times(node_data_path, devices, against, given)
    paths = [subject] if against is None else [subject, against]
    opened = [open_subject(path) for path in paths]
    _check_signatures(opened, given)
    if against is not None:
        _check_against(given, opened[0].profile)
    fault = None
    if is_fleet(devices, given):
        from edgepack.commands.bench_fleet import bench_fleet

        rolled = bench_fleet(list(zip(paths, opened, strict=True)), devices, given)
        reached, fault = rolled.reached, rolled.fault
    else:
        measured_one = _bench_one(opened, devices[0], given)
        remember(measured_one)
        reached = (Reached(device=devices[0], result=measured_one),)
    results = [each.result for each in reached if each.result is not None]
    measured = [each for result in results for each in result]
    contrasts = {each[0].device_name: _contrast(each) for each in results if len(each) > 1}
    form = partial(_to_json, contrasts=contrasts)
    body = fleet_json(reached, form)
    failed = [item_json(each, form) for each in reached if each.result is None]
    stored = body if against is None else [*(to_json(each) for each in measured), *failed]
    if output is not None:
        write_text(output, json.dumps(stored, allow_nan=False))
    if report_path is not None:
        write_report(report_path, bench_report(opened[0].name, [gather(measured, reached)]))
    if as_json:
        print_json(body)
    else:
        _show(results, contrasts, given["precision"])
        for path in (output, report_path):
            if path is not None:
                note(f"wrote {path}")
    write_op_times(node_data_path, opened[0].content, measured)
    if fault is not None:
        return end_early(fault)
    if any(each.error for each in reached) or not _note_untold(contrasts):
        return ExitCode.FAILURE
    exceeded = [warn_of_limits(opened[0], result[0]) for result in results]
    return ExitCode.LIMIT if any(exceeded) else ExitCode.DONE


def _bench_one(
    subjects: "Sequence[Subject]", address: str, given: Mapping[str, Any]
) -> "tuple[Measurement, ...]":
    from edgepack.cache import Cache, cache_directory
    from edgepack.workflow.preflight import weigh_cargo

    with ready_device(
        address,
        purpose="bench",
        given=given,
        profile=subjects[0].profile,
        cache=Cache(root=cache_directory()),
        cargo=weigh_cargo(subjects[0].content),
    ) as ready:
        return _bench_ready(ready, subjects, given)


def _check_signatures(subjects: "Sequence[Subject]", given: Mapping[str, Any]) -> None:
    """Let in what a push would let in: a bundle that is timed lies there as a release too."""
    from edgepack.bundle.archive import Bundle

    for each in subjects:
        if isinstance(each.content, Bundle):
            check_bundle(each.content, given)


def _check_against(given: Mapping[str, Any], profile: "TargetProfile | None") -> None:
    """Refuse, before any work is done, a plan after which nothing could be said of two models."""
    from edgepack.measure.stats import MINIMUM_LAUNCHES
    from edgepack.profile import BenchmarkDefaults

    if given["sustained"] is not None:
        raise UsageError(
            "--against compares launches in turns, and --sustained makes one of each",
            remedy="Measure them one after the other, when the device has cooled.",
        )
    defaults = profile.benchmark if profile is not None else BenchmarkDefaults()
    num_launches = given["launches"] or defaults.num_launches
    if num_launches < MINIMUM_LAUNCHES and given["precision"] is None:
        raise UsageError(
            f"--against: expected {MINIMUM_LAUNCHES} launches of each or more, of which it can be "
            f"told which is faster, not {num_launches}",
            remedy="Give --launches 10.",
        )


def _contrast(pair: "Sequence[Measurement]") -> "Contrast | MeasureError":
    """Give how two stand to each other, or why that cannot be told: both stand all the same."""
    from edgepack.measure.contrast import contrast

    ours, theirs = (each.launch_samples_ns for each in pair)
    try:
        return contrast(ours, theirs, is_paired=True)
    except MeasureError as error:
        return error


def _note_untold(contrasts: "Contrasts") -> bool:
    """Note each device of which it cannot be told which model is faster; whether there is none."""
    untold = {key: each for key, each in contrasts.items() if isinstance(each, MeasureError)}
    for device, error in untold.items():
        note(about(device, f"it cannot be told which is faster: {error.message}"))
        note(f"  {error.remedy}")
    return not untold


def _to_json(measured: "Sequence[Measurement]", *, contrasts: "Contrasts") -> dict[str, object]:
    """Give the JSON of a measurement, or of two and how they stand to each other."""
    from edgepack.measure import contrast
    from edgepack.measure.record import to_json

    if len(measured) == 1:
        return to_json(measured[0])
    found = contrasts[measured[0].device_name]
    unavailable = {"contrast": found.message} if isinstance(found, MeasureError) else {}
    return {
        "device": measured[0].device_name,
        "contrast": None if isinstance(found, MeasureError) else contrast.to_json(found),
        "unavailable": unavailable,
        "measurements": [to_json(each) for each in measured],
    }


def warn_of_limits(subject: "Subject", measurement: "Measurement") -> bool:
    """Warn of each of the target's limits that is not shown to be kept; tell whether one is not.

    What the device or the bundle does not tell is a warning alone.
    """
    from dataclasses import replace

    from edgepack.bundle.archive import Bundle
    from edgepack.measure.gate import Verdict, check_limits
    from edgepack.report.labels import device_name

    content = subject.content
    if not isinstance(content, Bundle):
        return False
    limits = replace(content.manifest.target.limits, slowdown=None)  # there is no baseline here
    checks = check_limits(limits, measurement, bundle=content)
    for check in checks:
        if check.verdict is not Verdict.PASSED:
            warn(f"on {device_name(measurement.device_name)}, {check.text}")
    return any(check.is_beyond for check in checks)


def bench_on(ready: ReadyDevice, subject: "Subject", given: Mapping[str, Any]) -> "Measurement":
    """Time a subject on a device that was made ready."""
    return _bench_ready(ready, [subject], given)[0]


def _bench_ready(
    ready: ReadyDevice, subjects: "Sequence[Subject]", given: Mapping[str, Any]
) -> "tuple[Measurement, ...]":
    from edgepack.workflow.timing import bench_subjects

    return bench_subjects(
        ready.rig,
        [(each, None) for each in subjects],
        wishes=wishes_from(given),
        on_step=ready.work.step,
        on_transfer=ready.work.transfer,
    )


def bench_report(title: str, runs: "Sequence[StoredResults]") -> "DeployReport":
    """Give the report of measurements alone, and of the devices that gave none.

    The title names the model, where none was measured.
    """
    from edgepack import __version__
    from edgepack.report.distinction import tell_apart
    from edgepack.report.outcome import summarize_results
    from edgepack.report.summary import DeployReport

    times = [each.provenance.time for run in runs for each in run.measured]
    return DeployReport(
        title=title,
        benchmarks=tell_apart(
            [each for run in runs for each in summarize_results(run, model=title)]
        ),
        created=max(times, default=""),
        tool_version=__version__,
    )


def _show(
    results: "Sequence[Sequence[Measurement]]", contrasts: "Contrasts", precision: float | None
) -> None:
    from edgepack.report.fleet_table import render_fleet
    from edgepack.report.measured import summarize_measurement
    from edgepack.report.terminal import render_benchmark

    is_many = len(results) > _MANY_DEVICES
    if is_many:
        print_table(render_fleet([each for measured in results for each in measured]))
    for measured in results:
        for measurement in () if is_many else measured:
            print_table(render_benchmark(summarize_measurement(measurement)))
        found = contrasts.get(measured[0].device_name)
        if found is None or isinstance(found, MeasureError):
            continue
        click.echo(describe_contrast(measured[0], measured[1], found))
        if precision is not None:
            more = "" if found.reach <= precision else "; give more time with --max-seconds"
            known = f"known to ±{found.reach:.2%}, and ±{precision:.2%} was asked for"
            click.echo(f"  The speed-up is {known}{more}.")
