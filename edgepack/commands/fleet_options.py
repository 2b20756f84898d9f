"""Options of verbs that work on many devices, and the devices they mean."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.commands.options import apply_options
from edgepack.errors import FleetError, UsageError

if TYPE_CHECKING:
    from edgepack.fleet.inventory import FleetDevice
    from edgepack.fleet.rollout import Plan

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_JOBS: Final = 32
_NUM_SHOWN: Final = 5


def choice_options(function: F) -> F:
    """Add the options that say which devices of a fleet, and how many at a time."""
    return apply_options(
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only devices of @FLEET.toml with this tag, target, address or fact, such as "
            "tag=kitchen; KEY!=VALUE means all others. May be repeated: all must hold.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1, 10_000),
            help=f"Devices at a time [default: {_DEFAULT_JOBS}].",
        ),
    )(function)


def fleet_options(function: F) -> F:
    """Add `choice_options`, and those that say who goes first and when to stop."""
    return apply_options(
        choice_options,
        click.option(
            "--canary",
            is_flag=True,
            help="One device first, then a tenth of them, then the rest; stop at a failure.",
        ),
        click.option(
            "--waves",
            metavar="SIZES",
            help="Sizes of the first waves, as numbers or shares, such as 2,10%,50%.",
        ),
        click.option(
            "--max-failures",
            metavar="NUMBER",
            help="Begin no further device after more failures than this, a number or a share "
            "[default: 0 in waves, otherwise go on].",
        ),
    )(function)


def journal_options(function: F) -> F:
    """Add the options of a journal and of a cluster."""
    return apply_options(
        click.option(
            "--journal",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.jsonl",
            help="Where each finished device is written down at once [default, with "
            "@FLEET.toml: in EdgePack's data folder].",
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on from the journal: what was measured is not measured again, and what was "
            "pushed to is only asked whether that is current.",
        ),
        click.option(
            "--scheduler",
            metavar="tcp://HOST:PORT",
            help="Let the workers of a Dask cluster reach the devices.",
        ),
    )(function)


def is_fleet(devices: Sequence[str], given: Mapping[str, Any]) -> bool:
    """Tell whether several devices are meant, or one is to be treated as if."""
    names = ("filters", "canary", "waves", "max_failures", "journal", "resume", "scheduler")
    return (
        len(devices) > 1
        or any(each.startswith("@") for each in devices)
        or any(given.get(name) for name in names)
    )


def read_devices(devices: Sequence[str], filters: Sequence[str]) -> "tuple[FleetDevice, ...]":
    """Read the devices the user named: addresses, and fleets as `@FILE`.

    Raises:
        FleetError: a fleet file with faults, a device that stands twice, or none is left.
    """
    from edgepack.fleet.inventory import FleetDevice
    from edgepack.fleet.selection import parse_filter, select

    conditions = [parse_filter(each) for each in filters]
    found: list[FleetDevice] = []
    for text in devices:
        if text.startswith("@"):
            found.extend(_read_file(Path(text[1:])))
        else:
            found.append(FleetDevice(address=text))
    twice = [each for each, count in Counter(one.address for one in found).items() if count > 1]
    if twice:
        raise FleetError(
            f"expected each device once, but {_listing(twice)} came twice",
            remedy="Leave one out: two pushes to one device would wait for each other.",
        )
    return select(found, conditions) if conditions else tuple(found)


def _read_file(path: Path) -> "tuple[FleetDevice, ...]":
    from edgepack.fleet.inventory import MAXIMUM_FILE_BYTES, parse_fleet

    remedy = "Write @ and the path of a fleet file; docs/fleets.md has an example."
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_FILE_BYTES + 1)
        if len(data) > MAXIMUM_FILE_BYTES:
            raise FleetError(f"{path}: the fleet file is too large", remedy=remedy)
        text = data.decode()
    except OSError as error:
        raise FleetError(
            f"{path}: the fleet file cannot be read: {error.strerror}", remedy=remedy
        ) from error
    except UnicodeDecodeError as error:
        raise FleetError(f"{path}: the fleet file is not UTF-8: {error}", remedy=remedy) from error
    return parse_fleet(text, name=str(path))


def check_targets(devices: "Sequence[FleetDevice]", target: str) -> None:
    """Refuse devices that are said to be of another target than the bundle is for.

    Raises:
        FleetError: naming them.
    """
    others = [each for each in devices if each.target not in {None, target}]
    if others:
        shown = _listing([f"{each.address} ({each.target})" for each in others])
        raise FleetError(
            f"the bundle is for {target}, but {len(others)} of {len(devices)} devices are of "
            f"another target: {shown}",
            remedy=f"Add --filter target={target}, and push the others a bundle of their own.",
        )


def _listing(words: Sequence[str]) -> str:
    more = len(words) - _NUM_SHOWN
    return ", ".join(words[:_NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")


def plan_from(devices: "Sequence[FleetDevice]", given: Mapping[str, Any]) -> "Plan":
    """Make the plan of a rollout.

    Raises:
        UsageError: options that contradict each other, or no such sizes.
    """
    from edgepack.fleet.retry import RetryPolicy
    from edgepack.fleet.rollout import Plan
    from edgepack.fleet.waves import CANARY, Amount, parse_amount, parse_waves

    canary, sizes, most = (given.get(each) for each in ("canary", "waves", "max_failures"))
    if canary and sizes:
        raise UsageError(
            "--canary and --waves both say what goes first", remedy="Leave one of them out."
        )
    waves: tuple[Amount, ...] = CANARY if canary else ()
    if sizes:
        waves = parse_waves(sizes)
    limit = parse_amount(most) if most is not None else None
    if limit is None and waves:
        limit = Amount(value=0)
    return Plan(
        devices=tuple(each.address for each in devices),
        num_jobs=given["jobs"] or _DEFAULT_JOBS,
        waves=waves,
        max_failures=limit,
        retry=RetryPolicy(),
    )
