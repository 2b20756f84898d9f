"""What variants are built from and judged by: the imported model, its data and its parity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bundle.manifest import Parity, ParityRecord
from edgepack.cache import Cache
from edgepack.contract import ContractPlan
from edgepack.contract.describe import describe_contract
from edgepack.contract.record import IOContract
from edgepack.contract.samples import (
    check_raw,
    generate_raw,
    raw_images,
    raw_specs,
    shaped_feeds,
    stated_images,
)
from edgepack.data import (
    Samples,
    halve_samples,
    load_samples,
    split_samples,
)
from edgepack.errors import DataError
from edgepack.evaluate import Feeds, RunModel
from edgepack.importers import (
    Attempt,
    ImportedModel,
    ParityReport,
)
from edgepack.model import Model, TensorSpec
from edgepack.optimize.judging.evaluation import EvaluationSet, make_evaluation
from edgepack.optimize.judging.task import Task, truth_of
from edgepack.workflow.answers import keep_answers
from edgepack.workflow.request import PackRequest, StepCallback
from edgepack.workflow.shaping import import_shaped

# Enough to expose an int8 variant that breaks down; too few to trust an agreement by, which
# the warnings say.
_NUM_GENERATED: Final = 16
_SEED: Final = 20_260_101


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Everything the variants of one model are built and judged with.

    Attributes:
        imported: the float model as it was converted, and its source.
        attempts: the converters that were tried.
        parity: how near they are; None when the source is TFLite itself.
        model: the float model with the inputs and outputs that were asked for.
        contract: what its inputs want and its outputs mean.
        calibration: the user's samples for static schemes.
        evaluation: the samples fidelity is judged on; generated for want of real ones.
        calibration_feeds: the calibration samples in the model's layout.
        evaluation_set: the evaluation samples with the float model's answers.
        run: runs a model, keeping its answers.
    """

    imported: ImportedModel
    attempts: tuple[Attempt, ...]
    parity: Parity | None
    model: Model
    contract: IOContract
    calibration: Samples | None
    evaluation: Samples
    calibration_feeds: Feeds | None
    evaluation_set: EvaluationSet
    run: RunModel


def prepare_material(request: PackRequest, *, cache: Cache, on_step: StepCallback) -> Material:
    """Import the model, read its data, check its parity, and ask it for the reference answers.

    Raises:
        EdgePackError: as `import_shaped`, `load_samples`, `ShapedImport.prove` and `run_model`.
    """
    on_step(f"reading {request.model.name}")
    if request.data.metric is not None:
        request.data.metric.find()  # a slip in its name should not cost an import
    class_names = _read_class_names(request.class_names)
    loaded: list[_Loaded] = []

    def load_raw(specs: tuple[TensorSpec, ...], plan: ContractPlan) -> Samples | None:
        # The source's inputs are the same whatever converts it, so data are read once.
        if not loaded:
            loaded.append(_load_data(request, specs, plan, class_names))
        calibration, evaluation = loaded[0].split(is_stream=False)
        return calibration or evaluation

    shaped = import_shaped(
        request.model,
        options=request.imports,
        request=request.contract,
        load_raw=load_raw,
        minimum_db=request.minimum_parity_db,
        cache=cache,
        on_step=on_step,
    )
    imported, plan, model = shaped.verified.imported, shaped.plan, shaped.model
    _check_class_names(request, class_names, imported)
    calibration, given = loaded[0].split(is_stream=imported.model.is_stream)
    evaluation = given or generate_raw(imported, plan, num_samples=_NUM_GENERATED, seed=_SEED)
    run = keep_answers(cache)
    if not plan.is_empty:
        shaped.prove(evaluation, run=run, on_step=on_step)
    return Material(
        imported=imported,
        attempts=shaped.verified.attempts,
        parity=record_parity(shaped.verified.parity),
        model=model,
        contract=describe_contract(
            imported,
            plan,
            images=stated_images(
                request.data.images, plan, sources=(request.data.source, request.data.evaluation)
            ),
            samples=calibration or given,
            num_class_names=len(class_names),
        ),
        calibration=calibration,
        evaluation=evaluation,
        calibration_feeds=shaped_feeds(imported, plan, calibration) if calibration else None,
        evaluation_set=make_evaluation(
            model,
            shaped_feeds(imported, plan, evaluation),
            labels=evaluation.labels if request.data.metric is None else None,
            task=_make_task(request, model, evaluation),
            run=run,
        ),
        run=run,
    )


