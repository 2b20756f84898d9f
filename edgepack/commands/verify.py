"""`edgepack verify`: is this bundle, bit by bit, what was packed?"""

from pathlib import Path

import click

from edgepack.commands.console import print_json
from edgepack.commands.options import EXISTING_FILE, json_option
from edgepack.errors import ExitCode


@click.command()
@click.argument("bundle", type=EXISTING_FILE)
@json_option
def verify(*, bundle: Path, as_json: bool) -> int:
    """Check a bundle bit by bit and list every fault."""
    from edgepack.bundle.archive import open_bundle, verify_bundle

    faults = verify_bundle(bundle)
    release = "" if faults else open_bundle(bundle).release
    if as_json:
        print_json({"bundle": str(bundle), "faults": list(faults), "release": release or None})
    elif faults:
        click.echo(f"{bundle}: {len(faults)} fault{'s' if len(faults) > 1 else ''}")
        for fault in faults:
            click.echo(f"  - {fault}")
    else:
        click.echo(f"{bundle}: whole, release {release}")
    return ExitCode.FAILURE if faults else ExitCode.DONE
