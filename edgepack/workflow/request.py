"""What is asked of a pack, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import Parity
from edgepack.contract import ContractRequest
from edgepack.data import ImagePreprocessing
from edgepack.data.metric import Metric
from edgepack.importers import ImportOptions, SourceInfo
from edgepack.measure.validity import VerdictName
from edgepack.optimize.choosing.choose import Choice, Objective
from edgepack.optimize.choosing.variant import Variant
from edgepack.optimize.judging.floors import Floors
from edgepack.optimize.recipes.recipe import NO_PRUNING, InterfaceType, Pruning, Recipe
from edgepack.profile import TargetProfile

DEFAULT_PARITY_DB: Final = 60.0
"""SQNR an import must reach when the user says nothing."""

StepCallback = Callable[[str], None]
"""Called with what is being done now, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchProgress:
    """How far a search is, and the best it has found.

    Attributes:
        num_done: candidates that are built and judged.
        num_total: candidates that are planned by now; it may grow.
        best: name of the best candidate inside the floors; None while there is none.
        best_sqnr_db: its worst output's SQNR.
        best_latency_ns: its median latency; None where latency is not measured.
        best_bytes: size of its flatbuffer.
        is_interrupted: whether the user ended the search, so that the best so far is kept.
    """

    num_done: int
    num_total: int
    best: str | None = None
    best_sqnr_db: float | None = None
    best_latency_ns: float | None = None
    best_bytes: int | None = None
    is_interrupted: bool = False


ProgressCallback = Callable[[SearchProgress], None]
"""Called after each candidate, and once more when the user ends the search."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """Where calibration and evaluation data come from.

    Attributes:
        source: `.npz`, `.npy`, image folder or `module:function`; None generates samples, which
            serve for evaluation only.
        evaluation: a second source; None evaluates on every other sample of the first.
        labels: class ids of the evaluated samples.
        images: how pictures become arrays.
        metric: the user's own measure of quality; labels are then what it wants them to be.
    """

    source: str | None = None
    evaluation: str | None = None
    labels: Path | None = None
    images: ImagePreprocessing | None = None
    metric: Metric | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackRequest:
    """What is to be packed.

    Attributes:
        model: the source file or folder.
        profile: the target.
        recipes: what to build, with distinct names; a single one is always packed, none has the
            best searched for.
        pruning: what is taken away from every variant of a search.
        interface: of the static variants of a search.
        objective: what the best variant is best in.
        floors: what a variant must keep of the float model.
        data: calibration and evaluation data.
        imports: how the source is read.
        contract: what is asked of the model's inputs and outputs.
        minimum_parity_db: SQNR every output of the import must reach.
        name: the bundle's name; None is the source's stem.
        version: the bundle's version; None is the start of the source's digest.
        output: file or existing folder to write to; None is the current folder.
        class_names: text file with one class a line.
        extra_files: further files to put into the bundle.
        remeasure: whether latencies kept from an earlier pack on this machine are taken anew.
    """

    model: Path
    profile: TargetProfile
    recipes: tuple[Recipe, ...]
    objective: Objective
    floors: Floors
    data: DataRequest
    imports: ImportOptions
    pruning: Pruning = NO_PRUNING
    interface: InterfaceType = InterfaceType.FLOAT
    contract: ContractRequest = ContractRequest()  # noqa: RUF009 - frozen, so one serves all
    minimum_parity_db: float = DEFAULT_PARITY_DB
    name: str | None = None
    version: str | None = None
    output: Path | None = None
    class_names: Path | None = None
    extra_files: tuple[Path, ...] = ()
    remeasure: bool = False

    @property
    def is_forced(self) -> bool:
        """Whether one recipe was named and is packed whatever it costs."""
        return len(self.recipes) == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialLatency:
    """What a trial's choice rests on.

    Attributes:
        median_ns: over launches.
        median_ci95_ns: its 95% interval; None with too few launches.
        verdict: what the measurement is worth.
        memory_bytes: resident memory that the model and its inferences added to the process, in
            the median over launches; None where that is not told.
        memory_range_bytes: least and most of any launch.
    """

    median_ns: int
    median_ci95_ns: tuple[int, int] | None
    verdict: VerdictName
    memory_bytes: int | None = None
    memory_range_bytes: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one recipe.

    Attributes:
        recipe: what was asked for.
        variant: what it gave; None when it could not be built.
        outside: why it is outside the floors; empty inside.
        host: measured on this machine.
        device: measured on the device the choice was made for.
        skipped_reason: why there is no variant, or why the device did not measure it.
        is_reference: whether the variant is the float model itself.
    """

    recipe: Recipe
    variant: Variant | None = None
    outside: tuple[str, ...] = ()
    host: TrialLatency | None = None
    device: TrialLatency | None = None
    skipped_reason: str | None = None
    is_reference: bool = False

    @property
    def within_budget(self) -> bool:
        """Whether it was built, is inside the floors, and was not found wanting later."""
        return self.variant is not None and not self.outside and self.skipped_reason is None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackResult:
    """A written bundle and how it came to be.

    Attributes:
        bundle: what was written and verified.
        chosen: the packed outcome.
        outcomes: one for each recipe, in the order asked.
        choice: which and why.
        floors: what a variant had to keep.
        measured_on: what the choice rests on: a device's name, `host`, or None.
        parity: the import's check; None when the source is TFLite itself.
        source: the source model.
        evaluation_num_samples: samples behind the fidelity figures.
        num_evaluations: runs of a whole model over these samples that finding the variant takes:
            one for each that was built, and what the layers' sensitivity takes in proportion.
        warnings: what the user must know.
        is_interrupted: whether the user ended the search, so that the bundle holds the best by
            then.
    """

    bundle: Bundle
    chosen: Outcome
    outcomes: tuple[Outcome, ...]
    choice: Choice
    floors: Floors
    measured_on: str | None
    parity: Parity | None
    source: SourceInfo
    evaluation_num_samples: int
    num_evaluations: float
    warnings: tuple[str, ...]
    is_interrupted: bool = False