def _make_task(request: PackRequest, model: Model, evaluation: Samples) -> Task | None:
    if request.data.metric is None:
        return None
    return Task(
        metric=request.data.metric,
        truth=truth_of(evaluation.labels, evaluation.arrays),
        output_names=tuple(spec.name for spec in model.signature.outputs),
        is_stream=model.is_stream,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """The user's data as they were read: raw values where the model preprocesses them.

    Attributes:
        calibration: for static schemes; None when none were given for them.
        evaluation: None when the calibration samples are to be shared, or none were given.
    """

    calibration: Samples | None
    evaluation: Samples | None

    def split(self, *, is_stream: bool) -> tuple[Samples | None, Samples | None]:
        """Give the samples to calibrate and to evaluate on."""
        if self.evaluation is not None or self.calibration is None:
            return self.calibration, self.evaluation
        return (halve_samples if is_stream else split_samples)(self.calibration)


def _load_data(
    request: PackRequest,
    specs: tuple[TensorSpec, ...],
    plan: ContractPlan,
    class_names: tuple[str, ...],
) -> _Loaded:
    data = request.data
    if data.source is None and data.evaluation is None:
        if data.labels is not None:
            raise DataError(
                "--labels: there are no samples for these labels",
                remedy="Give the samples too: --data or --eval-data.",
            )
        if data.metric is not None:
            raise DataError(
                f"--metric {data.metric.source}: there are no samples to take it of",
                remedy="Give samples, and labels if it wants them: --data or --eval-data.",
            )
        return _Loaded(calibration=None, evaluation=None)

    def load(source: str, labels: Path | None) -> Samples:
        samples = load_samples(
            source,
            inputs=raw_specs(specs, plan),
            images=raw_images(request.data.images, plan),
            labels=labels,
            class_names=class_names,
            are_classes=data.metric is None,
        )
        check_raw(samples, plan)
        return samples

    if data.evaluation is not None:
        return _Loaded(
            calibration=None if data.source is None else load(data.source, None),
            evaluation=load(data.evaluation, data.labels),
        )
    samples = load(str(data.source), data.labels)
    if samples.num_samples < 2:  # noqa: PLR2004 - one to calibrate, one to evaluate
        raise DataError(
            f"{data.source}: expected at least two samples, one to calibrate and one to evaluate",
            remedy="Give more samples, or evaluation samples of their own with --eval-data.",
        )
    return _Loaded(calibration=samples, evaluation=None)


def record_parity(report: ParityReport) -> Parity | None:
    """Give what a manifest and a report say of a parity check; None when there was none."""
    if not report.outputs:
        return None
    return Parity(
        outputs=tuple(
            ParityRecord(
                output=each.output,
                sqnr_db=each.sqnr_db,
                max_abs_error=each.max_abs_error,
                cosine=each.cosine,
                judgement=each.judgement,
                top1_agreement=each.top1_agreement,
                equal_share=each.equal_share,
                seed=each.seed,
            )
            for each in report.outputs
        ),
        num_samples=report.num_samples,
        generated=report.generated,
        minimum_db=report.minimum_db,
        reference=report.reference,
        seeds=report.seeds,
    )


def _read_class_names(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: class names cannot be read: {error}",
            remedy="Give a UTF-8 text file with one class a line.",
        ) from error
    names = tuple(line.strip() for line in lines)
    if not names or not all(names):
        raise DataError(
            f"{path}: expected one class name a line, but a line is empty",
            remedy="Remove the empty lines; line N names class N, counted from 0.",
        )
    return names


def _check_class_names(
    request: PackRequest, class_names: tuple[str, ...], imported: ImportedModel
) -> None:
    """Refuse class names that are not as many as any output has classes."""
    counts = sorted(
        {
            spec.shape[-1]
            for spec in imported.model.signature.outputs
            if len(spec.shape) == 2  # noqa: PLR2004 - (batch, classes)
        }
    )
    if class_names and counts and len(class_names) not in counts:
        expected = " or ".join(str(count) for count in counts)
        raise DataError(
            f"{request.class_names}: expected {expected} class names, one for each class of the "
            f"model's output, but got {len(class_names)}",
            remedy="Give the names of the classes this model was trained on, one a line.",
        )
