import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.errors import DeviceTimeoutError, MeasureError
from edgepack.measure import channel
from edgepack.measure.launch import Conditions, LatencyLaunch, Tick, read_launch, to_json
from edgepack.model import Signature, TensorSpec
from tests.fixtures.measure import ScriptedDevice, make_launch

SIGNATURE = Signature(
    inputs=(),
    outputs=(
        TensorSpec(name="big", shape=(1, 2**20), dtype="float32"),
        TensorSpec(name="scalar", shape=(), dtype="int8"),
    ),
)


MEMORY_REMEDY = (
    "Free memory on the device, choose a smaller variant, or use `--runner native`, which needs "
    "less; `edgepack doctor DEVICE MODEL` tells what is needed and what is free."
)


def talk(folder: Path, program: str, *, timeout: float = 20, max_events: int = 8) -> list[Any]:
    device = ScriptedDevice(folder, program)
    return channel.talk(
        device, device.argv, timeout_seconds=timeout, max_events=max_events, max_samples=10
    )


def test_events_arrive_without_the_last(tmp_path: Path) -> None:
    lines = '{"event": "engine", "x": 1}\\n{"event": "done"}\\n'
    assert talk(tmp_path, f"print('''{lines}''', end='')") == [{"event": "engine", "x": 1}]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('Welcome to my board')", "expected a JSON line, not b'Welcome to my board"),
        ("print('[1]')", "expected an object with 'event', not a list ([1])"),
        ("print('{\"event\": 3}')", "expected an object with 'event', not a table"),
        ("print('[' * 100000)", "expected a JSON line, not b'[[[["),
        ("import os; os.write(1, bytes(range(128, 255)) + b'\\n')", "expected a JSON line"),
        ("pass", "it ended without saying that it was done"),
        ('print(\'{"event": "engine"}\')', "it ended without saying that it was done"),
        ('[print(\'{"event": "first"}\') for _ in range(100)]', "expected at most 8 events"),
    ],
)
def test_what_no_runner_says_is_refused(tmp_path: Path, program: str, said: str) -> None:
    with pytest.raises(MeasureError) as caught:
        talk(tmp_path, program)
    assert caught.value.message.startswith(
        "the runner on local: answered with something else than a measurement: "
    )
    assert said in caught.value.message


def test_a_line_without_end_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="wrote a line of more than 8388808 bytes"):
        talk(tmp_path, "import os\nwhile True: os.write(1, b'x' * 65536)")


def test_a_runner_that_hangs_is_stopped(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match="did not end within 1 s"):
        talk(tmp_path, "import time; time.sleep(60)", timeout=1)
    assert time.monotonic() - start < 15


def test_a_killed_runner_leaves_its_last_words_and_a_remedy(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        'print(\'{"event": "engine"}\', flush=True)\n'
        "print('allocating 9 GB', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(MeasureError) as caught:
        talk(tmp_path, program)
    assert caught.value.message.startswith(
        "the runner on local: was killed, as Linux does when memory runs out: local: "
    )
    assert "ended with exit code 137: allocating 9 GB" in caught.value.message
    assert caught.value.remedy == MEMORY_REMEDY


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("what():  std::bad_alloc", MEMORY_REMEDY),
        ("OpenBLAS error: Memory allocation still failed after 10 retries", MEMORY_REMEDY),
        ("Aborted", "A crash (139, 134) means this runtime cannot run this model: "),
    ],
)
def test_a_runner_that_dies_for_want_of_memory_is_told_apart(
    tmp_path: Path, said: str, remedy: str
) -> None:
    with pytest.raises(MeasureError) as caught:
        talk(tmp_path, f"import os, sys\nprint({said!r}, file=sys.stderr, flush=True)\nos.abort()")
    assert caught.value.message.startswith("the runner on local: died without a result: ")
    assert f"ended with exit code 134: {said}" in caught.value.message
    assert caught.value.remedy.startswith(remedy)


def test_an_error_of_the_runner_is_told_with_its_remedy(tmp_path: Path) -> None:
    event = {"event": "error", "kind": "unsupported_op", "message": "no \x1b[2J kernel"}
    with pytest.raises(MeasureError) as caught:
        talk(tmp_path, f"print({json.dumps(event)!r}); raise SystemExit(1)")
    assert caught.value.message == "the model cannot be run on local: no  [2J kernel"
    assert caught.value.remedy.startswith("Replace that op in the source model")


@pytest.mark.parametrize("kind", [None, ["x"], {}, "unheard"])
def test_an_error_of_an_unknown_kind_is_an_error_all_the_same(tmp_path: Path, kind: object) -> None:
    event = {"event": "error", "kind": kind, "message": "odd" * 2000}
    with pytest.raises(MeasureError) as caught:
        talk(tmp_path, f"print({json.dumps(event)!r}); raise SystemExit(1)")
    assert len(caught.value.message) < 1100
    assert caught.value.remedy.startswith("Run it again")


