"""An eager module as one flat function of tensors.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from torch.utils import _pytree as pytree
from torch_precision import settle_precision  # type: ignore[import-not-found]
from torch_scripts import flatten_script  # type: ignore[import-not-found]
from torch_sources import (  # type: ignore[import-not-found]
    NUMBERS,
    Flat,
    TorchInput,
    TorchSource,
    as_float32,
    distinct,
    key_text,
)


def flatten_module(
    title: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TorchSource:
    """Make a flat function of an eager module and an example of its arguments."""
    notes: list[str] = []
    if module.training:
        notes.append("the module was in training mode: eval() was called")
    module.eval()
    if isinstance(module, torch.jit.ScriptModule):
        return flatten_script(title, module, args, notes)
    own = settle_precision(module, notes)
    own_dtypes = [
        leaf.dtype for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
    ]
    args, kwargs = pytree.tree_map(as_float32, (args, kwargs))
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
                distinct([name for name, _ in named]),
                (x for _, x in named),
                own_dtypes,
                strict=True,
            )
        ),
        notes=tuple(notes),
    )


def _is_tensor(title: str, leaf: object) -> bool:
    if not isinstance(leaf, torch.Tensor):
        return False
    if leaf.dtype not in NUMBERS:
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
    return ["_".join([name, *(key_text(key) for key in path)]) for path, _ in paths]
