"""The child of `quantize`: runs ai-edge-quantizer. Argument: FOLDER.

FOLDER holds `model.tflite`, whose tensors are named by their place, `request.json` and, for
static schemes, `feeds`; it gets `quantized.tflite` and the answer. What calibration saw stays
in `ranges.json` for another attempt. When the quantizer raises, this process ends, and the
answer says what was raised and at which op.
"""

import json
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from edgepack.child import write_answer
from edgepack.flatbuffer import dtype_name, op_name, read_flatbuffer
from edgepack.graph import tensor_shape
from edgepack.optimize.quantizing.activations import Place, Seen, collect, weigh_channels
from edgepack.optimize.quantizing.ranges import find_best_range, find_range
from edgepack.optimize.quantizing.tails import Extent, find_channel_axis, find_tail, find_unlike
from edgepack.optimize.recipes.assignment import assign_schemes, choose_granularity
from edgepack.optimize.recipes.recipe import Granularity, InterfaceType, RangeMethod
from edgepack.profile import Scheme

_STATIC: Final = (Scheme.INT8, Scheme.INT16X8)
_BITS: Final = {Scheme.INT8: 8, Scheme.INT16X8: 16}


def tensor_name(place: Place) -> str:
    """Give the name that a tensor has in the working copy: one, and free of signs of regexes."""
    subgraph, index = place
    return f"edgepack_{subgraph}_{index}"


def quantize(folder: Path) -> dict[str, Any]:
    """Quantize the model of a folder and give the answer for the parent."""
    from ai_edge_quantizer import quantizer  # noqa: PLC0415 - 0.6 s, and only this child needs it

    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    data = (folder / "model.tflite").read_bytes()
    tree = read_flatbuffer(data)
    exceptions = {int(at): Scheme(each) for at, each in request["exceptions"].items()}
    statistics: dict[str, Any] | None = None
    unlike: tuple[int, ...] = ()
    if request["is_calibrated"]:
        statistics, unlike = _calibrate(folder, data, tree, request)
    is_kept = Scheme(request["scheme"]) in _STATIC
    unlike = tuple(at for at in unlike if is_kept and at not in exceptions)
    schemes = assign_schemes(
        tree,
        exceptions | dict.fromkeys(unlike, Scheme.FLOAT32),
        scheme=Scheme(request["scheme"]),
        interface=InterfaceType(request["interface"]),
    )
    bounds = {
        tensor_name((0, int(index))): _weight_range(
            tree, int(index), values, request=request, schemes=schemes
        )
        for index, values in request["weight_bounds"].items()
    }
    tool = quantizer.Quantizer(data)
    tool.load_quantization_recipe(rules(request, tree, schemes))
    qsvs = None if statistics is None and not bounds else (statistics or {}) | bounds
    result = tool.quantize(qsvs, enable_progress_bar=False, enable_progress_report=False)
    (folder / "quantized.tflite").write_bytes(bytes(result.quantized_model))
    return {"float_layers": list(unlike)}


