"""The key that signs: a private key in a file of OpenSSH's, or one that the agent holds."""

import base64
import binascii
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from edgepack.errors import SignatureError
from edgepack.signing.public_key import (
    ED25519,
    PublicKey,
    is_key_type,
    read_public_blob,
    read_public_words,
)
from edgepack.signing.sshsig import (
    NAMESPACE,
    SshSignature,
    check_signature,
    encode_signature,
    signed_bytes,
)
from edgepack.signing.wire import pack_strings, split_strings

Prompt = Callable[[str], str]
"""Asks the user for a secret without showing it; only where there is a terminal."""

_MAXIMUM_BYTES: Final = 64 * 2**10
_NUM_PROMPTS: Final = 3
_HASH: Final = "sha512"
_BEGIN: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END: Final = b"-----END OPENSSH PRIVATE KEY-----"
# PROTOCOL.key of OpenSSH: this, then cipher, KDF, its options, the number of keys, and the
# public key, which is readable however the private one is locked.
_MAGIC: Final = b"openssh-key-v1\0"
_MAKE: Final = "Make one with `ssh-keygen -t ed25519`."


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """What signs bundles.

    Attributes:
        public: its public half.
        make: gives the signature of bytes in SSH's encoding; holds or reaches the private half.
    """

    public: PublicKey
    make: Callable[[bytes], bytes] = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Give the armored signature of a message, for bundles.

        Raises:
            SignatureError: the agent did not sign, or not rightly.
        """
        made = self.make(signed_bytes(message, namespace=NAMESPACE, hash_name=_HASH))
        armored = encode_signature(
            SshSignature(key=self.public, namespace=NAMESPACE, hash_name=_HASH, signature=made)
        )
        check_signature(armored, message)
        return armored


def open_signing_key(path: Path, *, prompt: Prompt | None) -> SigningKey:
    """Make a key ready to sign.

    As with `ssh-keygen -Y sign`, the file is a private key, or a public one whose private half
    the agent holds or lies beside it without `.pub`. A locked private key is asked of the agent
    before its passphrase is asked for.

    Args:
        path: the file.
        prompt: asks for a passphrase; None where nobody can be asked.

    Raises:
        SignatureError: no such key, not one of Ed25519, or it stays locked.
    """
    data = _read(path)
    if not data.lstrip().startswith(_BEGIN):
        return _open_public(path, data, prompt)
    public, is_locked = _read_public_half(path, data)
    _check_type(path, public)
    if not is_locked:
        return _from_private(path, public, _load(path, data, None))
    if _is_in_agent(public):
        return SigningKey(public=public, make=partial(_sign_with_agent, public))
    return _from_private(path, public, _unlock(path, data, prompt))


def _open_public(path: Path, data: bytes, prompt: Prompt | None) -> SigningKey:
    words = data.decode("utf-8", errors="replace").split()[:2]
    if len(words) < 2 or not is_key_type(words[0]):  # noqa: PLR2004 - type and key
        raise SignatureError(
            f"{path}: expected an Ed25519 private key in OpenSSH's format, or the public key of "
            "one that the agent holds",
            remedy=_MAKE,
        )
    try:
        public = read_public_words(*words)
    except ValueError as error:
        raise SignatureError(f"{path}: expected a public key, but {error}", remedy=_MAKE) from error
    _check_type(path, public)
    if _is_in_agent(public):
        return SigningKey(public=public, make=partial(_sign_with_agent, public))
    private = path.with_suffix("")
    if path.suffix == ".pub" and private.is_file():
        key = open_signing_key(private, prompt=prompt)
        if key.public == public:
            return key
        raise SignatureError(
            f"{path}: expected the public half of {private}, which is another key: the "
            f"{key.public}",
            remedy=f"Give {private} itself, or make {path} anew with `ssh-keygen -y`.",
        )
    raise SignatureError(
        f"{path}: the agent does not hold the private half of the {public}",
        remedy="Add it with `ssh-add`, or give the private key's file.",
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_BYTES + 1)
    except OSError as error:
        raise SignatureError(
            f"{path}: the key cannot be read: {error.strerror or error}",
            remedy="Check the path and its permissions.",
        ) from error
    if len(data) > _MAXIMUM_BYTES:
        raise SignatureError(f"{path}: expected a key, but the file is too large", remedy=_MAKE)
    return data


def _read_public_half(path: Path, data: bytes) -> tuple[PublicKey, bool]:
    """Give a private key file's public key, and whether a passphrase locks the rest."""
    body = data.partition(_BEGIN)[2].partition(_END)[0]
    try:
        blob = base64.b64decode(b"".join(body.split()), validate=True)
        cipher, rest = _take_string(blob.removeprefix(_MAGIC))
        for _ in range(2):
            _, rest = _take_string(rest)
        public, _ = _take_string(rest[4:])
        return read_public_blob(public), cipher != b"none"
    except (binascii.Error, ValueError):
        raise _unreadable(path) from None


