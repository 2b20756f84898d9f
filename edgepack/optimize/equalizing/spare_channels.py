"""Channels that never speak, put to use: they become copies of those whose rounding hurts most.

Training leaves channels behind a RELU whose bias is so low that no input brings them above 0.
They cost as much as any other and say nothing. Such a channel can hold a copy of another one,
scaled a little differently, so that its rounding errors are others; the layer that reads both
takes their mean, and n copies leave a 1 / n of the noise. The float model stays what it was, and
so do its size and speed. (Outlier channel splitting, Zhao et al. 2019, arXiv:1901.09504, adds
channels; here they are there already.) On EfficientNet-Lite0 one of the stem's 32 channels makes
most of what rounding its output costs, and four others never speak.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.graph import Tree, name_of, read_constant, set_constant
from edgepack.optimize.equalizing.rounding_trial import RoundingTrial
from edgepack.optimize.equalizing.scaling import ScaleGroup, ScaleMap
from edgepack.optimize.walking.channel_ranges import ChannelRanges
from edgepack.optimize.walking.layers import Layer

Ranges = Mapping[int, ChannelRanges]
"""What the tensors' channels held, by the tensor's index."""

# Inputs of this many times what was seen still leave a channel silent.
_HEADROOM: Final = 2.0
_CLIP: Final = 6.0
# A tensor whose rounding is so far below that of all together is not worth a copy.
_NEGLIGIBLE_DB: Final = 10.0
_MAXIMUM_TRIED: Final = 32
# Each copy is this much smaller than the last: far enough for other rounding errors, near
# enough for all to use their 8 bits.
_SHRINKAGE: Final = 0.02
_LEVELS: Final = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chain:
    """A layer, maybe a depthwise one behind it, and the one layer that reads the channels.

    Attributes:
        first: gives the channels, behind a RELU.
        middle: treats each channel by itself; None when `last` reads what `first` gives.
        last: mixes them.
    """

    first: Layer
    middle: Layer | None
    last: Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """A channel that becomes a copy: `target` holds `factor` times `source`."""

    source: int
    target: int
    factor: float


def use_spare_channels(
    tree: Tree, scale_map: ScaleMap, ranges: Ranges, trial: RoundingTrial, *, total_db: float
) -> tuple[int, dict[int, ChannelRanges]]:
    """Copy channels into those that never speak, in place.

    Args:
        tree: the float model.
        scale_map: of it; it holds afterwards too.
        ranges: what its tensors' channels held on real inputs.
        trial: of the same model, its tensors among the ones of interest.
        total_db: SQNR of the outputs with all tensors rounded.

    Returns:
        The number of copies, and the ranges with them.
    """
    changed, count = dict(ranges), 0
    for chain in _find_chains(tree, scale_map):
        if chain.first.output not in ranges or chain.first.input not in ranges:
            continue
        spare = _find_silent(tree, chain, ranges[chain.first.input])
        if not len(spare):
            continue
        index = chain.first.output
        able = _find_able(chain, ranges[index], spare)
        order = _by_weight(tree, chain, able)[:_MAXIMUM_TRIED]
        noise = _measure_noise(index, order, ranges[index], trial, total_db=total_db)
        copies = _assign(noise, spare)
        for copy in copies:
            _hold(changed, chain, copy)
        _write(tree, chain, copies)
        count += len(copies)
    return count, changed


def _find_chains(tree: Tree, scale_map: ScaleMap) -> Iterator[_Chain]:
    groups = {group.tensors[0]: group for group in scale_map.groups}
    for group in scale_map.groups:
        pair = _ends(tree, group)
        if pair is None or pair[0].activation not in {"RELU", "RELU6"}:
            continue
        first, last = pair
        middle = None
        if last.op == "DEPTHWISE_CONV_2D":
            middle = last
            behind = groups.get(middle.output)
            pair = None if behind is None else _ends(tree, behind)
            if pair is None:
                continue
            last = pair[1]
        counts = {
            len(scale_map.labels[index])
            for index in (first.output, last.input, middle.output if middle else first.output)
        }
        weights = read_constant(tree, last.weights)
        if (
            last.op in {"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
            and first.op != "DEPTHWISE_CONV_2D"
            and weights is not None
            and counts == {weights.shape[-1]}
        ):
            yield _Chain(first=first, middle=middle, last=last)


def _ends(tree: Tree, group: ScaleGroup) -> tuple[Layer, Layer] | None:
    """Give the one writer and the one reader of a tensor, at most a PAD between; else None."""
    if len(group.writers) != 1 or len(group.readers) != 1:
        return None
    writer, reader = group.writers[0], group.readers[0]
    if set(group.tensors) != {writer.output, reader.input}:
        return None
    if writer.output != reader.input:
        between = next(
            each
            for each in tree.subgraphs[0].operators
            if reader.input in [int(i) for i in each.outputs]
        )
        if name_of(tree, between) not in {"PAD", "MEAN", "MAX_POOL_2D"}:
            return None
    return writer, reader


def _find_silent(tree: Tree, chain: _Chain, seen: ChannelRanges) -> NDArray[np.intp]:
    """Give the channels that no input of twice the seen size brings above 0."""
    first = chain.first
    weights, bias = _values(tree, first.weights), _bias(tree, first)
    axes = tuple(axis for axis in range(weights.ndim) if axis != first.channel_axis)
    loudest = np.abs(weights).sum(axis=axes) * seen.reach.max() * _HEADROOM
    silent = loudest + bias < 0
    if chain.middle is not None:
        resting = _bias(tree, chain.middle)
        silent &= resting <= 0 if chain.middle.activation in {"RELU", "RELU6"} else resting == 0
    return np.flatnonzero(silent)


def _find_able(chain: _Chain, seen: ChannelRanges, spare: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which channels can be copied: RELU6 cuts a smaller copy elsewhere."""
    able = seen.highest > 0
    able[spare] = False
    if chain.first.activation == "RELU6":
        able &= seen.highest < _CLIP
    return able


