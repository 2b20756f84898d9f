"""Signing on the command line, and what is refused where a signature is asked for."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgepack.bundle.archive import open_bundle
from edgepack.bundle.sealing import sign_bundle
from edgepack.catalog import built_in_text, user_profile_directory
from edgepack.errors import BundleError
from edgepack.profile import parse_profile
from edgepack.signing.signing_key import open_signing_key
from edgepack.workflow.delivery import take_bundle
from edgepack.workflow.trust import user_signers
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import FLOAT_MODEL, Ran, RunCommand, listing
from tests.fixtures.signing import PASSPHRASE, Keys, verify_with_openssh

SIGN_IT = "  Sign it with `edgepack sign BUNDLE --key KEY`, or pack it with `--sign KEY`.\n"


@pytest.fixture(scope="module")
def whole(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles for this machine by who signed them, and `unsigned`."""
    folder = tmp_path_factory.mktemp("bundles")
    paths = {name: folder / f"{name}.edgepack" for name in ("unsigned", "alice", "bob")}
    for name, path in paths.items():
        key = None if name == "unsigned" else open_signing_key(keys.private(name), prompt=None)
        sign = None if key is None else key.sign
        write_digits_bundle(path, target=built_in_profile("laptop-x86-64"), sign=sign)
    paths["other"] = folder / "other.edgepack"
    write_digits_bundle(
        paths["other"], target=built_in_profile("laptop-x86-64"), name="other", version="2"
    )
    return paths


@pytest.fixture
def allowed(keys: Keys, tmp_path: Path) -> Path:
    """A list of allowed signers with alice on it."""
    path = tmp_path / "allowed"
    path.write_text(f"alice@example.org {keys.public('alice')}\n")
    return path


@pytest.fixture
def device_list(device_root: Path) -> Iterator[Path]:
    """Where this machine's list stands when it is the device; taken away afterwards."""
    device_root.mkdir(exist_ok=True)
    path = device_root / "allowed_signers"
    yield path
    path.unlink(missing_ok=True)


def copy(path: Path) -> Path:
    """Copy a bundle into the current folder."""
    return Path(shutil.copy2(path, "digits.edgepack"))


def said(ran: Ran) -> str:
    """What a refused command said, which must be a refusal of the signature and nothing else."""
    assert ran.code == 1, ran.err
    assert ran.out == ""
    return ran.err


def said_of_profile(ran: Ran) -> str:
    """What was said of a profile with faults, which must stop the command before a device."""
    assert ran.code == 2, ran.err
    assert "connecting to" not in ran.err
    return ran.err


def test_sign_and_verify(
    run: RunCommand, whole: dict[str, Path], keys: Keys, allowed: Path
) -> None:
    bundle, fingerprint = copy(whole["unsigned"]), keys.fingerprint("alice")
    release = open_bundle(bundle).release
    assert "Signature none" in " ".join(run("inspect", bundle).out.split())
    assert run("verify", bundle).out == f"digits.edgepack: whole, release {release}, not signed\n"
    ran = run("sign", str(bundle), "--key", keys.private("alice"))
    assert ran.code == 0, ran.err
    assert ran.out == (
        f"digits.edgepack: signed by the ssh-ed25519 key {fingerprint}, release {release}\n"
    )
    assert bundle.read_bytes() == whole["alice"].read_bytes()
    assert fingerprint in run("inspect", bundle).out
    assert run("inspect", bundle, "--json").json()["bundle"]["is_signed"] is True
    assert run("verify", bundle).out == (
        f"digits.edgepack: whole, release {release}, signed by the ssh-ed25519 key {fingerprint}, "
        "there is no list that says whose it is\n"
    )
    ran = run("verify", bundle, "--allowed-signers", allowed, "--signer", "alice@example.org")
    assert ran.out == (
        f"digits.edgepack: whole, release {release}, signed by alice@example.org with the "
        f"ssh-ed25519 key {fingerprint}\n"
    )
    signature = {"signer": None, "fingerprint": fingerprint, "key_type": "ssh-ed25519"}
    body = run("verify", bundle, "--json").json()
    assert body == {
        "bundle": "digits.edgepack",
        "faults": [],
        "release": release,
        "signature": signature,
    }
    body = run("verify", bundle, "--allowed-signers", allowed, "--json").json()
    assert body["signature"] == signature | {"signer": "alice@example.org"}
    body = run("sign", str(bundle), "--key", keys.private("bob"), "--json").json()
    assert (body["release"], body["signature"]["fingerprint"]) == (
        release,
        keys.fingerprint("bob"),
    )


