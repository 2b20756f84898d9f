"""`edgepack sign`: who answers for this bundle."""

from pathlib import Path

import click

from edgepack.commands.console import print_json
from edgepack.commands.options import EXISTING_FILE, json_option
from edgepack.commands.signing_options import KEY_HELP, open_key, signed_json


@click.command()
@click.argument("bundle", type=EXISTING_FILE)
@click.option("--key", type=EXISTING_FILE, required=True, metavar="KEY", help=KEY_HELP)
@json_option
def sign(*, bundle: Path, key: Path, as_json: bool) -> None:
    """Sign a bundle, in place of an earlier signature.

    Its release stays the same, and so does what was measured of it.
    """
    from edgepack.bundle.archive import open_bundle
    from edgepack.bundle.sealing import read_seal, sign_bundle
    from edgepack.signing.seal import check_seal

    opened = open_bundle(bundle)
    written = sign_bundle(opened, open_key(key).sign)
    signed = check_seal(read_seal(written))
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "release": written.release,
                "signature": signed_json(signed),
            }
        )
    else:
        click.echo(f"{bundle}: signed by {signed}, release {written.release}")
