"""How much an error of a layer's output matters to the model's outputs, by trying it.

The same squared error weighs a hundred times as much in one layer as in another; relative to
the layer's own energy it still does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import dtype_name
from edgepack.optimize.walking.excerpt import ExcerptRunner, cut_excerpt
from edgepack.optimize.walking.layers import Layer
from edgepack.optimize.walking.patches import matrix_weights, weight_matrix
from edgepack.optimize.walking.walk import Samples

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

# Of each weight: about the error that reconstruction leaves when a third of the inputs is gone.
_NOISE: Final = 0.2
_NUM_SAMPLES: Final = 8
_TINY: Final = 1e-12

Answers = list[dict[int, NDArray[Any]]]
"""The model's outputs by tensor, one entry a sample."""


class Influence:
    """The model's answers on a few samples, to compare with those of jittered layers.

    Args:
        tree: the float model.
        feeds: samples; eight of them, evenly chosen, are used.

    Raises:
        OptimizeError: the model cannot be run.
    """

    def __init__(self, tree: Tree, feeds: Feeds) -> None:
        self._tree = tree
        graph = tree.subgraphs[0]
        outputs = list(dict.fromkeys(int(index) for index in graph.outputs))
        # The distance between class ids says nothing.
        real = [i for i in outputs if dtype_name(graph.tensors[i].type).startswith("float")]
        self._outputs = real or outputs
        count = min(len(feeds), _NUM_SAMPLES)
        self._picks = [int(index) for index in np.linspace(0, len(feeds) - 1, count)]
        self._reference = self._run(
            0,
            {
                int(tensor): [feed[place] for feed in feeds]
                for place, tensor in enumerate(graph.inputs)
            },
            {},
        )

    def measure(
        self, layer: Layer, moments: NDArray[np.float64], live: Mapping[int, Samples]
    ) -> float:
        """Give the outputs' share of error for one unit of the layer's own squared error.

        Args:
            layer: whose weights are jittered.
            moments: (in, in) mean of products of its inputs.
            live: what was computed before it, by tensor.
        """
        matrix = weight_matrix(self._tree, layer)
        random = np.random.default_rng(layer.position)
        noise = _NOISE * matrix * random.standard_normal(matrix.shape)
        local = float(np.einsum("oi,ij,oj->", noise[0], moments, noise[0], optimize=True))
        jittered = {layer.weights: matrix_weights(self._tree, layer, matrix + noise)}
        return self._depart(self._run(layer.position, live, jittered)) / max(local, _TINY)

    def _run(
        self,
        start: int,
        live: Mapping[int, Samples | Sequence[NDArray[Any]]],
        constants: Mapping[int, NDArray[Any]],
    ) -> Answers:
        stop = len(self._tree.subgraphs[0].operators)
        later = self._tree.subgraphs[0].operators[start:]
        given = {int(index) for operator in later for index in operator.outputs}
        outputs = [index for index in self._outputs if index in given]
        excerpt = cut_excerpt(self._tree, start, stop, outputs=outputs, constants=constants)
        # LiteRT 2.3 raises these for an op it cannot prepare or run.
        try:
            with ExcerptRunner(excerpt) as runner:
                return [
                    runner.run({tensor: live[tensor][index] for tensor in excerpt.inputs})
                    for index in self._picks
                ]
        except (RuntimeError, ValueError) as error:
            raise OptimizeError(
                f"the model cannot be run on this machine: {error}",
                remedy="Choose a recipe without pruning.",
            ) from error

    def _depart(self, answers: Answers) -> float:
        """Give the mean share of an output's energy by which it departs."""
        shares = []
        for tensor in answers[0]:
            pairs = [
                (ours[tensor].astype(np.float64), theirs[tensor].astype(np.float64))
                for ours, theirs in zip(self._reference, answers, strict=True)
            ]
            energy = sum(float(np.sum(np.square(ours))) for ours, _ in pairs)
            error = sum(float(np.sum(np.square(ours - theirs))) for ours, theirs in pairs)
            shares.append(error / max(energy, _TINY))
        return sum(shares) / max(len(shares), 1)
