"""Carrying out a search: each recipe it proposes is built, judged, measured and told back."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgepack.optimize.choosing.choose import Choice, Objective
from edgepack.optimize.choosing.search import Search, SearchSpace, Trial
from edgepack.optimize.ranking.sensitivity import Sensitivity
from edgepack.optimize.recipes.eligibility import refuse_float_pass
from edgepack.optimize.recipes.recipe import Recipe, stock_recipe
from edgepack.profile import Scheme
from edgepack.traits import Numerics, StateKind, Traits
from edgepack.workflow.request import (
    Outcome,
    PackRequest,
    ProgressCallback,
    SearchProgress,
)

BuildOutcome = Callable[[Recipe], Outcome]
"""Builds, judges and measures a recipe."""

ChooseOutcome = Callable[[Sequence[Outcome]], Choice]
"""Chooses among outcomes that have a variant."""


def make_space(
    request: PackRequest,
    traits: Traits,
    *,
    has_calibration: bool,
    can_fuse: bool,
    num_layers: int,
    is_measured: bool,
) -> SearchSpace:
    """Give what may be tried on a model for a target.

    Channels are taken out only where that shows: of a latency nobody measures, fewer channels
    would be chosen by nothing.
    """
    base = float_recipe(traits)
    schemes = [
        *request.profile.schemes,
        # The smallest that keeps float activations, whatever the target is quick at.
        *((Scheme.WEIGHT_ONLY_INT8,) if request.objective is Objective.SIZE else ()),
    ]
    is_stream = traits.state is StateKind.STREAM
    is_float = refuse_float_pass(traits) is None
    can_walk = has_calibration and is_float and not traits.has_loop and not is_stream
    return SearchSpace(
        base=base.scheme,
        # What the model or the data do not allow is proposed all the same: the result says why.
        schemes=tuple(dict.fromkeys(schemes)),
        objective=request.objective,
        can_refine=can_walk,
        can_fuse=can_fuse and base.scheme is Scheme.FLOAT32,
        # Memory is measured on this machine where there is no other.
        can_prune=can_walk and (is_measured or request.objective is not Objective.LATENCY),
        num_layers=num_layers,
        pruning=request.pruning,
        interface=request.interface,
    )


def float_recipe(traits: Traits, beside: Sequence[Recipe] = ()) -> Recipe:
    """Give the recipe that leaves a model as it came, under a name that no other has."""
    recipe = stock_recipe(
        Scheme.FLOAT32 if traits.numerics is Numerics.FLOAT32 else Scheme.AS_IS,
    )
    if recipe.name in {each.name for each in beside}:
        return replace(recipe, name=f"{recipe.name}+unchanged")
    return recipe


def run_search(
    search: Search,
    build: BuildOutcome,
    choose: ChooseOutcome,
    *,
    num_planned: int,
    on_progress: ProgressCallback,
) -> tuple[tuple[Outcome, ...], bool]:
    """Build what a search proposes until it ends, or the user ends it.

    Ctrl-C ends it when there is something to keep; a second one ends everything.

    Args:
        search: not begun.
        build: builds, judges and measures one recipe.
        choose: gives the best so far.
        num_planned: candidates that will be proposed at least.
        on_progress: called after each candidate.

    Returns:
        What came of each recipe, and whether the user ended the search.

    Raises:
        EdgePackError: as `build`.
        KeyboardInterrupt: before anything could be kept.
    """
    outcomes: list[Outcome] = []
    try:
        recipe = next(search)
        while True:
            outcome = build(recipe)
            outcomes.append(outcome)
            on_progress(_progress(outcomes, choose, num_planned))
            recipe = search.send(to_trial(outcome))
    except StopIteration:
        return tuple(outcomes), False
    except KeyboardInterrupt:
        progress = _progress(outcomes, choose, num_planned, is_interrupted=True)
        if progress.best is None:
            raise
        on_progress(progress)
        return tuple(outcomes), True


def count_evaluations(
    outcomes: Sequence[Outcome], sensitivity: Sensitivity | None, *, num_samples: int
) -> float:
    """Count the runs of a whole model over the evaluation samples that a search takes.

    Args:
        outcomes: each that was built was run once.
        sensitivity: of the layers, which runs on samples of its own; None when nobody asked.
        num_samples: of the evaluation.
    """
    count = float(sum(each.variant is not None for each in outcomes))
    if sensitivity is not None:
        count += sensitivity.num_evaluations * sensitivity.num_samples / num_samples
    return round(count, 1)


def to_trial(outcome: Outcome) -> Trial:
    """Give what a search learns of an outcome: where it was measured, the device's word counts."""
    latency = outcome.device or outcome.host
    # With some layers in float it would be as little of use.
    variant = None if outcome.skipped_reason else outcome.variant
    return Trial(
        is_inside=outcome.within_budget,
        num_bytes=None if variant is None else variant.model.num_bytes,
        median_ns=None if latency is None else latency.median_ns,
        memory_bytes=None if latency is None else latency.memory_bytes,
    )


def _progress(
    outcomes: Sequence[Outcome],
    choose: ChooseOutcome,
    num_planned: int,
    *,
    is_interrupted: bool = False,
) -> SearchProgress:
    eligible = [each for each in outcomes if each.variant is not None and not each.skipped_reason]
    choice = choose(eligible) if eligible else None
    best = eligible[choice.index] if choice is not None and choice.index is not None else None
    latency = None if best is None else best.device or best.host
    return SearchProgress(
        num_done=len(outcomes),
        num_total=max(num_planned, len(outcomes)),
        best=None if best is None else best.recipe.name,
        best_sqnr_db=best.variant.fidelity.sqnr_db if best and best.variant else None,
        best_latency_ns=None if latency is None else latency.median_ns,
        best_bytes=best.variant.model.num_bytes if best and best.variant else None,
        is_interrupted=is_interrupted,
    )
