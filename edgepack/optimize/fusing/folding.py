"""Folding constant multiplications and additions into the layers beside them.

What a converter left of a batch norm, or of a learned scale and offset, is an op of its own:
one more tensor to be rounded to 8 bits, and one more walk over memory. Behind a layer without
an activation both fold into its weights and bias; before a layer a factor folds into the
weights, and an offset into the bias, but only where the layer pads nothing: its zeros would
have to become offsets. A factor before an offset that cannot fold moves behind it, since
a x + b is a (x + b / a). All is exact but for float32's rounding (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3.2).
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.graph import (
    Tree,
    drop_unused,
    make_op,
    name_of,
    new_constant,
    read_constant,
    readers,
    set_constant,
    tensor_shape,
)
from edgepack.optimize.walking.layer_bias import layer_constants, pads, set_bias, weigh
from edgepack.optimize.walking.layers import Layer, activation_of, find_layers

# They hand one value on at another place, so a single factor or offset passes them.
_MOVING: Final = frozenset({"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS"})
# A factor smaller than this beside its offset would make b / a lose digits.
_SMALLEST_FACTOR: Final = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Affine:
    """An op that gives `factor * x + offset`, one value or one a channel of the last axis."""

    operator: Any
    input: int
    output: int
    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    activation: str

    @property
    def is_single(self) -> bool:
        return self.factor.size == 1 and self.offset.size == 1

    @property
    def has_offset(self) -> bool:
        return bool(np.any(self.offset))


def fold_constants(tree: Tree) -> int:
    """Fold what can be folded, in place, and give the number of ops that went into a layer.

    Layers keep their names. An op whose result is an output of the model stays.
    """
    folder = _Folder(tree)
    count = 0
    while folded := folder.sweep():
        count += folded
    if count:
        graph = tree.subgraphs[0]
        graph.operators = [each for each in graph.operators if len(each.outputs)]
        drop_unused(tree)
    return count


def _read_affine(tree: Tree, operator: Any, name: str) -> _Affine | None:  # noqa: ANN401 - see `Tree`
    """Give an op with one constant operand as what it does to the other; None for any other op."""
    if name not in {"MUL", "ADD", "SUB", "DIV"} or len(operator.inputs) != 2:  # noqa: PLR2004 - binary
        return None
    first, second = (int(index) for index in operator.inputs)
    left, right = read_constant(tree, first), read_constant(tree, second)
    if (left is None) == (right is None):
        return None
    source, constant = (second, left) if right is None else (first, right)
    output = int(operator.outputs[0])
    values = _per_channel(tree, source, output, constant)
    if values is None:
        return None
    pair = _factor_and_offset(name, values, constant_first=right is None)
    if pair is None:
        return None
    return _Affine(
        operator=operator,
        input=source,
        output=output,
        factor=pair[0],
        offset=pair[1],
        activation=activation_of(operator),
    )


def _per_channel(
    tree: Tree, source: int, output: int, constant: NDArray[np.float32] | None
) -> NDArray[np.float64] | None:
    """Give a constant as one value or one a channel of what it meets; None when it is neither."""
    tensors = tree.subgraphs[0].tensors
    shape = tensor_shape(tensors[source])
    if constant is None or not shape or shape != tensor_shape(tensors[output]):
        return None
    if constant.size != 1 and (constant.size != shape[-1] or constant.shape[-1] != shape[-1]):
        return None
    values = constant.reshape(-1).astype(np.float64)
    return values if np.all(np.isfinite(values)) else None


def _factor_and_offset(
    name: str, values: NDArray[np.float64], *, constant_first: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    one, zero = np.ones(1), np.zeros(1)
    match name:
        case "MUL":
            return values, zero
        case "ADD":
            return one, values
        case "SUB":
            return (-one, values) if constant_first else (one, -values)
        case _:
            return None if constant_first or not np.all(values) else (1.0 / values, zero)


class _Folder:
    """A tree and its layers, which change together.

    An op that is folded away stays in its place without operands, so positions hold.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._operators = tree.subgraphs[0].operators
        self._outputs = {int(index) for index in tree.subgraphs[0].outputs}
        self._names = [name_of(tree, operator) for operator in self._operators]
        self._layers = {layer.position: layer for layer in find_layers(tree)}

    def sweep(self) -> int:
        """Try all ops in the order they run, and give the number of those that were folded."""
        count = 0
        for position in range(len(self._operators)):
            affine = self._affine(position)
            if affine is not None and affine.output not in self._outputs:
                count += (
                    self._fold_behind(affine)
                    or self._fold_before(affine)
                    or self._swap(affine)
                    or self._merge(affine)
                )
        return count

    def _affine(self, position: int) -> _Affine | None:
        return _read_affine(self._tree, self._operators[position], self._names[position])

    def _fold_behind(self, affine: _Affine) -> bool:
        """Fold an op into the layer whose result it alone reads."""
        layer, activation = self._layer_before(affine), affine.activation
        if layer is None:
            return False
        transposed = layer.op == "TRANSPOSE_CONV"
        if activation != "NONE" and (
            layer.output != affine.input or (transposed and activation != "RELU")
        ):
            return False
        weights, bias = layer_constants(self._tree, layer)
        shape = [1] * weights.ndim
        shape[layer.channel_axis] = -1
        scaled = (weights * affine.factor.reshape(shape)).astype(np.float32)
        set_constant(self._tree, layer.weights, scaled)
        self._set_bias(layer, bias * affine.factor + affine.offset)
        if activation != "NONE" and transposed:
            single = make_op(self._tree, "RELU", [affine.input], [affine.output])
            place = self._operators.index(affine.operator)
            self._operators[place], self._names[place] = single, "RELU"
            return True
        if activation != "NONE":
            options = self._operators[layer.position].builtinOptions
            options.fusedActivationFunction = affine.operator.builtinOptions.fusedActivationFunction
            changed = replace(self._layers[layer.position], activation=activation)
            self._layers[layer.position] = changed
        self._bypass(affine)
        return True

    def _layer_before(self, affine: _Affine) -> Layer | None:
        """Give the layer an op can fold into, past ops that only move what has one factor."""
        writers = {int(i): place for place, op in enumerate(self._operators) for i in op.outputs}
        index = affine.input
        while index in writers and index not in self._outputs:
            if len(readers(self._tree, index)) != 1:
                return None
            layer = self._layers.get(writers[index])
            if layer is not None:
                fits = layer.activation == "NONE" and self._is_own(layer)
                return layer if fits else None
            if not affine.is_single or self._names[writers[index]] not in _MOVING:
                return None
            index = int(self._operators[writers[index]].inputs[0])
        return None

    def _fold_before(self, affine: _Affine) -> bool:
        """Fold an op into all that read its result, when they are layers that can take it."""
        taking = self._layers_behind(affine.output)
        if taking is None or affine.activation != "NONE":
            return False
        for layer, padded in taking:
            if not _takes_factor(self._tree, layer, affine):
                return False
            if affine.has_offset and (padded or pads(self._tree, layer)):
                return False
        for layer, _ in taking:
            self._take(layer, affine)
        self._bypass(affine)
        return True

    def _swap(self, affine: _Affine) -> bool:
        """Move a factor behind the offset that follows it, and from there into the layers."""
        reading = readers(self._tree, affine.output)
        if affine.has_offset or affine.activation != "NONE" or len(reading) != 1:
            return False
        if float(np.abs(affine.factor).min()) < _SMALLEST_FACTOR:
            return False
        position = self._operators.index(reading[0])
        following = self._affine(position)
        if following is None or following.activation != "NONE" or self._names[position] != "ADD":
            return False
        taking = self._layers_behind(following.output)
        if taking is None or not all(
            _takes_factor(self._tree, layer, affine) for layer, _ in taking
        ):
            return False
        offset = (following.offset / affine.factor).astype(np.float32)
        constant = new_constant(self._tree, "offset", offset)
        following.operator.inputs = [affine.output, constant]
        for layer, _ in taking:
            self._take(layer, affine)
        self._bypass(affine)
        return True

    def _merge(self, affine: _Affine) -> bool:
        """Multiply a factor into the one that follows it."""
        reading = readers(self._tree, affine.output)
        if affine.has_offset or affine.activation != "NONE" or len(reading) != 1:
            return False
        position = self._operators.index(reading[0])
        following = self._affine(position)
        if following is None or self._names[position] != "MUL":
            return False
        product = (affine.factor * following.factor).astype(np.float32)
        constant = new_constant(self._tree, "factor", product)
        following.operator.inputs = [affine.output, constant]
        self._bypass(affine)
        return True

    def _layers_behind(
        self, index: int, *, padded: bool = False
    ) -> list[tuple[Layer, bool]] | None:
        """Give all layers that read a tensor, and whether a PAD is before each; None if others."""
        if index in self._outputs:
            return None
        taking: list[tuple[Layer, bool]] = []
        for operator in readers(self._tree, index):
            position = self._operators.index(operator)
            layer = self._layers.get(position)
            if layer is not None and layer.input == index and self._is_own(layer):
                taking.append((layer, padded))
            elif self._names[position] == "PAD":
                behind = self._layers_behind(int(operator.outputs[0]), padded=True)
                if behind is None:
                    return None
                taking += behind
            else:
                return None
        return taking or None

    def _take(self, layer: Layer, affine: _Affine) -> None:
        """Fold `factor * x + offset` into a layer that reads it."""
        weights, bias = layer_constants(self._tree, layer)
        scaled = weights * _spread(self._tree, layer, affine.factor)
        set_constant(self._tree, layer.weights, scaled.astype(np.float32))
        if affine.has_offset:
            self._set_bias(layer, bias + weigh(self._tree, layer, weights, affine.offset))

    def _set_bias(self, layer: Layer, bias: NDArray[np.float64]) -> None:
        index = set_bias(self._tree, layer, bias)
        self._layers[layer.position] = replace(layer, bias=index)

    def _is_own(self, layer: Layer) -> bool:
        """Tell whether nothing else reads a layer's weights and bias."""
        uses = [int(index) for each in self._operators for index in each.inputs]
        return all(
            uses.count(index) == 1 and index not in self._outputs
            for index in (layer.weights, layer.bias)
            if index is not None
        )

    def _bypass(self, affine: _Affine) -> None:
        """Take an op out; who read its result reads its input."""
        affine.operator.inputs, affine.operator.outputs = [], []
        for operator in readers(self._tree, affine.output):
            operator.inputs = [
                affine.input if int(index) == affine.output else int(index)
                for index in operator.inputs
            ]
        for position, layer in self._layers.items():
            if layer.input == affine.output:
                self._layers[position] = replace(layer, input=affine.input)


def _takes_factor(tree: Tree, layer: Layer, affine: _Affine) -> bool:
    """Tell whether a layer's weights have the channels that an op's values stand for."""
    tensors = tree.subgraphs[0].tensors
    channels = tensor_shape(tensors[layer.input])[-1]
    shape = tensor_shape(tensors[layer.weights])
    if layer.op == "DEPTHWISE_CONV_2D":
        return shape[3] % channels == 0
    # A grouped convolution's weights count the channels of one group; a flattened input of a
    # FULLY_CONNECTED counts more than the last axis.
    return affine.is_single or shape[-1] == channels


def _spread(tree: Tree, layer: Layer, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give one value, or one an input channel, in a shape that meets the layer's weights."""
    shape = tensor_shape(tree.subgraphs[0].tensors[layer.weights])
    if layer.op == "DEPTHWISE_CONV_2D" and values.size > 1:
        return np.repeat(values, shape[3] // values.size)
    return values
