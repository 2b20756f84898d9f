"""Energy of an inference: the runner's meter, the figures, and a whole measurement."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgepack.device.runtime.provision import Engine
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire.local import LocalDevice
from edgepack.measure.bench import TimedModel, own_site
from edgepack.measure.drive import measure
from edgepack.measure.energy import EnergyFigures, Idle, figure_energy
from edgepack.measure.launch import Conditions, LatencyLaunch
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import ModelIdentity, parse_measurement, to_json
from edgepack.model import load_model
from edgepack.report.html import render_page
from edgepack.report.measured import summarize_measurement
from edgepack.report.rows import figure_rows
from edgepack.report.summary import DeployReport
from edgepack.report.units import energy
from edgepack.runner import tflite
from tests.fixtures.measure import DATA, make_launch
from tests.fixtures.measured import make_measured
from tests.fixtures.runners import add_rapl, add_sensor, fake_system, see

NO_SOURCE = "no RAPL in /sys/class/powercap, no INA sensor in hwmon"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device's files, which the meter reads."""
    folder = fake_system(tmp_path)
    monkeypatch.setattr(tflite, "_SYS", str(folder / "sys"))
    return folder


def test_counters_of_the_processor_are_added_up_and_may_begin_anew(root: Path) -> None:
    package, core, memory, other = add_rapl(root)
    meter = tflite.Meter()
    assert (meter.source, meter.reason) == ("RAPL package-0, dram, package-1", None)
    assert meter.read() == 0
    for path, number in ((package, 6000), (core, 9999), (memory, 1700), (other, 1001)):
        path.write_text(f"{number}\n")
    assert meter.read() == 5000 + 700 + 1
    memory.write_text("87\n")  # it went on to 65,712,999,613 and then from 0
    assert meter.read() == 5701 + 65_712_999_613 - 1700 + 87
    package.unlink()
    assert meter.read() is None


def test_counters_that_may_not_be_read_are_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rapl(root)
    monkeypatch.setattr(os, "access", lambda *_: False)
    meter = tflite.Meter()
    assert (meter.source, meter.read()) == (None, None)
    assert meter.reason == (
        "RAPL package-0, dram, package-1: only root may read it, unless `sudo chmod a+r` lets "
        "others"
    )
    add_sensor(root, 10)  # is taken instead
    assert (tflite.Meter().source, tflite.Meter().reason) == ("ina219 of hwmon2", None)


def test_power_is_taken_as_even_between_looks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_sensor(root, 2_000_000)
    moments = iter((0, 500_000_000, 1_500_000_000, 2_000_000_000))
    monkeypatch.setattr(tflite, "time", SimpleNamespace(perf_counter_ns=lambda: next(moments)))
    meter = tflite.Meter()
    assert (meter.source, meter.read()) == ("ina219 of hwmon2", 1_000_000)
    sensor = root / "sys/class/hwmon/hwmon2/power1_input"
    sensor.write_text("4000000\n")
    assert meter.read() == 4_000_000  # 3 W in the mean, for a second
    sensor.with_name("energy1_input").write_text("7\n")
    assert meter.read() == 6_000_000


def test_a_sensor_s_own_counter_comes_before_its_power(root: Path) -> None:
    add_sensor(root, 2_000_000)
    counter = root / "sys/class/hwmon/hwmon2/energy1_input"
    counter.write_text("500\n")
    meter = tflite.Meter()
    counter.write_text("740\n")
    assert meter.read() == 240
    counter.write_text("10\n")  # set back: what was taken in between is lost
    assert meter.read() == 240
    counter.write_text("no number\n")
    assert (tflite.Meter().source, meter.read()) == (None, None)
    assert tflite.Meter().reason == "ina219 of hwmon2: it cannot be read"


def test_without_a_sensor_there_is_a_reason(root: Path) -> None:
    assert not (root / "sys/class/hwmon").exists()
    meter = tflite.Meter()
    assert (meter.source, meter.reason, meter.read()) == (None, NO_SOURCE, None)


def metered(*, energy_uj: int, source: str | None = "RAPL package-0") -> LatencyLaunch:
    """Ten runs of 10 ms in 125 ms."""
    launch = make_launch(
        [10_000_000] * 10, before=Conditions(energy_uj=5), after=Conditions(energy_uj=5 + energy_uj)
    )
    return replace(launch, wall_ns=125_000_000, energy_source=source)


def test_an_inference_takes_the_mean_power_for_its_time() -> None:
    launches = [metered(energy_uj=each) for each in (250_000, 500_000, 625_000)]
    assert figure_energy(launches, None) == EnergyFigures(
        source="RAPL package-0", gross_nj=40_000_000
    )
    found = figure_energy(launches * 2, Idle(wall_ns=2_000_000_000, energy_uj=3_000_000))
    assert found.gross_ci95_nj == (20_000_000, 50_000_000)
    assert (found.idle_watts, found.above_idle_nj) == (1.5, 25_000_000)