def test_verify_refuses_whom_the_list_does_not_let_in(
    run: RunCommand, whole: dict[str, Path], keys: Keys, allowed: Path
) -> None:
    alice = f"signed with the ssh-ed25519 key {keys.fingerprint('alice')}"
    bob = f"signed with the ssh-ed25519 key {keys.fingerprint('bob')}"
    assert said(run("verify", whole["unsigned"], "--allowed-signers", allowed)) == (
        f"edgepack: {whole['unsigned']}: expected a signature of a signer that {allowed} lists, "
        f"but the bundle is not signed\n{SIGN_IT}"
    )
    assert said(run("verify", whole["bob"], "--allowed-signers", allowed)) == (
        f"edgepack: {whole['bob']}: {bob}, which {allowed} does not list\n"
        "  If you trust who signed, have this key added there; otherwise get the bundle from "
        "someone the list names.\n"
    )
    mend = "  Have the list mended, or the bundle signed with a key that may.\n"
    ran = run("verify", whole["alice"], "--allowed-signers", allowed, "--signer", "bob@example.org")
    assert said(ran) == (
        f"edgepack: {whole['alice']}: {alice}, which may not sign this: it is the key of "
        f"alice@example.org, not of bob@example.org ({allowed}, line 1)\n{mend}"
    )
    allowed.write_text(f'a namespaces="git" {keys.public("alice")}\n')
    assert said(run("verify", whole["alice"], "--allowed-signers", allowed)) == (
        f"edgepack: {whole['alice']}: {alice}, which may not sign this: it may sign for the "
        f"namespaces 'git' only, not for 'edgepack' ({allowed}, line 1)\n{mend}"
    )
    allowed.write_text(f'a valid-before="20200101Z" {keys.public("alice")}\n')
    assert said(run("verify", whole["alice"], "--allowed-signers", allowed)) == (
        f"edgepack: {whole['alice']}: {alice}, which may not sign this: it expired at "
        f"2020-01-01 00:00:00 UTC ({allowed}, line 1)\n{mend}"
    )


def test_a_refusal_is_of_a_kind_of_its_own(
    run: RunCommand, whole: dict[str, Path], allowed: Path
) -> None:
    ran = run("verify", whole["unsigned"], "--allowed-signers", allowed, "--json")
    assert ran.code == 1
    assert ran.json()["error"]["kind"] == "signature"


def test_someone_to_look_for_takes_a_list(run: RunCommand, whole: dict[str, Path]) -> None:
    ran = run("verify", whole["alice"], "--signer", "alice@example.org")
    assert said(ran) == (
        "edgepack: --signer alice@example.org asks for a signature by an allowed signer, but "
        "there is no list of them\n"
        f"  Give one with --allowed-signers FILE, or write it to {user_signers()}.\n"
    )


def test_the_users_own_list_names_the_signer_and_asks_for_none(
    run: RunCommand, whole: dict[str, Path], keys: Keys
) -> None:
    user_signers().parent.mkdir(parents=True, exist_ok=True)
    user_signers().write_text(f"alice@example.org {keys.public('alice')}\n")
    assert " signed by alice@example.org with the " in run("verify", whole["alice"]).out
    assert run("verify", whole["bob"]).out.endswith(f", which {user_signers()} does not let in\n")
    assert run("verify", whole["unsigned"]).out.endswith(", not signed\n")
    ran = run("verify", whole["bob"], "--signer", "bob@example.org")
    assert f", which {user_signers()} does not list\n" in said(ran)


