"""Layers as matrix products: a row of inputs for each output position, a column for each weight.

A convolution's output, without its bias and activation, is `patches @ matrix.T` for each group
of channels (im2col). A transposed convolution is one of stride 1 over the input with zeros
between its values, with the kernel turned around.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgepack.graph import read_constant, read_integers, tensor_shape
from edgepack.optimize.walking.layers import Layer

Tree = Any
"""A `ModelT`; the generated classes are untyped."""

_SAME: Final = 0  # Padding of schema.fbs


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """How a kernel moves over the padded input; pairs are (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    output: tuple[int, int]


def weight_matrix(tree: Tree, layer: Layer) -> NDArray[np.float32]:
    """Give a layer's weights as (num_groups, num_out, num_in), num_out the outputs of a group.

    Raises:
        ValueError: the layer's weights are no constant of the tree any more.
    """
    weights = read_constant(tree, layer.weights)
    if weights is None:
        raise ValueError(f"{layer.name} has no constant weights")
    match layer.op:
        case "DEPTHWISE_CONV_2D":
            channels = _input_channels(tree, layer)
            flat = weights.reshape(-1, channels, weights.shape[3] // channels)
            return np.ascontiguousarray(flat.transpose(1, 2, 0))
        case "TRANSPOSE_CONV":
            return weights[:, ::-1, ::-1, :].reshape(1, weights.shape[0], -1)
        case "CONV_2D":
            num_groups = max(1, _input_channels(tree, layer) // weights.shape[3])
            return weights.reshape(num_groups, weights.shape[0] // num_groups, -1)
        case _:
            return weights.reshape(1, *weights.shape)


def matrix_weights(
    tree: Tree, layer: Layer, matrix: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Give a matrix of `weight_matrix` as weights in the layer's own shape."""
    shape = tensor_shape(tree.subgraphs[0].tensors[layer.weights])
    values = matrix.astype(np.float32)
    match layer.op:
        case "DEPTHWISE_CONV_2D":
            return np.ascontiguousarray(values.transpose(2, 0, 1)).reshape(shape)
        case "TRANSPOSE_CONV":
            return np.ascontiguousarray(values.reshape(shape)[:, ::-1, ::-1, :])
        case _:
            return values.reshape(shape)


def input_patches(
    tree: Tree, layer: Layer, array: NDArray[np.float32], *, maximum_rows: int | None = None
) -> NDArray[np.float32]:
    """Give one sample's input as (num_groups, num_rows, num_in).

    Args:
        tree: the model.
        layer: one of its layers.
        array: the layer's input for one sample, batch axis included.
        maximum_rows: positions taken when there are more, evenly spread; None is all.
    """
    if layer.op == "FULLY_CONNECTED":
        rows = array.reshape(-1, _num_in(tree, layer))
        return rows[spread_rows(len(rows), maximum_rows)][np.newaxis]
    window, padded = _prepare(tree, layer, array)
    span = tuple((k - 1) * d + 1 for k, d in zip(window.kernel, window.dilation, strict=True))
    views = sliding_window_view(padded, (span[0], span[1]), axis=(1, 2))
    views = views[
        :, :: window.stride[0], :: window.stride[1], :, :: window.dilation[0], :: window.dilation[1]
    ][:, : window.output[0], : window.output[1]]
    batch, height, width = views.shape[:3]
    picks = spread_rows(batch * height * width, maximum_rows)
    # (rows, channels, kernel height, kernel width)
    rows = views[np.unravel_index(picks, (batch, height, width))]
    return _group(rows.transpose(0, 2, 3, 1), _num_groups(tree, layer))


def mean_patch(tree: Tree, layer: Layer, array: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the mean of all rows of `input_patches`, (num_groups, num_in), without making them."""
    if layer.op == "FULLY_CONNECTED":
        rows = array.reshape(1, -1, _num_in(tree, layer))
        return np.asarray(rows.mean(axis=1, dtype=np.float64))
    window, padded = _prepare(tree, layer, array)
    means = np.empty((1, *window.kernel, padded.shape[3]))
    for row in range(window.kernel[0]):
        top = row * window.dilation[0]
        for column in range(window.kernel[1]):
            left = column * window.dilation[1]
            seen = padded[:, top :: window.stride[0], left :: window.stride[1]]
            seen = seen[:, : window.output[0], : window.output[1]]
            means[0, row, column] = seen.mean(axis=(0, 1, 2), dtype=np.float64)
    return _group(means, _num_groups(tree, layer))[:, 0]


def spread_rows(count: int, maximum: int | None) -> NDArray[np.intp]:
    """Give the output positions that `input_patches` takes, in the order of memory."""
    if maximum is None or count <= maximum:
        return np.arange(count)
    return np.linspace(0, count - 1, maximum).astype(np.intp)


def _group(rows: NDArray[Any], num_groups: int) -> NDArray[Any]:
    """Give (rows, height, width, channels) as (num_groups, rows, num_in)."""
    count, height, width, channels = rows.shape
    split = rows.reshape(count, height, width, num_groups, channels // num_groups)
    return np.ascontiguousarray(split.transpose(3, 0, 1, 2, 4)).reshape(num_groups, count, -1)


def _input_channels(tree: Tree, layer: Layer) -> int:
    return tensor_shape(tree.subgraphs[0].tensors[layer.input])[-1]


def _num_in(tree: Tree, layer: Layer) -> int:
    return tensor_shape(tree.subgraphs[0].tensors[layer.weights])[-1]


def _num_groups(tree: Tree, layer: Layer) -> int:
    if layer.op == "DEPTHWISE_CONV_2D":
        return _input_channels(tree, layer)
    if layer.op == "CONV_2D":
        return max(1, _input_channels(tree, layer) // _num_in(tree, layer))
    return 1


def _prepare(
    tree: Tree, layer: Layer, array: NDArray[np.float32]
) -> tuple[_Window, NDArray[np.float32]]:
    """Give how the kernel moves, and the input with its padding."""
    operator = tree.subgraphs[0].operators[layer.position]
    if layer.op == "TRANSPOSE_CONV":
        window, array = _turn_around(tree, layer, operator, array)
    else:
        window = _window(tree, layer, operator, array)
    needed = [
        (out - 1) * s + (k - 1) * d + 1
        for out, s, k, d in zip(
            window.output, window.stride, window.kernel, window.dilation, strict=True
        )
    ]
    after = [
        max(0, need - size - before)
        for need, size, before in zip(needed, array.shape[1:3], window.before, strict=True)
    ]
    widths = ((0, 0), (window.before[0], after[0]), (window.before[1], after[1]), (0, 0))
    return window, np.pad(array, widths)


def _window(tree: Tree, layer: Layer, operator: Any, array: NDArray[np.float32]) -> _Window:  # noqa: ANN401 - see `Tree`
    options = operator.builtinOptions
    shape = tensor_shape(tree.subgraphs[0].tensors[layer.weights])
    kernel = (shape[1], shape[2])
    stride = (int(options.strideH), int(options.strideW))
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    sizes = array.shape[1:3]
    if int(options.padding) == _SAME:
        output = tuple(-(-size // s) for size, s in zip(sizes, stride, strict=True))
        before = tuple(
            max(0, (out - 1) * s + reach - size) // 2
            for out, s, reach, size in zip(output, stride, span, sizes, strict=True)
        )
    else:
        output = tuple(
            (size - reach) // s + 1 for size, reach, s in zip(sizes, span, stride, strict=True)
        )
        before = (0, 0)
    return _Window(
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        before=(before[0], before[1]),
        output=(output[0], output[1]),
    )


def _turn_around(
    tree: Tree,
    layer: Layer,
    operator: Any,  # noqa: ANN401 - see `Tree`
    array: NDArray[np.float32],
) -> tuple[_Window, NDArray[np.float32]]:
    """Give a transposed convolution as one of stride 1 over an input with zeros in between."""
    options = operator.builtinOptions
    graph = tree.subgraphs[0]
    shape = tensor_shape(graph.tensors[layer.weights])
    kernel = (shape[1], shape[2])
    stride = (int(options.strideH), int(options.strideW))
    wanted = read_integers(tree, int(operator.inputs[0])) or tensor_shape(
        graph.tensors[layer.output]
    )
    output = (wanted[1], wanted[2])
    batch, height, width, channels = array.shape
    spread = np.zeros(
        (batch, (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1, channels), np.float32
    )
    spread[:, :: stride[0], :: stride[1]] = array
    # What the convolution that this one transposes pads before its input, which is our output.
    padding = (0, 0)
    if int(options.padding) == _SAME:
        totals = [
            max(0, (size - 1) * s + k - out)
            for size, s, k, out in zip((height, width), stride, kernel, output, strict=True)
        ]
        padding = (totals[0] // 2, totals[1] // 2)
    window = _Window(
        kernel=kernel,
        stride=(1, 1),
        dilation=(1, 1),
        before=(kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]),
        output=output,
    )
    return window, spread