@pytest.mark.parametrize(
    ("launches", "reason"),
    [
        ([make_launch([1])], "the runner did not look for a counter"),
        ([replace(make_launch([1]), energy_reason=NO_SOURCE)], NO_SOURCE),
        (
            [metered(energy_uj=9), metered(energy_uj=-3)],
            "RAPL package-0 told nothing in 1 of 2 launches",
        ),
    ],
)
def test_energy_that_is_not_known_has_a_reason(launches: list[LatencyLaunch], reason: str) -> None:
    assert figure_energy(launches, None) == EnergyFigures(reason=reason)


@pytest.mark.parametrize(
    ("nanojoules", "said"),
    [(0, "0 nJ"), (999.6, "1.00 µJ"), (25_000_000, "25.0 mJ"), (-3e9, "-3.00 J"), (2e12, "2000 J")],
)
def test_energies_have_three_digits(nanojoules: float, said: str) -> None:
    assert energy(nanojoules) == said


def test_the_report_says_whether_idle_is_in_it() -> None:
    given = replace(make_measured(), launches=(metered(energy_uj=500_000),) * 6)

    def rows(idle: Idle | None) -> dict[str, tuple[str, str]]:
        shown = summarize_measurement(replace(given, idle=idle))
        return {
            name: (value, remark)
            for name, value, remark in figure_rows(shown)
            if name.startswith("energy")
        }

    assert rows(Idle(wall_ns=10**9, energy_uj=1_500_000)) == {
        "energy": ("25.0 mJ", "an inference, above the 1.5 W of idle; RAPL package-0"),
        "energy, gross": ("40.0 mJ", "40.0 mJ–40.0 mJ, with idle"),  # noqa: RUF001 - a range
    }
    included = "an inference, what the device takes in idle included; RAPL package-0"
    assert rows(None) == {
        "energy, gross": ("40.0 mJ", f"40.0 mJ–40.0 mJ, {included}")  # noqa: RUF001 - a range
    }
    silent = summarize_measurement(make_measured())
    assert ("energy", "—", "the runner did not look for a counter") in figure_rows(silent)
    page = render_page(DeployReport(title="x", benchmarks=(summarize_measurement(given),)))
    assert "what the device takes in idle included" in page


class MeteredDevice(LocalDevice):
    """This machine, whose runner sees other files of /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> Iterator[Iterator[bytes]]:
        with super().stream(
            [*see(self.root), *argv], timeout_seconds=timeout_seconds, max_line_bytes=max_line_bytes
        ) as lines:
            yield lines


def test_a_measurement_on_a_board_with_a_sensor(tmp_path: Path) -> None:
    root = fake_system(tmp_path / "board")
    add_sensor(root, 3_000_000)
    if subprocess.run([*see(root), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a user who may mount")
    model = load_model(DATA / "digits.tflite")
    said: list[str] = []
    device = MeteredDevice(root)
    found = measure(
        device,
        engine=Engine(
            name="ai-edge-litert",
            version="2.3.0",
            module="ai_edge_litert.interpreter",
            python=sys.executable,
            python_version="3.11.2",
            site=own_site(),
            numpy=np.__version__,
            xnnpack=True,
            sha256="ab" * 32,
            runtime_bytes=0,
        ),
        facts=read_facts(device, str(tmp_path)),
        model=TimedModel(
            path=str(DATA / "digits.tflite"),
            identity=ModelIdentity(name="digits", sha256=model.sha256, num_bytes=model.num_bytes),
            signature=model.signature,
            is_quantized=False,
        ),
        plan=BenchmarkPlan(num_launches=1, warmup_seconds=0.02, min_seconds=0.2),
        root=str(tmp_path),
        on_progress=said.append,
    )
    assert "asking what local: takes in idle" in said
    mean_ns = found.summary.mean_ns
    assert found.energy.source == "ina219 of hwmon2"
    assert found.energy.gross_nj is not None
    # 3 W at every look; the looks lie around the timed runs, how far is for the machine to say.
    assert found.energy.gross_nj >= 2.99 * mean_ns
    assert found.energy.idle_watts == pytest.approx(3, rel=1e-3)
    assert found.energy.above_idle_nj is not None
    assert found.energy.above_idle_nj == pytest.approx(
        found.energy.gross_nj - 3 * mean_ns, abs=0.01 * found.energy.gross_nj
    )
    table = json.loads(json.dumps(to_json(found)))
    assert table["energy"]["joules_per_inference"] == found.energy.gross_nj / 1e9
    assert table["energy"]["reason"] is None
    assert parse_measurement(table) == found
