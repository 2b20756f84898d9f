"""PyTorch models of half or double: changed to float32, and kept as they were to compare with.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import copy
from typing import Any

import torch

HALVES = frozenset({torch.float16, torch.bfloat16})
FLOATS = HALVES | {torch.float32, torch.float64}


def other_floats(module: torch.nn.Module) -> list[torch.dtype]:
    """Give the floats a module computes in beside float32: of its weights, and of its program."""
    found = {each.dtype for each in (*module.parameters(), *module.buffers())}
    for each in module.modules():
        if isinstance(each, torch.fx.GraphModule):
            values = [node.meta.get("val") for node in each.graph.nodes]
            found |= {value.dtype for value in values if isinstance(value, torch.Tensor)}
    return sorted(found & (FLOATS - {torch.float32}), key=str)


def settle_precision(module: torch.nn.Module, notes: list[str]) -> torch.nn.Module | None:
    """Change a module to float32, in which TFLite computes, and say so.

    Args:
        module: changed in place.
        notes: what was changed is added.

    Returns:
        the module as it was; None where it computes in float32.
    """
    others = other_floats(module)
    if not others:
        return None
    own: torch.nn.Module = copy.deepcopy(module)
    names = " and ".join(str(each).removeprefix("torch.") for each in others)
    notes.append(f"the module computes in {names}: it was changed to float32")
    module.float()
    for each in module.modules():
        if isinstance(each, torch.fx.GraphModule):
            _retype(each)
    return own


def _retype(module: torch.fx.GraphModule) -> None:
    """Write float32 for every other float that a program's operations name."""
    for node in module.graph.nodes:
        node.args = torch.fx.node.map_aggregate(node.args, _as_float32)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _as_float32)
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor) and value.dtype in FLOATS:
            setattr(module, name, value.float())
    module.recompile()


def _as_float32(argument: Any) -> Any:  # noqa: ANN401 - any argument of an operation
    return torch.float32 if isinstance(argument, torch.dtype) and argument in FLOATS else argument
