"""Sparse storage: weights with many zeros as their other values and where those stand.

A weight stored so is a constant with `SparsityParameters`, which one DENSIFY at the graph's
start makes dense again; runtimes do that once, when the model is loaded. Its dimensions are
dense but for the last one in the order they are walked, of which only the places that hold a
value are listed (rows of a CSR matrix). So a file is smaller on every runtime, and XNNPACK sees
that weights are sparse (`edgepack.optimize.pruning.sparse_kernels` says where it makes use of it).

Which weights may be stored so was tried on EfficientNet-Lite0 in every scheme, against the same
zeros stored densely (LiteRT 2.3; tflite-runtime 2.14 gave the same): float32, float16 and
weight-only int8 answer equally to the last bit, and int8 convolutions too. Integer weights that
FULLY_CONNECTED or a dynamic-range CONV_2D reads itself are refused when the model is loaded, as
XNNPACK wants them constant.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import decode_name, dtype_name, op_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import drop_unused, make_op, tensor_shape, unique_name
from edgepack.model import Model, read_model
from edgepack.optimize.pruning.sparse_facts import NOTHING_SPARSE, SparseFacts, StoredWeights
from edgepack.optimize.pruning.sparse_kernels import refuse_sparse_kernels

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

# Which operand of an op is its weights.
_WEIGHTS: Final = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
_DTYPES: Final = {"float32": "<f4", "float16": "<f2", "int8": "<i1"}
# A tensor, an op, a buffer and the tables of its dimensions.
_TABLES_BYTES: Final = 512


def store_sparse(model: Model) -> tuple[Model, SparseFacts]:
    """Store a model's weights sparsely wherever that takes fewer bytes; answers stay the same.

    Args:
        model: any model; weights that are sparse already stay so.

    Returns:
        The model, unchanged when nothing is smaller so, and what became of its weights.
    """
    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    positions = _weights(tree)
    values = {index: array for index in positions if (array := _values(tree, index)) is not None}
    zeros = {index: array.size - int(np.count_nonzero(array)) for index, array in values.items()}
    kernels = refuse_sparse_kernels(
        tree,
        {
            position: (zeros[index], array.size)
            for index, array in values.items()
            for position in positions[index]
        },
    )
    storage = {index: _refuse(tree, index, array) for index, array in values.items()}
    # XNNPACK looks for sparse clusters once it sees one DENSIFY.
    nothing = NOTHING_SPARSE if all(storage.values()) else ""
    weights = tuple(
        StoredWeights(
            name=decode_name(graph.tensors[index].name),
            num_weights=array.size,
            num_zero=zeros[index],
            dense_storage=storage[index],
            dense_kernel=next((kernels[i] for i in positions[index] if kernels[i]), nothing),
        )
        for index, array in values.items()
        if zeros[index]
    )
    densify = [_store(tree, i, array) for i, array in values.items() if not storage[i]]
    result = model
    if densify:
        graph.operators = [*densify, *graph.operators]
        drop_unused(tree)
        result = read_model(write_flatbuffer(tree))
    return result, SparseFacts(
        bytes_before=model.num_bytes, bytes_after=result.num_bytes, weights=weights
    )


def _weights(tree: Tree) -> dict[int, list[int]]:
    """Give the tensors that are weights, behind a DEQUANTIZE too, with their ops' positions."""
    graph = tree.subgraphs[0]
    unpacked = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if op_name(tree, operator) == "DEQUANTIZE"
    }
    found: dict[int, list[int]] = {}
    for position, operator in enumerate(graph.operators):
        place = _WEIGHTS.get(op_name(tree, operator))
        if place is not None:
            index = int(operator.inputs[place])
            found.setdefault(unpacked.get(index, index), []).append(position)
    return found


def _values(tree: Tree, index: int) -> NDArray[Any] | None:
    """Give a dense constant's values; None for what is no such constant."""
    tensor = tree.subgraphs[0].tensors[index]
    data = tree.buffers[tensor.buffer].data
    dtype = _DTYPES.get(dtype_name(tensor.type))
    if dtype is None or data is None or not len(data) or tensor.sparsity is not None:
        return None
    values = np.frombuffer(bytes(data), dtype=dtype)
    shape = tensor_shape(tensor)
    return values.reshape(shape) if len(shape) > 1 and values.size == np.prod(shape) else None


def _refuse(tree: Tree, index: int, values: NDArray[Any]) -> str:
    """Say why weights stay dense; empty when they need not."""
    graph = tree.subgraphs[0]
    if index in [int(i) for i in graph.outputs]:
        return "they are an output of the model too"
    for operator in graph.operators:
        if index in [int(i) for i in operator.inputs] and (
            reason := _refuse_reader(tree, operator, index, values.dtype)
        ):
            return reason
    if np.any(_zero_points(graph.tensors[index])):
        return "their zeros stand for other numbers than 0"
    if _choose_order(values)[1] + _TABLES_BYTES >= values.nbytes:
        return "too few zeros to save bytes"
    return ""


