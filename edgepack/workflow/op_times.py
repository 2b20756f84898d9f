"""What each op takes, joined with the model's graph, as node data for Model Explorer.

The runtime tells the place in the graph of the ops it runs itself. XNNPACK tells neither place nor
tensor of its own, but runs them in the graph's order: where it ran as many ops of a kind as the
graph has left for it, they are the same ones (TensorFlow Lite 2.17.1). What it added, merged or
left away is not joined. The format is that of `optimize.model_explorer`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgepack.flatbuffer import decode_name, op_name, read_flatbuffer
from edgepack.measure.profile import OpProfile, OpTime
from edgepack.optimize.ranking.model_explorer import describe_nodes, graph_id

# XNNPACK's names up to the bracket, and the ops that they may stand for.
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Fully Connected": ("FULLY_CONNECTED",),
    "Batch Matrix Multiply": ("BATCH_MATMUL",),
    "Global Average Pooling": ("MEAN",),
    "Mean": ("MEAN",),
    "Average Pooling": ("AVERAGE_POOL_2D",),
    "Max Pooling": ("MAX_POOL_2D",),
    "Add": ("ADD",),
    "Subtract": ("SUB",),
    "Multiply": ("MUL",),
    "Divide": ("DIV",),
    "Maximum": ("MAXIMUM",),
    "Minimum": ("MINIMUM",),
    "Softmax": ("SOFTMAX",),
    "Sigmoid": ("LOGISTIC",),
    "Tanh": ("TANH",),
    "HardSwish": ("HARD_SWISH",),
    "Leaky ReLU": ("LEAKY_RELU",),
    "PReLU": ("PRELU",),
    "ELU": ("ELU",),
    "Clamp": ("RELU", "RELU6", "RELU_N1_TO_1"),
    "Resize Bilinear": ("RESIZE_BILINEAR",),
    "Constant Pad": ("PAD", "PADV2"),
    "Transpose": ("TRANSPOSE",),
    "Convert": ("QUANTIZE", "DEQUANTIZE"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedOps:
    """The ops of a profile that are found in the graph.

    Attributes:
        graph: the viewer's id of it.
        times: name of the first tensor an op gives, and what the op took of all runs, in ns.
        num_runs: runs in all.
        num_ops: ops of the profile.
        num_joined: those that are found.
        share: of their time that is joined.
    """

    graph: str
    times: tuple[tuple[str, int], ...]
    num_runs: int
    num_ops: int
    num_joined: int
    share: float


def join_ops(data: bytes, profile: OpProfile) -> JoinedOps:
    """Find the ops of a profile in the main graph of the model that was profiled.

    Raises:
        ModelError: the bytes are no flatbuffer.
    """
    tree = read_flatbuffer(data)
    graph = tree.subgraphs[0]
    names = [op_name(tree, operator) for operator in graph.operators or ()]
    found = dict(_join(names, profile.ops))
    total_ns = sum(op.total_ns for op in profile.ops)
    times: dict[str, int] = {}
    for node, op in sorted(found.items()):
        outputs = graph.operators[node].outputs
        if outputs is not None and len(outputs):
            name = decode_name(graph.tensors[int(outputs[0])].name)
            times[name] = times.get(name, 0) + op.total_ns
    return JoinedOps(
        graph=graph_id(data),
        times=tuple(times.items()),
        num_runs=profile.num_runs,
        num_ops=len(profile.ops),
        num_joined=len(found),
        share=sum(op.total_ns for op in found.values()) / max(total_ns, 1),
    )


def _join(names: Sequence[str], ops: Sequence[OpTime]) -> Iterator[tuple[int, OpTime]]:
    """Give the place in the graph of each op that surely has one."""
    plain = {
        op.node: op
        for op in ops
        if op.node is not None and op.node < len(names) and names[op.node] == op.name
    }
    yield from plain.items()
    left = [(node, name) for node, name in enumerate(names) if node not in plain]
    kinds = {each: _kind(op.name) for each, op in enumerate(ops) if op.xnnpack}
    for kind in dict.fromkeys(kinds.values()):
        ran = [ops[each] for each, other in kinds.items() if other == kind]
        nodes = [node for node, name in left if name in _KINDS.get(kind, ())]
        if len(ran) == len(nodes):
            yield from zip(nodes, ran, strict=True)


def _kind(name: str) -> str:
    return name.partition(" (")[0]


def make_node_data(joined: JoinedOps) -> dict[str, Any]:
    """Give what each op takes, in µs a run, as node data of one graph."""
    values = {
        name: round(total_ns / max(joined.num_runs, 1) / 1e3, 3) for name, total_ns in joined.times
    }
    return describe_nodes(
        joined.graph,
        name=f"µs a run, of {joined.num_runs} runs",
        values=values,
        is_high_worst=True,
    )
