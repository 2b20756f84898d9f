import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgepack.flatbuffer import write_flatbuffer
from edgepack.importers.limits import are_bounded, integer_maxima
from edgepack.model import Model, read_model

Op = tuple[str, list[int], list[int]]
Tensor = tuple[tuple[int, ...], str]


def _model(
    tensors: list[Tensor],
    ops: list[Op],
    *,
    inputs: list[int],
    outputs: list[int],
    constants: dict[int, np.ndarray] | None = None,
) -> Model:
    """Write a graph of ops without options; it is read, never run."""
    tree = schema.ModelT()
    tree.version = 3
    tree.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    graph.inputs, graph.outputs = inputs, outputs
    for index, (shape, dtype) in enumerate(tensors):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"t{index}", list(shape)
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.buffer = 0
        if index in (constants or {}):
            buffer = schema.BufferT()
            buffer.data = np.frombuffer((constants or {})[index].tobytes(), np.uint8)
            tensor.buffer = len(tree.buffers)
            tree.buffers.append(buffer)
        graph.tensors.append(tensor)
    codes: list[str] = []
    for name, ins, outs in ops:
        if name not in codes:
            codes.append(name)
        operator = schema.OperatorT()
        operator.opcodeIndex = codes.index(name)
        operator.inputs, operator.outputs = ins, outs
        graph.operators.append(operator)
    tree.operatorCodes = []
    for name in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        tree.operatorCodes.append(code)
    tree.subgraphs = [graph]
    return read_model(write_flatbuffer(tree))


def test_ids_end_at_the_last_row_of_their_table() -> None:
    # As onnx2tf 2.6.9 writes a Gather: CAST, and SELECT for ids that count from the end.
    model = _model(
        [
            ((1, 7), "int64"), ((1, 7), "int32"), ((1, 7), "int32"), ((1, 7), "bool"),
            ((1, 7), "int32"), ((10, 4), "float32"), ((1, 7, 4), "float32"),
        ],
        [
            ("CAST", [0], [1]),
            ("SELECT", [3, 2, 1], [4]),
            ("GATHER", [5, 4], [6]),
        ],
        inputs=[0],
        outputs=[6],
    )  # fmt: skip
    assert integer_maxima(model) == (9,)


def test_the_smallest_of_several_tables_counts() -> None:
    model = _model(
        [
            ((1, 7), "int32"), ((100, 4), "float32"), ((30, 4), "float32"),
            ((1, 7, 4), "float32"), ((1, 7, 4), "float32"), ((1, 3), "float32"),
        ],
        [("GATHER", [1, 0], [3]), ("EMBEDDING_LOOKUP", [0, 2], [4])],
        inputs=[0, 5],
        outputs=[3, 4],
    )  # fmt: skip
    assert integer_maxima(model) == (29, None)


@pytest.mark.parametrize(
    ("name", "constant", "expected"),
    [
        ("ONE_HOT", np.array(12, "<i4"), 11),
        ("EQUAL", np.arange(257, dtype="<i4"), 256),
        ("EQUAL", np.array([3, 4], "<i4"), None),
        ("EQUAL", np.array([0], "<i4"), None),
        ("ADD", np.array([1], "<i4"), None),
    ],
)
def test_one_hot_codes_tell_how_many_ids_there_are(
    name: str, constant: np.ndarray, expected: int | None
) -> None:
    model = _model(
        [((1, 7, 1), "int32"), (constant.shape, "int32"), ((1, 7, 257), "float32")],
        [(name, [0, 1], [2])],
        inputs=[0],
        outputs=[2],
        constants={1: constant},
    )
    assert integer_maxima(model) == (expected,)


def test_only_a_sigmoids_or_a_tangents_own_values_are_bounded() -> None:
    shape = ((1, 4), "float32")
    model = _model(
        [shape, shape, shape, shape, shape, shape],
        [
            ("LOGISTIC", [0], [1]),
            ("RESHAPE", [1], [2]),
            ("MUL", [1, 0], [3]),
            ("TANH", [0], [4]),
            ("TRANSPOSE", [0], [5]),
        ],
        inputs=[0],
        outputs=[1, 2, 3, 4, 5],
    )
    assert are_bounded(model) == (True, True, False, True, False)
