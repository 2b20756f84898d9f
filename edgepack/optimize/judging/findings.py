"""What is wrong or doubtful about a variant, as values; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgepack._fields import Fields


class FindingKind(StrEnum):
    """What was found.

    `CONSTANT`: an output, or channels of it, say the same whatever comes in. `NON_FINITE`: NaN or
    infinities. `SATURATED`: values stuck at an end of their range. `SOFTMAX_SUM`: shares that do
    not add up to 1. `NOT_SMALLER`: a quantized file no smaller than the float one.
    `FLOAT_INTERFACE`: float inputs or outputs where integers were asked for. `FLOAT_OPS`: ops that
    stayed in float. `FEW_SAMPLES`: halves of the calibration data disagree. `UNLIKE_SAMPLES`:
    evaluation data are unlike calibration data.
    """

    CONSTANT = "constant"
    NON_FINITE = "non_finite"
    SATURATED = "saturated"
    SOFTMAX_SUM = "softmax_sum"
    NOT_SMALLER = "not_smaller"
    FLOAT_INTERFACE = "float_interface"
    FLOAT_OPS = "float_ops"
    FEW_SAMPLES = "few_samples"
    UNLIKE_SAMPLES = "unlike_samples"


class Severity(StrEnum):
    """How much it weighs: a fault puts a variant outside the floors, a warning is only said."""

    FAULT = "fault"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong or doubtful.

    Attributes:
        kind: what was found.
        severity: how much it weighs.
        text: a sentence with figures, without its full stop.
        remedy: what to do, likewise.
    """

    kind: FindingKind
    severity: Severity
    text: str
    remedy: str

    @property
    def advice(self) -> str:
        """The sentence and what to do, as one."""
        return f"{self.text}: {self.remedy[:1].lower()}{self.remedy[1:]}"


def findings_to_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Give findings as JSON values; `read_findings` reads them back."""
    return [
        {
            "kind": each.kind.value,
            "severity": each.severity.value,
            "text": each.text,
            "remedy": each.remedy,
        }
        for each in findings
    ]


def read_findings(fields: Fields, key: str) -> tuple[Finding, ...]:
    """Read findings from a list of a larger record, noting faults in `fields`."""
    return tuple(_read_finding(each) for each in fields.tables(key))


def _read_finding(fields: Fields) -> Finding:
    finding = Finding(
        kind=fields.choice("kind", FindingKind),
        severity=fields.choice("severity", Severity),
        text=fields.text("text"),
        remedy=fields.text("remedy"),
    )
    fields.close()
    return finding
