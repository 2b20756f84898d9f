"""Variants: a recipe carried out on a model, with what it cost and how near it stayed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from edgepack import (
    child,
    comparison,
    evaluate,
    evaluate_worker,
    fidelity,
    flatbuffer,
    graph,
    optimize,
    shares,
    traits,
)
from edgepack import model as model_module
from edgepack._fields import Fields, join_faults
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.errors import CacheError, ModelError, OptimizeError
from edgepack.evaluate import Answers, Feeds
from edgepack.fidelity import Fidelity, read_fidelity
from edgepack.fidelity import to_json as fidelity_to_json
from edgepack.model import Model, read_model
from edgepack.optimize.equalizing.equalize import (
    EqualizeFacts,
    equalize,
    equalize_facts_to_json,
    read_equalize_facts,
)
from edgepack.optimize.fusing.fusion import (
    FusionFacts,
    fuse,
    fusion_facts_to_json,
    read_fusion_facts,
)
from edgepack.optimize.judging.collapse import find_collapse
from edgepack.optimize.judging.composition import check_composition
from edgepack.optimize.judging.evaluation import (
    EvaluationSet,
    answer_candidate,
    compare_answers,
    digest_feeds,
    with_task,
)
from edgepack.optimize.judging.findings import Finding, findings_to_json, read_findings
from edgepack.optimize.pruning.prune import (
    PruneFacts,
    compressed_size,
    prune_facts_to_json,
    read_prune_facts,
)
from edgepack.optimize.pruning.pruning import prune_model, store_zeros
from edgepack.optimize.pruning.sparse_facts import (
    SparseFacts,
    read_sparse_facts,
    sparse_facts_to_json,
)
from edgepack.optimize.pruning.structured import (
    ChannelFacts,
    channel_facts_to_json,
    read_channel_facts,
)
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.quantizing.refine import Refined, refine
from edgepack.optimize.quantizing.restore import restore_float32
from edgepack.optimize.recipes.eligibility import check_eligible
from edgepack.optimize.recipes.recipe import Recipe, read_recipe, recipe_to_json
from edgepack.profile import Scheme

# What decides the bytes of a variant and its figures, besides our own source.
_LIBRARIES: Final = ("ai-edge-litert", "ai-edge-quantizer", "flatbuffers", "numpy")
# Two runs of the same numbers, which kernels may add in another order.
_RESTORED_FLOOR_DB: Final = 80.0
_MODEL_NAME: Final = "model.tflite"
_FACTS_NAME: Final = "facts.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A recipe carried out.

    Attributes:
        recipe: what was done.
        model: what came of it.
        fidelity: against the float model, on the evaluation set.
        compressed_bytes: size of the flatbuffer under zlib level 9.
        float_ops: kinds of op left in float as the quantizer failed at them.
        float_layers: names of what ops give that were left in float, as they join or give
            channels of unlike ranges that an output is made of.
        prune_facts: what pruning of single weights did; None when the recipe does not.
        channel_facts: what pruning of whole channels did; None when the recipe does not.
        sparse_facts: how zeros are stored; None when the recipe makes none.
        fusion_facts: what fusion did; None when the recipe does not.
        equalize_facts: what equalization did; None when the recipe does not.
        findings: what is wrong or doubtful about it.
    """

    recipe: Recipe
    model: Model
    fidelity: Fidelity
    compressed_bytes: int
    float_ops: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    prune_facts: PruneFacts | None = None
    channel_facts: ChannelFacts | None = None
    sparse_facts: SparseFacts | None = None
    fusion_facts: FusionFacts | None = None
    equalize_facts: EqualizeFacts | None = None
    findings: tuple[Finding, ...] = ()


def build_variant(
    model: Model,
    recipe: Recipe,
    *,
    calibration: Feeds | None,
    evaluation: EvaluationSet,
    cache: Cache,
) -> Variant:
    """Carry out a recipe on a float model and compare the result with it; cached.

    Float16 weights are made float32 first; fusion and pruning come before quantization. Feeds of a
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
        DataError: labels that do not fit the outputs, or a metric of the user's that fails.
        CacheError: the result cannot be kept.
    """
    key = _key(model, recipe, calibration, evaluation)
    folder = cache.load(key)
    if folder is not None:
        variant = _read_entry(folder)
        if evaluation.task is None:
            return variant
        return _with_task(variant, evaluation, answer_candidate(variant.model, recipe, evaluation))
    check_eligible(model.traits, recipe)
    base = model
    if model.is_quantized and recipe.scheme is not Scheme.AS_IS:
        base = restore_float32(model)
        _prove_restored(base, recipe, evaluation)
    fused, fusion_facts = fuse(base, recipe, evaluation) if recipe.fuse else (base, None)
    pruned = prune_model(fused, recipe, calibration)
    equalized, equalize_facts = pruned.model, None
    if recipe.equalize:
        equalized, equalize_facts = equalize(pruned.model, calibration)
    refined = Refined(model=equalized)
    if recipe.is_refined:
        refined = refine(equalized, recipe, calibration)
    quantized = quantize(refined.model, recipe, calibration, weight_bounds=refined.weight_bounds)
    candidate, sparse_facts = store_zeros(quantized.model, recipe, evaluation)
    answers = answer_candidate(candidate, recipe, evaluation)
    variant = Variant(
        recipe=recipe,
        model=candidate,
        fidelity=compare_answers(answers, candidate, evaluation),
        compressed_bytes=compressed_size(candidate.data),
        float_ops=quantized.float_ops,
        float_layers=quantized.float_layers,
        prune_facts=pruned.weights,
        channel_facts=pruned.channels,
        sparse_facts=sparse_facts,
        fusion_facts=fusion_facts,
        equalize_facts=equalize_facts,
        findings=(
            *find_collapse(
                evaluation.reference,
                answers,
                names=tuple(spec.name for spec in candidate.signature.outputs),
            ),
            *check_composition(candidate, model, recipe, kept=quantized.float_layers),
        ),
    )
    record = json.dumps(variant_to_json(variant), sort_keys=True)
    cache.store(key, {_MODEL_NAME: candidate.data, _FACTS_NAME: record.encode()})
    return _with_task(variant, evaluation, answers)


