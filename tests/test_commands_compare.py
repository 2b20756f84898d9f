"""Which of two models is faster: measured in turns, or from stored results."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.errors import MeasureError
from edgepack.fleet.journal import State, make_entry, open_journal
from edgepack.measure.drive import measure_on_host
from edgepack.measure.likeness import find_unlike
from edgepack.measure.pairing import pair_measurements
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import (
    Measurement,
    make_measurement,
    to_json,
    write_measurement,
)
from edgepack.measure.results import load_measurements
from edgepack.model import load_model
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import FLOAT_MODEL, QUICK, RunCommand
from tests.fixtures.measure import make_launch
from tests.fixtures.measured import make_measured


@pytest.fixture(scope="module")
def measured() -> Measurement:
    plan = BenchmarkPlan(num_launches=1, min_runs=5, min_seconds=0.01, max_seconds=5)
    return measure_on_host(load_model(FLOAT_MODEL), (), plan=plan)


def quiet(found: Measurement, *, scale: float, governor: str = "same") -> Measurement:
    """Give a measurement of this device with launches that nothing disturbed."""
    samples = [int(scale * (100_000 + 10 * (run % 7))) for run in range(70)]
    state = replace(found.before, governor=governor, load_1min=0.0, throttled=None)
    return make_measurement(
        device_name=found.device_name,
        device=found.device,
        model=found.model,
        engine=found.engine,
        plan=found.plan,
        fitted_plan=found.fitted_plan,
        launches=tuple(make_launch(samples) for _ in range(8)),
        golden=None,
        before=state,
        after=state,
        provenance=found.provenance,
    )


def test_stored_results_of_like_conditions_are_compared(
    run: RunCommand, tmp_path: Path, measured: Measurement
) -> None:
    for name, scale in (("quick", 1.0), ("slow", 1.25)):
        (tmp_path / f"{name}.json").write_bytes(write_measurement(quiet(measured, scale=scale)))
    ran = run("compare", tmp_path / "quick.json", tmp_path / "slow.json")
    assert ran.code == 0, ran.err
    assert ran.out == (
        "model.tflite against model.tflite on this machine: 1.25x faster (95%: 1.25 to 1.25), "
        "8 launches of each, one after the other\n"
    )
    body = run("compare", tmp_path / "slow.json", tmp_path / "quick.json", "--json").json()
    assert body["difference"] == "slower"
    assert body["in_turns"] is False
    assert body["text"] == "1.25x slower (95%: 1.25 to 1.25)"


def test_two_names_are_told_apart_where_they_are_taken_for_one_device(
    run: RunCommand, tmp_path: Path
) -> None:
    """Boards of one kind say the same of themselves, and an address may change."""
    for name, scale in (("kitchen", 1.0), ("attic", 1.25)):
        measured = make_measured(device=f"pi@{name}", scales=(scale,) * 6)
        (tmp_path / name).write_bytes(write_measurement(measured))
    paths = (tmp_path / "kitchen", tmp_path / "attic")
    ran = run("compare", *paths)
    assert ran.code == 0
    assert ran.out == (
        "digits (int8) on pi@kitchen against digits (int8) on pi@attic: 1.25x faster (95%: 1.24 to "
        "1.26), 6 launches of each, one after the other\n"
    )
    assert ran.err == (
        "warning: pi@kitchen and pi@attic are taken for one device, or two of a kind: what they "
        "say of themselves is alike\n"
    )
    body, warned = (found := run("compare", *paths, "--json")).json(), found.err
    assert (body["devices"], warned) == (["pi@kitchen", "pi@attic"], ran.err)


@pytest.mark.parametrize(
    ("spread", "lines"),
    [
        (0.0, []),
        (0.02, ["  A difference of 2% would show after about 32 more launches of each."]),
        (
            0.08,
            [
                (
                    "  A difference of 2% would take more launches than a plan may have: the ratio "
                    "is known to ±4.0% and the same model differs from itself by 8.3%. Let the "
                    "device be quiet and cool."
                )
            ],
        ),
    ],
)
def test_what_would_tell_more_is_said(
    run: RunCommand, tmp_path: Path, spread: float, lines: list[str]
) -> None:
    scales = (1 - spread / 2, 1 + spread / 2) * 5
    for name, each in (("steady", (1.0,) * 10), ("restless", scales)):
        measured = make_measured(scales=each, samples_ns=[1_000_000] * 20)
        (tmp_path / name).write_bytes(write_measurement(measured))
    ran = run("compare", tmp_path / "steady", tmp_path / "restless")
    assert ran.out.splitlines()[1:] == lines


def test_results_of_a_fleet_are_compared_device_by_device(
    run: RunCommand, tmp_path: Path, measured: Measurement
) -> None:
    def write(name: str, *found: Measurement) -> Path:
        path = tmp_path / name
        path.write_bytes(b"[" + b",".join(map(write_measurement, found)) + b"]")
        return path

    def on(device: str, scale: float, governor: str = "same") -> Measurement:
        return replace(quiet(measured, scale=scale, governor=governor), device_name=device)

    old = write("old.json", on("pi@a", 1.25), on("pi@b", 1.0), on("pi@gone", 1.0))
    new = write("new.json", on("pi@b", 1.0, "powersave"), on("pi@a", 1.0), on("pi@new", 1.0))
    ran = run("compare", old, new)
    assert ran.code == 1
    assert ran.out == (
        "model.tflite against model.tflite on pi@a: 1.25x slower (95%: 1.25 to 1.25), "
        "8 launches of each, one after the other\n"
    )
    assert ran.err.splitlines() == [
        "pi@b: measured under unlike conditions: governor: same and powersave",
        "pi@gone: only one of the results has it",
        "pi@new: only one of the results has it",
    ]
    slower, unlike, *missing = run("compare", old, new, "--json").json()
    assert missing == [
        {"device": "pi@gone", "missing": "only one of the results has it"},
        {"device": "pi@new", "missing": "only one of the results has it"},
    ]
    assert (slower["device"], slower["difference"]) == ("pi@a", "slower")
    assert unlike == {
        "device": "pi@b",
        "model": "model.tflite",
        "unlike": ["governor: same and powersave"],
    }
    # Two variants on each device: each is compared with itself.
    other = replace(on("pi@a", 2.0), model=replace(measured.model, recipe="int8"))
    both = write("both.json", on("pi@a", 1.0), other)
    bodies = run("compare", both, both, "--json").json()
    assert [each["text"].startswith("no difference") for each in bodies] == [True, True]
    ran = run("compare", write("one.json", on("pi@x", 1.0)), both)
    assert ran.code == 1
    assert "have none in common\n" in ran.err

    # What is left of two fleets is no pair because one is left of each.
    lost = {"device": "pi@b", "error": {"kind": "connect", "message": "pi@b: gone", "remedy": ""}}
    part = tmp_path / "part.json"
    part.write_text(json.dumps([to_json(on("pi@a", 1.0)), lost]))
    assert run("compare", write("b.json", on("pi@b", 1.0)), part).code == 1
    ran = run("compare", write("a.json", on("pi@a", 1.0)), part, "--json")
    assert ran.code == 1
    same, missing = ran.json()
    assert (same["device"], same["difference"]) == ("pi@a", "none")
    assert missing == {"device": "pi@b", "missing": f"pi@b: gone ({part})"}
    assert ran.err == f"pi@b: gone ({part})\n"


def test_results_of_unlike_conditions_are_refused(
    run: RunCommand, tmp_path: Path, measured: Measurement
) -> None:
    one, other = quiet(measured, scale=1.0), quiet(measured, scale=1.0, governor="powersave")
    other = replace(other, engine=replace(other.engine, num_threads=2))
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_bytes(write_measurement(one))
    second.write_bytes(write_measurement(other))
    ran = run("compare", first, second)
    assert ran.code == 1
    assert ran.err == (
        f"edgepack: expected results that were measured under like conditions, but {first} and "
        f"{second} differ:\n"
        "  - threads: 1 and 2\n"
        "  - governor: same and powersave\n"
        "  Measure both models in turns: `edgepack bench MODEL DEVICE --against OTHER`.\n"
    )


def test_names_from_a_result_give_a_terminal_no_orders() -> None:
    one = make_measured()
    other = replace(
        make_measured(throttled=4),
        device=replace(one.device, kernel="6.6\x1b[31m"),
        model=replace(one.model, name="digits\x1b[2J"),
    )
    assert find_unlike(one, other) == (
        "kernel: 6.6.31+rpt-rpi-v8 and 6.6 [31m",
        "digits [2J was measured on a device that was throttled",
    )
    with pytest.raises(MeasureError) as caught:
        pair_measurements([other, other], [one])
    assert caught.value.message.endswith("several of digits [2J on pi@kitchen")


def test_results_with_and_without_xnnpack_are_never_compared(
    run: RunCommand, tmp_path: Path, measured: Measurement
) -> None:
    """The library for 32-bit Arm has none, and everything else may be alike."""
    with_it = quiet(measured, scale=1.0)
    engine = replace(with_it.engine, name="tensorflow-lite-c", version="2.17.1", runner="native")
    paths = []
    for is_there in (True, False):
        one = replace(with_it, engine=replace(engine, has_xnnpack=is_there))
        paths.append(tmp_path / f"{is_there}.json")
        paths[-1].write_bytes(write_measurement(one))
    one, other = (load_measurements(path)[0] for path in paths)
    assert find_unlike(one, one) == ()
    assert find_unlike(one, other) == ("XNNPACK in the runtime: True and False",)
    ran = run("compare", *paths)
    assert ran.code == 1
    assert "  - XNNPACK in the runtime: True and False\n" in ran.err


def test_two_models_are_measured_in_turns(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    stored = tmp_path / "both.json"
    command = ("bench", FLOAT_MODEL, "local:", "--against", FLOAT_MODEL, "--root", device_root)
    ran = run(*command, *QUICK, "-o", stored, "--json")
    assert ran.code == 0, ran.err
    body = ran.json()
    first, second = body["measurements"]
    assert len(first["launches"]) == len(second["launches"]) == body["contrast"]["num_launches"]
    assert body["contrast"]["in_turns"] is True
    assert len(load_measurements(stored)) == 2
    assert json.loads(stored.read_bytes()) == body["measurements"]
    refused = run("compare", stored, stored)
    assert refused.code == 1
    assert (
        "expected one measurement of each model on each device, but there are several of "
        f"{FLOAT_MODEL.name} on local:\n"
    ) in refused.err


def test_launches_that_no_comparison_can_be_of_are_refused_before_any_work(
    run: RunCommand, tmp_path: Path
) -> None:
    command = ("bench", FLOAT_MODEL, "nobody@nowhere.invalid", "--against", FLOAT_MODEL)
    ran = run(*command, "--launches", "3", "-o", tmp_path / "r.json")
    assert ran.code == 2
    assert ran.err == (
        "edgepack: --against: expected 6 launches of each or more, of which it can be told which "
        "is faster, not 3\n  Give --launches 10.\n"
    )
    target = built_in_profile()
    target = replace(target, benchmark=replace(target.benchmark, num_launches=5))
    bundle = write_digits_bundle(tmp_path / "d.edgepack", target=target)
    ran = run("bench", bundle.path, *command[2:])
    assert ran.code == 2
    assert "of which it can be told which is faster, not 5\n" in ran.err


def test_measurements_stand_where_nothing_can_be_said_of_them(
    run: RunCommand, tmp_path: Path
) -> None:
    """A slow device fits fewer launches into its time than a comparison needs."""
    wished = json.dumps({"max_seconds": 20.0})
    sha256 = load_model(FLOAT_MODEL).sha256
    journal, stored, report = (tmp_path / name for name in ("j.jsonl", "r.json", "r.html"))
    names = ("pi@quick", "pi@slow", "pi@third", "pi@fourth")
    with open_journal(
        journal, subject=f"bench {sha256} against {sha256} {wished}", resume=False
    ) as opened:
        for name in names:
            few = 5 if name == "pi@slow" else 6
            pair = [make_measured(device=name, num_launches=few, bundle=None)] * 2
            result = [to_json(each) for each in pair]
            opened.append(make_entry(name, State.DONE, num_tries=1, result=result))
    command = ("bench", FLOAT_MODEL, *names, "--against", FLOAT_MODEL, "--max-seconds", "20")
    options = ("--journal", journal, "--resume")
    ran = run(*command, *options, "-o", stored, "--report", report)
    assert ran.code == 1
    assert ran.err.splitlines()[-2:] == [
        (
            "pi@slow: it cannot be told which is faster: a comparison needs 6 launches of each, "
            "but there are 5"
        ),
        "  Measure with --launches 10; where fewer fit, with more --max-seconds.",
    ]
    assert [line.split(":")[0] for line in ran.out.splitlines() if " against " in line] == [
        f"digits against digits on {name}" for name in names if name != "pi@slow"
    ]
    assert len(load_measurements(stored)) == 8
    assert "pi@slow" in report.read_text()
    told, untold, *_ = run(*command, *options, "--json").json()
    assert (told["contrast"]["difference"], told["unavailable"]) == ("none", {})
    assert untold["contrast"] is None
    assert untold["unavailable"] == {
        "contrast": "a comparison needs 6 launches of each, but there are 5"
    }
    assert len(untold["measurements"]) == 2

    one = tmp_path / "one.json"
    one.write_text(json.dumps(json.loads(stored.read_text())[::2]))
    ran = run("compare", one, one)
    assert ran.code == 1
    assert len(ran.out.splitlines()) == 2 * 3
    assert ran.err == "pi@slow: a comparison needs 6 launches of each, but there are 5\n"
    bodies = run("compare", one, one, "--json").json()
    assert [each.get("difference") for each in bodies] == ["none", None, "none", "none"]
    assert bodies[1]["error"]["kind"] == "measure"


def test_a_precision_adds_launches_and_is_told(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    stored = tmp_path / "r.json"
    command = ("bench", FLOAT_MODEL, "local:", "--root", device_root, "--launches", "6")
    limits = ("--runs", "5", "--precision", "0.0001", "--max-seconds", "3")
    ran = run(*command, *limits, "-o", stored)
    assert ran.code == 0, ran.err
    (found,) = load_measurements(stored)
    assert found.plan.precision == 0.0001
    assert found.fitted_plan.num_launches == len(found.launches) >= 6
    assert "of the median; ±0.01% was asked for\n" in ran.out
    assert f" after {len(found.launches)} launches, not to the ±0.01%" in " ".join(
        found.validity.reasons
    )
    shown = run(*command, "--against", FLOAT_MODEL, "--runs", "5", "--precision", "100%")
    assert " against digits.tflite on this machine: " in shown.out
    assert "launches of each, in turns\n" in shown.out
    assert "  The speed-up is known to ±" in shown.out
    assert ", and ±100.00% was asked for.\n" in shown.out
    refused = run(*command, "--precision", "0")
    assert refused.code == 2


def test_a_sustained_load_is_a_plan_of_its_own(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    stored = tmp_path / "r.json"
    command = ("bench", FLOAT_MODEL, "local:", "--root", device_root, "--sustained")
    ran = run(*command, "2s", "-o", stored)
    assert ran.code == 0, ran.err
    (found,) = load_measurements(stored)
    assert len(found.launches) == 1
    assert found.plan.is_sustained
    assert json.loads(stored.read_bytes())["sustained"]["seconds"] > 0.5
    assert "x the first\n" in ran.out
    ran = run(*command, "2s", "--launches", "6", "--max-seconds", "9")
    assert ran.code == 2
    assert ran.err == (
        "edgepack: --sustained is a plan of its own, beside which --launches, --max-seconds says "
        "nothing\n  Leave that out.\n"
    )
    assert run(*command, "0").code == 2
    ran = run(*command, "2s", "--against", FLOAT_MODEL)
    assert ran.code == 2
    assert "--sustained makes one of each" in ran.err


def test_a_process_is_held_to_the_cores_that_are_asked_for(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    stored = tmp_path / "r.json"
    command = ("bench", FLOAT_MODEL, "local:", "--root", device_root, *QUICK, "--cpu-affinity")
    core = str(min(os.sched_getaffinity(0)))
    ran = run(*command, core, "-o", stored)
    assert ran.code == 0, ran.err
    (held,) = load_measurements(stored)
    assert held.plan.cpu_affinity == core
    free = replace(held, fitted_plan=replace(held.fitted_plan, cpu_affinity=None))
    assert f"cores it was held to: {core} and all" in find_unlike(held, free)
    ran = run(*command, "4095")
    assert ran.code == 1
    assert ran.err.splitlines()[-2].startswith(
        "edgepack: local: cannot hold a process to the cores 4095: taskset: "
    )
    ran = run(*command, "all")
    assert ran.code == 2
    assert "'all' is no list of cores such as 4-7 or 0,2." in ran.err
