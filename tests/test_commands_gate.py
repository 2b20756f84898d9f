"""Stored results held to limits."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgepack.bundle.archive import Bundle
from edgepack.measure.record import Measurement, write_measurement
from tests.fixtures.bundle import FIDELITY, write_digits_bundle
from tests.fixtures.commands import RunCommand
from tests.fixtures.measured import make_measured

QUICKER_NS, SAME_NS = (900_000, 910_000) * 20, (1_000_000, 1_010_000) * 20
SLOWER_NS = (1_100_000, 1_110_000) * 20


def store(path: Path, *measurements: Measurement) -> Path:
    path.write_bytes(b"[%s]" % b",".join(write_measurement(each) for each in measurements))
    return path


def of_recipe(
    recipe: str, *, name: str = "digits", samples_ns: tuple[int, ...] = SAME_NS
) -> Measurement:
    measured = make_measured(samples_ns=samples_ns)
    return replace(measured, model=replace(measured.model, name=name, recipe=recipe))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_digits_bundle(
        tmp_path / "d.edgepack", fidelity=replace(FIDELITY, drop_points=1.25)
    )


def test_limits_that_are_kept_pass(run: RunCommand, tmp_path: Path) -> None:
    result = store(tmp_path / "r.json", make_measured())
    ran = run("gate", result, "--p95-ms", "2", "--peak-memory-mib", "50")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "digits (int8) on pi@kitchen\n"
        "  passed: p95 latency 1.01 ms is within the limit of 2 ms\n"
        "  passed: peak memory 47.68 MiB is within the limit of 50 MiB\n"
    )


def test_limits_that_are_exceeded_fail_on_each_device(run: RunCommand, tmp_path: Path) -> None:
    result = store(
        tmp_path / "r.json",
        make_measured(device="pi@attic", samples_ns=QUICKER_NS),
        make_measured(samples_ns=SLOWER_NS),
    )
    ran = run("gate", result, "--p95-ms", "1")
    assert ran.code == 4
    assert ran.out == (
        "digits (int8) on pi@attic\n"
        "  passed: p95 latency 0.91 ms is within the limit of 1 ms\n"
        "digits (int8) on pi@kitchen\n"
        "  failed: p95 latency 1.11 ms exceeds the limit of 1 ms\n"
    )


def test_a_figure_a_hair_above_its_limit_is_told_from_it(run: RunCommand, tmp_path: Path) -> None:
    result = store(tmp_path / "r.json", make_measured(samples_ns=[1_000_000_001] * 64))
    ran = run("gate", result, "--p95-ms", "1000")
    assert ran.code == 4
    assert "failed: p95 latency 1000.000001 ms exceeds the limit of 1000 ms\n" in ran.out


def test_a_throttled_device_fails_no_latency_but_passes_none_above_the_limit(
    run: RunCommand, tmp_path: Path
) -> None:
    result = store(tmp_path / "r.json", make_measured(throttled=4))
    ran = run("gate", result, "--p95-ms", "1")
    assert ran.code == 4
    assert ran.out.endswith(
        "unknown: p95 latency 1.01 ms exceeds the limit of 1 ms, but the device was throttled: "
        "let it be and measure again\n"
    )
    assert run("gate", result, "--p95-ms", "1", "--accept-unknown").code == 0
    assert run("gate", result, "--p95-ms", "2").code == 0


def test_what_a_bundle_alone_knows(run: RunCommand, tmp_path: Path, bundle: Bundle) -> None:
    result = store(tmp_path / "r.json", make_measured(bundle=bundle.sha256))
    limits = ("--bundle-mib", "1", "--accuracy-drop", "1")
    ran = run("gate", result, *limits)
    assert ran.code == 4
    assert ran.out.splitlines()[1:] == [
        "  unknown: bundle size cannot be judged: there is no bundle",
        "  unknown: accuracy drop cannot be judged: there is no bundle",
    ]
    ran = run("gate", result, *limits, "--bundle", bundle.path)
    assert ran.code == 4
    size, drop = ran.out.splitlines()[1:]
    assert size.startswith("  passed: bundle size 0.")
    assert drop == "  failed: accuracy drop 1.25 points exceeds the limit of 1 points"


def test_another_bundle_is_refused(run: RunCommand, tmp_path: Path, bundle: Bundle) -> None:
    result = store(tmp_path / "r.json", make_measured())
    ran = run("gate", result, "--bundle-mib", "1", "--bundle", bundle.path)
    assert ran.code == 2
    assert ran.err == (
        f"edgepack: {bundle.path}: expected the bundle that was measured, but digits on "
        "pi@kitchen was of another one\n"
        "  Measure this bundle: `edgepack bench BUNDLE DEVICE -o RESULT`.\n"
    )


@pytest.mark.parametrize(
    ("samples_ns", "limit", "text"),
    [
        (SLOWER_NS, "5%", "failed: 1.10x slower (95%: 1.09 to 1.11) than the baseline; {limit}"),
        (SLOWER_NS, "0.2", "passed: 1.10x slower (95%: 1.09 to 1.11) than the baseline"),
        (SAME_NS, "5%", "passed: no difference shown (1.000x, 95%: 0.990 to 1.010)"),
        (QUICKER_NS, "0", "passed: 1.11x faster (95%: 1.10 to 1.12) than the baseline"),
    ],
)
def test_a_result_is_held_to_an_earlier_one(
    run: RunCommand, tmp_path: Path, samples_ns: tuple[int, ...], limit: str, text: str
) -> None:
    result = store(tmp_path / "r.json", make_measured(samples_ns=samples_ns))
    baseline = store(
        tmp_path / "b.json", make_measured(device="pi@attic"), make_measured(samples_ns=SAME_NS)
    )
    ran = run("gate", result, "--baseline", baseline, "--slowdown", limit)
    shown = text.format(limit="the limit is 1.05x")
    assert ran.out == f"digits (int8) on pi@kitchen\n  {shown}\n"
    assert ran.code == (4 if text.startswith("failed") else 0)


def test_each_model_of_a_device_is_held_to_its_own_earlier_result(
    run: RunCommand, tmp_path: Path
) -> None:
    """As `bench --against` writes them: the slower one of a pair hides no slowdown."""
    before = store(
        tmp_path / "b.json", of_recipe("float32", samples_ns=SLOWER_NS), of_recipe("int8")
    )
    after = store(
        tmp_path / "r.json",
        of_recipe("float32", samples_ns=SLOWER_NS),
        of_recipe("int8", samples_ns=SLOWER_NS),
    )
    ran = run("gate", after, "--baseline", before, "--slowdown", "5%")
    assert ran.code == 4
    kept, exceeded = ran.out.splitlines()[1::2]
    assert kept.startswith("  passed: no difference shown (1.000x")
    assert exceeded == (
        "  failed: 1.10x slower (95%: 1.09 to 1.11) than the baseline; the limit is 1.05x"
    )


@pytest.mark.parametrize(
    ("baseline", "reason"),
    [
        (
            [make_measured(device="a"), make_measured(device="b")],
            "there is no baseline of this device",
        ),
        ([make_measured(device="a")], "there is no baseline of this device"),
        (
            [of_recipe("float32"), of_recipe("int16x8")],
            "there is no baseline of this model, only of digits (float32), digits (int16x8)",
        ),
        (
            [of_recipe("int8", name="faces")],
            "there is no baseline of this model, only of faces (int8)",
        ),
        (
            [make_measured(), make_measured()],
            "there are several baselines of this model, and nothing says which one is meant",
        ),
        (
            [make_measured(throttled=4)],
            (
                "the baseline was measured under other conditions: digits was measured on a "
                "device that was throttled"
            ),
        ),
        (
            [make_measured(num_launches=3)],
            "a comparison needs 6 launches of each, but there are 3",
        ),
    ],
)
def test_a_baseline_that_tells_nothing_is_no_pass(
    run: RunCommand, tmp_path: Path, baseline: list[Measurement], reason: str
) -> None:
    result = store(tmp_path / "r.json", make_measured())
    stored = store(tmp_path / "b.json", *baseline)
    ran = run("gate", result, "--baseline", stored, "--slowdown", "5%")
    assert ran.code == 4
    assert ran.out.splitlines()[1] == f"  unknown: slowdown cannot be judged: {reason}"


def test_a_device_that_was_not_measured_is_no_pass(run: RunCommand, tmp_path: Path) -> None:
    result = tmp_path / "r.json"
    failed = b'{"device": "pi@cellar", "error": {"kind": "connect"}}'
    result.write_bytes(b"[%s, %s]" % (write_measurement(make_measured()), failed))
    ran = run("gate", result, "--p95-ms", "2")
    assert ran.code == 4
    assert ran.out.endswith("nothing on pi@cellar\n  unknown: the device could not be measured\n")


def test_limits_come_from_a_file_and_options_go_before_it(run: RunCommand, tmp_path: Path) -> None:
    result = store(tmp_path / "r.json", make_measured())
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\np95_ms = 0.5\npeak_memory_mib = 100\n")
    assert run("gate", result, "--limits", limits).code == 4
    assert run("gate", result, "--limits", limits, "--p95-ms", "2").code == 0
    limits.write_text("[limits]\np95_ms = 'fast'\npeak_mib = 100\n")
    ran = run("gate", result, "--limits", limits)
    assert ran.code == 2
    assert ran.err == (
        f"edgepack: {limits}: 2 faults\n"
        "  - limits.p95_ms: expected a number, not a text ('fast')\n"
        "  - limits.peak_mib: unknown key; did you mean 'peak_memory_mib'?\n"
        "  Write it as the [limits] of a profile; docs/gating.md has an example.\n"
    )


@pytest.mark.parametrize(
    ("limit", "end"),
    [
        ("3%", "failed: 1.09x slower (95%: 1.04 to 1.14) than the baseline; the limit is 1.03x"),
        (
            "10%",
            (
                "unknown: slowdown cannot be judged: 1.09x slower (95%: 1.04 to 1.14) than the "
                "baseline, which may be beyond the limit of 1.1x; it takes more launches, on a "
                "quieter device"
            ),
        ),
        ("20%", "passed: 1.09x slower (95%: 1.04 to 1.14) than the baseline"),
    ],
)
def test_a_slowdown_that_may_well_be_beyond_the_limit_is_no_pass(
    run: RunCommand, tmp_path: Path, limit: str, end: str
) -> None:
    scales = (1.04, 1.06, 1.08, 1.1, 1.12, 1.14)
    result = store(tmp_path / "r.json", make_measured(scales=scales))
    baseline = store(tmp_path / "b.json", make_measured())
    ran = run("gate", result, "--baseline", baseline, "--slowdown", limit)
    assert ran.out == f"digits (int8) on pi@kitchen\n  {end}\n"
    assert ran.code == (0 if end.startswith("passed") else 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected a limit to hold the results to, but there is none\n"),
        (("--slowdown", "5%"), "--slowdown: expected --baseline with it, the earlier result "),
        (("--p95-ms", "1", "--json", "--markdown"), "--json and --markdown both print the result"),
    ],
)
def test_a_gate_that_cannot_judge_is_refused(
    run: RunCommand, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    ran = run("gate", store(tmp_path / "r.json", make_measured()), *options)
    assert ran.code == 2
    assert ran.err.startswith(f"edgepack: {message}")


def test_other_programs_read_the_checks(run: RunCommand, tmp_path: Path) -> None:
    hostile = "pi@<b>|x\x1b[31m`"
    result = store(tmp_path / "r.json", make_measured(device=hostile, throttled=4))
    junit = tmp_path / "gate.xml"
    options = ("--p95-ms", "1", "--peak-memory-mib", "1", "--junit", junit)
    ran = run("gate", result, *options, "--markdown")
    assert ran.code == 4
    name = r"digits (int8) | pi@\<b\>\|x�\[31m\`"
    late = "p95 latency 1.01 ms exceeds the limit of 1 ms, but the device was throttled: let it be"
    assert ran.out.splitlines()[2:] == [
        f"| ❔ unknown | {name} | {late} and measure again |",
        f"| ❌ failed | {name} | peak memory 47.68 MiB exceeds the limit of 1 MiB |",
    ]
    (suite,) = ET.parse(junit).getroot()  # noqa: S314 - we wrote it
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    error, failure = (case[0] for case in suite)
    assert (error.tag, failure.tag) == ("error", "failure")
    assert failure.get("message") == "peak memory 47.68 MiB exceeds the limit of 1 MiB"
    (each,) = run("gate", result, *options, "--json").json()
    assert [check["verdict"] for check in each["checks"]] == ["unknown", "failed"]
    junit.write_text("mine")
    assert run("gate", result, *options).code == 1
    assert junit.read_text() == "mine"