def test_a_passphrase_is_asked_for_on_a_terminal_and_never_shown(
    keys: Keys, whole: dict[str, Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copy2(whole["unsigned"], tmp_path / "digits.edgepack"))
    program = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    verb = ["-m", "edgepack", "sign", str(bundle), "--key", str(keys.private("locked"))]
    process = subprocess.Popen(
        [sys.executable, "-c", program, sys.executable, *verb],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        while b"Passphrase for " not in shown or not shown.endswith(b": "):
            byte = process.stdout.read(1)
            assert byte, shown
            shown += byte
        process.stdin.write(f"{PASSPHRASE}\n".encode())
        process.stdin.flush()
        shown += process.stdout.read()
    assert process.returncode == 0, shown
    assert keys.fingerprint("locked").encode() in shown
    assert PASSPHRASE.encode() not in shown


# Packing.


def test_pack_signs(run: RunCommand, keys: Keys, allowed: Path) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--recipe", "float32"),
        *("--sign", keys.private("alice"), "--json"),
    )
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["signature"] == {
        "signer": None,
        "fingerprint": keys.fingerprint("alice"),
        "key_type": "ssh-ed25519",
    }
    again = run("verify", body["bundle"], "--allowed-signers", allowed, "--json").json()
    assert (again["signature"]["signer"], again["release"]) == (
        "alice@example.org",
        body["release"],
    )


@pytest.mark.parametrize("verb", ["pack", "deploy"])
def test_a_key_that_cannot_sign_is_refused_before_the_work(
    run: RunCommand, keys: Keys, verb: str
) -> None:
    device = ["nobody@192.0.2.1"] if verb == "deploy" else []
    ran = run(verb, FLOAT_MODEL, *device, "-t", "laptop-x86-64", "--sign", keys.private("rsa"))
    assert said(ran) == (
        f"edgepack: {keys.private('rsa')}: expected a key of type ssh-ed25519, not ssh-rsa\n"
        "  Make one with `ssh-keygen -t ed25519`.\n"
    )
    assert listing(Path.cwd()) == []


# Pushing.


def test_a_signature_travels_with_its_release(
    run: RunCommand, whole: dict[str, Path], keys: Keys, device_root: Path, allowed: Path
) -> None:
    quick = ("local:", "--root", device_root, "--no-health-check", "--json")
    body = run("push", whole["unsigned"], *quick).json()
    assert body["signature"] is None
    folder = Path(body["path"])
    assert not (folder / "manifest.json.sig").exists()
    # Signed later, it is the same release: its signature alone is sent.
    ran = run("push", whole["alice"], *quick, "--allowed-signers", allowed)
    assert ran.code == 0, ran.err
    signed = ran.json()
    assert signed["signature"] == {
        "signer": "alice@example.org",
        "fingerprint": keys.fingerprint("alice"),
        "key_type": "ssh-ed25519",
    }
    assert (signed["path"], signed["release"]) == (body["path"], body["release"])
    sent = (folder / "manifest.json.sig").stat().st_size
    assert signed["sent_bytes"] == sent
    manifest = (folder / "manifest.json").read_bytes()
    assert verify_with_openssh(
        folder / "manifest.json.sig", manifest, signers=allowed, identity="alice@example.org"
    )
    # By somebody else, its signature is replaced; unsigned, it stays.
    assert run("push", whole["bob"], *quick).json()["sent_bytes"] == sent
    assert run("push", whole["unsigned"], *quick).json()["sent_bytes"] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "unsigned",
            "expected a signature of a signer that {allowed} lists, but the bundle is not signed",
        ),
        ("bob", "signed with the ssh-ed25519 key {bob}, which {allowed} does not list"),
    ],
)
def test_push_refuses_before_it_connects(
    run: RunCommand,
    whole: dict[str, Path],
    keys: Keys,
    allowed: Path,
    *,
    name: str,
    message: str,
) -> None:
    ran = run("push", whole[name], "nobody@192.0.2.1", "--allowed-signers", allowed)
    wanted = message.format(allowed=allowed, bob=keys.fingerprint("bob"))
    assert said(ran).splitlines()[0] == f"edgepack: {whole[name]}: {wanted}"
    assert "connecting" not in ran.err


