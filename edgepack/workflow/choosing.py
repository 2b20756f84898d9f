"""Choosing the outcome that is packed, and showing once more that it is quicker than float."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgepack.errors import LimitError, MeasureError
from edgepack.optimize.choosing.choose import Candidate, Choice, Objective, choose
from edgepack.optimize.choosing.variant import Variant
from edgepack.optimize.recipes.recipe import PruneKind
from edgepack.workflow.request import Outcome, PackRequest
from edgepack.workflow.turns import Turns

HOST: Final = "host"

# A variant is timed in turns with the float model though its trial's interval overlaps, if its
# median is at most so much of it. Each takes nine launches of both.
_PROMISE: Final = 0.95
_MOST_PROMISING: Final = 2

TakeTurns = Callable[[Variant, Variant], Turns]
"""Times a variant in turns with another, where the choice is made for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What is packed.

    Attributes:
        outcome: the one that is.
        choice: why.
        outcomes: all, as they stand after timing in turns.
        is_interrupted: whether the user ended that, so that the trials alone decide.
    """

    outcome: Outcome
    choice: Choice
    outcomes: tuple[Outcome, ...]
    is_interrupted: bool = False


def choose_outcome(
    request: PackRequest,
    outcomes: Sequence[Outcome],
    *,
    measured_on: str | None,
    take_turns: TakeTurns,
    is_interrupted: bool = False,
) -> Chosen:
    """Choose what is packed.

    What latency chose over the float model is timed in turns with it. If that does not show it
    to be quicker, it is passed over, and the next is chosen. Where the trials, which are minutes
    apart, show none to be quicker, the two whose medians promise it most are timed in turns too.
    Ctrl-C meanwhile keeps what the trials chose.

    Args:
        request: what was asked for.
        outcomes: at least one.
        measured_on: the device whose latency decides; None when none does.
        take_turns: times one variant with another.
        is_interrupted: whether the user has ended the search already: now Ctrl-C ends everything.

    Raises:
        LimitError: none could be built, or none is inside the floors.
        KeyboardInterrupt: the second one.
    """
    left = list(outcomes)
    passed: list[Outcome] = []
    num_promising = 0
    while True:
        chosen, choice = _choose(request, left, measured_on=measured_on)
        if passed:
            choice = replace(choice, reason=_tell_passed(passed, chosen, choice))
        stays = Chosen(outcome=chosen, choice=choice, outcomes=tuple(left))
        reference = next((each for each in left if each.is_reference and _is_eligible(each)), None)
        if (
            request.is_forced
            or request.objective is not Objective.LATENCY
            or choice.measured_on is None
            or reference is None
            or reference.variant is None
        ):
            return stays
        name = reference.recipe.name
        rival: Outcome | None = chosen
        if chosen.is_reference:
            is_over = is_interrupted or num_promising == _MOST_PROMISING
            rival = None if is_over else _find_promising(left, reference, measured_on=measured_on)
            num_promising += 1
            choice = choice if rival is None else _promise(rival, name, choice)
        if rival is None or rival.variant is None:
            return stays
        try:
            turns = take_turns(rival.variant, reference.variant)
            said = f"in turns with {name} it takes {turns.text}"
            is_quicker = turns.is_quicker
        except MeasureError as error:
            said, is_quicker = f"it could not be timed in turns: {error.message}", False
        except KeyboardInterrupt:
            if is_interrupted:
                raise
            it = "it" if rival is chosen else rival.recipe.name
            said = f"timing {it} in turns with {name} was interrupted, so the trials alone decide"
            kept = replace(stays.choice, reason=f"{stays.choice.reason}; {said}")
            return replace(stays, choice=kept, is_interrupted=True)
        if is_quicker:
            shown = replace(choice, reason=f"{choice.reason}; {said}")
            return replace(stays, outcome=rival, choice=shown)
        passed.append(replace(rival, skipped_reason=f"not shown to be quicker: {said}"))
        left[left.index(rival)] = passed[-1]


def _find_promising(
    outcomes: Sequence[Outcome], reference: Outcome, *, measured_on: str | None
) -> Outcome | None:
    """Give what the trials promise to be quickest, if by enough that timing in turns pays."""
    bound = _candidate(reference, measured_on=measured_on).median_ns
    if bound is None:
        return None
    promising = [
        (latency, place)
        for place, each in enumerate(outcomes)
        if _is_eligible(each)
        and each.within_budget
        and (latency := _candidate(each, measured_on=measured_on).median_ns) is not None
        and latency <= _PROMISE * bound
    ]
    return outcomes[min(promising)[1]] if promising else None


def _promise(rival: Outcome, reference: str, choice: Choice) -> Choice:
    """Say why something is timed in turns that the trials did not choose."""
    return replace(
        choice,
        index=None,
        tied=(),
        reason=f"{rival.recipe.name} has the least median inside the floors on "
        f"{choice.measured_on}, though the trials alone do not tell it from {reference}",
    )


def _tell_passed(passed: Sequence[Outcome], chosen: Outcome, choice: Choice) -> str:
    """Say what was passed over, so that nobody takes it for outside the floors."""
    told = "; ".join(
        f"{each.recipe.name} is inside the floors but {each.skipped_reason}" for each in passed
    )
    if chosen.is_reference and choice.tied == (choice.index,):
        return f"{told}; so {chosen.recipe.name} stays"
    return f"{told}; of the others {choice.reason}"


def needs_bound(
    request: PackRequest, outcomes: Sequence[Outcome], *, measured_on: str | None
) -> bool:
    """Tell whether latency would choose among named recipes without the float model beside them.

    Where none of them is inside the floors, none is chosen: the float model was not asked for.
    """
    return (
        not request.is_forced
        and request.objective is Objective.LATENCY
        and measured_on is not None
        and any(each.within_budget for each in outcomes)
        and not any(each.is_reference for each in outcomes)
    )


def _choose(
    request: PackRequest, outcomes: Sequence[Outcome], *, measured_on: str | None
) -> tuple[Outcome, Choice]:
    if request.is_forced:
        return outcomes[0], Choice(index=0, reason="the recipe that was asked for")
    eligible = [each for each in outcomes if _is_eligible(each)]
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


def _is_eligible(outcome: Outcome) -> bool:
    return outcome.variant is not None and outcome.skipped_reason is None


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
