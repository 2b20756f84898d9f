"""Quantization of a float model, on ai-edge-quantizer 0.10 in a child process.

The I/O contract stays: names, order, shapes and element types of the inputs and outputs are
those of the float model, unless the recipe asks for integer inputs and outputs.
"""

import json
from itertools import chain
from typing import Any, Final

from edgepack._fields import join_faults
from edgepack.child import ChildExit, run_child, write_arrays
from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import decode_name, read_flatbuffer, write_flatbuffer
from edgepack.model import Model, TensorSpec, read_model
from edgepack.optimize.eligibility import check_eligible
from edgepack.optimize.recipe import InterfaceType, Recipe
from edgepack.optimize.restore import restore_float32
from edgepack.profile import Scheme
from edgepack.scratch import open_scratch

_TIMEOUT_SECONDS: Final = 3600.0
_TEMPORARY_KEY: Final = "edgepack"


def quantize(
    model: Model,
    recipe: Recipe,
    calibration: Feeds | None = None,
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> tuple[Model, tuple[str, ...]]:
    """Give a float model in a recipe's representation; the same inputs give the same bytes.

    Activation ranges of static schemes are the extremes over all calibration samples. Kinds
    of op that the quantizer fails at are left in float, one after another.

    Args:
        model: float32 weights and activations, or float16 weights, which are restored.
        recipe: what to do; its pruning is not done here.
        calibration: real inputs of the model; needed by static schemes, unused by others.
        timeout_seconds: after which the quantizer is stopped.

    Returns:
        The model, and the kinds of op left in float as the quantizer failed at them.

    Raises:
        RecipeError: a static scheme without calibration samples.
        OptimizeError: the recipe cannot be carried out on what the model is, nothing in it can
            be quantized, the quantizer fails, or the inputs and outputs could not be kept.
    """
    check_eligible(model.traits, recipe)
    if recipe.scheme is Scheme.AS_IS:
        return model, ()
    if model.is_quantized:
        model = restore_float32(model)
    if recipe.scheme is Scheme.FLOAT32:
        return model, ()
    if recipe.is_static and not calibration:
        raise RecipeError(
            f"recipe {recipe.name!r} quantizes activations by ranges seen on real inputs, but "
            "no calibration data was given",
            remedy="Give real inputs with --data, or choose a recipe without calibration "
            "(dynamic_range, weight_only_int8, float16).",
        )
    key, names = _calibration_names(model)
    request: dict[str, Any] = {
        "scheme": recipe.scheme,
        "granularity": recipe.granularity,
        "interface": recipe.interface,
        "signature": key,
        "inputs": names if recipe.is_static else None,
        "stream": model.is_stream,
    }
    data = model.data if model.signature.key is not None else _add_signature(model, key, names)
    float_ops: tuple[str, ...] = ()
    while True:
        with open_scratch("quantize") as folder:
            (folder / "model.tflite").write_bytes(data)
            (folder / "request.json").write_text(
                json.dumps(request | {"float_ops": float_ops}), encoding="utf-8"
            )
            if recipe.is_static and calibration:
                write_arrays(folder / "feeds", chain.from_iterable(calibration))
            ended = run_child(
                "edgepack.optimize.quantize_worker",
                [],
                folder=folder,
                timeout_seconds=timeout_seconds,
            )
            if ended.answer is not None and "ok" in ended.answer:
                quantized = (folder / "quantized.tflite").read_bytes()
                break
        float_ops = _leave_one_more(ended, recipe, float_ops)
    result = read_model(_restore_interface(quantized, model))
    _check_quantized(result, model, recipe)
    _check_contract(result, model, recipe)
    return result, float_ops


def _calibration_names(model: Model) -> tuple[str, list[str]]:
    """Give the signature key and input names that the calibrator feeds by."""
    if model.signature.key is not None:
        return model.signature.key, [spec.name for spec in model.signature.inputs]
    # Tensor names may repeat; an argument's position does not.
    return _TEMPORARY_KEY, [f"input_{i}" for i in range(len(model.signature.inputs))]


def _add_signature(model: Model, key: str, names: list[str]) -> bytes:
    """Add a signature for the calibrator, which finds inputs by nothing else."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    definition = schema.SignatureDefT()
    definition.signatureKey = key
    definition.subgraphIndex = 0
    definition.inputs = [
        _tensor_map(schema, name, index) for name, index in zip(names, graph.inputs, strict=True)
    ]
    definition.outputs = [
        _tensor_map(schema, f"output_{i}", index) for i, index in enumerate(graph.outputs)
    ]
    tree.signatureDefs = [definition]
    return write_flatbuffer(tree)


def _tensor_map(schema: Any, name: str, index: int) -> Any:  # noqa: ANN401 - the generated classes are untyped
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = int(index)
    return entry


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
        tail = "\n".join(ended.log.splitlines()[-5:])
        raise OptimizeError(
            f"recipe {recipe.name!r}: the quantizer was {ended.cause}"
            + (f"\n{tail}" if tail else ""),
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
    """Give inputs and outputs their tensors' old names, and the model its old signatures.

    A tensor that turns into an inner one behind an inserted QUANTIZE or DEQUANTIZE keeps its
    name in ai-edge-quantizer 0.10, and the interface gets a new one.
    """
    before, after = read_flatbuffer(model.data), read_flatbuffer(data)
    if model.signature.key is None:
        after.signatureDefs = before.signatureDefs
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
