"""`edgepack targets`: what kinds of devices are known, and drafting a profile of another."""

from pathlib import Path
from typing import Any

import click

from edgepack.commands.console import LIST_WIDTH, note, print_json, print_table, show_work, warn
from edgepack.commands.options import connect_options_from, device_options, json_option
from edgepack.errors import ExitCode


@click.group()
def targets() -> None:
    """List, show, check and draft target profiles."""


@targets.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List the built-in targets and your own."""
    from edgepack.catalog import list_profiles, user_profile_directory

    listed = list_profiles(user_directory=user_profile_directory())
    if as_json:
        print_json(
            [
                {
                    "id": each.id,
                    "description": each.profile.description if each.profile else None,
                    "arch": each.profile.hardware.arch.value if each.profile else None,
                    "origin": each.kind.value,
                    "path": str(each.path) if each.path else None,
                    "shadows_built_in": each.shadows_built_in,
                    "error": each.fault or None,
                }
                for each in listed
            ]
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("target", "arch", "cores", "RAM", "what it is"):
        right = column in {"cores", "RAM"}
        # In a narrow terminal the description wraps, and nothing is cut off.
        is_last = column == "what it is"
        table.add_column(column, justify="right" if right else "left", no_wrap=not is_last)
    for each in listed:
        if each.profile is None:
            warn(f"{each.path}: {each.fault}")
            continue
        hardware = each.profile.hardware
        own = "" if each.path is None else f" ({each.path})"
        table.add_row(
            each.id,
            hardware.arch.value,
            str(hardware.num_cores),
            f"{hardware.ram_mib} MiB",
            each.profile.description + own,
        )
        if each.shadows_built_in:
            warn(f"{each.path} hides the built-in target {each.id}")
    print_table(table, width=LIST_WIDTH)


@targets.command("show")
@click.argument("name")
@json_option
def show_command(*, name: str, as_json: bool) -> None:
    """Show a target's TOML text; NAME is an id or the path of a file."""
    from edgepack.catalog import find_profile, user_profile_directory
    from edgepack.profile import profile_to_json

    profile, origin = find_profile(name, user_directory=user_profile_directory())
    if origin.shadows_built_in:
        warn(f"{origin.path} hides the built-in target {profile.id}")
    if as_json:
        body = profile_to_json(profile)
        print_json({**body, "origin": origin.kind.value})
        return
    click.echo(f"# {profile.id} ({origin.path or origin.kind.value})")
    click.echo(origin.text, nl=False)


@targets.command("check")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@json_option
def check_command(*, files: tuple[Path, ...], as_json: bool) -> int:
    """Check target profiles of your own; all faults of all files are told."""
    from edgepack.catalog import find_profile
    from edgepack.errors import ProfileError

    faults: dict[Path, ProfileError | None] = {}
    for path in files:
        try:
            find_profile(str(path.absolute()), user_directory=None)
            faults[path] = None
        except ProfileError as error:
            faults[path] = error
    if as_json:
        print_json(
            [
                {"path": str(path), "id": path.stem, "error": fault.message if fault else None}
                for path, fault in faults.items()
            ]
        )
    else:
        for path, fault in faults.items():
            if fault is None:
                click.echo(f"{path}: a valid target profile")
            else:
                note(f"{path}: {fault.message}")
                note(f"  {fault.remedy}")
    return ExitCode.FAILURE if any(faults.values()) else ExitCode.DONE


@targets.command("probe")
@click.argument("device", metavar="DEVICE")
@device_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, or a folder for ID.toml; without it the profile is printed.",
)
@click.option("--id", "profile_id", metavar="NAME", help="The profile's id [default: the board's].")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def probe_command(
    *,
    device: str,
    output: Path | None,
    profile_id: str | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Draft a target profile from what a device says of itself.

    Comments tell what was read and what is a default that you should look at.
    """
    from edgepack.catalog import user_profile_directory
    from edgepack.commands.output import write_text
    from edgepack.device.preflight.draft import draft_profile, suggest_id
    from edgepack.device.survey.facts import read_facts
    from edgepack.device.wire.connect import open_device
    from edgepack.profile import profile_to_json
    from edgepack.workflow.site import DEFAULT_ROOT

    is_file = output is not None and not output.is_dir()
    if is_file:
        _check_name(output, profile_id)
        _check_free(output, force=force)
    with show_work() as work:
        work.step(f"connecting to {device}")
        with open_device(device, options=connect_options_from(given, work)) as opened:
            facts = read_facts(opened, DEFAULT_ROOT)
    name = profile_id or (output.stem if is_file and output is not None else suggest_id(facts))
    profile, text = draft_profile(facts, profile_id=name)
    path = output if is_file or output is None else output / f"{name}.toml"
    if path is not None:
        _check_free(path, force=force)
        write_text(path, text)
    if as_json:
        body = profile_to_json(profile)
        print_json({"id": name, "path": str(path) if path else None, "profile": body})
    elif path is None:
        click.echo(f"# {name}")
        click.echo(text, nl=False)
    if path is not None:
        note(f"wrote {path}; look at what is marked default, then give it as --target {path}")
        note(f"in {user_profile_directory()} it is known by its name")


def _check_name(path: Path | None, profile_id: str | None) -> None:
    from edgepack.errors import UsageError

    if path is None:
        return
    if path.suffix != ".toml":
        raise UsageError(
            f"{path}: expected a name that ends in .toml",
            remedy="A profile's id is its file's name without .toml.",
        )
    if profile_id is not None and profile_id != path.stem:
        raise UsageError(
            f"--id {profile_id}: expected the file's name without .toml, which is {path.stem!r}",
            remedy="Give the one or the other, or a folder with -o.",
        )


def _check_free(path: Path | None, *, force: bool) -> None:
    from edgepack.errors import OutputError

    if path is not None and path.exists() and not force:
        raise OutputError(
            f"{path}: expected a free name, but a file is there",
            remedy="Give another name, or --force to replace it.",
        )