def rules(
    request: dict[str, Any],
    tree: Any,  # noqa: ANN401 - the generated classes are untyped
    schemes: dict[int, Scheme],
) -> list[dict[str, Any]]:
    """Give ai-edge-quantizer's rules for a request, of which the last fitting one holds.

    A rule fits an op when its regex is found in the names of the tensors that the op gives,
    each followed by a semicolon (ai-edge-quantizer 0.10); rules stand in the order in which
    their regexes first came.
    """
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager  # noqa: PLC0415 - as above
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils  # noqa: PLC0415 - as above

    manager = recipe_manager.RecipeManager()
    names = qtyping.TFLOperationName
    unquantized = algorithm_manager.AlgorithmName.NO_QUANTIZE
    scheme = Scheme(request["scheme"])
    asked = Granularity(request["granularity"])
    _add_rule(manager, ".*", names.ALL_SUPPORTED, scheme, asked)
    if scheme is Scheme.DYNAMIC_RANGE:
        granularity = choose_granularity(asked, scheme, "DEPTHWISE_CONV_2D")
        _add_rule(manager, ".*", names.DEPTHWISE_CONV_2D, scheme, granularity)
    if scheme in _STATIC and request["interface"] == InterfaceType.FLOAT:
        # The interface counts as two ops of its own; left alone, they stay in float
        # and the quantizer puts QUANTIZE and DEQUANTIZE behind and before them.
        for side in (names.INPUT, names.OUTPUT):
            manager.add_quantization_config(".*", side, algorithm_key=unquantized)
    graph = tree.subgraphs[0]
    for position, own in schemes.items():
        operator = graph.operators[position]
        code = tree.operatorCodes[operator.opcodeIndex]
        op = tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME.get(
            max(code.builtinCode, code.deprecatedBuiltinCode)
        )
        if op is None:  # left in float anyway
            continue
        # A rule of a scheme that the op does not know is passed over: this one holds then.
        name = tensor_name((0, int(operator.outputs[0])))
        manager.add_quantization_config(f"(^|;){name};", op, algorithm_key=unquantized)
        granularity = choose_granularity(asked, own, op_name(tree, operator))
        _add_rule(manager, f"(?:^|;){name};", op, own, granularity)
    for op in request["float_ops"]:
        manager.add_quantization_config("^", names(op), algorithm_key=unquantized)
    recipe: list[dict[str, Any]] = manager.get_quantization_recipe()
    return recipe


def _add_rule(
    manager: Any,  # noqa: ANN401 - untyped library
    regex: str,
    op: Any,  # noqa: ANN401 - likewise
    scheme: Scheme,
    granularity: Granularity,
) -> None:
    """Add the rule of a scheme; none for an op that knows no such thing."""
    from ai_edge_quantizer import algorithm_manager, qtyping  # noqa: PLC0415 - as above

    level = qtyping.QuantGranularity(granularity.value.upper())
    weights = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=level)
    activations, is_integer, algorithm = (
        None,
        True,
        algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    )
    match scheme:
        case Scheme.FLOAT16:
            weights = qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            )
            is_integer, algorithm = False, algorithm_manager.AlgorithmName.FLOAT_CASTING
        case Scheme.WEIGHT_ONLY_INT8:
            is_integer = False
        case Scheme.INT8 | Scheme.INT16X8:
            # 16 bits are symmetric and 8 are not: the kernels know nothing else.
            activations = qtyping.TensorQuantizationConfig(
                num_bits=_BITS[scheme], symmetric=scheme is Scheme.INT16X8
            )
        case Scheme.DYNAMIC_RANGE:
            pass
        case _:
            return
    precision = qtyping.ComputePrecision
    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=activations,
        weight_tensor_config=weights,
        compute_precision=precision.INTEGER if is_integer else precision.FLOAT,
        explicit_dequantize=not is_integer,
    )
    if op != qtyping.TFLOperationName.ALL_SUPPORTED:
        try:
            algorithm_manager.check_op_quantization_config(algorithm, op, config)
        except ValueError:  # its word for an op that the scheme does not cover
            return
    manager.add_quantization_config(regex, op, op_config=config, algorithm_key=algorithm)


