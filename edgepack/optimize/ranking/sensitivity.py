"""Sensitivity analysis: each layer's cost at each precision, for a fraction of a run each.

One walk over a few samples (`walk`) gives each layer's own error at each
precision. That alone says little of the model's outputs: its rank correlation with what each
layer costs there is 0.6 to 0.7 (EfficientNet-Lite0 and PP-OCRv4's detector), for the shift
of a mean is multiplied on its way where zero-mean noise is not. So the ops behind each layer
are run on two of the samples with int8 errors: of the weights, of these without the shift,
and of weights and activations. The two gains estimate the precisions that were not run. The
few worst layers are measured again, on all samples.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from edgepack import child, comparison, evaluate, flatbuffer, graph
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.comparison import LIMIT_DB, ratio_db
from edgepack.errors import CacheError, DataError, OptimizeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import read_flatbuffer
from edgepack.model import Model
from edgepack.optimize.judging.evaluation import digest_feeds
from edgepack.optimize.quantizing import restore
from edgepack.optimize.quantizing.restore import restore_float32
from edgepack.optimize.ranking import layer_costs, sensitivity_worker
from edgepack.optimize.ranking.layer_costs import (
    Evidence,
    KeptCost,
    LayerSensitivity,
    Precision,
    Sensitivity,
    parse_sensitivity,
    predict_sqnr_db,
    rank_layers,
    sensitivity_to_json,
)
from edgepack.optimize.recipes.eligibility import refuse_float_pass
from edgepack.optimize.walking import emulation, excerpt, layers, pass_process, walk
from edgepack.optimize.walking.layers import Layer, find_layers
from edgepack.optimize.walking.pass_process import run_pass, spread_feeds

__all__ = [
    "Evidence",
    "KeptCost",
    "LayerSensitivity",
    "Precision",
    "Sensitivity",
    "analyze_sensitivity",
    "predict_sqnr_db",
    "rank_layers",
    "sensitivity_to_json",
]

_TIMEOUT_SECONDS: Final = 3600.0
# More change little: the errors that weights make are much the same on all inputs.
_NUM_SAMPLES: Final = 8
_NUM_PROBES: Final = 2
# Layers of each precision that are measured on all samples: a tenth, and no more than these.
_NUM_REFINED: Final = 3
_PROBED: Final = (Precision.WEIGHT_ONLY_INT8, Precision.INT8)
_REFINED: Final = (Precision.WEIGHT_ONLY_INT8, Precision.INT8, Precision.WEIGHT_ONLY_INT4)
_LIBRARIES: Final = ("ai-edge-litert", "flatbuffers", "numpy")
_FILE_NAME: Final = "sensitivity.json"

Records = dict[tuple[int, Precision], dict[str, float]]
"""What the child measured, by the position of the layer's op and the precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gains:
    """How a layer's error reaches the outputs: energy there for each energy here.

    Attributes:
        shift: of the mean's part.
        rest: of the other part.
    """

    shift: float
    rest: float


def analyze_sensitivity(
    model: Model,
    calibration: Feeds,
    *,
    cache: Cache,
    on_progress: Callable[[str], None],
) -> Sensitivity:
    """Find what each layer of a float model costs at each precision; cached.

    Args:
        model: float32, or float16 weights; without loops and without state between samples.
        calibration: real inputs; up to 8 of them, evenly chosen, are used.
        cache: where results of the same inputs, source and libraries are kept.
        on_progress: told what begins, in words.

    Raises:
        DataError: no samples.
        OptimizeError: the model cannot be analyzed; says why.
        CacheError: the result cannot be kept.
    """
    if not calibration:
        raise DataError(
            "sensitivity analysis looks at each layer's inputs, but no samples were given",
            remedy="Give real inputs with --data.",
        )
    base = _check_model(model)
    feeds = spread_feeds(calibration, _NUM_SAMPLES)
    key = _key(base, feeds)
    folder = cache.load(key)
    if folder is not None:
        return _read_entry(folder)
    found = _analyze(base, feeds, on_progress)
    record = json.dumps(sensitivity_to_json(found), sort_keys=True)
    cache.store(key, {_FILE_NAME: record.encode()})
    return found


