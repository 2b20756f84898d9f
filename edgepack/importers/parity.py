"""Parity: does the converted model compute what its source computes."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edgepack import child as child_module
from edgepack import comparison as comparison_module
from edgepack import evaluate as evaluate_module
from edgepack import evaluate_worker
from edgepack import flatbuffer as flatbuffer_module
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.comparison import LIMIT_DB
from edgepack.data import Samples
from edgepack.errors import ConversionError, ModelError, ParityError
from edgepack.evaluate import Answers
from edgepack.fidelity import agreement as agreement_module
from edgepack.fidelity import compare as fidelity_module
from edgepack.importers import binding as binding_module
from edgepack.importers import figures as figures_module
from edgepack.importers import judgement as judgement_module
from edgepack.importers import limits as limits_module
from edgepack.importers import slices as slices_module
from edgepack.importers import trials as trials_module
from edgepack.importers import worker as worker_module
from edgepack.importers.binding import ImportedModel, input_hints, model_feeds, run_converted
from edgepack.importers.figures import find_constant, measure_outputs
from edgepack.importers.judgement import (
    OutputParity,
    describe_output,
    find_telling,
    find_telling_samples,
    judge_output,
)
from edgepack.importers.limits import are_bounded
from edgepack.importers.parity_record import Figures, read_figures, write_figures
from edgepack.importers.source import ImportOptions, SourceFormat
from edgepack.importers.trials import (
    MOST_SAMPLES,
    Trial,
    draw_trials,
    join_trials,
    move_inputs,
    spread,
)
from edgepack.importers.worker import SourceWorker, open_worker, run_source, runs_user_code

_RECORD: Final = "parity.json"
# Of these the source's own answer to inputs moved by their last bits is asked.
_NUM_MOVED: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """The parity check of an import.

    Attributes:
        outputs: one entry for each output, in the model's order; empty for a model that was
            not converted.
        num_samples: samples that were compared.
        generated: whether they were generated for want of real ones.
        minimum_db: what each output had to reach.
        reference: what ran the source.
        seeds: of the generated sets of samples, each judged by itself; empty for real ones.
    """

    outputs: tuple[OutputParity, ...]
    num_samples: int
    generated: bool
    minimum_db: float
    reference: str
    seeds: tuple[int, ...] = ()


class DifferenceError(ParityError):
    """A converted model differs from its source by more than a conversion may.

    Attributes:
        seed: of the generated samples on which it differs most; None for the user's.
        sample: place among those that were compared of the one on which it differs most.
    """

    def __init__(
        self, message: str, *, remedy: str, seed: int | None = None, sample: int = 0
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.seed = seed
        self.sample = sample


def check_parity(
    imported: ImportedModel,
    path: Path,
    *,
    samples: Samples | None,
    minimum_db: float = 60.0,
    options: ImportOptions,
    cache: Cache,
    on_progress: Callable[[str], None],
) -> ParityReport:
    """Run source and converted model on the same inputs and compare every output.

    At most 16 of the samples are used, evenly spread. Without any, sets of generated ones in
    several ranges are, each of its own seed: every set must pass by itself, and an output's
    worst figures are reported. Sets on which the source gives no finite numbers, or changes its
    own answer beyond comparison when its inputs move by their last bits, are left out while
    others remain.

    Raises:
        DifferenceError: an output is too far off; the message has all figures.
        DataError: the samples do not fit the model's inputs.
        ConversionError: the converted model does not run on them, or gives other shapes.
        ModelError: the source does not run on them.
        ToolchainError: the source's framework died or cannot be made.
    """
    source_format = imported.source.format
    if source_format is SourceFormat.TFLITE:
        return ParityReport(
            outputs=(), num_samples=0, generated=False, minimum_db=minimum_db, reference="itself"
        )
    specs = tuple(binding.source for binding in imported.inputs)
    trials = (
        (Trial(seed=None, samples=spread(samples, MOST_SAMPLES)),)
        if samples is not None
        else draw_trials(specs, input_hints(imported))
    )
    worker = open_worker(source_format, options=options, on_progress=on_progress)
    key = digest_parts(
        "parity",
        source=imported.source.sha256,
        model=imported.model.sha256,
        layouts=repr((imported.inputs, imported.outputs)),
        samples=" ".join(trial.samples.digest for trial in trials),
        options=options.key,
        worker=worker.digest,
        versions=worker.versions_text,
        engine=version("ai-edge-litert"),
        code=source_digest(
            binding_module,
            child_module,
            comparison_module,
            evaluate_module,
            evaluate_worker,
            agreement_module,
            fidelity_module,
            figures_module,
            flatbuffer_module,
            judgement_module,
            limits_module,
            slices_module,
            trials_module,
            worker_module,
            sys.modules[__name__],
        ),
    )
    # The user's own code is covered by no digest.
    is_kept = not runs_user_code(worker, source_format, options)
    folder = cache.load(key) if is_kept else None
    if folder is not None:
        figures = read_figures(folder / _RECORD)
    else:
        count = sum(trial.samples.num_samples for trial in trials)
        on_progress(f"comparing with {worker.title} on {count} samples")
        figures = _run_trials(imported, path, worker, trials, options)
        if is_kept:
            cache.store(key, {_RECORD: write_figures(figures)})
    return _judge(figures, path, reference=worker.title, minimum_db=minimum_db)


def _run_trials(
    imported: ImportedModel,
    path: Path,
    worker: SourceWorker,
    trials: Sequence[Trial],
    options: ImportOptions,
) -> Figures:
    # Samples that do not fit are refused before anything runs.
    feeds = [model_feeds(imported, trial.samples) for trial in trials]
    try:
        answers = _ask_source(imported, path, worker, trials, options)
    except ModelError:
        # Values of one range may lead a source out of what it can do; the first is the tamest.
        # A converted model that cannot do what its source can has no such excuse.
        if len(trials) == 1:
            raise
        trials, feeds = trials[:1], feeds[:1]
        answers = _ask_source(imported, path, worker, trials, options)
    results = run_converted(imported.model, [sample for each in feeds for sample in each])
    try:
        return _measure(imported, trials, answers, results)
    except ModelError as error:  # shapes that depend on values
        raise ConversionError(error.message, remedy=error.remedy) from error


def _ask_source(
    imported: ImportedModel,
    path: Path,
    worker: SourceWorker,
    trials: Sequence[Trial],
    options: ImportOptions,
) -> Answers:
    """Run the source on all sets at once, then on the moved ones: to start it takes seconds."""
    moved = [move_inputs(trial, _NUM_MOVED) for trial in trials]
    asked = join_trials([*(trial.samples for trial in trials), *(each for each in moved if each)])
    arrays = dict(asked.arrays)
    return run_source(
        worker,
        path,
        imported.source.format,
        options,
        inputs=[arrays[binding.source.name] for binding in imported.inputs],
        num_outputs=len(imported.outputs),
    )


def _measure(
    imported: ImportedModel, trials: Sequence[Trial], answers: Answers, results: Answers
) -> Figures:
    reference = [_carry(imported, sample) for sample in answers]
    names = tuple(spec.name for spec in imported.model.signature.outputs)
    scales = [float(bounded) for bounded in are_bounded(imported.model)]
    sets = []
    start, start_moved = 0, len(results)
    for trial in trials:
        end = start + trial.samples.num_samples
        again = move_inputs(trial, _NUM_MOVED)
        end_moved = start_moved + (again.num_samples if again else 0)
        figures = measure_outputs(
            reference[start:end],
            results[start:end],
            reference[start_moved:end_moved],
            names=names,
            scales=scales,
            zero_scale=trial.scale,
        )
        sets.append((trial.seed, end - start, figures))
        start, start_moved = end, end_moved
    constancy = find_constant(find_telling_samples(sets, reference), scales=scales)
    return Figures(sets=tuple(sets), constancy=constancy)


def _carry(imported: ImportedModel, sample: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    return tuple(
        array if binding.permutation is None else array.transpose(binding.permutation)
        for array, binding in zip(sample, imported.outputs, strict=True)
    )


def _judge(figures: Figures, path: Path, *, reference: str, minimum_db: float) -> ParityReport:
    sets = find_telling(figures.sets)
    judged = [
        judge_output(
            [(seed, outputs[index]) for seed, _, outputs in sets],
            constancy=constancy,
            minimum_db=minimum_db,
        )
        for index, constancy in enumerate(figures.constancy)
    ]
    num_samples = sum(count for _, count, _ in sets)
    seeds = tuple(seed for seed, _, _ in sets if seed is not None)
    missed = [(limit, output) for output, limit in judged if limit is not None]
    if missed:
        lines = [
            describe_output(output, missed=limit, minimum_db=minimum_db) for output, limit in judged
        ]
        limit_db, worst = min(missed, key=lambda entry: entry[0])
        kind = "generated samples" if seeds else "samples"
        # Nothing is left to accept where there is no number to compare.
        accept = (
            f", or accept the difference with `--allow-parity {math.floor(limit_db)}`, which is "
            "recorded"
            if limit_db > -LIMIT_DB
            else ""
        )
        data = "Fix"
        if seeds:
            data = f"Give real samples with --data,{'' if accept else ' or'} fix"
        raise DifferenceError(
            f"{path}: expected at least {minimum_db:g} dB between {reference} and the "
            f"converted model on every output, but on {num_samples} {kind} it has\n"
            + "\n".join(f"  {line}" for line in lines),
            remedy=f"{data} the source model{accept}.",
            seed=worst.seed,
            sample=worst.worst_sample,
        )
    return ParityReport(
        outputs=tuple(output for output, _ in judged),
        num_samples=num_samples,
        generated=bool(seeds),
        minimum_db=minimum_db,
        reference=reference,
        seeds=seeds,
    )
