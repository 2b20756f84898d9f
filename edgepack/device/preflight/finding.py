"""A finding of the preflight: what was expected of a device, what is there, and what mends it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack._fields import join_faults
from edgepack.errors import (
    DeployError,
    DeviceError,
    EdgePackError,
    ProvisionError,
    SignatureError,
)


class Severity(StrEnum):
    """How much a finding stands in the way."""

    ERROR = "error"  # a deployment would fail, or answer wrongly
    WARNING = "warning"  # it works, and something will be missed
    NOTE = "note"  # worth knowing


class Topic(StrEnum):
    """What a finding is about."""

    CONNECTION = "connection"
    HOST_KEY = "host key"
    LOGIN = "login"
    SHELL = "shell"
    TARGET = "target"
    RUNTIME = "runtime"
    PYTHON = "python"
    OPS = "ops"
    DEPLOY_ROOT = "deploy root"
    SIGNATURE = "signature"
    DISK = "disk"
    TEMPORARY = "temporary files"
    TOOLS = "tools"
    MEMORY = "memory"
    LOCK = "lock"
    CLOCK = "clock"
    SFTP = "sftp"
    MEASURING = "measuring"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something of a device that the user should know before a deployment.

    Attributes:
        severity: how much it stands in the way.
        topic: what it is about.
        expected: what a deployment wants.
        found: what is there.
        fix: what mends it; empty where nothing need be done.
        sentence: both in one, where "expected …, found …" would not read well.
    """

    severity: Severity
    topic: Topic
    expected: str
    found: str
    fix: str = ""
    sentence: str = ""

    @property
    def message(self) -> str:
        """Give what was expected and what is there in one line."""
        return self.sentence or f"{self.topic}: expected {self.expected}, but {self.found}"

    def to_json(self) -> dict[str, object]:
        """Give the JSON form that `doctor --json` prints."""
        return {
            "severity": self.severity.value,
            "topic": self.topic.value,
            "expected": self.expected,
            "found": self.found,
            "fix": self.fix or None,
        }


_ERRORS: Final[Mapping[Topic, type[EdgePackError]]] = {
    Topic.TARGET: DeviceError,
    Topic.RUNTIME: ProvisionError,
    Topic.SIGNATURE: SignatureError,
}


def errors_of(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Give those that stop a deployment."""
    return tuple(each for each in findings if each.severity is Severity.ERROR)


def raise_errors(findings: Iterable[Finding], *, device: str) -> None:
    """Refuse a device before anything is sent to it, with all that stands in the way.

    Raises:
        DeviceError, SignatureError: there is an error among the findings.
    """
    errors = errors_of(findings)
    if not errors:
        return
    fixes = " ".join(dict.fromkeys(each.fix for each in errors if each.fix))
    if len(errors) == 1:
        kind = _ERRORS.get(errors[0].topic, DeployError)
        raise kind(errors[0].message, remedy=fixes)
    raise DeviceError(
        join_faults(f"{device.rstrip(':')} cannot be deployed to", [e.message for e in errors]),
        remedy=fixes,
    )
