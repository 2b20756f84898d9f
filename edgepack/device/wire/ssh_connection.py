"""Connecting to a host: the wire there, the key exchange, the host key, the login."""

import logging
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import paramiko

from edgepack.device.wire.address import DeviceAddress, parse_address
from edgepack.device.wire.host_keys import HostKey, HostKeyCheck, HostKeyPolicy
from edgepack.device.wire.link import Keepalive, ProxyProcess, WatchedWire, Wire
from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.ssh_auth import Login, Prompt
from edgepack.device.wire.ssh_config import SshSettings, resolve_settings
from edgepack.errors import (
    ConnectError,
    DeviceTimeoutError,
    DroppedError,
    EdgePackError,
    UsageError,
)

CONNECT_SECONDS: Final = 15.0
"""Limit for reaching a device where nothing else is said."""

_MAX_JUMPS: Final = 8

# The cheap ones first: paramiko 5.1 needs one pass over the data for GCM, two for CTR with
# a MAC. Weak ones that paramiko still offers (CBC, 3DES) are left out.
_CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_RSA: Final = "ssh-rsa"
_RSA_SIGNATURES: Final = ("rsa-sha2-512", "rsa-sha2-256")

# Without a handler of its own paramiko's errors, with their tracebacks, would go to stderr
# (logging's last resort), although each is raised and told by us.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectOptions:
    """How to connect, beyond what the SSH configuration says.

    Attributes:
        ssh_config: configuration file instead of the user's own.
        accept_new_host_key: trust a host's key on first sight and write it down.
        host_key: fingerprint (`SHA256:…`) the device's key must have.
        identity: private key file to log in with, before those of the configuration.
        connect_timeout_seconds: for the TCP connection, the banner and the key exchange,
            each; None for the configuration's ConnectTimeout, else 15 s.
        auth_timeout_seconds: for each answer of the host during the login.
        prompt: asks the user for a passphrase or password; None without a terminal.
    """

    ssh_config: Path | None = None
    accept_new_host_key: bool = False
    host_key: str | None = None
    identity: Path | None = None
    connect_timeout_seconds: float | None = None
    auth_timeout_seconds: float = 30.0
    prompt: Prompt | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Hop:
    """One host on the way, the device itself being the last."""

    name: str
    settings: SshSettings
    policy: HostKeyPolicy
    num_jumps_left: int
    timeout_seconds: float


class SshConnector:
    """Connects to hosts; what it opens is closed with the stack it is given."""

    def __init__(self, options: ConnectOptions, stack: ExitStack) -> None:
        self._options = options
        self._stack = stack

    def connect(
        self, address: DeviceAddress, policy: HostKeyPolicy
    ) -> tuple[paramiko.Transport, WatchedWire]:
        """Connect to a device, through others where the configuration says so, and log in.

        Raises:
            UsageError, ConnectError, HostKeyError, AuthError, DeviceTimeoutError: as
                `open_device` says.
        """
        return self._connect(self._hop(address, policy, _MAX_JUMPS))

    def _hop(self, address: DeviceAddress, policy: HostKeyPolicy, num_jumps_left: int) -> _Hop:
        options = self._options
        settings = resolve_settings(address, ssh_config=options.ssh_config)
        if options.identity is not None:
            files = (options.identity, *settings.identity_files)
            settings = replace(settings, identity_files=files)
        return _Hop(
            name=str(address),
            settings=settings,
            policy=policy,
            num_jumps_left=num_jumps_left,
            timeout_seconds=options.connect_timeout_seconds
            or settings.connect_timeout_seconds
            or CONNECT_SECONDS,
        )

    def _connect(self, hop: _Hop) -> tuple[paramiko.Transport, WatchedWire]:
        check = HostKeyCheck(hop.settings, hop.policy)
        wire = WatchedWire(self._open_wire(hop))
        transport = self._shake_hands(wire, hop, check)
        key = transport.get_remote_server_key()
        check.verify(HostKey(key_type=key.get_name(), blob=key.asbytes()))
        login = Login(
            transport,
            hop.settings,
            prompt=self._options.prompt,
            timeout_seconds=self._options.auth_timeout_seconds,
        )
        login.run()
        wire.watch()
        keepalive = Keepalive(transport, wire)
        keepalive.start()
        self._stack.callback(keepalive.stop)
        return transport, wire

    def _open_wire(self, hop: _Hop) -> Wire:
        if hop.settings.proxy_jump is not None:
            return self._open_tunnel(hop, hop.settings.proxy_jump)
        if hop.settings.proxy_command is not None:
            process = ProxyProcess(hop.settings.proxy_command)
            self._stack.callback(process.close)
            return process.socket
        connection = _open_socket(hop)
        self._stack.callback(connection.close)
        return connection

    def _open_tunnel(self, hop: _Hop, proxy_jump: str) -> Wire:
        if hop.num_jumps_left == 0:
            raise UsageError(
                f"{hop.name}: its ProxyJump leads through more than {_MAX_JUMPS} hosts.",
                remedy="See whether a host of the SSH configuration jumps through itself.",
            )
        *before, last = proxy_jump.split(",")
        # The pin is the device's own; a jump host is checked against known_hosts.
        policy = replace(hop.policy, pin=None)
        jump = self._hop(parse_address(last.strip()), policy, hop.num_jumps_left - 1)
        if before:  # as `ssh -J a,b`: a leads to b, whatever b's own configuration says
            settings = replace(jump.settings, proxy_jump=",".join(before), proxy_command=None)
            jump = replace(jump, settings=settings)
        transport, _ = self._connect(jump)
        place = f"{hop.settings.host_name}:{hop.settings.port}"
        try:
            return transport.open_channel(
                "direct-tcpip",
                (hop.settings.host_name, hop.settings.port),
                ("127.0.0.1", 0),
                timeout=hop.timeout_seconds,
            )
        except paramiko.ChannelException as error:
            raise ConnectError(
                f"{hop.name}: the jump host {jump.name} made no connection to {place}: "
                f"{clean_text(error.text)}.",
                remedy="See whether the device is up and can be reached from the jump host.",
            ) from None
        except (paramiko.SSHException, EOFError, OSError):
            raise DeviceTimeoutError(
                f"{hop.name}: the jump host {jump.name} made no connection to {place} within "
                f"{hop.timeout_seconds:g} s.",
                remedy="See whether the device is up and can be reached from the jump host.",
            ) from None

    def _shake_hands(self, wire: WatchedWire, hop: _Hop, check: HostKeyCheck) -> paramiko.Transport:
        transport = paramiko.Transport(wire)  # type: ignore[arg-type]  # any such object will do
        self._stack.callback(_close, transport)
        transport.banner_timeout = hop.timeout_seconds
        transport.handshake_timeout = hop.timeout_seconds
        security = transport.get_security_options()
        security.ciphers = tuple(name for name in _CIPHERS if name in security.ciphers)
        security.key_types = order_key_types(tuple(security.key_types), check.known_types)
        started = time.monotonic()
        try:
            transport.start_client(timeout=2 * hop.timeout_seconds)
        except (paramiko.SSHException, EOFError, OSError) as error:
            is_late = time.monotonic() - started >= hop.timeout_seconds
            raise _no_handshake(transport, hop, str(error), is_late=is_late) from None
        if not transport.initial_kex_done:  # paramiko 5.1 says nothing when its time is over
            raise _no_handshake(transport, hop, "", is_late=True)
        return transport