def _by_weight(tree: Tree, chain: _Chain, able: NDArray[np.bool_]) -> list[int]:
    """Give the channels that can be copied, those first that the next layer weighs most."""
    following = _values(tree, (chain.middle or chain.last).weights)
    weight = np.sqrt((following**2).sum(axis=tuple(range(following.ndim - 1))))
    return [int(each) for each in np.argsort(-weight, kind="stable") if able[each]]


def _measure_noise(
    index: int,
    channels: list[int],
    seen: ChannelRanges,
    trial: RoundingTrial,
    *,
    total_db: float,
) -> dict[int, float]:
    """Give what rounding each channel alone does at the outputs; nothing if all do little."""
    step = float(max(seen.highest.max(), 0.0)) / _LEVELS
    if step <= 0:
        return {}
    together = trial.sqnr_db({index: np.full(len(seen.highest), step)})
    if together > total_db + _NEGLIGIBLE_DB:
        return {}
    noise: dict[int, float] = {}
    for channel in channels:
        steps = trial.unnoticed(index).copy()
        steps[channel] = step
        noise[channel] = 10 ** (-trial.sqnr_db({index: steps}) / 10)
    return noise


def _assign(noise: Mapping[int, float], spare: NDArray[np.intp]) -> list[_Copy]:
    """Give each spare channel to whichever channel makes most noise by then."""
    num_copies = dict.fromkeys(noise, 1)
    copies: list[_Copy] = []
    for target in spare if noise else ():
        # n copies leave 1 / n of a channel's noise.
        source = max(noise, key=lambda each: noise[each] / num_copies[each])
        factor = 1 - _SHRINKAGE * num_copies[source]
        copies.append(_Copy(source=source, target=int(target), factor=factor))
        num_copies[source] += 1
    return copies


def _hold(ranges: dict[int, ChannelRanges], chain: _Chain, copy: _Copy) -> None:
    """Write down what a copy's channels hold."""
    for layer, factor in ((chain.first, copy.factor), (chain.middle, 1.0)):
        for index in () if layer is None else (layer.output,):
            seen = ranges[index]
            changed: dict[str, Any] = {}
            for field, power in (("lowest", 1), ("highest", 1), ("energy", 2)):
                values = getattr(seen, field).copy()
                values[copy.target] = values[copy.source] * factor**power
                changed[field] = values
            ranges[index] = replace(seen, **changed)


def _write(tree: Tree, chain: _Chain, copies: list[_Copy]) -> None:
    if not copies:
        return
    first, middle, last = chain.first, chain.middle, chain.last
    weights, bias = _values(tree, first.weights), _bias(tree, first)
    mixing = _values(tree, last.weights)
    inner = None if middle is None else (_values(tree, middle.weights), _bias(tree, middle))
    num_copies = {each.source: 1 for each in copies}
    for copy in copies:
        num_copies[copy.source] += 1
        weights[copy.target] = weights[copy.source] * copy.factor
        bias[copy.target] = bias[copy.source] * copy.factor
        if inner is not None:
            inner[0][..., copy.target] = inner[0][..., copy.source] / copy.factor
            inner[1][copy.target] = inner[1][copy.source]
    for copy in copies:
        back = 1.0 if middle is not None else 1 / copy.factor
        mixing[..., copy.target] = mixing[..., copy.source] * back / num_copies[copy.source]
    for source, count in num_copies.items():
        mixing[..., source] /= count
    _set(tree, first, weights, bias)
    _set(tree, last, mixing, None)
    if middle is not None and inner is not None:
        _set(tree, middle, inner[0], inner[1])


def _set(
    tree: Tree, layer: Layer, weights: NDArray[np.float64], bias: NDArray[np.float64] | None
) -> None:
    set_constant(tree, layer.weights, weights.astype(np.float32))
    if bias is not None and layer.bias is not None:
        set_constant(tree, layer.bias, bias.astype(np.float32))


def _values(tree: Tree, index: int) -> NDArray[np.float64]:
    values = read_constant(tree, index)
    assert values is not None  # noqa: S101 - `find_layers` has looked
    return values.astype(np.float64)


def _bias(tree: Tree, layer: Layer) -> NDArray[np.float64]:
    """Give a layer's bias; a silent channel has one, so a layer without one has none silent."""
    if layer.bias is None:
        weights = _values(tree, layer.weights)
        return np.zeros(weights.shape[layer.channel_axis])
    return _values(tree, layer.bias)
