"""Pruning as a recipe asks for it: by its kind, and stored so that its zeros pay."""

from dataclasses import dataclass, replace
from typing import Final

from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.fidelity import compare_outputs
from edgepack.model import Model
from edgepack.optimize.judging.evaluation import EvaluationSet, answer_candidate
from edgepack.optimize.pruning.prune import PruneFacts, count_pruned, prune
from edgepack.optimize.pruning.sparse_facts import SparseFacts, keep_dense
from edgepack.optimize.pruning.sparse_storage import store_sparse
from edgepack.optimize.pruning.sparsegpt import prune_sparsegpt
from edgepack.optimize.pruning.structured import ChannelFacts, prune_structured
from edgepack.optimize.quantizing.bias_scale import hold_biases
from edgepack.optimize.recipes.recipe import PruneKind, Recipe

# Sparse kernels add the same numbers in another order.
_SAME_ANSWERS_DB: Final = 80.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """A pruned float model.

    Attributes:
        model: as it came, when nothing was pruned.
        weights: what pruning of single weights did; None when it was not done.
        channels: what pruning of whole channels did; None when it was not done.
    """

    model: Model
    weights: PruneFacts | None = None
    channels: ChannelFacts | None = None


def prune_model(model: Model, recipe: Recipe, calibration: Feeds | None) -> Pruned:
    """Prune a float model as a recipe says.

    Args:
        model: float32.
        recipe: its pruning's kind and share; a share of 0 prunes nothing.
        calibration: real inputs, for the kinds that look at them.

    Raises:
        RecipeError: a kind that looks at real inputs, without any.
        OptimizeError: the model cannot be pruned so.
    """
    pruning = recipe.pruning
    if not pruning.share:
        return Pruned(model=model)
    match pruning.kind:
        case PruneKind.MAGNITUDE:
            result, facts = prune(model, pruning.share)
        case PruneKind.SPARSEGPT:
            result, facts = prune_sparsegpt(model, pruning.share, calibration)
        case PruneKind.STRUCTURED:
            result, groups = prune_structured(model, pruning.share, calibration)
            return Pruned(model=result, channels=groups)
    if recipe.is_static:
        held = hold_biases(result)
        if held is not result:
            result, facts = held, count_pruned(model, held)
    return Pruned(model=result, weights=facts)


def store_zeros(
    model: Model, recipe: Recipe, evaluation: EvaluationSet
) -> tuple[Model, SparseFacts | None]:
    """Store a pruned model's zeros sparsely, if the runtime answers the same with them.

    Args:
        model: pruned, and quantized as it is to be.
        recipe: what was done; whole channels leave no zeros.
        evaluation: its first sample is run on both files.

    Raises:
        OptimizeError: the model does not run here, however it is stored.
    """
    if not recipe.pruning.share or recipe.pruning.kind is PruneKind.STRUCTURED:
        return model, None
    stored, facts = store_sparse(model)
    if stored is model:
        return model, facts
    first = replace(evaluation, feeds=evaluation.feeds[:1])
    dense = answer_candidate(model, recipe, first)
    try:
        sparse = answer_candidate(stored, recipe, first)
    except OptimizeError as error:
        return model, keep_dense(facts, error.message)
    names = tuple(spec.name for spec in model.signature.outputs)
    distance_db = compare_outputs(dense, sparse, names=names).sqnr_db
    if distance_db < _SAME_ANSWERS_DB:
        reason = f"the runtime's answers are {distance_db:.1f} dB from those of the dense file"
        return model, keep_dense(facts, reason)
    return stored, facts
