"""From a source model to its float form alone: import, parity, and the shape that was asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.cache import Cache
from edgepack.contract import ContractPlan, ContractRequest
from edgepack.contract.describe import describe_contract
from edgepack.contract.record import IOContract
from edgepack.contract.samples import (
    check_raw,
    generate_raw,
    raw_images,
    raw_specs,
    stated_images,
)
from edgepack.data import ImagePreprocessing, Samples, load_samples
from edgepack.importers import ImportOptions, VerifiedImport
from edgepack.model import Model, TensorSpec
from edgepack.workflow.answers import keep_answers
from edgepack.workflow.request import StepCallback
from edgepack.workflow.shaping import import_shaped

# Every input and output is compared element by element, so few show as much as many.
_NUM_GENERATED: Final = 4
_SEED: Final = 20_260_103


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertRequest:
    """What is asked of a conversion.

    Attributes:
        model: the source model, or `module:function`.
        imports: how it is read.
        contract: what is asked of its inputs and outputs.
        data: `.npz`, `.npy`, image folder or `module:function` to compare on; None generates.
        images: how pictures become arrays.
        minimum_parity_db: SQNR that every output must reach against the source.
    """

    model: Path
    imports: ImportOptions
    contract: ContractRequest
    data: str | None
    images: ImagePreprocessing | None
    minimum_parity_db: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertResult:
    """A converted model.

    Attributes:
        verified: the import, as its converter left it, and its parity.
        model: the float model with the inputs and outputs that were asked for.
        contract: what its inputs want and its outputs mean.
    """

    verified: VerifiedImport
    model: Model
    contract: IOContract


def convert_model(request: ConvertRequest, *, cache: Cache, on_step: StepCallback) -> ConvertResult:
    """Import a model, prove it, and shape its inputs and outputs.

    Raises:
        EdgePackError: as `import_shaped`, `load_samples` and `ShapedImport.prove`.
    """
    loaded: list[Samples] = []

    def load_raw(specs: tuple[TensorSpec, ...], plan: ContractPlan) -> Samples | None:
        if request.data is None:
            return None
        if not loaded:
            samples = load_samples(
                request.data,
                inputs=raw_specs(specs, plan),
                images=raw_images(request.images, plan),
            )
            check_raw(samples, plan)
            loaded.append(samples)
        return loaded[0]

    shaped = import_shaped(
        request.model,
        options=request.imports,
        request=request.contract,
        load_raw=load_raw,
        minimum_db=request.minimum_parity_db,
        cache=cache,
        on_step=on_step,
    )
    imported, plan = shaped.verified.imported, shaped.plan
    given = loaded[0] if loaded else None
    if not plan.is_empty:
        samples = given or generate_raw(imported, plan, num_samples=_NUM_GENERATED, seed=_SEED)
        shaped.prove(samples, run=keep_answers(cache), on_step=on_step)
    return ConvertResult(
        verified=shaped.verified,
        model=shaped.model,
        contract=describe_contract(
            imported,
            plan,
            images=stated_images(request.images, plan, sources=(request.data,)),
            samples=given,
            num_class_names=0,
        ),
    )
