"""The child of `refine`: prepares float weights for integers. Argument: FOLDER.

FOLDER holds `model.tflite`, `feeds` and `request.json`; it gets `refined.tflite`, `bounds`
(an array for each refined layer, in the answer's order) and the answer.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.child import write_arrays
from edgepack.flatbuffer import write_flatbuffer
from edgepack.graph import new_constant, read_constant
from edgepack.optimize.quantizing.rounding import find_bounds, round_gptq, round_nearest
from edgepack.optimize.recipes.assignment import choose_granularity
from edgepack.optimize.recipes.recipe import Granularity, RangeMethod, Rounding
from edgepack.optimize.walking.layers import Layer, find_layers
from edgepack.optimize.walking.moments import MAXIMUM_INPUTS
from edgepack.optimize.walking.pass_process import PassJob, serve_pass
from edgepack.optimize.walking.patches import (
    input_patches,
    matrix_weights,
    mean_patch,
    weight_matrix,
)
from edgepack.optimize.walking.surgeon import settle
from edgepack.optimize.walking.walk import LayerChange, Samples, walk
from edgepack.profile import Scheme

# Rows of a layer's inputs that its second moments are taken from: some for each input, so that
# a layer of many positions or many groups takes no longer than the others.
_LEAST_ROWS: Final = 2048
_ROWS_EACH_INPUT: Final = 6
# Of TRANSPOSE_CONV, the first with a bias (tflite's op_version.cc); the others always had one.
_BIASED_VERSION: Final = 3
_WAITING_BYTES: Final = 24 * 2**20
# Least-squares weights are drawn toward the float ones by this share of the mean moment.
_RIDGE: Final = 0.03


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Moments:
    """What is known of a layer's inputs on both sides, for each group of channels.

    Attributes:
        mean_reference: (groups, in), over all positions.
        mean_changed: likewise.
        changed: (groups, in, in), central second moments of the changed inputs; None when only
            the means were asked for.
        shift: (groups, in, in), central cross moments of (reference - changed) and changed;
            None when the sides are the same.
    """

    mean_reference: NDArray[np.float64]
    mean_changed: NDArray[np.float64]
    changed: NDArray[np.float64] | None
    shift: NDArray[np.float64] | None


@dataclass(kw_only=True)
class _Refiner:
    """The visitor: chooses each layer's integers and bias as the walk comes by."""

    tree: Any
    rounding: Rounding
    method: RangeMethod
    bias_correction: bool
    kept: frozenset[str]
    one_scale: frozenset[int]
    bounds: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note which layers have weights of their own."""
        layers = find_layers(self.tree)
        uses = Counter(layer.weights for layer in layers)
        self._shared = frozenset(index for index, count in uses.items() if count > 1)

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> LayerChange | None:
        weights = weight_matrix(self.tree, layer).astype(np.float64)
        is_quantized = layer.name not in self.kept and layer.weights not in self._shared
        if not is_quantized and reference is changed:
            return None
        # A layer left in float makes up for those before it as well.
        wants_moments = self.rounding is Rounding.GPTQ or (
            is_quantized and self.method is RangeMethod.MSE
        )
        moments = self._measure(layer, reference, changed, second=wants_moments)
        if not self.bias_correction:  # nothing else takes back a shift of the mean
            moments = _with_means(moments)
        target = weights
        if (
            self.rounding is Rounding.GPTQ
            and moments.shift is not None
            and moments.changed is not None
        ):
            target = weights + _solve(weights @ moments.shift, moments.changed)
            zero = weights == 0
            if zero.any():  # pruned: the others alone make up for the layers before
                ridged = _ridged(moments.changed)
                target = settle(np.where(zero, 0.0, target), target, ridged, zero)
        result = target
        if is_quantized:
            is_shared = layer.weights in self.one_scale
            bounds = find_bounds(
                target, method=self.method, moments=moments.changed, is_shared=is_shared
            )
            # The quantizer has its scales in float32.
            bounds = bounds.astype(np.float32).astype(np.float64)
            if self.rounding is Rounding.GPTQ and moments.changed is not None:
                result = round_gptq(target, bounds, moments.changed)
            else:
                result = round_nearest(target, bounds)
            given = bounds.reshape(-1).astype(np.float32)
            self.bounds[layer.weights] = given[:1] if is_shared else given
        bias = None
        if self.bias_correction and layer.bias is not None:
            shift = np.einsum("gok,gk->go", weights, moments.mean_reference)
            shift -= np.einsum("gok,gk->go", result, moments.mean_changed)
            bias = read_constant(self.tree, layer.bias)
            bias = None if bias is None else (bias + shift.reshape(bias.shape)).astype(np.float32)
        return LayerChange(weights=matrix_weights(self.tree, layer, result), bias=bias)

    def observe(self, tensor: int, reference: Samples, changed: Samples) -> None:
        """Leave what ops give as it is.

        Activations rounded here too, as static schemes round them, made the result worse: least
        squares on noisy inputs shrink the weights, layer after layer (EfficientNet-Lite0 int8
        22.7 dB instead of 25.0, PP-OCRv4's detector 5.9 instead of 14.3).
        """

    def _measure(
        self, layer: Layer, reference: Samples, changed: Samples, *, second: bool
    ) -> _Moments:
        num_samples = len(reference)
        mean_reference = self._mean(layer, reference)
        same = changed is reference
        mean_changed = mean_reference if same else self._mean(layer, changed)
        num_in = mean_reference.shape[1]
        if not second or num_in > MAXIMUM_INPUTS:  # rounded to nearest then
            return _Moments(
                mean_reference=mean_reference, mean_changed=mean_changed, changed=None, shift=None
            )
        rows = -(-max(_LEAST_ROWS, _ROWS_EACH_INPUT * num_in) // num_samples)
        total = _Product(num_in)
        shift = None if same else _Product(num_in)
        for index in range(num_samples):
            theirs = input_patches(self.tree, layer, changed[index], maximum_rows=rows)
            theirs -= mean_changed[:, np.newaxis].astype(np.float32)
            total.add(theirs, theirs)
            if shift is not None:
                ours = input_patches(self.tree, layer, reference[index], maximum_rows=rows)
                ours -= mean_reference[:, np.newaxis].astype(np.float32)
                shift.add(ours - theirs, theirs)
        return _Moments(
            mean_reference=mean_reference,
            mean_changed=mean_changed,
            changed=total.mean(),
            shift=None if shift is None else shift.mean(),
        )

    def _mean(self, layer: Layer, samples: Samples) -> NDArray[np.float64]:
        means = [mean_patch(self.tree, layer, each) for each in samples]
        return np.asarray(np.mean(means, axis=0))


def _with_means(moments: _Moments) -> _Moments:
    """Give moments about zero: an error of the mean counts as every other."""
    if moments.changed is None:
        return moments
    ours, theirs = moments.mean_reference, moments.mean_changed
    shift = moments.shift
    if shift is not None:
        shift = shift + np.einsum("gi,gj->gij", ours - theirs, theirs)
    changed = moments.changed + np.einsum("gi,gj->gij", theirs, theirs)
    return replace(moments, changed=changed, shift=shift)


class _Product:
    """The mean of outer products of rows, taken of many rows at a time.

    A product of few rows takes as long as its sum takes to be written.
    """

    def __init__(self, num_in: int) -> None:
        self._num_in = num_in
        self._waiting: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._waiting_bytes = 0
        self._sum: NDArray[np.float32] | None = None
        self._count = 0

    def add(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
        """Add rows, (groups, rows, in) each."""
        self._waiting.append((left, right))
        self._waiting_bytes += right.nbytes
        self._count += right.shape[1]
        if self._waiting_bytes > _WAITING_BYTES:
            self._multiply()

    def mean(self) -> NDArray[np.float64]:
        """Give the mean, (groups, in, in)."""
        self._multiply()
        assert self._sum is not None  # noqa: S101 - there is at least one sample
        return np.asarray(self._sum, np.float64) / self._count

    def _multiply(self) -> None:
        if not self._waiting:
            return
        left, right = (np.concatenate(side, axis=1) for side in zip(*self._waiting, strict=True))
        product = left.transpose(0, 2, 1) @ right
        self._sum = product if self._sum is None else self._sum + product
        self._waiting, self._waiting_bytes = [], 0


def _solve(right: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give right @ inverse(moments), with a ridge."""
    solved = np.linalg.solve(_ridged(moments), right.transpose(0, 2, 1))
    return np.asarray(solved).transpose(0, 2, 1)


def _ridged(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    num_in = moments.shape[1]
    mean = np.trace(moments, axis1=1, axis2=2) / num_in
    ridge = _RIDGE * mean + 1e-12
    return np.asarray(moments + ridge[:, np.newaxis, np.newaxis] * np.eye(num_in))


def add_biases(tree: Any) -> None:  # noqa: ANN401 - the generated classes are untyped
    """Give every layer without a bias one of zeros, so that there is one to correct."""
    graph = tree.subgraphs[0]
    for layer in find_layers(tree):
        if layer.bias is not None:
            continue
        operator = graph.operators[layer.position]
        place = 2
        if layer.op == "TRANSPOSE_CONV":
            place = 3
            code = tree.operatorCodes[operator.opcodeIndex]
            code.version = max(int(code.version), _BIASED_VERSION)
        inputs = [int(index) for index in operator.inputs][:place]
        matrix = weight_matrix(tree, layer)
        zeros = np.zeros(matrix.shape[0] * matrix.shape[1], np.float32)
        operator.inputs = [*inputs, new_constant(tree, f"{layer.name}_bias", zeros)]


def _find_one_scale(tree: Any, request: dict[str, Any]) -> frozenset[int]:  # noqa: ANN401 - as above
    """Give the weights whose channels share one scale, as the quantizer is told."""
    return frozenset(
        layer.weights
        for layer in find_layers(tree)
        if choose_granularity(
            Granularity(request["granularity"]),
            Scheme(request["layers"].get(layer.name, request["scheme"])),
            layer.op,
        )
        is Granularity.TENSORWISE
    )


def refine(job: PassJob) -> dict[str, Any]:
    """Refine a model, write it and its bounds beside it, and give the answer for the parent."""
    request, tree = job.request, job.read_tree()
    if request["bias_correction"]:
        add_biases(tree)
    refiner = _Refiner(
        tree=tree,
        rounding=Rounding(request["rounding"]),
        method=RangeMethod(request["weight_ranges"]),
        bias_correction=request["bias_correction"],
        kept=frozenset(request["float_layers"]),
        one_scale=_find_one_scale(tree, request),
    )
    walk(tree, job.feeds(), refiner, folder=job.make_shelf("walk"))
    (job.folder / "refined.tflite").write_bytes(write_flatbuffer(tree))
    write_arrays(job.folder / "bounds", refiner.bounds.values())
    return {"weights": list(refiner.bounds)}


if __name__ == "__main__":
    serve_pass(refine)
