"""Load one signature of a SavedModel, refusing graphs that reach outside."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from flat_source import LOAD_ERRORS, Source  # type: ignore[import-not-found]
from unsafe_ops import dangerous_meta_ops, refuse_graph  # type: ignore[import-not-found]

_MODEL_TAG = "serve"
_SERVING = "serving_default"


def load_saved_model(path: Path, key: str | None, *, trust: bool) -> Source:
    """Load one signature of a SavedModel."""
    proto = read_proto(path)
    if not trust:
        refuse_graph(
            path.name, (op for meta in proto.meta_graphs for op in dangerous_meta_ops(meta))
        )
    try:
        loaded = tf.saved_model.load(str(path))
    except LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"{path.name}: TensorFlow cannot load this SavedModel: {first_line(error)}",
            "Copy or export it again, with its variables folder.",
        ) from error
    signatures = dict(loaded.signatures)
    notes = () if key is not None else note_others(signatures)
    key = choose_signature(path, signatures, key)
    function = signatures[key]
    specs = dict(function.structured_input_signature[1])
    refuse_composites(path, loaded, specs)
    # Left out, an input with a default is what its exporter said.
    defaults = read_defaults(proto, key)
    inputs = sorted((name, spec) for name, spec in specs.items() if name not in defaults)
    names = sorted(function.structured_outputs)

    def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
        arguments = {name: value for (name, _), value in zip(inputs, tensors, strict=True)}
        results = function(**defaults, **arguments)
        return [results[name] for name in names]

    return Source(
        call=call,
        inputs=[
            (name, None if spec.shape.rank is None else tuple(spec.shape.as_list()), spec.dtype)
            for name, spec in inputs
        ],
        output_names=names,
        held=loaded,
        notes=notes,
    )


def choose_signature(path: Path, signatures: Mapping[str, Any], key: str | None) -> str:
    """Give the signature asked for, or the only one, or the one for serving."""
    if key is None and _SERVING in signatures:
        return _SERVING
    if key is None and len(signatures) == 1:
        return next(iter(signatures))
    if key is None or key not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        message = f"expected the signature {key!r}, but it has {known}"
        if key is None:
            message = f"it has {'several signatures: ' + known if signatures else 'no signature'}"
        raise RefusedError(
            "model",
            f"{path.name}: {message}",
            "Choose one with --signature NAME."
            if signatures
            else "Export the model with model.export(), which adds one.",
        )
    return key


def note_others(signatures: Mapping[str, Any]) -> tuple[str, ...]:
    """Say that the one for serving is taken though there are others, and how to choose these."""
    serving = signatures.get(_SERVING)
    if serving is None:
        return ()
    # Keras 3.15 exports its only endpoint under both names.
    same = [
        name
        for name in signatures
        if name == _MODEL_TAG
        and signatures[name].structured_input_signature == serving.structured_input_signature
        and signatures[name].structured_outputs == serving.structured_outputs
    ]
    others = sorted(set(signatures) - {_SERVING, *same})
    if not others:
        return ()
    text = (
        f"it has other signatures, too ({', '.join(others)}): {_SERVING} was taken, and "
        "--signature NAME chooses another"
    )
    return (text,)


def refuse_composites(path: Path, loaded: Any, inputs: Mapping[str, Any]) -> None:  # noqa: ANN401 - TensorFlow is untyped
    """Refuse ragged and sparse inputs, which a signature takes apart into `x`, `x_1` and so on."""
    found = sorted(
        {
            f"{name!r} ({kind})"
            for name, kind in _composite_arguments(loaded)
            if name in inputs and f"{name}_1" in inputs
        }
    )
    if found:
        raise RefusedError(
            "model",
            f"{path.name}: expected inputs of whole tensors, but these are not: {', '.join(found)}",
            "Export the model with padded inputs of fixed shape, such as x.to_tensor() gives.",
        )


def _composite_arguments(loaded: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    kinds = {tf.RaggedTensorSpec: "ragged", tf.SparseTensorSpec: "sparse"}
    for value in vars(loaded).values():
        for concrete in getattr(value, "concrete_functions", None) or ():
            for name, parameter in concrete.function_type.parameters.items():
                for spec in tf.nest.flatten(parameter.type_constraint):
                    kind = next(
                        (text for cls, text in kinds.items() if isinstance(spec, cls)), None
                    )
                    if kind is not None:
                        yield name, kind


def read_proto(path: Path) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Read a SavedModel's graphs without running any of them."""
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
    return proto


def read_defaults(proto: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow is untyped
    """Give the default values of a signature's inputs, where it has any."""
    return {
        name: tf.constant(tf.make_ndarray(value))
        for meta in proto.meta_graphs
        if _MODEL_TAG in meta.meta_info_def.tags
        for name, value in meta.signature_def[key].defaults.items()
    }
