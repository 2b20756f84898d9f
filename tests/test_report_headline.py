from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgepack.report.headline import Level, Notice, Tile, write_headline
from edgepack.report.rows import golden_text
from edgepack.report.summary import BenchmarkSummary, DeployReport, GoldenRow
from tests.fixtures.report import benchmark, deploy_report, pack

if TYPE_CHECKING:
    from edgepack.report.summary import PackSummary


def tile(report: DeployReport, name: str) -> Tile | None:
    return next((e for e in write_headline(report).tiles if e.name == name), None)


def notices(report: DeployReport, level: Level) -> list[str]:
    return [each.text for each in write_headline(report).notices if each.level is level]


def with_intervals(
    chosen: tuple[float, float] | None, reference: tuple[float, float] | None
) -> PackSummary:
    ends = {"int8": chosen, "float32": reference}
    base = pack()
    rows = tuple(
        replace(row, median_ci95_ns=ends.get(row.recipe, row.median_ci95_ns))
        for row in base.variants
    )
    return replace(base, variants=rows)


def test_sentence_names_model_latency_and_device() -> None:
    assert write_headline(deploy_report()).sentence == (
        "digits-3f786850-raspberry-pi-4 · int8 takes 1.250 ms on "
        "pi@kitchen (Raspberry Pi 4 Model B Rev 1.4)"
    )


def test_tiles_hold_latency_speed_size_fidelity_and_memory() -> None:
    assert write_headline(deploy_report()).tiles == (
        Tile(name="Median latency", value="1.250 ms", detail="95%: 1.243–1.257 ms"),  # noqa: RUF001
        Tile(name="Speed against float", value="2.10× faster", detail="median on pi@kitchen"),  # noqa: RUF001
        Tile(name="Model size", value="34.5 kB", detail="33.1% of float's 104 kB"),
        Tile(name="Fidelity", value="34.2 dB", detail="99.6% of answers agree with float"),
        Tile(name="Peak memory", value="18.4 MiB", detail="of the measuring process"),
    )


def test_a_valid_measurement_of_a_bundle_needs_no_notice() -> None:
    assert write_headline(deploy_report()).notices == ()


def test_no_speed_is_claimed_while_intervals_overlap() -> None:
    summary = with_intervals((1_200_000, 2_600_000), (2_500_000, 2_700_000))
    shown = tile(DeployReport(title="t", pack=summary), "Speed against float")
    assert shown is not None
    assert shown.value == "no difference"
    assert shown.detail == "intervals overlap on pi@kitchen"


def test_a_ratio_without_intervals_says_so() -> None:
    shown = tile(DeployReport(title="t", pack=with_intervals(None, None)), "Speed against float")
    assert shown is not None
    assert shown.detail == "median on pi@kitchen, no interval"


def test_a_slower_variant_is_called_slower() -> None:
    base = pack()
    rows = tuple(
        replace(row, median_ns=5_224_000, median_ci95_ns=(5_200_000, 5_300_000))
        if row.recipe == "int8"
        else row
        for row in base.variants
    )
    report = DeployReport(title="t", pack=replace(base, variants=rows))
    shown = tile(report, "Speed against float")
    assert shown is not None
    assert shown.value == "2.00× slower"  # noqa: RUF001 - the sign of multiplication


def test_accuracy_replaces_fidelity_when_there_are_labels() -> None:
    base = pack()
    rows = tuple(
        replace(row, accuracy=0.971, accuracy_ci95=(0.958, 0.98)) if row.recipe == "int8" else row
        for row in base.variants
    )
    report = DeployReport(title="t", pack=replace(base, variants=rows, reference_accuracy=0.975))
    assert tile(report, "Accuracy") == Tile(
        name="Accuracy",
        value="97.1%",
        detail="95.8–98.0%, float 97.5%",  # noqa: RUF001 - a range
    )


def test_throttled_is_a_warning_with_its_reasons() -> None:
    doubtful = replace(benchmark(), verdict="throttled", reasons=("the clock fell by 40%",))
    assert write_headline(DeployReport(title="t", benchmarks=(doubtful,))).notices == (
        Notice(
            level=Level.WARNING,
            text="The measurement of digits-3f786850-raspberry-pi-4 · int8 on pi@kitchen is "
            "throttled: the device slowed itself down while it was measured",
            details=("the clock fell by 40%",),
        ),
    )


