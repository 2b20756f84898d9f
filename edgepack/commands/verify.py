"""`edgepack verify`: is this bundle, bit by bit, what was packed, and who signed it?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json
from edgepack.commands.options import EXISTING_FILE, json_option
from edgepack.commands.signing_options import signed_json, signers_options, trust_from
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from edgepack.signing.seal import Signed
    from edgepack.workflow.trust import Trust


@click.command()
@click.argument("bundle", type=EXISTING_FILE)
@signers_options
@json_option
def verify(*, bundle: Path, as_json: bool, **given: Any) -> int:
    """Check a bundle bit by bit and list every fault.

    With --allowed-signers or --signer, also who signed it.
    """
    from edgepack.bundle.archive import open_bundle, verify_bundle
    from edgepack.workflow.trust import check_trust

    trust = trust_from(given, target=None)
    faults = verify_bundle(bundle)
    release, signed = "", None
    if not faults:
        opened = open_bundle(bundle)
        release = opened.release
        signed = check_trust(opened, trust)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "faults": list(faults),
                "release": release or None,
                "signature": signed_json(signed),
            }
        )
    elif faults:
        click.echo(f"{bundle}: {len(faults)} fault{'s' if len(faults) > 1 else ''}")
        for fault in faults:
            click.echo(f"  - {fault}")
    else:
        click.echo(f"{bundle}: whole, release {release}, {_describe(signed, trust)}")
    return ExitCode.FAILURE if faults else ExitCode.DONE


def _describe(signed: "Signed | None", trust: "Trust") -> str:
    if signed is None:
        return "not signed"
    if signed.signer is not None:
        return f"signed by {signed}"
    whose = "there is no list that says whose it is"
    if trust.signers is not None:
        whose = f"which {trust.signers.name} does not let in"
    return f"signed by {signed}, {whose}"
