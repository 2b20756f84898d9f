"""The SSH settings of one host, as the user's own configuration gives them."""

import getpass
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import paramiko

from edgepack.device.wire.address import DeviceAddress
from edgepack.errors import ConnectError, UsageError

_SSH_PORT: Final = 22
_RESOLVE_SECONDS: Final = 20.0
_DEFAULT_IDENTITIES: Final = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_DEFAULT_KNOWN_HOSTS: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS: Final = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True, kw_only=True, slots=True)
class SshSettings:
    """How one host is reached.

    Attributes:
        host_name: what to resolve and connect to.
        port: TCP port.
        user: login name on the host.
        identity_files: private key files in the order to try; they need not exist.
        identities_only: offer only keys of `identity_files`, even from an agent.
        identity_agent: socket of the agent; None for `SSH_AUTH_SOCK`, "none" for no agent.
        proxy_jump: hosts to go through, as written, first one first.
        proxy_command: command whose standard input and output lead to the host; tokens
            are expanded.
        user_known_hosts: files of known host keys; new keys are added to the first.
        global_known_hosts: further files of known host keys, never written.
        host_key_alias: name to look host keys up by instead of the host's.
        accepts_new_host_keys: the configuration says to trust a key on first sight.
        hashes_known_hosts: new entries of `user_known_hosts` hide the host's name.
        connect_timeout_seconds: as configured, or None.
    """

    host_name: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None
    proxy_jump: str | None = None
    proxy_command: str | None = None
    user_known_hosts: tuple[Path, ...] = ()
    global_known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
    accepts_new_host_keys: bool = False
    hashes_known_hosts: bool = False
    connect_timeout_seconds: float | None = None

    @property
    def known_hosts_name(self) -> str:
        """The name the host's keys are filed under, as in OpenSSH's known_hosts."""
        if self.host_key_alias is not None:
            return self.host_key_alias.lower()
        if self.port == _SSH_PORT:
            return self.host_name.lower()
        return f"[{self.host_name.lower()}]:{self.port}"


def resolve_settings(
    address: DeviceAddress, *, ssh_config: Path | None, openssh: str | None = "ssh"
) -> SshSettings:
    """Resolve an address through the user's SSH configuration.

    OpenSSH itself does it (`ssh -G`) when its client is installed; else paramiko's
    parser, which knows no `Include` and reads the user's file only.

    Args:
        address: an address of kind SSH.
        ssh_config: the configuration file; None for OpenSSH's own places.
        openssh: name or path of the OpenSSH client; None never asks it.

    Raises:
        UsageError: the configuration cannot be read, or has faults.
    """
    if ssh_config is not None and not ssh_config.is_file():
        raise UsageError(
            f"{ssh_config}: expected an SSH configuration, found no such file.",
            remedy="Give --ssh-config an existing file, or leave it out.",
        )
    program = None if openssh is None else shutil.which(openssh)
    if program is not None:
        return parse_resolved(_ask_openssh(program, address, ssh_config), address)
    return _ask_paramiko(address, ssh_config)


def _ask_openssh(program: str, address: DeviceAddress, ssh_config: Path | None) -> str:
    argv = [program, "-G", "-T"]
    if ssh_config is not None:
        argv += ["-F", str(ssh_config)]
    if address.user is not None:
        argv += ["-l", address.user]
    if address.port is not None:
        argv += ["-p", str(address.port)]
    argv += ["--", address.host]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_RESOLVE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectError(
            f"The SSH configuration of {address} was not resolved within {_RESOLVE_SECONDS:.0f} s.",
            remedy="Look for a Match exec in it that hangs, or give another --ssh-config.",
        ) from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise UsageError(
            f"The SSH configuration of {address} has faults:\n{reason}",
            remedy="Mend the file, or give another with --ssh-config.",
        )
    return done.stdout.decode(errors="surrogateescape")


