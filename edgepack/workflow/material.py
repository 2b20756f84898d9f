"""What variants are built from and judged by: the imported model, its data and its parity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bundle.manifest import Parity, ParityRecord
from edgepack.cache import Cache
from edgepack.data import Samples, generate_samples, load_samples, split_samples
from edgepack.errors import DataError
from edgepack.evaluate import Feeds, RunModel
from edgepack.importers import (
    ImportedModel,
    ParityReport,
    import_verified,
    model_feeds,
)
from edgepack.model import TensorSpec
from edgepack.optimize.variant import EvaluationSet, make_evaluation
from edgepack.workflow.answers import keep_answers
from edgepack.workflow.request import PackRequest, StepCallback

# Enough to expose an int8 variant that breaks down; too few to trust an agreement by, which
# the warnings say.
_NUM_GENERATED: Final = 16
_SEED: Final = 20_260_101


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Everything the variants of one model are built and judged with.

    Attributes:
        imported: the float model and its source.
        parity: how near they are; None when the source is TFLite itself.
        calibration: the user's samples for static schemes.
        evaluation: the samples fidelity is judged on; generated for want of real ones.
        calibration_feeds: the calibration samples in the model's layout.
        evaluation_set: the evaluation samples with the float model's answers.
        run: runs a model, keeping its answers.
    """

    imported: ImportedModel
    parity: Parity | None
    calibration: Samples | None
    evaluation: Samples
    calibration_feeds: Feeds | None
    evaluation_set: EvaluationSet
    run: RunModel


def prepare_material(request: PackRequest, *, cache: Cache, on_step: StepCallback) -> Material:
    """Import the model, read its data, check its parity, and ask it for the reference answers.

    Raises:
        EdgePackError: as `import_verified`, `load_samples` and `run_model`.
    """
    on_step(f"reading {request.model.name}")
    class_names = _read_class_names(request.class_names)
    loaded: list[tuple[Samples | None, Samples]] = []

    def read_samples(specs: tuple[TensorSpec, ...]) -> Samples | None:
        # The source's inputs are the same whatever converts it, so data are read once.
        if not loaded:
            loaded.append(_load_data(request, specs, class_names))
        calibration, evaluation = loaded[0]
        return calibration or (evaluation if request.data.evaluation is not None else None)

    verified = import_verified(
        request.model,
        options=request.imports,
        read_samples=read_samples,
        minimum_db=request.minimum_parity_db,
        cache=cache,
        on_progress=on_step,
    )
    imported, parity = verified.imported, verified.parity
    _check_class_names(request, class_names, imported)
    calibration, evaluation = loaded[0]
    feeds = model_feeds(imported, evaluation)
    run = keep_answers(cache)
    return Material(
        imported=imported,
        parity=_record_parity(parity),
        calibration=calibration,
        evaluation=evaluation,
        calibration_feeds=model_feeds(imported, calibration) if calibration else None,
        evaluation_set=make_evaluation(imported.model, feeds, labels=evaluation.labels, run=run),
        run=run,
    )


def _load_data(
    request: PackRequest, specs: tuple[TensorSpec, ...], class_names: tuple[str, ...]
) -> tuple[Samples | None, Samples]:
    data = request.data
    if data.source is None:
        if data.evaluation is None:
            if data.labels is not None:
                raise DataError(
                    "--labels: there are no samples for these labels",
                    remedy="Give the samples too: --data or --eval-data.",
                )
            return None, generate_samples(specs, num_samples=_NUM_GENERATED, seed=_SEED)
        samples = None
    else:
        samples = load_samples(
            data.source,
            inputs=specs,
            images=data.images,
            labels=None if data.evaluation else data.labels,
            class_names=class_names,
        )
    if data.evaluation is not None:
        evaluation = load_samples(
            data.evaluation,
            inputs=specs,
            images=data.images,
            labels=data.labels,
            class_names=class_names,
        )
        return samples, evaluation
    if samples is None or samples.num_samples < 2:  # noqa: PLR2004 - one to calibrate, one to evaluate
        raise DataError(
            f"{data.source}: expected at least two samples, one to calibrate and one to evaluate",
            remedy="Give more samples, or evaluation samples of their own with --eval-data.",
        )
    return split_samples(samples)


def _record_parity(report: ParityReport) -> Parity | None:
    if not report.outputs:
        return None
    return Parity(
        outputs=tuple(
            ParityRecord(
                output=each.output,
                sqnr_db=each.sqnr_db,
                max_abs_error=each.max_abs_error,
                cosine=each.cosine,
            )
            for each in report.outputs
        ),
        num_samples=report.num_samples,
        generated=report.generated,
        minimum_db=report.minimum_db,
        reference=report.reference,
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
