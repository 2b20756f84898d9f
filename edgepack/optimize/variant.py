"""Variants: a recipe carried out on a model, with what it cost and how near it stayed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack import (
    child,
    comparison,
    evaluate,
    evaluate_worker,
    flatbuffer,
    shares,
    traits,
)
from edgepack import model as model_module
from edgepack._fields import Fields, join_faults
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.errors import CacheError, ModelError, OptimizeError
from edgepack.evaluate import (
    Answers,
    Feeds,
    RunModel,
    dequantize_array,
    quantize_array,
    run_model,
)
from edgepack.fidelity import Fidelity, agreement, compare, compare_outputs, read_fidelity, record
from edgepack.fidelity import to_json as fidelity_to_json
from edgepack.model import Model, TensorSpec, read_model
from edgepack.optimize import eligibility, quantize_worker, restore
from edgepack.optimize import prune as prune_module
from edgepack.optimize import quantize as quantize_module
from edgepack.optimize import recipe as recipe_module
from edgepack.optimize.eligibility import check_eligible
from edgepack.optimize.prune import (
    PruneFacts,
    compressed_size,
    prune,
    prune_facts_to_json,
    read_prune_facts,
)
from edgepack.optimize.quantize import quantize
from edgepack.optimize.recipe import Recipe, read_recipe, recipe_to_json
from edgepack.optimize.restore import restore_float32
from edgepack.profile import Scheme

# What decides the bytes of a variant and its figures, besides our own source.
_LIBRARIES: Final = ("ai-edge-litert", "ai-edge-quantizer", "flatbuffers", "numpy")
# Two runs of the same numbers, which kernels may add in another order.
_RESTORED_FLOOR_DB: Final = 80.0
_MODEL_NAME: Final = "model.tflite"
_FACTS_NAME: Final = "facts.json"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvaluationSet:
    """What variants of one model are compared on.

    Attributes:
        feeds: inputs of the float model, one tuple a sample.
        reference: the float model's outputs on them.
        labels: (num_samples,) class ids, or None.
        digest: of the feeds and labels.
    """

    feeds: Feeds
    reference: Answers
    labels: NDArray[np.int64] | None
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A recipe carried out.

    Attributes:
        recipe: what was done.
        model: what came of it.
        fidelity: against the float model, on the evaluation set.
        compressed_bytes: size of the flatbuffer under zlib level 9.
        float_ops: kinds of op left in float as the quantizer failed at them.
        prune_facts: what pruning did; None when the recipe prunes nothing.
    """

    recipe: Recipe
    model: Model
    fidelity: Fidelity
    compressed_bytes: int
    float_ops: tuple[str, ...] = ()
    prune_facts: PruneFacts | None = None