def _take_string(data: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(data[:4], "big")
    (string,) = split_strings(data[:end])
    return string, data[end:]


def _check_type(path: Path, public: PublicKey) -> None:
    if public.key_type != ED25519:
        raise SignatureError(
            f"{path}: expected a key of type {ED25519}, not {public.key_type}", remedy=_MAKE
        )


def _unreadable(path: Path) -> SignatureError:
    # What could not be read is not shown: it may be part of the key.
    return SignatureError(
        f"{path}: expected a private key in OpenSSH's format, but it is damaged or of a kind that "
        "cannot be read",
        remedy=_MAKE,
    )


def _unlock(path: Path, data: bytes, prompt: Prompt | None) -> Ed25519PrivateKey:
    if prompt is None:
        raise SignatureError(
            f"{path}: the key is locked by a passphrase, and there is no terminal to ask for it",
            remedy=f"Hand it to the agent with `ssh-add {path}` before.",
        )
    for _ in range(_NUM_PROMPTS):
        passphrase = prompt(f"Passphrase for {path}: ").encode()
        if not passphrase:
            break  # an empty answer gives up
        try:
            return _load(path, data, passphrase)
        except _WrongPassphraseError:
            continue
    raise SignatureError(
        f"{path}: the key stays locked: no passphrase was right",
        remedy="Try again, or hand the key to the agent with `ssh-add`.",
    )


class _WrongPassphraseError(Exception):
    """A passphrase did not unlock a key."""


def _load(path: Path, data: bytes, passphrase: bytes | None) -> Ed25519PrivateKey:
    try:
        key = load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # cryptography 50 says so of a wrong passphrase, and of damage behind it.
        if passphrase is not None and isinstance(error, ValueError):
            raise _WrongPassphraseError from None
        raise _unreadable(path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unreadable(path)
    return key


def _from_private(path: Path, public: PublicKey, private: Ed25519PrivateKey) -> SigningKey:
    raw = private.public_key().public_bytes_raw()
    if pack_strings(ED25519.encode(), raw) != public.blob:
        raise _unreadable(path)
    return SigningKey(
        public=public, make=lambda data: pack_strings(ED25519.encode(), private.sign(data))
    )


def _is_in_agent(public: PublicKey) -> bool:
    from edgepack.signing.agent import Agent  # noqa: PLC0415 - paramiko, for locked keys only

    with closing(Agent()) as agent:
        return any(key.asbytes() == public.blob for key in agent.get_keys())


def _sign_with_agent(public: PublicKey, data: bytes) -> bytes:
    import paramiko  # noqa: PLC0415 - as above

    from edgepack.signing.agent import Agent  # noqa: PLC0415

    # Asked anew: a search may have lasted hours since the key was found there.
    with closing(Agent()) as agent:
        for key in agent.get_keys():
            if key.asbytes() == public.blob:
                try:
                    # paramiko 5.1 gives bytes here, whatever its annotation says.
                    signature: bytes = key.sign_ssh_data(data)  # type: ignore[assignment]
                except (paramiko.SSHException, OSError):
                    break
                return signature
    raise SignatureError(
        f"the agent did not sign with the {public}",
        remedy="See with `ssh-add -l` whether it still holds the key, and confirm when it asks.",
    )
