"""How far a measurement can be believed, in a word for its badge and a sentence for its meaning."""

from dataclasses import dataclass
from typing import Final

from edgepack.report.labels import plain
from edgepack.report.summary import BenchmarkSummary, SustainedFigures

_VALID: Final = "valid"
_SMALLEST_CHANGE: Final = 0.03  # no more than what a launch may drift and still be valid
_MEANINGS: Final = {
    _VALID: "launches agree and the device's state was steady",
    "noisy": "timings spread more than a steady device's would",
    "throttled": "the device slowed itself down while it was measured",
    "contended": "other work shared the device while it was measured",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """What a measurement is worth.

    Attributes:
        text: the verdict, and what a load that went on did to a valid one.
        meaning: in words; empty of a verdict that is not ours.
        badge: `good`, `warning` or `fault`, as the page colors it.
    """

    text: str
    meaning: str
    badge: str


def trust_of(benchmark: BenchmarkSummary) -> Trust:
    """Say how far a measurement can be believed; a slow-down that it found is nothing good."""
    if benchmark.latency is None:
        return Trust(text="not measured", meaning="", badge="fault")
    verdict = plain(benchmark.verdict, longest=40) or "no verdict"
    if verdict == _VALID and benchmark.sustained is not None:
        return _trust_sustained(benchmark.sustained)
    badge = "good" if verdict == _VALID else "warning"
    return Trust(text=verdict, meaning=_MEANINGS.get(verdict, ""), badge=badge)


def _trust_sustained(figures: SustainedFigures) -> Trust:
    change = describe_change(figures)
    if change is None:
        meaning = "the device kept its speed to the end of the load"
        return Trust(text=_VALID, meaning=meaning, badge="good")
    meaning = (
        "the device does not keep its first speed under a load that goes on"
        if figures.ratio > 1
        else "the device was not at its speed when the load began"
    )
    return Trust(text=f"{_VALID}, {change}", meaning=meaning, badge="warning")


def describe_change(figures: SustainedFigures) -> str | None:
    """Say what a load that went on did to latency; None for no more than launches may drift."""
    if abs(figures.ratio - 1) <= _SMALLEST_CHANGE:
        return None
    return f"{'slows' if figures.ratio > 1 else 'quickens'} to {figures.ratio:.2f}x"
