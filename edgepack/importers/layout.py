"""Settle which layout a converted model has where shapes alone do not tell, by running it."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edgepack.data import Range, generate_samples
from edgepack.errors import ConversionError
from edgepack.fidelity import sqnr_db
from edgepack.importers.binding import (
    ImportedModel,
    TensorBinding,
    input_hints,
    model_feeds,
    run_converted,
)
from edgepack.importers.source import ImportOptions
from edgepack.importers.worker import SourceWorker, run_source

Orders = Sequence[tuple[tuple[int, ...] | None, ...]]
"""For each tensor, the permutations that fit its shape."""

_NUM_SAMPLES: Final = 2
_SEED: Final = 0
_MOST_TRIALS: Final = 81


def settle_layouts(
    imported: ImportedModel,
    path: Path,
    *,
    worker: SourceWorker,
    options: ImportOptions,
    input_orders: Orders,
    output_orders: Orders,
) -> ImportedModel:
    """Give the model the permutations under which it computes what its source computes.

    Where every tensor has one candidate nothing is run: the parity check proves it later.

    Raises:
        ConversionError: more combinations than can be tried, or the model does not run.
        ModelError: the source cannot be run.
    """
    if all(len(orders) == 1 for orders in (*input_orders, *output_orders)):
        return imported
    trials = list(itertools.islice(itertools.product(*input_orders), _MOST_TRIALS + 1))
    if len(trials) > _MOST_TRIALS:
        raise ConversionError(
            f"{path}: more than {_MOST_TRIALS} layouts of its inputs fit the converted model",
            remedy="Export the model with fewer inputs of equal dimensions.",
        )
    specs = tuple(binding.source for binding in imported.inputs)
    samples = generate_samples(
        specs,
        num_samples=_NUM_SAMPLES,
        seed=_SEED,
        hints=input_hints(imported),
        value_range=Range.CENTERED,  # states that are zero look the same in every layout
    )
    arrays = dict(samples.arrays)
    reference = run_source(
        worker,
        path,
        imported.source.format,
        options,
        inputs=[arrays[spec.name] for spec in specs],
        num_outputs=len(imported.outputs),
    )
    best: tuple[float, ImportedModel] | None = None
    for orders in trials:
        trial = replace(imported, inputs=_with_orders(imported.inputs, orders))
        results = run_converted(imported.model, model_feeds(trial, samples))
        chosen = [
            max(
                (_agreement(reference, results, index, order), -place, order)
                for place, order in enumerate(fitting)
            )
            for index, fitting in enumerate(output_orders)
        ]
        score = min(each[0] for each in chosen)
        if best is None or score > best[0]:
            outputs = _with_orders(imported.outputs, [each[2] for each in chosen])
            best = (score, replace(trial, outputs=outputs))
    return best[1] if best is not None else imported


def _with_orders(
    bindings: Sequence[TensorBinding], orders: Sequence[tuple[int, ...] | None]
) -> tuple[TensorBinding, ...]:
    return tuple(
        replace(binding, permutation=order) for binding, order in zip(bindings, orders, strict=True)
    )


def _agreement(
    reference: Sequence[tuple[NDArray[Any], ...]],
    results: Sequence[tuple[NDArray[Any], ...]],
    index: int,
    order: tuple[int, ...] | None,
) -> float:
    """Worst SQNR over the samples of one output under one layout, in dB."""
    worst = float("inf")
    for ours, theirs in zip(reference, results, strict=True):
        source = ours[index] if order is None else ours[index].transpose(order)
        worst = min(worst, sqnr_db(source, theirs[index]))
    return worst
