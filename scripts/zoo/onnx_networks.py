"""Small ONNX graphs made node by node: opsets, states, branches, open dimensions, odd types."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 20
VOCABULARY = 50
ONNX: dict[str, tuple[str, ...]] = {"model.onnx": ()}
# Opsets in which an operator takes as inputs what were attributes before.
CLIP_INPUTS, PAD_INPUTS, AXES_INPUTS, MEAN_AXES = 11, 11, 13, 18
RESIZE, RESIZE_SCALES, ROI_OPTIONAL = 10, 11, 13


class Graph:
    """A graph in the making."""

    def __init__(self, opset: int = 17) -> None:
        import numpy as np  # noqa: PLC0415 - of the toolchain

        self.opset = opset
        self.generator = np.random.default_rng(SEED)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, *shape: int | str, dtype: str = "FLOAT") -> str:
        """Declare an input."""
        self.inputs.append(_info(name, shape, dtype))
        return name

    def output(self, name: str, *shape: int | str, dtype: str = "FLOAT") -> None:
        """Declare an output."""
        self.outputs.append(_info(name, shape, dtype))

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Add random weights of the usual size for what they sum up."""
        fan_in = max(1, int(self._product(shape[1:])))
        factor = scale if scale is not None else fan_in**-0.5
        return self.constant(self.generator.normal(0, factor, shape).astype("float32"))

    def constant(self, value: Any, dtype: str | None = None) -> str:  # noqa: ANN401 - an array
        """Add a constant."""
        import numpy as np  # noqa: PLC0415 - of the toolchain
        from onnx import numpy_helper  # noqa: PLC0415 - as above

        name = f"constant{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:  # noqa: ANN401 - onnx's own
        """Add a node of one output and give its name."""
        return self.add_many(op, inputs, [name or f"t{len(self.nodes)}"], **attributes)[0]

    def add_many(
        self,
        op: str,
        inputs: tuple[str, ...],
        outputs: list[str],
        **attributes: Any,  # noqa: ANN401 - onnx's own
    ) -> list[str]:
        """Add a node."""
        from onnx import helper  # noqa: PLC0415 - of the toolchain

        node = helper.make_node(op, inputs, outputs, name=f"n{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return outputs

    def axes(self, op: str, x: str, axes: list[int], *, since: int, **attributes: Any) -> str:  # noqa: ANN401 - onnx's own
        """Add a node whose axes became an input with an opset."""
        if self.opset >= since:
            return self.add(op, x, self.constant(axes, "int64"), **attributes)
        return self.add(op, x, axes=axes, **attributes)

    def model(self) -> Any:  # noqa: ANN401 - an onnx.ModelProto
        """Make the model and check it."""
        import onnx  # noqa: PLC0415 - of the toolchain
        from onnx import helper  # noqa: PLC0415 - as above

        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, self.weights)
        version = helper.make_opsetid("", self.opset)
        made = helper.make_model_gen_version(graph, opset_imports=[version])
        onnx.checker.check_model(made)
        return made

    def save(self, path: Path) -> None:
        """Write the model as one file."""
        import onnx  # noqa: PLC0415 - of the toolchain

        onnx.save(self.model(), str(path))

    @staticmethod
    def _product(sizes: tuple[int, ...]) -> int:
        product = 1
        for size in sizes:
            product *= size
        return product


def _info(name: str, shape: tuple[int | str, ...], dtype: str) -> Any:  # noqa: ANN401 - a proto
    from onnx import TensorProto, helper  # noqa: PLC0415 - of the toolchain

    return helper.make_tensor_value_info(name, getattr(TensorProto, dtype), list(shape))


