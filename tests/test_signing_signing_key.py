"""Keys come from OpenSSH's files or its agent, and nothing of them is ever shown."""

import os
import pickle
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import SignatureError
from edgepack.signing.signing_key import open_signing_key
from edgepack.signing.sshsig import check_signature
from tests.fixtures.signing import PASSPHRASE, Keys, make_locked_key

MESSAGE = b"manifest\n"
MAKE = "Make one with `ssh-keygen -t ed25519`."


def refusal(path: Path, *answers: str) -> SignatureError:
    given_answers = iter(answers)
    with pytest.raises(SignatureError) as caught:
        open_signing_key(path, prompt=lambda _: next(given_answers))
    return caught.value


def add_to_agent(key: Path) -> None:
    """Add a key, its passphrase given by a program as ssh-add asks for it without a terminal."""
    ask = key.parent / "ask"
    ask.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    ask.chmod(0o700)
    environment = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    subprocess.run(
        ["ssh-add", "-q", key], check=True, env=os.environ | environment, capture_output=True
    )


def test_a_locked_key_asks_for_its_passphrase(keys: Keys) -> None:
    asked: list[str] = []
    answers = iter(["wrong", PASSPHRASE])

    def prompt(text: str) -> str:
        asked.append(text)
        return next(answers)

    path = keys.private("locked")
    key = open_signing_key(path, prompt=prompt)
    assert asked == [f"Passphrase for {path}: "] * 2
    assert check_signature(key.sign(MESSAGE), MESSAGE).fingerprint == keys.fingerprint("locked")


def test_a_locked_key_that_stays_locked(keys: Keys) -> None:
    path = keys.private("locked")
    error = refusal(path, "one", "two", "three")
    assert error.message == f"{path}: the key stays locked: no passphrase was right"
    assert error.remedy == "Try again, or hand the key to the agent with `ssh-add`."
    assert refusal(path, "").message == error.message  # an empty answer gives up
    with pytest.raises(SignatureError) as caught:
        open_signing_key(path, prompt=None)
    assert caught.value.message == (
        f"{path}: the key is locked by a passphrase, and there is no terminal to ask for it"
    )
    assert caught.value.remedy == f"Hand it to the agent with `ssh-add {path}` before."


def test_the_agent_signs_with_a_locked_key_and_with_a_public_one(
    keys: Keys, ssh_agent: Path, tmp_path: Path
) -> None:
    assert ssh_agent.exists()
    add_to_agent(keys.private("locked"))
    public = tmp_path / "id.pub"  # without a private key beside it
    public.write_text((keys.folder / "locked.pub").read_text())
    for path in (keys.private("locked"), public):
        made = open_signing_key(path, prompt=None).sign(MESSAGE)
        assert check_signature(made, MESSAGE).fingerprint == keys.fingerprint("locked")


def test_an_agent_that_no_longer_has_the_key(keys: Keys, ssh_agent: Path) -> None:
    assert ssh_agent.exists()
    add_to_agent(keys.private("locked"))
    key = open_signing_key(keys.private("locked"), prompt=None)
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    with pytest.raises(SignatureError) as caught:
        key.sign(MESSAGE)
    assert caught.value.message == (
        f"the agent did not sign with the ssh-ed25519 key {keys.fingerprint('locked')}"
    )


def test_a_public_key_whose_private_half_lies_beside_it(keys: Keys) -> None:
    made = open_signing_key(keys.folder / "alice.pub", prompt=None).sign(MESSAGE)
    assert made == keys.sign("alice", MESSAGE)


def test_a_public_key_that_nobody_holds(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "bob.pub"
    path.write_text((keys.folder / "bob.pub").read_text())
    error = refusal(path)
    assert error.message == (
        f"{path}: the agent does not hold the private half of the ssh-ed25519 key "
        f"{keys.fingerprint('bob')}"
    )
    assert error.remedy == "Add it with `ssh-add`, or give the private key's file."
    (tmp_path / "bob").write_bytes(keys.private("alice").read_bytes())
    assert refusal(path).message == (
        f"{path}: expected the public half of {tmp_path / 'bob'}, which is another key: the "
        f"ssh-ed25519 key {keys.fingerprint('alice')}"
    )


@pytest.mark.parametrize(
    ("name", "key_type"), [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")]
)
def test_a_key_of_another_type_does_not_sign(keys: Keys, name: str, key_type: str) -> None:
    for path in (keys.private(name), keys.folder / f"{name}.pub"):
        error = refusal(path)
        assert error.message == f"{path}: expected a key of type ssh-ed25519, not {key_type}"
        assert error.remedy == MAKE


def test_the_type_of_a_locked_key_is_told_before_its_passphrase_is_asked(tmp_path: Path) -> None:
    path = make_locked_key(tmp_path / "id", key_type="ecdsa")
    assert refusal(path).message == (
        f"{path}: expected a key of type ssh-ed25519, not ecdsa-sha2-nistp256"
    )


def test_what_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    wanted = (
        f"{path}: expected an Ed25519 private key in OpenSSH's format, or the public key of one "
        "that the agent holds"
    )
    for data in (b"", b"\0" * 99, b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", b"PK\3\4"):
        path.write_bytes(data)
        assert refusal(path).message == wanted
    path.write_bytes(b"x" * 2**17)
    assert refusal(path).message == f"{path}: expected a key, but the file is too large"
    path.write_text("ssh-ed25519 AAAA\n")
    assert refusal(path).message == (
        f"{path}: expected a public key, but its bytes are no public key"
    )
    path.unlink()
    assert refusal(path).message == f"{path}: the key cannot be read: No such file or directory"


def test_nothing_of_a_key_or_passphrase_is_shown(
    keys: Keys, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    key = open_signing_key(keys.private("locked"), prompt=lambda _: PASSPHRASE)
    key.sign(MESSAGE)
    with pytest.raises(SignatureError) as caught:
        open_signing_key(keys.private("locked"), prompt=lambda _: "not " + PASSPHRASE)
    shown = "".join([repr(key), str(key), repr(caught.value), str(caught.value), caplog.text])
    shown += "".join(capfd.readouterr())
    assert PASSPHRASE not in shown
    private = keys.private("locked").read_text().split("\n")[1:-2]
    assert not any(line in shown for line in private)
    assert "bytes" not in repr(key)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        pickle.dumps(key)  # it goes to no other process


@given(st.data())
def test_any_damage_to_a_key_is_told_without_showing_it(keys: Keys, data: st.DataObject) -> None:
    whole = keys.private("alice").read_bytes()
    position = data.draw(st.integers(0, len(whole) - 2))
    damaged = bytearray(whole)
    damaged[position] = data.draw(st.integers(0, 255))
    path = keys.folder / "damaged"
    path.write_bytes(damaged[: data.draw(st.sampled_from([len(whole), position]))])
    try:
        key = open_signing_key(path, prompt=lambda _: "")
    except SignatureError as error:
        said = error.message.removeprefix(f"{path}: ")
        assert said.startswith(("expected ", "the key stays locked"))
    else:
        check_signature(key.sign(MESSAGE), MESSAGE)