def output_events() -> list[dict[str, Any]]:
    big = np.arange(2**20, dtype=np.float32).tobytes()
    common = {"event": "output", "sample": 0}
    chunks = [(0, big[: 3 * 2**20]), (3 * 2**20, big[3 * 2**20 :])]
    events = [
        common
        | {"index": 0, "shape": [1, 2**20], "dtype": "float32", "num_bytes": 2**22}
        | {"offset": offset, "data": base64.b64encode(chunk).decode()}
        for offset, chunk in chunks
    ]
    scalar = {"index": 1, "shape": [], "dtype": "int8", "num_bytes": 1, "offset": 0, "data": "Bw=="}
    return [*events, common | scalar]


def parse(events: list[dict[str, Any]]) -> tuple[bytes, ...]:
    return channel.parse_outputs(events, signature=SIGNATURE, num_samples=1, name="board")


def test_outputs_are_put_together_from_their_pieces() -> None:
    assert channel.num_output_events(SIGNATURE, num_samples=1) == 3
    big, scalar = parse(output_events())
    assert np.array_equal(np.frombuffer(big, np.float32), np.arange(2**20))
    assert scalar == b"\x07"


@pytest.mark.parametrize(
    ("index", "change", "said"),
    [
        (
            0,
            {"shape": [2**20]},
            "output 'big': expected float32 (1, 1048576), not float32 (1048576,)",
        ),
        (0, {"dtype": "float64"}, "expected float32 (1, 1048576), not float64 (1, 1048576)"),
        (1, {"offset": 0}, "offset: expected at least 3145728, not 0"),
        (1, {"data": ""}, "data: expected 1048576 bytes, not 0"),
        (2, {"data": "!!"}, "data: expected base64"),
        (2, {"data": None}, "data: expected a text, not null"),
        (2, {"sample": 1}, "sample: expected at most 0, not 1"),
        (2, {"num_bytes": 2**60}, "num_bytes: expected at most 1"),
        (2, {"more": 1}, "more: unknown key"),
        (2, {"event": "sample"}, "sample 0, output 1: it is missing"),
    ],
)
def test_outputs_of_another_shape_or_order_are_refused(
    index: int, change: dict[str, object], said: str
) -> None:
    events = output_events()
    events[index] |= change
    with pytest.raises(MeasureError) as caught:
        parse(events)
    assert said in caught.value.message


def test_run_times_must_be_those_of_the_samples() -> None:
    events = [{"event": "sample", "sample": i, "run_ns": 10 + i} for i in range(3)]
    assert channel.parse_run_times(events, num_samples=3, name="board") == [10, 11, 12]
    with pytest.raises(MeasureError, match="expected 4 samples, not 3"):
        channel.parse_run_times(events, num_samples=4, name="board")
    with pytest.raises(MeasureError, match="run_ns: expected at least 0, not -1"):
        channel.parse_run_times([events[0] | {"run_ns": -1}], num_samples=1, name="board")


def read(table: dict[str, object]) -> tuple[LatencyLaunch, list[str]]:
    fields = Fields(table)
    return read_launch(fields, max_samples=10), fields.faults


def test_a_launch_survives_json() -> None:
    seen = Conditions(frequency_khz=9, num_runnable=1, busy_ns=2, throttled=5, governor="a_1+b")
    tick = Tick(sample=1, conditions=seen)
    launch = replace(make_launch([5, 6, 7]), ticks=(tick,), num_cores=4)
    assert read(json.loads(json.dumps(to_json(launch)))) == (launch, [])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"samples_ns": []}, "samples_ns: expected at least one time"),
        ({"samples_ns": [1] * 11}, "samples_ns: expected at most 10 times, not 11"),
        ({"samples_ns": [1.5]}, "samples_ns: expected whole nanoseconds of at least 0 only"),
        ({"samples_ns": [-1]}, "samples_ns: expected whole nanoseconds of at least 0 only"),
        ({"samples_ns": [True]}, "samples_ns: expected whole nanoseconds of at least 0 only"),
        ({"samples_ns": [2**63]}, "samples_ns: expected whole nanoseconds of at least 0 only"),
        ({"samples_ns": None}, "samples_ns: missing; expected a list"),
        ({"init_ns": -1}, "init_ns: expected at least 0, not -1"),
        ({"stride": 0}, "stride: expected at least 1, not 0"),
        ({"num_cores": -2}, "num_cores: expected at least 0, not -2"),
        ({"after": {"throttled": 2**32}}, "throttled: expected at most 4294967295, not 4294967296"),
        (
            {"after": {"governor": "\x1b[2J"}},
            "governor: expected names joined by +, not '\\x1b[2J'",
        ),
        ({"after": {"quota_wait_ns": 0.5}}, "quota_wait_ns: expected a whole number, not"),
        ({"before": 3}, "before: expected a table, not a whole number (3)"),
        ({"peak_memory_bytes": "4"}, "peak_memory_bytes: expected a whole number, not a text"),
    ],
)
def test_a_malformed_launch_is_refused(change: dict[str, object], fault: str) -> None:
    _, faults = read(to_json(make_launch([5, 6])) | change)
    assert any(fault in each for each in faults)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(to_json(make_launch([1])))), VALUES))
def test_no_launch_of_a_device_breaks_the_reader(change: dict[str, object]) -> None:
    launch, faults = read(to_json(make_launch([5, 6])) | change)
    assert faults or all(type(each) is int for each in launch.samples_ns)