def classifier(opset: int) -> Graph:
    """Give a picture classifier with the operators that opsets spelled otherwise."""
    g = Graph(opset)
    x = g.input("image", 1, 3, 16, 16)
    x = g.add("Conv", x, g.weight(8, 3, 3, 3), g.weight(8, scale=0.1), pads=[1, 1, 1, 1])
    mean, scale = g.weight(8, scale=0.1), g.constant(g.generator.uniform(0.5, 1.5, 8), "float32")
    x = g.add("BatchNormalization", x, scale, g.weight(8, scale=0.1), mean, scale)
    if opset >= CLIP_INPUTS:
        x = g.add("Clip", x, g.constant(0, "float32"), g.constant(6, "float32"))
    else:
        x = g.add("Clip", x, min=0.0, max=6.0)
    if opset >= PAD_INPUTS:
        x = g.add("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1], "int64"))
    else:
        x = g.add("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=0.0)
    x = g.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    scales = g.constant([1, 1, 2, 2], "float32")
    if opset >= RESIZE_SCALES:
        attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        roi = g.constant([], "float32") if opset < ROI_OPTIONAL else ""
        x = g.add("Resize", x, roi, scales, mode="nearest", **attributes)
    else:
        x = g.add("Resize" if opset >= RESIZE else "Upsample", x, scales, mode="nearest")
    x = g.add("Conv", x, g.weight(12, 2, 3, 3), group=4, strides=[2, 2])
    x = g.add("LeakyRelu", x, alpha=0.1)
    x = g.axes("ReduceMean", x, [2, 3], since=MEAN_AXES, keepdims=1)
    x = g.axes("Squeeze", x, [2, 3], since=AXES_INPUTS)
    x = g.add("Gemm", x, g.weight(10, 12), g.weight(10, scale=0.1), transB=1)
    g.add("Softmax", x, axis=1, name="classes")
    g.output("classes", 1, 10)
    return g


def recurrent(op: str, gates: int, *, directions: int = 1, has_states: bool = True) -> Graph:
    """Give a recurrent layer whose states go in and come out."""
    g = Graph()
    size, features, steps = 6, 4, 5
    x = g.input("frames", steps, 1, features)
    weights = [
        g.weight(directions, gates * size, features, scale=0.4),
        g.weight(directions, gates * size, size, scale=0.4),
        g.weight(directions, 2 * gates * size, scale=0.2),
    ]
    states = ["h", "c"] if op == "LSTM" else ["h"]
    given = [g.input(f"{each}0", directions, 1, size) for each in states] if has_states else []
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    outputs = ["y", *(f"{each}1" for each in states)]
    inputs = (x, *weights, *(("", *given) if given else ()))
    direction = "bidirectional" if directions > 1 else "forward"
    g.add_many(op, inputs, outputs, hidden_size=size, direction=direction, **extra)
    g.output("y", steps, directions, 1, size)
    for each in states:
        g.output(f"{each}1", directions, 1, size)
    return g


def branch(*, by_shape: bool) -> Graph:
    """Give a graph with an If that is decided once shapes are fixed."""
    from onnx import helper  # noqa: PLC0415 - of the toolchain

    g = Graph()
    x = g.input("x", "N" if by_shape else 1, 6)
    if by_shape:
        count = g.add("Gather", g.add("Shape", x), g.constant(0, "int64"), axis=0)
        condition = g.add("Equal", count, g.constant(1, "int64"))
    else:
        condition = g.constant(True, "bool")
    weight = g.weight(6, 4)
    branches = {
        f"{name}_branch": helper.make_graph(
            [
                helper.make_node("MatMul", [x, weight], [f"{name}_m"], name=f"{name}_0"),
                helper.make_node(op, [f"{name}_m"], [f"{name}_y"], name=f"{name}_1"),
            ],
            name,
            [],
            [_info(f"{name}_y", (1, 4), "FLOAT")],
        )
        for name, op in (("then", "Tanh"), ("else", "Relu"))
    }
    chosen = g.add("If", condition, **branches)
    g.add("Sigmoid", chosen, name="y")
    g.output("y", "N" if by_shape else 1, 4)
    return g


def open_dimensions() -> Graph:
    """Give a network over pictures of any size, with a shape computed in the graph."""
    g = Graph()
    x = g.input("image", "batch", 3, "height", "width")
    y = g.add("Relu", g.add("Conv", x, g.weight(8, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]))
    size = g.add("Slice", g.add("Shape", x), *(g.constant([n], "int64") for n in (2, 4)))
    head = g.add("Slice", g.add("Shape", y), *(g.constant([n], "int64") for n in (0, 2)))
    whole = g.add("Concat", head, size, axis=0)
    y = g.add(
        "Resize", y, "", "", whole, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    g.add("Conv", y, g.weight(2, 8, 1, 1), name="map")
    g.output("map", "batch", 2, "height", "width")
    return g


def sequence_length() -> Graph:
    """Give token ids of any number through an embedding and an attention."""
    g = Graph()
    ids = g.input("ids", "batch", "words", dtype="INT64")
    mask = g.input("mask", "batch", "words", dtype="INT64")
    x = g.add("Gather", g.weight(VOCABULARY, 16, scale=1.0), ids)
    query, key, value = (g.add("MatMul", x, g.weight(16, 16)) for _ in range(3))
    scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 2, 1]))
    absent = g.add("Sub", g.constant(1, "float32"), g.add("Cast", mask, to=1))
    bias = g.add("Mul", absent, g.constant(-1e4, "float32"))
    scores = g.add("Add", scores, g.axes("Unsqueeze", bias, [1], since=AXES_INPUTS))
    x = g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
    g.add("LayerNormalization", x, g.weight(16, scale=1.0), g.weight(16, scale=0.1), name="out")
    g.output("out", "batch", "words", 16)
    return g


