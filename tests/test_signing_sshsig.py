"""Signatures are those of `ssh-keygen -Y`, both ways, and anything else is refused in words."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import SignatureError
from edgepack.signing.public_key import PublicKey, read_public_blob, read_public_words
from edgepack.signing.signing_key import SigningKey, open_signing_key
from edgepack.signing.sshsig import (
    SshSignature,
    check_signature,
    encode_signature,
    parse_signature,
    signed_bytes,
)
from edgepack.signing.wire import pack_strings, split_strings
from tests.fixtures.signing import Keys, verify_with_openssh

MESSAGE = b'{\n "name": "digits"\n}\n'
AGAIN = "Sign the bundle again with `edgepack sign BUNDLE --key KEY`."
EXPECTED = "expected a signature as `ssh-keygen -Y sign` writes it, but got "
_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = SigningKey(
    public=read_public_blob(pack_strings(b"ssh-ed25519", _PRIVATE.public_key().public_bytes_raw())),
    make=lambda data: pack_strings(b"ssh-ed25519", _PRIVATE.sign(data)),
)


def refusal(data: bytes, message: bytes = MESSAGE) -> str:
    with pytest.raises(SignatureError) as caught:
        check_signature(data, message)
    return caught.value.message


def armor(blob: bytes) -> bytes:
    text = base64.encodebytes(blob)
    return b"-----BEGIN SSH SIGNATURE-----\n" + text + b"-----END SSH SIGNATURE-----\n"


def dearmor(data: bytes) -> bytes:
    return base64.b64decode(b"".join(data.split(b"\n")[1:-2]))


# Both ways with OpenSSH.


def test_what_is_signed_here_is_byte_by_byte_what_openssh_signs(keys: Keys) -> None:
    made = open_signing_key(keys.private("alice"), prompt=None).sign(MESSAGE)
    assert made == keys.sign("alice", MESSAGE)


def test_openssh_verifies_what_is_signed_here(keys: Keys, tmp_path: Path) -> None:
    signature, signers = tmp_path / "m.sig", tmp_path / "allowed"
    signature.write_bytes(open_signing_key(keys.private("alice"), prompt=None).sign(MESSAGE))
    signers.write_text(f'alice@example.org namespaces="edgepack" {keys.public("alice")}\n')
    who = "alice@example.org"
    assert verify_with_openssh(signature, MESSAGE, signers=signers, identity=who)
    assert not verify_with_openssh(signature, MESSAGE + b"\n", signers=signers, identity=who)
    done = subprocess.run(
        ["ssh-keygen", "-Y", "check-novalidate", "-n", "edgepack", "-s", signature],
        input=MESSAGE,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert keys.fingerprint("alice") in done.stdout.decode()


@pytest.mark.parametrize(
    ("name", "key_type"),
    [("alice", "ssh-ed25519"), ("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")],
)
def test_what_openssh_signs_is_verified_here(keys: Keys, name: str, key_type: str) -> None:
    signature = keys.sign(name, MESSAGE)
    key = check_signature(signature, MESSAGE)
    assert (key.key_type, key.fingerprint) == (key_type, keys.fingerprint(name))
    assert refusal(signature, MESSAGE + b"\n") == (
        f"the signature with the {key_type} key {keys.fingerprint(name)} is not of this manifest: "
        "the manifest was changed after it was signed, or the signature was made for another"
    )
    assert encode_signature(parse_signature(signature)) == signature


def test_a_signature_by_sha256_and_with_other_line_ends_counts_too() -> None:
    signed = signed_bytes(MESSAGE, namespace="edgepack", hash_name="sha256")
    made = encode_signature(
        SshSignature(
            key=KEY.public, namespace="edgepack", hash_name="sha256", signature=KEY.make(signed)
        )
    )
    assert check_signature(made, MESSAGE) == KEY.public
    assert check_signature(made.replace(b"\n", b"\r\n"), MESSAGE) == KEY.public


# What is refused, and in which words.


def test_a_signature_for_something_else_is_told(keys: Keys) -> None:
    assert refusal(keys.sign("alice", MESSAGE, namespace="git")) == (
        "expected a signature for the namespace 'edgepack', but it is one for 'git'"
    )


def test_a_key_whose_signature_is_anothers_is_told() -> None:
    """The public key in a signature is no part of what is signed."""
    other = Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key().public_bytes_raw()
    found = parse_signature(KEY.sign(MESSAGE))
    claimed = read_public_blob(pack_strings(b"ssh-ed25519", other))
    forged = SshSignature(
        key=claimed,
        namespace=found.namespace,
        hash_name=found.hash_name,
        signature=found.signature,
    )
    assert refusal(encode_signature(forged)).startswith(
        f"the signature with the ssh-ed25519 key {claimed.fingerprint} is not of this manifest"
    )


@pytest.mark.parametrize("key_type", ["sk-ssh-ed25519@openssh.com", "ssh-dss", "ssh-ed448"])
def test_a_key_that_cannot_be_checked_is_told(key_type: str) -> None:
    # A security key's signature has flags and a counter behind it (PROTOCOL.u2f).
    raw = pack_strings(key_type.encode(), b"\0" * 64) + b"\1\0\0\0\7"
    made = encode_signature(
        SshSignature(
            key=PublicKey(key_type=key_type, blob=pack_strings(key_type.encode(), b"\0" * 32)),
            namespace="edgepack",
            hash_name="sha512",
            signature=raw,
        )
    )
    with pytest.raises(SignatureError) as caught:
        check_signature(made, MESSAGE)
    assert caught.value.message == (
        f"signed with a key of type {key_type}, whose signatures cannot be checked here"
    )
    assert caught.value.remedy == (
        "Sign with an Ed25519 key; signatures of RSA and ECDSA keys are checked too."
    )


def test_a_weak_rsa_key_proves_nothing(tmp_path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f"]
    subprocess.run([*argv, tmp_path / "rsa"], check=True)
    assert refusal(Keys(folder=tmp_path).sign("rsa", MESSAGE)) == (
        "signed with an RSA key of 1024 bits, but less than 2048 prove nothing"
    )


_BLOB = dearmor(KEY.sign(MESSAGE))
_FIELDS = split_strings(_BLOB[10:])


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (b"", "a text that begins with b''"),
        (b"PK\3\4", "a text that begins with b'PK\\x03\\x04'"),
        (KEY.sign(MESSAGE)[:-20], "one without its last line"),
        (armor(_BLOB).replace(b"\nU", b"\n!"), "lines that are not base64"),
        (armor(b"SSHKEY" + _BLOB[6:]), "other bytes inside"),
        (armor(_BLOB[:9] + b"\2" + _BLOB[10:]), "one of version 2, not 1"),
        (armor(_BLOB + pack_strings(b"more")), "one of 6 fields, not 5"),
        (armor(_BLOB[:-1]), "a text of 83 bytes where 82 are left"),
        (armor(_BLOB + b"\0"), "1 bytes where a length of 4 bytes should be"),
        (
            armor(_BLOB[:10] + pack_strings(*_FIELDS[:2], b"tag", *_FIELDS[3:])),
            "one that uses the reserved field",
        ),
        (
            armor(_BLOB[:10] + pack_strings(*_FIELDS[:3], b"md5", _FIELDS[4])),
            "one of the hash b'md5', not sha512 or sha256",
        ),
        (
            armor(_BLOB[:10] + pack_strings(b"\0\0\0\3abc", *_FIELDS[1:])),
            "'abc' is no type of key",
        ),
        (armor(_BLOB[:10] + pack_strings(b"\0\0", *_FIELDS[1:])), "its bytes are no public key"),
        (
            armor(_BLOB[:10] + pack_strings(*_FIELDS[:4], pack_strings(b"ssh-rsa", b"\0"))),
            "a ssh-ed25519 key's signature of the algorithm 'ssh-rsa'",
        ),
        (b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * 2**15, "32798 bytes"),
    ],
)
def test_what_is_no_signature_is_told(data: bytes, came: str) -> None:
    with pytest.raises(SignatureError) as caught:
        check_signature(data, MESSAGE)
    assert caught.value.message == EXPECTED + came
    assert caught.value.remedy == AGAIN


def test_an_rsa_signature_by_sha1_is_refused(keys: Keys) -> None:
    found = parse_signature(keys.sign("rsa", MESSAGE))
    _, raw = split_strings(found.signature)
    old = SshSignature(
        key=found.key,
        namespace="edgepack",
        hash_name="sha512",
        signature=pack_strings(b"ssh-rsa", raw),
    )
    assert refusal(encode_signature(old)) == (
        EXPECTED + "an RSA key's signature of the algorithm 'ssh-rsa'"
    )


# Whatever the bytes are, there is an answer and never a traceback, and never a wrong yes.


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_strings_come_back(strings: list[bytes]) -> None:
    assert split_strings(pack_strings(*strings)) == tuple(strings)


@given(st.binary(max_size=300))
def test_any_text_is_answered(data: bytes) -> None:
    for each in (data, armor(data), armor(b"SSHSIG\0\0\0\1" + data)):
        with pytest.raises(SignatureError):
            check_signature(each, MESSAGE)


@given(
    st.lists(
        st.one_of(st.sampled_from(_FIELDS), st.binary(max_size=80)), min_size=5, max_size=5
    ).filter(lambda fields: tuple(fields) != _FIELDS)
)
def test_any_fields_are_answered(fields: list[bytes]) -> None:
    with pytest.raises(SignatureError):
        check_signature(armor(_BLOB[:10] + pack_strings(*fields)), MESSAGE)


@given(st.integers(0, len(_BLOB) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_never_right(position: int, bit: int) -> None:
    changed = bytearray(_BLOB)
    changed[position] ^= 1 << bit
    with pytest.raises(SignatureError):
        check_signature(armor(bytes(changed)), MESSAGE)


@given(
    st.sampled_from(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521"]),
    st.lists(st.binary(max_size=70), max_size=4),
    st.lists(st.binary(max_size=70), max_size=3),
)
def test_any_key_and_signature_of_a_known_type_are_answered(
    key_type: str, key: list[bytes], signature: list[bytes]
) -> None:
    made = encode_signature(
        SshSignature(
            key=PublicKey(key_type=key_type, blob=pack_strings(key_type.encode(), *key)),
            namespace="edgepack",
            hash_name="sha512",
            signature=pack_strings(key_type.encode(), *signature),
        )
    )
    with pytest.raises(SignatureError):
        check_signature(made, MESSAGE)


@given(st.sampled_from(["ssh-ed25519", "ssh-rsa", "sk-ssh-ed25519@openssh.com"]), st.text())
def test_any_public_key_is_read_or_refused(key_type: str, text: str) -> None:
    try:
        assert read_public_words(key_type, text).key_type == key_type
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
