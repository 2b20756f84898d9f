"""What variants of one model are compared on, and how one fares there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import ModelError, OptimizeError
from edgepack.evaluate import (
    Answers,
    Feeds,
    RunModel,
    dequantize_array,
    quantize_array,
    run_model,
)
from edgepack.fidelity import Fidelity, compare_outputs
from edgepack.model import Model, TensorSpec
from edgepack.optimize.judging.task import Score, Task, judge_task, score_reference
from edgepack.optimize.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvaluationSet:
    """What variants of one model are compared on.

    Attributes:
        feeds: inputs of the float model, one tuple a sample.
        reference: the float model's outputs on them.
        labels: (num_samples,) class ids, or None.
        digest: of the feeds and labels.
        task: the user's own metric and what it judges by; None without one.
        reference_score: what that metric says of the float model.
    """

    feeds: Feeds
    reference: Answers
    labels: NDArray[np.int64] | None
    digest: str
    task: Task | None = None
    reference_score: Score | None = None


def make_evaluation(
    model: Model,
    feeds: Feeds,
    *,
    labels: NDArray[np.int64] | None = None,
    task: Task | None = None,
    run: RunModel = run_model,
) -> EvaluationSet:
    """Run the float model on feeds and keep its outputs as the reference.

    Args:
        model: the float model.
        feeds: its inputs, one tuple a sample.
        labels: (num_samples,) class ids.
        task: the user's own metric.
        run: how the model is run.

    Raises:
        DataError: feeds that do not fit, or a metric that says nothing of the float model.
        ModelError: the model cannot be run.
    """
    reference = run(model, feeds)
    return EvaluationSet(
        feeds=feeds,
        reference=reference,
        labels=labels,
        digest=digest_feeds(feeds, labels=labels),
        task=task,
        reference_score=None if task is None else score_reference(task, reference),
    )


def digest_feeds(feeds: Feeds, *, labels: NDArray[np.int64] | None = None) -> str:
    """Give the hex digest of feeds and labels: element types, shapes and values, in order."""
    digest = hashlib.sha256(f"{len(feeds)}".encode())
    for array in (
        *(array for feed in feeds for array in feed),
        *(() if labels is None else (labels,)),
    ):
        digest.update(repr((str(array.dtype), array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def answer_candidate(candidate: Model, recipe: Recipe, evaluation: EvaluationSet) -> Answers:
    """Run a candidate on the evaluation set and give its outputs in real numbers.

    Raises:
        OptimizeError: it cannot run on this machine.
    """
    inputs, outputs = candidate.signature.inputs, candidate.signature.outputs
    feeds = [_convert(quantize_array, feed, inputs) for feed in evaluation.feeds]
    try:
        results = run_model(candidate, feeds)
    except ModelError as error:
        raise OptimizeError(
            f"recipe {recipe.name!r}: its result cannot run on this machine: {error.message}",
            remedy="Choose another recipe.",
        ) from error
    return tuple(_convert(dequantize_array, result, outputs) for result in results)


def compare_answers(answers: Answers, candidate: Model, evaluation: EvaluationSet) -> Fidelity:
    """Compare a candidate's answers with the float reference's, apart from the user's metric.

    Raises:
        DataError: labels that do not fit the outputs.
    """
    return compare_outputs(
        evaluation.reference,
        answers,
        names=tuple(spec.name for spec in candidate.signature.outputs),
        labels=evaluation.labels,
    )


def with_task(fidelity: Fidelity, answers: Answers, evaluation: EvaluationSet) -> Fidelity:
    """Add what the user's metric says of a candidate's answers; nothing without a metric.

    It is asked each time: what the function does may rest on other files than its own.

    Raises:
        DataError: it raises, or gives no number.
    """
    if evaluation.task is None or evaluation.reference_score is None:
        return fidelity
    metric = judge_task(evaluation.task, evaluation.reference_score, answers)
    return replace(fidelity, metric=metric)


def evaluate_candidate(candidate: Model, recipe: Recipe, evaluation: EvaluationSet) -> Fidelity:
    """Run a candidate on the evaluation set and compare it with the float reference.

    Raises:
        OptimizeError: it cannot run on this machine.
        DataError: labels that do not fit the outputs, or a metric that fails.
    """
    answers = answer_candidate(candidate, recipe, evaluation)
    return with_task(compare_answers(answers, candidate, evaluation), answers, evaluation)


def _convert(
    change: Any,  # noqa: ANN401 - quantize_array or dequantize_array
    arrays: Sequence[NDArray[Any]],
    specs: Sequence[TensorSpec],
) -> tuple[NDArray[Any], ...]:
    return tuple(change(array, spec) for array, spec in zip(arrays, specs, strict=True))