def _with_task(variant: Variant, evaluation: EvaluationSet, answers: Answers) -> Variant:
    return replace(variant, fidelity=with_task(variant.fidelity, answers, evaluation))


def _prove_restored(base: Model, recipe: Recipe, evaluation: EvaluationSet) -> None:
    """Refuse a model made float32 again that does not answer as the one with float16 weights."""
    proof = compare_answers(answer_candidate(base, recipe, evaluation), base, evaluation)
    if proof.sqnr_db < _RESTORED_FLOOR_DB:
        raise OptimizeError(
            f"recipe {recipe.name!r}: expected the answers of the float16 weights from the same "
            f"weights in float32, but they are {proof.sqnr_db:.1f} dB apart",
            remedy="Give the float32 model it was made from, or pack it with --recipe as_is.",
        )


def variant_to_json(variant: Variant) -> dict[str, object]:
    """Give a variant's facts as JSON values; the flatbuffer itself is not among them."""
    weights, channels, sparse = variant.prune_facts, variant.channel_facts, variant.sparse_facts
    fused, equalized = variant.fusion_facts, variant.equalize_facts
    return {
        "recipe": recipe_to_json(variant.recipe),
        "size_bytes": variant.model.num_bytes,
        "sha256": variant.model.sha256,
        "compressed_bytes": variant.compressed_bytes,
        "fidelity": fidelity_to_json(variant.fidelity),
        "float_ops": list(variant.float_ops),
        "float_layers": list(variant.float_layers),
        "prune_facts": None if weights is None else prune_facts_to_json(weights),
        "channel_facts": None if channels is None else channel_facts_to_json(channels),
        "sparse_facts": None if sparse is None else sparse_facts_to_json(sparse),
        "fusion_facts": None if fused is None else fusion_facts_to_json(fused),
        "equalize_facts": None if equalized is None else equalize_facts_to_json(equalized),
        "findings": findings_to_json(variant.findings),
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
        float_layers=fields.texts("float_layers", ()),
        prune_facts=(
            None
            if fields.raw("prune_facts") is None
            else read_prune_facts(fields.table("prune_facts"))
        ),
        channel_facts=(
            None
            if fields.raw("channel_facts") is None
            else read_channel_facts(fields.table("channel_facts"))
        ),
        sparse_facts=(
            None
            if fields.raw("sparse_facts") is None
            else read_sparse_facts(fields.table("sparse_facts"))
        ),
        fusion_facts=(
            None
            if fields.raw("fusion_facts") is None
            else read_fusion_facts(fields.table("fusion_facts"))
        ),
        equalize_facts=(
            None
            if fields.raw("equalize_facts") is None
            else read_equalize_facts(fields.table("equalize_facts"))
        ),
        findings=read_findings(fields, "findings"),
    )
    if fields.text("sha256") != model.sha256 or fields.integer("size_bytes") != model.num_bytes:
        fields.fault("sha256", f"expected that of the model beside it, {model.sha256}")
    fields.close()
    if fields.faults:
        raise OptimizeError(
            join_faults("variant", fields.faults), remedy="Build the variant again."
        )
    return variant


def _key(model: Model, recipe: Recipe, calibration: Feeds | None, evaluation: EvaluationSet) -> str:
    return digest_parts(
        "variant",
        model=model.sha256,
        recipe=json.dumps(recipe_to_json(recipe), sort_keys=True),
        # Other schemes do not look at it, so other data must not make them anew.
        calibration=(
            digest_feeds(calibration) if recipe.needs_calibration and calibration else None
        ),
        evaluation=evaluation.digest,
        source=source_digest(
            optimize,
            fidelity,
            child,
            comparison,
            evaluate,
            evaluate_worker,
            flatbuffer,
            graph,
            model_module,
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