def _check_model(model: Model) -> Model:
    """Give the model in float32, or refuse it."""
    refusal = refuse_float_pass(model.traits)
    if refusal is not None:
        raise OptimizeError(
            f"expected a float model to analyze, but {refusal}",
            remedy="Give the float32 model it was made from.",
        )
    if model.traits.has_loop or model.is_stream:
        what = "a loop or branch" if model.traits.has_loop else "state between samples"
        raise OptimizeError(
            "sensitivity analysis runs the ops one after the other, which a model with "
            f"{what} does not allow",
            remedy="Choose a recipe without it; `edgepack inspect` lists them.",
        )
    base = restore_float32(model) if model.is_quantized else model
    if not find_layers(read_flatbuffer(base.data)):
        raise OptimizeError(
            "expected a model with constant float weights in convolutions or fully connected "
            "layers, but it has none",
            remedy="There is nothing to quantize in this model; pack it as float32.",
        )
    return base


def _analyze(model: Model, feeds: Feeds, on_progress: Callable[[str], None]) -> Sensitivity:
    found = find_layers(read_flatbuffer(model.data))
    on_progress(f"probing {len(found)} layers on {len(feeds)} samples")
    probes = sorted({0, len(feeds) // 2} if len(feeds) >= _NUM_PROBES else {0})
    every = [each.value for each in Precision]
    probed = {
        "local": every,
        "output": [each.value for each in _PROBED],
        "rest": [Precision.WEIGHT_ONLY_INT8.value],
    }
    records, num_macs = _run_worker(
        model, feeds, probes=probes, jobs={each.position: probed for each in found}
    )
    is_whole = len(probes) == len(feeds)
    entries = _estimate(found, records, Evidence.MEASURED if is_whole else Evidence.PROBED)
    worst = _find_worst(found, entries, is_whole=is_whole)
    if worst:
        on_progress(f"measuring the {len(worst)} worst layers")
        measured, more = _run_worker(
            model,
            feeds,
            probes=list(range(len(feeds))),
            jobs={
                position: {"local": [], "output": [each.value for each in schemes], "rest": []}
                for position, schemes in worst.items()
            },
        )
        entries = _take_over(found, entries, measured)
        num_macs += more
    whole = sum(each.num_macs for each in found) * len(feeds)
    return Sensitivity(
        layers=entries, num_samples=len(feeds), num_evaluations=num_macs / max(whole, 1)
    )


def _run_worker(
    model: Model, feeds: Feeds, *, probes: list[int], jobs: Mapping[int, Mapping[str, list[str]]]
) -> tuple[Records, int]:
    def explain(reason: str) -> OptimizeError:
        return OptimizeError(
            f"the sensitivity of the layers could not be measured: {reason}",
            remedy="Choose a recipe that needs no sensitivity analysis.",
        )

    request = {"probes": probes, "jobs": jobs}
    with run_pass(
        "edgepack.optimize.ranking.sensitivity_worker", model, feeds, request, explain=explain
    ) as result:
        done = result.facts
    records = {(each["position"], Precision(each["precision"])): each for each in done["records"]}
    return records, int(done["num_macs"])


def _estimate(
    found: Iterable[Layer], records: Records, evidence: Evidence
) -> tuple[LayerSensitivity, ...]:
    """Make entries of the first pass: what was not run at the outputs, from the gains."""
    entries: list[LayerSensitivity] = []
    for layer in found:
        own = {each: records.get((layer.position, each)) for each in Precision}
        probed = own[Precision.WEIGHT_ONLY_INT8]
        if probed is None:  # its input is a constant
            continue
        gains = find_gains(probed)
        for precision, record in own.items():
            if record is None:
                continue
            share, noise = record["shift_share"], record["noise"]
            shift, rest = gains.shift * noise * share, gains.rest * noise * (1 - share)
            whole_db = record.get("output_db", ratio_db(1.0, shift + rest))
            # An error that was run with its shift only is divided as the gains divide it.
            saved_db = ratio_db(shift + rest, rest) if shift else 0.0
            corrected_db = record.get("rest_db", min(LIMIT_DB, whole_db + saved_db))
            entries.append(
                LayerSensitivity(
                    layer=layer.name,
                    op=layer.op,
                    num_weights=layer.num_weights,
                    num_macs=layer.num_macs,
                    scheme=precision,
                    local_sqnr_db=record["local_db"],
                    mean_shift_share=share,
                    output_sqnr_db=whole_db,
                    corrected_sqnr_db=corrected_db,
                    evidence=evidence if "output_db" in record else Evidence.ESTIMATED,
                )
            )
    return tuple(entries)


def find_gains(record: Mapping[str, float]) -> _Gains:
    """Give a layer's gains from its errors here and at the outputs, with and without the shift.

    An error of nothing tells no gain; 1 is taken then.
    """
    noise, share = record["noise"], record["shift_share"]
    whole, rest = (
        0.0 if record[key] >= LIMIT_DB else 10.0 ** (-record[key] / 10)
        for key in ("output_db", "rest_db")
    )
    return _Gains(
        shift=max(0.0, whole - rest) / (noise * share) if noise * share else 1.0,
        rest=rest / (noise * (1 - share)) if noise * (1 - share) else 1.0,
    )


def _find_worst(
    found: Iterable[Layer], entries: Iterable[LayerSensitivity], *, is_whole: bool
) -> dict[int, list[Precision]]:
    """Give what to measure on all samples, by the position of the layer's op."""
    positions = {each.name: each.position for each in found}
    number = min(_NUM_REFINED, max(1, len(positions) // 10))
    worst: dict[int, list[Precision]] = {}
    for precision in _REFINED:
        own = [
            each
            for each in entries
            if each.scheme is precision and not (is_whole and each.evidence is Evidence.MEASURED)
        ]
        for each in sorted(own, key=lambda each: each.output_sqnr_db)[:number]:
            worst.setdefault(positions[each.layer], []).append(precision)
    return worst


def _take_over(
    found: Iterable[Layer], entries: Iterable[LayerSensitivity], measured: Records
) -> tuple[LayerSensitivity, ...]:
    """Give the entries with what was measured on all samples."""
    positions = {each.name: each.position for each in found}
    taken: list[LayerSensitivity] = []
    for each in entries:
        record = measured.get((positions[each.layer], each.scheme))
        if record is None:
            taken.append(each)
            continue
        corrected_db = record["output_db"] + each.corrected_sqnr_db - each.output_sqnr_db
        taken.append(
            replace(
                each,
                output_sqnr_db=record["output_db"],
                corrected_sqnr_db=min(LIMIT_DB, max(-LIMIT_DB, corrected_db)),
                evidence=Evidence.MEASURED,
            )
        )
    return tuple(taken)


def _key(model: Model, feeds: Feeds) -> str:
    return digest_parts(
        "sensitivity",
        model=model.sha256,
        feeds=digest_feeds(feeds),
        source=source_digest(
            child,
            comparison,
            emulation,
            evaluate,
            excerpt,
            flatbuffer,
            graph,
            layer_costs,
            layers,
            pass_process,
            restore,
            sensitivity_worker,
            walk,
            # What is estimated is part of what is kept.
            sys.modules[__name__],
        ),
        libraries=json.dumps({name: version(name) for name in _LIBRARIES}),
        parameters=json.dumps([_NUM_SAMPLES, _NUM_PROBES, _NUM_REFINED]),
    )


def _read_entry(folder: Path) -> Sensitivity:
    try:
        return parse_sensitivity(json.loads((folder / _FILE_NAME).read_bytes()))
    except (OSError, ValueError, OptimizeError) as error:
        raise CacheError(
            f"the kept result {folder} cannot be read: {error}",
            remedy="Remove that folder and try again.",
        ) from error
