"""Parity: does the converted model compute what its source computes."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack import child as child_module
from edgepack import comparison as comparison_module
from edgepack import evaluate as evaluate_module
from edgepack import evaluate_worker
from edgepack import fidelity as fidelity_module
from edgepack._fields import Fields, join_faults
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.data import Samples, generate_samples, make_samples
from edgepack.errors import DataError, ParityError
from edgepack.evaluate import run_model
from edgepack.fidelity import LIMIT_DB, compare_outputs
from edgepack.importers import binding as binding_module
from edgepack.importers import slices as slices_module
from edgepack.importers.binding import ImportedModel, model_feeds
from edgepack.importers.slices import WorstSlice, find_worst_slice
from edgepack.importers.source import ImportOptions, SourceFormat
from edgepack.importers.worker import SourceWorker, open_worker, run_source, runs_user_code

_RECORD: Final = "parity.json"
_MOST_SAMPLES: Final = 16
_NUM_GENERATED: Final = 4
_SEED: Final = 20
# About eight roundings of float32: below it an output is the noise of larger values within.
_NEAR_ZERO: Final = 1e-6
# How far below the limit a single slice may be: real conversions lose some dB in small values,
# and a wrong one reads about 0 dB.
_SLICE_MARGIN_DB: Final = 40.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """How near one output of the converted model is to the source's.

    Attributes:
        output: the output's name.
        sqnr_db: signal to difference, in dB; 300 when equal.
        max_abs_error: largest difference of an element.
        cosine: cosine of the angle between both as vectors.
        near_zero: the reference is within float32 rounding of zero on the inputs' scale, so
            SQNR says nothing and the largest difference is judged instead.
        worst_slice: the channel or the like that is farthest off; None when no slice differs
            by more than rounding.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float
    near_zero: bool = False
    worst_slice: WorstSlice | None = None


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
    """

    outputs: tuple[OutputParity, ...]
    num_samples: int
    generated: bool
    minimum_db: float
    reference: str


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

    At most 16 of the samples are used, evenly spread; without any, 4 generated ones.

    Raises:
        ParityError: an output is below `minimum_db`; the message has all figures.
        DataError: the samples do not fit the model's inputs.
        ModelError: the source or the model cannot run on them.
        ToolchainError: the source's framework died or cannot be made.
    """
    source_format = imported.source.format
    if source_format is SourceFormat.TFLITE:
        return ParityReport(
            outputs=(), num_samples=0, generated=False, minimum_db=minimum_db, reference="itself"
        )
    specs = tuple(binding.source for binding in imported.inputs)
    used = (
        _spread(samples)
        if samples is not None
        else generate_samples(specs, num_samples=_NUM_GENERATED, seed=_SEED)
    )
    worker = open_worker(source_format, options=options, on_progress=on_progress)
    key = digest_parts(
        "parity",
        source=imported.source.sha256,
        model=imported.model.sha256,
        layouts=repr((imported.inputs, imported.outputs)),
        samples=used.digest,
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
            fidelity_module,
            slices_module,
            sys.modules[__name__],
        ),
    )
    # The user's own code is covered by no digest.
    is_kept = not runs_user_code(worker, source_format, options)
    folder = cache.load(key) if is_kept else None
    if folder is None:
        on_progress(f"comparing with {worker.title} on {used.num_samples} samples")
        outputs = _run_both(imported, path, worker, used, options)
        record = json.dumps([asdict(output) for output in outputs], indent=1)
        folder = cache.store(key, {_RECORD: record.encode()})
    report = ParityReport(
        outputs=_read_outputs(json.loads((folder / _RECORD).read_bytes()), folder),
        num_samples=used.num_samples,
        generated=samples is None,
        minimum_db=minimum_db,
        reference=worker.title,
    )
    _judge(report, path, scale=_scale(dict(used.arrays)))
    return report


def _run_both(
    imported: ImportedModel,
    path: Path,
    worker: SourceWorker,
    samples: Samples,
    options: ImportOptions,
) -> tuple[OutputParity, ...]:
    feeds = model_feeds(imported, samples)
    arrays = dict(samples.arrays)
    reference = run_source(
        worker,
        path,
        imported.source.format,
        options,
        inputs=[arrays[binding.source.name] for binding in imported.inputs],
        num_outputs=len(imported.outputs),
    )
    results = run_model(imported.model, feeds)
    return _compare(imported, reference, results, scale=_scale(arrays))


def _spread(samples: Samples) -> Samples:
    if samples.num_samples <= _MOST_SAMPLES:
        return samples
    places = np.linspace(0, samples.num_samples - 1, _MOST_SAMPLES).astype(np.intp)
    return make_samples([(name, array[places]) for name, array in samples.arrays])