def parse_resolved(text: str, address: DeviceAddress) -> SshSettings:
    """Read what `ssh -G` prints: one `keyword value` a line, keywords in lower case."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        values.setdefault(keyword, []).append(value)
    return _read_settings(values, address)


def _ask_paramiko(address: DeviceAddress, ssh_config: Path | None) -> SshSettings:
    path = ssh_config or Path("~/.ssh/config").expanduser()
    # The address goes over the file, as with `ssh -l -p`: in a configuration the first
    # value counts, and tokens such as %p are expanded by paramiko as it reads.
    lines = ["Host *"]
    if address.user is not None:
        lines.append(f"User {address.user}")
    if address.port is not None:
        lines.append(f"Port {address.port}")
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = paramiko.SSHConfig.from_text("\n".join([*lines, text])).lookup(address.host)
    except (paramiko.ssh_exception.ConfigParseError, OSError, ValueError) as error:
        raise UsageError(
            f"{path}: the SSH configuration has faults: {error}",
            remedy="Mend the file, or give another with --ssh-config.",
        ) from None
    values: dict[str, list[str]] = {}
    for keyword in found:
        # paramiko 5.1 gives lists for keywords that may stand several times.
        value: object = found[keyword]
        values[keyword] = value if isinstance(value, list) else [str(value)]
    values.setdefault("identityfile", list(_DEFAULT_IDENTITIES))
    values.setdefault("userknownhostsfile", [" ".join(_DEFAULT_KNOWN_HOSTS)])
    values.setdefault("globalknownhostsfile", [" ".join(_GLOBAL_KNOWN_HOSTS)])
    return _read_settings(values, address)


def _read_settings(values: Mapping[str, Sequence[str]], address: DeviceAddress) -> SshSettings:
    def last(keyword: str) -> str | None:
        given = values.get(keyword)
        return None if not given or given[-1].lower() == "none" else given[-1]

    def paths(keyword: str) -> tuple[Path, ...]:
        joined = [path for line in values.get(keyword, ()) for path in _split_paths(line)]
        return tuple(expand(path) for path in joined if path.lower() != "none")

    host_name = last("hostname") or address.host
    port = int(last("port") or _SSH_PORT)
    user = last("user") or getpass.getuser()
    tokens = {
        "%": "%",
        "d": str(Path.home()),
        "h": host_name,
        "n": address.host,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
    }

    def expand(text: str) -> Path:
        return Path(_expand_tokens(text, tokens)).expanduser()

    proxy_command = last("proxycommand")
    timeout = last("connecttimeout")
    return SshSettings(
        host_name=host_name,
        port=port,
        user=user,
        identity_files=tuple(
            expand(text) for text in values.get("identityfile", ()) if text.lower() != "none"
        ),
        identities_only=last("identitiesonly") in {"yes", "true"},
        identity_agent=_read_agent(values.get("identityagent", ())),
        proxy_jump=last("proxyjump"),
        proxy_command=None if proxy_command is None else _expand_tokens(proxy_command, tokens),
        user_known_hosts=paths("userknownhostsfile"),
        global_known_hosts=paths("globalknownhostsfile"),
        host_key_alias=last("hostkeyalias"),
        accepts_new_host_keys=last("stricthostkeychecking") in {"accept-new", "no", "off", "false"},
        hashes_known_hosts=last("hashknownhosts") in {"yes", "true"},
        connect_timeout_seconds=float(timeout) if timeout and timeout.isdigit() else None,
    )


def _read_agent(given: Sequence[str]) -> str | None:
    if not given or given[-1] == "SSH_AUTH_SOCK":
        return None
    if given[-1].lower() == "none":
        return "none"
    return str(Path(given[-1]).expanduser())


def _split_paths(line: str) -> list[str]:
    # `ssh -G` (9.2) prints several files without quotes, so a space may part two paths
    # or stand within one; only a new path starts with '/', '~' or a token.
    paths: list[str] = []
    for word in line.split(" "):
        if paths and not word.startswith(("/", "~", "%", "none")):
            paths[-1] += f" {word}"
        else:
            paths.append(word)
    return [path for path in paths if path]


def _expand_tokens(text: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)
