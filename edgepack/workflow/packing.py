"""From a source model to a bundle: import, parity, variants, measurement, choice, writing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgepack import __version__
from edgepack.bundle.archive import Bundle, write_bundle
from edgepack.bundle.golden import make_golden
from edgepack.bundle.manifest import (
    Parity,
    ParityRecord,
    Provenance,
    bundle_file_name,
    check_identity,
    default_name,
)
from edgepack.cache import Cache
from edgepack.data import (
    ImagePreprocessing,
    Samples,
    generate_samples,
    load_samples,
    split_samples,
)
from edgepack.errors import DataError, LimitError, OptimizeError, RecipeError, UsageError
from edgepack.evaluate import Feeds, run_model
from edgepack.importers import ImportedModel, ImportOptions, check_parity, import_model
from edgepack.importers.binding import model_feeds
from edgepack.measure.record import Measurement
from edgepack.optimize.choose import Candidate, Choice, Floors, Objective, choose, judge
from edgepack.optimize.recipe import Recipe
from edgepack.optimize.variant import EvaluationSet, Variant, build_variant
from edgepack.profile import TargetProfile
from edgepack.workflow.rig import Rig, StepCallback
from edgepack.workflow.trial import measure_trial_on_device, measure_trial_on_host

# Enough to expose a wrong conversion and to see an int8 variant break down; too few to trust an
# agreement, which the report says.
_NUM_GENERATED = 16
_SEED = 20_260_101


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """Where calibration and evaluation data come from.

    Attributes:
        source: `.npz`, `.npy`, image folder or `module:function`; None generates samples, which
            serve for evaluation only.
        evaluation: a second source; None evaluates on every other sample of the first.
        labels: class ids of the samples.
        images: how pictures become arrays.
    """

    source: str | None = None
    evaluation: str | None = None
    labels: Path | None = None
    images: ImagePreprocessing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackRequest:
    """What is to be packed.

    Attributes:
        model: the source file or folder.
        profile: the target.
        recipes: what to build, in order of preference.
        explicit: whether the user named the recipes; a single one is then always packed.
        objective: what the best variant is best in.
        floors: what a variant must keep of the float model.
        data: calibration and evaluation data.
        imports: how the source is read.
        minimum_parity_db: SQNR every output of the import must reach.
        name: the bundle's name; None is the source's stem.
        version: the bundle's version; None is the start of the source's digest.
        output: file or existing folder to write to; None is the current folder.
        class_names: text file with one class a line.
        extra_files: further files, by their name in the bundle.
        num_threads: threads to measure with.
    """

    model: Path
    profile: TargetProfile
    recipes: tuple[Recipe, ...]
    explicit: bool
    objective: Objective
    floors: Floors
    data: DataRequest
    imports: ImportOptions
    minimum_parity_db: float = 60.0
    name: str | None = None
    version: str | None = None
    output: Path | None = None
    class_names: Path | None = None
    extra_files: Mapping[str, Path] = field(default_factory=dict)
    num_threads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one recipe.

    Attributes:
        recipe: what was asked for.
        variant: what it gave; None when it was skipped.
        outside: why it is outside the floors; empty inside.
        host: measured on this machine.
        device: measured on the device the choice was made for.
        skipped_reason: why there is no variant, or why it was not measured on the device.
    """

    recipe: Recipe
    variant: Variant | None = None
    outside: tuple[str, ...] = ()
    host: Measurement | None = None
    device: Measurement | None = None
    skipped_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackResult:
    """A written bundle and how it came to be.

    Attributes:
        bundle: what was written and verified.
        chosen: the packed outcome.
        outcomes: one for each recipe, in the order asked.
        choice: why that one.
        measured_on: what the choice rests on: a device's name, `host`, or None.
        parity: the import's check.
        evaluation_num_samples: samples behind the fidelity figures.
        warnings: what the user must know.
    """

    bundle: Bundle
    chosen: Outcome
    outcomes: tuple[Outcome, ...]
    choice: Choice
    measured_on: str | None
    parity: Parity
    evaluation_num_samples: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Material:
    """Everything the variants are built and judged with."""

    imported: ImportedModel
    parity: Parity
    calibration: Samples | None
    evaluation: Samples
    calibration_feeds: Feeds | None
    evaluation_set: EvaluationSet


def pack_model(
    request: PackRequest, *, cache: Cache, rig: Rig | None, on_step: StepCallback
) -> PackResult:
    """Pack a model for a target; with a rig, choose by what that device measures.

    Raises:
        EdgePackError: as each stage; `LimitError` when no variant is inside the floors.
    """
    class_names = _read_class_names(request.class_names)
    extra_files = _read_extra_files(request.extra_files)
    material = _prepare(request, class_names, cache=cache, on_step=on_step)
    outcomes = [
        _build(recipe, request, material, cache=cache, on_step=on_step)
        for recipe in request.recipes
    ]
    is_on_target = rig is not None
    outcomes = [
        _measure(outcome, request, material, rig=rig, cache=cache, on_step=on_step)
        for outcome in outcomes
    ]
    host_is_target = measure_trial_on_host.fits(request.profile)
    measured_on = rig.device.name if rig else ("host" if host_is_target else None)
    choice = _choose(request, outcomes, is_on_target=is_on_target, host_is_target=host_is_target)
    chosen = outcomes[choice.index]
    if chosen.variant is None:
        raise LimitError(
            f"recipe {chosen.recipe.name} was not built: {chosen.skipped_reason}",
            remedy="Choose another recipe, or give what it asks for.",
        )
    on_step("writing the bundle")
    bundle = _write(request, material, chosen.variant, class_names, extra_files)
    return PackResult(
        bundle=bundle,
        chosen=chosen,
        outcomes=tuple(outcomes),
        choice=choice,
        measured_on=measured_on,
        parity=material.parity,
        evaluation_num_samples=material.evaluation.num_samples,
        warnings=(),
    )
