"""Known host keys: what OpenSSH's known_hosts files say of a host, and adding to them."""

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgepack.device.wire.ssh_config import SshSettings
from edgepack.errors import HostKeyError, UsageError

_HASH_PREFIX: Final = "|1|"
_PIN_BYTES: Final = 32


class Marker(StrEnum):
    """What a line of known_hosts says of its key."""

    KNOWN = ""
    REVOKED = "@revoked"
    AUTHORITY = "@cert-authority"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostKey:
    """A public host key.

    Attributes:
        key_type: its name in the protocol, such as `ssh-ed25519`.
        blob: the key as it goes over the wire.
    """

    key_type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and base64, as OpenSSH shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownHost:
    """A line of a known_hosts file.

    Attributes:
        path: the file.
        line: its number, from 1.
        marker: what the line says of the key.
        names: the hosts it is for, as written: names, patterns, or a hash.
        key: the key.
    """

    path: Path
    line: int
    marker: Marker
    names: tuple[str, ...]
    key: HostKey

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    def matches(self, name: str) -> bool:
        """Tell whether the line is for a host, given as `host` or `[host]:port`."""
        found = False
        for pattern in self.names:
            if pattern.startswith(_HASH_PREFIX):
                found = found or _matches_hash(name, pattern)
            elif pattern.startswith("!"):
                if _matches_pattern(name, pattern[1:]):
                    return False
            else:
                found = found or _matches_pattern(name, pattern)
        return found


def _matches_pattern(name: str, pattern: str) -> bool:
    # '[' opens a host with a port here, not a set of characters as in fnmatch.
    return fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _matches_hash(name: str, pattern: str) -> bool:
    salt, _, digest = pattern.removeprefix(_HASH_PREFIX).partition("|")
    try:
        expected = base64.b64decode(digest, validate=True)
        return hmac.compare_digest(
            _hash_name(name, base64.b64decode(salt, validate=True)), expected
        )
    except binascii.Error:
        return False


def _hash_name(name: str, salt: bytes) -> bytes:
    return hmac.digest(salt, name.encode(), "sha1")  # the format's own choice, not ours


def read_known_hosts(paths: Iterable[Path]) -> tuple[KnownHost, ...]:
    """Read known_hosts files; absent files and lines that make no sense count as nothing.

    Raises:
        HostKeyError: a file is there and cannot be read.
    """
    entries: list[KnownHost] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostKeyError(
                f"{path}: the known host keys cannot be read: {error.strerror}.",
                remedy="Make the file readable, or name another with UserKnownHostsFile.",
            ) from None
        for number, line in enumerate(text.splitlines(), start=1):
            entry = _parse_line(path, number, line)
            if entry is not None:
                entries.append(entry)
    return tuple(entries)


def _parse_line(path: Path, number: int, line: str) -> KnownHost | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = Marker.KNOWN
    if words[0].startswith("@"):
        if words[0] not in set(Marker):
            return None
        marker = Marker(words.pop(0))
    if len(words) < 3:  # noqa: PLR2004 - names, type, key
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return None
    names = tuple(name for name in words[0].split(",") if name)
    key = HostKey(key_type=words[1], blob=blob)
    return KnownHost(path=path, line=number, marker=marker, names=names, key=key)


