"""`edgepack bench`: the shortest way to a believable number."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgepack.commands.compare import describe_contrast
from edgepack.commands.console import note, print_json, print_table, warn
from edgepack.commands.fleet import ReadyDevice, fleet_json, ready_device, run_each
from edgepack.commands.history import remember
from edgepack.commands.options import (
    EXISTING_FILE,
    OUTPUT_FILE,
    check_plan_options,
    device_options,
    json_option,
    lock_option,
    plan_from,
    plan_options,
    root_option,
    runtime_options,
)
from edgepack.commands.output import check_outputs, write_report, write_text
from edgepack.errors import ExitCode, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgepack.bundle.archive import Bundle
    from edgepack.measure.bench import TimedModel
    from edgepack.measure.contrast import Contrast
    from edgepack.measure.plan import BenchmarkPlan
    from edgepack.measure.record import Measurement
    from edgepack.model import Model
    from edgepack.profile import TargetProfile
    from edgepack.report.summary import DeployReport

_SOURCES: Final = frozenset({".keras", ".h5", ".hdf5", ".onnx"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is to be timed and what it is called."""

    name: str
    content: "Bundle | Model"

    @property
    def profile(self) -> "TargetProfile | None":
        """The target of a bundle."""
        from edgepack.bundle.archive import Bundle

        return self.content.manifest.target if isinstance(self.content, Bundle) else None


