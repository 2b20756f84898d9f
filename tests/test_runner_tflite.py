"""The runner as the device sees it: a program of its own, run by real interpreters."""

import ast
import base64
import json
import os
import subprocess
import sys
from array import array as typed_array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgepack.device.survey import state
from edgepack.evaluate import run_model
from edgepack.measure.bench import RUNNER_PATH
from edgepack.model import load_model, read_model
from edgepack.runner import tflite
from tests.fixtures.graphs import roomy_model
from tests.fixtures.measure import DATA, digits_bytes, model_with_custom_op, odd_models
from tests.fixtures.models import KINDS, came_as, make_feeds
from tests.fixtures.runners import (
    PLAN,
    READ_CONDITIONS,
    fake_system,
    request,
    sample_feeds,
    settled_after,
    stays_in_memory,
    write_feeds,
)


def run(
    request: object,
    *,
    options: Sequence[str] = (),
    stdin: str = "",
    program: Path = RUNNER_PATH,
    starter: Sequence[str] = (),
) -> tuple[int, list[dict[str, Any]], str]:
    text = request if isinstance(request, str) else json.dumps(request)
    ended = subprocess.run(
        [*starter, sys.executable, "-I", str(program), *options, text],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


def refusal(
    request: object,
    *,
    options: Sequence[str] = (),
    program: Path = RUNNER_PATH,
    starter: Sequence[str] = (),
) -> tuple[str, str]:
    code, events, _ = run(request, options=options, program=program, starter=starter)
    assert code == 1
    assert events[-1]["event"] == "error"
    return events[-1]["kind"], events[-1]["message"]


def test_it_imports_nothing_of_ours_and_nothing_that_is_not_everywhere() -> None:
    tree = ast.parse(RUNNER_PATH.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names - set(sys.stdlib_module_names) == {"numpy"}


@pytest.mark.parametrize("name", ["digits.tflite", "digits_int8.tflite"])
def test_outputs_are_those_of_the_host_bit_for_bit(tmp_path: Path, name: str) -> None:
    model = load_model(DATA / name)
    feeds = sample_feeds(model, 2)
    code, events, _ = run(request("outputs", DATA / name, write_feeds(tmp_path, feeds)))
    assert code == 0
    assert [event["event"] for event in events] == [
        *("engine", "sample", "output", "sample", "output", "done")
    ]
    expected = run_model(model, feeds)
    outputs = [event for event in events if event["event"] == "output"]
    for event, (array,) in zip(outputs, expected, strict=True):
        assert base64.b64decode(event["data"]) == array.tobytes()
        assert (event["dtype"], tuple(event["shape"])) == (array.dtype.name, array.shape)


@pytest.mark.parametrize("stream", [False, True])
def test_state_stays_between_the_samples_of_a_stream_only(tmp_path: Path, *, stream: bool) -> None:
    model = came_as("lstm")
    (feed,) = make_feeds(model, num_samples=1)
    (path,) = write_feeds(tmp_path, [feed, feed])
    asked = request("outputs", KINDS / "lstm.tflite", [path], stream=stream)
    code, events, _ = run(asked)
    assert code == 0
    first, second = (each["data"] for each in events if each["event"] == "output")
    assert (first != second) == stream


@pytest.mark.parametrize("name", sorted(odd_models()))
def test_models_with_odd_interfaces_run_in_both_modes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(odd_models()[name])
    model = read_model(path.read_bytes())
    feeds = sample_feeds(model, 2)
    inputs = write_feeds(tmp_path, feeds)
    code, events, stderr = run(request("outputs", path, inputs))
    assert code == 0, stderr
    expected = [array for outputs in run_model(model, feeds) for array in outputs]
    outputs = [event for event in events if event["event"] == "output"]
    for event, array in zip(outputs, expected, strict=True):
        assert base64.b64decode(event["data"]) == array.tobytes()
        assert tuple(event["shape"]) == array.shape
    # In the other mode, and with inputs the runner makes up.
    code, events, stderr = run(request("latency", path))
    assert code == 0, stderr
    assert len(events[-2]["samples_ns"]) >= 20


def test_a_launch_says_what_it_measured() -> None:
    code, events, _ = run(request("latency", DATA / "digits.tflite"))
    assert code == 0
    assert [event["event"] for event in events] == ["engine", "init", "first", "launch", "done"]
    engine, _, _, launch, _ = events
    assert engine["name"] == "ai-edge-litert"
    assert engine["threads"] == 1
    assert engine["xnnpack"] is True
    times = [launch["init_ns"], launch["first_ns"], *launch["warmup_ns"], *launch["samples_ns"]]
    assert all(type(each) is int and each > 0 for each in times)
    assert len(launch["warmup_ns"]) == launch["num_warmup_runs"] == 3
    assert len(launch["samples_ns"]) == 20
    assert launch["stride"] == 1
    assert launch["is_steady"] is launch["is_cold"] is launch["cold_reason"] is None
    assert sum(launch["samples_ns"]) <= launch["wall_ns"]
    assert 10 * 2**20 < launch["start_memory_bytes"] <= launch["peak_memory_bytes"] < 2**32
    assert launch["peak_memory_reason"] is None
    assert launch["num_cores"] == len(os.sched_getaffinity(0))


def test_a_quick_model_has_every_nth_run_timed_over_the_whole_time() -> None:
    plan = PLAN | {"min_seconds": 0.4, "max_samples": 100, "warmup_seconds": 0.2}
    code, events, _ = run(request("latency", DATA / "digits.tflite", plan=plan))
    assert code == 0
    launch = events[-2]
    assert launch["stride"] > 1
    assert 20 <= len(launch["samples_ns"]) <= 100
    assert launch["wall_ns"] > 0.2e9


class Clock:
    """Runs of given times; the last one goes on, and looking at the clock takes none."""

    def __init__(self, run_ns: Sequence[int]) -> None:
        self.now, self.run_ns, self.count = 10**9, run_ns, 0

    def perf_counter_ns(self) -> int:
        return self.now

    def invoke(self) -> None:
        self.now += self.run_ns[min(self.count, len(self.run_ns) - 1)]
        self.count += 1


@pytest.mark.parametrize(
    ("run_ns", "minimum", "seconds", "is_steady"),
    [
        ([1_000_000], (5, 500_000_000), 0.5, True),  # at once: no longer than the minimum
        ([*range(2_000_000, 1_000_000, -2_500), 1_000_000], (5, 500_000_000), 1.0, True),
        ([30_000], (5, 500_000_000), 0.5, True),  # more runs than are kept
        ([*range(30_000, 20_000, -1), 20_000], (5, 500_000_000), 0.75, True),
        ([200_000_000], (5, 500_000_000), 1.2, True),  # three runs each
        ([300_000_000, 250_000_000, 200_000_000], (5, 500_000_000), 1.95, True),
        ([10**6 * each for each in range(1, 200)], (5, 0), 2.0, False),  # slower and slower
        ([10**9], (5, 500_000_000), 2.0, None),  # no time for two stretches
    ],
)
def test_the_warm_up_goes_on_until_times_are_steady(
    run_ns: Sequence[int],
    minimum: tuple[int, int],
    seconds: float,
    is_steady: bool | None,  # noqa: FBT001 - as pytest gives it
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(run_ns)
    monkeypatch.setattr(tflite, "time", clock)
    settling, storage = tflite.Settling(*minimum), typed_array("q", bytes(8 * 100))
    deadline = clock.now + 2 * 10**9
    kept, count = tflite._warm_up(clock.invoke, storage, minimum, deadline, settling)
    assert settling.is_steady is is_steady
    assert (clock.now - 10**9) / 1e9 == pytest.approx(seconds, rel=0.06)
    assert (kept, count) == (min(100, clock.count), clock.count)


def test_a_launch_says_whether_it_became_steady() -> None:
    plan = PLAN | {"warmup_runs": 100, "until_steady": True}
    code, events, _ = run(request("latency", DATA / "digits.tflite", plan=plan))
    assert code == 0
    launch = events[-2]
    expected = settled_after(launch["warmup_ns"], 50)
    assert launch["is_steady"] is True
    assert launch["num_warmup_runs"] == expected or launch["num_warmup_runs"] > 500


def test_a_cold_launch_reads_the_model_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(digits_bytes())  # what is not on the disk yet cannot be dropped
    code, events, _ = run(request("latency", path, cold=True))
    assert code == 0
    assert events[-2]["is_cold"] is not stays_in_memory(path)


def test_a_model_that_stays_in_memory_gives_no_cold_start(model_in_memory: Path) -> None:
    code, events, _ = run(request("latency", model_in_memory, cold=True))
    assert code == 0
    pages = -(-model_in_memory.stat().st_size // os.sysconf("SC_PAGE_SIZE"))
    reason = f"{pages} of {pages} pages of the model stayed in memory"
    assert (events[-2]["is_cold"], events[-2]["cold_reason"]) == (False, reason)


def test_a_system_that_drops_no_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    assert tflite._drop_from_memory(str(DATA / "digits.tflite")) == (
        False,
        "this system has no call that drops a file from memory",
    )


def test_a_long_launch_looks_at_the_conditions_in_between() -> None:
    # Which runs are kept goes by how long those of the warm-up took: three tell too little.
    plan = PLAN | {"warmup_seconds": 0.3, "min_seconds": 1.8, "max_samples": 20_000}
    code, events, _ = run(request("latency", DATA / "digits.tflite", plan=plan))
    assert code == 0
    launch = events[-2]
    assert 1 <= len(launch["ticks"]) <= 3
    places = [tick["sample"] for tick in launch["ticks"]]
    assert places == sorted(set(places))
    assert 0 < places[0] <= places[-1] <= len(launch["samples_ns"])
    assert all(tick.keys() == {"sample", *launch["after"]} for tick in launch["ticks"])


def test_conditions_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake_system(tmp_path)
    monkeypatch.setattr(tflite, "_PROC", str(root / "proc"))
    monkeypatch.setattr(tflite, "_SYS", str(root / "sys"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    meter = tflite.Meter()
    assert tflite._conditions(meter) == READ_CONDITIONS
    # The fastest core counts of those that it may run on only.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    both = {
        "frequency_khz": 1_800_000,
        "busy_ns": 165 * 10**9 // os.sysconf("SC_CLK_TCK"),
        "governor": "performance+schedutil",
    }
    assert tflite._conditions(meter) == READ_CONDITIONS | both
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 7})  # nothing is told of the last
    assert tflite._conditions(meter) == READ_CONDITIONS | {"busy_ns": None}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    # Android's proot-distro makes this file up, and the others of /proc with it.
    (root / "proc/loadavg").write_text("0.12 0.07 0.02 2/165 765\n")
    (root / "proc/pressure/memory").write_text("some avg10=0.00\n")
    unknown = dict.fromkeys(
        ("num_runnable", "stolen_ns", "busy_ns", "memory_stall_ns", "swapped_bytes")
    )
    assert tflite._conditions(meter) == READ_CONDITIONS | unknown
    # A group's path that lies outside of what is shown to a container.
    (root / "proc/self/cgroup").write_text("0::/../../system.slice\nnonsense\n2:cpu:/../b\n")
    assert tflite._conditions(meter)["quota_wait_ns"] == 30
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("0x5\n")
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").write_text("a+b\n")
    odd = {"throttled": None, "governor": None}
    monkeypatch.setattr(tflite, "_PROC", str(root / "nothing"))
    assert tflite._conditions(meter) == READ_CONDITIONS | unknown | odd | {"quota_wait_ns": None}


def test_the_zones_are_those_that_the_device_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "_SYS", str(tmp_path))

    def told(*zones: tuple[str, int]) -> float | None:
        for number, (name, millidegrees) in enumerate(zones):
            folder = tmp_path / f"class/thermal/thermal_zone{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "type").write_text(f"{name}\n")
            (folder / "temp").write_text(f"{millidegrees}\n")
        lines = [f"{millidegrees} {name}" for name, millidegrees in zones]
        assert tflite._temperature_c() == state._read_temperature(tuple(lines))
        return tflite._temperature_c()

    assert told(("iwlwifi_1", 91_000)) == 91.0
    assert told(("iwlwifi_1", 91_000), ("x86_pkg_temp", -2_500)) == -2.5
    assert told(("iwlwifi_1", 91_000), ("x86_pkg_temp", -2_500), ("GPU-CPU", 71_000)) == 71.0
    assert told(("battery", -99_000), ("pkg", 151_000), ("nothing", 200_000)) is None


def test_the_time_limit_beats_the_minimums() -> None:
    plan = PLAN | {"min_runs": 10**6, "max_samples": 10**6, "max_seconds": 0.3}
    code, events, _ = run(request("latency", DATA / "digits.tflite", plan=plan))
    assert code == 0
    assert events[-2]["wall_ns"] < 1e9
    assert len(events[-2]["samples_ns"]) < 10**6


def test_the_request_may_come_on_standard_input() -> None:
    text = json.dumps(request("outputs", DATA / "digits.tflite", samples=1))
    code, events, _ = run("-", stdin=text)
    assert (code, events[-1]) == (0, {"event": "done"})


def test_a_missing_model_is_named() -> None:
    path = DATA / "none"
    assert refusal(request("latency", path)) == ("missing_file", f"the model {path} is not there")


@pytest.mark.parametrize("name", ["MyOp", "FlexErf"])
def test_an_op_the_runtime_lacks_is_an_error_of_its_own_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(model_with_custom_op(name))
    kind, message = refusal(request("latency", path))
    assert kind == "unsupported_op"
    assert name in message


@pytest.mark.parametrize("data", [b"", b"\0" * 100, digits_bytes()[:5000]])
def test_an_unreadable_model_is_an_error_of_its_own_kind(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    assert refusal(request("outputs", path))[0] == "model"


def test_a_device_without_memory_for_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "roomy.tflite"
    path.write_bytes(roomy_model(8192))
    # OpenBLAS, which numpy loads, takes room for each core's thread.
    limited = ("env", "OPENBLAS_NUM_THREADS=1", "sh", "-c", 'ulimit -v 900000; exec "$@"', "sh")
    assert refusal(request("outputs", path), starter=limited) == (
        "memory",
        "the device ran out of memory",
    )


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(b"\0" * 300)
    model = DATA / "digits.tflite"
    kind, message = refusal(request("outputs", model, [short]))
    assert kind == "inputs"
    assert message.endswith(f"needs 256 bytes a sample, but sample 1 of {short} has 44")
    assert refusal(request("outputs", model, [short, short])) == (
        "inputs",
        "expected a file for each of 1 inputs, but got 2",
    )
    assert refusal(request("outputs", model, [tmp_path / "none"])) == (
        "missing_file",
        f"the input file {tmp_path / 'none'} cannot be read: No such file or directory",
    )


def test_requests_that_make_no_sense_are_refused() -> None:
    assert refusal("{")[0] == "request"
    assert refusal("[]") == ("request", "expected a request with the mode outputs or latency")
    assert refusal({"mode": "dance"})[0] == "request"
    assert refusal("{}", options=["{}"])[0] == "request"


def write_runtime(site: Path, source: str) -> Path:
    package = site / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.9'")
    (package / "interpreter.py").write_text(source)
    return site


def test_the_site_folder_comes_first_and_a_broken_runtime_is_reported(tmp_path: Path) -> None:
    site = write_runtime(tmp_path, "raise ImportError('libc.so.6: version GLIBC_2.99 not found')")
    wanted = request("latency", DATA / "digits.tflite", module="ai_edge_litert.interpreter")
    assert refusal(wanted, options=["--site", str(site)]) == (
        "import",
        (
            "no TFLite runtime can be imported: ai-edge-litert: libc.so.6: version GLIBC_2.99 "
            "not found"
        ),
    )


def test_what_a_runtime_prints_stays_out_of_the_events(tmp_path: Path) -> None:
    site = write_runtime(
        tmp_path,
        "import os\n"
        "print('hello from Python')\n"
        "os.write(1, b'hello from C\\n')\n"
        "class Interpreter:\n"
        "    def __init__(self, **_): raise MemoryError\n",
    )
    wanted = request("latency", DATA / "digits.tflite")
    code, events, stderr = run(wanted, options=["--site", str(site)])
    assert code == 1
    assert events == [
        {"event": "error", "kind": "memory", "message": "the device ran out of memory"}
    ]
    assert "hello from Python" in stderr
    assert "hello from C" in stderr


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ((3, 8), ""),
        ((3, 13), ""),
        ((3, 7), "expected Python 3.8 or newer, but the device's is 3.7"),
        ((2, 7), "expected Python 3.8 or newer, but the device's is 2.7"),
    ],
)
def test_an_old_python_is_named(version: tuple[int, int], fault: str) -> None:
    assert tflite.check_python(version) == fault


def test_an_old_python_gets_as_far_as_saying_so(tmp_path: Path) -> None:
    # The version stands in for that of Python 3.6, whose interpreter few machines still have;
    # the syntax test above is for 3.8, and nothing before the check is newer than 3.6.
    source = RUNNER_PATH.read_text(encoding="utf-8")
    head, rest = source.split("import array\n", 1)
    assert "check_python(sys.version_info[:2])" in head
    ast.parse(source, feature_version=(3, 6))
    copy = tmp_path / "runner.py"
    old = head.replace("import sys\n", "import sys\nsys.version_info = (3, 6, 9)\n", 1)
    copy.write_text(f"{old}import array\n{rest}", encoding="utf-8")
    message = "expected Python 3.8 or newer, but the device's is 3.6"
    assert refusal("{}", program=copy) == ("python_too_old", message)
