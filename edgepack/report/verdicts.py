"""A gate's checks for other programs: JUnit XML, as CI systems read it, and Markdown; pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from edgepack.measure.gate import Check, Verdict
from edgepack.report.labels import plain

# XML 1.0 has no place for other control characters, not even escaped.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST: Final = 200
_MARKS: Final = {Verdict.PASSED: "✅", Verdict.FAILED: "❌", Verdict.UNKNOWN: "❔"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gated:
    """A measurement's checks.

    Attributes:
        model: what was measured, with its recipe.
        device: where.
        checks: one for each limit.
    """

    model: str
    device: str
    checks: tuple[Check, ...]


def write_junit(gated: Sequence[Gated]) -> str:
    """Write the checks as JUnit XML: a suite for each measurement, a case for each limit.

    A limit that is exceeded is a failure, one that cannot be judged is an error. The elements are
    those of the schema that Jenkins publishes (junit-10.xsd), which GitLab and others read too.
    """
    root = ET.Element("testsuites", name="edgepack gate")
    for each in gated:
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(f"{each.model} on {each.device}"),
            tests=str(len(each.checks)),
            failures=str(_count(each, Verdict.FAILED)),
            errors=str(_count(each, Verdict.UNKNOWN)),
        )
        for check in each.checks:
            case = ET.SubElement(
                suite, "testcase", classname=_xml(f"{each.model}.{each.device}"), name=check.name
            )
            kind = {Verdict.FAILED: "failure", Verdict.UNKNOWN: "error"}.get(check.verdict)
            if kind is not None:
                ET.SubElement(case, kind, message=_xml(check.text), type=check.verdict.value)
            ET.SubElement(case, "system-out").text = _xml(check.text)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write_markdown(gated: Sequence[Gated]) -> str:
    """Write the checks as a table of Markdown, as a CI system's summary shows it."""
    lines = ["| | model | device | limit |", "|---|---|---|---|"]
    lines += [
        f"| {_MARKS[check.verdict]} {check.verdict.value} | {_cell(each.model)} "
        f"| {_cell(each.device)} | {_cell(check.text)} |"
        for each in gated
        for check in each.checks
    ]
    return "\n".join(lines) + "\n"


def _count(gated: Gated, verdict: Verdict) -> int:
    return sum(check.verdict is verdict for check in gated.checks)


def _xml(text: str) -> str:
    return _NO_XML.sub("�", text)


def _cell(text: str) -> str:
    """Give a text that stays in its cell, whatever a result file holds."""
    shown = plain(text, longest=_LONGEST)
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", shown)
