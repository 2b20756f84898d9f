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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.child import run_child, write_arrays
from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.fidelity import LIMIT_DB, compare_outputs
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import Model, read_model
from edgepack.optimize.channel_ranges import ChannelRanges, observe_channels
from edgepack.optimize.folding import fold_constants
from edgepack.optimize.offsets import Offsets, apply_offsets, find_offsets
from edgepack.optimize.rounding_trial import RoundingTrial
from edgepack.optimize.scaling import ScaleGroup, ScaleMap, map_scales, scale_layers
from edgepack.optimize.spare_channels import use_spare_channels
from edgepack.scratch import open_scratch

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_TIMEOUT_SECONDS: Final = 3600.0
_RANGE_SAMPLES: Final = 48
_TRIAL_SAMPLES: Final = 12
_MIGRATIONS: Final = (1.0, 0.5)
_CLIP: Final = 6.0
# What a channel below RELU6's bound may grow by: on other photographs than those it was seen
# on, EfficientNet-Lite0 in float is 38.6 dB from itself with 1.25, and 48.7 dB with 2.
_HEADROOM: Final = 2.0
_FACTOR_LIMIT: Final = 2.0**12
# A channel that hardly ever was seen above 0 may go anywhere on another sample.
_BOUNDED_FACTOR_LIMIT: Final = 4.0
_LEVELS: Final = 255
# Less is within what another choice of samples would say.
_LEAST_GAIN_DB: Final = 0.2
# A group so far below all groups together does not count.
_NEGLIGIBLE_DB: Final = 20.0
# What a RELU6 bounds is exact only on what was seen, so it must be worth it.
_LEAST_BOUNDED_GAIN_DB: Final = 1.0
# Two orders of float32's operations differ by 100 dB and more; what is nearer than this is no
# longer the same function.
_PROOF_DB: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualizeFacts:
    """What folding and equalization did to the float model.

    Attributes:
        num_folded: ops that went into a layer.
        num_groups: groups of tensors whose channels could be scaled.
        num_scaled: groups that were.
        num_moved: groups whose channels were moved to the middle of their ranges.
        num_copied: channels that never spoke and hold a copy of another one now.
        before_db: SQNR of the outputs when the groups' tensors alone are rounded to 8 bits.
        after_db: likewise afterwards, both on calibration samples.
        float_db: SQNR of the equalized float model against the original one.
    """

    num_folded: int
    num_groups: int
    num_scaled: int
    num_moved: int
    num_copied: int
    before_db: float
    after_db: float
    float_db: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Choice:
    """How one group is changed.

    Attributes:
        factors: (num_classes,) of all classes; 1 outside the group.
        offsets: what is taken out of its tensors first; None for nothing.
        is_exact: whether the float model stays the same on any input.
    """

    factors: NDArray[np.float64]
    offsets: Offsets | None
    is_exact: bool


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
    choices: Mapping[int, _Choice] = field(default_factory=dict)


