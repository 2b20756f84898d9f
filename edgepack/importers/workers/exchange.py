"""What the worker scripts share: one JSON request in, one JSON answer out, and shapes.

Runs inside a toolchain on its own interpreter: only the standard library is imported here.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ANSWER_FD = 3
Request = Mapping[str, Any]
Dims = tuple[int | str | None, ...]
"""A shape as the source has it: a number, a symbolic name, or None for an open dimension."""

# What exporters write for a dimension they have no name for, several times in one shape.
_UNNAMED = frozenset({"", "?", "-1", "None", "unk", "unknown", "dynamic"})


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
        if refusal.__cause__ is not None:  # into the log, where the whole story belongs
            traceback.print_exception(refusal.__cause__)
    with os.fdopen(ANSWER_FD, "w", encoding="utf-8") as pipe:
        json.dump(answer, pipe)


def first_line(error: BaseException, limit: int = 300) -> str:
    """Give the first line of an exception's message that says something, bounded in length."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = next((line for line in lines if line), type(error).__name__)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def fix_shapes(
    sources: Sequence[tuple[str, Dims]],
    wanted: Mapping[str, Sequence[int]],
    dimensions: Mapping[str, int] | None = None,
) -> list[tuple[int, ...]]:
    """Give each input's whole shape: the user's, or the source's with a batch of 1.

    A symbolic name is one size wherever it stands, so a shape given for one input fixes the
    same names in the others.

    Args:
        sources: name and shape of each input.
        wanted: whole shapes by input name (`--input-shape`).
        dimensions: sizes by symbolic name (`--dim`).

    Raises:
        RefusedError: dimensions left open, unknown names, or shapes that contradict the source
            or each other; all faults at once.
    """
    sources = [(name, tuple(None if d in _UNNAMED else d for d in dims)) for name, dims in sources]
    sizes = dict(dimensions or {})
    faults = _unknown_names(sources, wanted, sizes)
    faults += _bind(sources, wanted, sizes)
    sizes = _batch_of_one(sources) | sizes
    shapes: list[tuple[int, ...]] = []
    flags: list[str] = []
    for name, dims in sources:
        given = wanted.get(name)
        known = [sizes.get(size, size) if isinstance(size, str) else size for size in dims]
        if known and known[0] is None:
            known[0] = 1
        shape: Dims = tuple(given) if given is not None else tuple(known)
        unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        if unknown:
            listed = ", ".join(
                f"dimension {axis}" + (f" ({shape[axis]})" if shape[axis] else "")
                for axis in unknown
            )
            faults.append(f"input {name!r} of shape {dims_text(dims)} leaves open {listed}")
            if all(isinstance(shape[axis], str) for axis in unknown):
                flags += [f"--dim {shape[axis]}=?" for axis in unknown]
            else:
                flags.append(f"--input-shape {name}={','.join(map(_flag_dim, shape))}")
        elif any(size == 0 for size in shape):
            faults.append(f"input {name!r} of shape {dims_text(shape)} holds no value at all")
        shapes.append(tuple(size for size in shape if isinstance(size, int)))
    if faults:
        remedy = "Give every input's whole shape, as in --input-shape NAME=1,224,224,3."
        if flags:
            remedy = f"Give {' '.join(dict.fromkeys(flags))} with a number for each '?'."
        raise RefusedError("model", "expected fixed input shapes, but " + "; ".join(faults), remedy)
    return shapes


def _unknown_names(
    sources: Sequence[tuple[str, Dims]],
    wanted: Mapping[str, Sequence[int]],
    dimensions: Mapping[str, int],
) -> list[str]:
    names = [name for name, _ in sources]
    symbols = list(dict.fromkeys(d for _, dims in sources for d in dims if isinstance(d, str)))
    known = f"known: {', '.join(symbols)}" if symbols else "it names none"
    faults = [
        f"--input-shape {name}: there is no such input; known: {', '.join(names)}"
        for name in wanted
        if name not in names
    ]
    faults += [
        f"--dim {name}: the model has no such dimension; {known}"
        for name in dimensions
        if name not in symbols
    ]
    faults += [
        f"--dim {name}={size}: expected a size of at least 1"
        for name, size in dimensions.items()
        if size < 1
    ]
    return faults


def _bind(
    sources: Sequence[tuple[str, Dims]],
    wanted: Mapping[str, Sequence[int]],
    sizes: dict[str, int],
) -> list[str]:
    """Enter the sizes that whole shapes give to names; tell what contradicts."""
    faults: list[str] = []
    origins = {name: f"--dim {name}={size}" for name, size in sizes.items()}
    for name, dims in sources:
        if name not in wanted:
            continue
        given = wanted[name]
        flag = f"--input-shape {name}={dims_text(given)}"
        if not _agrees(given, dims):
            faults.append(f"{flag}: the model has {dims_text(dims)}")
            continue
        found: dict[str, set[int]] = {}
        for symbol, size in zip(dims, given, strict=True):
            if isinstance(symbol, str):
                found.setdefault(symbol, set()).add(size)
        for symbol, values in found.items():
            # Exporters do use one name for height and width; of these nothing can be learnt.
            if symbol not in sizes and len(values) > 1:
                continue
            for size in sorted(values - {sizes.get(symbol)}):
                if symbol in sizes:
                    faults.append(f"{flag}: {symbol} is {size} here, but {origins[symbol]}")
                sizes.setdefault(symbol, size)
                origins.setdefault(symbol, f"{size} in {flag}")
    return faults


def _batch_of_one(sources: Sequence[tuple[str, Dims]]) -> dict[str, int]:
    """Give the names that stand for the batch: so called, or else in front."""
    symbols = {d for _, dims in sources for d in dims if isinstance(d, str)}
    called = {symbol for symbol in symbols if "batch" in symbol.lower()}
    first = {dims[0] for _, dims in sources if dims and isinstance(dims[0], str)}
    return dict.fromkeys(called or first, 1)


def _agrees(given: Sequence[int], dims: Dims) -> bool:
    return len(given) == len(dims) and all(
        ours > 0 and (ours == theirs or not isinstance(theirs, int))
        for ours, theirs in zip(given, dims, strict=True)
    )


def dims_text(dims: Sequence[int | str | None]) -> str:
    """Write a shape as the options take it, `?` for an open dimension."""
    return ",".join("?" if size is None else str(size) for size in dims)


def _flag_dim(size: int | str | None) -> str:
    return str(size) if isinstance(size, int) else "?"
