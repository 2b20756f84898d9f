"""Where a converted model parts from its source: the first node whose output differs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import ConversionError, DataError, ModelError, ToolchainError
from edgepack.evaluate import run_model
from edgepack.fidelity import sqnr_db
from edgepack.importers.binding import ImportedModel, candidate_permutations, model_feeds
from edgepack.importers.conversion import Conversion, Translation, translate
from edgepack.importers.figures import measure_outputs
from edgepack.importers.judgement import judge_output
from edgepack.importers.narrowing import Narrowed, find_first
from edgepack.importers.trials import Trial, join_trials, move_inputs
from edgepack.importers.worker import SourceNode, list_nodes, run_source

# Each round converts and runs both models: two rounds see 1,000 nodes, three 32,000.
_MOST_EXPOSED: Final = 32
_MOST_SECONDS: Final = 600.0
_MOST_FAULTS: Final = 8
_FAULTS: Final = (ConversionError, DataError, ModelError, ToolchainError)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorStatistics:
    """What the values of a tensor look like.

    Attributes:
        minimum: of the finite values, as the rest; 0 when there are none.
        maximum: likewise.
        mean: likewise.
        std: standard deviation.
        non_finite_share: share of NaNs and infinities.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    non_finite_share: float

    def describe(self) -> str:
        """Give the figures as text."""
        text = (
            f"min {self.minimum:.4g}, max {self.maximum:.4g}, mean {self.mean:.4g}, "
            f"std {self.std:.4g}"
        )
        if self.non_finite_share:
            text += f", {self.non_finite_share:.1%} not finite"
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """The first node whose output departs.

    Attributes:
        node: what the source calls it.
        op: its operation.
        reference: statistics of its output in the source.
        converted: in the converted model.
        sqnr_db: between both, in dB.
        agreeing_db: least SQNR of the nodes before it that were looked at last; None when it
            is the first of all.
        num_skipped: nodes right before it that could not be looked at, so that it may be one
            of those.
    """

    node: str
    op: str
    reference: TensorStatistics
    converted: TensorStatistics
    sqnr_db: float
    agreeing_db: float | None
    num_skipped: int = 0

    def describe(self) -> str:
        """Say it in a message, on lines of their own."""
        before = (
            "nothing stands before it"
            if self.agreeing_db is None
            else f"the nodes before it still agree at {self.agreeing_db:.1f} dB"
        )
        if self.num_skipped:
            before += f", but for {self.num_skipped} that could not be looked at"
        return (
            f"first node whose output departs: {self.node} ({self.op})\n"
            f"  source: {self.reference.describe()}\n"
            f"  converted: {self.converted.describe()}\n"
            f"  SQNR {self.sqnr_db:.1f} dB; {before}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NoDeparture:
    """Why no node is named.

    Attributes:
        reason: a sentence for a message.
    """

    reason: str

    def describe(self) -> str:
        """Say it in a message."""
        return self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    departs: bool
    sqnr_db: float
    reference: TensorStatistics
    converted: TensorStatistics


def find_departure(
    conversion: Conversion,
    imported: ImportedModel,
    *,
    trial: Trial,
    minimum_db: float,
    on_progress: Callable[[str], None],
) -> Departure | NoDeparture:
    """Find the first node whose output differs between source and converted model.

    The source is converted again and again with intermediate outputs exposed, at most 32 at a
    time, until two neighbors are left of which one agrees and the other does not. It takes
    ten minutes at most, and never fails: what cannot be looked at is said.

    Args:
        conversion: what was converted, and by what.
        imported: what came of it.
        trial: samples on which both differ.
        minimum_db: what counts as agreement.
        on_progress: called with one line at a time.
    """
    try:
        nodes = list_nodes(
            conversion.reference, conversion.path, conversion.source_format, conversion.options
        )
    except _FAULTS as error:
        return NoDeparture(reason=f"the nodes could not be looked at: {_first_line(error)}")
    if not nodes:
        return NoDeparture(reason="the source has no nodes that could be looked at")
    deadline = time.monotonic() + _MOST_SECONDS
    seen: dict[int, _Look] = {}
    faults: list[str] = []

    def look(places: Sequence[int]) -> dict[int, bool | None]:
        if time.monotonic() > deadline or len(faults) >= _MOST_FAULTS:
            return {}
        on_progress(f"looking for the first node that departs, among {len(places)}")
        try:
            looks = _look(
                conversion, imported, [nodes[place] for place in places], trial, minimum_db
            )
        except _FAULTS as error:
            faults.append(_first_line(error))
            if len(places) == 1:
                return {places[0]: None}
            # One node that cannot be exposed spoils the whole round.
            half = len(places) // 2
            return look(places[:half]) | look(places[half:])
        seen.update({place: each for place, each in zip(places, looks, strict=True) if each})
        return {
            place: each.departs if each else None for place, each in zip(places, looks, strict=True)
        }

    narrowed = find_first(len(nodes), look, most=_MOST_EXPOSED)
    return _conclude(narrowed, nodes, seen, faults)


def _conclude(
    narrowed: Narrowed, nodes: Sequence[SourceNode], seen: dict[int, _Look], faults: list[str]
) -> Departure | NoDeparture:
    place = narrowed.departing
    if place is None:
        if not seen:
            reason = f": {faults[0]}" if faults else ""
            return NoDeparture(reason=f"no node could be looked at{reason}")
        return NoDeparture(
            reason=f"each of the {len(seen)} nodes that were looked at agrees when its output is "
            "kept, so the fault lies in how the converter merges nodes"
        )
    before = [each.sqnr_db for other, each in seen.items() if other < place and not each.departs]
    found, node = seen[place], nodes[place]
    start = -1 if narrowed.agreeing is None else narrowed.agreeing
    return Departure(
        node=node.name or node.output,
        op=node.op,
        reference=found.reference,
        converted=found.converted,
        sqnr_db=found.sqnr_db,
        agreeing_db=min(before, default=None),
        num_skipped=place - start - 1,
    )


def _look(
    conversion: Conversion,
    imported: ImportedModel,
    nodes: Sequence[SourceNode],
    trial: Trial,
    minimum_db: float,
) -> list[_Look | None]:
    """Convert with the nodes' outputs exposed, run both, compare; None for what cannot be."""
    expose = [node.output for node in nodes]
    translation = translate(conversion, expose=expose)
    moved = move_inputs(trial, trial.samples.num_samples)
    asked = join_trials([trial.samples, moved]) if moved else trial.samples
    arrays = dict(asked.arrays)
    answers = run_source(
        conversion.reference,
        conversion.path,
        conversion.source_format,
        conversion.options,
        inputs=[arrays[binding.source.name] for binding in imported.inputs],
        num_outputs=len(expose),
        expose=expose,
    )
    results = run_model(translation.model, model_feeds(_bind(imported, translation), trial.samples))
    num_samples = len(results)
    return [
        _compare(
            [sample[index] for sample in answers[:num_samples]],
            [sample[index] for sample in results],
            [sample[index] for sample in answers[num_samples:]],
            trial=trial,
            minimum_db=minimum_db,
        )
        for index in range(len(nodes))
    ]


def _bind(imported: ImportedModel, translation: Translation) -> ImportedModel:
    """Give the exposing model the input layouts of the whole one, where they fit."""
    specs = translation.model.signature.inputs
    if len(specs) != len(imported.inputs):
        raise ConversionError(
            f"expected a model of {len(imported.inputs)} inputs, but with its nodes exposed it has "
            f"{len(specs)}",
            remedy="Report this as a bug of EdgePack, with the model if you can.",
        )
    bindings = []
    for binding, spec in zip(imported.inputs, specs, strict=True):
        fitting = candidate_permutations(binding.source.shape, spec.shape)
        order = binding.permutation if binding.permutation in fitting else fitting[0]
        bindings.append(replace(binding, permutation=order))
    return replace(imported, model=translation.model, inputs=tuple(bindings), outputs=())


def _compare(
    reference: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    moved: Sequence[NDArray[Any]],
    *,
    trial: Trial,
    minimum_db: float,
) -> _Look | None:
    try:
        orders = candidate_permutations(reference[0].shape, results[0].shape)
    except ConversionError:  # the converter squeezed or merged axes on its way
        return None
    order = max(orders, key=lambda each: _agreement(reference, results, each))
    ours, again = ([[_carry(array, order)] for array in each] for each in (reference, moved))
    figures = measure_outputs(
        ours,
        [[array] for array in results],
        again,
        names=("node",),
        scales=(0.0,),
        zero_scale=trial.scale,
    )
    parity, missed = judge_output([(trial.seed, figures[0])], constancy=None, minimum_db=minimum_db)
    return _Look(
        departs=missed is not None,
        sqnr_db=parity.sqnr_db,
        reference=describe_values(reference),
        converted=describe_values(results),
    )


def describe_values(arrays: Sequence[NDArray[Any]]) -> TensorStatistics:
    """Give statistics over all values of some arrays."""
    values = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)
    finite = values[np.isfinite(values)]
    share = 1.0 - finite.size / values.size if values.size else 0.0
    if not finite.size:
        return TensorStatistics(minimum=0.0, maximum=0.0, mean=0.0, std=0.0, non_finite_share=share)
    return TensorStatistics(
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        mean=float(finite.mean()),
        std=float(finite.std()),
        non_finite_share=share,
    )


def _agreement(
    reference: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    order: tuple[int, ...] | None,
) -> float:
    return min(
        sqnr_db(_carry(first, order), second)
        for first, second in zip(reference, results, strict=True)
    )


def _carry(array: NDArray[Any], order: tuple[int, ...] | None) -> NDArray[Any]:
    return array if order is None else array.transpose(order)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
