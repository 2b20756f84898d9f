"""Whether a bundle may be deployed: what the user and the target ask of its signature."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.bundle.archive import Bundle
from edgepack.bundle.sealing import read_seal
from edgepack.catalog import find_profile, user_profile_directory
from edgepack.device.store.signers import read_signers
from edgepack.errors import SignatureError, UnknownTargetError
from edgepack.profile import TargetProfile
from edgepack.signing.allowed_signers import AllowedSigners, find_signer, load_allowed_signers
from edgepack.signing.public_key import PublicKey
from edgepack.signing.seal import Signed, check_seal, require_signer
from edgepack.signing.sshsig import NAMESPACE

if TYPE_CHECKING:
    from edgepack.workflow.rig import Rig


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """Whose signature is asked for.

    Attributes:
        signers: the list that says whose keys there are; None where there is none.
        identity: who must have signed; None is anybody on the list.
        asked_by: what asks for a signature, in words; None where none is asked for.
    """

    signers: AllowedSigners | None
    identity: str | None = None
    asked_by: str | None = None


def user_signers() -> Path:
    """Give where the user's own list of allowed signers stands, if there is one."""
    return user_profile_directory().parent / "allowed_signers"


def find_trust(
    signers: Path | None, identity: str | None, *, target: TargetProfile | None
) -> Trust:
    """Find out whose signature is asked for.

    Args:
        signers: the list the user gave; None takes the user's own, where there is one.
        identity: who must have signed, as the user said.
        target: what is deployed to; None asks for nothing.

    Raises:
        SignatureError: the list cannot be read, or one is needed and there is none.
        ProfileError: this machine's profile of the target has faults.
    """
    asked_by = None
    if signers is not None:
        asked_by = f"--allowed-signers {signers}"
    elif identity is not None:
        asked_by = f"--signer {identity}"
    elif target is not None and _requires_signature(target):
        asked_by = f"the target {target.id}"
    own = user_signers()
    path = signers or (own if own.exists() else None)
    if asked_by is not None and path is None:
        raise SignatureError(
            f"{asked_by} asks for a signature by an allowed signer, but there is no list of them",
            remedy=f"Give one with --allowed-signers FILE, or write it to {own}.",
        )
    return Trust(
        signers=load_allowed_signers(path) if path is not None else None,
        identity=identity,
        asked_by=asked_by,
    )


def _requires_signature(target: TargetProfile) -> bool:
    """Ask this machine's profile of the name too: a bundle says by itself what its own says.

    Raises:
        ProfileError: there is one with faults, so that what it asks for is not known.
    """
    if target.require_signature:
        return True
    try:
        known, _ = find_profile(target.id, user_directory=user_profile_directory())
    except UnknownTargetError:
        return False
    return known.require_signature


def check_trust(bundle: Bundle, trust: Trust) -> Signed | None:
    """Check a bundle's signature; None when it has none and none is asked for.

    A signature that is not of the bundle's manifest is refused whether one is asked for or not.

    Raises:
        SignatureError: it is not signed as it must be.
    """
    seal, now = read_seal(bundle), datetime.now(tz=UTC)
    if trust.signers is None or (trust.asked_by is None and seal.signature is None):
        return check_seal(seal)
    if trust.asked_by is not None:
        return require_signer(seal, trust.signers, now=now, identity=trust.identity)
    signed = check_seal(seal)
    try:
        return require_signer(seal, trust.signers, now=now)
    except SignatureError:
        return signed  # nobody asked whose it is


def device_trust(rig: "Rig") -> Trust:
    """Find out whose signature a device's own list asks for.

    Raises:
        SignatureError: it has a list that cannot be used.
    """
    if rig.signers is None:
        return Trust(signers=None)
    signers = read_signers(rig.signers, root=rig.root)
    return Trust(signers=signers, asked_by=signers.name)


def check_key(key: PublicKey | None, trust: Trust) -> None:
    """Refuse a key that what is asked for does not let in, before the work of packing.

    Args:
        key: that the bundle will be signed with; None when it will not be.
        trust: what is asked of it.

    Raises:
        SignatureError: it would be refused, or there is none and one is asked for.
    """
    if trust.asked_by is None or trust.signers is None:
        return
    if key is None:
        raise SignatureError(
            f"{trust.asked_by} asks for a signature, but the bundle is not to be signed",
            remedy="Give the key with --sign KEY.",
        )
    now = datetime.now(tz=UTC)
    find_signer(trust.signers, key, namespace=NAMESPACE, now=now, identity=trust.identity)
