"""Timing a bundle's release or a bare model on a device that was made ready."""

from typing import TYPE_CHECKING

from edgepack.bundle.archive import Bundle
from edgepack.bundle.golden import Golden, make_golden
from edgepack.bundle.manifest import MODEL_PATH
from edgepack.data import generate_samples
from edgepack.device.store.deploy import place_files, push_bundle
from edgepack.device.store.staging import TransferCallback
from edgepack.evaluate import Feeds
from edgepack.measure.bench import TimedModel
from edgepack.measure.drive import measure, measure_in_turns
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import Measurement, ModelIdentity
from edgepack.model import Model, read_model
from edgepack.workflow.request import StepCallback

if TYPE_CHECKING:
    from edgepack.workflow.rig import Rig

_NUM_GOLDEN = 2
_SEED = 20_260_102


def place_release(
    rig: "Rig",
    bundle: Bundle,
    *,
    on_step: StepCallback,
    on_transfer: TransferCallback | None = None,
) -> TimedModel:
    """Bring exactly this bundle's release to a device, to be timed there.

    What is current on the device is neither timed nor changed.

    Raises:
        EdgePackError: as `push_bundle`.
    """
    on_step(f"placing {bundle.manifest.name} {bundle.release} on {rig.device.name}")
    deployment = push_bundle(
        rig.device, bundle, root=rig.root, switch=False, on_progress=on_transfer
    )
    return timed_release(bundle, deployment.path)


def timed_release(bundle: Bundle, folder: str) -> TimedModel:
    """Give what is run of a bundle's release that lies in a folder on a device."""
    manifest = bundle.manifest
    model = read_model(bundle.read(MODEL_PATH))
    return TimedModel(
        path=f"{folder}/{MODEL_PATH}",
        identity=ModelIdentity(
            name=manifest.name,
            sha256=model.sha256,
            num_bytes=model.num_bytes,
            bundle_sha256=bundle.sha256,
            version=manifest.version,
            target=manifest.target.id,
            recipe=manifest.recipe.name,
        ),
        signature=manifest.signature,
        is_quantized=model.is_quantized,
        is_stream=model.is_stream,
        golden=bundle.golden(),
    )


def place_model(
    rig: "Rig",
    model: Model,
    *,
    name: str,
    on_step: StepCallback,
    golden: Golden | None = None,
    target: str | None = None,
    recipe: str | None = None,
    on_transfer: TransferCallback | None = None,
) -> TimedModel:
    """Bring a bare model to a device under its digest, to be timed there.

    Without golden samples of the caller's, the answers must be those this machine's runtime
    gives to generated inputs.

    Raises:
        EdgePackError: as `run_model` and `place_files`.
    """
    on_step(f"placing {name} on {rig.device.name}")
    folder = place_files(
        rig.device, {MODEL_PATH: model.data}, root=rig.root, on_progress=on_transfer
    )
    if golden is None:
        on_step("asking this machine's runtime for the answers")
        golden = answer_feeds(model)
    return TimedModel(
        path=f"{folder}/{MODEL_PATH}",
        identity=ModelIdentity(
            name=name,
            sha256=model.sha256,
            num_bytes=model.num_bytes,
            target=target,
            recipe=recipe,
        ),
        signature=model.signature,
        is_quantized=model.is_quantized,
        is_stream=model.is_stream,
        golden=golden,
    )


def bench_placed(
    rig: "Rig", model: TimedModel, *, plan: BenchmarkPlan, on_step: StepCallback
) -> Measurement:
    """Time what was brought to a device.

    Raises:
        EdgePackError: as `measure`.
    """
    return measure(
        rig.device,
        engine=rig.engine,
        facts=rig.facts,
        model=model,
        plan=plan,
        root=rig.root,
        on_progress=on_step,
    )


def bench_in_turns(
    rig: "Rig",
    models: tuple[TimedModel, TimedModel],
    *,
    plan: BenchmarkPlan,
    on_step: StepCallback,
) -> tuple[Measurement, Measurement]:
    """Time two models that were brought to a device in launches that take turns.

    Raises:
        EdgePackError: as `measure_in_turns`.
    """
    return measure_in_turns(
        rig.device,
        engine=rig.engine,
        facts=rig.facts,
        models=models,
        plan=plan,
        root=rig.root,
        on_progress=on_step,
    )


def answer_feeds(model: Model) -> Golden:
    """Ask this machine's runtime for the answers to plausible inputs.

    Raises:
        EdgePackError: as `make_golden`.
    """
    return make_golden(model, model, generate_feeds(model), num_samples=_NUM_GOLDEN)


def generate_feeds(model: Model) -> Feeds:
    """Make plausible inputs for a model nothing else is known of."""
    samples = generate_samples(model.signature.inputs, num_samples=_NUM_GOLDEN, seed=_SEED)
    return [
        tuple(array[index] for _, array in samples.arrays) for index in range(samples.num_samples)
    ]
