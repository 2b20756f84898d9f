"""Choosing the outcome that is packed, and showing once more that it is quicker than float."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from edgepack.errors import LimitError, MeasureError
from edgepack.optimize.choose import Candidate, Choice, Objective, choose
from edgepack.optimize.recipe import PruneKind
from edgepack.optimize.variant import Variant
from edgepack.workflow.request import Outcome, PackRequest
from edgepack.workflow.turns import Turns

HOST: Final = "host"

TakeTurns = Callable[[Variant, Variant], Turns]
"""Times a variant in turns with another, where the choice is made for."""


def choose_outcome(
    request: PackRequest,
    outcomes: Sequence[Outcome],
    *,
    measured_on: str | None,
    take_turns: TakeTurns,
) -> tuple[Outcome, Choice, tuple[Outcome, ...]]:
    """Choose what is packed.

    What latency chose over the float model is timed in turns with it. If that does not show it
    to be quicker, it is passed over, and the next is chosen.

    Returns:
        The outcome, why, and all outcomes as they stand after that.

    Raises:
        LimitError: none could be built, or none is inside the floors.
        MeasureError: the float model cannot be timed again.
    """
    left = list(outcomes)
    while True:
        chosen, choice = _choose(request, left, measured_on=measured_on)
        reference = next((each for each in left if each.is_reference), None)
        if (
            request.is_forced
            or request.objective is not Objective.LATENCY
            or choice.measured_on is None
            or reference is None
            or chosen is reference
            or chosen.variant is None
            or reference.variant is None
        ):
            return chosen, choice, tuple(left)
        try:
            turns = take_turns(chosen.variant, reference.variant)
            said = f"in turns with {reference.recipe.name} it takes {turns.text}"
            is_quicker = turns.is_quicker
        except MeasureError as error:
            said, is_quicker = f"it could not be timed in turns: {error.message}", False
        if is_quicker:
            return chosen, replace(choice, reason=f"{choice.reason}; {said}"), tuple(left)
        passed = replace(chosen, skipped_reason=f"not shown to be quicker: {said}")
        left[left.index(chosen)] = passed


def _choose(
    request: PackRequest, outcomes: Sequence[Outcome], *, measured_on: str | None
) -> tuple[Outcome, Choice]:
    if request.is_forced:
        return outcomes[0], Choice(index=0, reason="the recipe that was asked for")
    eligible = [
        each for each in outcomes if each.variant is not None and each.skipped_reason is None
    ]
    if not eligible:
        reasons = "; ".join(f"{each.recipe.name}: {each.skipped_reason}" for each in outcomes)
        raise LimitError(
            f"expected a variant to choose, but none could be built and run: {reasons}",
            remedy="Mend what the reasons name, or give another recipe.",
        )
    choice = choose_among(request, eligible, measured_on=measured_on)
    if choice.index is None:
        raise LimitError(
            choice.reason,
            remedy="Lower the floors (--min-sqnr, --min-agreement, --max-drop), add the recipe "
            "float16 or float32, or pack one recipe by its name.",
        )
    return eligible[choice.index], choice


def choose_among(
    request: PackRequest, eligible: Sequence[Outcome], *, measured_on: str | None
) -> Choice:
    """Choose among outcomes that have a variant.

    Args:
        request: its objective and its target's order of schemes are looked at.
        eligible: at least one.
        measured_on: the device whose latency decides; None when none does.
    """
    return choose(
        [_candidate(each, measured_on=measured_on) for each in eligible],
        objective=request.objective,
        schemes=request.profile.schemes,
    )


def _candidate(outcome: Outcome, *, measured_on: str | None) -> Candidate:
    if outcome.variant is None:
        raise ValueError(f"{outcome.recipe.name} has no variant")
    latency = outcome.host if measured_on == HOST else outcome.device
    interval = latency.median_ci95_ns if latency is not None else None
    memory = outcome.device or outcome.host
    recipe = outcome.recipe
    is_narrowed = recipe.pruning.kind is PruneKind.STRUCTURED
    return Candidate(
        name=recipe.name,
        scheme=recipe.scheme,
        num_exceptions=sum(each.scheme is not recipe.scheme for each in recipe.layers),
        channel_share=recipe.pruning.share if is_narrowed else 0.0,
        num_bytes=outcome.variant.model.num_bytes,
        fidelity=outcome.variant.fidelity,
        outside=outcome.outside,
        median_ns=latency.median_ns if latency is not None else None,
        median_ci95_ns=(float(interval[0]), float(interval[1])) if interval else None,
        measured_on=measured_on if latency is not None else None,
        memory_bytes=memory.memory_bytes if memory is not None else None,
        memory_range_bytes=memory.memory_range_bytes if memory is not None else None,
        memory_on=None if memory is None else HOST if outcome.device is None else measured_on,
        is_reference=outcome.is_reference,
    )
