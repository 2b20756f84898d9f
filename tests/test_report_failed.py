"""Devices that gave no measurement: a report of a run tells them too."""

import json
from pathlib import Path

from edgepack.measure.record import to_json
from edgepack.measure.results import Failure, StoredResults, load_results
from edgepack.report.matrix import cell_texts, make_matrix
from edgepack.report.outcome import summarize_results
from tests.fixtures.commands import RunCommand
from tests.fixtures.measured import make_measured
from tests.fixtures.report import HOSTILE

REASON = "pi@attic: no answer within 10 s"


def write_run(path: Path, *, error: object, recipe: str = "int8") -> Path:
    """Write the result of a run on two devices, of which one failed, as `bench -o` does."""
    measured = to_json(make_measured())
    model = measured["model"]
    assert isinstance(model, dict)
    model["recipe"] = recipe
    path.write_text(json.dumps([measured, {"device": "pi@attic", "error": error}]))
    return path


def test_the_page_names_them_first_with_the_reason(run: RunCommand, tmp_path: Path) -> None:
    error = {"kind": "connect", "message": REASON, "remedy": "Switch it on."}
    stored = write_run(tmp_path / "r.json", error=error)
    ran = run("report", stored, "-o", tmp_path / "r.html")
    assert ran.code == 0, ran.err
    assert ran.err == "warning: pi@attic was not measured: no answer within 10 s\n"
    page = (tmp_path / "r.html").read_text()
    said = "digits-3f786850-raspberry-pi-4 · int8 on pi@attic was not measured"
    assert page.index(said) < page.index(REASON) < page.index("Median latency")
    assert '<span class="badge fault">not measured</span>' in page
    body = run("report", stored, "-o", tmp_path / "r.html", "--json").json()
    assert body["failed"] == [{"device": "pi@attic", "error": REASON}]
    assert [each["device"] for each in body["measurements"]] == ["pi@kitchen"]


def test_the_matrix_has_a_cell_for_each(run: RunCommand, tmp_path: Path) -> None:
    files = [
        write_run(tmp_path / f"{recipe}.json", error={"message": REASON}, recipe=recipe)
        for recipe in ("float32", "int8")
    ]
    ran = run("report", *files, "-o", tmp_path / "r.html", "--figures", tmp_path / "figures")
    assert ran.code == 0, ran.err
    assert ran.err == "warning: pi@attic was not measured: no answer within 10 s\n"
    assert ran.out.count("not measured") == 2
    assert "Variants on devices: digits-3f786850-raspberry-pi-4\n" in ran.out
    page = (tmp_path / "r.html").read_text()
    assert "2 measurements on pi@attic failed" in page
    assert "2 failures and 2 measurements; each is shown in full below" in page
    assert (tmp_path / "figures" / "matrix.svg").read_text().count(">not measured<") == 2


def test_one_that_was_measured_before_keeps_its_row() -> None:
    first, again = make_measured(), make_measured(device="pi@attic")
    lost = (Failure(device="pi@attic", reason="lost"),)
    runs = (
        StoredResults(measured=(first, again), failed=()),
        StoredResults(measured=(make_measured(bundle=None),), failed=lost),
    )
    shown = [each for run in runs for each in summarize_results(run, model="x")]
    matrix = make_matrix(shown)
    assert matrix is not None
    board = "Raspberry Pi 4 Model B Rev 1.4"
    assert matrix.devices == (f"pi@kitchen ({board})", f"pi@attic ({board})")
    assert matrix.variants == ("digits-3f786850-raspberry-pi-4 · int8", "digits")
    assert cell_texts(matrix, 1, 1) == ("", "", "not measured", "")


def test_each_model_of_a_run_is_missing_where_it_failed() -> None:
    lost = (Failure(device="pi@attic", reason="gone"),)
    both = (make_measured(), make_measured(bundle=None))
    shown = summarize_results(StoredResults(measured=both, failed=lost), model="x")
    assert [(each.device, each.model, each.error) for each in shown[2:]] == [
        ("pi@attic", "digits-3f786850-raspberry-pi-4", "gone"),
        ("pi@attic", "digits", "gone"),
    ]
    (alone,) = summarize_results(StoredResults(measured=(), failed=lost), model="digits.tflite")
    assert (alone.model, alone.error) == ("digits.tflite", "gone")


def test_a_stored_error_of_another_kind_is_no_trap(run: RunCommand, tmp_path: Path) -> None:
    errors: tuple[object, ...] = (HOSTILE, None, {"message": 7}, [])
    items = [{"device": "pi@attic", "error": each} for each in errors]
    stored = tmp_path / "r.json"
    stored.write_text(json.dumps([to_json(make_measured()), *items]))
    reasons = [each.reason for each in load_results(stored).failed]
    assert reasons == [HOSTILE, *["the result does not say why"] * 3]
    ran = run("report", stored, "-o", tmp_path / "r.html")
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.err
    assert "<script>alert" not in (tmp_path / "r.html").read_text()