def volume() -> Graph:
    """Give 3-D convolutions and a pooling."""
    g = Graph()
    x = g.input("volume", 1, 2, 6, 8, 8)
    x = g.add("Relu", g.add("Conv", x, g.weight(4, 2, 3, 3, 3), pads=[1] * 6))
    x = g.add("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    g.add("Conv", x, g.weight(3, 4, 1, 1, 1), name="y")
    g.output("y", 1, 3, 3, 4, 4)
    return g


def signal() -> Graph:
    """Give 1-D convolutions, dilated, strided and transposed."""
    g = Graph()
    x = g.input("signal", 1, 2, 64)
    x = g.add("Elu", g.add("Conv", x, g.weight(6, 2, 5), pads=[2, 2]))
    x = g.add("Tanh", g.add("Conv", x, g.weight(6, 6, 3), dilations=[4], pads=[4, 4]))
    x = g.add("AveragePool", x, kernel_shape=[2], strides=[2])
    g.add("ConvTranspose", x, g.weight(6, 3, 4), strides=[2], pads=[1, 1], name="y")
    g.output("y", 1, 3, 64)
    return g


def upscaler() -> Graph:
    """Give transposed convolution, channels moved into space, and three ways to resize."""
    g = Graph()
    x = g.input("image", 1, 3, 8, 8)
    x = g.add("PRelu", g.add("Conv", x, g.weight(12, 3, 3, 3), pads=[1] * 4), g.weight(12, 1, 1))
    y = g.add("DepthToSpace", x, blocksize=2, mode="CRD")
    z = g.add("ConvTranspose", x, g.weight(12, 3, 2, 2), strides=[2, 2])
    w = g.add("DepthToSpace", x, blocksize=2, mode="DCR")
    scales = g.constant([1, 1, 1.5, 1.5], "float32")
    s = g.add("Sum", y, z, w)
    g.add("Resize", s, "", scales, mode="linear", name="soft")
    g.add(
        "Resize",
        s,
        "",
        scales,
        mode="linear",
        coordinate_transformation_mode="align_corners",
        name="sharp",
    )
    g.output("soft", 1, 3, 24, 24)
    g.output("sharp", 1, 3, 24, 24)
    return g


def normalizations() -> Graph:
    """Give instance, layer and local response normalization and several activations."""
    g = Graph(18)
    x = g.input("x", 1, 4, 10, 10)
    x = g.add("InstanceNormalization", x, g.weight(4, scale=1.0), g.weight(4, scale=0.1))
    x = g.add("HardSwish", g.add("Conv", x, g.weight(8, 4, 3, 3)))
    x = g.add("LRN", g.add("Mish", x), size=3)
    x = g.add("LayerNormalization", x, g.weight(8, scale=1.0), axis=-1)
    x = g.add("HardSigmoid", g.add("Softplus", x), alpha=0.2, beta=0.3)
    g.add("Erf", x, name="y")
    g.output("y", 1, 8, 8, 8)
    return g


def several() -> Graph:
    """Give several inputs and outputs of several types."""
    g = Graph()
    image, ids = g.input("image", 1, 3, 8, 8), g.input("ids", 1, 5, dtype="INT32")
    vector = g.input("vector", 1, 6)
    pooled = g.add("Flatten", g.add("GlobalAveragePool", image))
    words = g.axes("ReduceMean", g.add("Gather", g.weight(VOCABULARY, 4, scale=1.0), ids), [1],
                   since=MEAN_AXES, keepdims=0)  # fmt: skip
    joined = g.add("Concat", pooled, words, vector, axis=1)
    scores = g.add("MatMul", joined, g.weight(13, 5, scale=0.5), name="scores")
    g.add("ArgMax", scores, axis=1, keepdims=0, name="best")
    g.add("Greater", scores, g.constant(0, "float32"), name="positive")
    g.output("scores", 1, 5)
    g.output("best", 1, dtype="INT64")
    g.output("positive", 1, 5, dtype="BOOL")
    return g


def reshaping() -> Graph:
    """Give slices, splits, gathers, tiles and an Einsum."""
    g = Graph()
    x = g.input("x", 2, 6, 8)
    halves = g.add_many("Split", (x, g.constant([3, 3], "int64")), ["a", "b"], axis=1)
    x = g.add(
        "Einsum", halves[0], g.add("Transpose", halves[1], perm=[0, 2, 1]), equation="bij,bjk->bik"
    )
    picked = g.add("Gather", x, g.constant([2, 0], "int64"), axis=2)
    tiled = g.add("Tile", picked, g.constant([1, 1, 2], "int64"))
    sliced = g.add("Slice", tiled, *(g.constant(each, "int64") for each in ([0], [9], [2], [2])))
    where = g.add("Where", g.add("Greater", sliced, g.constant(0, "float32")), sliced,
                  g.constant(0.5, "float32"))  # fmt: skip
    g.add("CumSum", where, g.constant(1, "int64"), name="y")
    g.add_many("TopK", (x, g.constant([2], "int64")), ["top", "places"], axis=2)
    g.output("y", 2, 3, 2)
    g.output("top", 2, 3, 2)
    g.output("places", 2, 3, 2, dtype="INT64")
    return g


def quantized() -> Graph:
    """Give a convolution between QuantizeLinear and DequantizeLinear, as trained for int8."""
    g = Graph()
    x = g.input("image", 1, 3, 8, 8)

    def both(name: str, scale: float, zero: Any) -> str:  # noqa: ANN401 - an array
        pair = (g.constant(scale, "float32"), g.constant(zero))
        return g.add("DequantizeLinear", g.add("QuantizeLinear", name, *pair), *pair)

    import numpy as np  # noqa: PLC0415 - of the toolchain

    x = both(x, 1 / 64, np.uint8(128))
    weight = g.constant(g.generator.integers(-127, 127, (4, 3, 3, 3)), "int8")
    scale = (g.constant(0.01, "float32"), g.constant(np.int8(0)))
    x = g.add("Relu", g.add("Conv", x, g.add("DequantizeLinear", weight, *scale)))
    g.add("Identity", both(x, 1 / 16, np.uint8(0)), name="y")
    g.output("y", 1, 4, 6, 6)
    return g


def half() -> Graph:
    """Give weights and inputs of half precision."""
    g = Graph()
    x = g.input("x", 1, 8, dtype="FLOAT16")
    x = g.add("MatMul", x, g.constant(g.generator.normal(0, 0.3, (8, 5)), "float16"))
    g.add("Relu", x, name="y")
    g.output("y", 1, 5, dtype="FLOAT16")
    return g


def write_external(folder: Path) -> None:
    """Write a classifier with its weights in a file beside it."""
    import onnx  # noqa: PLC0415 - of the toolchain

    onnx.save(
        classifier(17).model(),
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=128,
    )


NETWORKS: tuple[
    tuple[
        str, Callable[[], Graph] | None, dict[str, tuple[str, ...]], Callable[[Path], None] | None
    ],
    ...,
] = (
    ("lstm-states", lambda: recurrent("LSTM", 4), ONNX, None),
    ("gru-states", lambda: recurrent("GRU", 3), ONNX, None),
    ("rnn", lambda: recurrent("RNN", 1), ONNX, None),
    ("lstm-bidirectional", lambda: recurrent("LSTM", 4, directions=2), ONNX, None),
    ("gru-bidirectional", lambda: recurrent("GRU", 3, directions=2, has_states=False), ONNX, None),
    ("if-constant", lambda: branch(by_shape=False), ONNX, None),
    ("if-shape", lambda: branch(by_shape=True), {"model.onnx": ("--dim", "N=1")}, None),
    ("external-data", None, ONNX, write_external),
    (
        "open-dimensions",
        open_dimensions,
        {"model.onnx": ("--dim", "batch=1", "--dim", "height=32", "--dim", "width=24")},
        None,
    ),
    (
        "attention-mask",
        sequence_length,
        {"model.onnx": ("--dim", "batch=1", "--dim", "words=9")},
        None,
    ),
    ("convolution-3d", volume, ONNX, None),
    ("convolution-1d", signal, ONNX, None),
    ("upscaler", upscaler, ONNX, None),
    ("normalizations", normalizations, ONNX, None),
    ("several-types", several, ONNX, None),
    ("reshaping", reshaping, ONNX, None),
    ("quantized", quantized, ONNX, None),
    ("half-precision", half, ONNX, None),
)
