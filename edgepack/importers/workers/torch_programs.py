"""An exported program as one flat function of tensors.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from torch.utils import _pytree as pytree
from torch_precision import FLOATS, settle_precision  # type: ignore[import-not-found]
from torch_sources import (  # type: ignore[import-not-found]
    RUN_ERRORS,
    Flat,
    TorchInput,
    TorchSource,
    distinct,
)

_LARGEST_SYMBOL = 1 << 62


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
            for each, name in zip(inputs, distinct([each.name for each in inputs]), strict=True)
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
