"""The user's own metric: how it is named, called, and what its faults are told as."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.data.metric import Metric, join_batch
from edgepack.data.own_code import names_function
from edgepack.errors import DataError
from edgepack.optimize.judging.task import (
    Task,
    judge_task,
    score_answers,
    score_reference,
    truth_of,
)

CODE = """
import numpy as np
import beside

def accuracy(outputs, labels):
    print("to standard error")
    return np.mean(outputs.argmax(-1) == labels)

def two(outputs, inputs):
    return float(outputs["a"].sum() + outputs["b"].sum() + inputs.sum())

def broken(outputs, labels):
    return labels["no"]

def text(outputs, labels):
    return "good"

def several(outputs, labels):
    return [1.0, 2.0]

def nothing(outputs, labels):
    return float("nan")

def strict(outputs, labels):
    if len(outputs) < 8 or not np.isfinite(outputs).all():
        raise ValueError("needs all eight")
    outputs += 1.0
    return beside.ONE
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "score.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("ONE = 1.0\n")
    return tmp_path


def task(folder: Path, name: str, labels: list[int] | None = None) -> Task:
    return Task(
        metric=Metric(source=f"score.py:{name}", folder=folder),
        truth=np.array(labels if labels is not None else [0, 1] * 4),
        output_names=("y",),
    )


def answers(picks: list[int]) -> list[tuple[np.ndarray]]:
    return [(np.eye(2, dtype=np.float32)[None, each],) for each in picks]


def test_names_of_functions() -> None:
    assert names_function("score.py:f1")
    assert names_function("package.score:f1")
    assert names_function("/some/where/score.py:f1")
    assert not names_function("score.py")
    assert not names_function("score:f1()")


def test_outputs_and_labels_come_as_arrays_of_all_samples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = task(folder, "accuracy")
    reference = score_reference(given, answers([0, 1] * 4))
    assert reference.value == 1.0
    assert len(reference.parts) == 8
    judged = judge_task(given, reference, answers([0, 1] * 3 + [0, 0]))
    assert (judged.name, judged.reference, judged.candidate) == ("score.py:accuracy", 1.0, 0.875)
    low, high = judged.drop_ci95 or (0.0, 0.0)
    assert low < 0.125 < high
    assert capsys.readouterr().out == ""  # standard output is for results


def test_several_outputs_come_by_name_and_inputs_stand_in_for_labels(folder: Path) -> None:
    pixels = np.ones((3, 1, 4), np.float32)
    several = Task(
        metric=Metric(source="score.py:two", folder=folder),
        truth=truth_of(None, [("x", pixels)]),
        output_names=("a", "b"),
    )
    assert isinstance(several.truth, np.ndarray)
    assert several.truth.shape == (3, 4)
    samples = [(np.ones((1, 2)), np.ones((5,))) for _ in range(3)]
    assert score_answers(several, samples).value == 6 + 15 + 12


def test_a_metric_that_cannot_be_taken_of_fewer_has_no_interval(folder: Path) -> None:
    given = task(folder, "strict")
    sound = answers([0, 1] * 4)
    reference = score_reference(given, sound)
    judged = judge_task(given, reference, sound)
    assert (judged.candidate, judged.drop_ci95) == (1.0, None)
    # What the function does to its arrays stays its own matter.
    assert sound[0][0].max() == 1.0
    broken = [(np.full_like(each[0], np.nan),) for each in sound]
    assert judge_task(given, reference, broken).candidate is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "score.py:absent: calling it failed: AttributeError: "),
        ("broken", "score.py:broken: calling it failed: IndexError: "),
        ("text", "score.py:text: expected it to return one number, but got str 'good'"),
        ("several", "score.py:several: expected it to return one number, but got an array of "),
        ("nothing", "score.py:nothing: expected a finite number of the float model's outputs"),
    ],
)
def test_faults_are_explained(folder: Path, name: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        score_reference(task(folder, name), answers([0, 1] * 4))
    assert caught.value.message.startswith(message)


def test_the_line_of_the_user_s_own_fault_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"score\.py, line 13\)"):
        score_reference(task(folder, "broken"), answers([0, 1] * 4))


def test_outputs_of_varying_shape_make_no_array() -> None:
    with pytest.raises(DataError, match="those of 'y' vary from sample to sample"):
        join_batch(("y",), [(np.ones((1, 2)),), (np.ones((1, 3)),)])
