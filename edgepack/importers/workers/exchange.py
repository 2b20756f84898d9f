"""What the worker scripts share: one JSON request in, one JSON answer out, and shapes.

Runs inside a toolchain on its own interpreter: only the standard library is imported here.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ANSWER_FD = 3
Request = Mapping[str, Any]
Dims = tuple[int | str | None, ...]
"""A shape as the source has it: a number, a symbolic name, or None for an open dimension."""


class RefusedError(Exception):
    """What the worker answers instead of a result: kind, message and remedy."""

    def __init__(self, kind: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.answer = {"kind": kind, "message": message, "remedy": remedy}


def serve(operations: Mapping[str, Callable[[Request], dict[str, Any]]]) -> None:
    """Answer the request on standard input with the operation it names."""
    request = json.load(sys.stdin)
    try:
        answer = {"ok": operations[request["operation"]](request)}
    except RefusedError as refusal:
        answer = {"error": refusal.answer}
    with os.fdopen(ANSWER_FD, "w", encoding="utf-8") as pipe:
        json.dump(answer, pipe)


def first_line(error: BaseException, limit: int = 300) -> str:
    """Give the first line of an exception's message that says something, bounded in length."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = next((line for line in lines if line), type(error).__name__)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def fix_shapes(
    sources: Sequence[tuple[str, Dims]], wanted: Mapping[str, Sequence[int]]
) -> list[tuple[int, ...]]:
    """Give each input's whole shape: the user's, or the source's with a batch of 1.

    Raises:
        RefusedError: dimensions left open, unknown names, or shapes that contradict the source;
            all faults at once.
    """
    names = [name for name, _ in sources]
    faults = [
        f"--input-shape {name}: there is no such input; known: {', '.join(names)}"
        for name in wanted
        if name not in names
    ]
    shapes: list[tuple[int, ...]] = []
    flags: list[str] = []
    for name, dims in sources:
        given = wanted.get(name)
        shape: Dims = tuple(given) if given is not None else dims
        if given is not None and not _agrees(given, dims):
            faults.append(
                f"--input-shape {name}={_dims_text(given)}: the model has {_dims_text(dims)}"
            )
        if given is None and shape and not isinstance(shape[0], int):
            shape = (1, *shape[1:])
        unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        if unknown:
            listed = ", ".join(
                f"dimension {axis}" + (f" ({shape[axis]})" if shape[axis] else "")
                for axis in unknown
            )
            faults.append(f"input {name!r} of shape {_dims_text(dims)} leaves open {listed}")
            flags.append(f"--input-shape {name}={','.join(map(_flag_dim, shape))}")
        shapes.append(tuple(size for size in shape if isinstance(size, int)))
    if faults:
        remedy = "Give every input's whole shape, as in --input-shape NAME=1,224,224,3."
        if flags:
            remedy = f"Give {' '.join(flags)} with a number for each '?'."
        raise RefusedError("model", "expected fixed input shapes, but " + "; ".join(faults), remedy)
    return shapes


def _agrees(given: Sequence[int], dims: Dims) -> bool:
    return len(given) == len(dims) and all(
        ours > 0 and (ours == theirs or not isinstance(theirs, int))
        for ours, theirs in zip(given, dims, strict=True)
    )


def _dims_text(dims: Sequence[int | str | None]) -> str:
    return ",".join("?" if size is None else str(size) for size in dims)


def _flag_dim(size: int | str | None) -> str:
    return str(size) if isinstance(size, int) else "?"