def make_evaluation(
    model: Model,
    feeds: Feeds,
    *,
    labels: NDArray[np.int64] | None = None,
    run: RunModel = run_model,
) -> EvaluationSet:
    """Run the float model on feeds and keep its outputs as the reference.

    Args:
        model: the float model.
        feeds: its inputs, one tuple a sample.
        labels: (num_samples,) class ids.
        run: how the model is run.

    Raises:
        DataError: feeds that do not fit.
        ModelError: the model cannot be run.
    """
    return EvaluationSet(
        feeds=feeds,
        reference=run(model, feeds),
        labels=labels,
        digest=digest_feeds(feeds, labels=labels),
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


def build_variant(
    model: Model,
    recipe: Recipe,
    *,
    calibration: Feeds | None,
    evaluation: EvaluationSet,
    cache: Cache,
) -> Variant:
    """Carry out a recipe on a float model and compare the result with it; cached.

    Float16 weights are made float32 first, and pruning comes before quantization. Feeds of a
    variant with integer inputs are quantized, and its outputs dequantized, before they are
    compared.

    Args:
        model: the float model.
        recipe: what to do.
        calibration: real inputs for static schemes.
        evaluation: what fidelity is judged on.
        cache: where results of the same inputs, recipe, source and libraries are kept.

    Raises:
        RecipeError: a static scheme without calibration data.
        OptimizeError: the recipe cannot be carried out on this model, or its result cannot
            run on this machine; says which op.
        DataError: labels that do not fit the outputs.
        CacheError: the result cannot be kept.
    """
    key = _key(model, recipe, calibration, evaluation)
    folder = cache.load(key)
    if folder is not None:
        return _read_entry(folder)
    check_eligible(model.traits, recipe)
    base = model
    if model.is_quantized and recipe.scheme is not Scheme.AS_IS:
        base = restore_float32(model)
        _prove_restored(base, recipe, evaluation)
    pruned, facts = prune(base, recipe.pruning.share) if recipe.pruning.share else (base, None)
    candidate, float_ops = quantize(pruned, recipe, calibration)
    variant = Variant(
        recipe=recipe,
        model=candidate,
        fidelity=evaluate_candidate(candidate, recipe, evaluation),
        # Compressing takes seconds for a large model, and pruning has done it already.
        compressed_bytes=(
            facts.compressed_bytes_after
            if facts is not None and candidate is pruned
            else compressed_size(candidate.data)
        ),
        float_ops=float_ops,
        prune_facts=facts,
    )
    record = json.dumps(variant_to_json(variant), sort_keys=True)
    cache.store(key, {_MODEL_NAME: candidate.data, _FACTS_NAME: record.encode()})
    return variant


def _prove_restored(base: Model, recipe: Recipe, evaluation: EvaluationSet) -> None:
    """Refuse a model made float32 again that does not answer as the one with float16 weights."""
    proof = evaluate_candidate(base, recipe, evaluation)
    if proof.sqnr_db < _RESTORED_FLOOR_DB:
        raise OptimizeError(
            f"recipe {recipe.name!r}: expected the answers of the float16 weights from the same "
            f"weights in float32, but they are {proof.sqnr_db:.1f} dB apart",
            remedy="Give the float32 model it was made from, or pack it with --recipe as_is.",
        )


def evaluate_candidate(candidate: Model, recipe: Recipe, evaluation: EvaluationSet) -> Fidelity:
    """Run a candidate on the evaluation set and compare it with the float reference.

    Raises:
        OptimizeError: it cannot run on this machine.
        DataError: labels that do not fit the outputs.
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
    return compare_outputs(
        evaluation.reference,
        [_convert(dequantize_array, result, outputs) for result in results],
        names=tuple(spec.name for spec in outputs),
        labels=evaluation.labels,
    )


def variant_to_json(variant: Variant) -> dict[str, object]:
    """Give a variant's facts as JSON values; the flatbuffer itself is not among them."""
    facts = variant.prune_facts
    return {
        "recipe": recipe_to_json(variant.recipe),
        "size_bytes": variant.model.num_bytes,
        "sha256": variant.model.sha256,
        "compressed_bytes": variant.compressed_bytes,
        "fidelity": fidelity_to_json(variant.fidelity),
        "float_ops": list(variant.float_ops),
        "prune_facts": None if facts is None else prune_facts_to_json(facts),
    }


def parse_variant(table: Mapping[str, object], *, model: Model) -> Variant:
    """Read a variant from its facts and the model they speak of.

    Raises:
        OptimizeError: they break the schema or speak of another model; all faults are listed.
    """
    fields = Fields(table)
    variant = Variant(
        recipe=read_recipe(fields.table("recipe", required=True)),
        model=model,
        fidelity=read_fidelity(fields.table("fidelity", required=True)),
        compressed_bytes=fields.integer("compressed_bytes", minimum=0),
        float_ops=fields.texts("float_ops", ()),
        prune_facts=(
            None
            if fields.raw("prune_facts") is None
            else read_prune_facts(fields.table("prune_facts"))
        ),
    )
    if fields.text("sha256") != model.sha256 or fields.integer("size_bytes") != model.num_bytes:
        fields.fault("sha256", f"expected that of the model beside it, {model.sha256}")
    fields.close()
    if fields.faults:
        raise OptimizeError(
            join_faults("variant", fields.faults), remedy="Build the variant again."
        )
    return variant


def _convert(
    change: Any,  # noqa: ANN401 - quantize_array or dequantize_array
    arrays: Sequence[NDArray[Any]],
    specs: Sequence[TensorSpec],
) -> tuple[NDArray[Any], ...]:
    return tuple(change(array, spec) for array, spec in zip(arrays, specs, strict=True))


def _key(model: Model, recipe: Recipe, calibration: Feeds | None, evaluation: EvaluationSet) -> str:
    return digest_parts(
        "variant",
        model=model.sha256,
        recipe=json.dumps(recipe_to_json(recipe), sort_keys=True),
        # Other schemes do not look at it, so other data must not make them anew.
        calibration=digest_feeds(calibration) if recipe.is_static and calibration else None,
        evaluation=evaluation.digest,
        source=source_digest(
            child,
            comparison,
            eligibility,
            evaluate,
            evaluate_worker,
            agreement,
            compare,
            record,
            flatbuffer,
            model_module,
            prune_module,
            quantize_module,
            quantize_worker,
            recipe_module,
            restore,
            shares,
            traits,
        ),
        libraries=json.dumps({name: version(name) for name in _LIBRARIES}),
    )


def _read_entry(folder: Path) -> Variant:
    try:
        model = read_model((folder / _MODEL_NAME).read_bytes())
        return parse_variant(json.loads((folder / _FACTS_NAME).read_bytes()), model=model)
    except (OSError, ValueError, ModelError, OptimizeError) as error:
        raise CacheError(
            f"the kept result {folder} cannot be read: {error}",
            remedy="Remove that folder and try again.",
        ) from error
