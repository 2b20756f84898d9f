"""A loaded TensorFlow or Keras model as one flat function."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
    fix_shapes,
)

MOST_SHOWN = 10
TRUST = "pass --trust-model if you know where this model comes from"
# What loading and tracing raise on files that are not what they seem.
LOAD_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, ImportError,
    RuntimeError, NotImplementedError, AssertionError, tf.errors.OpError,
)  # fmt: skip
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"^\s*(?:\w+\.)*\w*(?:Error|Exception|Warning): (?P<text>.+)$")
_CALLING = re.compile(r"Exception encountered when calling (?P<layer>.+?)\.(?:call|build)\(\)")
_NODE = re.compile(r"(?:Call|PartitionedCall|import|model)(?:_\d+)?/|Stateful|_\d+(?=/|$)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A loaded source model as one flat function.

    Attributes:
        call: takes the inputs in order, gives the outputs in order.
        inputs: name, shape and dtype of each input; no shape when not even the rank is known.
        output_names: one for each output.
        held: what must stay alive while `call` is used.
        layers: names of its Keras layers, to tell them in the names of nodes.
        notes: what was chosen of it, for the user to know.
    """

    call: Callable[..., Sequence[Any]]
    inputs: list[tuple[str, tuple[int | None, ...] | None, tf.DType]]
    output_names: list[str]
    held: Any
    layers: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def dtypes(self) -> list[tf.DType]:
        """Element type of each input."""
        return [dtype for _, _, dtype in self.inputs]


def settle_shapes(source: Source, wanted: Mapping[str, Sequence[int]]) -> list[tuple[int, ...]]:
    """Give each input's whole shape: the user's, or the source's with a batch of 1.

    Raises:
        RefusedError: inputs that no TFLite model takes, or dimensions left open.
    """
    refused = [
        f"{name!r} ({dtype.name})"
        for name, _, dtype in source.inputs
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool)
    ]
    if refused:
        raise RefusedError(
            "model",
            f"expected inputs of numbers, but these are not: {', '.join(refused)}",
            "Do what turns them into numbers (such as StringLookup or TextVectorization) "
            "before the model, and export the part behind it.",
        )
    shapeless = [name for name, dims, _ in source.inputs if dims is None and name not in wanted]
    if shapeless:
        raise RefusedError(
            "model",
            f"expected fixed input shapes, but input {', '.join(map(repr, shapeless))} has none, "
            "not even a number of dimensions",
            f"Give {' '.join(f'--input-shape {name}=1,...' for name in shapeless)} "
            "with its whole shape.",
        )
    described = [
        (name, (None,) * len(wanted[name]) if dims is None else dims)
        for name, dims, _ in source.inputs
    ]
    shapes: list[tuple[int, ...]] = fix_shapes(described, wanted)
    return shapes


def reason(error: BaseException) -> str:
    """Give what went wrong in one line, out of the pages that TensorFlow and Keras write."""
    text = _TERMINAL.sub("", str(error))
    layer = _CALLING.search(text)
    if layer is None and not text.lstrip().startswith("in user code:"):
        return str(first_line(error))
    lines = [line.strip() for line in text.splitlines()]
    if layer is None:
        raised = [match["text"] for line in lines if (match := _RAISED.match(line))]
        return str(first_line(ValueError(raised[-1]))) if raised else type(error).__name__
    start = next(i for i, line in enumerate(lines) if _CALLING.search(line)) + 1
    rest = next((line for line in lines[start:] if line), type(error).__name__)
    return f"layer {layer['layer']}: {first_line(ValueError(rest))}"
