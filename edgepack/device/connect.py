"""Opening a device: resolve its address, connect, check the host key, log in."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import paramiko

from edgepack.device.address import DeviceAddress, TransportKind, parse_address
from edgepack.device.host_keys import HostKey, HostKeyCheck, HostKeyPolicy, check_pin
from edgepack.device.link import Keepalive, ProxyProcess, WatchedWire, Wire
from edgepack.device.local import LocalDevice
from edgepack.device.ssh import SshDevice
from edgepack.device.ssh_auth import Login, Prompt
from edgepack.device.ssh_config import SshSettings, resolve_settings
from edgepack.device.transport import Device
from edgepack.errors import ConnectError, DeviceTimeoutError, UsageError

_CONNECT_SECONDS: Final = 15.0
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
        connect_timeout_seconds: for name, TCP connection, banner and key exchange, each;
            None for the configuration's ConnectTimeout, else 15 s.
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


@contextmanager
def open_device(text: str, *, options: ConnectOptions | None = None) -> Iterator[Device]:
    """Open the device the user named, and close it at the end.

    Raises:
        UsageError: the address, an option or the SSH configuration is not right.
        ConnectError: no connection could be made.
        HostKeyError: the host key is unknown, changed, revoked, or not the pinned one.
        AuthError: the host refused every credential.
        DeviceTimeoutError: a step took longer than its limit; says which.
    """
    address = parse_address(text)
    if address.kind is TransportKind.LOCAL:
        yield LocalDevice()
        return
    options = options or ConnectOptions()
    pin = None if options.host_key is None else check_pin(options.host_key)
    if options.identity is not None and not options.identity.is_file():
        raise UsageError(
            f"--identity: expected a private key file, found none at {options.identity}.",
            remedy="Name an existing key, or leave --identity out.",
        )
    with ExitStack() as stack:
        policy = HostKeyPolicy(accept_new=options.accept_new_host_key, pin=pin)
        settings = _settings(address, options)
        transport, wire = _connect(settings, str(address), policy, options, stack, _MAX_JUMPS)
        yield SshDevice(transport, wire, name=str(address))


def _settings(address: DeviceAddress, options: ConnectOptions) -> SshSettings:
    settings = resolve_settings(address, ssh_config=options.ssh_config)
    if options.identity is None:
        return settings
    return replace(settings, identity_files=(options.identity, *settings.identity_files))


def _connect(
    settings: SshSettings,
    name: str,
    policy: HostKeyPolicy,
    options: ConnectOptions,
    stack: ExitStack,
    num_jumps_left: int,
) -> tuple[paramiko.Transport, WatchedWire]:
    """Connect to a host, through others where configured, and log in."""
    timeout_seconds = (
        options.connect_timeout_seconds or settings.connect_timeout_seconds or _CONNECT_SECONDS
    )
    check = HostKeyCheck(settings, policy)
    raw = _open_wire(settings, name, policy, options, stack, num_jumps_left, timeout_seconds)
    wire = WatchedWire(raw)
    transport = _shake_hands(wire, name, check, timeout_seconds, stack)
    remote_key = transport.get_remote_server_key()
    check.verify(HostKey(key_type=remote_key.get_name(), blob=remote_key.asbytes()))
    Login(
        transport, settings, prompt=options.prompt, timeout_seconds=options.auth_timeout_seconds
    ).run()
    wire.watch()
    keepalive = Keepalive(transport, wire)
    keepalive.start()
    stack.callback(keepalive.stop)
    return transport, wire


def _open_wire(
    settings: SshSettings,
    name: str,
    policy: HostKeyPolicy,
    options: ConnectOptions,
    stack: ExitStack,
    num_jumps_left: int,
    timeout_seconds: float,
) -> Wire:
    if settings.proxy_jump is not None:
        if num_jumps_left == 0:
            raise UsageError(
                f"{name}: its ProxyJump leads through more than {_MAX_JUMPS} hosts.",
                remedy="See whether a host of the SSH configuration jumps through itself.",
            )
        *before, last = settings.proxy_jump.split(",")
        jump_address = parse_address(last.strip())
        jump = _settings(jump_address, options)
        if before:  # as `ssh -J a,b`: a leads to b, whatever b's own configuration says
            jump = replace(jump, proxy_jump=",".join(before), proxy_command=None)
        # The pin is the device's; a jump host is checked against known_hosts.
        transport, _ = _connect(
            jump, str(jump_address), replace(policy, pin=None), options, stack, num_jumps_left - 1
        )
        return _open_tunnel(transport, str(jump_address), settings, timeout_seconds)
    if settings.proxy_command is not None:
        process = ProxyProcess(settings.proxy_command)
        stack.callback(process.close)
        return process.socket
    return _open_socket(settings, name, timeout_seconds)


def _open_tunnel(
    transport: paramiko.Transport, jump: str, settings: SshSettings, timeout_seconds: float
) -> paramiko.Channel:
    try:
        return transport.open_channel(
            "direct-tcpip",
            (settings.host_name, settings.port),
            ("127.0.0.1", 0),
            timeout=timeout_seconds,
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise ConnectError(
            f"{jump} made no connection to {settings.host_name}:{settings.port}: {error}.",
            remedy="See whether the device is up and can be reached from the jump host.",
        ) from None


def _open_socket(settings: SshSettings, name: str, timeout_seconds: float) -> socket.socket:
    place = f"{settings.host_name}:{settings.port}"
    try:
        connection = socket.create_connection(
            (settings.host_name, settings.port), timeout=timeout_seconds
        )
    except socket.gaierror as error:
        raise ConnectError(
            f"{name}: no address is known for {settings.host_name!r}: {error.strerror}.",
            remedy="Check the name, or write the device's IP address.",
        ) from None
    except TimeoutError:
        raise DeviceTimeoutError(
            f"{name}: {place} did not accept a connection within {timeout_seconds:g} s.",
            remedy="See whether the device is on and in this network.",
        ) from None
    except OSError as error:
        raise ConnectError(
            f"{name}: no connection to {place}: {error.strerror or error}.",
            remedy="See whether the device is on, and whether its SSH server listens there.",
        ) from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _shake_hands(
    wire: WatchedWire, name: str, check: HostKeyCheck, timeout_seconds: float, stack: ExitStack
) -> paramiko.Transport:
    transport = paramiko.Transport(wire)
    stack.callback(_close, transport)
    transport.banner_timeout = timeout_seconds
    transport.handshake_timeout = timeout_seconds
    security = transport.get_security_options()
    security.ciphers = tuple(name for name in _CIPHERS if name in security.ciphers)
    security.key_types = _order_key_types(tuple(security.key_types), check.known_types)
    started = time.monotonic()
    try:
        transport.start_client(timeout=2 * timeout_seconds)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _no_handshake(transport, name, error, time.monotonic() - started, timeout_seconds) from None
    if not transport.initial_kex_done:
        raise _no_handshake(transport, name, TimeoutError(), 2 * timeout_seconds, timeout_seconds)
    return transport


def _no_handshake(
    transport: paramiko.Transport,
    name: str,
    error: BaseException,
    seconds: float,
    timeout_seconds: float,
) -> ConnectError | DeviceTimeoutError:
    is_late = isinstance(error, TimeoutError) or seconds >= timeout_seconds
    if not transport.remote_version:
        if is_late:
            return DeviceTimeoutError(
                f"{name} accepted the connection and sent no SSH banner within "
                f"{timeout_seconds:g} s.",
                remedy="See whether an SSH server listens on that port, and whether the device "
                "is overloaded.",
            )
        return ConnectError(
            f"{name} accepted the connection and then spoke no SSH.",
            remedy="See whether an SSH server listens on that port.",
        )
    if is_late:
        return DeviceTimeoutError(
            f"{name} did not finish the SSH key exchange within {timeout_seconds:g} s.",
            remedy="See whether the device is overloaded, or try again.",
        )
    reason = str(error) or "the connection was closed"
    return ConnectError(
        f"{name}: the SSH key exchange failed: {reason}.",
        remedy="See whether the device's SSH server is current (OpenSSH 7.2 or later works).",
    )


def _order_key_types(offered: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Put the signature algorithms of known host keys first."""
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
