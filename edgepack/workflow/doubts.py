"""What is doubtful about a variant, and about what it was made and judged on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgepack.cache import Cache
from edgepack.errors import ModelError
from edgepack.fidelity import Judgement
from edgepack.importers import describe_left_out
from edgepack.measure.validity import VerdictName
from edgepack.model import Model
from edgepack.optimize.choosing.choose import Choice
from edgepack.optimize.judging.activity import check_calibration
from edgepack.optimize.judging.findings import Severity
from edgepack.optimize.judging.floors import Floors, judge
from edgepack.optimize.recipes.eligibility import describe
from edgepack.optimize.recipes.recipe import InterfaceType, Recipe
from edgepack.profile import Scheme
from edgepack.workflow.material import Material
from edgepack.workflow.request import DEFAULT_PARITY_DB, Outcome, PackRequest, StepCallback
from edgepack.workflow.target_ops import find_target_faults

_SHOWN_NAMES: Final = 4


def calibration_doubts(
    material: Material, recipe: Recipe, *, cache: Cache, on_step: StepCallback
) -> tuple[str, ...]:
    """Say that calibration data are too few, or unlike what the variant was judged on.

    Recipes that look at no calibration data have no such doubts.

    Raises:
        CacheError: the result cannot be kept.
    """
    calibration = material.calibration_feeds
    if not recipe.needs_calibration or not calibration:
        return ()
    on_step("comparing calibration and evaluation data")
    try:
        findings = check_calibration(
            material.model, calibration, material.evaluation_set.feeds, cache=cache
        )
    # Keeping every tensor takes more memory than running the model, which has worked already.
    except ModelError as error:
        return (f"calibration and evaluation data could not be compared: {error.message}",)
    return tuple(each.advice for each in findings)


def agreement_doubts(floors: Floors, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Say which variants only their top-1 agreement keeps out, and how to lift that floor.

    Every float output of shape (rows, 2 or more) is judged as one of classes, though it may be an
    embedding or several regressed values, of which the largest means nothing.
    """
    if floors.max_drop is not None:
        return ()
    without = replace(floors, min_agreement=0.0)
    kept_out = [
        outcome.recipe.name
        for outcome in outcomes
        if outcome.variant is not None
        and outcome.outside
        and not outcome.is_reference
        and not judge(outcome.variant.fidelity, without, findings=outcome.variant.findings)
    ]
    if not kept_out:
        return ()
    more = len(kept_out) - _SHOWN_NAMES
    names = ", ".join(kept_out[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
    text = (
        f"only the top-1 agreement keeps {names} outside the floors: if the outputs' largest "
        "values choose no class, as of an embedding, give --min-agreement 0"
    )
    return (text,)


def latency_doubts(
    outcomes: Sequence[Outcome], choice: Choice, *, is_device: bool
) -> tuple[str, ...]:
    """Say that the latencies a choice rests on were taken while other work or heat interfered."""
    if choice.measured_on is None:
        return ()
    doubtful = [
        f"{outcome.recipe.name} ({latency.verdict.value})"
        for outcome in outcomes
        if (latency := outcome.device if is_device else outcome.host) is not None
        and latency.verdict in {VerdictName.CONTENDED, VerdictName.THROTTLED}
    ]
    if not doubtful:
        return ()
    remedy = (
        "pack again when the device is quiet"
        if is_device
        else ("pack again with --remeasure when this machine is quiet")
    )
    return (f"the choice rests on doubtful latencies of {', '.join(doubtful)}: {remedy}",)


def _source_warnings(model: Model, chosen: Outcome) -> list[str]:
    """Say what a model's own nature means for its variants and their figures."""
    warnings: list[str] = []
    if chosen.recipe.scheme is Scheme.AS_IS and model.is_quantized:
        warnings.append(
            f"the model is packed as it is ({describe(model.traits)}): its fidelity is to itself"
        )
    return [*warnings, *nature_warnings(model)]


def nature_warnings(model: Model) -> tuple[str, ...]:
    """Say what a user should know of how a model is run: its state, signatures and open shapes."""
    warnings: list[str] = []
    if model.is_stream:
        warnings.append(
            "the model keeps state: its samples are run as one stream, in order, from the state "
            "it starts with"
        )
    signatures = model.traits.signatures
    if len(signatures) > 1:
        warnings.append(
            f"the model has {len(signatures)} signatures ({', '.join(signatures)}): "
            f"{model.signature.key} is judged and measured"
        )
    if model.traits.open_shapes:  # of an open batch everyone expects that it is one
        shapes = ", ".join(
            f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in model.signature.inputs
        )
        warnings.append(
            f"the model leaves dimensions of its inputs open: it is run with those it was saved "
            f"with ({shapes}); convert its source again for others"
        )
    return tuple(warnings)


def _interface_warnings(request: PackRequest, chosen: Outcome) -> list[str]:
    """Say that integer inputs and outputs were asked for, and float ones packed."""
    is_wish = request.interface is InterfaceType.INTEGER
    # A static recipe whose model has them in float for all that has a finding of its own.
    if not is_wish or chosen.recipe.is_static or chosen.variant is None:
        return []
    signature = chosen.variant.model.signature
    if not any(spec.dtype.startswith("float") for spec in (*signature.inputs, *signature.outputs)):
        return []
    said = f"--io integer: {chosen.recipe.name} has float inputs or outputs, as only int8 and "
    return [f"{said}int16x8 can have integers. --recipe int8 packs them whatever they cost"]


def pack_warnings(request: PackRequest, material: Material, chosen: Outcome) -> tuple[str, ...]:
    """Say what a user should know of the variant that was packed, and of what it rests on."""
    warnings = list(material.imported.source.notes)
    warnings += _source_warnings(material.model, chosen)
    if chosen.outside:
        warnings.append(f"{chosen.recipe.name} is outside the floors: {'; '.join(chosen.outside)}")
    warnings += _interface_warnings(request, chosen)
    warnings += [
        f"{chosen.recipe.name}: {each.advice}"
        for each in (chosen.variant.findings if chosen.variant else ())
        if each.severity is Severity.WARNING
    ]
    if chosen.variant is not None and chosen.device is None:
        warnings += [
            f"{chosen.recipe.name} for {request.profile.id}: {each.found}. {each.fix}"
            for each in find_target_faults(chosen.variant.model, request.profile)
        ]
    if request.data.source is None and request.data.evaluation is None:
        warnings.append(
            "fidelity was judged on generated inputs: give real ones with --data before you "
            "trust it"
        )
    calibration = material.calibration
    if calibration is not None and calibration.digest == material.evaluation.digest:
        warnings.append(
            "calibration and evaluation data are the same: fidelity looks better than on new data"
        )
    warnings += [
        f"output {each.output!r} is {each.judgement.value} on all inputs its parity was checked "
        "on: give real data with --data"
        for each in (material.parity.outputs if material.parity else ())
        if each.judgement in {Judgement.CONSTANT, Judgement.SATURATED}
    ]
    left_out = describe_left_out(material.parity.seeds) if material.parity else None
    if left_out is not None:
        warnings.append(left_out)
    if request.minimum_parity_db < DEFAULT_PARITY_DB:
        warnings.append(f"the import was allowed {request.minimum_parity_db:g} dB of parity")
    limit = request.profile.limits.bundle_mib
    size_mib = chosen.variant.model.num_bytes / 2**20 if chosen.variant else 0.0
    if limit is not None and size_mib > limit:
        warnings.append(f"the model has {size_mib:.2f} MiB, the target allows {limit:g} MiB")
    return tuple(warnings)