def _scale(arrays: Mapping[str, NDArray[Any]]) -> float:
    """Largest magnitude of the float inputs, at most 1; 1 without any.

    Inputs in the hundreds or thousands (pixels, sound) lend no size to outputs: a score of
    1e-4 is one, whatever unit went in.
    """
    sizes = [
        float(np.max(np.abs(array)))
        for array in arrays.values()
        if array.dtype.kind == "f" and array.size
    ]
    return min(1.0, max(sizes, default=1.0) or 1.0)


def _compare(
    imported: ImportedModel,
    reference: Sequence[tuple[NDArray[Any], ...]],
    results: Sequence[tuple[NDArray[Any], ...]],
    *,
    scale: float,
) -> tuple[OutputParity, ...]:
    specs = imported.model.signature.outputs
    carried = tuple(
        tuple(
            array if binding.permutation is None else array.transpose(binding.permutation)
            for array, binding in zip(sample, imported.outputs, strict=True)
        )
        for sample in reference
    )
    fidelity = compare_outputs(carried, results, names=tuple(spec.name for spec in specs))
    return tuple(
        OutputParity(
            output=output.output,
            sqnr_db=output.sqnr_db,
            max_abs_error=output.max_abs_error,
            cosine=output.cosine,
            near_zero=_is_near_zero([sample[index] for sample in carried], scale),
            worst_slice=find_worst_slice(
                [sample[index] for sample in carried], [sample[index] for sample in results]
            ),
        )
        for index, output in enumerate(fidelity.outputs)
    )


def _is_near_zero(arrays: Sequence[NDArray[Any]], scale: float) -> bool:
    if any(array.dtype.kind != "f" for array in arrays):
        return False
    return all(
        array.size == 0 or float(np.max(np.abs(array))) <= _NEAR_ZERO * scale for array in arrays
    )


def _judge(report: ParityReport, path: Path, *, scale: float) -> None:
    failed = [output for output in report.outputs if not _passes(output, report.minimum_db, scale)]
    if not failed:
        return
    lines = [_describe(output, report.minimum_db) for output in report.outputs]
    worst = min(_reached_db(output) for output in failed)
    kind = "generated samples" if report.generated else "samples"
    data = "Give real samples with --data, fix" if report.generated else "Fix"
    raise ParityError(
        f"{path}: expected at least {report.minimum_db:g} dB between {report.reference} and the "
        f"converted model on every output, but on {report.num_samples} {kind} it has\n"
        + "\n".join(f"  {line}" for line in lines),
        remedy=f"{data} the source model, or accept the difference with "
        f"`--allow-parity {int(worst // 1)}`, which is recorded.",
    )


def _passes(output: OutputParity, minimum_db: float, scale: float) -> bool:
    if output.near_zero and output.max_abs_error <= _NEAR_ZERO * scale:
        return True
    return _reached_db(output) >= minimum_db


def _reached_db(output: OutputParity) -> float:
    """Give the limit that an output just keeps, as a whole and in each slice."""
    if output.worst_slice is None:
        return output.sqnr_db
    return min(output.sqnr_db, output.worst_slice.sqnr_db + _SLICE_MARGIN_DB)


def _describe(output: OutputParity, minimum_db: float) -> str:
    if output.sqnr_db == -LIMIT_DB and output.max_abs_error == 0:
        return f"{output.output}: no finite value to compare  <- too far"
    text = (
        f"{output.output}: SQNR {output.sqnr_db:.1f} dB, max abs error "
        f"{output.max_abs_error:.3g}, cosine {output.cosine:.6f}"
    )
    if output.near_zero:
        return f"{text} (the source gives zero here)"
    if output.sqnr_db < minimum_db:
        return f"{text}  <- too far"
    part = output.worst_slice
    if part is None or _reached_db(output) >= minimum_db:
        return text
    return (
        f"{text}, but index {part.index} of axis {part.axis} has {part.sqnr_db:.1f} dB  <- too far"
    )


def _read_outputs(record: object, folder: Path) -> tuple[OutputParity, ...]:
    fields = Fields({"outputs": record})
    outputs = tuple(
        OutputParity(
            output=table.text("output"),
            sqnr_db=table.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
            max_abs_error=table.number("max_abs_error", minimum=0.0),
            cosine=table.number("cosine", minimum=-1.0, maximum=1.0),
            near_zero=table.boolean("near_zero"),
            worst_slice=None
            if table.raw("worst_slice") is None
            else _read_slice(table.table("worst_slice")),
        )
        for table in fields.tables("outputs")
    )
    if fields.faults:
        raise DataError(
            join_faults(f"cached parity {folder}", fields.faults),
            remedy=f"Remove the folder {folder} and run the command again.",
        )
    return outputs


def _read_slice(fields: Fields) -> WorstSlice:
    return WorstSlice(
        axis=fields.integer("axis", minimum=1),
        index=fields.integer("index", minimum=0),
        sqnr_db=fields.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
    )
