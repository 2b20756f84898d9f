from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgepack.device.facts import DeviceFacts, PythonFacts
from edgepack.device.state import DeviceState
from edgepack.measure.engine import EngineFacts
from edgepack.measure.golden import GoldenOutput, GoldenVerdict
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import (
    ModelIdentity,
    Provenance,
    make_measurement,
)
from edgepack.report.intake import conditions, device_facts, summarize_measurement
from edgepack.report.rows import figure_rows
from edgepack.report.summary import Condition, Fact, GoldenRow
from tests.fixtures.measure import make_launch

if TYPE_CHECKING:
    from edgepack.measure.record import Measurement

FACTS = DeviceFacts(
    system="Linux",
    arch="armv7l",
    kernel="6.6.31+rpt-rpi-v8",
    kernel_arch="aarch64",
    os_id="raspbian",
    os_version="12",
    os_name="Raspbian GNU/Linux 12 (bookworm)",
    libc="glibc",
    libc_version="2.36",
    libstdcxx="3.4.30",
    cpu="Cortex-A72",
    cpu_features=("crc32", "evtstrm", "neon", "vfpv4"),
    num_cores=4,
    ram_bytes=4 * 2**30,
    board="Raspberry Pi 4 Model B Rev 1.4",
    python=PythonFacts(
        path="/usr/bin/python3",
        version=(3, 11, 2),
        tag="cp311",
        bits=32,
        platform="linux-armv7l",
        numpy=None,
    ),
    root="/home/pi/.edgepack",
    free_bytes=None,
    clock_s=None,
)
STATE = DeviceState(
    temperature_c=46.34,
    governor="ondemand",
    frequency_khz=(1_800_000,),
    maximum_khz=(1_800_000,),
    throttled=0,
    load_1min=0.081,
    available_bytes=3 * 2**30,
    unavailable=(),
)


def measurement(*, bundle: bool = True, num_launches: int = 6) -> Measurement:
    golden = GoldenOutput(
        output="probabilities",
        sqnr_to_host_db=41.2,
        sqnr_to_float_db=34.1,
        host_to_float_db=34.2,
        max_abs_error=0.0039,
        num_non_finite=0,
    )
    return make_measurement(
        device_name="pi@kitchen",
        device=FACTS,
        model=ModelIdentity(
            name="digits",
            sha256="3f" * 32,
            num_bytes=34_512,
            bundle_sha256="ab" * 32 if bundle else None,
            version="3f786850" if bundle else None,
            target="raspberry-pi-4" if bundle else None,
            recipe="int8" if bundle else None,
        ),
        engine=EngineFacts(
            name="ai-edge-litert", version="2.3.0", num_threads=1, xnnpack=True, python="3.11.2"
        ),
        plan=BenchmarkPlan(),
        fitted_plan=BenchmarkPlan(num_launches=num_launches),
        launches=(make_launch([1_000_000, 1_010_000] * 20),) * num_launches,
        golden=GoldenVerdict(passed=True, num_samples=4, outputs=(golden,)) if bundle else None,
        before=STATE,
        after=replace(STATE, temperature_c=61.0),
        provenance=Provenance(
            tool_version="0.1.0", host="Linux x86_64", time="2026-11-22T23:10:00+00:00"
        ),
    )


def test_a_measurement_of_a_bundle_is_taken_in_whole() -> None:
    shown = summarize_measurement(measurement())
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
    given = measurement()
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
    shown = summarize_measurement(measurement(bundle=False))
    assert shown.model == "digits"
    assert not shown.is_bundle
    assert shown.golden is None
    assert "Bundle sha256" not in {fact.name for fact in shown.provenance}


def test_reasons_for_missing_figures_come_from_the_statistics() -> None:
    rows = figure_rows(summarize_measurement(measurement(num_launches=2)))
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
