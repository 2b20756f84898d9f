"""A loaded Keras model, of either Keras, as one flat function."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from flat_source import Source  # type: ignore[import-not-found]

_BATCH_SHAPE = "input_shape"
_WRAPPED = ("layer", "forward_layer", "backward_layer", "cell")


def flatten_keras(path: Path, model: Any) -> Source:  # noqa: ANN401 - Keras is untyped
    """Make one flat function of a Keras model with whatever nesting of inputs and outputs."""
    layers = frozenset(str(each.name) for each in layers_of(model))
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        return flatten_subclassed(path, model, layers)
    refuse_composites(path, model)
    # A loaded Sequential model (Keras 3.15) has `inputs`, always one, but no `input`.
    structure = getattr(model, "input", None)
    structure = model.inputs[0] if structure is None else structure
    # Layer names, as Keras itself names outputs; a Sequential model has no list of its own.
    names = getattr(model, "output_names", None) or [model.layers[-1].name]

    def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
        packed = tf.nest.pack_sequence_as(structure, tensors)
        return list(tf.nest.flatten(model(packed, training=False)))

    return Source(
        call=call,
        inputs=[
            (each.name.split(":")[0], _dims(each.shape), tf.as_dtype(each.dtype))
            for each in model.inputs
        ],
        output_names=distinct(list(names), len(model.outputs)),
        held=model,
        layers=layers,
    )


def flatten_subclassed(path: Path, model: Any, layers: frozenset[str]) -> Source:  # noqa: ANN401
    """Make one flat function of a subclassed model, from the shapes it was built with.

    Such a model tells no element types: what it was built with stands as float32, which
    Keras casts to what a layer wants.
    """
    built = dict((getattr(model, "get_build_config", dict)() or {}).items())
    shapes = built.get("shapes_dict") or {k: v for k, v in built.items() if k == _BATCH_SHAPE}
    usable = {
        str(key).removesuffix("_shape"): (None, *shape[1:])
        for key, shape in shapes.items()
        if isinstance(shape, (list, tuple)) and shape and all(_is_size(size) for size in shape)
    }
    if not usable or len(usable) != len(shapes):
        raise RefusedError(
            "model",
            f"{path.name}: {type(model).__name__} has no inputs of known shape: it was never "
            "built, or is subclassed with inputs that Keras does not record",
            "Export it as a SavedModel with model.export(), and import that folder.",
        )
    names = list(usable)

    def outputs_of(*tensors: Any) -> Any:  # noqa: ANN401 - TensorFlow is untyped
        if len(names) == 1:
            return model(tensors[0], training=False)
        return model(**dict(zip(names, tensors, strict=True)), training=False)

    specs = [tf.TensorSpec(shape, tf.float32) for shape in usable.values()]
    made = tf.function(outputs_of, input_signature=specs).get_concrete_function()
    structure = made.structured_outputs
    count = len(tf.nest.flatten(structure))
    keys = sorted(structure) if isinstance(structure, dict) and len(structure) == count else []
    return Source(
        call=lambda *tensors: list(tf.nest.flatten(outputs_of(*tensors))),
        inputs=[(name, shape, tf.float32) for name, shape in usable.items()],
        output_names=keys or [f"output_{index}" for index in range(count)],
        held=model,
        layers=layers,
    )


def refuse_composites(path: Path, model: Any) -> None:  # noqa: ANN401 - Keras is untyped
    """Refuse ragged and sparse inputs."""
    kinds = ("ragged", "sparse")
    found = [
        f"{each.name.split(':')[0]!r} ({kind})"
        for each in model.inputs
        for kind in kinds
        if getattr(each, kind, False)
        or kind in type(getattr(each, "type_spec", None)).__name__.lower()
    ]
    if found:
        raise RefusedError(
            "model",
            f"{path.name}: expected inputs of whole tensors, but these are not: {', '.join(found)}",
            "Save the model with padded inputs of fixed shape.",
        )


def layers_of(model: Any) -> Iterator[Any]:  # noqa: ANN401 - Keras is untyped
    """Give a model, its layers and theirs."""
    waiting = [model]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen or not hasattr(each, "name"):
            continue
        seen.add(id(each))
        yield each
        waiting.extend(getattr(each, "layers", None) or ())
        waiting.extend(getattr(each, part) for part in _WRAPPED if hasattr(each, part))


def distinct(names: list[str], count: int) -> list[str]:
    """Give `count` names without a double: a layer with several outputs lends its name to all."""
    names = names if len(names) == count else [f"output_{index}" for index in range(count)]
    seen: dict[str, int] = {}
    result: list[str] = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        result.append(f"{name}_{seen[name]}" if seen[name] else name)
    return result


def _is_size(size: object) -> bool:
    return size is None or isinstance(size, int)


def _dims(shape: Any) -> tuple[int | None, ...] | None:  # noqa: ANN401 - Keras is untyped
    if getattr(shape, "rank", 0) is None:  # tf-keras gives TensorShapes
        return None
    return tuple(shape)
