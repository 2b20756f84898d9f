"""Rewriting operations that litert-torch has in some forms only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.passes.shape_prop import ShapeProp

_aten = torch.ops.aten
_RANKS = {_aten.conv_transpose1d.default: 1, _aten.conv_transpose2d.input: 2}
_DEFAULTS = (None, 1, 0, 0, 1, 1)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """A transposed convolution along one axis: sizes and settings as PyTorch names them."""

    count: int
    kernel: int
    stride: int
    padding: int
    output_padding: int
    dilation: int

    @property
    def fits(self) -> bool:
        """Whether litert-torch 0.10 has it: TFLite's VALID, or its SAME."""
        if self.output_padding or self.dilation > 1:
            return False
        is_same = self.stride > 1 and 2 * self.padding == self.kernel - self.stride
        return not self.padding or is_same

    @property
    def whole(self) -> int:
        """Size of the result without padding."""
        return (self.count - 1) * self.stride + self.dilation * (self.kernel - 1) + 1

    @property
    def beyond(self) -> int:
        """How far the padded result leads beyond the whole, where nothing is but the bias."""
        return max(0, self.output_padding - self.padding)


def lower_transposed(module: torch.fx.GraphModule, tensors: Sequence[torch.Tensor]) -> None:
    """Make transposed convolutions ones without padding, of which the edges are cut.

    The one of most decoders (kernel 3, stride 2, padding 1, output padding 1) cannot be
    legalized otherwise.
    """
    nodes = [node for node in module.graph.nodes if node.target in _RANKS]
    if not nodes:
        return
    with torch.no_grad():
        ShapeProp(module).propagate(*tensors)
    planned = [(node, _axes(node)) for node in nodes]
    for node, axes in planned:
        if not all(axis.fits for axis in axes):
            _lower(module.graph, node, axes)
    module.recompile()


def _axes(node: torch.fx.Node) -> list[_Axis]:
    rank = _RANKS[node.target]
    given = [*node.args[2:], *_DEFAULTS[len(node.args) - 2 :]]
    stride, padding, more, dilation = (_spread(given[at], rank) for at in (1, 2, 3, 5))
    counts, kernels = (_shape(node.args[at])[2:] for at in (0, 1))
    return [
        _Axis(
            count=counts[at],
            kernel=kernels[at],
            stride=stride[at],
            padding=padding[at],
            output_padding=more[at],
            dilation=dilation[at],
        )
        for at in range(rank)
    ]


def _lower(graph: torch.fx.Graph, node: torch.fx.Node, axes: Sequence[_Axis]) -> None:
    rank = len(axes)
    given = [*node.args, *_DEFAULTS[len(node.args) - 2 :]]
    values, weight, bias, groups = (given[at] for at in (0, 1, 2, 6))
    is_late = bias is not None and any(axis.beyond for axis in axes)
    with graph.inserting_before(node):
        result = graph.call_function(
            node.target,
            (
                values,
                weight,
                None if is_late else bias,
                [axis.stride for axis in axes],
                [0] * rank,
                [0] * rank,
                groups,
                [axis.dilation for axis in axes],
            ),
        )
        if any(axis.beyond for axis in axes):
            edges = [edge for axis in reversed(axes) for edge in (0, axis.beyond)]
            result = graph.call_function(_aten.constant_pad_nd.default, (result, edges, 0.0))
        for at, axis in enumerate(axes):
            end = axis.whole - axis.padding + axis.output_padding
            result = graph.call_function(_aten.slice.Tensor, (result, at + 2, axis.padding, end))
        if is_late:
            column = graph.call_function(_aten.view.default, (bias, [1, -1, *([1] * rank)]))
            result = graph.call_function(_aten.add.Tensor, (result, column))
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _shape(node: Any) -> tuple[int, ...]:  # noqa: ANN401 - an argument of an operation
    return tuple(node.meta["tensor_meta"].shape)


def _spread(value: Any, rank: int) -> list[int]:  # noqa: ANN401 - likewise
    """Give a number for each axis."""
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    return given * rank if len(given) == 1 else given
