"""Proof that a shaped model computes what the model before it did, on the same raw values."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.contract.plan import ContractPlan, OutputPlan
from edgepack.contract.preprocessing import Head, apply_head
from edgepack.contract.samples import shaped_feeds, source_samples
from edgepack.data import Samples, make_samples
from edgepack.errors import ParityError
from edgepack.evaluate import RunModel, run_model
from edgepack.fidelity import sqnr_db
from edgepack.importers.binding import ImportedModel, model_feeds
from edgepack.model import Model

# float32 arithmetic in another order; a wrong channel or sign reads below 20 dB.
_FLOOR_DB: Final = 60.0
_NUM_SAMPLES: Final = 4
# Where two classes are as near as this, relative to the largest value, either may win.
_TIE: Final = 1e-4


def prove_shape(
    imported: ImportedModel,
    plan: ContractPlan,
    shaped: Model,
    samples: Samples,
    *,
    run: RunModel = run_model,
) -> None:
    """Compare a shaped model with the one before it, preprocessed and judged in numpy.

    Args:
        imported: the model before, with its source's layout.
        plan: what was done to it.
        shaped: what came of it.
        samples: raw values; the first four are used.
        run: how models are run.

    Raises:
        ParityError: an output differs by more than the order of float32 additions explains.
        ModelError: a model cannot be run.
    """
    if plan.is_empty:
        return
    few = make_samples([(name, array[:_NUM_SAMPLES]) for name, array in samples.arrays])
    before = run(imported.model, model_feeds(imported, source_samples(few, plan)))
    after = run(shaped, shaped_feeds(imported, plan, few))
    faults: list[str] = []
    for index, each in enumerate(plan.outputs):
        ours = [sample[index] for sample in before]
        theirs = [sample[index] for sample in after]
        fault = _compare(each, ours, theirs)
        if fault is not None:
            faults.append(f"output {each.spec.name!r}: {fault}")
    if faults:
        raise ParityError(
            join_faults(
                f"{imported.source.file_name}: the shaped model does not compute what the model "
                "did before its inputs and outputs were shaped",
                faults,
            ),
            remedy="Leave out --input-mean, --input-std, --input-scale, --input-dtype, "
            "--input-layout, --output-layout and --output, do these steps outside the model, and "
            "report this with the model if you can.",
        )


def _compare(plan: OutputPlan, before: list[NDArray[Any]], after: list[NDArray[Any]]) -> str | None:
    if plan.head is Head.ARGMAX:
        return _compare_ids(plan, before, after)
    expected = [apply_head(array, plan.head, axis=plan.class_axis) for array in before]
    if plan.permutation is not None:
        expected = [array.transpose(plan.permutation) for array in expected]
    if any(ours.shape != theirs.shape for ours, theirs in zip(expected, after, strict=True)):
        return f"expected the shape {expected[0].shape}, but got {after[0].shape}"
    level = sqnr_db(np.stack(expected), np.stack(after))
    largest = max(float(np.max(np.abs(array), initial=0.0)) for array in expected)
    # An output that is zero to float32's rounding has nothing to compare.
    near = all(
        bool(np.allclose(ours, theirs, rtol=0, atol=1e-6))
        for ours, theirs in zip(expected, after, strict=True)
    )
    if level >= _FLOOR_DB or (largest <= 1e-6 and near):  # noqa: PLR2004 - as above
        return None
    return f"{level:.1f} dB, needs {_FLOOR_DB:g} dB"


def _compare_ids(
    plan: OutputPlan, before: list[NDArray[Any]], after: list[NDArray[Any]]
) -> str | None:
    """Compare class ids; where the two best classes are all but equal, either is right."""
    axis = plan.class_axis
    num_wrong = num_ids = 0
    for ours, theirs in zip(before, after, strict=True):
        expected = apply_head(ours, Head.ARGMAX, axis=axis)
        if expected.shape != theirs.shape:
            return f"expected the shape {expected.shape}, but got {theirs.shape}"
        if theirs.size and (theirs.min() < 0 or theirs.max() >= ours.shape[axis]):
            return f"expected class ids below {ours.shape[axis]}, but got {int(theirs.max())}"
        chosen = np.take_along_axis(ours, np.expand_dims(theirs, axis), axis).squeeze(axis)
        best = ours.max(axis=axis)
        room = _TIE * max(float(np.max(np.abs(ours), initial=0.0)), 1e-30)
        num_wrong += int(np.sum(best - chosen > room))
        num_ids += theirs.size
    if num_wrong:
        return f"{num_wrong} of {num_ids} class ids are wrong"
    return None
