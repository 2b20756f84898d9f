"""`edgepack doctor`: what stands in the way of a deployment, all of it at once."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json, print_table, show_work
from edgepack.commands.options import (
    android_runtime_from,
    connect_options_from,
    device_options,
    find_target,
    json_option,
    root_option,
    runtime_options,
)
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from edgepack.profile import TargetProfile
    from edgepack.workflow.preflight import Preflight


class SubjectFile(click.Path):
    """A bundle or model; a second device in its place is told as that."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Give the path of a file that exists."""
        text = os.fspath(value)
        if not Path(text).exists() and re.search(r"[:@]", text):
            self.fail(
                f"{text!r} is no file; doctor takes one device, and after it a bundle or a model.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


@click.command()
@click.argument("device", metavar="DEVICE")
@click.argument(
    "subject",
    type=SubjectFile(exists=True, dir_okay=False, path_type=Path),
    metavar="[BUNDLE|TFLITE]",
    required=False,
)
@click.option("--target", metavar="NAME", help="Target to compare with [default: the bundle's].")
@device_options
@root_option
@runtime_options
@json_option
def doctor(
    *, device: str, subject: Path | None, target: str | None, as_json: bool, **given: Any
) -> int:
    """Find what stands in the way of a deployment to a device, before anything is sent.

    With a bundle or model, also whether its ops, its memory and its target suit the device. Errors
    would stop a deployment or make it answer wrongly; warnings and notes do not.
    """
    from edgepack.device.runtime.provision import RunnerChoice
    from edgepack.workflow.preflight import examine, weigh_cargo
    from edgepack.workflow.site import default_root
    from edgepack.workflow.subject import open_subject

    opened = open_subject(subject) if subject is not None else None
    profile = find_target(target) or (opened.profile if opened is not None else None)
    with show_work() as work:
        preflight = examine(
            device,
            connect=connect_options_from(given, work),
            root=given["root"] or default_root(profile),
            profile=profile,
            cargo=weigh_cargo(opened.content) if opened is not None else None,
            runner=RunnerChoice(given["runner"] or "auto"),
            on_step=work.step,
            android=android_runtime_from(given),
        )
    if as_json:
        print_json(_to_json(preflight, profile))
    else:
        _show(preflight)
    return ExitCode.FAILURE if _count(preflight, "error") else ExitCode.DONE


def _count(preflight: "Preflight", severity: str) -> int:
    return sum(each.severity == severity for each in preflight.findings)


def _to_json(preflight: "Preflight", profile: "TargetProfile | None") -> dict[str, object]:
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


def _show(preflight: "Preflight") -> None:
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
    counts = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for word in ("error", "warning", "note")
        if (number := _count(preflight, word))
    ]
    verdict = "cannot be deployed to" if _count(preflight, "error") else "ready"
    click.echo(f"{verdict}: {', '.join(counts) or 'nothing to say'}")


def _table(preflight: "Preflight") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from edgepack.device.preflight.finding import Severity

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, is_last in (("severity", False), ("topic", False), ("what", True)):
        table.add_column(name, no_wrap=not is_last)
    for each in preflight.findings:
        said = f"expected {each.expected}, but {each.found}"
        if each.severity is Severity.ERROR:
            said = each.sentence or said
        # As text, not as markup: a device's words may hold brackets.
        what = Text(said if not each.fix else f"{said}\n{each.fix}")
        table.add_row(each.severity.value, each.topic.value, what)
    if preflight.fine:
        table.add_row("fine", "", ", ".join(preflight.fine))
    return table
