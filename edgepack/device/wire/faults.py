"""What devices refuse, in the same words on every wire."""

import re
from collections.abc import Sequence
from typing import Final

from edgepack.device.wire.address import subject
from edgepack.device.wire.remote_shell import show_argv
from edgepack.errors import DeviceError, DeviceTimeoutError, KilledError

# The C library's words (strerror), which sh, cat and mv pass on. Devices answer in the
# C locale unless sshd lets LANG through; then the last remedy applies.
_REMEDIES: Final = (
    ("No space left", "Free space on the device, or choose another --root."),
    ("quota exceeded", "Free space in the user's quota, or choose another --root."),
    ("Read-only file system", "Choose a --root on a file system that can be written."),
    ("Permission denied", "Choose a --root the user may write to, or log in as another user."),
    ("Operation not permitted", "Choose a --root the user may write to."),
    ("No such file or directory", "Make the folder on the device first."),
    ("Directory nonexistent", "Make the folder on the device first."),
    ("nonexistent directory", "Make the folder on the device first."),
    ("Is a directory", "Remove that folder on the device, or choose another --root."),
)
_SHOWN_CHARACTERS: Final = 2000
_KILLED: Final = 137  # by SIGKILL


def upload_fault(name: str, target: str, exit_code: int, stderr: str) -> DeviceError:
    """Describe an upload the device did not complete, with its own words and a remedy."""
    said = _last_words(stderr) or f"exit code {exit_code}"
    remedy = next(
        (remedy for words, remedy in _REMEDIES if words.lower() in said.lower()),
        "See the device's own words, and try again.",
    )
    return DeviceError(f"{subject(name)} {target} could not be stored: {said}", remedy=remedy)


def digest_fault(name: str, target: str, *, expected: str, stored: str) -> DeviceError:
    """Describe a file that reads back otherwise than it was sent."""
    return DeviceError(
        f"{subject(name)} {target} reads back with sha256 "
        f"{_last_words(stored) or 'nothing'}, "
        f"expected {expected}; it was removed.",
        remedy="Try again; if it stays, the device's storage is failing.",
    )


def output_too_long(name: str, argv: Sequence[str], limit: int) -> DeviceError:
    """Describe a command that wrote more than the caller takes."""
    return DeviceError(
        f"{subject(name)} {show_argv(argv)} wrote more than {limit} bytes; it was stopped.",
        remedy="Run it on the device by hand to see what it prints.",
    )


def line_too_long(name: str, argv: Sequence[str], limit: int) -> DeviceError:
    """Describe a line that is longer than the caller takes."""
    return DeviceError(
        f"{subject(name)} {show_argv(argv)} wrote a line of more than {limit} bytes; "
        "it was stopped.",
        remedy="Run it on the device by hand to see what it prints.",
    )


def stream_failed(name: str, argv: Sequence[str], exit_code: int, stderr: str) -> DeviceError:
    """Describe a streamed command that ended with a failure."""
    said = _last_words(stderr)
    kind = KilledError if exit_code == _KILLED else DeviceError
    return kind(
        f"{subject(name)} {show_argv(argv)} ended with exit code {exit_code}"
        + (f": {said}" if said else " and said nothing"),
        remedy="Run it on the device by hand to see more.",
    )


def too_late(name: str, argv: Sequence[str], timeout_seconds: float) -> DeviceTimeoutError:
    """Describe a command that did not end in time."""
    return DeviceTimeoutError(
        f"{subject(name)} {show_argv(argv)} did not end within {timeout_seconds:g} s; "
        "it was stopped.",
        remedy="See whether the device is overloaded, or allow more time.",
    )


def _last_words(stderr: str) -> str:
    # Control characters of a device could rewrite the user's terminal.
    printable = re.sub(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]", "?", stderr)
    return printable.strip()[-_SHOWN_CHARACTERS:]
