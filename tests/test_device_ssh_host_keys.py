import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.host_keys import append_line, check_pin
from edgepack.errors import HostKeyError, UsageError
from tests.fixtures.sshd import SshServer, SshServers, make_key

pytestmark = pytest.mark.sshd

Connect = Callable[..., None]


@pytest.fixture
def connect(ssh_server: SshServer) -> Connect:
    """Connect to the shared server with a known_hosts of one's own."""

    def open_once(known_hosts: Path, **options: object) -> None:
        config = ssh_server.write_config("other", f"UserKnownHostsFile {known_hosts}")
        chosen = ConnectOptions(ssh_config=config, **options)  # type: ignore[arg-type]
        with open_device(ssh_server.address, options=chosen) as device:
            assert device.run(["true"], timeout_seconds=20).exit_code == 0

    return open_once


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "ssh" / "known_hosts"


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """Another host's public key."""
    make_key(tmp_path / "foreign")
    words = (tmp_path / "foreign.pub").read_text().split()
    return f"{words[0]} {words[1]}"


def fingerprint_of(key: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=f"{key}\n", capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1]


def place(server: SshServer) -> str:
    return f"[127.0.0.1]:{server.port}"


def write(known: Path, text: str) -> None:
    known.parent.mkdir(exist_ok=True)
    known.write_text(text)


def test_an_unknown_key_is_refused_with_both_remedies(
    ssh_server: SshServer, connect: Connect, known: Path
) -> None:
    with pytest.raises(HostKeyError) as caught:
        connect(known)
    fingerprint = ssh_server.fingerprint()
    assert caught.value.message == (
        f"{place(ssh_server)}: its host key {fingerprint} (ssh-ed25519) is unknown."
    )
    assert caught.value.remedy == (
        f"Check the fingerprint on the device, then give --host-key {fingerprint}, "
        "or --accept-new-host-key to trust it from now on."
    )
    assert not known.exists()


def test_a_new_key_is_accepted_once_and_known_from_then_on(
    ssh_server: SshServer, connect: Connect, known: Path
) -> None:
    connect(known, accept_new_host_key=True)
    assert known.read_text() == f"{place(ssh_server)} {ssh_server.host_key()}\n"
    assert known.stat().st_mode & 0o777 == 0o600
    assert known.parent.stat().st_mode & 0o777 == 0o700
    connect(known)
    connect(known, accept_new_host_key=True)
    assert len(known.read_text().splitlines()) == 1
    found = subprocess.run(["ssh-keygen", "-F", place(ssh_server), "-f", known], check=False)
    assert found.returncode == 0


def test_a_changed_key_is_never_accepted(
    ssh_server: SshServer, connect: Connect, known: Path, foreign: str
) -> None:
    text = f"# a comment\n{place(ssh_server)} {foreign}\n"
    write(known, text)
    for accept in (False, True):
        with pytest.raises(HostKeyError) as caught:
            connect(known, accept_new_host_key=accept)
        assert caught.value.message == (
            f"{place(ssh_server)}: its host key has changed: expected {fingerprint_of(foreign)} "
            f"(ssh-ed25519) ({known}:2), the host has {ssh_server.fingerprint()} (ssh-ed25519)."
        )
        assert f"ssh-keygen -f {known} -R '{place(ssh_server)}'" in caught.value.remedy
    assert known.read_text() == text


def test_hashed_names(ssh_server: SshServer, connect: Connect, known: Path) -> None:
    write(known, f"{place(ssh_server)} {ssh_server.host_key()}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", known], check=True, capture_output=True)
    assert known.read_text().startswith("|1|")
    connect(known)


def test_new_names_are_hashed_when_configured(ssh_server: SshServer, known: Path) -> None:
    config = ssh_server.write_config("hashing", f"UserKnownHostsFile {known}", "HashKnownHosts yes")
    options = ConnectOptions(ssh_config=config, accept_new_host_key=True)
    with open_device(ssh_server.address, options=options):
        assert known.read_text().startswith("|1|")
    found = subprocess.run(["ssh-keygen", "-F", place(ssh_server), "-f", known], check=False)
    assert found.returncode == 0


@pytest.mark.parametrize("names", ["[127.0.0.*]:*", "other,[127.0.0.1]:{port}", "127.0.0.1", "*"])
def test_names_that_fit(ssh_server: SshServer, connect: Connect, known: Path, names: str) -> None:
    write(known, f"{names.format(port=ssh_server.port)} {ssh_server.host_key()} comment here\n")
    connect(known)