def _refuse_reader(tree: Tree, operator: Any, index: int, dtype: np.dtype[Any]) -> str:  # noqa: ANN401 - see `Tree`
    name = op_name(tree, operator)
    if name == "DEQUANTIZE":
        return ""
    if _WEIGHTS.get(name) is None or index != int(operator.inputs[_WEIGHTS[name]]):
        return f"{name} reads them too"
    if dtype.kind == "f":
        return ""
    source = tree.subgraphs[0].tensors[int(operator.inputs[0])]
    if name == "CONV_2D" and dtype_name(source.type) != "float32":
        return ""
    return f"the runtime takes integer weights of {name} as constants only"


def _zero_points(tensor: Any) -> NDArray[Any]:  # noqa: ANN401 - see `Tree`
    parameters = tensor.quantization
    points = None if parameters is None else parameters.zeroPoint
    return np.zeros(0) if points is None else np.asarray(points)


def _choose_order(values: NDArray[Any]) -> tuple[tuple[int, ...], int]:
    """Give the order of dimensions that takes the fewest bytes, and how many it takes.

    Only the last one is sparse. Up to 256 places in it are told by one byte each.
    """
    count = int(np.count_nonzero(values))
    rank = values.ndim
    sizes: dict[tuple[int, ...], int] = {}
    # The one as it stands in memory comes first, and wins between equals.
    for last in reversed(range(rank)):
        order = (*(axis for axis in range(rank) if axis != last), last)
        rows = values.size // values.shape[last]
        sizes[order] = (
            count * values.itemsize
            + count * _index_dtype(values.shape[last] - 1).itemsize
            + (rows + 1) * _index_dtype(count).itemsize
        )
    best = min(sizes, key=lambda order: sizes[order])
    return best, sizes[best]


def _index_dtype(highest: int) -> np.dtype[Any]:
    """Give the narrowest of the schema's types of indexes that holds a number."""
    kinds = (np.uint8, np.uint16, np.int32)
    return np.dtype(next(kind for kind in kinds if highest <= np.iinfo(kind).max))


def _store(tree: Tree, index: int, values: NDArray[Any]) -> Any:  # noqa: ANN401 - see `Tree`
    """Make a constant sparse, and give the DENSIFY whose output its readers read from now on."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    graph = tree.subgraphs[0]
    tensor = graph.tensors[index]
    order, _ = _choose_order(values)
    walked = np.transpose(values, order)
    rows = walked.reshape(-1, walked.shape[-1])
    filled = rows != 0

    dense = schema.TensorT()
    vars(dense).update(vars(tensor))
    dense.name = unique_name(tree, f"{decode_name(tensor.name)}_dense")
    tree.buffers.append(schema.BufferT())
    dense.buffer = len(tree.buffers) - 1
    graph.tensors.append(dense)
    for operator in graph.operators:
        operator.inputs = [
            len(graph.tensors) - 1 if int(i) == index else int(i) for i in operator.inputs
        ]

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(rows[filled].tobytes(), dtype=np.uint8)
    tree.buffers.append(buffer)
    tensor.buffer = len(tree.buffers) - 1
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = list(order)
    sparsity.dimMetadata = []
    for size in walked.shape[:-1]:
        dimension = schema.DimensionMetadataT()
        dimension.format = schema.DimensionType.DENSE
        dimension.denseSize = int(size)
        sparsity.dimMetadata.append(dimension)
    last = schema.DimensionMetadataT()
    last.format = schema.DimensionType.SPARSE_CSR
    ends = np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
    last.arraySegmentsType, last.arraySegments = _index_vector(ends, highest=int(ends[-1]))
    places = np.nonzero(filled)[1]
    last.arrayIndicesType, last.arrayIndices = _index_vector(places, highest=rows.shape[1] - 1)
    sparsity.dimMetadata.append(last)
    tensor.sparsity = sparsity
    return make_op(
        tree, "DENSIFY", [index], [len(graph.tensors) - 1], options=("DensifyOptions", {})
    )


def _index_vector(numbers: NDArray[Any], *, highest: int) -> tuple[int, Any]:
    """Give indexes as the schema's narrowest vector: the union's kind and the table."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    dtype = _index_dtype(highest)
    kind = f"{dtype.name.capitalize()}Vector"
    table = getattr(schema, f"{kind}T")()
    table.values = numbers.astype(dtype)
    return getattr(schema.SparseIndexVector, kind), table
