"""The task's own figure: what the user's metric says of a variant beside the float model.

Its interval is the jackknife's (`edgepack.shares`) over at most 20 parts of the samples, so that a
metric of any cost is called 21 times for each model: with all samples, then with each part left
out. Every twentieth sample makes a part; of a stream, whose neighbors are alike, each twentieth of
its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.data.metric import Batch, Metric, join_batch, take_samples
from edgepack.errors import DataError
from edgepack.fidelity import MetricFidelity
from edgepack.shares import jackknife_interval

_NUM_PARTS: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """A metric with what it judges by.

    Attributes:
        metric: the user's function.
        truth: labels, or inputs where there are none; the first axis counts the samples.
        output_names: of the model's outputs, in order.
        is_stream: whether neighboring samples depend on each other.
    """

    metric: Metric
    truth: Batch
    output_names: tuple[str, ...]
    is_stream: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a metric says of one model.

    Attributes:
        value: of all samples; None when it is no finite number.
        parts: with each part of the samples left out; empty when that cannot be told of one.
    """

    value: float | None
    parts: tuple[float, ...] = ()


def score_answers(task: Task, answers: Sequence[Sequence[NDArray[Any]]]) -> Score:
    """Ask a metric of a model's answers, one tuple of outputs a sample.

    Raises:
        DataError: the metric raises on all samples, or gives no number.
    """
    outputs = join_batch(task.output_names, answers)
    everything = np.arange(len(answers))
    value = _ask(task, outputs, everything)
    if value is None:
        return Score(value=None)
    parts: list[float] = []
    for part in _parts(task, len(answers)):
        try:
            without = _ask(task, outputs, np.setdiff1d(everything, part))
        # It works on all samples: so it cannot be taken of fewer, as an area under a curve
        # cannot without either class. Then there is no interval.
        except DataError:
            return Score(value=value)
        if without is None:
            return Score(value=value)
        parts.append(without)
    return Score(value=value, parts=tuple(parts))


def score_reference(task: Task, answers: Sequence[Sequence[NDArray[Any]]]) -> Score:
    """Ask a metric of the float model's answers.

    Raises:
        DataError: as `score_answers`, and when it is no finite number: nothing can be compared
            with that.
    """
    score = score_answers(task, answers)
    if score.value is None:
        raise DataError(
            f"{task.metric.source}: expected a finite number of the float model's outputs, but got "
            "none",
            remedy="Mend the function, or give samples of which it can be told.",
        )
    return score


def compare_scores(task: Task, reference: Score, candidate: Score) -> MetricFidelity:
    """Give both models' figures and the interval of what was lost."""
    if reference.value is None or candidate.value is None:
        return MetricFidelity(
            name=task.metric.source, reference=reference.value or 0.0, candidate=None
        )
    interval = None
    if len(reference.parts) == len(candidate.parts):
        interval = jackknife_interval(
            reference.value - candidate.value,
            [ours - theirs for ours, theirs in zip(reference.parts, candidate.parts, strict=True)],
        )
    return MetricFidelity(
        name=task.metric.source,
        reference=reference.value,
        candidate=candidate.value,
        drop_ci95=interval,
    )


def judge_task(
    task: Task, reference: Score, answers: Sequence[Sequence[NDArray[Any]]]
) -> MetricFidelity:
    """Ask a metric of a candidate's answers beside the float model's score.

    Answers that hold NaN, of which a metric may well raise, have no value.

    Raises:
        DataError: as `score_answers`.
    """
    try:
        candidate = score_answers(task, answers)
    except DataError:
        if all(np.isfinite(array).all() for sample in answers for array in sample):
            raise
        candidate = Score(value=None)
    return compare_scores(task, reference, candidate)


def _ask(task: Task, outputs: Batch, indexes: NDArray[np.intp]) -> float | None:
    return task.metric.value(take_samples(outputs, indexes), take_samples(task.truth, indexes))


def _parts(task: Task, num_samples: int) -> list[NDArray[np.intp]]:
    count = min(num_samples, _NUM_PARTS)
    if count < 2:  # noqa: PLR2004 - nothing is left when the only part is left out
        return []
    indexes = np.arange(num_samples)
    if task.is_stream:
        return list(np.array_split(indexes, count))
    return [indexes[start::count] for start in range(count)]


def truth_of(labels: NDArray[Any] | None, inputs: Sequence[tuple[str, NDArray[Any]]]) -> Batch:
    """Give what a metric judges by: labels, or the inputs without the model's batch axis of 1."""
    if labels is not None:
        return labels
    arrays = {
        name: array[:, 0] if array.ndim > 1 and array.shape[1] == 1 else array
        for name, array in inputs
    }
    return arrays if len(arrays) > 1 else arrays[inputs[0][0]]
