"""`edgepack bench`: the shortest way to a believable number."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.commands.console import note, print_json, print_table, show_work, warn
from edgepack.commands.fleet import fleet_json, run_each
from edgepack.commands.options import (
    EXISTING_FILE,
    OUTPUT_FILE,
    device_options,
    json_option,
    make_connect_options,
    make_plan,
    plan_options,
)
from edgepack.commands.output import write_report, write_text
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from edgepack.bundle.archive import Bundle
    from edgepack.cache import Cache
    from edgepack.device.connect import ConnectOptions
    from edgepack.measure.record import Measurement
    from edgepack.model import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is to be timed and what it is called."""

    name: str
    content: "Bundle | Model"


@click.command()
@click.argument("subject", type=EXISTING_FILE, metavar="MODEL|BUNDLE")
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@plan_options
@device_options
@click.option("-o", "--output", type=OUTPUT_FILE, help="Write the result, raw samples and all.")
@click.option("--report", "report_path", type=OUTPUT_FILE, help="Write an HTML report.")
@json_option
def bench(
    *,
    subject: Path,
    devices: tuple[str, ...],
    launches: int | None,
    runs: int | None,
    threads: int | None,
    max_seconds: float | None,
    ssh_config: Path | None,
    identity: Path | None,
    accept_new_host_key: bool,
    host_key: str | None,
    connect_timeout: float | None,
    root: str | None,
    output: Path | None,
    report_path: Path | None,
    as_json: bool,
) -> int:
    """Measure the latency of a .tflite model or a bundle on devices.

    The answers are checked before anything is timed; then fresh launches are timed, each
    after a warm-up, and the result says how far it can be trusted.
    """
    from edgepack.cache import Cache, cache_directory
    from edgepack.measure.record import to_json

    opened = open_subject(subject)
    connect = make_connect_options(
        ssh_config=ssh_config,
        identity=identity,
        accept_new_host_key=accept_new_host_key,
        host_key=host_key,
        connect_timeout=connect_timeout,
    )
    cache = Cache(root=cache_directory())

    def measure_on(address: str) -> "Measurement":
        return bench_one(
            opened,
            address,
            connect=connect,
            root=root,
            cache=cache,
            launches=launches,
            runs=runs,
            threads=threads,
            max_seconds=max_seconds,
        )

    reached = run_each(devices, measure_on)
    body = fleet_json(reached, to_json)
    measured = [each.result for each in reached if each.result is not None]
    if output is not None:
        write_text(output, json.dumps(body, allow_nan=False))
    if report_path is not None:
        write_report(report_path, summarize(measured))
    if as_json:
        print_json(body)
    else:
        _show(measured)
        for path in (output, report_path):
            if path is not None:
                note(f"wrote {path}")
    return ExitCode.FAILURE if any(each.error for each in reached) else ExitCode.DONE


def open_subject(path: Path) -> Subject:
    """Open what is to be timed, told apart by content.

    Raises:
        BundleError: a damaged bundle.
        ModelError: neither a bundle nor a usable TFLite model.
    """
    from edgepack.bundle.archive import open_bundle
    from edgepack.bundle.manifest import SUFFIX
    from edgepack.model import load_model

    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if path.suffix == SUFFIX or is_archive:
        bundle = open_bundle(path)
        return Subject(name=bundle.manifest.name, content=bundle)
    return Subject(name=path.name, content=load_model(path))


def bench_one(
    subject: Subject,
    address: str,
    *,
    connect: "ConnectOptions",
    root: str | None,
    cache: "Cache",
    launches: int | None,
    runs: int | None,
    threads: int | None,
    max_seconds: float | None,
) -> "Measurement":
    """Time a subject on one device, showing what is being done."""
    from edgepack.bundle.archive import Bundle
    from edgepack.profile import BenchmarkDefaults
    from edgepack.workflow.benching import bench_bundle, bench_model
    from edgepack.workflow.rig import open_rig

    content = subject.content
    profile = content.manifest.target if isinstance(content, Bundle) else None
    with (
        show_work() as work,
        open_rig(
            address,
            connect=connect,
            root=root,
            profile=profile,
            cache=cache,
            on_step=work.step,
            on_transfer=work.transfer,
        ) as rig,
    ):
        for warning in rig.warnings:
            warn(f"{rig.device.name}: {warning}")
        plan = make_plan(
            defaults=profile.benchmark if profile else BenchmarkDefaults(),
            num_threads=threads or rig.num_threads(profile),
            launches=launches,
            runs=runs,
            max_seconds=max_seconds,
        )
        if isinstance(content, Bundle):
            measurement, _ = bench_bundle(
                rig, content, plan=plan, on_step=work.step, on_transfer=work.transfer
            )
            return measurement
        return bench_model(
            rig,
            content,
            name=subject.name,
            plan=plan,
            on_step=work.step,
            on_transfer=work.transfer,
        )


def _show(measured: "list[Measurement]") -> None:
    from edgepack.report.adapt import summarize_measurement
    from edgepack.report.terminal import render_benchmark

    for measurement in measured:
        print_table(render_benchmark(summarize_measurement(measurement)))
