"""From a source model to the float model that was asked for: import, parity, and the shape."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgepack.cache import Cache
from edgepack.contract import (
    ContractPlan,
    ContractRequest,
    make_plan,
    plan_source,
    prove_shape,
    shape_model,
)
from edgepack.contract.samples import source_samples
from edgepack.data import Samples
from edgepack.evaluate import RunModel
from edgepack.importers import ImportOptions, VerifiedImport, detect_format, import_verified
from edgepack.model import Model, TensorSpec
from edgepack.workflow.request import StepCallback

LoadRaw = Callable[[tuple[TensorSpec, ...], ContractPlan], Samples | None]
"""Gives the user's raw samples for the source's inputs; None to generate some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapedImport:
    """A verified import, and the model with the inputs and outputs that were asked for.

    Attributes:
        verified: the import, as its converter left it, and its parity.
        plan: what was changed of its inputs and outputs.
        model: the model after that, not yet proved.
    """

    verified: VerifiedImport
    plan: ContractPlan
    model: Model

    def prove(self, samples: Samples, *, run: RunModel, on_step: StepCallback) -> None:
        """Compare the shaped model with the imported one; needless for an empty plan.

        Raises:
            ParityError: they differ.
        """
        on_step("proving the shaped inputs and outputs")
        prove_shape(self.verified.imported, self.plan, self.model, samples, run=run)


def import_shaped(
    path: Path,
    *,
    options: ImportOptions,
    request: ContractRequest,
    load_raw: LoadRaw,
    minimum_db: float,
    cache: Cache,
    on_step: StepCallback,
) -> ShapedImport:
    """Import a model with the first converter that passes parity, and shape its interface.

    Args:
        path: the source model, or `module:function`.
        options: how it is read.
        request: what is asked of its inputs and outputs.
        load_raw: called for each converter that is tried, with the source's inputs.
        minimum_db: SQNR that every output must reach.
        cache: where results are kept.
        on_step: called with what is being done.

    Raises:
        EdgePackError: as `import_verified`, `make_plan` and `load_raw`.
    """
    source_format = detect_format(path)

    def read_samples(specs: tuple[TensorSpec, ...]) -> Samples | None:
        plan = plan_source(specs, source_format, request)
        raw = load_raw(specs, plan)
        return None if raw is None else source_samples(raw, plan)

    verified = import_verified(
        path,
        options=options,
        read_samples=read_samples,
        minimum_db=minimum_db,
        cache=cache,
        on_progress=on_step,
    )
    plan = make_plan(verified.imported, request)
    return ShapedImport(
        verified=verified, plan=plan, model=shape_model(verified.imported.model, plan)
    )
