import subprocess
from pathlib import Path

import pytest

from edgepack.device.wire.address import parse_address
from edgepack.device.wire.ssh_config import SshSettings, resolve_settings
from edgepack.errors import UsageError

BOTH = pytest.mark.parametrize("openssh", ["ssh", None])


def resolve(text: str, config: Path, openssh: str | None) -> SshSettings:
    return resolve_settings(parse_address(text), ssh_config=config, openssh=openssh)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(
        f"""
Host board
  HostName 10.1.2.3
  Port 2222
  User pi
  IdentityFile {tmp_path}/%h.key
  IdentityFile {tmp_path}/second
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {tmp_path}/known {tmp_path}/more
  GlobalKnownHostsFile {tmp_path}/global
  HostKeyAlias lab
  StrictHostKeyChecking accept-new
  HashKnownHosts yes
  ConnectTimeout 7
Host far
  ProxyJump me@jump:23,second
Host piped
  ProxyCommand nc %h %p 100%%
Host quiet
  UserKnownHostsFile none
  IdentityFile none
  StrictHostKeyChecking ask
"""
    )
    return path


@BOTH
def test_what_is_configured(config: Path, openssh: str | None) -> None:
    folder = config.parent
    assert resolve("board", config, openssh) == SshSettings(
        host_name="10.1.2.3",
        port=2222,
        user="pi",
        identity_files=(folder / "10.1.2.3.key", folder / "second"),
        identities_only=True,
        identity_agent="none",
        user_known_hosts=(folder / "known", folder / "more"),
        global_known_hosts=(folder / "global",),
        host_key_alias="lab",
        accepts_new_host_keys=True,
        hashes_known_hosts=True,
        connect_timeout_seconds=7.0,
    )


@BOTH
def test_the_address_goes_over_the_file(config: Path, openssh: str | None) -> None:
    settings = resolve("root@board:99", config, openssh)
    assert (settings.user, settings.port, settings.host_name) == ("root", 99, "10.1.2.3")


@BOTH
def test_proxies(config: Path, openssh: str | None) -> None:
    assert resolve("far", config, openssh).proxy_jump == "me@jump:23,second"
    assert resolve("piped:24", config, openssh).proxy_command == "nc piped 24 100%"
    assert resolve("board", config, openssh).proxy_jump is None


@BOTH
def test_none_and_ask(config: Path, openssh: str | None) -> None:
    settings = resolve("quiet", config, openssh)
    assert settings.user_known_hosts == ()
    assert settings.identity_files == ()
    assert not settings.accepts_new_host_keys


@BOTH
def test_an_unknown_host_has_the_defaults(config: Path, openssh: str | None) -> None:
    settings = resolve("other.example", config, openssh)
    assert (settings.host_name, settings.port) == ("other.example", 22)
    names = [path.name for path in settings.identity_files]
    assert {"id_rsa", "id_ed25519"} <= set(names)
    assert settings.user_known_hosts[0].name == "known_hosts"
    assert settings.known_hosts_name == "other.example"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Board.Local", "board.local"), ("board.local:24", "[board.local]:24")],
)
def test_the_name_in_known_hosts(config: Path, text: str, expected: str) -> None:
    assert resolve(text, config, "ssh").known_hosts_name == expected


def test_an_alias_names_the_key_without_port(config: Path) -> None:
    assert resolve("board", config, "ssh").known_hosts_name == "lab"


def test_include_and_match_as_openssh_sees_them(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host inner\n  Port 77\nMatch user root host matched\n  Port 78")
    config = tmp_path / "config"
    config.write_text(f"Include {tmp_path}/more\n")
    assert resolve("inner", config, "ssh").port == 77
    assert resolve("root@matched", config, "ssh").port == 78


def test_a_path_with_a_space(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('Host b\n  UserKnownHostsFile "/etc/a b" /etc/c')
    assert resolve("b", config, "ssh").user_known_hosts == (Path("/etc/a b"), Path("/etc/c"))


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    with pytest.raises(UsageError) as caught:
        resolve("b", path, "ssh")
    assert caught.value.message == (f"{path}: expected an SSH configuration, found no such file.")
    assert caught.value.remedy == "Give --ssh-config an existing file, or leave it out."


def test_a_faulty_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("Host b\n  NoSuchKeyword 1\n")
    with pytest.raises(UsageError) as caught:
        resolve("b", path, "ssh")
    assert caught.value.message.startswith("The SSH configuration of b has faults:\n")
    assert "line 2: Bad configuration option: nosuchkeyword" in caught.value.message


def test_nothing_of_the_address_is_an_option(tmp_path: Path) -> None:
    """The argv OpenSSH gets, as a program in its place sees it."""
    seen = tmp_path / "seen"
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\n')
    program.chmod(0o755)
    config = tmp_path / "config"
    config.write_text("")
    resolve("pi@board:24", config, str(program))
    assert seen.read_text().split("\n") == [
        "-G", "-T", "-F", str(config), "-l", "pi", "-p", "24", "--", "board", "",
    ]  # fmt: skip


def test_openssh_agrees_that_the_config_is_right(config: Path) -> None:
    subprocess.run(["ssh", "-G", "-F", config, "board"], check=True, stdout=subprocess.DEVNULL)
