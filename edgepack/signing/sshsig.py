"""The signature format of `ssh-keygen -Y sign`, written and read.

Source: PROTOCOL.sshsig of OpenSSH 9.2; what its sshsig.c asks beyond that is asked here too.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from edgepack.errors import SignatureError
from edgepack.signing.public_key import PublicKey, is_signed_by, read_public_blob
from edgepack.signing.wire import pack_strings, split_strings

NAMESPACE: Final = "edgepack"
MAXIMUM_BYTES: Final = 16 * 2**10
"""Of an armored signature; that of an RSA key of 16384 bits has 6 KiB."""

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = (1).to_bytes(4, "big")
_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_END: Final = b"-----END SSH SIGNATURE-----"
_LINE: Final = 70  # as OpenSSH breaks it
_HASHES: Final = ("sha256", "sha512")
_AGAIN: Final = "Sign the bundle again with `edgepack sign BUNDLE --key KEY`."


@dataclass(frozen=True, kw_only=True, slots=True)
class SshSignature:
    """A signature.

    Attributes:
        key: the public key of who says to have made it.
        namespace: what it is for.
        hash_name: of the message, `sha256` or `sha512`.
        signature: made by the key, in SSH's encoding.
    """

    key: PublicKey
    namespace: str
    hash_name: str
    signature: bytes


def signed_bytes(message: bytes, *, namespace: str, hash_name: str) -> bytes:
    """Give what a key signs in place of a message."""
    digest = hashlib.new(hash_name, message).digest()
    return _MAGIC + pack_strings(namespace.encode(), b"", hash_name.encode(), digest)


def encode_signature(signature: SshSignature) -> bytes:
    """Write a signature as `ssh-keygen -Y sign` does: armored ASCII text."""
    blob = (
        _MAGIC
        + _VERSION
        + pack_strings(
            signature.key.blob,
            signature.namespace.encode(),
            b"",
            signature.hash_name.encode(),
            signature.signature,
        )
    )
    text = base64.b64encode(blob)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def parse_signature(data: bytes) -> SshSignature:
    """Read an armored signature, which anyone may have written.

    Raises:
        SignatureError: it is none.
    """
    try:
        return _parse(data)
    except ValueError as error:
        raise SignatureError(
            f"expected a signature as `ssh-keygen -Y sign` writes it, but got {error}",
            remedy=_AGAIN,
        ) from error


def _parse(data: bytes) -> SshSignature:
    if len(data) > MAXIMUM_BYTES:
        raise ValueError(f"{len(data)} bytes")
    text = data.strip()
    if not text.startswith((_BEGIN + b"\n", _BEGIN + b"\r\n")):
        raise ValueError(f"a text that begins with {text[:40]!r}")
    if not text.endswith(_END):
        raise ValueError("one without its last line")
    try:
        body = b"".join(text[len(_BEGIN) : -len(_END)].split())
        blob = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError("lines that are not base64") from error
    if blob[:6] != _MAGIC:
        raise ValueError("other bytes inside")
    if blob[6:10] != _VERSION:
        raise ValueError(f"one of version {int.from_bytes(blob[6:10], 'big')}, not 1")
    strings = split_strings(blob[10:])
    if len(strings) != 5:  # noqa: PLR2004 - the fields below
        raise ValueError(f"one of {len(strings)} fields, not 5")
    key, namespace, reserved, hash_name, signature = strings
    # ssh-keygen (9.2) takes the field for empty whatever stands in it, so that no such
    # signature is ever right there.
    if reserved:
        raise ValueError("one that uses the reserved field")
    if hash_name.decode("ascii", errors="replace") not in _HASHES:
        raise ValueError(f"one of the hash {hash_name[:40]!r}, not sha512 or sha256")
    return SshSignature(
        key=read_public_blob(key),
        namespace=namespace.decode("utf-8", errors="backslashreplace"),
        hash_name=hash_name.decode("ascii"),
        signature=signature,
    )


def check_signature(data: bytes, message: bytes, *, namespace: str = NAMESPACE) -> PublicKey:
    """Give the key that made an armored signature of a message; whose key it is stays open.

    Raises:
        SignatureError: no signature, for something else, of another message, or by a key whose
            signatures cannot be checked.
    """
    found = parse_signature(data)
    if found.namespace != namespace:
        raise SignatureError(
            f"expected a signature for the namespace {namespace!r}, but it is one for "
            f"{found.namespace[:80]!r}",
            remedy=_AGAIN,
        )
    signed = signed_bytes(message, namespace=namespace, hash_name=found.hash_name)
    try:
        is_right = is_signed_by(found.key, found.signature, signed)
    except ValueError as error:
        raise SignatureError(
            f"expected a signature as `ssh-keygen -Y sign` writes it, but got {error}",
            remedy=_AGAIN,
        ) from error
    if not is_right:
        raise SignatureError(
            f"the signature with the {found.key} is not of this manifest: the manifest was "
            "changed after it was signed, or the signature was made for another",
            remedy="Get the bundle again from who packed it; if it is yours, and whole, sign it "
            "again with `edgepack sign BUNDLE --key KEY`.",
        )
    return found.key