@pytest.mark.parametrize(
    "line",
    [
        "[127.0.0.1]:1 {key}",
        "*,!*127.0.0.1* {key}",
        "@cert-authority * {key}",
        "@unknown * {key}",
        "[127.0.0.1]:{port} ssh-ed25519 not-base64!",
        "[127.0.0.1]:{port}",
        "# [127.0.0.1]:{port} {key}",
    ],
)
def test_lines_that_do_not_fit(
    ssh_server: SshServer, connect: Connect, known: Path, line: str
) -> None:
    write(known, line.format(port=ssh_server.port, key=ssh_server.host_key()) + "\n")
    with pytest.raises(HostKeyError, match="is unknown"):
        connect(known)


def test_a_revoked_key_is_refused_even_when_pinned(
    ssh_server: SshServer, connect: Connect, known: Path
) -> None:
    key = ssh_server.host_key()
    write(known, f"{place(ssh_server)} {key}\n@revoked * {key}\n")
    for pin in (None, ssh_server.fingerprint()):
        with pytest.raises(HostKeyError) as caught:
            connect(known, host_key=pin)
        assert caught.value.message == (
            f"{place(ssh_server)}: its host key {ssh_server.fingerprint()} (ssh-ed25519) "
            f"is revoked by {known}:2."
        )


def test_a_pin_stands_for_known_hosts(
    ssh_server: SshServer, connect: Connect, known: Path, foreign: str
) -> None:
    connect(known, host_key=ssh_server.fingerprint())
    assert not known.exists()
    with pytest.raises(HostKeyError) as caught:
        connect(known, host_key=fingerprint_of(foreign), accept_new_host_key=True)
    assert caught.value.message == (
        f"{place(ssh_server)}: expected the host key {fingerprint_of(foreign)}, "
        f"the host has {ssh_server.fingerprint()} (ssh-ed25519)."
    )
    assert not known.exists()


@pytest.mark.parametrize("pin", ["", "SHA256:", "SHA256:abc", "MD5:00:11", "SHA256:" + "!" * 43])
def test_a_pin_that_is_none(pin: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_pin(pin)
    assert caught.value.message == (
        f"--host-key: expected SHA256: and 43 base64 characters, not {pin!r}."
    )


def test_the_known_type_is_asked_for_first(ssh_servers: SshServers, tmp_path: Path) -> None:
    """A server with several keys must show the one that is known."""
    server = ssh_servers.start(key_types=("ed25519", "rsa", "ecdsa"))
    for key_type in ("rsa", "ecdsa", "ed25519"):
        known = tmp_path / key_type
        known.write_text(f"{place(server)} {server.host_key(key_type)}\n")
        config = server.write_config(f"of-{key_type}", f"UserKnownHostsFile {known}")
        options = ConnectOptions(ssh_config=config)
        with open_device(server.address, options=options) as device:
            assert device.run(["true"], timeout_seconds=20).exit_code == 0


def test_another_type_than_the_known_one_is_a_change(
    ssh_server: SshServer, connect: Connect, known: Path, tmp_path: Path
) -> None:
    make_key(tmp_path / "rsa", key_type="rsa")
    rsa = " ".join((tmp_path / "rsa.pub").read_text().split()[:2])
    write(known, f"{place(ssh_server)} {rsa}\n")
    with pytest.raises(HostKeyError, match=r"has changed: expected .* \(ssh-rsa\)"):
        connect(known, accept_new_host_key=True)


def test_an_alias_is_looked_up_instead(ssh_server: SshServer, known: Path) -> None:
    write(known, f"lab {ssh_server.host_key()}\n")
    config = ssh_server.write_config("alias", f"UserKnownHostsFile {known}", "HostKeyAlias Lab")
    with open_device(ssh_server.address, options=ConnectOptions(ssh_config=config)) as device:
        assert device.name == ssh_server.address


def test_appending_ends_an_open_line_and_spares_the_null_device(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text("open")
    append_line(path, "next\n")
    append_line(path, "last\n")
    assert path.read_text() == "open\nnext\nlast\n"
    append_line(Path("/dev/null"), "x\n")
    assert Path("/dev/null").is_char_device()