def test_a_signature_of_another_manifest_is_refused_though_none_is_asked_for(
    run: RunCommand, whole: dict[str, Path], tmp_path: Path
) -> None:
    signature = open_bundle(whole["alice"]).read("manifest.json.sig")
    path = tmp_path / "digits.edgepack"
    target = built_in_profile("laptop-x86-64")
    write_digits_bundle(path, version="2.0", target=target, sign=lambda _: signature)
    assert "Signature not right: " in " ".join(run("inspect", path).out.split())
    for argv in (("push", path, "nobody@192.0.2.1"), ("verify", path)):
        message = said(run(*argv)).splitlines()[0]
        assert message.endswith(
            " is not of this manifest: the manifest was changed after it was signed, or the "
            "signature was made for another"
        )


@pytest.mark.parametrize("is_the_users", [False, True], ids=["bundle's", "user's"])
def test_a_target_can_require_a_signature(
    run: RunCommand,
    keys: Keys,
    allowed: Path,
    tmp_path: Path,
    *,
    is_the_users: bool,
) -> None:
    loose = built_in_text("laptop-x86-64")
    strict = loose.replace("[deploy]\n", "[deploy]\nrequire_signature = true\n")
    target = tmp_path / "strict.toml"
    target.write_text(loose if is_the_users else strict)
    own = user_profile_directory() / "strict.toml"
    own.parent.mkdir(parents=True, exist_ok=True)
    if is_the_users:
        own.write_text(strict)
    profile = parse_profile(target.read_text(), profile_id="strict")
    assert profile.require_signature is not is_the_users
    write_digits_bundle(Path("b.edgepack"), target=profile)
    push = ("push", "b.edgepack", "nobody@192.0.2.1")
    assert said(run(*push)) == (
        "edgepack: the target strict asks for a signature by an allowed signer, but there is no "
        "list of them\n"
        f"  Give one with --allowed-signers FILE, or write it to {user_signers()}.\n"
    )
    user_signers().write_text(allowed.read_text())
    assert said(run(*push)) == (
        f"edgepack: b.edgepack: expected a signature of a signer that {user_signers()} lists, but "
        f"the bundle is not signed\n{SIGN_IT}"
    )
    deploy = ("deploy", FLOAT_MODEL, "nobody@192.0.2.1", "-t", target)
    assert said(run(*deploy)) == (
        "edgepack: the target strict asks for a signature, but the bundle is not to be signed\n"
        "  Give the key with --sign KEY.\n"
    )
    assert said(run(*deploy, "--sign", keys.private("bob"))).splitlines()[0] == (
        f"edgepack: signed with the ssh-ed25519 key {keys.fingerprint('bob')}, which "
        f"{user_signers()} does not list"
    )
    # What is timed lies on the device as a release too.
    bench = ("bench", "b.edgepack", "nobody@192.0.2.1")
    assert said(run(*bench)) == said(run(*push))
    if is_the_users:
        own.write_text(strict.replace("require_signature", "requires_signature"))
        assert "deploy.requires_signature: unknown key" in said_of_profile(run(*push))
        own.write_text(strict)
    assert run("sign", "b.edgepack", "--key", keys.private("alice")).code == 0
    ran = run(*push, "--connect-timeout", "0.1")
    assert "connecting to nobody@192.0.2.1\n" in ran.err  # it is let through


# A device's own list.


def test_a_device_can_require_a_signature(
    run: RunCommand, whole: dict[str, Path], keys: Keys, device_root: Path, device_list: Path
) -> None:
    device_list.write_text(f"# ours\n\nalice@example.org {keys.public('alice')}\n")
    before = listing(device_root)
    there = ("local:", "--root", device_root)
    name = f"the device's {device_list}"
    for verb in ("push", "bench"):
        assert said(run(verb, whole["unsigned"], *there)) == (
            "connecting to local:\n"
            f"edgepack: {whole['unsigned']}: expected a signature of a signer that {name} lists, "
            f"but the bundle is not signed\n{SIGN_IT}"
        )
    body = run("push", whole["bob"], *there, "--json").json()
    assert body["error"]["kind"] == "signature"
    assert body["error"]["message"] == (
        f"{whole['bob']}: signed with the ssh-ed25519 key {keys.fingerprint('bob')}, which {name} "
        "does not list"
    )
    assert listing(device_root) == before  # nothing was sent
    ran = run("push", whole["alice"], *there, "--no-health-check", "--json")
    assert ran.code == 0, ran.err
    # Without a look at the device at first, and with the release there already.
    ran = run("push", whole["alice"], *there, "--bundle-only")
    assert ran.code == 0, ran.err
    for bundle in (whole["unsigned"], whole["other"]):
        assert said(run("push", bundle, *there, "--bundle-only")).splitlines()[-2] == (
            f"edgepack: {bundle}: expected a signature of a signer that {name} lists, but the "
            "bundle is not signed"
        )
    ran = run("deploy", FLOAT_MODEL, *there, "-t", "laptop-x86-64")  # before the search
    assert said(ran).splitlines()[-2] == (
        f"edgepack: {name} asks for a signature, but the bundle is not to be signed"
    )


