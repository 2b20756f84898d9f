"""The child of `sparsegpt`: prunes weights. Argument: FOLDER.

FOLDER holds `model.tflite`, `feeds` and `request.json`; it gets `pruned.tflite` and the answer.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import write_flatbuffer
from edgepack.graph import read_constant
from edgepack.optimize.pruning.prune import prune_array
from edgepack.optimize.walking.layers import Layer, find_layers
from edgepack.optimize.walking.moments import MAXIMUM_INPUTS
from edgepack.optimize.walking.pass_process import PassJob, serve_pass
from edgepack.optimize.walking.patches import (
    input_patches,
    matrix_weights,
    mean_patch,
    weight_matrix,
)
from edgepack.optimize.walking.surgeon import PRUNED_OPS, prune_obs
from edgepack.optimize.walking.walk import LayerChange, Samples, walk

# Rows of a layer's inputs that its moments are taken from; of many groups fewer, as each has
# few inputs and its rows take as much memory.
_LEAST_ROWS: Final = 2048
_LEAST_ROWS_OF_GROUPS: Final = 512
_ROWS_EACH_INPUT: Final = 8
_WAITING_BYTES: Final = 24 * 2**20
# Weights are drawn toward the float ones by this share of the mean moment: 6.5 dB with 0.01, 6.9
# with 0.03, 7.1 with 0.1, 7.3 with 0.3 (EfficientNet-Lite0, 48 crops, a share of 0.7).
_RIDGE: Final = 0.3
_TINY: Final = 1e-12


class Surgeon:
    """The visitor: prunes each layer as the walk comes by, and makes up for what was pruned.

    Layers that are not pruned (depthwise convolutions) make up for those before them too.
    """

    def __init__(self, tree: Any, share: float) -> None:  # noqa: ANN401 - the generated classes are untyped
        self._tree = tree
        self._share = share
        uses = Counter(layer.weights for layer in find_layers(tree))
        # Weights that several layers share have no single best value: each would undo the other.
        self._shared = frozenset(index for index, count in uses.items() if count > 1)
        self._seen: set[int] = set()

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> LayerChange | None:
        """Give a layer's pruned weights and its bias."""
        weights = weight_matrix(self._tree, layer).astype(np.float64)
        share = self._share if layer.op in PRUNED_OPS else 0.0
        if not share and reference is changed:
            return None
        if layer.weights in self._shared:
            return self._prune_shared(layer, weights, share)
        mean_reference = self._mean(layer, reference)
        mean_changed = mean_reference if changed is reference else self._mean(layer, changed)
        if weights.shape[2] > MAXIMUM_INPUTS:  # by magnitude then
            result = prune_array(weights, share)
        else:
            result = self._reconstruct(
                layer, weights, share, (reference, mean_reference), (changed, mean_changed)
            )
        bias = self._bias(layer)
        if bias is not None:
            shift = np.einsum("gok,gk->go", weights, mean_reference)
            shift -= np.einsum("gok,gk->go", result, mean_changed)
            bias = (bias + shift.reshape(bias.shape)).astype(np.float32)
        return LayerChange(weights=matrix_weights(self._tree, layer, result), bias=bias)

    def observe(
        self,
        tensor: int,  # noqa: ARG002 - the protocol's
        reference: Samples,  # noqa: ARG002 - likewise
        changed: Samples,  # noqa: ARG002 - likewise
    ) -> Iterable[NDArray[Any]] | None:
        """Leave everything as it is."""
        return None

    def _prune_shared(
        self, layer: Layer, weights: NDArray[np.float64], share: float
    ) -> LayerChange | None:
        if not share or layer.weights in self._seen:
            return None
        self._seen.add(layer.weights)
        return LayerChange(weights=matrix_weights(self._tree, layer, prune_array(weights, share)))

    def _reconstruct(
        self,
        layer: Layer,
        weights: NDArray[np.float64],
        share: float,
        ours: tuple[Samples, NDArray[np.float64]],
        theirs: tuple[Samples, NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Give pruned weights whose output from the changed inputs comes nearest to the float's."""
        moments, shift = self._measure(layer, ours, theirs)
        num_in = moments.shape[1]
        ridge = _RIDGE * np.trace(moments, axis1=1, axis2=2) / num_in + _TINY
        moments += ridge[:, np.newaxis, np.newaxis] * np.eye(num_in)
        target = weights
        if shift is not None:
            right = (weights @ shift).transpose(0, 2, 1)
            target = weights + np.linalg.solve(moments, right).transpose(0, 2, 1)
        return prune_obs(target, moments, share) if share else target

    def _measure(
        self,
        layer: Layer,
        ours: tuple[Samples, NDArray[np.float64]],
        theirs: tuple[Samples, NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Give the central second moments of the changed inputs, and of what changed with them."""
        (reference, mean_reference), (changed, mean_changed) = ours, theirs
        num_in = mean_reference.shape[1]
        least = _LEAST_ROWS if len(mean_reference) == 1 else _LEAST_ROWS_OF_GROUPS
        rows = -(-max(least, _ROWS_EACH_INPUT * num_in) // len(changed))
        total, shift = _Product(), _Product()
        for index in range(len(changed)):
            now = input_patches(self._tree, layer, changed[index], maximum_rows=rows)
            now -= mean_changed[:, np.newaxis].astype(np.float32)
            total.add(now, now)
            if changed is not reference:
                before = input_patches(self._tree, layer, reference[index], maximum_rows=rows)
                before -= mean_reference[:, np.newaxis].astype(np.float32)
                shift.add(before - now, now)
        return total.mean(), None if changed is reference else shift.mean()

    def _mean(self, layer: Layer, samples: Samples) -> NDArray[np.float64]:
        return np.asarray(
            np.mean([mean_patch(self._tree, layer, each) for each in samples], axis=0)
        )

    def _bias(self, layer: Layer) -> NDArray[np.float32] | None:
        return None if layer.bias is None else read_constant(self._tree, layer.bias)


class _Product:
    """The mean of outer products of rows, taken of many rows at a time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._sum: NDArray[np.float32] | None = None
        self._count = 0

    def add(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
        """Add rows, (groups, rows, in) each."""
        self._waiting.append((left, right))
        self._count += right.shape[1]
        if sum(each.nbytes for _, each in self._waiting) > _WAITING_BYTES:
            self._multiply()

    def mean(self) -> NDArray[np.float64]:
        """Give the mean, (groups, in, in)."""
        self._multiply()
        assert self._sum is not None  # noqa: S101 - there is at least one sample
        return self._sum.astype(np.float64) / self._count

    def _multiply(self) -> None:
        if self._waiting:
            left, right = (
                np.concatenate(each, axis=1) for each in zip(*self._waiting, strict=True)
            )
            product = left.transpose(0, 2, 1) @ right
            self._sum = product if self._sum is None else self._sum + product
            self._waiting = []


def prune(job: PassJob) -> dict[str, Any]:
    """Prune a model, write the result beside it and give the answer for the parent."""
    tree = job.read_tree()
    walk(tree, job.feeds(), Surgeon(tree, job.request["share"]), folder=job.make_shelf("walk"))
    (job.folder / "pruned.tflite").write_bytes(write_flatbuffer(tree))
    return {}


if __name__ == "__main__":
    serve_pass(prune)
