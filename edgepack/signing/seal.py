"""A manifest with its signature, and whether it is one that counts."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from edgepack.errors import SignatureError
from edgepack.signing.allowed_signers import AllowedSigners, find_signer
from edgepack.signing.public_key import PublicKey
from edgepack.signing.sshsig import NAMESPACE, check_signature


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """A bundle's manifest and the signature over it.

    Attributes:
        name: of the bundle, for messages.
        manifest: its exact bytes.
        signature: armored; None when the bundle is not signed.
    """

    name: str
    manifest: bytes = field(repr=False)
    signature: bytes | None = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A signature that is of its manifest.

    Attributes:
        key: that made it.
        signer: whose key that is, as a list of allowed signers says; None where none was asked,
            or where it does not know.
    """

    key: PublicKey
    signer: str | None = None

    def __str__(self) -> str:
        return f"{self.signer} with the {self.key}" if self.signer else f"the {self.key}"

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that verbs print."""
        return {
            "signer": self.signer,
            "fingerprint": self.key.fingerprint,
            "key_type": self.key.key_type,
        }


def check_seal(seal: Seal) -> Signed | None:
    """Check that a signature is of its manifest; None where there is none.

    Raises:
        SignatureError: it is not, or that cannot be told.
    """
    if seal.signature is None:
        return None
    try:
        return Signed(key=check_signature(seal.signature, seal.manifest))
    except SignatureError as error:
        raise _of(seal, error) from error


def require_signer(
    seal: Seal, signers: AllowedSigners, *, now: datetime, identity: str | None = None
) -> Signed:
    """Check that a manifest was signed by somebody on a list.

    Args:
        seal: the manifest and its signature.
        signers: who may sign.
        now: what time it is.
        identity: who must have signed; None is anybody on the list.

    Raises:
        SignatureError: it was not, and why.
    """
    signed = check_seal(seal)
    if signed is None:
        who = identity or "a signer"
        raise SignatureError(
            f"{seal.name}: expected a signature of {who} that {signers.name} lists, but the "
            "bundle is not signed",
            remedy="Sign it with `edgepack sign BUNDLE --key KEY`, or pack it with `--sign KEY`.",
        )
    try:
        line = find_signer(signers, signed.key, namespace=NAMESPACE, now=now, identity=identity)
    except SignatureError as error:
        raise _of(seal, error) from error
    return replace(signed, signer=identity or line.principals)


def _of(seal: Seal, error: SignatureError) -> SignatureError:
    return SignatureError(f"{seal.name}: {error.message}", remedy=error.remedy)
