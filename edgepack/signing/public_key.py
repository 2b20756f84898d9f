"""Public keys of SSH, and whether one of them made a signature."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from edgepack.errors import SignatureError
from edgepack.signing.wire import split_strings

ED25519: Final = "ssh-ed25519"
RSA: Final = "ssh-rsa"
_TYPE: Final = re.compile(r"(?:ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-sha2-)[a-z0-9@.-]{1,64}")
_MINIMUM_RSA_BITS: Final = 2048
_RSA_HASHES: Final[Mapping[bytes, hashes.HashAlgorithm]] = {
    b"rsa-sha2-256": hashes.SHA256(),
    b"rsa-sha2-512": hashes.SHA512(),
}
# RFC 5656, section 6.2.1: the hash goes by the curve.
_CURVE_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
_CHECKABLE: Final = "Sign with an Ed25519 key; signatures of RSA and ECDSA keys are checked too."


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        key_type: such as `ssh-ed25519`.
        blob: its bytes as they go over the wire.
    """

    key_type: str
    blob: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii")
        return f"SHA256:{digest.rstrip('=')}"

    def __str__(self) -> str:
        return f"{self.key_type} key {self.fingerprint}"


def is_key_type(word: str) -> bool:
    """Tell whether a word is the name of a type of SSH keys."""
    return bool(_TYPE.fullmatch(word))


def read_public_blob(blob: bytes) -> PublicKey:
    """Read a public key's bytes; what type it is stands first in them.

    Raises:
        ValueError: no public key.
    """
    if len(blob) < 4 or int.from_bytes(blob[:4], "big") > len(blob) - 4:  # noqa: PLR2004 - a length
        raise ValueError("its bytes are no public key")
    (name,) = split_strings(blob[: 4 + int.from_bytes(blob[:4], "big")])
    key_type = name.decode("ascii", errors="replace")
    if not is_key_type(key_type):
        raise ValueError(f"{key_type[:40]!r} is no type of key")
    return PublicKey(key_type=key_type, blob=blob)


def read_public_words(key_type: str, text: str) -> PublicKey:
    """Read a public key as it stands in a `.pub` file: its type, and its bytes in base64.

    Raises:
        ValueError: no public key, or of another type.
    """
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("its bytes are not base64") from error
    key = read_public_blob(blob)
    if key.key_type != key_type:
        raise ValueError(f"its bytes are of type {key.key_type}")
    return key


def is_signed_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Tell whether a key made a signature of a message.

    Args:
        key: the public key.
        signature: SSH's own encoding: the algorithm's name, then its bytes.
        message: what was signed.

    Raises:
        SignatureError: such keys cannot be checked, or are too weak to prove anything.
        ValueError: the key or the signature is malformed.
    """
    try:
        name, raw = split_strings(signature)
    except ValueError:
        # A security key's signature has a counter behind it; its type is what to tell of.
        _refuse_type(key)
        raise
    check = _make_check(key, name.decode("ascii", errors="replace"), raw, message)
    try:
        check()
    except InvalidSignature:
        return False
    return True


def _make_check(key: PublicKey, name: str, raw: bytes, message: bytes) -> Callable[[], None]:
    """Give what raises `InvalidSignature` unless the signature is right."""
    _refuse_type(key)
    public = _load(key)
    if isinstance(public, rsa.RSAPublicKey):
        algorithm = _RSA_HASHES.get(name.encode())
        if algorithm is None:
            raise ValueError(f"an RSA key's signature of the algorithm {name[:40]!r}")
        return lambda: public.verify(raw, message, padding.PKCS1v15(), algorithm)
    if name != key.key_type:
        raise ValueError(f"a {key.key_type} key's signature of the algorithm {name[:40]!r}")
    if isinstance(public, ec.EllipticCurvePublicKey):
        curve_hash = ec.ECDSA(_CURVE_HASHES[key.key_type])
        r, s = (int.from_bytes(each, "big") for each in split_strings(raw))
        return lambda: public.verify(encode_dss_signature(r, s), message, curve_hash)
    return lambda: public.verify(raw, message)


def _refuse_type(key: PublicKey) -> None:
    if key.key_type not in {ED25519, RSA, *_CURVE_HASHES}:
        raise SignatureError(
            f"signed with a key of type {key.key_type}, whose signatures cannot be checked here",
            remedy=_CHECKABLE,
        )


def _load(
    key: PublicKey,
) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    text = base64.b64encode(key.blob).decode("ascii")
    try:
        public = load_ssh_public_key(f"{key.key_type} {text}".encode("ascii"))
    except UnsupportedAlgorithm as error:
        raise ValueError(f"a {key.key_type} key that cannot be read: {error}") from error
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < _MINIMUM_RSA_BITS:
        raise SignatureError(
            f"signed with an RSA key of {public.key_size} bits, but less than "
            f"{_MINIMUM_RSA_BITS} prove nothing",
            remedy=_CHECKABLE,
        )
    if isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return public
    raise ValueError(f"a {key.key_type} key that cannot be read")
