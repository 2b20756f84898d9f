"""A loaded TensorFlow or Keras model as one flat function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

MOST_SHOWN = 10
TRUST = "pass --trust-model if you know where this model comes from"
# What loading and tracing raise on files that are not what they seem.
LOAD_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, ImportError,
    RuntimeError, NotImplementedError, AssertionError, tf.errors.OpError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Source:
    """A loaded source model as one flat function.

    Attributes:
        call: takes the inputs in order, gives the outputs in order.
        inputs: name, shape and dtype of each input.
        output_names: one for each output.
        held: what must stay alive while `call` is used.
    """

    call: Callable[..., Sequence[Any]]
    inputs: list[tuple[str, tuple[int | None, ...], tf.DType]]
    output_names: list[str]
    held: Any
