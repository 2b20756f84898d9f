"""Which ops XNNPACK can compute channels-first, as its sparse kernels need; pure.

Its rules are those of `xnn_check_nchw_compatibility` (XNNPACK of 2026, LiteRT 2.3), in the words
of TFLite.
"""

from enum import Flag, auto
from typing import Any, Final

import numpy as np

from edgepack.flatbuffer import dtype_name
from edgepack.graph import read_integers, tensor_shape

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

SAME: Final = 0  # Padding of schema.fbs
RANK: Final = 4
_UNARY: Final = frozenset(
    {
        *("ABS", "CEIL", "ELU", "FLOOR", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG"),
        *("RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "SQUARE"),
    }
)
_DEPTHWISE_PADDING: Final = {(3, 3): 1, (5, 5): 2}
_POINT: Final = (1, 1)
_STEM: Final = (3, 3)
_STEM_CHANNELS: Final = 3


class Fit(Flag):
    """What an op can be among ops that are computed channels-first."""

    NONE = 0
    START = auto()
    INSIDE = auto()
    END = auto()


def fit_convolution(
    tree: Tree,
    operator: Any,  # noqa: ANN401 - see `Tree`
    op: str,
    padding: tuple[int, ...],
) -> tuple[Fit, str]:
    """Judge a CONV_2D or DEPTHWISE_CONV_2D; the text says why it does not fit.

    Args:
        tree: the model.
        operator: the op.
        op: its name.
        padding: of a PAD that is folded into it, before and after each dimension.
    """
    graph, options = tree.subgraphs[0], operator.builtinOptions
    filters = graph.tensors[int(operator.inputs[1])]
    weights = tensor_shape(filters)
    channels = tensor_shape(graph.tensors[int(operator.inputs[0])])[-1]
    kernel, dtype = (weights[1], weights[2]), dtype_name(filters.type)
    strides = {int(options.strideH), int(options.strideW)}
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    same, pads = int(options.padding) == SAME, set(padding[2:6])
    if same and strides == {1}:
        pads = {side for size in kernel for side in ((size - 1) // 2, size // 2)}
    reason = _first(
        (dtype not in {"float32", "float16"}, f"{op} with {dtype} weights"),
        (dilation != (1, 1), f"{op} with dilation"),
        (same and strides != {1} and kernel != _POINT, f"{op} with stride and padding SAME"),
    )
    if reason:
        return Fit.NONE, reason
    if op == "DEPTHWISE_CONV_2D":
        reason = _judge_depthwise(kernel, strides, pads, multiplier=weights[3] // max(channels, 1))
        return (Fit.NONE, reason) if reason else (Fit.INSIDE, "")
    if kernel == _POINT:
        reason = _first(
            (channels != weights[3], "CONV_2D with groups"),
            (strides != {1} or pads != {0}, "CONV_2D of 1x1 with stride or padding"),
        )
        return (Fit.NONE, reason) if reason else (Fit.INSIDE, "")
    size = f"{kernel[0]}x{kernel[1]}"
    is_stem = kernel == _STEM and strides == {2} and channels == _STEM_CHANNELS
    reason = _first(
        (not is_stem, f"CONV_2D of {size}, neither 1x1 nor 3x3 of 3 channels with stride 2"),
        (pads != {1}, f"CONV_2D of 3x3 padded by {_told(pads)}, not by 1 all around"),
    )
    return (Fit.NONE, reason) if reason else (Fit.START, "")


def fit_other(tree: Tree, operator: Any, op: str) -> tuple[Fit, str]:  # noqa: ANN401 - see `Tree`
    """Judge any other op; the text says why it does not fit."""
    graph = tree.subgraphs[0]
    shapes = [tensor_shape(graph.tensors[int(i)]) for i in operator.inputs if int(i) >= 0]
    fit, reason = Fit.NONE, f"{op} has no channels-first kernel"
    match op:
        case "MEAN":
            axes = read_integers(tree, int(operator.inputs[1])) or ()
            if len(shapes[0]) == RANK and {axis % RANK for axis in axes} == {1, 2}:
                return Fit.INSIDE | Fit.END, ""
            reason = "MEAN over others than height and width"
        case "DEPTH_TO_SPACE":
            return Fit.END, ""
        case "ADD" | "MUL":
            narrow = all(
                np.sum(np.asarray(shape) != 1) <= 1
                for index, shape in zip(operator.inputs, shapes, strict=True)
                if is_constant(tree, int(index))
            )
            if narrow and all(len(shape) == RANK for shape in shapes):
                fit = Fit.INSIDE
            reason = f"{op} of operands that have not 4 dimensions each"
        case "RESIZE_BILINEAR":
            fit = Fit.INSIDE if min(shapes[0][1:3]) > 1 else Fit.NONE
        case _ if op in _UNARY and len(shapes[0]) == RANK:
            fit = Fit.INSIDE
    return fit, "" if fit else reason


def is_constant(tree: Tree, index: int) -> bool:
    """Tell whether a tensor's values are in the file."""
    data = tree.buffers[tree.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _judge_depthwise(
    kernel: tuple[int, int], strides: set[int], pads: set[int], *, multiplier: int
) -> str:
    op, wanted = "DEPTHWISE_CONV_2D", _DEPTHWISE_PADDING.get(kernel)
    return _first(
        (multiplier != 1, f"{op} with a depth multiplier"),
        (wanted is None, f"{op} of {kernel[0]}x{kernel[1]}, neither 3x3 nor 5x5"),
        (strides not in ({1}, {2}), f"{op} with a stride of {_told(strides)}"),
        (pads != {wanted}, f"{op} padded by {_told(pads)}, not by {wanted} all around"),
    )


def _first(*faults: tuple[bool, str]) -> str:
    return next((text for holds, text in faults if holds), "")


def _told(numbers: set[int]) -> str:
    return " and ".join(str(number) for number in sorted(numbers))
