from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.report.labels import plain, shorten
from edgepack.report.summary import BenchmarkSummary, DeployReport, Fact
from edgepack.report.terminal import (
    render_benchmark,
    render_facts,
    render_pack,
    render_pushes,
    render_report,
    render_text,
)
from tests.fixtures.report import (
    HOSTILE,
    benchmark,
    deploy_report,
    figures,
    launches,
    pack,
    search_pack,
)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_number_stands_whole_on_one_line(width: int) -> None:
    text = render_text(render_report(deploy_report()), width=width)
    for number in ("104 kB", "34.2 dB", "2.598–2.640", "1.244 ms", "86.6–90.8", "1.243–1.257 ms"):  # noqa: RUF001
        assert number in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_variants_table_at_80_columns() -> None:
    text = render_text(render_pack(pack()), width=80)
    assert re.search(
        r"^ dynamic_range +33\.3 kB +25\.5 kB +38\.9 dB +99\.8% +1\.902 ms  inside$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^ int8 .* chosen$", text, re.MULTILINE)
    assert re.search(r"^ int16x8( +—){5}  skipped$", text, re.MULTILINE)
    assert "int16x8: no kernel for int16 activations of op SOFTMAX in this runtime" in text
    assert "int8+prune0.5: SQNR of 'probabilities' is 11.8 dB, below the floor of 20 dB" in text


def test_of_many_candidates_only_the_best_have_rows() -> None:
    packed = search_pack()
    text = " ".join(render_text(render_pack(packed), width=200).split())
    # A long name breaks before its parts.
    assert packed.chosen == "int8-37+equalize+octav+bias+float3+kl"
    assert " int8-37+equalize 5.36 MB" in text
    assert " +octav+bias+float3 " in text
    assert "float32 18.6 MB 16.2 MB exact" in text
    assert "dynamic_range" not in text
    assert "below 20 dB" not in text
    assert re.search(
        r"\d+ other candidates: \d+ inside the floors but better in nothing, \d+ outside the "
        r"floors, 1 skipped \(the report and --json have them all\)",
        text,
    )
    assert f"chosen: {packed.chosen_reason}" in text
    assert "recipe: int8, equalized" in text


def test_few_candidates_have_a_row_each() -> None:
    text = render_text(render_pack(pack()))
    assert "other candidate" not in text


def test_long_reasons_wrap_below_themselves_without_spaces_at_the_ends() -> None:
    reason = "no cpufreq in /sys/devices/system/cpu: " + "stop other programs and try again, " * 5
    doubtful = replace(benchmark(), verdict="contended", reasons=(reason, "short"))
    text = render_text(render_report(replace(deploy_report(), benchmarks=(doubtful,))))
    lines = text.splitlines()
    assert all(len(line) <= 100 and line == line.rstrip() for line in lines)
    start = next(i for i, line in enumerate(lines) if line.startswith("  - no cpufreq"))
    assert lines[start + 1].startswith("    ")
    assert "  - short" in lines


def test_piped_text_has_no_escape_sequences() -> None:
    assert "\x1b" not in render_text(render_report(deploy_report()))


def test_escape_sequences_and_directions_of_a_device_are_not_obeyed() -> None:
    hostile = replace(
        benchmark(),
        device=HOSTILE,
        board=HOSTILE,
        model="[red]x[/red]",
        verdict=HOSTILE,
        reasons=(HOSTILE,),
    )
    text = render_text(render_benchmark(hostile))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]x[/red]" in text  # shown, not taken as markup


def test_few_launches_and_samples_give_reasons_instead_of_figures() -> None:
    series = launches(num_launches=2, num_runs=20)
    reasons = (
        ("median_ci95_ns", "needs 6 launches, but there are 2"),
        ("p99_ns", "needs 100 samples, but there are 40"),
    )
    few = replace(
        benchmark(), launches=series, latency=replace(figures(series), unavailable=reasons)
    )
    text = render_text(render_benchmark(few))
    assert "no interval: needs 6 launches, but there are 2" in text
    assert re.search(r"p99 +— +needs 100 samples, but there are 40", text)


def test_unknown_memory_is_not_zero() -> None:
    silent = tuple(replace(each, peak_memory_bytes=None) for each in launches())
    text = render_text(render_benchmark(replace(benchmark(), launches=silent)))
    assert re.search(r"peak memory +— +the device does not tell it", text)


def test_marked_launches_and_many_launches_are_told() -> None:
    series = launches(num_launches=30, num_runs=10)
    marked = (replace(series[0], marks=("slowed down",)), *series[1:])
    text = render_text(render_benchmark(replace(benchmark(), launches=marked)))
    assert re.search(r"launch medians: 1\.\d+ ms! ", text)
    assert "and 10 more" in text


def test_failed_benchmark_shows_its_reason() -> None:
    lost = BenchmarkSummary(device="pi@attic", model="digits", error="no answer within 10 s")
    assert "not measured: no answer within 10 s" in render_text(render_benchmark(lost))


def test_pushes_keep_runtime_apart() -> None:
    text = render_text(render_pushes(deploy_report().pushes))
    amounts = r"31\.8 kB +12\.3 kB zstd +0 B +38\.4 MB"
    assert re.search(rf"pi@kitchen +3f786850e387 +{amounts} +4\.82 s", text)
    assert max(map(len, text.splitlines())) <= 80


def test_facts() -> None:
    assert "Cortex-A72" in render_text(render_facts((Fact(name="CPU", value="Cortex-A72"),)))


def test_an_empty_report_renders() -> None:
    assert render_text(render_report(DeployReport(title="t"))) == "Nothing was measured\n"


@given(st.text(max_size=1200))
@settings(max_examples=300)
def test_plain_is_one_printable_line_of_bounded_length(text: str) -> None:
    shown = plain(text)
    assert len(shown) <= 800
    assert shown == " ".join(shown.split())
    assert all(char.isprintable() for char in shown)


@given(st.text(max_size=60), st.integers(1, 80))
def test_shorten_keeps_both_ends(text: str, longest: int) -> None:
    shown = shorten(text, longest)
    assert len(shown) <= longest
    if len(text) <= longest:
        assert shown == text
    elif longest >= 3:
        assert shown[0] == text[0]
        assert shown[-1] == text[-1]
