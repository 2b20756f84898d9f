"""`edgepack compare`: which of two stored results is faster, if their conditions match."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.commands.boundary import error_json
from edgepack.commands.console import note, print_json, warn
from edgepack.commands.fleet import about
from edgepack.commands.options import EXISTING_FILE, json_option
from edgepack.device.wire.address import subject
from edgepack.errors import ExitCode, MeasureError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgepack.measure.contrast import Contrast
    from edgepack.measure.pairing import Pairing
    from edgepack.measure.record import Measurement


@click.command()
@click.argument("first", type=EXISTING_FILE, metavar="RESULT")
@click.argument("second", type=EXISTING_FILE, metavar="RESULT")
@json_option
def compare(*, first: Path, second: Path, as_json: bool) -> int:
    """Say which of two results is faster, and how sure that is.

    Both are files of `bench -o`. Of a fleet they are compared device by device; one that is
    missing in either is told, and makes the exit code 1. Measurements under unlike conditions are
    refused with what differs. `bench --against` measures two models in
    turns, which tells smaller differences apart.
    """
    from edgepack.measure.pairing import pair_measurements
    from edgepack.measure.results import load_results

    results = [load_results(path) for path in (first, second)]
    ours, theirs = (each.measured for each in results)
    failed = {
        each.device: f"{each.reason} ({path})"
        for path, result in zip((first, second), results, strict=True)
        for each in result.failed
    }
    pairing = pair_measurements(ours, theirs, is_whole=not failed)
    if not failed and len(ours) == len(theirs) == 1:
        _compare_one(pairing.pairs[0], (first, second), as_json=as_json)
        return ExitCode.DONE
    if not pairing.pairs:
        raise MeasureError(
            f"expected results of the same devices, but {first} and {second} have none in common",
            remedy="Measure the same devices under the same names.",
        )
    return _compare_each(pairing, failed, as_json=as_json)


def _compare_one(
    pair: "tuple[Measurement, Measurement]", paths: tuple[Path, Path], *, as_json: bool
) -> None:
    from edgepack.measure.contrast import contrast, to_json
    from edgepack.measure.likeness import find_unlike
    from edgepack.report.labels import device_name

    ours, theirs = pair
    unlike = find_unlike(ours, theirs)
    if unlike:
        raise MeasureError(
            f"expected results that were measured under like conditions, but {paths[0]} and "
            f"{paths[1]} differ:\n" + "\n".join(f"  - {each}" for each in unlike),
            remedy="Measure both models in turns: `edgepack bench MODEL DEVICE --against OTHER`.",
        )
    found = contrast(ours.launch_samples_ns, theirs.launch_samples_ns, is_paired=False)
    if ours.device_name != theirs.device_name:
        names = " and ".join(device_name(each.device_name) for each in pair)
        warn(
            f"{names} are taken for one device, or two of a kind: what they say of themselves is "
            "alike"
        )
    if as_json:
        print_json(to_json(found) | {"devices": [each.device_name for each in pair]})
    else:
        click.echo(describe_contrast(ours, theirs, found))


def _compare_each(pairing: "Pairing", failed: "Mapping[str, str]", *, as_json: bool) -> int:
    """Compare device by device; 1 when one of them cannot be, or stands in one result only."""
    from edgepack.measure.contrast import contrast, to_json
    from edgepack.measure.likeness import find_unlike

    bodies: list[dict[str, object]] = []
    is_refused = False
    for ours, theirs in pairing.pairs:
        body: dict[str, object] = {"device": ours.device_name, "model": ours.model.name}
        unlike = find_unlike(ours, theirs)
        if unlike:
            is_refused = True
            note(
                f"{subject(ours.device_name)} measured under unlike conditions: {'; '.join(unlike)}"
            )
            bodies.append(body | {"unlike": list(unlike)})
            continue
        try:
            found = contrast(ours.launch_samples_ns, theirs.launch_samples_ns, is_paired=False)
        except MeasureError as error:
            is_refused = True
            note(f"{subject(ours.device_name)} {error.message}")
            bodies.append(body | {"error": error_json(error)})
            continue
        bodies.append(body | to_json(found))
        if not as_json:
            click.echo(describe_contrast(ours, theirs, found))
    for device, *model in pairing.alone:
        reason = f"only one of the results has {' '.join(model) or 'it'}"
        if device not in failed:
            note(f"{subject(device)} {reason}")
            bodies.append({"device": device, "missing": reason})
    for device, reason in failed.items():
        note(about(device, reason))
        bodies.append({"device": device, "missing": reason})
    is_refused = is_refused or bool(pairing.alone or failed)
    if as_json:
        print_json(bodies)
    return ExitCode.FAILURE if is_refused else ExitCode.DONE


def describe_contrast(first: "Measurement", second: "Measurement", found: "Contrast") -> str:
    """Say how the first model's latency stands to the second's, and what would tell more."""
    from edgepack.measure.contrast import TOLD_APART, Difference
    from edgepack.report.labels import device_name, model_name

    how = "in turns" if found.is_paired else "one after the other"
    ours, theirs = (model_name(each.model.name, each.model.recipe) for each in (first, second))
    here, there = (device_name(each.device_name) for each in (first, second))
    where = "" if here == there else f" on {here}"
    title = f"{ours}{where} against {theirs} on {there}"
    lines = [f"{title}: {found.text}, {found.num_launches} launches of each, {how}"]
    if found.difference is Difference.NONE:
        if found.num_more is None:
            lines.append(
                f"  A difference of {TOLD_APART:.0%} would take more launches than a plan may "
                f"have: the ratio is known to ±{found.reach:.1%} and the same model differs from "
                f"itself by {found.margin:.1%}. Let the device be quiet and cool."
            )
        elif found.num_more:
            lines.append(
                f"  A difference of {TOLD_APART:.0%} would show after about {found.num_more} more "
                "launches of each."
            )
    lines += [
        f"  {name} was {each.validity.verdict.value}: {'; '.join(each.validity.reasons)}"
        for name, each in ((ours, first), (theirs, second))
        if each.validity.reasons
    ]
    return "\n".join(lines)
