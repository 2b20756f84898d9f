"""Where XNNPACK would compute with sparse kernels; pure.

Storing weights sparsely makes a file smaller; it makes a model faster only where the runtime
has kernels for it. XNNPACK turns whole clusters of ops to channels-first, and only when each op
in them fits: its rules are those of `xnn_subgraph_rewrite_for_nchw` (XNNPACK of 2026, LiteRT
2.3), in the words of TFLite. A cluster starts at a 3x3 convolution of 3 channels with stride 2
and one row of padding all around, ends at a MEAN over height and width or a DEPTH_TO_SPACE, and
more than two thirds of its 1x1 convolutions' weights are zero. Weights must come through a
DENSIFY, and activations be float. On x86 CPUs with AVX it is never done: the dense kernels are
quicker there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgepack.flatbuffer import decode_name, dtype_name, op_name
from edgepack.graph import read_integers
from edgepack.optimize.pruning.channels_first import (
    RANK,
    SAME,
    Fit,
    fit_convolution,
    fit_other,
    is_constant,
)

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_CONVOLUTIONS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
_NO_END: Final = "no MEAN over height and width or DEPTH_TO_SPACE follows by ops that all fit"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Node:
    """An op with what it can be, and why it cannot be more.

    Attributes:
        name: of the tensor it gives.
        inputs: the activations it reads; those of a PAD that is folded into it.
        outputs: what it gives.
        fit: what it can be in a cluster.
        reason: why it is in none, or takes no sparse kernel.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fit: Fit
    reason: str = ""


def refuse_sparse_kernels(tree: Tree, zeros: Mapping[int, tuple[int, int]]) -> dict[int, str]:
    """Say of each convolution and fully connected op why XNNPACK would compute it densely.

    Args:
        tree: the model, its weights not stored sparsely yet.
        zeros: by position of such an op in the main graph, its weights' zeros and their number.

    Returns:
        By position; empty where it would take a sparse kernel, once its weights are stored so.
    """
    nodes = _read_nodes(tree)
    clusters = _find_clusters(nodes)
    operators = tree.subgraphs[0].operators
    refusals: dict[int, str] = {}
    for position in zeros:
        refusals[position] = _refuse_kernel(tree, operators[position], nodes[position])
        refusals[position] = refusals[position] or clusters[position].refusal
    for cluster in {id(each): each for each in clusters.values()}.values():
        members = [i for i, refusal in refusals.items() if not refusal and i in cluster.members]
        num_zero = sum(zeros[position][0] for position in members)
        num_weights = sum(zeros[position][1] for position in members)
        if num_zero * 3 <= num_weights * 2:
            for position in members:
                refusals[position] = (
                    f"{num_zero / num_weights:.1%} of the 1x1 convolutions' weights around it "
                    "are zero, and more than 66.7% must be"
                )
    return refusals


def _refuse_kernel(tree: Tree, operator: Any, node: _Node) -> str:  # noqa: ANN401 - see `Tree`
    """Say why an op has no sparse kernel, whatever stands around it."""
    op = op_name(tree, operator)
    if op != "CONV_2D":
        return f"{op} has no sparse kernel"
    if node.fit is Fit.NONE:
        return node.reason
    return "only 1x1 convolutions have a sparse kernel" if node.fit is Fit.START else ""


@dataclass(slots=True)
class _Cluster:
    """Ops that go to channels-first together or not at all."""

    members: set[int]
    refusal: str = ""


def _find_clusters(nodes: dict[int, _Node]) -> dict[int, _Cluster]:
    """Give each op's cluster: what is joined with it by activations, up to an end."""
    writers = {tensor: i for i, node in nodes.items() for tensor in node.outputs}
    clusters = {position: _Cluster(members={position}, refusal=_NO_END) for position in nodes}
    pending = [position for position, node in nodes.items() if Fit.END in node.fit]
    for position in pending:
        clusters[position].refusal = ""
    while pending:
        position = pending.pop()
        for tensor in nodes[position].inputs:
            writer = writers.get(tensor)
            reason = _bar(nodes, position, writer)
            if reason or writer is None:
                _refuse(clusters[position], reason)
            elif clusters[writer] is not clusters[position]:
                if nodes[writer].fit is not Fit.START and len(clusters[writer].members) == 1:
                    pending.append(writer)
                _join(clusters, position, writer)
    _refuse_outside_readers(nodes, writers, clusters)
    return clusters


