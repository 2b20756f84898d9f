"""A PyTorch model as one flat function of tensors: in which shapes, and what it gives.

What makes one of a file or a module: `torch_modules`, `torch_programs`, `torch_scripts`.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    Dims,
    RefusedError,
    first_line,
    fix_shapes,
)
from torch.utils import _pytree as pytree
from torch_precision import (  # type: ignore[import-not-found]
    FLOATS,
    HALVES,
    other_floats,
)

# What running or tracing a model raises when it does not fit its inputs or PyTorch's rules.
RUN_ERRORS = (
    RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError,
    NotImplementedError, ZeroDivisionError, OverflowError,
)  # fmt: skip
NUMBERS = FLOATS | {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TorchInput:
    """One tensor a model takes.

    Attributes:
        name: of forward's argument; of a nested one with its key or index.
        dims: its shape; None where nothing is known but that there are inputs.
        dtype: its element type.
        example: a value it was traced or is documented with.
        own_dtype: what the model itself takes, where it computes in another precision than
            float32.
    """

    name: str
    dims: Dims | None
    dtype: torch.dtype
    example: torch.Tensor | None = None
    own_dtype: torch.dtype | None = None


@dataclass(frozen=True, kw_only=True)
class TorchSource:
    """A loaded model as one flat function.

    Attributes:
        title: how messages call it.
        call: takes the inputs' tensors in order, gives what forward gives.
        inputs: in forward's order.
        is_script: TorchScript, which has no program to look into until it is traced.
        notes: what was changed of the model, for the user to know.
        ranges: lowest and highest size of each symbolic dimension.
        own: the same as `call` in the model's own precision; None where that is float32.
    """

    title: str
    call: torch.nn.Module
    inputs: tuple[TorchInput, ...]
    own: torch.nn.Module | None = None
    is_script: bool = False
    notes: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_half(self) -> bool:
        """Whether it computes in half precision itself."""
        return self.own is not None and bool(HALVES.intersection(other_floats(self.own)))


class Flat(torch.nn.Module):  # type: ignore[misc] # PyTorch is untyped here
    """A module that takes a flat list of tensors in place of its own arguments."""

    def __init__(self, module: torch.nn.Module, structure: Any, leaves: Sequence[Any]) -> None:  # noqa: ANN401 - PyTorch is untyped
        super().__init__()
        self.inner = module
        self._structure = structure
        self._leaves = list(leaves)

    def forward(self, *tensors: torch.Tensor) -> Any:  # noqa: ANN401 - whatever the model returns
        """Fill the tensors in where the arguments have tensors, and call the module."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, torch.Tensor) else x for x in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return self.inner(*args, **kwargs)


def shape_inputs(
    source: TorchSource,
    wanted: Mapping[str, Sequence[int]],
    dimensions: Mapping[str, int],
) -> tuple[torch.Tensor, ...]:
    """Give an example of each input in the shapes the user asks for, else the source's own.

    Raises:
        RefusedError: shapes are missing, unknown, or outside what the model was exported for.
    """
    unknown = [each.name for each in source.inputs if each.dims is None and each.name not in wanted]
    if unknown:
        flags = " ".join(f"--input-shape {name}=?" for name in unknown)
        raise RefusedError(
            "model",
            f"{source.title}: it does not say what shapes its inputs {', '.join(unknown)} have",
            f"Give {flags} with the sizes in place of '?', such as 1,3,224,224.",
        )
    # An example's shape is one that works, not the only one.
    sources = [
        (each.name, (None,) * len(wanted[each.name]))
        if each.name in wanted and (each.dims is None or each.example is not None)
        else (each.name, each.dims or ())
        for each in source.inputs
    ]
    shapes = fix_shapes(sources, wanted, dimensions)
    _check_ranges(source, shapes)
    return tuple(_example(each, shape) for each, shape in zip(source.inputs, shapes, strict=True))