def test_a_process_that_pushes_on_and_on_sees_that_a_bundle_was_signed(
    whole: dict[str, Path], keys: Keys, tmp_path: Path
) -> None:
    path = Path(shutil.copy2(whole["unsigned"], tmp_path / "digits.edgepack"))
    before = open_bundle(path)
    assert not take_bundle(path, before.file_sha256).is_signed
    after = sign_bundle(before, open_signing_key(keys.private("alice"), prompt=None).sign)
    assert take_bundle(path, after.file_sha256).is_signed
    with pytest.raises(BundleError) as caught:
        take_bundle(path, before.file_sha256)
    assert caught.value.message == (
        f"{path}: expected the bundle with sha256 {before.file_sha256[:12]}, but it is "
        f"{after.file_sha256[:12]}"
    )


def test_doctor_tells_what_a_device_requires(
    run: RunCommand, whole: dict[str, Path], keys: Keys, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "allowed_signers").write_text(f"alice {keys.public('alice')}\n")
    there = ("--root", root, "--json")

    def findings(*subject: Path) -> tuple[dict[str, Any] | None, list[str]]:
        body = run("doctor", "local:", *subject, *there).json()
        found = [each for each in body["findings"] if each["topic"] == "signature"]
        return (found[0] if found else None), body["fine"]

    found, fine = findings()
    assert found == {
        "severity": "note",
        "topic": "signature",
        "expected": "to deploy whatever is given",
        "found": "the device takes bundles alone that are signed with 1 key of "
        f"{root}/allowed_signers",
        "fix": "Sign with `edgepack sign BUNDLE --key KEY`, or pack with `--sign KEY`.",
    }
    found, fine = findings(whole["unsigned"])
    assert found is not None
    assert (found["severity"], "signature" in fine) == ("error", False)
    assert found["found"].endswith("but the bundle is not signed")
    found, fine = findings(whole["alice"])
    assert (found, "signature" in fine) == (None, True)
    assert listing(root) == ["allowed_signers"]


def test_a_device_whose_list_cannot_be_used_takes_nothing(
    run: RunCommand, whole: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    path = root / "allowed_signers"
    path.mkdir(parents=True)
    push = ("push", whole["alice"], "local:", "--root", root)
    assert said(run(*push)).splitlines()[1] == (
        f"edgepack: the device's {path}: expected a list of allowed signers, but it cannot be read"
    )
    path.rmdir()
    path.symlink_to("nowhere")
    assert ", but it cannot be read\n" in said(run(*push))
    path.unlink()
    path.write_text("")
    assert said(run(*push)).splitlines()[1].endswith(f", which the device's {path} does not list")
    path.write_text("alice\n" * 600)
    assert ", but it has 512 lines or more\n" in said(run(*push))
    path.write_text("alice cert-authority ssh-ed25519 AAAA\n")
    assert said(run(*push)).splitlines()[1] == (
        f"edgepack: the device's {path}: line 1: cert-authority: certificates are not supported; "
        "list each signer's own key"
    )
    assert listing(root) == ["allowed_signers"]


def test_a_key_that_is_not_valid_yet_is_refused(
    run: RunCommand, whole: dict[str, Path], keys: Keys, allowed: Path
) -> None:
    tomorrow = datetime.now(tz=UTC) + timedelta(days=1)
    allowed.write_text(f'a valid-after="{tomorrow:%Y%m%d%H%M%S}Z" {keys.public("alice")}\n')
    ran = run("verify", whole["alice"], "--allowed-signers", allowed)
    assert f"it is not valid before {tomorrow:%Y-%m-%d %H:%M:%S} UTC ({allowed}, line 1)" in said(
        ran
    )