def test_without_a_measurement_on_the_target_the_page_says_so() -> None:
    summary = replace(pack(), measured_on=None, latency_on="this machine")
    report = DeployReport(title="t", pack=summary)
    assert write_headline(report).sentence == (
        "digits.keras · int8 packed for raspberry-pi-4, not measured there"
    )
    assert notices(report, Level.WARNING) == [
        (
            "Not measured on the target: the profile's order decided, not latency; "
            "the latency among the variants is of this machine and no evidence"
        )
    ]
    assert tile(report, "Median latency") == Tile(
        name="Median latency", value="not measured", detail="on the target"
    )
    assert tile(report, "Speed against float") is None


def test_a_choice_by_size_or_of_one_recipe_needs_no_latency() -> None:
    by_size = replace(pack(), measured_on=None, latency_on=None, objective="size")
    assert notices(DeployReport(title="t", pack=by_size), Level.WARNING) == [
        "Not measured on the target"
    ]
    measured = DeployReport(title="t", pack=by_size, benchmarks=(benchmark(),))
    assert write_headline(measured).notices == ()


def test_a_measured_variant_that_the_profile_chose_is_no_warning() -> None:
    by_order = replace(pack(), measured_on=None, latency_on=None)
    report = DeployReport(title="t", pack=by_order, benchmarks=(benchmark(),))
    assert notices(report, Level.WARNING) == []
    assert notices(report, Level.NOTE) == [
        "Latency did not decide between the variants: the profile's order did"
    ]


def test_answers_that_were_not_checked_are_said() -> None:
    unchecked = replace(benchmark(recipe=None), golden=None)
    report = DeployReport(title="t", benchmarks=(unchecked,))
    assert notices(report, Level.NOTE) == [
        (
            "The answers of mobilenet.tflite on pi@kitchen were not checked: "
            "there was nothing to compare them with"
        )
    ]
    assert [each.name for each in write_headline(report).tiles] == ["Median latency", "Peak memory"]


def test_a_bare_model_that_answers_as_the_host_does_is_checked() -> None:
    bare = benchmark(recipe=None)
    golden = GoldenRow(
        passed=True, max_abs_error=0.0, sqnr_to_host_db=300.0, sqnr_to_float_db=300.0
    )
    report = DeployReport(title="t", benchmarks=(replace(bare, golden=golden),))
    assert notices(report, Level.NOTE) == []
    assert golden_text(report.benchmarks[0]) == ("passed", "exact to the host, max abs error 0")


def test_without_a_measurement_of_its_own_the_trial_leads() -> None:
    headline = write_headline(DeployReport(title="t", pack=pack()))
    assert headline.sentence == "digits.keras · int8 takes 1.244 ms on pi@kitchen"
    assert (headline.tiles[0].value, headline.tiles[0].detail) == (
        "1.244 ms",
        "95%: 1.238–1.252 ms",  # noqa: RUF001 - a range
    )


def test_float_chosen_and_one_variant_are_said() -> None:
    base = pack(chosen="float32")
    assert notices(DeployReport(title="t", pack=base), Level.NOTE) == [
        "The float model was chosen: no other was shown to be better within the floors"
    ]
    assert notices(
        DeployReport(title="t", pack=replace(base, variants=base.variants[:1])), Level.NOTE
    ) == ["One variant only: there was nothing to compare it with"]


def test_a_chosen_variant_outside_the_floors_is_a_fault() -> None:
    report = DeployReport(title="t", pack=pack(chosen="int8+prune0.5"))
    assert notices(report, Level.FAULT) == ["int8+prune0.5 is outside the accuracy floors"]


def test_failed_devices_come_first_and_do_not_lead() -> None:
    lost = BenchmarkSummary(device="pi@attic", model="digits", error="no answer within 10 s")
    noisy = replace(benchmark(), verdict="noisy", reasons=())
    report = DeployReport(title="t", benchmarks=(lost, noisy))
    shown = write_headline(report)
    assert [each.level for each in shown.notices] == [Level.FAULT, Level.WARNING]
    assert shown.notices[0].text == "digits on pi@attic was not measured"
    assert "pi@kitchen" in shown.sentence


def test_leading_figure_of_another_recipe_is_said() -> None:
    report = DeployReport(title="t", pack=pack(), benchmarks=(benchmark(recipe="float16"),))
    assert notices(report, Level.WARNING) == [
        "The latency shown first is of float16, not of the chosen int8"
    ]


def test_nothing_measured() -> None:
    assert write_headline(DeployReport(title="t")).sentence == "Nothing was measured"
