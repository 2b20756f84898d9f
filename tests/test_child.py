"""A child process is bounded as a worker is, and says at which limit it was stopped."""

import shutil
from pathlib import Path

import pytest

from edgepack.child import ChildExit, run_child, write_arrays
from edgepack.errors import ModelError
from edgepack.evaluate import run_model
from tests.fixtures.models import FOLDER, make_feeds, small_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a model and feeds for the child that runs it."""
    path = tmp_path / "working"
    path.mkdir()
    shutil.copy(FOLDER / "cnn.tflite", path / "model.tflite")
    write_arrays(path / "feeds", make_feeds(small_model("cnn"), num_samples=1)[0])
    return path


def test_a_child_answers_and_leaves_its_outputs(folder: Path) -> None:
    ended = run_child("edgepack.evaluate_worker", ["1"], folder=folder, timeout_seconds=60)
    assert (ended.answer, ended.exit_code, ended.limit) == ({"ok": {}}, 0, None)
    assert (folder / "outputs").stat().st_size > 0


def test_a_child_that_takes_too_long_is_stopped(folder: Path) -> None:
    ended = run_child("edgepack.evaluate_worker", ["1"], folder=folder, timeout_seconds=0.01)
    assert (ended.answer, ended.exit_code, ended.limit) == (None, None, "0.01 s")
    assert ended.cause == "stopped at its limit of 0.01 s"


def test_the_limit_is_in_the_error() -> None:
    model = small_model("cnn")
    with pytest.raises(ModelError) as caught:
        run_model(model, make_feeds(model, num_samples=1), timeout_seconds=0.01)
    assert caught.value.message == (
        "expected the model to run within 0.01 s on this machine, but it did not"
    )


def test_a_working_directory_that_is_gone_does_not_matter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ended = run_child("edgepack.evaluate_worker", ["1"], folder=folder, timeout_seconds=60)
    assert ended.answer == {"ok": {}}


def test_of_a_traceback_only_the_error_is_told() -> None:
    log = (
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n'
        "    work()\n"
        "numpy.linalg.LinAlgError: Singular matrix\n"
    )
    ended = ChildExit(answer=None, exit_code=1, log=log)
    assert ended.last_words == "numpy.linalg.LinAlgError: Singular matrix"


def test_without_a_traceback_the_last_lines_are_told() -> None:
    log = "\n".join(f"line {number}" for number in range(9)) + "\n\n"
    ended = ChildExit(answer=None, exit_code=-11, log=log)
    assert ended.last_words == "line 4\nline 5\nline 6\nline 7\nline 8"
    assert not ChildExit(answer=None, exit_code=-9, log="").last_words
