"""Options of the verbs that sign bundles or ask who did."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.commands.options import EXISTING_FILE, apply_options, secret_prompt

if TYPE_CHECKING:
    from pathlib import Path

    from edgepack.bundle.archive import Bundle
    from edgepack.profile import TargetProfile
    from edgepack.signing.seal import Signed
    from edgepack.signing.signing_key import SigningKey
    from edgepack.workflow.trust import Trust

F = TypeVar("F", bound=Callable[..., Any])

KEY_HELP: Final = "Ed25519 private key of OpenSSH's, or the .pub of one that the agent holds."

sign_option: Final = click.option(
    "--sign", "sign_key", type=EXISTING_FILE, metavar="KEY", help=f"Sign the bundle: {KEY_HELP}"
)


def signers_options(function: F) -> F:
    """Add the options that say whose signature a bundle must bear."""
    return apply_options(
        click.option(
            "--allowed-signers",
            type=EXISTING_FILE,
            metavar="FILE",
            help="Refuse a bundle unless one of these signed it; a list as ssh-keygen(1) describes "
            "[default: allowed_signers in the configuration folder, where a signature is "
            "required].",
        ),
        click.option(
            "--signer",
            metavar="IDENTITY",
            help="Refuse a bundle unless this one of them signed it.",
        ),
    )(function)


def open_key(path: "Path") -> "SigningKey":
    """Make the key ready that a bundle is to be signed with.

    A locked one is asked for its passphrase at once, not after the work.

    Raises:
        SignatureError: no such key, not one of Ed25519, or it stays locked.
    """
    from edgepack.signing.signing_key import open_signing_key

    return open_signing_key(path, prompt=secret_prompt())


def trust_from(given: Mapping[str, Any], *, target: "TargetProfile | None") -> "Trust":
    """Find out whose signature the options of `signers_options` and a target ask for.

    Raises:
        SignatureError: the list cannot be read, or one is needed and there is none.
    """
    from edgepack.workflow.trust import find_trust

    return find_trust(given["allowed_signers"], given["signer"], target=target)


def check_bundle(bundle: "Bundle", given: Mapping[str, Any]) -> "Signed | None":
    """Check the signature of a bundle that is to be deployed, by what is asked of it.

    Raises:
        SignatureError: it is not signed as it must be.
    """
    from edgepack.workflow.trust import check_trust

    return check_trust(bundle, trust_from(given, target=bundle.manifest.target))


def signed_json(signed: "Signed | None") -> dict[str, object] | None:
    """Give the JSON form of who signed."""
    return None if signed is None else signed.to_json()
