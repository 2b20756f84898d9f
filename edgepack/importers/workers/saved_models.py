"""Load one signature of a SavedModel, refusing graphs that reach outside."""

import re
from pathlib import Path
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from flat_source import (  # type: ignore[import-not-found]
    LOAD_ERRORS,
    MOST_SHOWN,
    TRUST,
    Source,
)

# Ops that run Python, or reach files, other processes or the network.
_DANGEROUS_OP = re.compile(
    r"(?:Eager)?PyFunc(?:Stateless)?|\w*(?:ReadFile|WriteFile|FixedLengthRecord\w*|TFRecord\w*|"
    r"TextLine\w*|MatchingFiles\w*|WholeFileReader\w*|LMDB\w*|SqlDataset|FromTextFile\w*|"
    r"Summary(?:File)?Writer\w*|DebugIdentity\w*|SaveDataset\w*|LoadDataset\w*|Snapshot\w*|"
    r"Rpc(?:Call)?|TryRpc|RemoteCall)"
)
# Every SavedModel has these for its own variables, in functions that only its saver calls.
_CHECKPOINT_OP = re.compile(r"(?:Save|Restore)(?:V2|Slices?)?|MergeV2Checkpoints")


def load_saved_model(path: Path, key: str | None, *, trust: bool) -> Source:
    """Load one signature of a SavedModel."""
    if not trust:
        refuse_ops(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"{path.name}: TensorFlow cannot load this SavedModel: {first_line(error)}",
            "Copy or export it again, with its variables folder.",
        ) from error
    signatures = dict(loaded.signatures)
    if key is None:
        key = "serving_default" if "serving_default" in signatures or not signatures else None
        key = key or (next(iter(signatures)) if len(signatures) == 1 else None)
    if key is None or key not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        raise RefusedError(
            "model",
            f"{path.name}: expected the signature {key!r}, but it has {known}"
            if key
            else f"{path.name}: it has several signatures: {known}",
            "Choose one with --signature NAME."
            if signatures
            else "Export the model with model.export(), which adds one.",
        )
    function = signatures[key]
    inputs = sorted(function.structured_input_signature[1].items())
    names = sorted(function.structured_outputs)

    def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
        arguments = {name: value for (name, _), value in zip(inputs, tensors, strict=True)}
        results = function(**arguments)
        return [results[name] for name in names]

    for name, spec in inputs:
        if spec.shape.rank is None:
            raise RefusedError(
                "model",
                f"{path.name}: input {name!r} has no shape, not even a number of dimensions",
                "Export the model with the shapes of its inputs.",
            )
    return Source(
        call=call,
        inputs=[(name, tuple(spec.shape.as_list()), spec.dtype) for name, spec in inputs],
        output_names=names,
        held=loaded,
    )


def refuse_ops(path: Path) -> None:
    """Refuse a graph with ops that run Python or reach files, processes or the network."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only for SavedModels
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as error:
        raise RefusedError(
            "model",
            f"{path.name}: expected a SavedModel's graph in saved_model.pb, but reading it "
            f"failed: {first_line(error)}",
            "Copy or export the model again and compare its checksum.",
        ) from error
    found = sorted({op for meta in proto.meta_graphs for op in dangerous_ops(meta)})
    if found:
        raise RefusedError(
            "model",
            f"{path.name}: its graph holds operations that run Python or reach files or the "
            f"network: {', '.join(found[:MOST_SHOWN])}",
            f"Move them out of the model, or {TRUST}.",
        )


def dangerous_ops(meta: Any) -> set[str]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the ops of a MetaGraphDef that reach outside the model."""
    functions = meta.graph_def.library.function
    saver = meta.saver_def
    own = {saver.save_tensor_name.split(":")[0], saver.restore_op_name.split(":")[0]}
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
    found |= {n.op for n in meta.graph_def.node if _CHECKPOINT_OP.fullmatch(n.op)}
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
