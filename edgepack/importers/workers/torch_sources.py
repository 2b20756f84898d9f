"""A PyTorch model as one flat function of tensors, whatever it came from.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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
    settle_precision,
)

# What running or tracing a model raises when it does not fit its inputs or PyTorch's rules.
RUN_ERRORS = (
    RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError,
    NotImplementedError, ZeroDivisionError, OverflowError,
)  # fmt: skip
_NUMBERS = FLOATS | {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
_LARGEST_SYMBOL = 1 << 62


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


def flatten_module(
    title: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TorchSource:
    """Make a flat function of an eager module and an example of its arguments."""
    notes: list[str] = []
    if module.training:
        notes.append("the module was in training mode: eval() was called")
    module.eval()
    if isinstance(module, torch.jit.ScriptModule):
        return _flatten_script(title, module, args, notes)
    own = settle_precision(module, notes)
    own_dtypes = [
        leaf.dtype for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
    ]
    args, kwargs = pytree.tree_map(_as_float32, (args, kwargs))
    signature = inspect.signature(module.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise RefusedError(
            "model",
            f"{title}: the example inputs do not fit forward(): {first_line(error)}",
            "Return (module, example_args) with one example for each argument of forward.",
        ) from error
    names = _argument_names(signature, args, kwargs)
    leaves, structure = pytree.tree_flatten((args, kwargs))
    named = [
        (name, leaf) for name, leaf in zip(names, leaves, strict=True) if _is_tensor(title, leaf)
    ]
    if not named:
        raise RefusedError(
            "model",
            f"{title}: expected example inputs that hold tensors, but there are none",
            "Return (module, example_args), as in (net, (torch.zeros(1, 3, 224, 224),)).",
        )
    return TorchSource(
        title=title,
        call=Flat(module, structure, leaves),
        own=None if own is None else Flat(own, structure, leaves),
        inputs=tuple(
            TorchInput(
                name=name, dims=tuple(leaf.shape), dtype=leaf.dtype, example=leaf, own_dtype=dtype
            )
            for name, leaf, dtype in zip(
                _distinct([name for name, _ in named]),
                (x for _, x in named),
                own_dtypes,
                strict=True,
            )
        ),
        notes=tuple(notes),
    )


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
            names.append("_".join(_key_text(key) for key in path))
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
        if tensor.dtype not in _NUMBERS
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
    return _distinct(names), tensors


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


def load_script(path: Path) -> TorchSource:
    """Load TorchScript; shapes are known when it was traced by PyTorch 1.13 or later."""
    try:
        module = torch.jit.load(str(path), map_location="cpu", _restore_shapes=True).eval()
    except RUN_ERRORS as error:
        raise RefusedError(
            "model",
            f"{path.name}: PyTorch {torch.__version__} cannot load this TorchScript: "
            f"{reason_of(error)}",
            "Export the model anew: torch.export.save(torch.export.export(model, "
            "example_inputs), 'model.pt2').",
        ) from error
    return _flatten_script(path.name, module, (), [])


def _flatten_script(
    title: str, module: torch.jit.ScriptModule, args: tuple[Any, ...], notes: list[str]
) -> TorchSource:
    usual = next(iter(other_floats(module)), torch.float32)
    own = settle_precision(module, notes)
    arguments = module.forward.schema.arguments[1:]
    required = [each for each in arguments if not each.has_default_value()]
    odd = [f"{each.name}: {each.type}" for each in required if str(each.type) != "Tensor"]
    if odd:
        raise RefusedError(
            "model",
            f"{title}: expected TorchScript whose inputs are tensors, but it takes "
            f"{', '.join(odd)}",
            "Wrap the model in a module that takes tensors, or give a function that returns it: "
            "FILE.py:function.",
        )
    values = list(module.graph.inputs())[1 : 1 + len(required)]
    indices = _script_indices(module, len(required))
    inputs = []
    for index, (argument, value) in enumerate(zip(required, values, strict=True)):
        known = value.type()
        # Restored shapes make it a complete tensor type; TorchScript's own are bare.
        sizes = known.sizes() if known.kind() == "TensorType" else None
        example = args[index] if index < len(args) else None
        scalar = known.dtype() if sizes is not None and hasattr(known, "dtype") else None
        dtype = torch.int64 if index in indices else scalar or usual
        dtype = example.dtype if isinstance(example, torch.Tensor) else dtype
        dims = tuple(example.shape) if isinstance(example, torch.Tensor) else sizes
        if example is None and dims is not None:
            example = torch.zeros(dims, dtype=dtype)
        inputs.append(
            TorchInput(
                name=argument.name,
                dims=None if dims is None else tuple(dims),
                dtype=torch.float32 if dtype in FLOATS else dtype,
                example=_as_float32(example),
                own_dtype=dtype,
            )
        )
    return TorchSource(
        title=title,
        call=module,
        own=own,
        inputs=tuple(inputs),
        is_script=True,
        notes=tuple(notes),
    )


def _script_indices(module: torch.jit.ScriptModule, count: int) -> set[int]:
    """Give the inputs that TorchScript looks up in a table: untyped, they must be integers."""
    found = set()
    for index, value in enumerate(list(module.inlined_graph.inputs())[1 : 1 + count]):
        for use in value.uses():
            if use.user.kind() == "aten::embedding" and use.offset == 1:
                found.add(index)
    return found


def load_program(path: Path) -> TorchSource:
    """Load a `.pt2` that `check_program` has let through."""
    try:
        program = torch.export.load(str(path))
    except (*RUN_ERRORS, OSError, ImportError) as error:
        raise RefusedError(
            "model",
            f"{path.name}: PyTorch {torch.__version__} cannot load this program: "
            f"{first_line(error)}",
            "Export it anew with torch.export.save, with a PyTorch no newer than that; give what "
            "defines its own operations with --with FILE.py.",
        ) from error
    return flatten_program(path.name, program)


def flatten_program(title: str, program: torch.export.ExportedProgram) -> TorchSource:
    """Make a flat function of an exported program, with dropout and normalization at rest."""
    signature = program.graph_signature
    module = program.module(check_guards=False)
    notes = [f"{name} was exported in training mode: it was set at rest" for name in rest(module)]
    own = settle_precision(module, notes)
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = [name for name in signature.user_inputs if name in placeholders]
    metas = [(name, placeholders[name].meta.get("val")) for name in names]
    leaves = [torch.empty(0) if isinstance(value, torch.Tensor) else value for _, value in metas]
    structure = program.call_spec.in_spec
    if structure is None or structure.num_leaves != len(leaves):
        leaves = _constant_leaves(title, program, leaves)
    inputs = tuple(
        TorchInput(
            name=name,
            dims=tuple(
                int(size) if isinstance(size, int) else str(size.node.expr) for size in value.shape
            ),
            dtype=torch.float32 if value.dtype in FLOATS else value.dtype,
            own_dtype=value.dtype,
        )
        for name, value in metas
        if isinstance(value, torch.Tensor)
    )
    ranges = {
        str(symbol): (_bound(limits.lower, 0), _bound(limits.upper, _LARGEST_SYMBOL))
        for symbol, limits in program.range_constraints.items()
    }
    return TorchSource(
        title=title,
        call=Flat(module, structure, leaves),
        own=None if own is None else Flat(own, structure, leaves),
        inputs=tuple(
            replace(each, name=name)
            for each, name in zip(inputs, _distinct([each.name for each in inputs]), strict=True)
        ),
        notes=tuple(notes),
        ranges=ranges,
    )


def rest(module: torch.nn.Module) -> list[str]:
    """Turn dropout off and let normalization use its stored statistics; name what was changed.

    A program knows no eval(): whether it trains is an argument of these operations.
    """
    changed = []
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        for index, argument in enumerate(schema.arguments):
            if argument.name not in {"train", "training"}:
                continue
            if index < len(node.args) and node.args[index] is True:
                node.args = (*node.args[:index], False, *node.args[index + 1 :])
                changed.append(str(node.name))
    if changed:
        module.graph.lint()
        module.recompile()
    return changed


def _constant_leaves(
    title: str, program: torch.export.ExportedProgram, leaves: list[Any]
) -> list[Any]:
    """Give all leaves of the arguments, with the constants the program was exported with."""
    example = program.example_inputs
    if example is None:
        raise RefusedError(
            "model",
            f"{title}: it takes inputs besides tensors, whose values it does not hold",
            "Export it with tensors alone as inputs.",
        )
    given = iter(leaves)
    return [
        next(given) if isinstance(leaf, torch.Tensor) else leaf
        for leaf in pytree.tree_leaves(example)
    ]


def _bound(value: Any, default: int) -> int:  # noqa: ANN401 - sympy's numbers
    return int(value) if value.is_Integer else default


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


def _as_float32(leaf: Any) -> Any:  # noqa: ANN401 - any argument
    is_other_float = isinstance(leaf, torch.Tensor) and leaf.dtype in FLOATS
    return leaf.detach().to("cpu", torch.float32) if is_other_float else leaf


def _is_tensor(title: str, leaf: object) -> bool:
    if not isinstance(leaf, torch.Tensor):
        return False
    if leaf.dtype not in _NUMBERS:
        raise RefusedError(
            "conversion",
            f"{title}: TFLite has no tensors of such numbers: an input holds "
            f"{str(leaf.dtype).removeprefix('torch.')}",
            "Take real and imaginary parts as two inputs: torch.complex(real, imaginary).",
        )
    return True


def _argument_names(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str]:
    """Name each leaf of the arguments after the parameter it is passed to."""
    names: list[str] = []
    parameters = [
        each for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY
    ]
    for index, value in enumerate(args):
        place = min(index, len(parameters) - 1)
        parameter = parameters[place]
        is_variadic = parameter.kind is parameter.VAR_POSITIONAL
        name = f"{parameter.name}_{index - place}" if is_variadic else parameter.name
        names += _leaf_names(name, value)
    for name, value in kwargs.items():
        names += _leaf_names(name, value)
    return names


def _leaf_names(name: str, value: object) -> list[str]:
    paths, _ = pytree.tree_flatten_with_path(value)
    return ["_".join([name, *(_key_text(key) for key in path)]) for path, _ in paths]


def _key_text(key: Any) -> str:  # noqa: ANN401 - PyTorch's key types share no base
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return re.sub(r"\W", "_", str(getattr(key, attribute)))
    return re.sub(r"\W", "_", str(key))


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        result.append(f"{name}_{seen[name]}" if seen[name] else name)
    return result