def check_pin(text: str) -> str:
    """Check a pinned fingerprint and give it without padding.

    Raises:
        UsageError: it is not `SHA256:` followed by 43 base64 characters.
    """
    digest = text.removeprefix("SHA256:").rstrip("=")
    try:
        raw = base64.b64decode(digest + "=", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith("SHA256:") or len(raw) != _PIN_BYTES:
        raise UsageError(
            f"--host-key: expected SHA256: and 43 base64 characters, not {text!r}.",
            remedy="On the device, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it.",
        )
    return f"SHA256:{digest}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostKeyPolicy:
    """Which host keys are accepted.

    Attributes:
        accept_new: trust a host's key on first sight, and write it down.
        pin: the fingerprint the key must have; known_hosts files are then only asked
            whether the key is revoked.
    """

    accept_new: bool = False
    pin: str | None = None


class HostKeyCheck:
    """The check of one host's key against what is known of it."""

    def __init__(self, settings: SshSettings, policy: HostKeyPolicy) -> None:
        self._settings = settings
        self._policy = policy
        self._name = settings.known_hosts_name
        self._entries = read_known_hosts((*settings.user_known_hosts, *settings.global_known_hosts))

    @property
    def known_types(self) -> tuple[str, ...]:
        """Types of the keys known of the host, to be asked for before others.

        A host with keys of several types would otherwise show one that is not known.
        """
        known = [*self._find(self._name), *self._find(self._plain_name)]
        return tuple(dict.fromkeys(entry.key.key_type for entry in known))

    @property
    def _plain_name(self) -> str:
        return self._settings.host_key_alias or self._settings.host_name.lower()

    def _find(self, name: str, marker: Marker = Marker.KNOWN) -> list[KnownHost]:
        return [entry for entry in self._entries if entry.marker is marker and entry.matches(name)]

    def verify(self, key: HostKey) -> None:
        """Accept a key, or refuse it; a new one is written down when the policy says so.

        Raises:
            HostKeyError: the key is unknown, changed, revoked, or not the pinned one.
        """
        for entry in self._find(self._name, Marker.REVOKED):
            if entry.key.blob == key.blob:
                raise HostKeyError(
                    f"{self._name}: its host key {_show(key)} is revoked by {entry}.",
                    remedy="Do not connect; ask whoever runs the device for its new key.",
                )
        if self._policy.pin is not None:
            self._verify_pin(key, self._policy.pin)
            return
        known = self._find(self._name)
        if any(entry.key == key for entry in known):
            return
        if known:
            raise self._changed(key, known)
        # As OpenSSH does: a key filed under the host alone serves its other ports too.
        if any(entry.key == key for entry in self._find(self._plain_name)):
            return
        if not self._policy.accept_new and not self._settings.accepts_new_host_keys:
            raise self._unknown(key)
        self._remember(key)

    def _verify_pin(self, key: HostKey, pin: str) -> None:
        if not hmac.compare_digest(key.fingerprint.encode(), pin.encode()):
            raise HostKeyError(
                f"{self._name}: expected the host key {pin}, the host has {_show(key)}.",
                remedy="Check the fingerprint on the device itself; "
                "if it is right there, something else answered at this address.",
            )

    def _changed(self, key: HostKey, known: list[KnownHost]) -> HostKeyError:
        same_type = [entry for entry in known if entry.key.key_type == key.key_type]
        entry = (same_type or known)[0]
        return HostKeyError(
            f"{self._name}: its host key has changed: expected {_show(entry.key)} "
            f"({entry}), the host has {_show(key)}.",
            remedy="If the device was set up anew, check the fingerprint on it and remove that "
            f"line: ssh-keygen -f {entry.path} -R {self._name!r}. If not, something else answers "
            "at this address.",
        )

    def _unknown(self, key: HostKey) -> HostKeyError:
        return HostKeyError(
            f"{self._name}: its host key {_show(key)} is unknown.",
            remedy="Check the fingerprint on the device, then give "
            f"--host-key {key.fingerprint}, or --accept-new-host-key to trust it from now on.",
        )

    def _remember(self, key: HostKey) -> None:
        if not self._settings.user_known_hosts:
            return
        name = self._name
        if self._settings.hashes_known_hosts:
            salt = secrets.token_bytes(20)
            digest = base64.b64encode(_hash_name(name, salt)).decode()
            name = f"{_HASH_PREFIX}{base64.b64encode(salt).decode()}|{digest}"
        line = f"{name} {key.key_type} {base64.b64encode(key.blob).decode()}\n"
        path = self._settings.user_known_hosts[0]
        try:
            append_line(path, line)
        except OSError as error:
            raise HostKeyError(
                f"{path}: the new host key of {self._name} cannot be written down: "
                f"{error.strerror}.",
                remedy=f"Make the file writable, or give --host-key {key.fingerprint}.",
            ) from None


def append_line(path: Path, line: str) -> None:
    """Add a line to a file that others may be writing to, making it for its owner only.

    One write in append mode is atomic among the writers of a file, so nothing of theirs is
    lost, and `/dev/null` stays what it is: renaming a new file into place would break both.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        is_open_line = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write(("\n" if is_open_line else "").encode() + line.encode())


def _show(key: HostKey) -> str:
    return f"{key.fingerprint} ({key.key_type})"
