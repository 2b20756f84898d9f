"""The native runner as the device sees it: a program compiled for it, beside a real library."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.evaluate import Feeds, run_model
from edgepack.fidelity import compare_outputs
from edgepack.measure.engine import read_engine
from edgepack.measure.launch import read_launch
from edgepack.model import Model, load_model, read_model
from tests.fixtures.graphs import roomy_model
from tests.fixtures.measure import DATA, digits_bytes, model_with_custom_op, odd_models
from tests.fixtures.models import KINDS, came_as, make_feeds
from tests.fixtures.runners import (
    PLAN,
    READ_CONDITIONS,
    Answer,
    NativeRunner,
    add_rapl,
    add_sensor,
    fake_system,
    request,
    sample_feeds,
    see,
    settled_after,
    stays_in_memory,
    unpack_native,
    write_feeds,
)

pytestmark = pytest.mark.toolchain

_CROSS = Path("/usr/arm-linux-gnueabihf")


def refusal(runner: NativeRunner, request: object) -> tuple[str, str]:
    answer = runner.ask(request)
    assert answer.code == 1
    assert answer.events[-1]["event"] == "error"
    return answer.events[-1]["kind"], answer.events[-1]["message"]


def assert_close(answer: Answer, model: Model, feeds: Feeds) -> None:
    """Compare with this machine's own runtime, which is another version."""
    expected = run_model(model, feeds)
    came = answer.outputs()
    width = len(model.signature.outputs)
    rows = [tuple(came[at : at + width]) for at in range(0, len(came), width)]
    names = tuple(spec.name for spec in model.signature.outputs)
    for output in compare_outputs(expected, rows, names=names).outputs:
        assert output.sqnr_db > 60, output


def test_what_it_is_made_of_and_what_it_loads(native_runner: NativeRunner) -> None:
    answer = native_runner.ask({"mode": "check"})
    assert answer.code == 0
    engine, done = answer.events
    assert done == {"event": "done"}
    assert (engine["name"], engine["version"]) == ("tensorflow-lite-c", "2.17.1")
    assert (engine["runner"], engine["python"]) == ("native", None)


@pytest.mark.parametrize("name", ["digits.tflite", "digits_int8.tflite"])
def test_outputs_are_those_of_the_host(
    native_runner: NativeRunner, tmp_path: Path, name: str
) -> None:
    model = load_model(DATA / name)
    feeds = sample_feeds(model, 2)
    answer = native_runner.ask(request("outputs", DATA / name, write_feeds(tmp_path, feeds)))
    assert answer.code == 0
    assert [event["event"] for event in answer.events] == [
        *("engine", "sample", "output", "sample", "output", "done")
    ]
    assert answer.events[0]["xnnpack"] is True
    assert_close(answer, model, feeds)


@pytest.mark.parametrize("name", ["float16", "dynamic_range", "int8", "int16x8", "loop"])
def test_models_of_each_kind_of_numbers_answer_alike(
    native_runner: NativeRunner, tmp_path: Path, name: str
) -> None:
    model = came_as(name)
    feeds = make_feeds(model, num_samples=2)
    asked = request("outputs", KINDS / f"{name}.tflite", write_feeds(tmp_path, feeds))
    answer = native_runner.ask(asked)
    assert answer.code == 0, answer.events
    # XNNPACK has no kernels for 16-bit activations (2.17.1).
    assert answer.events[0]["xnnpack"] is (name != "int16x8")
    assert_close(answer, model, feeds)


@pytest.mark.parametrize("stream", [False, True])
def test_state_stays_between_the_samples_of_a_stream_only(
    native_runner: NativeRunner, tmp_path: Path, *, stream: bool
) -> None:
    (feed,) = make_feeds(came_as("lstm"), num_samples=1)
    (path,) = write_feeds(tmp_path, [feed, feed])
    answer = native_runner.ask(request("outputs", KINDS / "lstm.tflite", [path], stream=stream))
    assert answer.code == 0
    first, second = answer.outputs()
    assert np.array_equal(first, second) is not stream


