"""Whole measurements: the real runner in real processes on this machine."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.bundle.golden import Golden, make_golden
from edgepack.device.runtime.provision import Engine
from edgepack.device.survey.facts import read_facts
from edgepack.device.survey.state import STATE_SCRIPT
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.transport import CommandResult, Device
from edgepack.errors import ConnectError, GoldenError, MeasureError
from edgepack.measure.bench import TimedModel
from edgepack.measure.drive import measure, measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import (
    Measurement,
    ModelIdentity,
    parse_measurement,
    write_measurement,
)
from edgepack.measure.results import load_measurements
from edgepack.model import Model, load_model, read_model
from edgepack.report.measured import summarize_measurement
from tests.fixtures.faulty_device import FaultyDevice
from tests.fixtures.measure import DATA, model_with_custom_op

QUICK = BenchmarkPlan(num_launches=6, warmup_seconds=0.02, min_runs=20, min_seconds=0.02)


def feeds_of(model: Model, count: int = 2) -> list[tuple[Any, ...]]:
    random = np.random.default_rng(5)
    return [
        tuple(
            (random.random(spec.shape) * 16).astype(spec.dtype) for spec in model.signature.inputs
        )
        for _ in range(count)
    ]


def own_engine(site: Path, **change: Any) -> Engine:  # noqa: ANN401 - any field of an engine
    """This interpreter's own runtime, as if it had been provisioned."""
    values: dict[str, Any] = {
        "name": "ai-edge-litert",
        "version": "2.3.0",
        "module": "ai_edge_litert.interpreter",
        "python": sys.executable,
        "python_version": "3.11.2",
        "site": str(site),
        "numpy": np.__version__,
        "xnnpack": True,
        "sha256": "ab" * 32,
        "runtime_bytes": 0,
    }
    return Engine(**(values | change))


def timed(path: Path, golden: Golden | None, model: Model) -> TimedModel:
    return TimedModel(
        path=str(path),
        identity=ModelIdentity(
            name="digits", sha256=model.sha256, num_bytes=model.num_bytes, recipe="int8"
        ),
        signature=model.signature,
        is_quantized=model.is_quantized,
        golden=golden,
    )


def measure_here(
    model: TimedModel,
    root: Path,
    *,
    device: Device | None = None,
    engine: Engine | None = None,
    said: list[str] | None = None,
    plan: BenchmarkPlan = QUICK,
    on_progress: Callable[[str], None] | None = None,
) -> Measurement:
    device = device or LocalDevice()
    return measure(
        device,
        engine=engine or own_engine(root / "site"),
        facts=read_facts(device, str(root)),
        model=model,
        plan=plan,
        root=str(root),
        on_progress=on_progress or (said if said is not None else []).append,
    )


@pytest.fixture(scope="module")
def digits() -> tuple[Model, Golden]:
    model = load_model(DATA / "digits_int8.tflite")
    real = load_model(DATA / "digits.tflite")
    # The int8 model's own feeds are integers; the float model gets what they stand for.
    feeds = feeds_of(real)
    return model, make_golden(real, model, feeds, num_samples=2)


def test_a_model_is_checked_and_then_timed(tmp_path: Path, digits: tuple[Model, Golden]) -> None:
    model, golden = digits
    said: list[str] = []
    result = measure_here(timed(DATA / "digits_int8.tflite", golden, model), tmp_path, said=said)
    assert said == [
        "placing the runner on local:",
        "checking the answers on local:",
        *(f"launch {index} of 6 on local:" for index in range(1, 7)),
    ]
    assert result.golden is not None
    assert result.golden.passed
    assert result.golden.num_samples == 2
    assert len(result.launches) == 6
    assert all(len(launch.samples_ns) >= 20 for launch in result.launches)
    assert all(launch.is_steady for launch in result.launches)
    assert [launch.is_cold is None for launch in result.launches] == [False, *[True] * 5]
    assert result.summary.median_ci95_ns is not None
    assert result.summary.min_ns > 0
    assert result.engine.name == "ai-edge-litert"
    assert result.engine.xnnpack is True
    assert result.engine.sha256 == "ab" * 32
    assert (
        result.profile.reason == "Python's interpreter tells no op's time; the native runner does"
    )
    assert result.before.load_1min is not None
    assert parse_measurement(json.loads(write_measurement(result))) == result


def test_as_many_threads_as_cores_are_those_it_is_held_to() -> None:
    model = load_model(DATA / "digits.tflite")
    core = min(os.sched_getaffinity(0))
    plan = replace(QUICK, num_threads=0, num_launches=1, cpu_affinity=str(core))
    result = measure_on_host(model, feeds_of(model), plan=plan, name="digits.tflite")
    assert result.engine.num_threads == result.plan.num_threads == 1
    assert [launch.num_cores for launch in result.launches] == [1]


