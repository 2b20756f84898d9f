"""Comparing a candidate's outputs with a reference's; `edgepack.fidelity` defines the figures."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.comparison import (
    LIMIT_DB,
    Sums,
    add_arrays,
    cosine,
    ratio_db,
    ratio_interval_db,
)
from edgepack.errors import ModelError
from edgepack.fidelity.agreement import Picks, judge_labels, pick_classes
from edgepack.fidelity.channels import find_channel_axes
from edgepack.fidelity.values import Fidelity, OutputFidelity, Outputs


def compare_outputs(
    reference: Outputs,
    candidate: Outputs,
    *,
    names: tuple[str, ...],
    labels: NDArray[Any] | None = None,
) -> Fidelity:
    """Compare a candidate's outputs with the reference's, sample by sample.

    Args:
        reference: for each sample the outputs, real-valued, in the order of `names`.
        candidate: the same samples' outputs; integer outputs of a quantized interface are
            dequantized before.
        names: the outputs' names.
        labels: (num_samples,) class ids, judged on the first class output.

    Raises:
        ModelError: the two differ in the number of samples or outputs, or in a shape.
        DataError: labels do not fit: their count, range, or no class output to judge.
    """
    _check_alike(reference, candidate, names)
    outputs: list[OutputFidelity] = []
    picks: list[Picks] = []
    for index, name in enumerate(names):
        ours = [sample[index] for sample in reference]
        theirs = [sample[index] for sample in candidate]
        chosen = pick_classes(ours, theirs)
        if chosen is not None and chosen.first.size:
            picks.append(chosen)
        plain = _compare_output(name, ours, theirs)
        if chosen is not None:
            plain = _with_agreement(plain, chosen)
        outputs.append(plain)
    agreement, interval = None, None
    if picks:
        worst = min(picks, key=lambda each: each.agreement)
        agreement, interval = worst.agreement, worst.interval
    task: dict[str, Any] = {}
    if labels is not None:
        task = judge_labels(picks, labels, len(reference))
    return Fidelity(
        outputs=tuple(outputs),
        num_samples=len(reference),
        top1_agreement=agreement,
        top1_agreement_ci95=interval,
        **task,
    )


def sqnr_db(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Give the signal-to-quantization-noise ratio of two arrays of one shape, in dB.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    return _compare_output("", [reference], [candidate]).sqnr_db


def _check_alike(reference: Outputs, candidate: Outputs, names: tuple[str, ...]) -> None:
    if len(reference) != len(candidate):
        raise ModelError(
            f"expected outputs of {len(reference)} samples, but got {len(candidate)}",
            remedy="Run both models on the same samples.",
        )
    faults: list[str] = []
    for ours, theirs in zip(reference, candidate, strict=True):
        if len(ours) != len(names) or len(theirs) != len(names):
            faults.append(f"expected {len(names)} outputs, but got {len(ours)} and {len(theirs)}")
        else:
            faults += [
                f"output {name!r}: expected shape {first.shape}, but got {second.shape}"
                for name, first, second in zip(names, ours, theirs, strict=True)
                if first.shape != second.shape
            ]
        if faults:
            raise ModelError(
                join_faults("the outputs cannot be compared", faults),
                remedy="The conversion changed the outputs; convert the model again.",
            )


def _with_agreement(plain: OutputFidelity, picks: Picks) -> OutputFidelity:
    judged = replace(
        plain,
        top1_agreement=picks.agreement,
        top1_agreement_ci95=picks.interval if picks.first.size else None,
    )
    if picks.num_classes is not None:
        return judged
    num_ids = picks.first.size
    return replace(
        judged,
        sqnr_db=ratio_db(float(num_ids), float(num_ids - picks.num_equal)),
        sqnr_ci95_db=None,
        worst_channel=None,
        worst_channel_axis=None,
        worst_channel_sqnr_db=None,
        is_index=True,
    )


def _compare_output(
    name: str,
    reference: Sequence[NDArray[Any]],
    candidate: Sequence[NDArray[Any]],
) -> OutputFidelity:
    axes = _channel_axes(reference)
    found = [_add_samples(reference, candidate, axis) for axis in axes or (None,)]
    sums, signals, noises = found[-1]
    is_ratio = not sums.num_non_finite and not sums.is_vacuous
    signal, noise = float(sums.signal.sum()), float(sums.noise.sum())
    channels = [
        (ratio_db(float(each.signal[i]), float(each.noise[i])), int(i), axis)
        for axis, (each, _, _) in zip(axes, found, strict=False)
        for i in np.flatnonzero(each.signal > 0)
    ]
    channel_db, channel, channel_axis = min(channels, default=(None, None, None))
    return OutputFidelity(
        output=name,
        sqnr_db=ratio_db(signal, noise) if is_ratio else -LIMIT_DB,
        sqnr_ci95_db=ratio_interval_db(signals, noises) if is_ratio else None,
        max_abs_error=sums.max_abs_error,
        cosine=cosine(sums.product, signal, sums.candidate),
        worst_channel=channel,
        worst_channel_axis=channel_axis,
        worst_channel_sqnr_db=channel_db,
        num_non_finite=sums.num_non_finite,
    )


def _channel_axes(arrays: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    shapes = {array.shape for array in arrays}
    if len(shapes) == 1:
        return find_channel_axes(shapes.pop())
    # Of shapes that vary from sample to sample only an axis of one size can hold channels.
    last = {shape[-1] if len(shape) > 1 else 1 for shape in shapes}
    ranks = {len(shape) for shape in shapes}
    return (ranks.pop() - 1,) if len(ranks) == len(last) == 1 and last.pop() > 1 else ()


def _add_samples(
    reference: Sequence[NDArray[Any]], candidate: Sequence[NDArray[Any]], axis: int | None
) -> tuple[Sums, NDArray[np.float64], NDArray[np.float64]]:
    """Give the sums of each channel over all samples, and signal and noise of each sample."""
    num_channels = 1 if axis is None else reference[0].shape[axis]
    sums = Sums(signal=np.zeros(num_channels), noise=np.zeros(num_channels))
    signals, noises = np.zeros(len(reference)), np.zeros(len(reference))
    for index, pair in enumerate(zip(reference, candidate, strict=True)):
        ours, theirs = pair if axis is None else (np.moveaxis(each, axis, -1) for each in pair)
        sample = Sums(signal=np.zeros(num_channels), noise=np.zeros(num_channels))
        add_arrays(sample, ours, theirs)
        signals[index], noises[index] = sample.signal.sum(), sample.noise.sum()
        sums.merge(sample)
    return sums, signals, noises
