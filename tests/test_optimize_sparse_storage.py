from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepack._fields import Fields
from edgepack.evaluate import run_model
from edgepack.flatbuffer import op_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.pruning.prune import prune
from edgepack.optimize.pruning.sparse_facts import (
    describe_sparse,
    keep_dense,
    read_sparse_facts,
    sparse_facts_to_json,
)
from edgepack.optimize.pruning.sparse_storage import store_sparse
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.models import make_feeds
from tests.fixtures.sparse import mobile_model


@pytest.fixture(scope="module")
def pruned() -> Model:
    return prune(mobile_model(), 0.8)[0]


@pytest.mark.parametrize(
    ("scheme", "most"),
    [
        (Scheme.FLOAT32, 0.45),
        (Scheme.FLOAT16, 0.6),
        (Scheme.WEIGHT_ONLY_INT8, 0.97),
        (Scheme.INT8, 0.97),
    ],
)
def test_a_file_of_zeros_is_smaller_and_answers_the_same(
    pruned: Model, scheme: Scheme, most: float
) -> None:
    feeds = make_feeds(pruned, num_samples=3)
    dense = quantize(pruned, stock_recipe(scheme), feeds).model
    sparse, facts = store_sparse(dense)
    assert sparse.num_bytes < most * dense.num_bytes
    assert (facts.bytes_before, facts.bytes_after) == (dense.num_bytes, sparse.num_bytes)
    assert (sparse.signature, sparse.traits.numerics) == (dense.signature, dense.traits.numerics)
    assert sparse.traits.is_sparse
    for one, other in zip(run_model(dense, feeds), run_model(sparse, feeds), strict=True):
        # Equal to the last bit but for sparse kernels, which add in another order.
        np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-6)


def test_weights_that_the_runtime_wants_constant_stay_dense_and_say_so(pruned: Model) -> None:
    dense = quantize(pruned, stock_recipe(Scheme.DYNAMIC_RANGE)).model
    sparse, facts = store_sparse(dense)
    assert sparse is dense
    reasons = {each.dense_storage for each in facts.weights}
    assert "the runtime takes integer weights of CONV_2D as constants only" in reasons
    assert facts.num_sparse == facts.num_sparse_kernels == 0


def test_few_zeros_are_not_worth_their_places(pruned: Model) -> None:
    few, facts = store_sparse(prune(mobile_model(), 0.1)[0])
    assert facts.num_sparse == 0
    assert {each.dense_storage for each in facts.weights} == {"too few zeros to save bytes"}
    assert not few.traits.is_sparse
    model = mobile_model()
    same, nothing = store_sparse(model)
    assert same is model
    assert describe_sparse(nothing) == ("no weight is zero, so nothing is stored sparsely",)
    assert pruned.num_bytes == model.num_bytes


def test_weights_that_two_ops_share_are_stored_once(pruned: Model) -> None:
    tree = read_flatbuffer(pruned.data)
    graph = tree.subgraphs[0]
    convolutions = [op for op in graph.operators if op_name(tree, op) == "CONV_2D"]
    shapes = [tuple(graph.tensors[op.inputs[1]].shape) for op in convolutions]
    first, second, *_ = [i for i, shape in enumerate(shapes) if shape == (64, 1, 1, 32)]
    shared_weights = int(convolutions[first].inputs[1])
    inputs = [int(i) for i in convolutions[second].inputs]
    convolutions[second].inputs = [inputs[0], shared_weights, inputs[2]]
    shared = read_model(write_flatbuffer(tree))
    sparse, facts = store_sparse(shared)
    assert dict(sparse.op_counts)["DENSIFY"] == facts.num_sparse
    feeds = make_feeds(shared, num_samples=1)
    np.testing.assert_allclose(
        run_model(shared, feeds)[0][0], run_model(sparse, feeds)[0][0], rtol=1e-5, atol=1e-6
    )


def test_facts_travel_as_json_and_are_told(pruned: Model) -> None:
    _, facts = store_sparse(pruned)
    fields = Fields(sparse_facts_to_json(facts))
    assert read_sparse_facts(fields) == facts
    assert not fields.faults
    sizes = f"{facts.bytes_after} bytes instead of {facts.bytes_before}"
    assert describe_sparse(facts) == (
        f"7 of 7 weights with zeros are stored sparsely: {sizes}",
        "XNNPACK computes 5 of them with sparse kernels, but on x86 CPUs with AVX",
        "1 computed densely by XNNPACK: only 1x1 convolutions have a sparse kernel",
        "1 computed densely by XNNPACK: FULLY_CONNECTED has no sparse kernel",
    )
    kept = keep_dense(facts, "the runtime refuses it")
    assert kept.bytes_after == facts.bytes_before
    assert kept.num_sparse == kept.num_sparse_kernels == 0


@settings(max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (40, 3, 3, 300)]),
    seed=st.integers(0, 99),
    zeros=st.floats(0.75, 1.0),
)
def test_every_value_comes_back_to_its_place(
    shape: tuple[int, ...], seed: int, zeros: float
) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape).astype(np.float32)
    values[generator.uniform(size=shape) < zeros] = 0
    tree = read_flatbuffer(mobile_model(size=8, width=4).data)
    graph = tree.subgraphs[0]
    operator = next(op for op in graph.operators if op_name(tree, op) == "CONV_2D")
    index = int(operator.inputs[1])
    graph.tensors[index].shape = list(shape)
    set_constant(tree, index, values)
    stored, facts = store_sparse(read_model(write_flatbuffer(tree)))
    if facts.num_sparse:
        np.testing.assert_array_equal(_unpack(stored, "weights_", shape), values)
    else:
        assert values.size - np.count_nonzero(values) < 0.9 * values.size or values.nbytes < 2048


def _unpack(model: Model, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read a sparse constant as the schema describes it, value by value."""
    tree = read_flatbuffer(model.data)
    tensor = next(
        each
        for each in tree.subgraphs[0].tensors
        if each.sparsity is not None and tuple(each.shape) == shape
    )
    assert tensor.name.decode().startswith(name)
    order = [int(axis) for axis in tensor.sparsity.traversalOrder]
    *dense, last = tensor.sparsity.dimMetadata
    assert [each.denseSize for each in dense] == [shape[axis] for axis in order[:-1]]
    data = np.frombuffer(bytes(tree.buffers[tensor.buffer].data), "<f4")
    ends, places = last.arraySegments.values, last.arrayIndices.values
    rows = np.zeros((len(ends) - 1, shape[order[-1]]), np.float32)
    for row, (start, stop) in enumerate(pairwise(ends)):
        rows[row, places[start:stop]] = data[start:stop]
    walked = rows.reshape([shape[axis] for axis in order])
    return walked.transpose(np.argsort(order))
