"""Quantization of a float model, on ai-edge-quantizer 0.10 in a child process.

The I/O contract stays: names, order, shapes and element types of the inputs and outputs are
those of the float model, unless the recipe asks for integer inputs and outputs.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.child import ANSWER_NAME, ChildExit, run_child, write_arrays
from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import decode_name, read_flatbuffer, write_flatbuffer
from edgepack.model import Model, TensorSpec, read_model
from edgepack.optimize.quantizing.restore import restore_float32
from edgepack.optimize.recipes.assignment import find_exceptions, name_layers
from edgepack.optimize.recipes.eligibility import check_eligible
from edgepack.optimize.recipes.recipe import InterfaceType, Recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from edgepack.scratch import open_scratch

_TIMEOUT_SECONDS: Final = 3600.0
_STATIC: Final = (Scheme.INT8, Scheme.INT16X8)
_NAME: Final = re.compile(r"^edgepack_(\d+)_(\d+)(?!\d)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantized:
    """What quantization gave.

    Attributes:
        model: the result.
        float_ops: kinds of op left in float as the quantizer failed at them.
        float_layers: names of what ops give that were left in float, as the channels of an
            output are of unlike ranges.
    """

    model: Model
    float_ops: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()


def quantize(
    model: Model,
    recipe: Recipe,
    calibration: Feeds | None = None,
    *,
    weight_bounds: Mapping[int, NDArray[np.float32]] | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Quantized:
    """Give a float model in a recipe's representation; the same inputs give the same bytes.

    Layers that the recipe names get their own scheme, and ops without weights between layers
    of one representation get it too. Under static schemes ops that join an output of unlike
    parts, such as boxes and scores, stay in float with all that follows. Kinds of op that the
    quantizer fails at are left in float, one after another.

    Args:
        model: float32 weights and activations, or float16 weights, which are restored.
        recipe: what to do; its pruning and its preparation of weights are not done here.
        calibration: real inputs of the model; needed by static schemes, unused by others.
        weight_bounds: for weights by their tensor's index in the main graph what the greatest
            integer stands for, (num_channels,) or (1,) as the recipe's granularity is; the
            largest magnitude for those not given.
        timeout_seconds: after which the quantizer is stopped.

    Raises:
        RecipeError: a static scheme without calibration samples, or a layer the model has not.
        OptimizeError: the recipe cannot be carried out on what the model is, nothing in it can
            be quantized, the quantizer fails, or the inputs and outputs could not be kept.
    """
    check_eligible(model.traits, recipe)
    if recipe.scheme is Scheme.AS_IS:
        return Quantized(model=model)
    if model.is_quantized:
        model = restore_float32(model)
    if recipe.scheme is Scheme.FLOAT32 and not recipe.layers:
        return Quantized(model=model)
    is_calibrated = any(
        scheme in _STATIC for scheme in (recipe.scheme, *(each.scheme for each in recipe.layers))
    )
    if is_calibrated and not calibration:
        raise RecipeError(
            f"recipe {recipe.name!r} quantizes activations by ranges seen on real inputs, but "
            "no calibration data was given",
            remedy="Give real inputs with --data, or choose a recipe without calibration "
            "(dynamic_range, weight_only_int8, float16).",
        )
    tree = read_flatbuffer(model.data)
    exceptions = find_exceptions(tree, recipe)
    axes = {layer.weights: layer.channel_axis for layer in find_layers(tree)}
    bounds = weight_bounds or {}
    request: dict[str, Any] = {
        "scheme": recipe.scheme,
        "granularity": recipe.granularity,
        "interface": recipe.interface,
        "activation_ranges": recipe.activation_ranges,
        "exceptions": exceptions,
        "is_calibrated": is_calibrated,
        "stream": model.is_stream,
        "channel_axes": {index: axes[index] for index in bounds},
        "weight_bounds": {index: values.tolist() for index, values in bounds.items()},
    }
    float_ops: tuple[str, ...] = ()
    with open_scratch("quantize") as folder:
        (folder / "model.tflite").write_bytes(_name_by_place(model.data))
        if is_calibrated and calibration:
            write_arrays(folder / "feeds", chain.from_iterable(calibration))
        while True:
            (folder / "request.json").write_text(
                json.dumps(request | {"float_ops": float_ops}), encoding="utf-8"
            )
            ended = run_child(
                "edgepack.optimize.quantizing.quantize_worker",
                [],
                folder=folder,
                timeout_seconds=timeout_seconds,
            )
            if ended.answer is not None and "ok" in ended.answer:
                quantized = (folder / "quantized.tflite").read_bytes()
                unlike = [int(at) for at in ended.answer["ok"]["float_layers"]]
                break
            (folder / ANSWER_NAME).unlink(missing_ok=True)
            float_ops = _leave_one_more(ended, recipe, float_ops)
    result = read_model(_restore_interface(quantized, model))
    _check_quantized(result, model, recipe)
    _check_contract(result, model, recipe)
    kept = name_layers(tree, dict.fromkeys(unlike, Scheme.FLOAT32))
    return Quantized(
        model=result, float_ops=float_ops, float_layers=tuple(each.layer for each in kept)
    )


def _name_by_place(data: bytes) -> bytes:
    """Give every tensor a name of its own, as ai-edge-quantizer 0.10 tells them by nothing else.

    Names of a model may repeat, which it refuses, and hold what means something in a regex.
    """
    tree = read_flatbuffer(data)
    for number, graph in enumerate(tree.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"edgepack_{number}_{index}"
    if not tree.signatureDefs:
        tree.signatureDefs = [_sign(tree)]
    return write_flatbuffer(tree)


def _sign(tree: Any) -> Any:  # noqa: ANN401 - the generated classes are untyped
    """Give a signature of the main graph: the quantizer fails at a model without one."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    definition = schema.SignatureDefT()
    definition.signatureKey = "edgepack"
    definition.subgraphIndex = 0
    for side in ("inputs", "outputs"):
        entries = []
        for position, index in enumerate(getattr(tree.subgraphs[0], side)):
            entry = schema.TensorMapT()
            entry.name = f"{side}_{position}"
            entry.tensorIndex = int(index)
            entries.append(entry)
        setattr(definition, side, entries)
    return definition


