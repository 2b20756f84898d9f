"""The beginning of a long load against its end."""

from dataclasses import replace

from edgepack.measure.launch import Conditions, LatencyLaunch, Tick
from edgepack.measure.plan import fit_plan, sustained_plan
from edgepack.measure.record import make_measurement
from edgepack.measure.sustained import Stretch, split_stretches, sustain
from edgepack.measure.validity import VerdictName
from edgepack.report.measured import summarize_measurement
from edgepack.report.rows import figure_rows
from edgepack.report.timeline import plot_timelines
from tests.fixtures.measure import make_launch
from tests.fixtures.measured import make_measured

# Ten minutes in samples of 10 ms, one of 10 runs: quick for a minute, then slower and slower.
SAMPLES_NS = [10_000_000] * 600 + [11_000_000] * 2500 + [13_000_000] * 2000


def long_launch() -> LatencyLaunch:
    cool, hot = (
        Conditions(frequency_khz=1_800_000, temperature_c=45.0),
        Conditions(frequency_khz=1_200_000, temperature_c=84.0),
    )
    ticks = (Tick(sample=600, conditions=cool), Tick(sample=3100, conditions=hot))
    launch = replace(make_launch(SAMPLES_NS), stride=10)
    return replace(launch, ticks=ticks, before=cool, after=hot)


def test_the_last_minute_stands_against_the_first() -> None:
    found = sustain(long_launch())
    assert (found.first_ns, found.last_ns) == (10_000_000, 13_000_000)
    assert found.ratio == 1.3
    assert found.window_seconds == 60
    assert round(found.seconds) == 595


def test_a_short_load_has_quarters() -> None:
    found = sustain(make_launch([1_000_000_000, 2_000_000_000, 3_000_000_000, 2_000_000_000]))
    assert (found.seconds, found.window_seconds) == (8, 2)
    assert (found.first_ns, found.last_ns) == (1_000_000_000, 2_000_000_000)


def test_a_launch_is_split_at_its_looks() -> None:
    launch = long_launch()
    conditions = [tick.conditions for tick in launch.ticks]
    assert [(round(each.seconds), each.median_ns) for each in split_stretches(launch)] == [
        *((60, 10_000_000), (335, 11_000_000), (595, 13_000_000)),
    ]
    assert [each.conditions for each in split_stretches(launch)] == [*conditions, launch.after]
    twice = replace(launch, ticks=(*launch.ticks, Tick(sample=9999, conditions=Conditions())))
    assert len(split_stretches(twice)) == 3
    (whole,) = split_stretches(make_launch([5, 6, 7]))
    assert whole == Stretch(seconds=1.8e-8, median_ns=6, conditions=Conditions())


def test_the_plan_is_one_launch_for_all_of_the_time() -> None:
    plan = fit_plan(sustained_plan(600, num_threads=4), run_ns=10_000)
    assert (plan.num_launches, plan.min_seconds, plan.num_threads) == (1, 600, 4)
    assert plan.launch_seconds > 620


def test_heat_is_the_verdict_and_drift_the_result() -> None:
    measured = make_measured()
    plan = sustained_plan(600, num_threads=1)
    found = make_measurement(
        device_name="pi@kitchen",
        device=measured.device,
        model=measured.model,
        engine=measured.engine,
        plan=plan,
        fitted_plan=plan,
        launches=(long_launch(),),
        golden=None,
        before=measured.before,
        after=measured.before,
    )
    assert found.validity.verdict is VerdictName.THROTTLED
    assert not any("drift" in reason or "too few" in reason for reason in found.validity.reasons)
    shown = summarize_measurement(found)
    rows = {name: (value, remark) for name, value, remark in figure_rows(shown)}
    assert rows["first minute"] == ("10.0 ms", "median, of 595 s of inference")
    assert rows["last minute"] == ("13.0 ms", "median, 1.30x the first")
    latency, clock, heat = plot_timelines(shown.timeline)
    assert latency.caption == "Median latency, ms, through the timed runs."
    assert clock.description == (
        "clock of the fastest core, GHz: 3 looks, from 1.2 to 1.8; 1.8 at first, 1.2 at last."
    )
    assert "45 at first, 84 at last" in heat.description
    assert "minutes of inference" in heat.svg


def test_what_nobody_tells_is_not_drawn() -> None:
    assert plot_timelines(summarize_measurement(make_measured()).timeline) == ()
    assert plot_timelines(()) == ()
