"""TorchScript as one flat function of tensors.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

from pathlib import Path
from typing import Any

import torch
from exchange import RefusedError  # type: ignore[import-not-found] # a sibling, outside any package here
from torch_precision import (  # type: ignore[import-not-found]
    FLOATS,
    other_floats,
    settle_precision,
)
from torch_sources import (  # type: ignore[import-not-found]
    RUN_ERRORS,
    TorchInput,
    TorchSource,
    as_float32,
    reason_of,
)


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
    return flatten_script(path.name, module, (), [])


def flatten_script(
    title: str, module: torch.jit.ScriptModule, args: tuple[Any, ...], notes: list[str]
) -> TorchSource:
    """Make a flat function of TorchScript and, where there is one, an example of its inputs."""
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
                example=as_float32(example),
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
