"""From a source model to a bundle: import, parity, variants, measurement, choice, writing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgepack.bundle.manifest import (
    check_identity,
)
from edgepack.cache import Cache
from edgepack.errors import (
    GoldenError,
    LimitError,
    MeasureError,
    OptimizeError,
)
from edgepack.flatbuffer import read_flatbuffer
from edgepack.optimize.choosing.choose import Choice
from edgepack.optimize.choosing.search import search
from edgepack.optimize.choosing.variant import Variant, build_variant
from edgepack.optimize.fusing.fusion import count_fusible
from edgepack.optimize.judging.floors import judge, settle_floors
from edgepack.optimize.ranking.sensitivity import Sensitivity, analyze_sensitivity, rank_layers
from edgepack.optimize.recipes.eligibility import find_refusal
from edgepack.optimize.recipes.recipe import Recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from edgepack.workflow.choosing import HOST, choose_among, choose_outcome, needs_bound
from edgepack.workflow.doubts import (
    agreement_doubts,
    calibration_doubts,
    latency_doubts,
    pack_warnings,
)
from edgepack.workflow.material import Material, prepare_material
from edgepack.workflow.request import (
    Outcome,
    PackRequest,
    PackResult,
    ProgressCallback,
    StepCallback,
)
from edgepack.workflow.searching import count_evaluations, float_recipe, make_space, run_search
from edgepack.workflow.target_ops import find_target_faults
from edgepack.workflow.trial import host_is, measure_on_rig, measure_on_this_machine
from edgepack.workflow.turns import Turns, take_turns_here, take_turns_on_rig
from edgepack.workflow.writing import read_extra_files, write_packed

if TYPE_CHECKING:
    from edgepack.device.runtime.op_support import OpFault

    # A rig brings paramiko along, which packing without a device has no use for.
    from edgepack.workflow.rig import Rig

_INTERRUPTED: Final = (
    "the search was interrupted: this is the best of {count} candidates; the same command again "
    "goes on where it was"
)
_UNPROVED: Final = (
    "timing in turns was interrupted: that {name} is quicker than the float model rests on the "
    "trials alone; the same command again goes on where it was"
)


def pack_model(
    request: PackRequest,
    *,
    cache: Cache,
    rig: "Rig | None",
    on_step: StepCallback,
    on_progress: ProgressCallback,
    sign: Callable[[bytes], bytes] | None = None,
) -> PackResult:
    """Pack a model for a target; with a rig, choose by what that device measures.

    `sign` gives the signature of a manifest; without it the bundle is not signed.

    Raises:
        EdgePackError: as each stage; `LimitError` when no variant is inside the floors.
    """
    if request.name is not None or request.version is not None:
        check_identity(request.name or "model", request.version or "0")
    extra_files = read_extra_files(request)
    material = prepare_material(request, cache=cache, on_step=on_step)
    has_labels = material.evaluation_set.labels is not None
    request = replace(request, floors=settle_floors(request.floors, has_labels=has_labels))
    measured_on = rig.device.name if rig else HOST if host_is(request.profile) else None

    def build(recipe: Recipe) -> Outcome:
        outcome = _build(
            recipe, request, material, has_device=rig is not None, cache=cache, on_step=on_step
        )
        return _measure(outcome, request, material, rig=rig, cache=cache, on_step=on_step)

    is_interrupted, sensitivity = False, None
    if request.recipes:
        outcomes = tuple(build(recipe) for recipe in request.recipes)
        if needs_bound(request, outcomes, measured_on=measured_on):
            outcomes = (*outcomes, build(float_recipe(material.model.traits, request.recipes)))
    else:
        outcomes, is_interrupted, sensitivity = _search(
            request,
            material,
            build,
            measured_on=measured_on,
            cache=cache,
            on_step=on_step,
            on_progress=on_progress,
        )
    found = choose_outcome(
        request,
        outcomes,
        measured_on=measured_on,
        take_turns=lambda first, second: _take_turns(
            first, second, request, material, rig=rig, cache=cache, on_step=on_step
        ),
        is_interrupted=is_interrupted,
    )
    chosen, choice = found.outcome, found.choice
    if chosen.variant is None:
        raise LimitError(
            f"recipe {chosen.recipe.name} could not be built: {chosen.skipped_reason}",
            remedy="Choose another recipe, or give what it asks for.",
        )
    on_step("writing the bundle")
    bundle = write_packed(request, material, chosen.variant, extra_files, sign)
    return PackResult(
        bundle=bundle,
        chosen=chosen,
        outcomes=found.outcomes,
        choice=choice,
        floors=request.floors,
        measured_on=measured_on,
        parity=material.parity,
        source=material.imported.source,
        evaluation_num_samples=material.evaluation.num_samples,
        num_evaluations=count_evaluations(
            outcomes, sensitivity, num_samples=material.evaluation.num_samples
        ),
        warnings=(
            *pack_warnings(request, material, chosen),
            *calibration_doubts(material, chosen.recipe, cache=cache, on_step=on_step),
            *latency_doubts(found.outcomes, choice, is_device=rig is not None),
            *agreement_doubts(request.floors, found.outcomes),
            *([_INTERRUPTED.format(count=len(outcomes))] if is_interrupted else []),
            *([_UNPROVED.format(name=chosen.recipe.name)] if found.is_interrupted else []),
        ),
        is_interrupted=is_interrupted or found.is_interrupted,
    )


def _search(
    request: PackRequest,
    material: Material,
    build: Callable[[Recipe], Outcome],
    *,
    measured_on: str | None,
    cache: Cache,
    on_step: StepCallback,
    on_progress: ProgressCallback,
) -> tuple[tuple[Outcome, ...], bool, Sensitivity | None]:
    """Search for the best variant; say whether the user ended it, and give what it learned."""
    traits, calibration = material.model.traits, material.calibration_feeds
    num_layers = len(find_layers(read_flatbuffer(material.model.data)))
    space = make_space(
        request,
        traits,
        has_calibration=bool(calibration),
        can_fuse=count_fusible(material.model) > 0,
        num_layers=num_layers,
        is_measured=measured_on is not None,
    )

    learned: list[Sensitivity] = []

    def rank(scheme: Scheme) -> tuple[str, ...]:
        on_step("looking for the layers that cost most")
        try:
            found = analyze_sensitivity(
                material.model, calibration or (), cache=cache, on_progress=on_step
            )
        except OptimizeError as error:  # no order, so no layer is left in float
            on_step(f"layers cannot be told apart: {error.message}")
            return ()
        learned[:] = [found]
        # The search's recipes correct the bias: a shift of the mean costs them nothing.
        return rank_layers(found, scheme, corrected=True)

    def pick(eligible: Sequence[Outcome]) -> Choice:
        return choose_among(request, eligible, measured_on=measured_on)

    outcomes, is_interrupted = run_search(
        search(space, rank),
        build,
        pick,
        num_planned=2 + len(space.schemes) + int(space.can_prune),
        on_progress=on_progress,
    )
    return outcomes, is_interrupted, learned[0] if learned else None


def _build(
    recipe: Recipe,
    request: PackRequest,
    material: Material,
    *,
    has_device: bool,
    cache: Cache,
    on_step: StepCallback,
) -> Outcome:
    if not request.is_forced:
        refusal = find_refusal(material.model.traits, recipe)
        if refusal is None and recipe.needs_calibration and not material.calibration:
            refusal = "needs calibration data: give some with --data"
        if refusal is not None:
            return Outcome(recipe=recipe, skipped_reason=refusal)
    on_step(f"building {recipe.name}")
    try:
        variant = build_variant(
            material.model,
            recipe,
            calibration=material.calibration_feeds,
            evaluation=material.evaluation_set,
            cache=cache,
        )
    except OptimizeError as error:
        if request.is_forced:
            raise
        return Outcome(recipe=recipe, skipped_reason=error.message)
    # The float model keeps all of itself, however few samples there are to show it.
    is_reference = variant.model.sha256 == material.model.sha256
    faults: tuple[OpFault, ...] = ()
    if not (is_reference or request.is_forced or has_device):
        faults = find_target_faults(variant.model, request.profile)
    return Outcome(
        recipe=recipe,
        variant=variant,
        skipped_reason="; ".join(each.found for each in faults) or None,
        outside=()
        if is_reference
        else judge(variant.fidelity, request.floors, findings=variant.findings),
        is_reference=is_reference,
    )


def _measure(
    outcome: Outcome,
    request: PackRequest,
    material: Material,
    *,
    rig: "Rig | None",
    cache: Cache,
    on_step: StepCallback,
) -> Outcome:
    """Measure a variant on the device, when it is inside the floors; else on this machine.

    With a device at hand this machine's latency would decide nothing, and takes as long.
    """
    if outcome.variant is None or outcome.skipped_reason:
        return outcome
    if rig is not None and outcome.outside and not request.is_forced:
        return outcome
    feeds = material.evaluation_set.feeds
    try:
        if rig is None:
            latency = measure_on_this_machine(
                outcome.variant,
                feeds,
                num_threads=_host_threads(request),
                cache=cache,
                on_step=on_step,
                remeasure=request.remeasure,
            )
            return replace(outcome, host=latency)
        latency = measure_on_rig(
            rig,
            outcome.variant,
            material.model,
            feeds,
            profile=request.profile,
            name=request.model.name,
            run=material.run,
            on_step=on_step,
        )
        return replace(outcome, device=latency)
    except (GoldenError, MeasureError) as error:
        if request.is_forced:
            raise
        return replace(outcome, skipped_reason=error.message)


def _take_turns(
    variant: Variant,
    reference: Variant,
    request: PackRequest,
    material: Material,
    *,
    rig: "Rig | None",
    cache: Cache,
    on_step: StepCallback,
) -> Turns:
    if rig is not None:
        return take_turns_on_rig(
            rig,
            variant,
            reference,
            num_threads=rig.num_threads(request.profile),
            target=request.profile.id,
            on_step=on_step,
        )
    return take_turns_here(
        variant,
        reference,
        material.evaluation_set.feeds,
        num_threads=_host_threads(request),
        cache=cache,
        on_step=on_step,
        remeasure=request.remeasure,
    )


def _host_threads(request: PackRequest) -> int:
    """Give the target's threads; more than cores wait for each other: 16 times slower was seen."""
    return min(request.profile.num_threads or 1, os.cpu_count() or 1)
