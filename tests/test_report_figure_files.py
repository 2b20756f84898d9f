"""Figures as files of their own."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgepack.measure.record import write_measurement
from edgepack.report.figure_files import FigureFormat, list_figures, write_figure
from edgepack.report.measured import summarize_measurement
from edgepack.report.summary import BenchmarkSummary, DeployReport
from tests.fixtures.commands import RunCommand
from tests.fixtures.measured import make_measured

SVG = "{http://www.w3.org/2000/svg}"


def shown(*, device: str = "a", model: str | None = None) -> BenchmarkSummary:
    given = summarize_measurement(make_measured())
    return replace(given, device=device, model=model or given.model)


def test_each_figure_stands_alone() -> None:
    figures = list_figures(DeployReport(title="x", benchmarks=(shown(), shown(device="b"))))
    assert [name for name, _ in figures] == [
        "comparison",
        "1-digits-3f786850-raspberry-pi-4-distribution",
        "1-digits-3f786850-raspberry-pi-4-launches",
        "2-digits-3f786850-raspberry-pi-4-distribution",
        "2-digits-3f786850-raspberry-pi-4-launches",
    ]
    for _, plot in figures:
        data = write_figure(plot, FigureFormat.SVG)
        root = ET.fromstring(data)  # noqa: S314 - our own
        title, description, paper = list(root)[:3]
        assert (title.tag, title.text) == (f"{SVG}title", plot.caption)
        assert (description.tag, description.text) == (f"{SVG}desc", plot.description)
        assert paper.attrib["style"] == "fill:#ffffff"
        assert (paper.attrib["width"], paper.attrib["height"]) == (
            root.get("width"),
            root.get("height"),
        )
        assert b"var(" not in data
        assert len(list(root.iter(f"{SVG}text"))) > 5


def test_names_from_outside_stay_inside_the_folder() -> None:
    hostile = shown(model="../../etc/passwd\x00 \N{SNOWMAN}" + 99 * "long")
    nameless = shown(model="///")
    figures = list_figures(DeployReport(title="x", benchmarks=(hostile, nameless)))
    names = [name for name, _ in figures]
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,80}", name) for name in names)
    assert len(set(names)) == len(names)
    assert "2-model-launches" in names
    failed = BenchmarkSummary(device="x", model="y", error="gone")
    assert list_figures(DeployReport(title="x", benchmarks=(failed,))) == ()


def test_png_is_drawn_of_it() -> None:
    pytest.importorskip("resvg_py", reason="needs edgepack[png]")
    (_, plot), *_ = list_figures(DeployReport(title="x", benchmarks=(shown(),)))
    data = write_figure(plot, FigureFormat.PNG)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20]) == 1320


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "r.json"
    path.write_bytes(write_measurement(make_measured()))
    return path


def test_report_writes_them_beside_the_page(run: RunCommand, tmp_path: Path, stored: Path) -> None:
    folder = tmp_path / "figures"
    ran = run("report", stored, "-o", tmp_path / "r.html", "--figures", folder)
    assert ran.code == 0, ran.err
    assert ran.out == f"report: {tmp_path / 'r.html'}\nfigures: 2 in {folder}\n"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        *("1-digits-3f786850-raspberry-pi-4-distribution.svg",),
        *("1-digits-3f786850-raspberry-pi-4-launches.svg",),
    ]
    arguments = ("report", stored, "-o", tmp_path / "r.html", "--figures", folder, "--json")
    assert run(*arguments).json()["figures"] == [str(folder / name) for name in names]


def test_what_is_not_ours_is_not_replaced(run: RunCommand, tmp_path: Path, stored: Path) -> None:
    theirs = tmp_path / "1-digits-3f786850-raspberry-pi-4-launches.svg"
    theirs.write_text("my notes")
    ran = run("report", stored, "-o", tmp_path / "r.html", "--figures", tmp_path)
    assert ran.code == 1
    assert ran.err == (
        f"edgepack: {theirs}: expected a free name or an earlier output, but another file is "
        "there\n"
        "  Give another output path, or move that file away.\n"
    )
    assert theirs.read_text() == "my notes"
    assert list(tmp_path.glob("*.html")) == []
    assert list(tmp_path.glob("*.svg")) == [theirs]


def test_png_without_resvg_says_what_to_install(tmp_path: Path, stored: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "resvg_py").mkdir(parents=True)
    (hidden / "resvg_py" / "__init__.py").write_text("raise ImportError('no resvg here')")
    arguments = ("report", stored, "-o", tmp_path / "r.html", "--figures", tmp_path / "figures")
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", *map(str, arguments), "--format", "png"],
        env={**os.environ, "PYTHONPATH": f"{hidden}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "edgepack: PNG needs resvg, which is not installed\n"
        "  Run `pip install 'edgepack[png]'`, or take --format svg.\n"
    )
    assert not (tmp_path / "r.html").exists()