def _bar(nodes: dict[int, _Node], position: int, writer: int | None) -> str:
    """Say why an op's input keeps its cluster from going channels-first."""
    if writer is None:
        return f"{nodes[position].name!r} reads the model's input"
    node = nodes[writer]
    return f"{node.name!r}: {node.reason}" if node.fit is Fit.NONE else ""


def _refuse_outside_readers(
    nodes: dict[int, _Node], writers: Mapping[int, int], clusters: dict[int, _Cluster]
) -> None:
    """Refuse clusters that others read from than at their end: they want channels last."""
    for position, node in nodes.items():
        for tensor in node.inputs:
            writer = writers.get(tensor)
            if writer is None or clusters[writer] is clusters[position]:
                continue
            if len(clusters[writer].members) > 1 and Fit.END not in nodes[writer].fit:
                reason = node.reason or clusters[position].refusal
                _refuse(clusters[writer], f"{node.name!r}, which reads from inside: {reason}")


def _join(clusters: dict[int, _Cluster], first: int, second: int) -> None:
    kept, gone = clusters[first], clusters[second]
    if gone.refusal != _NO_END:
        _refuse(kept, gone.refusal)
    kept.members |= gone.members
    for member in gone.members:
        clusters[member] = kept


def _refuse(cluster: _Cluster, reason: str) -> None:
    cluster.refusal = cluster.refusal or reason


def _read_nodes(tree: Tree) -> dict[int, _Node]:
    """Give the ops of the main graph by position, but for PADs that are folded into another."""
    graph = tree.subgraphs[0]
    pads = _folded_pads(tree)
    nodes: dict[int, _Node] = {}
    for position, operator in enumerate(graph.operators):
        op = op_name(tree, operator)
        if op == "PAD" and int(operator.outputs[0]) in pads:
            continue
        if op not in _CONVOLUTIONS:
            nodes[position] = _node(tree, operator, *fit_other(tree, operator, op))
            continue
        source = int(operator.inputs[0])
        padding = (0,) * (2 * RANK)
        if source in pads:
            source, padding = pads[source]
        fit, reason = fit_convolution(tree, operator, op, padding)
        nodes[position] = _node(tree, operator, fit, reason, source=source)
    return nodes


def _folded_pads(tree: Tree) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Give what each PAD that XNNPACK folds into a convolution reads and adds, by its output."""
    graph = tree.subgraphs[0]
    reads = [int(i) for operator in graph.operators for i in operator.inputs]
    reads += [int(i) for i in graph.outputs]
    found: dict[int, tuple[int, tuple[int, ...]]] = {}
    for operator in graph.operators:
        output = int(operator.outputs[0])
        if op_name(tree, operator) != "PAD" or reads.count(output) != 1:
            continue
        sides = read_integers(tree, int(operator.inputs[1]))
        reader = next(
            (each for each in graph.operators if output in [int(i) for i in each.inputs]), None
        )
        if sides is None or len(sides) != 2 * RANK or any((*sides[:2], *sides[6:])):
            continue
        if reader is None or op_name(tree, reader) not in _CONVOLUTIONS:
            continue
        if int(reader.builtinOptions.padding) != SAME:
            found[output] = (int(operator.inputs[0]), sides)
    return found


def _node(
    tree: Tree,
    operator: Any,  # noqa: ANN401 - see `Tree`
    fit: Fit,
    reason: str,
    *,
    source: int | None = None,
) -> _Node:
    graph = tree.subgraphs[0]
    inputs = [int(i) for i in operator.inputs] if source is None else [source]
    outputs = tuple(int(i) for i in operator.outputs)
    inputs = [i for i in inputs if i >= 0 and not is_constant(tree, i)]
    types = {dtype_name(graph.tensors[i].type) for i in (*inputs, *outputs)} - {"float32"}
    if types:
        fit, reason = Fit.NONE, f"it computes with {', '.join(sorted(types))}, not float32"
    name = decode_name(graph.tensors[outputs[0]].name)
    return _Node(name=name, inputs=tuple(inputs), outputs=outputs, fit=fit, reason=reason)
