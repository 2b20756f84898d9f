from collections.abc import Mapping

import numpy as np
import pytest

from edgepack.flatbuffer import op_name, read_flatbuffer
from edgepack.optimize.quantizing.tails import Extent, find_tail, find_unlike
from tests.fixtures.mixtures import detector, row_of_layers

TREE = read_flatbuffer(detector().data)
OPS = [op_name(TREE, operator) for operator in TREE.subgraphs[0].operators]


def _extents(highs: Mapping[str, float]) -> dict[int, Extent]:
    graph = TREE.subgraphs[0]
    return {
        index: Extent(low=0.0, high=highs[name])
        for index, tensor in enumerate(graph.tensors)
        if (name := tensor.name.decode()) in highs
    }


def test_the_tail_reaches_back_to_the_ops_that_compute() -> None:
    assert [OPS[at] for at in find_tail(TREE)] == [
        "LOGISTIC",
        "LOGISTIC",
        "MUL",
        "CONCATENATION",
        "RESHAPE",
    ]


@pytest.mark.parametrize(
    ("score", "unlike"),
    [
        (0.9, ["CONCATENATION", "RESHAPE"]),
        (300.0, []),
        (0.0, []),  # no score at all was seen: nothing to lose
    ],
)
def test_what_joins_unlike_parts_is_found_with_all_that_follows(
    score: float, unlike: list[str]
) -> None:
    extents = _extents({"boxes": 320.0, "scores_share": score, "joined": 320.0})
    assert [OPS[at] for at in find_unlike(TREE, extents)] == unlike


def _peaks(values: list[float], *, activation: int = 0) -> tuple[int, ...]:
    tree = read_flatbuffer(row_of_layers().data)
    graph = tree.subgraphs[0]
    graph.operators[-1].builtinOptions.fusedActivationFunction = activation
    peaks = np.array(values)
    return find_unlike(
        tree, {int(graph.outputs[0]): Extent(low=0.0, high=float(peaks.max()), peaks=peaks)}
    )


def test_a_layer_that_gives_boxes_beside_scores_is_found() -> None:
    assert _peaks([320.0, 0.9]) == (4,)


@pytest.mark.parametrize("values", [[320.0, 30.0], [320.0, 1e-6], [1.0, 0.9]])
def test_channels_of_like_reach_and_dead_ones_are_no_reason(values: list[float]) -> None:
    assert _peaks(values) == ()


def test_features_that_a_rectifier_made_are_of_one_unit() -> None:
    assert _peaks([320.0, 0.9], activation=1) == ()
