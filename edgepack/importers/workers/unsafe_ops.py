"""Operations of a TensorFlow graph that reach outside the model."""

import re
from collections.abc import Iterable
from typing import Any

from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from flat_source import MOST_SHOWN, TRUST  # type: ignore[import-not-found]

# Ops that run Python, or reach files, other processes or the network.
_DANGEROUS_OP = re.compile(
    r"(?:Eager)?PyFunc(?:Stateless)?|\w*(?:ReadFile|WriteFile|FixedLengthRecord\w*|TFRecord\w*|"
    r"TextLine\w*|MatchingFiles\w*|WholeFileReader\w*|LMDB\w*|SqlDataset|FromTextFile\w*|"
    r"Summary(?:File)?Writer\w*|DebugIdentity\w*|SaveDataset\w*|LoadDataset\w*|Snapshot\w*|"
    r"Rpc(?:Call)?|TryRpc|RemoteCall)"
)
_CHECKPOINT_OP = re.compile(r"(?:Save|Restore)(?:V2|Slices?)?|MergeV2Checkpoints")
_RESTORE_OP = "RestoreV2"
_PASSING_OPS = frozenset({"Identity", "PlaceholderWithDefault"})


def refuse_graph(title: str, found: Iterable[str]) -> None:
    """Refuse a model whose graph holds dangerous operations."""
    names = sorted(set(found))
    if names:
        raise RefusedError(
            "model",
            f"{title}: its graph holds operations that run Python or reach files or the "
            f"network: {', '.join(names[:MOST_SHOWN])}",
            f"Move them out of the model, or {TRUST}.",
        )


def dangerous_ops(graph_def: Any) -> set[str]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the ops of a GraphDef that reach outside the model, but for its own checkpoints'."""
    return {node.op for node in _all_nodes(graph_def) if is_dangerous(node)}


def checkpoint_ops(graph_def: Any) -> set[str]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the ops of a GraphDef that save or restore variables."""
    return {node.op for node in _all_nodes(graph_def) if _CHECKPOINT_OP.fullmatch(node.op)}


def dangerous_meta_ops(meta: Any) -> set[str]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the ops of a MetaGraphDef that reach outside the model.

    Every SavedModel saves and restores its own variables: in functions that only its saver
    calls or, made by TensorFlow 1, in nodes that only its saver runs.
    """
    functions = meta.graph_def.library.function
    saver = meta.saver_def
    own = {_node(saver.save_tensor_name), _node(saver.restore_op_name)}
    callers: dict[str, set[str]] = {}
    for place, nodes in [
        ("", meta.graph_def.node),
        *((f.signature.name, f.node_def) for f in functions),
    ]:
        for node in nodes:
            for value in node.attr.values():
                for function in (value.func, *value.list.func):
                    # Inside a function no name is the saver's.
                    callers.setdefault(function.name, set()).add(
                        f"{place}/{node.name}" if place else node.name
                    )
    exported = set(meta.object_graph_def.concrete_functions)
    found = {node.op for node in meta.graph_def.node if is_dangerous(node)}
    found |= _outside_saver(meta)
    for function in functions:
        name = function.signature.name
        is_saver = name not in exported and callers.get(name, set()) <= own
        for node in function.node_def:
            if is_dangerous(node) or (_CHECKPOINT_OP.fullmatch(node.op) and not is_saver):
                found.add(node.op)
    return found


def is_dangerous(node: Any) -> bool:  # noqa: ANN401 - TensorFlow is untyped
    """Tell whether a node runs Python or reaches files, processes or the network."""
    if node.op == "PrintV2":
        return bool(node.attr["output_stream"].s.startswith(b"file:"))
    return _DANGEROUS_OP.fullmatch(node.op) is not None


def _all_nodes(graph_def: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
    return [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]


def _outside_saver(meta: Any) -> set[str]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the checkpoint ops among the graph's own nodes that loading or a signature runs.

    Loading runs the restore node and the initializers, using the model runs what its
    signatures' outputs need, and nothing runs the nodes that save. A restoring node is the
    model's own when it takes the file's name from where the loader puts it.
    """
    nodes = {node.name: node for node in meta.graph_def.node}
    roots = {_node(meta.saver_def.restore_op_name)}
    for signature in meta.signature_def.values():
        roots.update(_node(each.name) for each in signature.outputs.values())
    for collection in meta.collection_def.values():
        roots.update(_node(name) for name in collection.node_list.value)
    for node in nodes.values():
        # A call runs its whole function, whatever is asked of it.
        if any(value.HasField("func") for value in node.attr.values()):
            roots.add(node.name)
    run = {name for name in _ancestors(nodes, roots) if _CHECKPOINT_OP.fullmatch(nodes[name].op)}
    file_name = _node(meta.saver_def.filename_tensor_name)
    return {nodes[name].op for name in run if not _restores_from(nodes, nodes[name], file_name)}


def _restores_from(nodes: dict[str, Any], node: Any, file_name: str) -> bool:  # noqa: ANN401
    name = _node(node.input[0]) if node.op == _RESTORE_OP and node.input else ""
    while name in nodes and name != file_name:
        given = nodes[name]
        if given.op not in _PASSING_OPS or not given.input:
            return False
        name = _node(given.input[0])
    return bool(name) and name == file_name


def _ancestors(nodes: dict[str, Any], roots: set[str]) -> set[str]:
    seen: set[str] = set()
    waiting = [name for name in roots if name in nodes]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(each for each in map(_node, nodes[name].input) if each in nodes)
    return seen


def _node(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]
