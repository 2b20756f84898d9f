"""`edgepack deploy`: the whole way, from a source model to numbers and a report."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.bench import bench_on, bench_report, warn_of_limits
from edgepack.commands.boundary import end_early
from edgepack.commands.console import note, print_json, print_table, warn
from edgepack.commands.contract_options import contract_options
from edgepack.commands.fleet import ReadyDevice, about, gather, item_json, ready_device, run_one
from edgepack.commands.fleet_options import (
    check_targets,
    choice_options,
    is_fleet,
    plan_from,
    read_devices,
)
from edgepack.commands.history import remember
from edgepack.commands.import_options import import_options, source_model
from edgepack.commands.named_shapes import naming_shape, path_for
from edgepack.commands.options import (
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
from edgepack.commands.pack import exit_code, pack_json, pack_summary, write_records
from edgepack.commands.pack_options import make_requests, pack_options
from edgepack.commands.push import (
    health_option,
    note_example,
    push_json,
    push_on,
    summarize_push,
)
from edgepack.commands.rollout import reach_options, roll_out, root_of
from edgepack.commands.signing_options import open_key, signers_options, trust_from
from edgepack.device.wire.address import subject
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgepack.bundle.archive import Bundle
    from edgepack.cache import Cache
    from edgepack.commands.fleet import Reached
    from edgepack.commands.rollout import Rolled
    from edgepack.errors import EdgePackError
    from edgepack.fleet.inventory import FleetDevice
    from edgepack.measure.record import Measurement
    from edgepack.report.summary import DeployReport
    from edgepack.signing.seal import Signed
    from edgepack.signing.signing_key import SigningKey
    from edgepack.workflow.deploying import Deployed
    from edgepack.workflow.request import PackRequest, PackResult
    from edgepack.workflow.trust import Trust


@click.command()
@click.argument("model", type=source_model)
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE|@FLEET.toml...")
@pack_options
@contract_options
@import_options
@choice_options
@device_options
@root_option
@runtime_options
@lock_option
@health_option
@signers_options
@plan_options
@click.option("-o", "--out", "output", type=click.Path(path_type=Path), help="Bundle to write.")
@click.option("--results", type=OUTPUT_FILE, help="Write the measurements, raw samples and all.")
@click.option(
    "--report",
    "report_path",
    type=OUTPUT_FILE,
    default=Path("report.html"),
    show_default=True,
    help="Report to write.",
)
@json_option
def deploy(
    *,
    model: Path,
    devices: tuple[str, ...],
    output: Path | None,
    results: Path | None,
    report_path: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """Pack a model, push it to devices, measure it there and write a report.

    Every variant inside the accuracy floors is measured on the first device, and the best one
    is packed for all. The others follow once it is done there, several at a time.
    """
    from edgepack.cache import Cache, cache_directory
    from edgepack.workflow.trust import check_key

    requests = make_requests(model, output, given)
    paths = [
        (path_for(report_path, name), path_for(results, name) if results is not None else None)
        for name, _ in requests
    ]
    recipes = [
        given["save_recipe"] and path_for(given["save_recipe"], name) for name, _ in requests
    ]
    for (page, records), recipe in zip(paths, recipes, strict=True):
        check_outputs(bundle=output or Path(), results=records, report=page, recipe=recipe)
    check_plan_options(given)
    chosen = read_devices(devices, given["filters"])
    if is_fleet(devices, given):
        check_targets(chosen, requests[0][1].profile.id)
    key = open_key(given["sign_key"]) if given["sign_key"] is not None else None
    trust = trust_from(given, target=requests[0][1].profile)
    check_key(key.public if key is not None else None, trust)
    cache = Cache(root=cache_directory())
    bodies: dict[str | None, dict[str, Any]] = {}
    codes: list[int] = []
    for (name, request), (page, records), recipe in zip(requests, paths, recipes, strict=True):
        with naming_shape(name, [Path(body["pack"]["bundle"]) for body in bodies.values()]):
            bodies[name], code = _deploy_one(
                request,
                chosen,
                given,
                key=key,
                trust=trust,
                cache=cache,
                page=page,
                records=records,
                recipe=recipe,
                as_json=as_json,
            )
        codes.append(code)
        if code == ExitCode.INTERRUPTED:
            break
    if as_json:
        print_json(bodies.get(None, {"shapes": bodies}))
    # A failure counts more than a limit that was not met.
    ends = (each for each in (ExitCode.INTERRUPTED, ExitCode.FAILURE) if each in codes)
    return next(ends, max(codes))


def _deploy_one(
    request: "PackRequest",
    devices: "tuple[FleetDevice, ...]",
    given: "Mapping[str, Any]",
    *,
    key: "SigningKey | None",
    trust: "Trust",
    cache: "Cache",
    page: Path,
    records: Path | None,
    recipe: Path | None,
    as_json: bool,
) -> tuple[dict[str, Any], int]:
    """Pack, push, measure and report one shape; give its JSON and its exit code."""
    from edgepack.workflow.packing import pack_model
    from edgepack.workflow.preflight import weigh_cargo
    from edgepack.workflow.rig import check_cargo
    from edgepack.workflow.trust import check_key, check_trust, device_trust

    head, *others = devices
    # One connection serves for choosing the variant and for deploying it on the first device.
    with ready_device(
        head.address,
        purpose="deploy",
        given={**given, "root": root_of(head, given)},
        profile=request.profile,
        cache=cache,
    ) as first:
        check_key(key.public if key is not None else None, device_trust(first.rig))
        packed = pack_model(
            request,
            cache=cache,
            rig=first.rig,
            on_step=first.work.step,
            on_progress=first.work.progress,
            sign=key.sign if key is not None else None,
        )
        note(f"wrote {packed.bundle.path}")
        write_records(request, packed, recipe=recipe, page=None)
        cargo, signed = weigh_cargo(packed.bundle), check_trust(packed.bundle, trust)

        def deploy_first(_address: str) -> "Deployed":
            check_cargo(first.rig, cargo)
            done = _deploy_on(first, packed, given)
            _keep(done)
            return done

        reached = [run_one(head.address, deploy_first, is_only=not others)]
    rolled = _deploy_to(others, packed.bundle, given) if others else None
    reached += rolled.reached if rolled is not None else ()
    report = _make_report(request, packed, reached)
    write_report(page, report)
    body = _deploy_json(request, packed, reached, page, signed)
    if records is not None:
        write_text(records, json.dumps(body["bench"], allow_nan=False))
    if not as_json:
        _show(report, packed, reached, page=page)
        if records is not None:
            note(f"wrote {records}")
    if rolled is not None and rolled.fault is not None:
        return body, end_early(rolled.fault)
    return body, _exit_code(packed, reached, strict=given["strict"])


def _show(
    report: "DeployReport",
    packed: "PackResult",
    reached: "Sequence[Reached[Deployed]]",
    *,
    page: Path,
) -> None:
    from edgepack.report.terminal import render_report

    # The report holds the warnings too: on a terminal both would be read.
    for warning in () if sys.stdout.isatty() else packed.warnings:
        warn(warning)
    print_table(render_report(report))
    click.echo(f"bundle: {packed.bundle.path}")
    click.echo(f"report: {page.resolve()}")
    for each in reached:
        if each.result is not None:
            note_example(each.result.push)


def _keep(done: "Deployed") -> None:
    """Remember a measurement, or say why there is none."""
    if done.measurement is not None:
        remember([done.measurement])
    if done.error is not None:
        note(about(done.push.device, done.error.message))
        note(f"  {done.error.remedy}")


def _deploy_to(
    devices: "Sequence[FleetDevice]", bundle: "Bundle", given: "Mapping[str, Any]"
) -> "Rolled[Deployed]":
    """Push to the devices behind the first and measure there, several at a time."""
    from edgepack.workflow.deploying import DeployTask, deploy_task

    reach, wishes = reach_options(given), wishes_from(given)
    tasks = [
        DeployTask(
            bundle=(bundle.path.resolve(), bundle.file_sha256),
            address=each.address,
            root=root_of(each, given),
            reach=reach,
            health_check=given["health_check"],
            wishes=wishes,
        )
        for each in devices
    ]
    rolled = roll_out(
        tasks,
        deploy_task,
        plan=plan_from(devices, given),
        given=given,
        on_done=_keep,
    )
    for each in rolled.outcomes:
        for warning in each.result.push.warnings if each.result is not None else ():
            warn(f"{subject(each.device)} {warning}")
    return rolled


def _fault_of(reached: "Reached[Deployed]") -> "EdgePackError | None":
    return reached.error if reached.result is None else reached.result.error


def _measured(reached: "Sequence[Reached[Deployed]]") -> "list[Measurement]":
    results = (each.result.measurement for each in reached if each.result is not None)
    return [each for each in results if each is not None]


def _measurements(reached: "Sequence[Reached[Deployed]]") -> "list[Reached[Measurement]]":
    """Give the measurements alone: of a device that was pushed to there may be none."""
    from edgepack.commands.fleet import Reached

    return [
        Reached(
            device=each.device,
            result=None if each.result is None else each.result.measurement,
            error=_fault_of(each),
        )
        for each in reached
    ]


def _exit_code(
    packed: "PackResult", reached: "Sequence[Reached[Deployed]]", *, strict: bool
) -> int:
    if any(_fault_of(each) for each in reached):
        return ExitCode.FAILURE
    from edgepack.workflow.subject import Subject

    content = Subject(name=packed.bundle.manifest.name, content=packed.bundle)
    exceeded = [warn_of_limits(content, each) for each in _measured(reached)]  # each is told
    return ExitCode.LIMIT if any(exceeded) else exit_code(packed, strict=strict)


def _deploy_on(ready: ReadyDevice, packed: "PackResult", given: "Mapping[str, Any]") -> "Deployed":
    from edgepack.workflow.deploying import measure_deployed
    from edgepack.workflow.subject import Subject

    bundle = packed.bundle
    pushed = push_on(ready, bundle, given)
    content = Subject(name=bundle.manifest.name, content=bundle)
    return measure_deployed(pushed, lambda: bench_on(ready, content, given))


def _make_report(
    request: "PackRequest", packed: "PackResult", reached: "Sequence[Reached[Deployed]]"
) -> "DeployReport":
    from dataclasses import replace

    from edgepack.report.summary import PushSummary

    done = [each.result for each in reached if each.result is not None]
    failed = [(each.device, each.error.message) for each in reached if each.error is not None]
    name = packed.bundle.manifest.name
    run = gather(_measured(reached), _measurements(reached))
    return replace(
        bench_report(name, [run]),
        title=f"{name} on {request.profile.id}",
        pack=pack_summary(request, packed),
        pushes=(
            *(summarize_push(each.push) for each in done),
            *(PushSummary(device=device, error=message) for device, message in failed),
        ),
    )


def _deploy_json(
    request: "PackRequest",
    packed: "PackResult",
    reached: "Sequence[Reached[Deployed]]",
    report_path: Path,
    signed: "Signed | None",
) -> dict[str, Any]:
    from edgepack.measure.record import to_json

    return {
        "pack": pack_json(request, packed),
        "push": [item_json(each, lambda done: push_json(done.push, signed)) for each in reached],
        "bench": [item_json(each, to_json) for each in _measurements(reached)],
        "report": str(report_path.resolve()),
    }