def flatten_outputs(source: TorchSource, result: object) -> tuple[list[str], list[torch.Tensor]]:
    """Give what forward returned as named tensors, leaving out what is no tensor.

    Raises:
        RefusedError: an object that holds no tensors to be found, or no tensor at all.
    """
    paths, _ = pytree.tree_flatten_with_path(result)
    names: list[str] = []
    tensors: list[torch.Tensor] = []
    for path, leaf in paths:
        if isinstance(leaf, torch.Tensor):
            names.append("_".join(key_text(key) for key in path))
            tensors.append(leaf)
        elif leaf is not None and not isinstance(leaf, (bool, int, float, str)):
            raise RefusedError(
                "model",
                f"{source.title}: forward returns a {type(leaf).__name__}, in which no tensors "
                "can be found",
                "Return tensors, or tuples, lists or dicts of tensors.",
            )
    if not tensors:
        raise RefusedError(
            "model",
            f"{source.title}: forward returns no tensor",
            "Return what the model computes.",
        )
    odd = [
        f"{name or 'output'} ({str(tensor.dtype).removeprefix('torch.')})"
        for name, tensor in zip(names, tensors, strict=True)
        if tensor.dtype not in NUMBERS
    ]
    if odd:
        raise RefusedError(
            "conversion",
            f"{source.title}: TFLite has no tensors of such numbers: output {', '.join(odd)}",
            "Return real and imaginary parts as two outputs: torch.view_as_real(x).",
        )
    plain = all(not name or name.isdigit() for name in names)
    if plain:  # one tensor, or a tuple of tensors
        names = [f"output_{index}" for index in range(len(names))]
    names = [f"output_{name}" if name[:1].isdigit() else name for name in names]
    return distinct(names), tensors


def run_source(source: TorchSource, tensors: Sequence[torch.Tensor]) -> Any:  # noqa: ANN401 - see Flat
    """Call the model once; it may keep or change what it is given, so it gets copies."""
    try:
        with torch.no_grad():
            return source.call(*(each.clone() for each in tensors))
    except RUN_ERRORS as error:
        shapes = ", ".join(
            f"{each.name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            for each, tensor in zip(source.inputs, tensors, strict=True)
        )
        raise RefusedError(
            "model",
            f"{source.title}: PyTorch cannot run it on {shapes}: {reason_of(error)}",
            "Give the shapes and values it was made for, with --input-shape and --data."
            if source.own is None
            else "It was changed to float32, and may not take that: export it in float32, of "
            "model.float().",
        ) from error


def reason_of(error: BaseException) -> str:
    """Give the words of an error that are not TorchScript's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("The following operation failed in the TorchScript"):
        return lines[-1][:300]
    return str(first_line(error))


def _check_ranges(source: TorchSource, shapes: Sequence[tuple[int, ...]]) -> None:
    faults = []
    for each, shape in zip(source.inputs, shapes, strict=True):
        for axis, (symbol, size) in enumerate(zip(each.dims or (), shape, strict=False)):
            if not isinstance(symbol, str) or symbol not in source.ranges:
                continue
            lowest, highest = source.ranges[symbol]
            # Dim.AUTO writes 2 for "not known to be 1"; such a program runs on one sample.
            if size > highest or (size < lowest and (lowest, size) != (2, 1)):
                faults.append(
                    f"dimension {axis} ({symbol}) of {each.name} is {size}, but was exported for "
                    f"{lowest} to {highest}"
                )
    if faults:
        raise RefusedError(
            "model",
            f"{source.title}: {'; '.join(dict.fromkeys(faults))}",
            "Give a size in that range with --dim or --input-shape, or export it for more.",
        )


def _example(each: TorchInput, shape: tuple[int, ...]) -> torch.Tensor:
    if each.example is not None and tuple(each.example.shape) == shape:
        return each.example.detach()
    if each.dtype in FLOATS:
        return torch.rand(shape, dtype=each.dtype, generator=torch.Generator().manual_seed(0))
    return torch.zeros(shape, dtype=each.dtype)


def as_float32(leaf: Any) -> Any:  # noqa: ANN401 - any argument
    """Give a tensor of floats as float32 on the CPU, and anything else as it is."""
    is_other_float = isinstance(leaf, torch.Tensor) and leaf.dtype in FLOATS
    return leaf.detach().to("cpu", torch.float32) if is_other_float else leaf


def key_text(key: Any) -> str:  # noqa: ANN401 - PyTorch's key types share no base
    """Give one step of a pytree's path as part of a name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return re.sub(r"\W", "_", str(getattr(key, attribute)))
    return re.sub(r"\W", "_", str(key))


def distinct(names: Sequence[str]) -> list[str]:
    """Give names with a number behind each that stood before."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        result.append(f"{name}_{seen[name]}" if seen[name] else name)
    return result
