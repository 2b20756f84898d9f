"""Ops' times joined with the graph, and as node data for Model Explorer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack._fields import Fields
from edgepack.measure.profile import OpProfile, OpTime, read_profile
from edgepack.workflow.op_times import JoinedOps, join_ops, make_node_data
from tests.fixtures.commands import FLOAT_MODEL, RunCommand
from tests.fixtures.measure import DATA, digits_bytes
from tests.fixtures.runners import NativeRunner, request

DIGITS = digits_bytes("digits_int8.tflite")


def delegated(name: str, total_ns: int) -> OpTime:
    return OpTime(name=name, xnnpack=True, total_ns=total_ns)


def plain(name: str, node: int | None, total_ns: int) -> OpTime:
    return OpTime(name=name, xnnpack=False, total_ns=total_ns, node=node)


# As TensorFlow Lite 2.17.1 tells them of this model.
PROFILE = OpProfile(
    num_runs=10,
    total_ns=2000,
    ops=(
        delegated("Convolution (NHWC, QC8) IGEMM", 500),
        delegated("Convolution (NHWC, QC8) DWConv", 200),
        delegated("Convolution (NHWC, QC8) IGEMM", 300),
        delegated("Convert (NC, QS8, F32)", 10),
        plain("SHAPE", 4, 20),
        plain("STRIDED_SLICE", 5, 30),
        plain("PACK", 6, 40),
        plain("RESHAPE", 7, 50),
        delegated("Fully Connected (NC, QS8, QC8W) GEMM", 600),
        delegated("Fully Connected (NC, QS8, QC8W) GEMM", 250),
    ),
)


def test_ops_are_found_by_their_place_or_by_their_kind_in_order() -> None:
    joined = join_ops(DIGITS, PROFILE)
    assert (joined.num_ops, joined.num_joined, joined.share) == (10, 10, 1.0)
    assert [total for _, total in joined.times] == [op.total_ns for op in PROFILE.ops]
    names = [name for name, _ in joined.times]
    assert len(set(names)) == 10


def test_a_kind_that_xnnpack_ran_more_or_less_often_is_not_joined() -> None:
    fused = replace(PROFILE, ops=PROFILE.ops[:1] + PROFILE.ops[2:])
    joined = join_ops(DIGITS, fused)
    assert (joined.num_ops, joined.num_joined) == (9, 7)
    assert joined.share == pytest.approx(1000 / 1800)


def test_a_place_that_is_another_op_s_or_nowhere_is_not_believed() -> None:
    wrong = (plain("PACK", 5, 1), plain("PACK", 99, 2), plain("PACK", None, 4))
    joined = join_ops(DIGITS, OpProfile(num_runs=1, total_ns=9, ops=wrong))
    assert (joined.times, joined.num_joined, joined.share) == ((), 0, 0.0)


def test_node_data_are_microseconds_a_run() -> None:
    joined = JoinedOps(
        graph="main",
        times=(("a", 12_345), ("b", 0)),
        num_runs=10,
        num_ops=2,
        num_joined=2,
        share=1.0,
    )
    table = make_node_data(joined)["main"]
    assert table["name"] == "µs a run, of 10 runs"
    assert table["results"] == {"a": {"value": 1.234}, "b": {"value": 0.0}}
    assert [each["stop"] for each in table["gradient"]] == [0.0, 0.5, 1.0]
    one = make_node_data(replace(joined, times=(("a", 1),)))
    assert one["main"]["gradient"] == []


@pytest.mark.toolchain
def test_the_native_runner_tells_places_that_are_found(native_runner: NativeRunner) -> None:
    path = DATA / "digits_int8.tflite"
    answer = native_runner.ask(request("profile", path, runs=3))
    (event,) = (each for each in answer.events if each["event"] == "profile")
    fields = Fields({key: value for key, value in event.items() if key != "event"})
    profile = read_profile(fields)
    assert fields.faults == []
    assert [(op.name, op.node) for op in profile.ops] == [(o.name, o.node) for o in PROFILE.ops]
    assert join_ops(path.read_bytes(), profile).num_joined == 10


@pytest.mark.toolchain
def test_bench_writes_them(run: RunCommand, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    options = ("--launches", "1", "--runs", "3", "--root", tmp_path / "root")
    arguments = ("bench", FLOAT_MODEL, "local:", "--model-explorer", path, *options)
    ran = run(*arguments, "--runner", "native")
    assert ran.code == 0, ran.err
    assert f"wrote {path}: " in ran.err
    (graph,) = json.loads(path.read_text()).values()
    assert graph["results"]
    refused = run(*arguments, "--runner", "python")
    assert refused.code == 2
    assert "--model-explorer: Python's interpreter tells no op's time" in refused.err
    assert run(*arguments, "--against", FLOAT_MODEL).code == 2


def test_a_runner_that_tells_none_says_so_and_the_result_stays(
    run: RunCommand, tmp_path: Path
) -> None:
    path, result = tmp_path / "times.json", tmp_path / "r.json"
    options = ("--launches", "1", "--runs", "3", "--root", tmp_path / "root", "-o", result)
    ran = run("bench", FLOAT_MODEL, "local:", "--model-explorer", path, *options)
    assert ran.code == 1
    assert (
        f"edgepack: {path}: not written: Python's interpreter tells no op's time; the native "
        "runner does\n  Measure with --runner native.\n"
    ) in ran.err
    assert result.exists()
    assert not path.exists()
