"""`edgepack compare`: which of two stored results is faster, if their conditions match."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.commands.console import print_json
from edgepack.commands.options import EXISTING_FILE, json_option
from edgepack.errors import MeasureError

if TYPE_CHECKING:
    from edgepack.measure.contrast import Contrast
    from edgepack.measure.record import Measurement


@click.command()
@click.argument("first", type=EXISTING_FILE, metavar="RESULT")
@click.argument("second", type=EXISTING_FILE, metavar="RESULT")
@json_option
def compare(*, first: Path, second: Path, as_json: bool) -> None:
    """Say which of two results is faster, and how sure that is.

    Both are files of `bench -o` with one measurement each, of one device under like conditions;
    others are refused with what differs. `bench --against` measures two models in turns, which
    tells smaller differences apart.
    """
    from edgepack.measure.contrast import contrast, to_json
    from edgepack.measure.likeness import find_unlike

    ours, theirs = (_load(path) for path in (first, second))
    unlike = find_unlike(ours, theirs)
    if unlike:
        raise MeasureError(
            f"expected results that were measured under like conditions, but {first} and {second} "
            "differ:\n" + "\n".join(f"  - {each}" for each in unlike),
            remedy="Measure both models in turns: `edgepack bench MODEL DEVICE --against OTHER`.",
        )
    found = contrast(ours.launch_samples_ns, theirs.launch_samples_ns, is_paired=False)
    if as_json:
        print_json(to_json(found))
    else:
        click.echo(describe_contrast(ours, theirs, found))


def _load(path: Path) -> "Measurement":
    from edgepack.measure.record import load_measurements

    measured = load_measurements(path)
    if len(measured) != 1:
        raise MeasureError(
            f"{path}: expected one measurement, but it holds {len(measured)}",
            remedy="Measure one model on one device at a time, with `edgepack bench -o FILE`.",
        )
    return measured[0]


def describe_contrast(first: "Measurement", second: "Measurement", found: "Contrast") -> str:
    """Say how the first model's latency stands to the second's, and what would tell more."""
    from edgepack.measure.contrast import TOLD_APART, Difference
    from edgepack.report.labels import device_name, model_name

    how = "in turns" if found.is_paired else "one after the other"
    ours, theirs = (model_name(each.model.name, each.model.recipe) for each in (first, second))
    title = f"{ours} against {theirs} on {device_name(first.device_name)}"
    lines = [f"{title}: {found.text}, {found.num_launches} launches of each, {how}"]
    if found.difference is Difference.NONE:
        if found.num_more is None:
            lines.append(
                f"  A difference of {TOLD_APART:.0%} cannot be told here: the same model differs "
                f"from itself by {found.margin:.1%}. Let the device be quiet and cool."
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
