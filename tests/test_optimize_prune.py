import zlib
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepack.errors import OptimizeError
from edgepack.evaluate import run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import read_model
from edgepack.optimize.pruning.prune import prune, prune_array
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.models import make_feeds, small_model


def _buffers(data: bytes) -> list[bytes]:
    tree = read_flatbuffer(data)
    return [b"" if buffer.data is None else bytes(buffer.data) for buffer in tree.buffers]


def test_the_share_of_each_layer_s_weights_becomes_zero() -> None:
    model = small_model("cnn")
    pruned, facts = prune(model, 0.5)
    changed = [
        (np.frombuffer(old, "<f4"), np.frombuffer(new, "<f4"))
        for old, new in zip(_buffers(model.data), _buffers(pruned.data), strict=True)
        if old != new
    ]
    # Two convolutions (72 and 1,152 weights) and a dense layer (640); no bias among them.
    assert sorted(new.size for _, new in changed) == [72, 640, 1152]
    for old, new in changed:
        assert np.sum(new == 0) == new.size // 2
        kept = new != 0
        np.testing.assert_array_equal(new[kept], old[kept])
        assert np.abs(old[~kept]).max() <= np.abs(old[kept]).min()
    assert (facts.num_weights, facts.num_zero_before, facts.num_zero_after) == (1864, 0, 932)


def test_pruning_shrinks_the_compressed_file_and_not_the_raw_one() -> None:
    model = small_model("cnn")
    pruned, facts = prune(model, 0.8)
    assert facts.raw_bytes == pruned.num_bytes
    assert facts.compressed_bytes_before == len(zlib.compress(model.data, 9))
    assert facts.compressed_bytes_after == len(zlib.compress(pruned.data, 9))
    assert facts.compressed_bytes_after < 0.6 * facts.compressed_bytes_before


def test_pruning_keeps_the_interface_and_still_runs() -> None:
    model = small_model("two")
    pruned, _ = prune(model, 0.3)
    assert pruned.signature == model.signature
    feeds = make_feeds(model, num_samples=2)
    assert not np.array_equal(run_model(model, feeds)[0][0], run_model(pruned, feeds)[0][0])


def test_depthwise_weights_and_embeddings_are_left_alone() -> None:
    _, facts = prune(small_model("depthwise"), 0.5)
    assert facts.num_weights == 3 * 3 * 3 * 8 + 8 * 12 + 12 * 5
    _, facts = prune(small_model("embedding"), 0.5)
    assert facts.num_weights == 8 * 16 + 16 * 4


def test_a_buffer_that_layers_share_is_pruned_once() -> None:
    tree = read_flatbuffer(small_model("two").data)
    graph = tree.subgraphs[0]
    dense = [op for op in graph.operators if len(op.inputs) == 3]
    for operator in dense[1:]:
        tensor = graph.tensors[operator.inputs[1]]
        tensor.buffer = graph.tensors[dense[0].inputs[1]].buffer
    shared = read_model(write_flatbuffer(tree))
    _, facts = prune(shared, 0.5)
    assert facts.num_weights == 10 * 16


def test_a_buffer_that_serves_another_op_too_is_left_alone() -> None:
    tree = read_flatbuffer(small_model("two").data)
    graph = tree.subgraphs[0]
    dense = [op for op in graph.operators if len(op.inputs) == 3]
    weights = graph.tensors[dense[0].inputs[1]].buffer
    graph.tensors[dense[0].inputs[2]].buffer = weights
    _, facts = prune(read_model(write_flatbuffer(tree)), 0.5)
    assert facts.num_weights == 16 + 8 * 16


def test_a_quantized_model_is_refused() -> None:
    quantized = quantize(small_model("cnn"), stock_recipe(Scheme.DYNAMIC_RANGE)).model
    with pytest.raises(OptimizeError) as caught:
        prune(quantized, 0.5)
    assert caught.value.message == (
        "pruning needs a float32 model, but this one is quantized already"
    )


def test_the_share_is_the_decimal_number_that_was_written() -> None:
    # 0.29 * 100 is 28.999999999999996 in binary.
    assert np.sum(prune_array(np.arange(1.0, 101.0), 0.29) == 0) == 29


def test_of_equal_magnitudes_the_first_go_first() -> None:
    pruned = prune_array(np.array([2.0, -1.0, 1.0, -1.0, 3.0]), 0.4)
    assert pruned.tolist() == [2.0, 0.0, 0.0, -1.0, 3.0]


@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(-10, 10, width=32)),
    st.integers(0, 99).map(lambda percent: percent / 100),
)
def test_what_remains_is_never_smaller_than_what_went(weights: np.ndarray, share: float) -> None:
    pruned = prune_array(weights, share)
    count = int(Decimal(str(share)) * weights.size)
    gone = (pruned == 0) & (weights != 0)
    assert np.sum(pruned == 0) >= count
    assert np.sum(gone) <= count
    np.testing.assert_array_equal(pruned[~gone], weights[~gone])
    if gone.any() and (~gone & (weights != 0)).any():
        assert np.abs(weights[gone]).max() <= np.abs(pruned[pruned != 0]).min()