def equalize(model: Model, calibration: Feeds | None) -> tuple[Model, EqualizeFacts]:
    """Fold constants into layers and equalize channels; the same inputs give the same bytes.

    Without calibration samples, or for a model with state or loops, constants are folded only.

    Args:
        model: float32.
        calibration: real inputs of the model, one tuple a sample.

    Raises:
        OptimizeError: the model's ops cannot be run one by one, or the child process died.
    """
    feeds = list(calibration or ())
    if model.has_state or model.traits.has_loop:
        feeds = []
    with open_scratch("equalize") as folder:
        (folder / "model.tflite").write_bytes(model.data)
        write_arrays(folder / "feeds", chain.from_iterable(feeds))
        ended = run_child(
            "edgepack.optimize.equalize_worker",
            [str(len(feeds))],
            folder=folder,
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        if ended.answer is None:
            raise OptimizeError(
                f"equalizing failed: the runtime was {ended.cause}",
                remedy="Choose a recipe without equalize.",
            )
        if "error" in ended.answer:
            error = ended.answer["error"]
            raise OptimizeError(str(error["message"]), remedy=str(error["remedy"]))
        data = (folder / "equalized.tflite").read_bytes()
    return read_model(data), EqualizeFacts(**ended.answer["ok"])


def equalize_tree(data: bytes, feeds: Feeds, *, folder: Path) -> tuple[bytes, EqualizeFacts]:
    """Do it, in a process that may die of it.

    Args:
        data: the float model.
        feeds: its inputs; none fold only.
        folder: for what does not stay in memory.

    Raises:
        OptimizeError: the model's ops cannot be run one by one.
    """
    tree = read_flatbuffer(data)
    num_folded = fold_constants(tree)
    scale_map = map_scales(tree)
    plain = _Plan(data=write_flatbuffer(tree) if num_folded else data)
    untouched = _Plan(data=data)
    plans = [plain, untouched]
    before = after = LIMIT_DB
    trial_feeds = _spread(feeds, _TRIAL_SAMPLES)
    if feeds and scale_map.groups:
        ranges = observe_channels(tree, _spread(feeds, _RANGE_SAMPLES), folder=folder)
        chooser = _Chooser(tree, scale_map, ranges, trial_feeds)
        before = chooser.total_db({})
        num_copied, ranges = use_spare_channels(
            tree, scale_map, ranges, chooser.trial, total_db=before
        )
        copied = write_flatbuffer(tree) if num_copied else plain.data
        if num_copied:
            chooser = _Chooser(tree, scale_map, ranges, trial_feeds)
        choices = chooser.choose()
        after = chooser.total_db(choices)
        exact = {number: each for number, each in choices.items() if each.is_exact}
        plans = [
            _Plan(data=copied, num_copied=num_copied, choices=choices),
            _Plan(data=plain.data, choices=exact),
            *plans,
        ]
    for plan in plans:
        result = _carry_out(plan.data, scale_map, plan.choices)
        proof = _compare(data, result, trial_feeds)
        if proof >= _PROOF_DB:
            break
        after = before
    return result, EqualizeFacts(
        num_folded=0 if plan is untouched else num_folded,
        num_groups=len(scale_map.groups),
        num_scaled=sum(bool(np.any(each.factors != 1)) for each in plan.choices.values()),
        num_moved=sum(each.offsets is not None for each in plan.choices.values()),
        num_copied=plan.num_copied,
        before_db=before,
        after_db=after,
        float_db=proof,
    )


class _Chooser:
    """Tries changes of each group on samples, with the group's tensors rounded."""

    def __init__(
        self,
        tree: Tree,
        scale_map: ScaleMap,
        ranges: Mapping[int, ChannelRanges],
        feeds: Feeds,
    ) -> None:
        self._tree = tree
        self._map = scale_map
        self._ranges = ranges
        self._tensors = [
            tuple(
                index for index in group.tensors if index in ranges and index in scale_map.rounded
            )
            for group in scale_map.groups
        ]
        reaches = {index: ranges[index].reach for each in self._tensors for index in each}
        self.trial = RoundingTrial(tree, feeds, reaches)

    def choose(self) -> dict[int, _Choice]:
        """Give what is done to each group by its number; groups left alone are left out."""
        total = self.total_db({})
        choices: dict[int, _Choice] = {}
        for number, group in enumerate(self._map.groups):
            least = self._db({number: None})
            if least > total + _NEGLIGIBLE_DB:
                continue
            for choice in self._candidates(group):
                gain = _LEAST_GAIN_DB if choice.is_exact else _LEAST_BOUNDED_GAIN_DB
                came = self._db({number: choice})
                if came > least + (0.0 if number in choices else gain):
                    least, choices[number] = came, choice
        return choices

    def total_db(self, choices: Mapping[int, _Choice]) -> float:
        """Give the SQNR of the outputs when all groups' tensors are rounded."""
        return self._db({number: choices.get(number) for number in range(len(self._tensors))})

    def _db(self, groups: Mapping[int, _Choice | None]) -> float:
        steps = {
            index: self._steps(index, choice)
            for number, choice in groups.items()
            for index in self._tensors[number]
        }
        return self.trial.sqnr_db(steps)

    def _steps(self, index: int, choice: _Choice | None) -> NDArray[np.float64]:
        """Give what a tensor's channels are rounded to multiples of, in the original's scale."""
        seen, labels = self._ranges[index], self._map.labels[index]
        factors = np.ones(len(labels)) if choice is None else choice.factors[labels]
        offset = 0.0 if choice is None or choice.offsets is None else choice.offsets[index]
        highest = max(0.0, float(((seen.highest - offset) * factors).max()))
        lowest = min(0.0, float(((seen.lowest - offset) * factors).min()))
        step = max(highest - lowest, 1e-30) / _LEVELS
        return np.asarray(step / factors)

    def _candidates(self, group: ScaleGroup) -> list[_Choice]:
        offsets = find_offsets(self._tree, self._map, group, self._ranges)
        is_linear = all(layer.activation == "NONE" for layer in group.writers)
        bounds, is_bounded = self._bounds(group)
        is_exact = not is_bounded and (offsets is None or is_linear)
        found: list[_Choice] = []
        for migration in _MIGRATIONS:
            factors = self._factors(group, offsets, migration, bounds)
            if offsets is not None or np.any(factors != 1):
                found.append(_Choice(factors=factors, offsets=offsets, is_exact=is_exact))
        return found

    def _bounds(self, group: ScaleGroup) -> tuple[NDArray[np.float64], bool]:
        """Give what each class may grow by at most, and whether RELU6 bounds any of them."""
        bounds = np.full(self._map.num_classes, _FACTOR_LIMIT)
        is_bounded = False
        for index in group.tensors:
            if index in self._map.bounded and index in self._ranges:
                highest = np.maximum(self._ranges[index].highest, _CLIP / _FACTOR_LIMIT)
                most = np.clip(_CLIP / (_HEADROOM * highest), 1.0, _BOUNDED_FACTOR_LIMIT)
                np.minimum.at(bounds, self._map.labels[index], most)
                is_bounded = True
        return bounds, is_bounded

    def _factors(
        self,
        group: ScaleGroup,
        offsets: Offsets | None,
        migration: float,
        bounds: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Give factors that bring the group's channels towards the reach of the widest."""
        reach = np.zeros(self._map.num_classes)
        for index in group.tensors:
            if index in self._ranges:
                offset = 0.0 if offsets is None else offsets[index]
                seen = self._ranges[index]
                each = np.maximum(np.abs(seen.highest - offset), np.abs(seen.lowest - offset))
                np.maximum.at(reach, self._map.labels[index], each)
        widest = float(reach.max())
        factors = np.ones(self._map.num_classes)
        # A channel that is always 0 is rounded to 0 whatever its factor.
        alive = group.classes[reach[group.classes] > widest / _FACTOR_LIMIT]
        if widest > 0:
            factors[alive] = np.clip(
                (widest / reach[alive]) ** migration, 1.0, np.minimum(bounds[alive], _FACTOR_LIMIT)
            )
        return factors


def _carry_out(data: bytes, scale_map: ScaleMap, choices: Mapping[int, _Choice]) -> bytes:
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


def _spread(feeds: Feeds, maximum: int) -> Sequence[tuple[NDArray[Any], ...]]:
    """Give some of the samples, evenly spread."""
    if len(feeds) <= maximum:
        return feeds
    picks = np.linspace(0, len(feeds) - 1, maximum).astype(int)
    return [feeds[pick] for pick in picks]