@click.command()
@click.argument("subject", type=EXISTING_FILE, metavar="TFLITE|BUNDLE")
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@plan_options
@device_options
@root_option
@runtime_options
@lock_option
@click.option(
    "--against",
    type=EXISTING_FILE,
    metavar="TFLITE|BUNDLE",
    help="Measure this one too, in launches that take turns, and say which is faster.",
)
@click.option("-o", "--output", type=OUTPUT_FILE, help="Write the result, raw samples and all.")
@click.option("--report", "report_path", type=OUTPUT_FILE, help="Write an HTML report.")
@json_option
def bench(
    *,
    subject: Path,
    devices: tuple[str, ...],
    against: Path | None,
    output: Path | None,
    report_path: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure the latency of a .tflite model or a bundle on devices.

    The answers are checked before anything is timed; then fresh launches are timed, each
    after a warm-up, and the result says how far it can be trusted.
    """
    from edgepack.cache import Cache, cache_directory
    from edgepack.measure.record import to_json
    from edgepack.workflow.preflight import weigh_cargo

    check_plan_options(given)
    check_outputs(results=output, report=report_path)
    if against is not None and given["sustained"] is not None:
        raise UsageError(
            "--against compares launches in turns, and --sustained makes one of each",
            remedy="Measure them one after the other, when the device has cooled.",
        )
    opened = open_subject(subject)
    other = None if against is None else open_subject(against)
    cargo = weigh_cargo(opened.content)
    cache = Cache(root=cache_directory())

    def bench_one(address: str) -> "tuple[Measurement, ...]":
        with ready_device(
            address,
            purpose="bench",
            given=given,
            profile=opened.profile,
            cache=cache,
            cargo=cargo,
        ) as ready:
            if other is not None:
                return bench_against(ready, opened, other, given)
            return (bench_on(ready, opened, given),)

    reached = run_each(devices, bench_one)
    results = [each.result for each in reached if each.result is not None]
    measured = [each for result in results for each in result]
    remember(measured)
    body = fleet_json(reached, _to_json)
    stored = body if other is None else [to_json(each) for each in measured]
    if output is not None:
        write_text(output, json.dumps(stored, allow_nan=False))
    if report_path is not None:
        write_report(report_path, bench_report(opened.name, measured))
    if as_json:
        print_json(body)
    else:
        _show(results, given["precision"])
        for path in (output, report_path):
            if path is not None:
                note(f"wrote {path}")
    if any(each.error for each in reached):
        return ExitCode.FAILURE
    exceeded = [warn_of_limits(opened, result[0]) for result in results]
    return ExitCode.LIMIT if any(exceeded) else ExitCode.DONE


def _contrast(pair: "Sequence[Measurement]") -> "Contrast":
    from edgepack.measure.contrast import contrast

    ours, theirs = (each.launch_samples_ns for each in pair)
    return contrast(ours, theirs, is_paired=True)


def _to_json(measured: "Sequence[Measurement]") -> dict[str, object]:
    """Give the JSON of a measurement, or of two and how they stand to each other."""
    from edgepack.measure import contrast
    from edgepack.measure.record import to_json

    if len(measured) == 1:
        return to_json(measured[0])
    return {
        "device": measured[0].device_name,
        "contrast": contrast.to_json(_contrast(measured)),
        "measurements": [to_json(each) for each in measured],
    }


def warn_of_limits(subject: Subject, measurement: "Measurement") -> bool:
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


def open_subject(path: Path) -> Subject:
    """Open what is to be timed, told apart by content.

    Raises:
        BundleError: a damaged bundle.
        ModelError: neither a bundle nor a usable TFLite model.
    """
    from edgepack.bundle.archive import open_bundle
    from edgepack.bundle.manifest import SUFFIX
    from edgepack.model import load_model

    if path.suffix.lower() in _SOURCES:
        raise ModelError(
            f"{path}: expected a .tflite model or a bundle, but this is the format of a source "
            "model",
            remedy=f"Run `edgepack pack {path.name} --target NAME` first; `edgepack deploy` packs, "
            "pushes and measures in one.",
        )
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if path.suffix == SUFFIX or is_archive:
        bundle = open_bundle(path)
        return Subject(name=bundle.manifest.name, content=bundle)
    return Subject(name=path.name, content=load_model(path))


def bench_on(ready: ReadyDevice, subject: Subject, given: Mapping[str, Any]) -> "Measurement":
    """Time a subject on a device that was made ready."""
    from edgepack.workflow.benching import bench_placed

    return bench_placed(
        ready.rig,
        _place(ready, subject),
        plan=_plan(ready, subject, given),
        on_step=ready.work.step,
    )


def bench_against(
    ready: ReadyDevice, first: Subject, second: Subject, given: Mapping[str, Any]
) -> "tuple[Measurement, Measurement]":
    """Time two subjects on a device in launches that take turns, by the first one's plan."""
    from edgepack.workflow.benching import bench_in_turns

    return bench_in_turns(
        ready.rig,
        (_place(ready, first), _place(ready, second)),
        plan=_plan(ready, first, given),
        on_step=ready.work.step,
    )


def _plan(ready: ReadyDevice, subject: Subject, given: Mapping[str, Any]) -> "BenchmarkPlan":
    from edgepack.profile import BenchmarkDefaults

    profile = subject.profile
    return plan_from(
        given,
        defaults=profile.benchmark if profile else BenchmarkDefaults(),
        num_threads=ready.rig.num_threads(profile),
    )


def _place(ready: ReadyDevice, subject: Subject) -> "TimedModel":
    from edgepack.bundle.archive import Bundle
    from edgepack.workflow.benching import place_model, place_release

    rig, work = ready.rig, ready.work
    if isinstance(subject.content, Bundle):
        return place_release(rig, subject.content, on_step=work.step, on_transfer=work.transfer)
    return place_model(
        rig,
        subject.content,
        name=subject.name,
        on_step=work.step,
        on_transfer=work.transfer,
    )


def bench_report(title: str, measured: "Sequence[Measurement]") -> "DeployReport":
    """Give the report of measurements alone."""
    from edgepack import __version__
    from edgepack.report.measured import summarize_measurement
    from edgepack.report.summary import DeployReport

    return DeployReport(
        title=title,
        benchmarks=tuple(summarize_measurement(each) for each in measured),
        created=max((each.provenance.time for each in measured), default=""),
        tool_version=__version__,
    )


def _show(results: "Sequence[Sequence[Measurement]]", precision: float | None) -> None:
    from edgepack.report.measured import summarize_measurement
    from edgepack.report.terminal import render_benchmark

    for measured in results:
        for measurement in measured:
            print_table(render_benchmark(summarize_measurement(measurement)))
        if len(measured) > 1:
            found = _contrast(measured)
            click.echo(describe_contrast(measured[0], measured[1], found))
            if precision is not None:
                more = "" if found.reach <= precision else "; give more time with --max-seconds"
                known = f"known to ±{found.reach:.2%}, and ±{precision:.2%} was asked for"
                click.echo(f"  The speed-up is {known}{more}.")
