"""A measurement as the report shows it."""

from dataclasses import replace

from edgepack.report.measured import conditions, device_facts, summarize_measurement
from edgepack.report.rows import figure_rows
from edgepack.report.summary import Condition, Fact, GoldenRow
from tests.fixtures.measured import FACTS, STATE, make_measured


def test_a_measurement_of_a_bundle_is_taken_in_whole() -> None:
    shown = summarize_measurement(make_measured())
    assert shown.model == "digits-3f786850-raspberry-pi-4"
    assert shown.recipe == "int8"
    assert shown.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert shown.engine == "ai-edge-litert 2.3.0"
    assert shown.verdict == "valid"
    assert shown.num_runs == 240
    assert shown.latency is not None
    assert shown.latency.median_ns == 1_005_000
    assert shown.golden == GoldenRow(
        passed=True,
        max_abs_error=0.0039,
        sqnr_to_host_db=41.2,
        sqnr_to_float_db=34.1,
        num_samples=4,
    )
    origin = {fact.name: fact.value for fact in shown.provenance}
    assert origin["Bundle sha256"] == "ab" * 32
    assert origin["XNNPACK"] == "took part"
    assert origin["Measured at"] == "2026-11-22T23:10:00+00:00"


def test_the_native_runner_and_a_runtime_without_xnnpack_are_told() -> None:
    given = make_measured()
    engine = replace(
        given.engine,
        name="tensorflow-lite-c",
        version="2.17.1",
        xnnpack=False,
        python=None,
        runner="native",
        has_xnnpack=False,
    )
    shown = summarize_measurement(replace(given, engine=engine))
    assert shown.engine == "tensorflow-lite-c 2.17.1, native runner, without XNNPACK"
    assert shown.lacks_xnnpack
    origin = {fact.name: fact.value for fact in shown.provenance}
    assert (origin["Runner"], origin["XNNPACK"]) == ("native", "not in this runtime")
    assert "Python of the runtime" not in origin
    assert not summarize_measurement(given).lacks_xnnpack


def test_a_bare_model_keeps_its_own_name_and_has_no_golden_check() -> None:
    shown = summarize_measurement(make_measured(bundle=None))
    assert shown.model == "digits"
    assert not shown.is_bundle
    assert shown.golden is None
    assert "Bundle sha256" not in {fact.name for fact in shown.provenance}


def test_reasons_for_missing_figures_come_from_the_statistics() -> None:
    rows = figure_rows(summarize_measurement(make_measured(num_launches=2)))
    remarks = {name: remark for name, _, remark in rows}
    assert remarks["median (p50)"] == "no interval: needs 6 launches, but there are 2"
    assert remarks["p99"] == "needs 100 samples, but there are 80"


def test_facts_name_what_inference_uses() -> None:
    facts = device_facts(FACTS)
    assert Fact(name="Architecture", value="armv7l, kernel aarch64") in facts
    assert Fact(name="CPU features", value="neon vfpv4, 2 more") in facts
    assert Fact(name="RAM", value="4.00 GiB") in facts
    assert Fact(name="Python", value="3.11.2") in facts


def test_untold_facts_are_left_out() -> None:
    bare = replace(FACTS, board=None, cpu=None, cpu_features=(), ram_bytes=None, python=None)
    names = {fact.name for fact in device_facts(bare)}
    assert not names & {"Board", "CPU", "CPU features", "RAM", "Python"}


def test_conditions_say_why_something_is_unknown() -> None:
    silent = replace(
        STATE, throttled=None, unavailable=(("throttled", "vcgencmd is not installed"),)
    )
    rows = conditions(STATE, silent)
    assert Condition(name="Temperature", before="46.3 °C", after="46.3 °C") in rows
    assert Condition(name="Throttling", before="none", after="vcgencmd is not installed") in rows
    assert Condition(name="Clock", before="1.80 GHz", after="1.80 GHz") in rows


def test_conditions_told_neither_before_nor_after_are_marked() -> None:
    silent = replace(STATE, load_1min=None, unavailable=(("load_1min", "no /proc/loadavg"),))
    (row,) = [row for row in conditions(silent, silent) if not row.is_known]
    assert (row.name, row.before, row.after) == (
        *("Load, 1 min", "no /proc/loadavg", "no /proc/loadavg"),
    )


def test_throttling_now_and_since_start_are_told_apart() -> None:
    hot = replace(STATE, throttled=0x50004)
    rows = {row.name: row.after for row in conditions(STATE, hot)}
    assert rows["Throttling"] == "throttled; since start: under-voltage"
