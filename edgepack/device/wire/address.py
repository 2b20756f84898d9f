"""The text a user names a device by, read into its parts."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack.errors import UsageError

_FORMS: Final = (
    "Write user@host, user@host:port, ssh://user@host:port, an alias, local:, or adb:SERIAL."
)

# What OpenSSH 9.6 refuses in hosts and users since a ProxyCommand hands them to a shell
# (CVE-2023-51385), and what would end the host part of an address.
_UNSAFE_HOST: Final = re.compile(r"[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}/@,?#*!]")
_UNSAFE_USER: Final = re.compile(r"[\s\x00-\x1f\x7f'\"`;&<>|(){}]|\\$")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LAST_PORT: Final = 65535
_SERIAL: Final = re.compile(r"[!-~]{0,255}")


class TransportKind(StrEnum):
    """The wire that leads to a device."""

    LOCAL = "local"
    SSH = "ssh"
    ADB = "adb"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceAddress:
    """Where a device is.

    Attributes:
        kind: the wire that leads there.
        host: host name, IP address without brackets, or SSH alias; empty for `local:`. Of
            `adb:` the serial, which may be HOST:PORT; empty for the only device attached.
        user: login name, or None when the SSH configuration says it.
        port: TCP port, or None when the SSH configuration says it.
    """

    kind: TransportKind
    host: str = ""
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        if self.kind is TransportKind.LOCAL:
            return "local:"
        if self.kind is TransportKind.ADB:
            return f"adb:{self.host}"
        user = "" if self.user is None else f"{self.user}@"
        if self.port is None:
            return f"{user}{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}:{self.port}"


def parse_address(text: str) -> DeviceAddress:
    """Read a device's address.

    Takes `user@host[:port]`, `user@[v6]:port`, `ssh://user@host:port`, an alias of the
    SSH configuration, `local:`, and `adb:[SERIAL]` or `adb:HOST:PORT`. A parsed address
    reads back from its own text.

    Raises:
        UsageError: the text is no address, or one that cannot be served.
    """
    if text == "local:":
        return DeviceAddress(kind=TransportKind.LOCAL)
    scheme, separator, rest = text.partition(":")
    if separator and scheme == "local":
        raise UsageError(
            f"local: stands for this machine and takes nothing after it, not {rest!r}.",
            remedy="Write local: alone.",
        )
    if separator and scheme == "adb":
        if not _SERIAL.fullmatch(rest) or rest.startswith("-"):
            raise _refusal(text, "expected a serial as `adb devices` lists them, or HOST:PORT")
        return DeviceAddress(kind=TransportKind.ADB, host=rest)
    if text.startswith("ssh://"):
        body = text.removeprefix("ssh://").removesuffix("/")
    elif "://" in text:
        raise _refusal(text, f"unknown scheme {text.partition('://')[0]!r}")
    else:
        body = text
    user, separator, location = body.rpartition("@")
    host, port = _split_port(text, location)
    return DeviceAddress(
        kind=TransportKind.SSH,
        host=_check_host(text, host),
        user=_check_user(text, user, is_url=body is not text) if separator else None,
        port=port,
    )


def _refusal(text: str, reason: str) -> UsageError:
    return UsageError(f"{text!r} is no device address: {reason}.", remedy=_FORMS)


def _split_port(text: str, location: str) -> tuple[str, int | None]:
    if location.startswith("["):
        host, bracket, tail = location[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _refusal(text, "expected [address] or [address]:port")
        port = tail[1:] if tail else None
    elif location.count(":") > 1:  # an IPv6 address without brackets has no port
        host, port = location, None
    else:
        host, separator, tail = location.partition(":")
        port = tail if separator else None
    if port is None:
        return host, None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= _LAST_PORT:
        raise _refusal(text, f"expected a port from 1 to {_LAST_PORT}, not {port!r}")
    return host, int(port)


def _check_host(text: str, host: str) -> str:
    if not host:
        raise _refusal(text, "the host is missing")
    if host.startswith("-"):
        raise _refusal(text, "a host cannot start with '-'")
    unsafe = _UNSAFE_HOST.search(host)
    if unsafe is not None:
        raise _refusal(text, f"{unsafe.group()!r} cannot stand in a host")
    if ":" in host or "[" in host or "]" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _refusal(text, f"{host!r} is no IPv6 address") from None
    return host


def _check_user(text: str, user: str, *, is_url: bool) -> str:
    if not user:
        raise _refusal(text, "the user before '@' is missing")
    if is_url and ":" in user:
        # The text is not repeated: what follows the colon is a password.
        raise UsageError(
            "An ssh:// address cannot hold a password.",
            remedy="Write ssh://user@host; the password is asked for when the device wants one.",
        )
    if user.startswith("-"):
        raise _refusal(text, "a user cannot start with '-'")
    unsafe = _UNSAFE_USER.search(user)
    if unsafe is not None:
        raise _refusal(text, f"{unsafe.group()!r} cannot stand in a user")
    return user


def subject(name: str) -> str:
    """Give a device's name as the beginning of a message; `local:` has its colon."""
    return name if name.endswith(":") else f"{name}:"
