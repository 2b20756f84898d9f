from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from edgepack.report.figures import plot_comparison, plot_distribution, plot_launches
from tests.fixtures.report import benchmark, figures, launches


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314 - our own figure
    return [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_distribution_marks_quantiles_and_is_told_in_words() -> None:
    plot = plot_distribution(benchmark())
    assert plot is not None
    shown = texts(plot.svg)
    assert "p50 1.25 ms" in shown
    assert "p90 1.27 ms" in shown
    assert "latency, ms" in shown
    assert plot.description == (
        "Cumulative distribution of 2,400 runs in 10 launches: median 1.250 ms, "
        "95% interval 1.243–1.257 ms, from 1.23 ms to 1.59 ms."  # noqa: RUF001 - a range
    )


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = plot_launches(benchmark()), plot_launches(benchmark())
    assert first is not None
    assert first == second


def test_plots_hold_nothing_that_could_meet_another_or_run() -> None:
    for plot in (plot_distribution(benchmark()), plot_launches(benchmark())):
        assert plot is not None
        root = ET.fromstring(plot.svg)  # noqa: S314 - our own figure
        names = {name for element in root.iter() for name in element.attrib}
        assert not {name for name in names if name in {"id", "class"} or name.endswith("href")}
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "path", "rect", "circle", "text"}


def test_plots_take_their_colors_from_the_page() -> None:
    plot = plot_launches(benchmark())
    assert plot is not None
    assert "var(--accent)" in plot.svg
    colors = set(re.findall(r"(?:fill|stroke):([^;\"]+)", plot.svg))
    assert all(color == "none" or color.startswith("var(--") for color in colors)


def test_stray_runs_do_not_squeeze_the_axis_and_are_counted() -> None:
    series = launches()
    stray = (replace(series[0], samples_ns=(*series[0].samples_ns, 90_000_000)), *series[1:])
    plot = plot_distribution(replace(benchmark(), launches=stray, latency=figures(stray)))
    assert plot is not None
    assert plot.caption.endswith("1 run lies beyond the axis.")
    assert "90.0 ms" in plot.description


@pytest.mark.parametrize("count", [1, 2, 60])
def test_any_number_of_launches_and_equal_samples_can_be_drawn(count: int) -> None:
    series = tuple(
        replace(e, samples_ns=(1000,) * 3) for e in launches(num_launches=count, num_runs=3)
    )
    one = replace(benchmark(), launches=series, latency=figures(series))
    assert plot_distribution(one) is not None
    plot = plot_launches(one)
    assert plot is not None
    assert ("The first 40 of 60 launches are shown" in plot.caption) == (count == 60)


def test_doubtful_launches_are_told() -> None:
    series = launches()
    marked = (replace(series[0], marks=("drift",)), *series[1:])
    plot = plot_launches(replace(benchmark(), launches=marked))
    assert plot is not None
    assert plot.description.endswith("1 launch is marked as doubtful.")


def test_nothing_to_plot_is_no_plot() -> None:
    assert plot_distribution(replace(benchmark(), latency=None, launches=())) is None
    assert plot_comparison([benchmark()]) is None


def test_measurements_of_unlike_speed_share_an_axis() -> None:
    slow = benchmark(center_ns=80_000_000, device="zero")
    plot = plot_comparison([benchmark(), slow])
    assert plot is not None
    assert {"1. pi@kitchen", "2. zero"} <= set(texts(plot.svg))
    assert "int8 on zero: median 80" in plot.description


def test_runtimes_without_xnnpack_are_compared_among_themselves_only() -> None:
    old = replace(benchmark(device="old"), lacks_xnnpack=True)
    mixed = [benchmark(), old, benchmark(device="desk")]
    plot = plot_comparison(mixed)
    assert plot is not None
    shown = set(texts(plot.svg))
    assert {"1. pi@kitchen", "3. desk"} <= shown  # numbered as in the table
    assert "2. old" not in shown
    assert plot_comparison(mixed, without_xnnpack=True) is None
    alike = plot_comparison([*mixed, replace(old, device="older")], without_xnnpack=True)
    assert alike is not None
    assert {"2. old", "4. older"} <= set(texts(alike.svg))
    assert alike.caption.endswith(" These runtimes have no XNNPACK.")


def test_the_tail_beyond_the_axis_is_not_drawn() -> None:
    series = launches()
    stray = (replace(series[0], samples_ns=(*series[0].samples_ns, 90_000_000)), *series[1:])
    plot = plot_distribution(replace(benchmark(), launches=stray, latency=figures(stray)))
    assert plot is not None
    xs = [float(x) for x in re.findall(r"[ML]([-\d.]+) ", plot.svg)]
    assert min(xs) >= 0
    assert max(xs) <= 440


def test_medians_of_zero_can_be_compared() -> None:
    latency = benchmark().latency
    assert latency is not None
    zero = replace(benchmark(), latency=replace(latency, median_ns=0.0, median_ci95_ns=None))
    plot = plot_comparison([benchmark(), zero])
    assert plot is not None
    assert "nan" not in plot.svg
