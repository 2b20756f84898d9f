"""A signature stands beside what a bundle holds: it changes nothing of it but vouches for it."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.bundle.archive import Bundle, open_bundle, verify_bundle
from edgepack.bundle.container import write_container
from edgepack.bundle.manifest import MANIFEST_PATH, SIGNATURE_PATH
from edgepack.bundle.sealing import read_seal, sign_bundle
from edgepack.errors import BundleError, SignatureError
from edgepack.signing.seal import check_seal
from edgepack.signing.signing_key import open_signing_key
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.signing import Keys, verify_with_openssh


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_digits_bundle(tmp_path_factory.mktemp("bundle") / "digits.edgepack")


@pytest.fixture(scope="module")
def signed(unsigned: Bundle, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return signed_copy(unsigned, tmp_path_factory.mktemp("signed"), keys)


def signed_copy(bundle: Bundle, folder: Path, keys: Keys, name: str = "alice") -> Bundle:
    path = folder / "digits.edgepack"
    path.write_bytes(bundle.path.read_bytes())
    return sign_bundle(open_bundle(path), open_signing_key(keys.private(name), prompt=None).sign)


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {record.path: bundle.read(record.path) for record in bundle.files()}


def rewritten(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with path.open("wb") as file:
        write_container(file, files)
    return path


def test_signing_changes_neither_release_nor_digest(unsigned: Bundle, signed: Bundle) -> None:
    assert signed.release == unsigned.release
    assert signed.sha256 == unsigned.sha256 == unsigned.file_sha256
    assert signed.file_sha256 == hashlib.sha256(signed.path.read_bytes()).hexdigest()
    assert signed.manifest == unsigned.manifest
    assert (unsigned.is_signed, signed.is_signed) == (False, True)
    assert open_bundle(signed.path) == signed
    assert verify_bundle(signed.path) == ()
    whole, bare = contents(signed), contents(unsigned)
    assert list(whole) == [*bare, SIGNATURE_PATH]
    assert {path: whole[path] for path in bare} == bare
    assert signed.num_bytes == signed.path.stat().st_size > unsigned.num_bytes


def test_openssh_verifies_a_bundles_signature_and_signs_one(
    signed: Bundle, keys: Keys, tmp_path: Path
) -> None:
    with zipfile.ZipFile(signed.path) as archive:
        archive.extractall(tmp_path)
    signers = tmp_path / "allowed"
    signers.write_text(f"alice {keys.public('alice')}\n")
    manifest, signature = tmp_path / MANIFEST_PATH, tmp_path / SIGNATURE_PATH
    message = manifest.read_bytes()
    assert verify_with_openssh(signature, message, signers=signers, identity="alice")
    assert not verify_with_openssh(signature, message[:-1], signers=signers, identity="alice")
    assert signature.read_bytes() == keys.sign("alice", manifest.read_bytes())


def test_what_openssh_signed_can_be_put_into_a_bundle(
    unsigned: Bundle, keys: Keys, tmp_path: Path
) -> None:
    path = tmp_path / "digits.edgepack"
    path.write_bytes(unsigned.path.read_bytes())
    bundle = sign_bundle(open_bundle(path), lambda manifest: keys.sign("rsa", manifest))
    found = check_seal(read_seal(bundle))
    assert found is not None
    assert found.key.fingerprint == keys.fingerprint("rsa")


def test_a_bundle_signed_at_once_or_later_or_again_is_the_same(
    unsigned: Bundle, signed: Bundle, keys: Keys, tmp_path: Path
) -> None:
    key = open_signing_key(keys.private("alice"), prompt=None)
    at_once = write_digits_bundle(tmp_path / "digits.edgepack", sign=key.sign)
    assert at_once.path.read_bytes() == signed.path.read_bytes()
    by_bob = signed_copy(signed, tmp_path, keys, "bob")
    assert by_bob.release == unsigned.release
    assert contents(by_bob)[SIGNATURE_PATH] != contents(signed)[SIGNATURE_PATH]
    again = signed_copy(by_bob, tmp_path, keys)
    assert again.path.read_bytes() == signed.path.read_bytes()


def test_a_bundle_stays_as_it_was_when_it_cannot_be_signed(
    unsigned: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "digits.edgepack"
    path.write_bytes(unsigned.path.read_bytes())

    def refuse(_manifest: bytes) -> bytes:
        raise SignatureError("the agent did not sign", remedy="")

    with pytest.raises(SignatureError):
        sign_bundle(open_bundle(path), refuse)
    with pytest.raises(BundleError) as caught:
        sign_bundle(open_bundle(path), lambda _: b"x" * 2**15)
    assert "'manifest.json.sig': expected at most 16384 bytes, not 32768" in caught.value.message
    assert path.read_bytes() == unsigned.path.read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


# Tampering.


def test_a_changed_manifest_no_longer_has_its_signature(signed: Bundle, tmp_path: Path) -> None:
    files = contents(signed)
    table: Any = json.loads(files[MANIFEST_PATH])
    table["version"] = "9.9"
    files[MANIFEST_PATH] = f"{json.dumps(table, indent=1, sort_keys=True)}\n".encode()
    path = rewritten(tmp_path / "digits.edgepack", list(files.items()))
    found = read_seal(open_bundle(path))
    with pytest.raises(SignatureError) as caught:
        check_seal(found)
    assert caught.value.message.startswith(
        f"{path}: the signature with the ssh-ed25519 key SHA256:"
    )
    assert caught.value.message.endswith(
        " is not of this manifest: the manifest was changed after it was signed, or the signature "
        "was made for another"
    )


def test_a_changed_file_is_not_what_the_signed_manifest_states(
    signed: Bundle, tmp_path: Path
) -> None:
    files = contents(signed) | {"files/classes.txt": b"one\nzero\n"}
    path = rewritten(tmp_path / "digits.edgepack", list(files.items()))
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.message == (
        f"{path}: 'files/classes.txt': its data are not those the manifest states"
    )


def test_a_signature_stands_last_and_once(signed: Bundle, tmp_path: Path) -> None:
    files = list(contents(signed).items())
    path = rewritten(tmp_path / "early.edgepack", [files[0], files[-1], *files[1:-1]])
    assert verify_bundle(path) == ("the entries are not in the manifest's order",)
    with pytest.raises(BundleError) as caught:
        rewritten(tmp_path / "twice.edgepack", [*files, files[-1]])
    assert "clashes with 'manifest.json.sig'" in caught.value.message


def test_a_manifest_may_not_list_a_signature_as_a_file(unsigned: Bundle, tmp_path: Path) -> None:
    files = contents(unsigned)
    text = files[MANIFEST_PATH].replace(b'"recipe.toml"', b'"manifest.json.sig"')
    files[MANIFEST_PATH] = text
    faults = verify_bundle(rewritten(tmp_path / "digits.edgepack", list(files.items())))
    assert "clashes with 'manifest.json.sig'" in faults[0]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(1, 3000), bit=st.integers(0, 7))
def test_any_flipped_bit_near_the_signature_is_found(
    signed: Bundle, tmp_path: Path, position: int, bit: int
) -> None:
    data = bytearray(signed.path.read_bytes())
    data[-position] ^= 1 << bit
    damaged = tmp_path / "damaged.edgepack"
    damaged.write_bytes(data)
    assert verify_bundle(damaged)