def _open_socket(hop: _Hop) -> socket.socket:
    host, port = hop.settings.host_name, hop.settings.port
    try:
        connection = socket.create_connection((host, port), timeout=hop.timeout_seconds)
    except (socket.gaierror, UnicodeError) as error:
        raise ConnectError(
            f"{hop.name}: no address is known for {host!r} "
            f"({getattr(error, 'strerror', None) or error}).",
            remedy="Check the name, or write the device's IP address.",
        ) from None
    except TimeoutError:
        raise DeviceTimeoutError(
            f"{hop.name}: {host}:{port} accepted no connection within {hop.timeout_seconds:g} s.",
            remedy="See whether the device is on and in this network.",
        ) from None
    except OSError as error:
        raise ConnectError(
            f"{hop.name}: no connection to {host}:{port}: {error.strerror or error}.",
            remedy="See whether the device is on, and whether its SSH server listens there.",
        ) from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _no_handshake(
    transport: paramiko.Transport, hop: _Hop, reason: str, *, is_late: bool
) -> EdgePackError:
    if not transport.remote_version:
        remedy = "See whether an SSH server listens on that port."
        if is_late:
            return DeviceTimeoutError(
                f"{hop.name} took the connection and sent no SSH banner within "
                f"{hop.timeout_seconds:g} s.",
                remedy=remedy,
            )
        # OpenSSH hangs up on the 11th that shakes hands with it (MaxStartups), from 9.8 on also
        # on who failed before (PerSourcePenalties).
        return DroppedError(f"{hop.name} took the connection and then spoke no SSH.", remedy=remedy)
    if is_late:
        return DeviceTimeoutError(
            f"{hop.name} did not finish the SSH key exchange within {hop.timeout_seconds:g} s.",
            remedy="See whether the device is overloaded, or try again.",
        )
    return ConnectError(
        f"{hop.name}: the SSH key exchange failed: {reason or 'the connection was closed'}.",
        remedy="See whether the device's SSH server is current (OpenSSH 7.2 or later works).",
    )


def order_key_types(offered: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Put the signature algorithms of the known host keys' types first."""
    wanted = [
        algorithm
        for key_type in known
        for algorithm in (_RSA_SIGNATURES if key_type == _RSA else (key_type,))
        if algorithm in offered
    ]
    return tuple(dict.fromkeys((*wanted, *offered)))


def _close(transport: paramiko.Transport) -> None:
    # After a failed key exchange paramiko 5.1 leaves its timer thread running, which would
    # hold the interpreter at exit.
    transport.packetizer.complete_handshake()
    transport.close()
