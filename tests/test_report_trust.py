"""What a verdict reads like: a load that slows a device down is not praised."""

from dataclasses import replace

import pytest

from edgepack.measure.plan import sustained_plan
from edgepack.measure.record import make_measurement
from edgepack.report.headline import Level, write_headline
from edgepack.report.html import render_page
from edgepack.report.measured import summarize_measurement
from edgepack.report.summary import BenchmarkSummary, DeployReport, SustainedFigures
from edgepack.report.terminal import render_benchmark, render_text
from edgepack.report.trust import Trust, trust_of
from tests.fixtures.measure import make_launch
from tests.fixtures.measured import STATE, make_measured
from tests.fixtures.report import benchmark


def sustained(last_ns: int) -> BenchmarkSummary:
    """Give ten minutes of inference whose last minute takes so long a run, and the first 10 ms."""
    given = make_measured()
    plan = sustained_plan(600, num_threads=1)
    samples = [10_000_000] * 600 + [last_ns] * 4000
    measured = make_measurement(
        device_name="pi@kitchen",
        device=given.device,
        model=given.model,
        engine=given.engine,
        plan=plan,
        fitted_plan=plan,
        launches=(replace(make_launch(samples), stride=10),),
        golden=given.golden,
        before=STATE,
        after=STATE,
    )
    assert measured.validity.verdict.value == "valid"
    return summarize_measurement(measured)


def test_a_slow_down_under_load_is_what_the_report_says() -> None:
    shown = sustained(15_000_000)
    page = render_page(DeployReport(title="t", benchmarks=(shown,)))
    assert '<span class="badge warning">valid, slows to 1.50x</span>' in page
    assert "the device does not keep its first speed under a load that goes on" in page
    assert "badge good" not in page
    assert "steady" not in page
    title = "digits-3f786850-raspberry-pi-4 · int8 on pi@kitchen"
    ends = "10.0 ms at first, 15.0 ms at last"
    notices = write_headline(DeployReport(title="t", benchmarks=(shown,))).notices
    assert [(each.level, each.text) for each in notices] == [
        (Level.WARNING, f"{title} slows to 1.50x under a load that goes on: {ends}")
    ]
    assert "verdict: valid, slows to 1.50x\n" in render_text(render_benchmark(shown))


def test_among_several_it_is_marked_too() -> None:
    page = render_page(
        DeployReport(title="t", benchmarks=(sustained(15_000_000), benchmark(device="pi@attic")))
    )
    assert page.count('<span class="badge warning">valid, slows to 1.50x</span>') == 2
    assert "slows to 1.50x under a load that goes on" in page


@pytest.mark.parametrize(
    ("last_ns", "text", "badge"),
    [
        (10_290_000, "valid", "good"),
        (10_310_000, "valid, slows to 1.03x", "warning"),
        (9_710_000, "valid", "good"),
        (8_000_000, "valid, quickens to 0.80x", "warning"),
    ],
)
def test_what_launches_may_drift_is_no_change(last_ns: int, text: str, badge: str) -> None:
    figures = SustainedFigures(seconds=600, window_seconds=60, first_ns=10_000_000, last_ns=last_ns)
    trust = trust_of(replace(benchmark(), sustained=figures))
    assert (trust.text, trust.badge) == (text, badge)


def test_other_verdicts_keep_their_words() -> None:
    assert trust_of(benchmark()) == Trust(
        text="valid", meaning="launches agree and the device's state was steady", badge="good"
    )
    hot = trust_of(replace(sustained(15_000_000), verdict="throttled"))
    assert (hot.text, hot.badge) == ("throttled", "warning")
    odd = trust_of(replace(benchmark(), verdict="\x1b[31mfine"))
    assert (odd.text, odd.meaning, odd.badge) == ("�[31mfine", "", "warning")
    lost = BenchmarkSummary(device="pi@attic", model="digits", error="gone")
    assert trust_of(lost) == Trust(text="not measured", meaning="", badge="fault")
