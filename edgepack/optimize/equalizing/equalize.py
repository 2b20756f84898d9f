"""Cross-layer equalization: channels that share a tensor's 8 bits are brought to like ranges.

A tensor is rounded in steps of its widest channel's range, so a narrow channel loses digits.
Weights have a scale for each output channel, so scaling channels up in one layer and down in
the next costs nothing there (Nagel et al. 2019, arXiv:1906.04721, 4.1, whose factors
sqrt(r1 / r2) weigh two per-tensor weight ranges; SmoothQuant, Xiao et al. 2022,
arXiv:2211.10438, weighs the range of the activation between them). The factors here are
(R / r) ** migration of each channel's seen reach r and the widest one's R. Where rounding really
hurts, a formula over weights does not tell: on EfficientNet-Lite0 one channel of the stem makes
half of all noise. So for each group of tensors a few migrations, with and without moving the
channels to the middle of their ranges, are tried on calibration data with that group alone
rounded, and what does not lessen the error at the model's outputs is left out.

RELU6: a channel that reached 6 keeps its factor of 1. Any other may grow as long as twice what
was seen stays below 6, and the finished float model must answer as the original.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import Fields
from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.fidelity import LIMIT_DB, compare_outputs
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import Model, read_model
from edgepack.optimize.equalizing.balance import Balance, Balancer
from edgepack.optimize.equalizing.offsets import apply_offsets
from edgepack.optimize.equalizing.scaling import ScaleMap, map_scales, scale_layers
from edgepack.optimize.equalizing.spare_channels import use_spare_channels
from edgepack.optimize.walking.channel_ranges import observe_channels
from edgepack.optimize.walking.pass_process import run_pass, spread_feeds

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_TIMEOUT_SECONDS: Final = 3600.0
_RANGE_SAMPLES: Final = 48
_TRIAL_SAMPLES: Final = 12
# Two orders of float32's operations differ by 100 dB and more; what is nearer than this is no
# longer the same function.
_PROOF_DB: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualizeFacts:
    """What equalization did to the float model.

    Attributes:
        num_groups: groups of tensors whose channels could be scaled.
        num_scaled: groups that were.
        num_moved: groups whose channels were moved to the middle of their ranges.
        num_copied: channels that never spoke and hold a copy of another one now.
        before_db: SQNR of the outputs when the groups' tensors alone are rounded to 8 bits.
        after_db: likewise afterwards, both on calibration samples.
        float_db: SQNR of the equalized float model against the original one.
    """

    num_groups: int
    num_scaled: int
    num_moved: int
    num_copied: int
    before_db: float
    after_db: float
    float_db: float


def equalize_facts_to_json(facts: EqualizeFacts) -> dict[str, object]:
    """Give what equalization did as JSON values."""
    return asdict(facts)


def read_equalize_facts(fields: Fields) -> EqualizeFacts:
    """Read what equalization did from a table, noting faults in `fields`."""
    facts = EqualizeFacts(
        num_groups=fields.integer("num_groups", minimum=0),
        num_scaled=fields.integer("num_scaled", minimum=0),
        num_moved=fields.integer("num_moved", minimum=0),
        num_copied=fields.integer("num_copied", minimum=0),
        before_db=fields.number("before_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        after_db=fields.number("after_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        float_db=fields.number("float_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
    )
    fields.close()
    return facts


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Plan:
    """What the float model becomes, if that proves to be the same function.

    Attributes:
        data: the flatbuffer it starts from.
        num_copied: spare channels that were put to use in it.
        choices: what is done to each group, by its number.
    """

    data: bytes
    num_copied: int = 0
    choices: Mapping[int, Balance] = field(default_factory=dict)


def equalize(model: Model, calibration: Feeds | None) -> tuple[Model, EqualizeFacts]:
    """Equalize channels; the same inputs give the same bytes.

    Without calibration samples, and where a model has state or loops, it stays as it came.

    Args:
        model: float32.
        calibration: real inputs of the model, one tuple a sample.

    Raises:
        OptimizeError: the model's ops cannot be run one by one, or the child process died.
    """
    feeds = list(calibration or ())
    if model.has_state or model.traits.has_loop:
        feeds = []

    def explain(reason: str) -> OptimizeError:
        return OptimizeError(
            f"the channels could not be equalized: {reason}",
            remedy="Choose a recipe without equalize.",
        )

    with run_pass(
        "edgepack.optimize.equalizing.equalize_worker", model, feeds, {}, explain=explain
    ) as done:
        data = (done.folder / "equalized.tflite").read_bytes()
    return read_model(data), EqualizeFacts(**done.facts)


def equalize_tree(data: bytes, feeds: Feeds, *, folder: Path) -> tuple[bytes, EqualizeFacts]:
    """Do it, in a process that may die of it.

    Args:
        data: the float model.
        feeds: its inputs; with none it stays as it is.
        folder: for what does not stay in memory.

    Raises:
        OptimizeError: the model's ops cannot be run one by one.
    """
    tree = read_flatbuffer(data)
    scale_map = map_scales(tree)
    untouched = _Plan(data=data)
    plans = [untouched]
    before = after = LIMIT_DB
    trial_feeds = spread_feeds(feeds, _TRIAL_SAMPLES)
    if feeds and scale_map.groups:
        ranges = observe_channels(tree, spread_feeds(feeds, _RANGE_SAMPLES), folder=folder)
        balancer = Balancer(tree, scale_map, ranges, trial_feeds)
        before = balancer.total_db({})
        num_copied, ranges = use_spare_channels(
            tree, scale_map, ranges, balancer.trial, total_db=before
        )
        copied = write_flatbuffer(tree) if num_copied else data
        if num_copied:
            balancer = Balancer(tree, scale_map, ranges, trial_feeds)
        choices = balancer.choose()
        after = balancer.total_db(choices)
        exact = {number: each for number, each in choices.items() if each.is_exact}
        plans = [
            _Plan(data=copied, num_copied=num_copied, choices=choices),
            _Plan(data=data, choices=exact),
            *plans,
        ]
    for plan in plans:
        result = _carry_out(plan.data, scale_map, plan.choices)
        proof = _compare(data, result, trial_feeds)
        if proof >= _PROOF_DB:
            break
        after = before
    return result, EqualizeFacts(
        num_groups=len(scale_map.groups),
        num_scaled=sum(bool(np.any(each.factors != 1)) for each in plan.choices.values()),
        num_moved=sum(each.offsets is not None for each in plan.choices.values()),
        num_copied=plan.num_copied,
        before_db=before,
        after_db=after,
        float_db=proof,
    )


def _carry_out(data: bytes, scale_map: ScaleMap, choices: Mapping[int, Balance]) -> bytes:
    if not choices:
        return data
    tree = read_flatbuffer(data)
    for number, choice in choices.items():
        if choice.offsets is not None:
            apply_offsets(tree, scale_map.groups[number], choice.offsets)
    # Layers may have a bias now that had none; the graph is the same.
    scale_map = map_scales(tree)
    for number, choice in choices.items():
        scale_layers(tree, scale_map, scale_map.groups[number], choice.factors)
    return write_flatbuffer(tree)


def _compare(original: bytes, changed: bytes, feeds: Feeds) -> float:
    """Give the SQNR of a changed float model's outputs against the original's."""
    if original == changed or not feeds:
        return LIMIT_DB
    first, second = (_run(data, feeds) for data in (original, changed))
    names = tuple(str(place) for place in range(len(first[0])))
    return compare_outputs(first, second, names=names).sqnr_db


def _run(data: bytes, feeds: Feeds) -> list[tuple[NDArray[Any], ...]]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only the child runs it

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    inputs = [each["index"] for each in interpreter.get_input_details()]
    outputs = [each["index"] for each in interpreter.get_output_details()]
    answers = []
    for feed in feeds:
        for index, array in zip(inputs, feed, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        answers.append(tuple(interpreter.get_tensor(index) for index in outputs))
    return answers