def test_the_record_holds_what_others_rely_on(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    plan = replace(QUICK, num_threads=0)
    result = measure_on_host(model, feeds_of(model), plan=plan, name="digits.tflite")
    assert result.engine.num_threads == result.plan.num_threads == result.device.num_cores
    path = tmp_path / "result.json"
    path.write_bytes(write_measurement(result))
    table = json.loads(path.read_bytes())
    for key in ("init_ns", "first_ns", "warmup_ns", "samples_ns", "peak_memory_bytes"):
        assert all(key in launch for launch in table["launches"])
    low, high = table["summary"]["median_ci95_ns"]
    assert low <= table["summary"]["median_ns"] <= high
    assert table["summary"]["p99_ns"] >= table["summary"]["p90_ns"]
    assert table["golden"]["passed"] is None
    assert table["golden"]["max_abs_error"] is None
    assert set(table["validity"]) >= {"verdict", "reasons"}
    assert table["device"]["name"] == "local:"
    assert table["model"]["sha256"] == model.sha256
    assert load_measurements(path) == (result,)
    failed = {"device": "board", "error": {"kind": "connect", "message": "no", "remedy": "try"}}
    several = tmp_path / "several.json"
    several.write_text(json.dumps([table, failed, table]))
    assert load_measurements(several) == (result, result)

    for change, said in (
        ({"schema": 2}, "measurement: schema: expected 1, not 2"),
        ({"launches": []}, "measurement: launches: expected at least one"),
        ({"surprise": 1}, "measurement: surprise: unknown key"),
        ({"summary": table["summary"] | {"median_ns": 1}}, "its figures do not follow from"),
        ({"device": {}}, "device: expected a table with a name"),
        ({"state": {"before": 1}}, "state.before: missing; expected a table"),
    ):
        with pytest.raises(MeasureError) as caught:
            parse_measurement(table | change)
        assert said in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a result in JSON"),
        (b"[]", "expected a result or a list of results, but there is none in it"),
        (b"[1]", "expected a result or a list of results, but there is none in it"),
        (b"7", "expected a result or a list of results, but there is none in it"),
        (b"[" * 100_000, "expected a result in JSON"),
        (b"{}", "schema: missing; expected a whole number"),
        (b"\xff\xfe\x00", "expected a result in JSON"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(MeasureError, match=said):
        load_measurements(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasureError) as caught:
        load_measurements(tmp_path / "none.json")
    assert caught.value.message == (
        f"{tmp_path / 'none.json'}: the result cannot be read: No such file or directory"
    )


class CountingDevice(LocalDevice):
    """This machine; it notes which requests the runner got."""

    def __init__(self) -> None:
        self.modes: list[str] = []

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> Iterator[Iterator[bytes]]:
        self.modes.append(json.loads(argv[-1])["mode"])
        with super().stream(
            argv, timeout_seconds=timeout_seconds, max_line_bytes=max_line_bytes
        ) as lines:
            yield lines


class WarmDevice(LocalDevice):
    """This machine, if it had a thermometer, which shows 45 °C at every look."""

    def __init__(self) -> None:
        self.num_looks = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        result = super().run(
            argv, timeout_seconds=timeout_seconds, stdin=stdin, max_output_bytes=max_output_bytes
        )
        if argv[-1] != STATE_SCRIPT:
            return result
        self.num_looks += 1
        heat = b"@@thermal\n45000 cpu-thermal\n"
        return replace(result, stdout=result.stdout.replace(b"@@thermal\n", heat))


def test_the_temperature_is_looked_at_before_each_launch(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    device = WarmDevice()
    plan = replace(QUICK, num_launches=2, cooldown_seconds=1800.0)
    result = measure_here(
        timed(DATA / "digits.tflite", None, model), tmp_path, device=device, plan=plan
    )
    assert [each.temperature_c for each in result.rests] == [45.0, 45.0]
    assert device.num_looks == 4  # and before and after all
    assert parse_measurement(json.loads(write_measurement(result))) == result


def test_a_model_that_answers_wrongly_is_not_timed(
    tmp_path: Path, digits: tuple[Model, Golden]
) -> None:
    model, golden = digits
    wrong = replace(golden, host=tuple(data[::-1] for data in golden.host))
    device = CountingDevice()
    with pytest.raises(GoldenError) as caught:
        measure_here(timed(DATA / "digits_int8.tflite", wrong, model), tmp_path, device=device)
    assert device.modes == ["outputs"]
    first, reason = caught.value.message.splitlines()[:2]
    assert first == (
        "the model answers otherwise on local: than where it was packed, so it was not timed:"
    )
    assert reason.startswith("  - output 'output_0': ")
    assert "dB to the host's answers, needs 20 dB" in reason


def test_an_unsupported_op_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(model_with_custom_op())
    model = read_model(path.read_bytes())
    with pytest.raises(MeasureError) as caught:
        measure_here(timed(path, None, model), tmp_path)
    assert "unresolved custom op: MyOp" in caught.value.message
    assert caught.value.remedy.startswith("Replace that op")


def test_a_runtime_other_than_the_installed_one_is_refused(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    engine = own_engine(tmp_path, version="2.2.0")
    with pytest.raises(MeasureError) as caught:
        measure_here(timed(DATA / "digits.tflite", None, model), tmp_path, engine=engine)
    assert caught.value.message == (
        "expected ai-edge-litert 2.2.0 to run on local:, but ai-edge-litert 2.3.0 did"
    )


def test_a_device_without_the_interpreter_is_an_error(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    engine = own_engine(tmp_path, python="/nowhere/python3")
    with pytest.raises(MeasureError, match=r"died without a result: .*/nowhere/python3: not found"):
        measure_here(timed(DATA / "digits.tflite", None, model), tmp_path, engine=engine)


def test_an_impossible_plan_is_refused_before_anything_is_placed(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    with pytest.raises(MeasureError, match="num_threads: expected at least 0, not -1"):
        measure_here(
            timed(DATA / "digits.tflite", None, model),
            tmp_path / "root",
            plan=replace(QUICK, num_threads=-1),
        )
    assert not (tmp_path / "root" / "models").exists()


IDLE_RUNTIME = """
import os, signal, sys
class Interpreter:
    def __init__(self, **_): self.num_runs = 0
    def allocate_tensors(self): pass
    def get_input_details(self): return []
    def get_output_details(self): return []
    def reset_all_variables(self): pass
    def invoke(self):
        self.num_runs += 1
"""
DYING_RUNTIME = f"""{IDLE_RUNTIME}        if self.num_runs > 10:
            print("cannot allocate memory", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""


def write_runtime(root: Path, source: str) -> Engine:
    """Install a runtime that starts quicker than a real one."""
    package = root / "site" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.9'")
    (package / "interpreter.py").write_text(source)
    return own_engine(root / "site", version="9.9", xnnpack=None)


def test_a_runner_killed_within_a_launch_leaves_no_measurement(tmp_path: Path) -> None:
    engine = write_runtime(tmp_path, DYING_RUNTIME)
    model = load_model(DATA / "digits.tflite")
    device = CountingDevice()
    with pytest.raises(MeasureError) as caught:
        measure_here(
            timed(DATA / "digits.tflite", None, model),
            tmp_path,
            device=device,
            engine=engine,
        )
    assert device.modes == ["outputs", "latency"]
    assert "ended with exit code 137: cannot allocate memory" in caught.value.message
    assert caught.value.remedy.startswith("Free memory on the device, ")


LOST = "faulty: the link was lost."


def test_a_link_lost_at_the_end_loses_nothing_that_was_timed(tmp_path: Path) -> None:
    """It is lost in the seventh launch, and so no state can be asked for after that."""
    model = load_model(DATA / "digits.tflite")
    device = FaultyDevice(device=LocalDevice())

    def lose(said: str) -> None:
        if said.startswith("launch 7 of 7"):
            device.fails_at = device.num_operations

    result = measure_here(
        timed(DATA / "digits.tflite", None, model),
        tmp_path,
        device=device,
        engine=write_runtime(tmp_path, IDLE_RUNTIME),
        plan=replace(QUICK, num_launches=7, max_samples=100),
        on_progress=lose,
    )
    ended = f"launch 7 of 7 failed, and the 6 before it are kept: {LOST}"
    assert result.ended_early == ended
    assert len(result.launches) == result.fitted_plan.num_launches == 6
    assert result.before.load_1min is not None
    assert result.after.load_1min is None
    reason = f"the device did not tell it any more: {LOST}"
    assert dict(result.after.unavailable)["load_1min"] == reason
    assert not any("changed from" in each for each in result.validity.reasons)
    assert parse_measurement(json.loads(write_measurement(result))) == result
    rows = {each.name: each.before for each in summarize_measurement(result).conditions}
    assert rows["Ended early"] == ended


def test_a_link_lost_before_there_is_an_interval_is_an_error(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    device = FaultyDevice(device=LocalDevice())

    def lose(said: str) -> None:
        if said.startswith("launch 2 of 6"):
            device.fails_at = device.num_operations

    with pytest.raises(ConnectError, match=LOST):
        measure_here(
            timed(DATA / "digits.tflite", None, model),
            tmp_path,
            device=device,
            engine=write_runtime(tmp_path, IDLE_RUNTIME),
            on_progress=lose,
        )


def test_nan_on_the_device_fails_the_check(tmp_path: Path) -> None:
    model = load_model(DATA / "digits.tflite")
    golden = make_golden(model, model, feeds_of(model), num_samples=1)
    spoiled = np.full(model.signature.inputs[0].shape, np.nan, dtype=np.float32).tobytes()
    with pytest.raises(GoldenError, match="10 values are NaN or infinite on the device only"):
        measure_here(
            timed(DATA / "digits.tflite", replace(golden, inputs=(spoiled,)), model), tmp_path
        )


def test_the_host_runs_what_this_process_has_wherever_it_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An installation of one user's (pip install --user) is hidden from an isolated interpreter.
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setattr(sys, "executable", str(base))
    model = load_model(DATA / "digits.tflite")
    result = measure_on_host(model, feeds_of(model), plan=QUICK)
    assert result.engine.name == "ai-edge-litert"
    assert result.engine.version == version("ai-edge-litert")
