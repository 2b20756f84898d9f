"""The options that say what a variant must keep, through the command line."""

from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.commands import DIGITS, FLOAT_MODEL, RunCommand

_PACK = ("pack", FLOAT_MODEL, "--target", "laptop-x86-64")
_SCORE = """
import numpy as np

def accuracy(outputs, labels):
    return np.mean(outputs.argmax(axis=1) == labels.argmax(axis=1))
"""


@pytest.fixture
def one_hot(tmp_path: Path) -> Path:
    """Give the digits with labels of a shape that only a metric of one's own understands."""
    with np.load(DIGITS) as arrays:
        labels = np.eye(10, dtype=np.float32)[arrays["labels"]]
        np.savez(tmp_path / "digits.npz", pixels=arrays["pixels"], labels=labels)
    return tmp_path / "digits.npz"


def test_a_metric_of_one_s_own(run: RunCommand, one_hot: Path) -> None:
    Path("score.py").write_text(_SCORE)
    ran = run(
        *(*_PACK, "--data", one_hot, "--metric", "score.py:accuracy", "--max-drop", "0.02"),
        *("--min-sqnr", "200", "--recipe", "int8", "--json"),
    )
    assert ran.code == 0, ran.err
    (variant,) = ran.json()["variants"]
    assert variant["within_budget"] is True  # the metric stands in place of SQNR
    metric = variant["fidelity"]["metric"]
    assert metric["name"] == "score.py:accuracy"
    assert metric["reference"] == pytest.approx(0.99, abs=0.01)
    low, high = metric["drop_ci95"]
    assert low <= metric["reference"] - metric["candidate"] <= high
    # A second run finds the variant kept, and asks the metric anew.
    Path("score.py").write_text(_SCORE.replace("np.mean(", "2 * np.mean("))
    again = run(
        *(*_PACK, "--data", one_hot, "--metric", "score.py:accuracy", "--max-drop", "0.02"),
        *("--recipe", "int8", "--json"),
    ).json()["variants"]
    assert again[0]["fidelity"]["metric"]["reference"] == pytest.approx(2 * metric["reference"])


def test_labels_make_accuracy_the_floor(run: RunCommand, tmp_path: Path) -> None:
    with np.load(DIGITS) as arrays:
        np.save(tmp_path / "pixels.npy", arrays["pixels"])
    pack = (*_PACK, "--recipe", "float32", "--prune", "30%", "--strict", "--json")
    labeled = run(*pack, "--data", DIGITS)
    assert labeled.code == 0, labeled.err
    unlabeled = run(*pack, "--data", tmp_path / "pixels.npy")
    assert unlabeled.code == 4
    # What is asked for is judged.
    asked = run(*pack, "--data", DIGITS, "--min-sqnr", "20")
    assert asked.code == 4
    for ran in (unlabeled, asked):
        ((reason,),) = (each["outside"] for each in ran.json()["variants"])
        assert reason.startswith("output 'output_0': SQNR ")
    worse = run(*_PACK, "--data", DIGITS, "--recipe", "float32", "--prune", "50%", "--json")
    ((reason,),) = (each["outside"] for each in worse.json()["variants"])
    assert reason.startswith("accuracy ")
    assert reason.endswith(", above 1")


def test_confident_asks_for_more_than_the_figure(run: RunCommand, tmp_path: Path) -> None:
    with np.load(DIGITS) as arrays:
        np.savez(tmp_path / "few.npz", pixels=arrays["pixels"][:40])
    pack = (*_PACK, "--data", tmp_path / "few.npz", "--recipe", "int8", "--json")
    assert run(*pack, "--strict").code == 0
    ran = run(*pack, "--strict", "--confident")
    assert ran.code == 4, ran.err
    (variant,) = ran.json()["variants"]
    assert [each.split(": ")[-1] for each in variant["outside"]] == [
        "with 20 samples it is not shown to reach 90%"
    ]
    # The float model has nothing to show.
    pack = (*_PACK, "--data", tmp_path / "few.npz", "--recipe", "float32", "--json")
    assert run(*pack, "--strict", "--confident").code == 0


def test_memory_can_be_the_objective(run: RunCommand) -> None:
    body = run(
        *(*_PACK, "--data", DIGITS, "--objective", "memory", "--json"),
        *("--recipe", "float16", "--recipe", "float32"),
    ).json()
    assert all(each["host_memory_bytes"] > 0 for each in body["variants"])
    assert " memory " in body["reason"]
    assert body["reason"].startswith((body["chosen"], "no difference in memory is shown on "))


def test_calibration_unlike_evaluation_is_warned_of(run: RunCommand, tmp_path: Path) -> None:
    with np.load(DIGITS) as arrays:
        np.savez(tmp_path / "eval.npz", pixels=255 * arrays["pixels"][:40])
    body = run(
        *(*_PACK, "--data", DIGITS, "--eval-data", tmp_path / "eval.npz"),
        *("--recipe", "int8", "--json"),
    ).json()
    assert [each for each in body["warnings"] if "is unlike in evaluation: 0 to 255 with" in each]
    (variant,) = body["variants"]
    assert "constant" in [each["kind"] for each in variant["findings"]]
    assert variant["within_budget"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--metric", "score.py", "--max-drop", "1"),
            "--metric: expected module:function or FILE.py:function",
        ),
        (
            ("--metric", "score.py:f1"),
            (
                "edgepack: --metric score.py:f1: expected --max-drop with it, as a metric's scale "
                "is not known\n  Say how much of it may be lost in its own points: --max-drop 0.01 "
                "lets 0.92 become 0.91.\n"
            ),
        ),
        (
            ("--metric", "score.py:f1", "--max-drop", "1%"),
            "--max-drop: expected a number in the metric's own points such as 0.01, not '1%'",
        ),
    ],
)
def test_slips_in_the_options(run: RunCommand, arguments: tuple[str, ...], message: str) -> None:
    ran = run(*_PACK, "--data", DIGITS, *arguments)
    assert ran.code == 2
    assert message in ran.err


def test_a_metric_that_is_not_there_or_has_nothing_to_judge(run: RunCommand) -> None:
    ran = run(*_PACK, "--data", DIGITS, "--metric", "absent.py:f1", "--max-drop", "1")
    assert ran.code == 1
    assert "absent.py:f1: calling it failed: FileNotFoundError" in ran.err
    Path("score.py").write_text(_SCORE)
    ran = run(*_PACK, "--metric", "score.py:accuracy", "--max-drop", "0.02")
    assert ran.code == 1
    assert "--metric score.py:accuracy: there are no samples to take it of" in ran.err
