"""Variants on devices."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from edgepack.measure.record import write_measurement
from edgepack.report.distinction import tell_apart
from edgepack.report.figures import plot_comparison
from edgepack.report.html import render_page
from edgepack.report.matrix import cell_texts, make_matrix, matrix_section, plot_matrix
from edgepack.report.measured import summarize_measurement
from edgepack.report.summary import BenchmarkSummary, DeployReport, Fact
from edgepack.report.terminal import render_matrix, render_text
from tests.fixtures.commands import RunCommand
from tests.fixtures.measured import make_measured


def measured(
    device: str, recipe: str, median_ns: int, *, verdict: str = "valid", has_interval: bool = True
) -> BenchmarkSummary:
    given = summarize_measurement(make_measured(device=device))
    assert given.latency is not None
    ends = (median_ns * 0.99, median_ns * 1.02) if has_interval else None
    figures = replace(given.latency, median_ns=median_ns, median_ci95_ns=ends)
    return replace(given, board="", recipe=recipe, latency=figures, verdict=verdict)


FLEET = (
    measured("pi@a", "float32", 21_000_000),
    measured("pi@a", "int8", 8_100_000, verdict="throttled"),
    measured("pi@b", "int8", 9_900_000),
    measured("pi@b", "int8", 3_050_000, has_interval=False),
    BenchmarkSummary(
        device="pi@c", model=measured("x", "x", 1).model, recipe="float32", error="it was lost"
    ),
)


def test_each_pair_has_its_latency_its_interval_and_its_verdict() -> None:
    matrix = make_matrix(FLEET)
    assert matrix is not None
    assert matrix.devices == ("pi@a", "pi@b", "pi@c")
    name = "digits-3f786850-raspberry-pi-4"
    assert matrix.variants == (f"{name} · float32", f"{name} · int8")
    assert [[cell_texts(matrix, row, column) for column in (0, 1)] for row in (0, 1, 2)] == [
        [
            ("21.00 ms", "20.79–21.42 ms", "valid", ""),  # noqa: RUF001 - a range
            ("8.10 ms", "8.02–8.26 ms", "throttled", ""),  # noqa: RUF001
        ],
        [("—", "", "", ""), ("3.05 ms", "no interval", "valid", "the last of 2")],
        [("", "", "not measured", ""), ("—", "", "", "")],
    ]


def test_one_device_or_one_variant_is_a_list_and_no_matrix() -> None:
    assert make_matrix(FLEET[:2]) is None
    assert make_matrix((FLEET[1], FLEET[2])) is None
    assert make_matrix(()) is None
    assert matrix_section(FLEET[:2]) == ""
    assert render_matrix(FLEET[:2]) is None


def test_a_runtime_without_xnnpack_makes_another_variant() -> None:
    without = replace(measured("pi@b", "int8", 9_000_000), lacks_xnnpack=True)
    matrix = make_matrix((FLEET[1], without))
    assert matrix is not None
    assert matrix.variants[1] == f"{matrix.variants[0]}, without XNNPACK"


def in_threads(device: str, num_threads: int, *, board: str = "Pi 4") -> BenchmarkSummary:
    given = make_measured(device=device)
    return summarize_measurement(
        replace(
            given,
            device=replace(given.device, board=board, kernel=f"of {device}"),
            engine=replace(given.engine, num_threads=num_threads),
        )
    )


def test_unlike_conditions_make_other_variants() -> None:
    given = [in_threads(device, each) for device in ("pi@a", "pi@b") for each in (1, 4)]
    lost = BenchmarkSummary(
        device="pi@c", model=given[0].model, recipe="int8", likeness=given[0].likeness, error="gone"
    )
    told = tell_apart([*given, lost])
    matrix = make_matrix(told)
    assert matrix is not None
    name = "digits-3f786850-raspberry-pi-4 · int8"
    assert matrix.variants == (f"{name} · 1 thread", f"{name} · 4 threads")
    assert [[len(cells) for cells in row] for row in matrix.cells] == [[1, 1], [1, 1], [1, 0]]
    plot = plot_matrix(matrix)
    assert plot is not None
    assert (">1 thread<" in plot.svg, ">int8<" in plot.svg) == (True, False)
    page = render_page(DeployReport(title="t", benchmarks=told))
    assert f"2. {name} · 4 threads" in page
    assert f"<h2>{name} · 4 threads on pi@a</h2>" in page
    compared = plot_comparison(told)
    assert compared is not None
    assert f"{name} · 4 threads on pi@b: median" in compared.description


def test_what_a_device_is_makes_no_variant_of_another() -> None:
    first, second = in_threads("pi@a", 1), in_threads("pi@b", 1, board="Pi 5")
    assert [each.distinction for each in tell_apart([first, second])] == [(), ()]
    # Nor does the number of its cores, where all of them are taken.
    wide = [
        replace(
            each,
            likeness=tuple(
                Fact(name=fact.name, value=cores if fact.name in {"threads", "cores"} else "x")
                for fact in each.likeness
            ),
        )
        for each, cores in ((first, "4"), (second, "8"))
    ]
    assert [each.distinction for each in tell_apart(wide)] == [(), ()]
    hot = tuple(
        Fact(name=fact.name, value="powersave" if fact.name == "governor" else fact.value)
        for fact in first.likeness
    )
    told = tell_apart([first, replace(first, likeness=hot), second])
    assert [each.distinction for each in told] == [
        *(("governor ondemand",), ("governor powersave",), ("governor ondemand",)),
    ]


def test_a_sustained_load_is_another_variant_and_its_warm_up_goes_without_saying() -> None:
    usual = measured("pi@a", "int8", 10**6)
    given = {fact.name: fact.value for fact in usual.likeness}
    long = given | {"sustained load": "yes", "warm-up seconds": "1.0"}
    short = given | {"warm-up seconds": "0.0"}

    def told(*tables: dict[str, str]) -> list[tuple[str, ...]]:
        shown = tell_apart(
            [
                replace(usual, likeness=tuple(Fact(name=key, value=each[key]) for key in each))
                for each in tables
            ]
        )
        return [each.distinction for each in shown]

    assert told(given, long) == [(), ("sustained",)]
    assert told(given, short) == [("0.5 s of warm-up",), ("0.0 s of warm-up",)]


def test_the_figure_shades_the_slow_and_marks_the_doubtful() -> None:
    matrix = make_matrix(FLEET)
    assert matrix is not None
    plot = plot_matrix(matrix)
    assert plot is not None
    root = ET.fromstring(plot.svg)  # noqa: S314 - our own
    shades = [
        float(each.attrib["style"].rpartition("opacity:")[2])
        for each in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert (max(shades), min(shades)) == (0.42, 0.08)
    assert shades[0] == max(shades)
    assert plot.svg.count("fill:var(--warn)") == 1
    assert plot.caption.endswith("A diamond marks a doubtful measurement.")
    assert plot.description == (
        "Median latency of 2 variants on 3 devices; "
        "on pi@a: digits-3f786850-raspberry-pi-4 · float32 21.00 ms, "
        "digits-3f786850-raspberry-pi-4 · int8 8.10 ms (throttled); "
        "on pi@b: digits-3f786850-raspberry-pi-4 · int8 3.05 ms; "
        "on pi@c: digits-3f786850-raspberry-pi-4 · float32 not measured."
    )
    # What all names begin with says nothing of a column.
    assert ">float32<" in plot.svg
    assert "raspberry" not in plot.svg


def test_a_large_fleet_has_a_table_alone() -> None:
    wide = [measured(device, f"recipe {each}", 10**6) for device in ("a", "b") for each in range(6)]
    matrix = make_matrix(wide)
    assert matrix is not None
    assert plot_matrix(matrix) is None
    page = matrix_section(wide)
    assert "<svg" not in page
    assert page.count('<td class="number">') == 12


def test_equal_latencies_and_none_at_all_are_drawn() -> None:
    for benchmarks in (
        [measured(device, recipe, 10**6) for device in "ab" for recipe in "xy"],
        [
            BenchmarkSummary(device=device, model=model, error="lost")
            for device in "ab"
            for model in "xy"
        ],
    ):
        matrix = make_matrix(benchmarks)
        assert matrix is not None
        assert plot_matrix(matrix) is not None


def test_names_from_outside_stay_texts() -> None:
    evil = "x';}</style><script>alert(1)</script>\"'\x1b[31m"
    benchmarks = [
        replace(measured(device, recipe, 10**6), model=evil)
        for device in (evil, "b")
        for recipe in ("c", "d", "e")
    ]
    page = render_page(DeployReport(title="t", benchmarks=tuple(benchmarks)))
    part = page[page.index("Variants on devices") : page.index("<h2>Measurements")]
    assert "<script" not in part
    assert "\x1b" not in part
    assert "--c1" not in part  # such names have no place in a style


def test_the_terminal_has_it_too(run: RunCommand, tmp_path: Path) -> None:
    said = render_matrix(FLEET)
    assert said is not None
    lines = [line.split() for line in render_text(said).splitlines()]
    assert ["pi@a", "21.00", "ms", "8.10", "ms"] in lines
    assert ["valid", "throttled"] in lines
    assert ["the", "last", "of", "2"] in lines
    assert ["pi@c", "not", "measured", "—"] in lines

    paths = []
    for device in ("pi@a", "pi@b"):
        for recipe in ("float32", "int8"):
            given = make_measured(device=device)
            path = tmp_path / f"{device}-{recipe}.json"
            model = replace(given.model, recipe=recipe)
            path.write_bytes(write_measurement(replace(given, model=model)))
            paths.append(path)
    folder = tmp_path / "figures"
    ran = run("report", *paths, "-o", tmp_path / "r.html", "--figures", folder)
    assert ran.code == 0, ran.err
    assert ran.out.count("0.995") + ran.out.count("1.00 ms") >= 4
    assert "Variants on devices" in (tmp_path / "r.html").read_text()
    assert (folder / "matrix.svg").exists()
