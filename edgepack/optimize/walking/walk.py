"""Walking a model op by op with all its samples, as it was and as it becomes.

A pass that changes a layer's weights wants to see the layer's inputs as the changed layers
before it give them, and the float model's beside them. With one run of the whole model for
each layer that takes time with the square of the depth; walked, it takes two runs in all.
Each op runs as a model of its own in LiteRT, and what nobody reads any more is dropped.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import op_name
from edgepack.graph import set_constant
from edgepack.optimize.walking.excerpt import Excerpt, ExcerptRunner, cut_excerpt
from edgepack.optimize.walking.layers import Layer, find_layers

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

DEFAULT_BUDGET_BYTES: Final = 96 * 2**20
"""Samples' tensors that stay in memory; the rest is on disk."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerChange:
    """New weights of a layer, in their own shape, and its new bias.

    Attributes:
        weights: float32.
        bias: (num_channels,); None leaves the bias as it is.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None = None


class Samples(Protocol):
    """Arrays of one tensor, one a sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[Any]: ...

    def __iter__(self) -> Iterator[NDArray[Any]]: ...


class Visitor(Protocol):
    """What a pass does on the way."""

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> LayerChange | None:
        """Give a layer's new weights before it runs, having seen its input on both sides.

        The two are the same object while nothing before the layer was changed.
        """
        ...

    def observe(
        self, tensor: int, reference: Samples, changed: Samples
    ) -> Iterable[NDArray[Any]] | None:
        """See what an op, or the model's input, gave; what is returned replaces `changed`."""
        ...


class Shelf:
    """Arrays of one tensor, one a sample, in memory or on disk."""

    def __init__(self, room: "_Room", name: str) -> None:
        self._room = room
        self._name = name
        self._arrays: list[NDArray[Any] | Path] = []
        self._num_bytes = 0

    def append(self, array: NDArray[Any]) -> None:
        """Keep one more sample's array."""
        if self._room.take(array.nbytes):
            self._num_bytes += array.nbytes
            self._arrays.append(array)
            return
        path = self._room.folder / f"{self._name}-{len(self._arrays)}.npy"
        np.save(path, array, allow_pickle=False)
        self._arrays.append(path)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int) -> NDArray[Any]:
        kept = self._arrays[index]
        if isinstance(kept, Path):
            loaded: NDArray[Any] = np.load(kept, allow_pickle=False)
            return loaded
        return kept

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[index] for index in range(len(self)))

    def drop(self) -> None:
        """Forget the arrays and remove their files."""
        for kept in self._arrays:
            if isinstance(kept, Path):
                kept.unlink(missing_ok=True)
        self._arrays.clear()
        self._room.give_back(self._num_bytes)
        self._num_bytes = 0


class _Room:
    """The memory that shelves may take."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.folder = folder
        self._left_bytes = budget_bytes

    def take(self, num_bytes: int) -> bool:
        if num_bytes > self._left_bytes:
            return False
        self._left_bytes -= num_bytes
        return True

    def give_back(self, num_bytes: int) -> None:
        self._left_bytes += num_bytes


def walk(
    tree: Tree,
    feeds: Feeds,
    visitor: Visitor,
    *,
    folder: Path,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> None:
    """Run a model op by op on all samples; the visitor's changes are written into the tree.

    Call it in a process that may die of it: LiteRT runs here.

    Args:
        tree: a float model without loops and without state between samples; it is changed.
        feeds: its inputs, one tuple a sample.
        visitor: what looks on and gives the changes.
        folder: for what is beyond the budget; an empty one of its own.
        budget_bytes: tensors kept in memory.

    Raises:
        OptimizeError: an op cannot be run by itself; says which.
    """
    graph = tree.subgraphs[0]
    room = _Room(folder, budget_bytes)
    layers = {layer.position: layer for layer in find_layers(tree)}
    last_use = _last_uses(graph)
    sides: dict[int, tuple[Any, Any]] = {}
    for place, tensor in enumerate(int(index) for index in graph.inputs):
        shelf = Shelf(room, f"reference-{tensor}")
        for feed in feeds:
            shelf.append(feed[place])
        sides[tensor] = _observed(visitor, tensor, shelf, shelf, room)
    for position, operator in enumerate(graph.operators or ()):
        reads = [int(i) for i in operator.inputs if int(i) in sides]
        untouched = all(sides[i][0] is sides[i][1] for i in reads)
        # The float side runs with the weights as they were.
        outputs = [int(i) for i in operator.outputs]
        original = cut_excerpt(tree, position, position + 1, outputs=outputs)
        layer = layers.get(position)
        change = (
            visitor.change(layer, *sides[layer.input]) if layer and layer.input in sides else None
        )
        reference = [Shelf(room, f"reference-{i}") for i in outputs]
        _run(original, operator, {i: sides[i][0] for i in reads}, reference, tree)
        changed = reference
        if change is not None and layer is not None:
            _apply(tree, layer, change)
        if change is not None or not untouched:
            changed = [Shelf(room, f"changed-{i}") for i in outputs]
            excerpt = original
            if change is not None:
                excerpt = cut_excerpt(tree, position, position + 1, outputs=outputs)
            _run(excerpt, operator, {i: sides[i][1] for i in reads}, changed, tree)
        for tensor, ours, theirs in zip(outputs, reference, changed, strict=True):
            sides[tensor] = _observed(visitor, tensor, ours, theirs, room)
        for tensor in [i for i in sides if last_use.get(i, -1) <= position]:
            first, second = sides.pop(tensor)
            first.drop()
            if second is not first:
                second.drop()


def _observed(visitor: Visitor, tensor: int, ours: Shelf, theirs: Shelf, room: _Room) -> Any:  # noqa: ANN401 - two shelves
    replaced = visitor.observe(tensor, ours, theirs)
    if replaced is None:
        return ours, theirs
    shelf = Shelf(room, f"replaced-{tensor}")
    for array in replaced:
        shelf.append(array)
    if theirs is not ours:
        theirs.drop()
    return ours, shelf


def _last_uses(graph: Any) -> dict[int, int]:  # noqa: ANN401 - see `Tree`
    """Give for each tensor the last op that reads it; outputs of the model outlast all."""
    uses: dict[int, int] = {}
    for position, operator in enumerate(graph.operators or ()):
        uses |= {int(index): position for index in operator.inputs}
    return uses


def _apply(tree: Tree, layer: Layer, change: LayerChange) -> None:
    set_constant(tree, layer.weights, change.weights)
    if change.bias is not None and layer.bias is not None:
        set_constant(tree, layer.bias, change.bias)


def _run(
    excerpt: Excerpt,
    operator: Any,  # noqa: ANN401 - see `Tree`
    inputs: Mapping[int, Shelf],
    outputs: Sequence[Shelf],
    tree: Tree,
) -> None:
    num_samples = len(next(iter(inputs.values()))) if inputs else 1
    try:
        with ExcerptRunner(excerpt) as runner:
            for sample in range(num_samples):
                answers = runner.run({i: shelf[sample] for i, shelf in inputs.items()})
                for shelf, tensor in zip(outputs, excerpt.outputs, strict=True):
                    shelf.append(answers[tensor])
    # LiteRT 2.3 raises these for an op it cannot prepare or run.
    except (RuntimeError, ValueError) as error:
        raise OptimizeError(
            f"op {op_name(tree, operator)} cannot be run by itself: {error}",
            remedy="Choose a recipe without passes that look at each layer's inputs.",
        ) from error
