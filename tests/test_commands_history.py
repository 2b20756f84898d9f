"""What was measured earlier, as the user meets it."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from edgepack.measure.history import COLUMNS, History, history_path
from edgepack.measure.record import Measurement
from edgepack.measure.results import load_measurements
from edgepack.report.trend import change_text, plot_trend, series
from tests.fixtures.commands import FLOAT_MODEL, QUICK, RunCommand
from tests.fixtures.measured import make_measured

SLOWER_NS = (1_100_000, 1_110_000) * 20


@pytest.fixture
def kept() -> None:
    """Keep four results of two devices."""
    with History(history_path()) as opened:
        opened.add(make_measured(samples_ns=SLOWER_NS))
        opened.add(make_measured(device="pi@<b>attic", throttled=4))
        opened.add(make_measured(samples_ns=SLOWER_NS))
        opened.add(make_measured())


def test_without_a_measurement_there_is_none(run: RunCommand) -> None:
    ran = run("history")
    assert ran.code == 1
    assert ran.err == (
        f"edgepack: {history_path()}: there is no history yet\n"
        "  `edgepack bench` and `edgepack deploy` begin it with their first result.\n"
    )


def test_what_bench_measures_is_kept_and_serves_again(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    stored, taken = tmp_path / "r.json", tmp_path / "again.json"
    ran = run("bench", FLOAT_MODEL, "local:", "--root", device_root, *QUICK, "-o", stored)
    assert ran.code == 0, ran.err
    (line,) = run("history").out.splitlines()[1:]
    assert line.split()[0] == "1"
    assert "this machine" in line
    assert "digits.tflite" in line
    assert run("history", "--result", "1", "-o", taken).code == 0
    assert load_measurements(taken) == load_measurements(stored)


@pytest.mark.usefixtures("kept")
def test_results_are_listed_with_the_changes_that_are_shown(run: RunCommand) -> None:
    ran = run("history")
    head, *lines = ran.out.splitlines()
    assert head.split() == [
        *("result", "time", "(UTC)", "device", "model", "median", "95%", "change", "verdict"),
    ]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert ["-9.0%" in line for line in lines] == [False, False, False, True]
    assert "throttled" in lines[1]
    assert [each["id"] for each in run("history", "--device", "pi@kitchen", "--json").json()] == [
        *(1, 3, 4),
    ]
    assert len(run("history", "--limit", "1").out.splitlines()) == 2
    assert run("history", "--model", "other").err == "no result matches\n"


@pytest.mark.usefixtures("kept")
def test_other_programs_read_the_exports(run: RunCommand, tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        assert run("history", "--export", tmp_path / f"h.{ending}").code == 0
    with (tmp_path / "h.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "h.parquet").to_pylist()
    assert lines == table == run("history", "--json").json()
    assert list(rows[0]) == list(COLUMNS)
    assert [row["device"] for row in rows] == [line["device"] for line in lines]
    assert [int(row["median_ns"]) for row in rows] == [line["median_ns"] for line in lines]
    ran = run("history", "--export", tmp_path / "h.xlsx")
    assert ran.code == 2
    assert ran.err == (
        f"edgepack: {tmp_path / 'h.xlsx'}: expected a name that ends with .csv, .jsonl, .parquet\n"
        "  Choose a format by the name of the file.\n"
    )


@pytest.mark.usefixtures("kept")
def test_the_page_shows_a_trend_for_each_device(run: RunCommand, tmp_path: Path) -> None:
    page = tmp_path / "h.html"
    assert run("history", "--report", page).code == 0
    text = page.read_text()
    assert "<h1>4 results on 2 devices</h1>" in text
    assert "digits (int8) on pi@&lt;b&gt;attic" in text
    assert "<b>" not in text
    assert text.count("<figure>") == 1  # one result is no trend
    assert 'aria-label="3 results from 2026-11-22 to 2026-11-22: first 1.10 ms' in text


def test_a_change_is_told_only_where_the_intervals_do_not_meet() -> None:
    with History(history_path()) as opened:
        for samples_ns in ((1_000_000, 1_010_000) * 20, SLOWER_NS, SLOWER_NS):
            opened.add(make_measured(samples_ns=samples_ns))
        opened.add(make_measured(num_launches=2))
        first, slower, same, few = opened.entries()
    assert change_text(None, first) == ""
    assert change_text(first, slower) == "+10.0%"
    assert change_text(slower, same) == ""
    assert change_text(same, few) == ""
    assert plot_trend([first]) is None


def held_to(cores: str | None, *, median_ns: int, kernel: str | None = None) -> Measurement:
    """Give a result of some cores of the board."""
    given = make_measured(samples_ns=(median_ns, median_ns + 1000) * 20)
    return replace(
        given,
        device=replace(given.device, kernel=kernel or given.device.kernel),
        fitted_plan=replace(given.fitted_plan, cpu_affinity=cores),
    )


def test_unlike_conditions_are_no_change_and_no_line(run: RunCommand, tmp_path: Path) -> None:
    big, little = held_to("4-7", median_ns=1_000_000), held_to("0-3", median_ns=2_800_000)
    slower = held_to("4-7", median_ns=1_200_000)
    with History(history_path()) as opened:
        for each in (big, little, slower):
            opened.add(each)
    lines = run("history").out.splitlines()[1:]
    assert [line.count("digits (int8) · cores 4-7") for line in lines] == [1, 0, 1]
    assert "digits (int8) · cores 0-3" in lines[1]
    assert ["%" in line for line in lines] == [False, False, True]
    assert "+20.0%" in lines[2]
    page = tmp_path / "h.html"
    assert run("history", "--report", page).code == 0
    text = page.read_text()
    assert text.count("<figure>") == 1
    assert 'aria-label="2 results from' in text
    assert "<h2>digits (int8) · cores 0-3 on pi@kitchen</h2>" in text


def test_what_is_not_told_joins_and_what_was_not_kept_stands_alone() -> None:
    first = held_to(None, median_ns=1_000_000)
    silent = replace(first, before=replace(first.before, governor=None))
    other = held_to(None, median_ns=1_000_000, kernel="6.12.1")
    with History(history_path()) as opened:
        for each in (first, silent, other, first):
            opened.add(each)
        entries = opened.entries()
    shown = {each.model: [entry.id for entry in each.entries] for each in series(entries)}
    assert shown == {
        "digits (int8) · kernel 6.6.31+rpt-rpi-v8": [1, 2, 4],
        "digits (int8) · kernel 6.12.1": [3],
    }
    with History(history_path()) as opened:
        plan = replace(first.fitted_plan, is_sustained=True, warmup_seconds=1.0)
        opened.add(replace(first, fitted_plan=plan))
        *_, long = opened.entries()
    assert [each.model for each in series([entries[0], long])] == [
        *("digits (int8)", "digits (int8) · sustained"),
    ]
    old = replace(entries[0], conditions=None)
    shown = {each.model: [entry.id for entry in each.entries] for each in series([old, *entries])}
    assert shown["digits (int8) · conditions not kept"] == [1]
    (alone,) = series([old, replace(old, id=5)])
    assert (alone.model, len(alone.entries)) == ("digits (int8)", 2)


def test_a_history_that_cannot_be_written_costs_no_measurement(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    history_path().parent.mkdir(parents=True)
    history_path().write_bytes(b"my own notes " * 100)
    stored = tmp_path / "r.json"
    ran = run("bench", FLOAT_MODEL, "local:", "--root", device_root, *QUICK, "-o", stored)
    assert ran.code == 0
    assert f"warning: the result is not in the history: {history_path()}: " in ran.err
    assert len(load_measurements(stored)) == 1


@pytest.mark.usefixtures("kept")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "pyarrow").mkdir(parents=True)
    (hidden / "pyarrow" / "__init__.py").write_text("raise ImportError('no pyarrow here')")
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", "history", "--export", str(tmp_path / "h.parquet")],
        env={**os.environ, "PYTHONPATH": str(hidden)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "edgepack: Parquet needs pyarrow, which is not installed\n"
        "  Run `pip install 'edgepack[parquet]'`, or export .csv or .jsonl.\n"
    )
