"""What `doctor` shows: of one device all it found, of many what stands in the way."""

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import click

from edgepack.commands.console import LIST_WIDTH, print_table
from edgepack.commands.fleet_view import count_devices
from edgepack.device.wire.address import subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from edgepack.device.preflight.finding import Finding
    from edgepack.profile import TargetProfile
    from edgepack.workflow.preflight import Preflight

_NUM_NAMED: Final = 4
_REFUSED: Final = "cannot be deployed to"


def count_findings(preflight: "Preflight", severity: str) -> int:
    """Count the findings of `error`, `warning` or `note`."""
    return sum(each.severity == severity for each in preflight.findings)


def preflight_json(preflight: "Preflight", profile: "TargetProfile | None") -> dict[str, object]:
    """Give the JSON form that `doctor --json` prints."""
    from edgepack.device.survey import facts as device_facts

    runtime = preflight.runtime
    return {
        "device": preflight.device,
        "target": profile.id if profile is not None else None,
        "facts": device_facts.to_json(preflight.facts) if preflight.facts is not None else None,
        "runtime": None
        if runtime is None
        else {
            "name": runtime.name,
            "version": runtime.version,
            "native": runtime.is_native,
            "installed": preflight.is_installed,
        },
        "findings": [each.to_json() for each in preflight.findings],
        "fine": [each.value for each in preflight.fine],
    }


def show_preflight(preflight: "Preflight") -> None:
    """Show all that was found of a device."""
    facts, runtime = preflight.facts, preflight.runtime
    if facts is not None:
        version = ".".join(map(str, facts.python.version)) if facts.python else None
        parts = (facts.board, facts.os_name or facts.system, facts.arch)
        click.echo(f"{preflight.device}  {', '.join(part for part in parts if part)}")
        if runtime is not None:
            how = "without Python" if runtime.is_native else f"for Python {version}"
            state = "installed" if preflight.is_installed else "to be sent"
            click.echo(f"runtime  {runtime.label} {how}, {state}")
        click.echo()
    if preflight.findings or preflight.fine:
        print_table(_table(preflight))
        click.echo()
    click.echo(f"{_verdict(preflight)}: {_counts(preflight)}")


def _verdict(preflight: "Preflight") -> str:
    return _REFUSED if count_findings(preflight, "error") else "ready"


def _counts(preflight: "Preflight") -> str:
    counts = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for word in ("error", "warning", "note")
        if (number := count_findings(preflight, word))
    ]
    return ", ".join(counts) or "nothing to say"


def show_preflights(preflights: "Sequence[Preflight]") -> None:
    """Show how each device stands, then each error and warning once, with whom it is about."""
    from rich.table import Table
    from rich.text import Text

    if not preflights:
        return
    devices = Table(box=None, pad_edge=False, show_header=False)
    for each in preflights:
        board = None if each.facts is None else each.facts.board or each.facts.arch
        cells = (each.device, _verdict(each), _counts(each), board or "")
        devices.add_row(*map(Text, cells))
    print_table(devices, width=LIST_WIDTH)
    about: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for each in preflights:
        for finding in each.findings:
            if finding.severity.value != "note":
                # Without its name before it, what two devices lack is the same.
                said = _said(finding).removeprefix(subject(each.device)).lstrip()
                about[finding.severity.value, finding.topic.value, said].append(each.device)
    if about:
        click.echo()
        print_table(_shared_table(about))
    click.echo()
    refused = sum(_verdict(each) == _REFUSED for each in preflights)
    ready = len(preflights) - refused
    click.echo(f"{ready} of {count_devices(len(preflights))} ready")


def _shared_table(about: "dict[tuple[str, str, str], list[str]]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for is_last in (False, False, True):
        table.add_column(no_wrap=not is_last)
    for (severity, topic, said), names in sorted(about.items(), key=lambda item: item[0][0]):
        more = len(names) - _NUM_NAMED
        named = ", ".join(names[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
        table.add_row(severity, topic, Text(f"{named}\n{said}"))
    return table


def _said(finding: "Finding") -> str:
    from edgepack.device.preflight.finding import Severity

    said = f"expected {finding.expected}, but {finding.found}"
    if finding.severity is Severity.ERROR:
        said = finding.sentence or said
    return said if not finding.fix else f"{said}\n{finding.fix}"


def _table(preflight: "Preflight") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, is_last in (("severity", False), ("topic", False), ("what", True)):
        table.add_column(name, no_wrap=not is_last)
    for each in preflight.findings:
        # As text, not as markup: a device's words may hold brackets.
        table.add_row(each.severity.value, each.topic.value, Text(_said(each)))
    if preflight.fine:
        table.add_row("fine", "", ", ".join(preflight.fine))
    return table