def _calibrate(
    folder: Path,
    data: bytes,
    tree: Any,  # noqa: ANN401 - the generated classes are untyped
    request: dict[str, Any],
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Give the quantizer's statistics and the ops whose outputs' channels are unlike."""
    kept = folder / "ranges.json"
    if kept.exists():
        table = json.loads(kept.read_text(encoding="utf-8"))
    else:
        table = _measure(folder / "feeds", data, tree, request)
        kept.write_text(json.dumps(table), encoding="utf-8")
    # The quantizer's own choice is a moving average of each sample's extremes, whose result
    # depends on the samples' order and cuts off what later ones reach: 18 dB instead of 40 on
    # a digits network (ai-edge-quantizer 0.10).
    statistics = {
        tensor_name((subgraph, index)): {
            "min": np.full((1,) * rank, low, np.float32),
            "max": np.full((1,) * rank, high, np.float32),
        }
        for subgraph, index, rank, low, high in table["ranges"]
    }
    return statistics, tuple(table["unlike"])


def _measure(feeds: Path, data: bytes, tree: Any, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - as above
    places = _find_activations(tree)
    graph = tree.subgraphs[0]
    tail = find_tail(tree)
    method = RangeMethod(request["activation_ranges"])
    weights = weigh_channels(tree) if method is RangeMethod.BEST else {}
    seen = collect(
        data,
        feeds,
        places,
        peaks_of={
            (0, int(graph.operators[at].outputs[0])): find_channel_axis(tree, graph.operators[at])
            for at in tail
        },
        channel_weights={(0, index): each for index, each in weights.items()},
        is_stream=request["stream"],
    )
    num_bits = _BITS.get(Scheme(request["scheme"]), 8)
    ranges = []
    for (subgraph, index), each in seen.items():
        tensor = tree.subgraphs[subgraph].tensors[index]
        rank = 0 if tensor.shape is None else len(tensor.shape)
        is_real = dtype_name(tensor.type) == "float32"
        if is_real and method is RangeMethod.BEST:
            low, high = find_best_range(each.histogram, each.weighted, num_bits=num_bits)
        else:
            low, high = find_range(
                each.histogram, method if is_real else RangeMethod.MINMAX, num_bits=num_bits
            )
        ranges.append((subgraph, index, rank, low, high))
    return {"ranges": ranges, "unlike": find_unlike(tree, _extents(seen))}


def _extents(seen: dict[Place, Seen]) -> dict[int, Extent]:
    return {
        index: Extent(low=each.histogram.low, high=each.histogram.high, peaks=each.peaks)
        for (subgraph, index), each in seen.items()
        if subgraph == 0
    }


def _find_activations(tree: Any) -> list[Place]:  # noqa: ANN401 - as above
    """Give the tensors that a run fills: of the main graph, and of those that its ops call."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils  # noqa: PLC0415 - as above

    places: list[Place] = []
    waiting, done = [0], set()
    while waiting:
        number = waiting.pop()
        if number in done:
            continue
        done.add(number)
        graph = tree.subgraphs[number]
        places += [(number, int(index)) for index in graph.inputs]
        for operator in graph.operators or ():
            places += [(number, int(index)) for index in operator.outputs]
            waiting += tfl_flatbuffer_utils.get_op_side_effect_subgraphs(operator)
    return places


def _weight_range(
    tree: Any,  # noqa: ANN401 - as above
    index: int,
    values: list[float],
    *,
    request: dict[str, Any],
    schemes: dict[int, Scheme],
) -> dict[str, Any]:
    """Give weights' bounds as the quantizer takes them: in the weights' rank, one axis filled."""
    sizes = tensor_shape(tree.subgraphs[0].tensors[index])
    axis = request["channel_axes"][str(index)]
    shape = [1] * len(sizes)
    shape[axis] = len(values)
    bound = np.asarray(values, np.float32).reshape(shape)
    position, reader = next(
        (position, operator)
        for position, operator in enumerate(tree.subgraphs[0].operators)
        if index in operator.inputs
    )
    scheme = schemes.get(position, Scheme(request["scheme"]))
    asked = Granularity(request["granularity"])
    if choose_granularity(asked, scheme, op_name(tree, reader)) is Granularity.CHANNELWISE:
        shape[axis] = sizes[axis]
        bound = np.broadcast_to(bound, shape)
    return {"min": -bound, "max": bound}


def _answer_with_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Answer with what was raised and at which op, as `sys.excepthook`.

    ai-edge-quantizer 0.10 seldom names the op in its messages; its loops over the ops keep
    the op's name in the variable `op_key`.
    """
    op = None
    for frame, _ in traceback.walk_tb(trace):
        found = frame.f_locals.get("op_key")
        op = str(getattr(found, "value", found)) if found is not None else op
    message = f"{kind.__name__}: {error}"
    write_answer(Path(sys.argv[1]), {"error": {"message": message, "op": op}})
    traceback.print_exception(kind, error, trace)


if __name__ == "__main__":
    sys.excepthook = _answer_with_error
    target = Path(sys.argv[1])
    write_answer(target, {"ok": quantize(target)})