def _leave_one_more(
    ended: ChildExit, recipe: Recipe, float_ops: tuple[str, ...]
) -> tuple[str, ...]:
    """Add the op that the quantizer failed at to those left in float, or raise.

    ai-edge-quantizer 0.10 leaves kinds of op that it does not know in float, but raises on
    forms of known ones that it does not: a MAXIMUM with a scalar, for one.
    """
    remedy = "Choose another recipe; the model stays usable as float32 or float16."
    if ended.limit is not None:
        raise OptimizeError(
            f"recipe {recipe.name!r}: expected the quantizer to end within {ended.limit}, "
            "but it did not",
            remedy="Give fewer calibration samples, or choose another recipe.",
        )
    if ended.answer is None:
        raise OptimizeError(
            f"recipe {recipe.name!r}: the quantizer was {ended.cause}"
            + (f"\n{ended.last_words}" if ended.last_words else ""),
            remedy=remedy,
        )
    error = ended.answer["error"]
    op, message = error["op"], str(error["message"])[:500]
    if op in {None, "INPUT", "OUTPUT", *float_ops}:
        at = f" at op {op}" if op else ""
        raise OptimizeError(
            f"recipe {recipe.name!r}: the quantizer failed{at}: {message}", remedy=remedy
        )
    return (*float_ops, str(op))


def _restore_interface(data: bytes, model: Model) -> bytes:
    """Give all tensors their old names, and the model its old signatures.

    What the quantizer adds has the name of the tensor it was made from, and an ending. A
    tensor that turns into an inner one behind an inserted QUANTIZE or DEQUANTIZE keeps its
    name in ai-edge-quantizer 0.10, and the interface gets a new one: they are exchanged.
    """
    before, after = read_flatbuffer(model.data), read_flatbuffer(data)
    if model.signature.key is None:
        after.signatureDefs = before.signatureDefs
    for graph in after.subgraphs:
        for tensor in graph.tensors:
            tensor.name = _NAME.sub(
                lambda found: decode_name(
                    before.subgraphs[int(found[1])].tensors[int(found[2])].name
                ),
                decode_name(tensor.name),
            )
    old, new = before.subgraphs[0], after.subgraphs[0]
    for olds, news in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        for was, now in zip(olds, news, strict=True):
            wanted = decode_name(old.tensors[was].name)
            if decode_name(new.tensors[now].name) == wanted:
                continue
            for index, tensor in enumerate(new.tensors):
                if index != now and decode_name(tensor.name) == wanted:
                    tensor.name = f"{wanted}_inner"
            new.tensors[now].name = wanted
    return write_flatbuffer(after)


def _check_quantized(result: Model, model: Model, recipe: Recipe) -> None:
    if not result.is_quantized:
        ops = ", ".join(name for name, _ in model.op_counts)
        raise OptimizeError(
            f"recipe {recipe.name!r} changes nothing: none of the model's ops can be quantized "
            f"so ({ops})",
            remedy="Pack the model as float32, or try float16.",
        )


def _check_contract(result: Model, model: Model, recipe: Recipe) -> None:
    faults: list[str] = []
    sides = (
        ("input", model.signature.inputs, result.signature.inputs),
        ("output", model.signature.outputs, result.signature.outputs),
    )
    for side, wanted, came in sides:
        if len(wanted) != len(came):
            faults.append(f"expected {len(wanted)} {side}s, but got {len(came)}")
            continue
        for first, second in zip(wanted, came, strict=True):
            dtype = _interface_dtype(first, recipe)
            if (first.name, first.shape, dtype) != (second.name, second.shape, second.dtype):
                faults.append(
                    f"{side} {first.name!r}: expected {dtype} {first.shape}, but got "
                    f"{second.name!r} {second.dtype} {second.shape}"
                )
    if model.signature.key != result.signature.key:
        faults.append(
            f"expected signature {model.signature.key!r}, but got {result.signature.key!r}"
        )
    if faults:
        raise OptimizeError(
            join_faults(f"recipe {recipe.name!r}: the inputs and outputs did not stay", faults),
            remedy="Ask for float inputs and outputs; an op at the border of this model cannot be "
            "quantized."
            if recipe.interface is InterfaceType.INTEGER
            else "Choose another recipe.",
        )


def _interface_dtype(spec: TensorSpec, recipe: Recipe) -> str:
    if recipe.interface is InterfaceType.FLOAT or spec.dtype != "float32":
        return spec.dtype
    return "int8" if recipe.scheme is Scheme.INT8 else "int16"
