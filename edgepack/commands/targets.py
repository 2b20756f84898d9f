"""`edgepack targets`: what kinds of devices are known."""

import click

from edgepack.commands.console import LIST_WIDTH, print_json, print_table, warn
from edgepack.commands.options import json_option


@click.group()
def targets() -> None:
    """List and show target profiles."""


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
