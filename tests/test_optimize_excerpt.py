"""Parts of a model, run on their own."""

from typing import Any

import numpy as np
import pytest

from edgepack.evaluate import run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant
from edgepack.optimize.walking.excerpt import ExcerptRunner, cut_excerpt
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.models import make_feeds, small_model


def _ends(tree: Any) -> tuple[list[int], list[int]]:  # noqa: ANN401 - the generated classes are untyped
    graph = tree.subgraphs[0]
    return [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]


@pytest.mark.parametrize("name", ["cnn", "depthwise", "two"])
def test_two_halves_give_what_the_whole_gives(name: str) -> None:
    model = small_model(name)
    tree = read_flatbuffer(model.data)
    inputs, outputs = _ends(tree)
    feed = make_feeds(model, num_samples=1)[0]
    expected = run_model(model, [feed])[0]
    stop = len(tree.subgraphs[0].operators)
    for middle in range(1, stop):
        after = {int(i) for each in tree.subgraphs[0].operators[middle:] for i in each.outputs}
        tail = cut_excerpt(tree, middle, stop, outputs=[i for i in outputs if i in after])
        head = cut_excerpt(tree, 0, middle, outputs=[i for i in tail.inputs if i not in inputs])
        held = dict(zip(inputs, feed, strict=True))
        with ExcerptRunner(head) as runner:
            held |= runner.run({i: held[i] for i in runner.inputs})
        with ExcerptRunner(tail) as runner:
            came = runner.run({i: held[i] for i in runner.inputs})
        for index, array in zip(outputs, expected, strict=True):
            if index in came:
                assert np.allclose(came[index], array, atol=1e-5)


def test_an_excerpt_has_other_constants_and_leaves_the_model_alone() -> None:
    model = small_model("cnn")
    tree = read_flatbuffer(model.data)
    before = write_flatbuffer(tree)
    layer = find_layers(tree)[0]
    weights = read_constant(tree, layer.weights)
    assert weights is not None
    excerpt = cut_excerpt(
        tree,
        layer.position,
        layer.position + 1,
        outputs=[layer.output],
        constants={layer.weights: np.zeros_like(weights)},
    )
    feed = make_feeds(model, num_samples=1)[0]
    with ExcerptRunner(excerpt) as runner:
        came = runner.run({layer.input: feed[0]})[layer.output]
    assert excerpt.inputs == (layer.input,)
    # Without weights every position gives the same.
    assert np.ptp(came.reshape(-1, came.shape[-1]), axis=0).max() == 0.0
    assert write_flatbuffer(tree) == before