@pytest.mark.parametrize("name", sorted(odd_models()))
def test_models_with_odd_interfaces_run_in_both_modes(
    native_runner: NativeRunner, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(odd_models()[name])
    model = read_model(path.read_bytes())
    feeds = sample_feeds(model, 2)
    answer = native_runner.ask(request("outputs", path, write_feeds(tmp_path, feeds)))
    assert answer.code == 0, answer.events
    expected = [array for outputs in run_model(model, feeds) for array in outputs]
    for came, array in zip(answer.outputs(), expected, strict=True):
        assert (came.dtype, came.shape) == (array.dtype, array.shape)
        assert came.tobytes() == array.tobytes()
    # In the other mode, and with inputs the runner makes up.
    answer = native_runner.ask(request("latency", path))
    assert answer.code == 0, answer.events
    assert len(answer.events[-2]["samples_ns"]) >= 20


def test_a_launch_says_what_it_measured(native_runner: NativeRunner) -> None:
    answer = native_runner.ask(request("latency", DATA / "digits.tflite"))
    assert answer.code == 0
    engine, _, _, line, _ = answer.events
    assert [event["event"] for event in answer.events] == [
        *("engine", "init", "first", "launch", "done")
    ]
    fields = Fields({key: value for key, value in line.items() if key != "event"})
    launch = read_launch(fields, max_samples=500)
    assert fields.faults == []
    assert min(launch.init_ns, launch.first_ns, *launch.warmup_ns, *launch.samples_ns) > 0
    assert len(launch.warmup_ns) == launch.num_warmup_runs == 3
    assert (len(launch.samples_ns), launch.stride) == (20, 1)
    assert (launch.is_steady, launch.is_cold, launch.cold_reason) == (None, None, None)
    assert sum(launch.samples_ns) <= launch.wall_ns
    assert launch.start_memory_bytes is not None
    assert launch.peak_memory_bytes is not None
    assert 2**20 < launch.start_memory_bytes <= launch.peak_memory_bytes < 2**28
    assert launch.before.num_runnable is not None
    fields = Fields({key: value for key, value in engine.items() if key != "event"})
    facts = read_engine(fields, threads_key="threads")
    assert fields.faults == []
    assert (facts.runner, facts.num_threads) == ("native", 1)
    assert facts.xnnpack is None  # not watched while it is timed


def test_a_quick_model_has_every_nth_run_timed_over_the_whole_time(
    native_runner: NativeRunner,
) -> None:
    plan = PLAN | {"min_seconds": 0.4, "max_samples": 100}
    answer = native_runner.ask(request("latency", DATA / "digits.tflite", plan=plan))
    launch = answer.events[-2]
    assert launch["stride"] > 1
    assert 20 <= len(launch["samples_ns"]) <= 100
    assert launch["wall_ns"] > 0.2e9


def test_the_warm_up_goes_on_until_times_are_steady(native_runner: NativeRunner) -> None:
    """After the same runs as the other runner, which knows no other times than these."""
    plan = PLAN | {"warmup_runs": 100, "until_steady": True, "max_samples": 20_000}
    launch = native_runner.ask(request("latency", DATA / "digits.tflite", plan=plan)).events[-2]
    assert launch["is_steady"] is True
    expected = settled_after(launch["warmup_ns"], 50)
    assert launch["num_warmup_runs"] == expected or launch["num_warmup_runs"] > 1000
    # Two stretches of more runs each than are kept.
    plan = plan | {"warmup_runs": 5000, "warmup_seconds": 0.02}
    launch = native_runner.ask(request("latency", DATA / "digits.tflite", plan=plan)).events[-2]
    assert launch["is_steady"] is True
    assert launch["num_warmup_runs"] >= 5000
    # No time for two of them.
    plan = plan | {"warmup_seconds": 1e6, "max_seconds": 0.3, "min_runs": 1}
    launch = native_runner.ask(request("latency", DATA / "digits.tflite", plan=plan)).events[-2]
    assert launch["is_steady"] is None


def test_a_cold_launch_reads_the_model_from_the_disk(
    native_runner: NativeRunner, model_in_memory: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(digits_bytes())
    launch = native_runner.ask(request("latency", path, cold=True)).events[-2]
    assert launch["is_cold"] is not stays_in_memory(path)
    launch = native_runner.ask(request("latency", model_in_memory, cold=True)).events[-2]
    pages = -(-model_in_memory.stat().st_size // os.sysconf("SC_PAGE_SIZE"))
    reason = f"{pages} of {pages} pages of the model stayed in memory"
    assert (launch["is_cold"], launch["cold_reason"]) == (False, reason)


def test_a_long_launch_looks_at_the_conditions_in_between(native_runner: NativeRunner) -> None:
    plan = PLAN | {"warmup_seconds": 0.3, "min_seconds": 1.8, "max_samples": 20_000}
    line = native_runner.ask(request("latency", DATA / "digits.tflite", plan=plan)).events[-2]
    fields = Fields({key: value for key, value in line.items() if key != "event"})
    launch = read_launch(fields, max_samples=20_000)
    assert fields.faults == []
    assert 1 <= len(launch.ticks) <= 3
    assert 0 < launch.ticks[0].sample <= len(launch.samples_ns)
    assert launch.ticks[0].conditions.num_runnable is not None


def test_conditions_are_those_of_the_files(native_runner: NativeRunner, tmp_path: Path) -> None:
    root = fake_system(tmp_path)
    may_mount = subprocess.run([*see(root), "true"], capture_output=True, check=False)
    if may_mount.returncode != 0:
        pytest.skip("needs a user who may mount")
    runner = replace(native_runner, emulator=(*see(root), "taskset", "-c", "0"))
    asked = request("latency", DATA / "digits.tflite")
    answer = runner.ask(asked)
    assert answer.code == 0, answer.stderr
    assert answer.events[-2]["before"] == answer.events[-2]["after"] == READ_CONDITIONS
    assert answer.events[-2]["num_cores"] == 1
    (root / "proc/loadavg").write_text("0.12 0.07 0.02 2/165 765\n")
    (root / "proc/pressure/memory").write_text("some avg10=0.00\n")
    unknown = dict.fromkeys(
        ("num_runnable", "stolen_ns", "busy_ns", "memory_stall_ns", "swapped_bytes")
    )
    (root / "proc/self/cgroup").write_text("0::/../../system.slice\nnonsense\n2:cpu:/../b\n")
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("0x5\n")
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").write_text("a+b\n")
    odd = {"quota_wait_ns": 30, "throttled": None, "governor": None}
    assert runner.ask(asked).events[-2]["after"] == READ_CONDITIONS | unknown | odd
    both = replace(native_runner, emulator=see(root)).ask(asked).events[-2]["after"]
    assert (both["frequency_khz"], both["governor"]) == (1_800_000, "performance")


def test_energy_is_the_power_over_the_time(native_runner: NativeRunner, tmp_path: Path) -> None:
    root = fake_system(tmp_path)
    if subprocess.run([*see(root), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a user who may mount")
    runner = replace(native_runner, emulator=see(root))
    add_sensor(root, 3_000_000)
    plan = PLAN | {"min_seconds": 0.3, "max_samples": 20_000}
    launch = runner.ask(request("latency", DATA / "digits.tflite", plan=plan)).events[-2]
    assert (launch["energy_source"], launch["energy_reason"]) == ("ina219 of hwmon2", None)
    taken_uj = launch["after"]["energy_uj"] - launch["before"]["energy_uj"]
    # The looks lie around the timed runs; how far, is for the machine to say.
    assert taken_uj >= 3 * launch["wall_ns"] / 1e3 - 1
    idle = runner.ask({"mode": "idle", "seconds": 0.2}).events[0]
    assert idle["energy_uj"] == pytest.approx(3 * idle["wall_ns"] / 1e3, abs=1)
    assert idle["wall_ns"] >= 2e8
    add_rapl(root)  # comes before a sensor
    launch = runner.ask(request("latency", DATA / "digits.tflite")).events[-2]
    assert launch["energy_source"] == "RAPL package-0, dram, package-1"
    assert (launch["before"]["energy_uj"], launch["after"]["energy_uj"]) == (0, 0)


def test_without_a_sensor_energy_is_unknown_with_the_reason(native_runner: NativeRunner) -> None:
    idle = native_runner.ask({"mode": "idle", "seconds": 3600}).events[0]
    if idle["energy_source"] is None:
        assert (idle["energy_uj"], idle["wall_ns"]) == (None, 0)
        assert idle["energy_reason"]


def test_the_time_limit_beats_the_minimums(native_runner: NativeRunner) -> None:
    plan = PLAN | {"min_runs": 10**6, "max_samples": 10**6, "max_seconds": 0.3}
    answer = native_runner.ask(request("latency", DATA / "digits.tflite", plan=plan))
    assert answer.events[-2]["wall_ns"] < 1e9
    assert len(answer.events[-2]["samples_ns"]) < 10**6


def test_each_op_has_its_time_those_in_xnnpack_too(native_runner: NativeRunner) -> None:
    answer = native_runner.ask(request("profile", DATA / "digits_int8.tflite", runs=50))
    assert answer.code == 0
    (profile,) = (event for event in answer.events if event["event"] == "profile")
    ops = profile["ops"]
    assert [op["name"] for op in ops if not op["xnnpack"]] == [
        *("SHAPE", "STRIDED_SLICE", "PACK", "RESHAPE")
    ]
    assert ops[0]["name"].startswith("Convolution (NHWC, QC8)")
    assert sum(op["xnnpack"] for op in ops) == 6
    assert 0 < sum(op["total_ns"] for op in ops) <= profile["total_ns"]
    assert (profile["num_runs"], profile["reason"]) == (50, None)


def test_the_request_may_come_on_standard_input(native_runner: NativeRunner) -> None:
    text = json.dumps(request("outputs", DATA / "digits.tflite", samples=1))
    answer = native_runner.ask("-", stdin=text)
    assert (answer.code, answer.events[-1]) == (0, {"event": "done"})
    answer = native_runner.ask("-", stdin=text + " " * 2**20 + "x")
    assert answer.code == 0  # what lies beyond 1 MiB is not read


def test_a_missing_model_is_named(native_runner: NativeRunner) -> None:
    path = DATA / "none"
    assert refusal(native_runner, request("latency", path)) == (
        "missing_file",
        f"the model {path} is not there",
    )


@pytest.mark.parametrize("name", ["MyOp", "FlexErf"])
def test_an_op_the_runtime_lacks_is_an_error_of_its_own_kind(
    native_runner: NativeRunner, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(model_with_custom_op(name))
    kind, message = refusal(native_runner, request("latency", path))
    assert kind == "unsupported_op"
    assert name in message


@pytest.mark.parametrize("data", [b"", b"\0" * 100, digits_bytes()[:5000]])
def test_an_unreadable_model_is_an_error_of_its_own_kind(
    native_runner: NativeRunner, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    assert refusal(native_runner, request("outputs", path))[0] == "model"


def test_inputs_that_do_not_fit_are_refused(native_runner: NativeRunner, tmp_path: Path) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(b"\0" * 300)
    model = DATA / "digits.tflite"
    kind, message = refusal(native_runner, request("outputs", model, [short]))
    assert kind == "inputs"
    assert message.endswith(f"needs 256 bytes a sample, but sample 1 of {short} has 44")
    assert refusal(native_runner, request("outputs", model, [short, short])) == (
        "inputs",
        "expected a file for each of 1 inputs, but got 2",
    )
    assert refusal(native_runner, request("outputs", model, [tmp_path / "none"])) == (
        "missing_file",
        f"the input file {tmp_path / 'none'} cannot be read: No such file or directory",
    )


def test_a_device_without_memory_for_the_tensors(
    native_runner: NativeRunner, tmp_path: Path
) -> None:
    path = tmp_path / "roomy.tflite"
    path.write_bytes(roomy_model(8192))
    limited = replace(native_runner, emulator=("sh", "-c", 'ulimit -v 900000; exec "$@"', "sh"))
    assert refusal(limited, request("outputs", path)) == (
        "memory",
        "the device ran out of memory: there is none for the model's tensors",
    )


def test_a_library_that_does_not_load_is_named(native_runner: NativeRunner, tmp_path: Path) -> None:
    answer = native_runner.ask({"mode": "check"}, library=tmp_path / "none.so")
    assert answer.code == 1
    assert answer.events == [
        {
            "event": "error",
            "kind": "import",
            "message": f"the runtime library cannot be loaded: {tmp_path / 'none.so'}: cannot "
            "open shared object file: No such file or directory",
        }
    ]
    (other,) = Path("/lib/x86_64-linux-gnu").glob("libz.so.1")
    answer = native_runner.ask({"mode": "check"}, library=other)
    assert answer.events[-1]["message"] == "the runtime library has no TfLiteVersion"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the request is not JSON: expected a name"),
        ("[]", "expected a request with the mode outputs or latency"),
        ('{"mode": "dance"}', "expected a request with the mode outputs or latency"),
        ('{"mode": "check"} x', "the request is not JSON: more than one value"),
        ('{"mode": "che', "the request is not JSON: a text without an end"),
        ('{"mode": "check\\', "the request is not JSON: a text without an end"),
        ('{"mode": "\\ud800"}', "the request is not JSON: a text with no character"),
        ('{"mode": 1e999}', "the request is not JSON: expected a value"),
        ("[" * 100_000, "the request is not JSON: it is too deep"),
        ('{"mode": "latency", "model": 3}', "model: expected a text"),
        (
            '{"mode": "latency", "model": "/", "threads": 0}',
            "threads: expected a number from 1 to 4096",
        ),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    native_runner: NativeRunner, text: str, message: str
) -> None:
    assert refusal(native_runner, text) == ("request", message)


def test_a_command_line_that_makes_no_sense_is_refused(native_runner: NativeRunner) -> None:
    (event,) = native_runner.start("{}").events
    assert event["message"] == "expected --library FILE REQUEST on the command line"


@settings(max_examples=60)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_texts_come_back_as_they_went(native_runner: NativeRunner, name: str) -> None:
    """Whatever stands in a request is read and written as Python's json does."""
    for text in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        asked = f'{{"mode": "latency", "threads": 1, "model": {text}}}'
        expected = ("missing_file", f"the model {name} is not there")
        assert refusal(native_runner, asked) == expected


@settings(max_examples=60)
@given(text=st.text(st.sampled_from('{}[]",:\\ue0 1-truefalsn\n\x01é'), max_size=40))
def test_any_text_is_answered(native_runner: NativeRunner, text: str) -> None:
    """Nothing that is sent crashes it."""
    answer = native_runner.ask("-", stdin=text)
    assert answer.code == 1
    assert answer.events[-1]["kind"] == "request"


def test_on_32_bit_arm_without_xnnpack(tmp_path: Path) -> None:
    """The program and the library for armv7, on an emulated Cortex-A7 (a Raspberry Pi 2's core)."""
    emulator = shutil.which("qemu-arm-static")
    if emulator is None or not _CROSS.is_dir():
        pytest.skip("needs qemu-user-static, libc6-armhf-cross and libstdc++6-armhf-cross")
    command = (emulator, "-cpu", "cortex-a7", "-L", str(_CROSS))
    runner = unpack_native("armv7l", tmp_path, command)
    model = load_model(DATA / "digits.tflite")
    feeds = sample_feeds(model, 2)
    asked = request("outputs", DATA / "digits.tflite", write_feeds(tmp_path, feeds))
    answer = runner.ask(asked)
    assert answer.code == 0, answer.stderr
    assert answer.events[0]["xnnpack"] is False
    assert_close(answer, model, feeds)
    launch = runner.ask(request("latency", DATA / "digits.tflite"))
    assert (launch.code, launch.events[0]["xnnpack"]) == (0, False)
    assert len(launch.events[-2]["samples_ns"]) == 20
