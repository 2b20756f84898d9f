"""A model from the user's own Python: `module:function` or `file.py:function`.

Naming the function is consent to run it, with the user's current folder first on the import
path, as `python -m module` would have it. Runs inside the `pytorch` toolchain.
"""

import importlib
import importlib.util
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from torch_modules import flatten_module  # type: ignore[import-not-found]
from torch_programs import flatten_program  # type: ignore[import-not-found]
from torch_sources import TorchSource  # type: ignore[import-not-found]

_RETURN = (
    "Return the module and an example of its inputs: (net, (torch.zeros(1, 3, 224, 224),)); or "
    "the module alone, with --input-shape NAME=1,3,224,224 for each input."
)


def load_function(
    source: str, search_path: str, shapes: Mapping[str, Sequence[int]]
) -> TorchSource:
    """Call a function that gives an `nn.Module`, alone or with example inputs.

    Args:
        source: `module:function` or `file.py:function`.
        search_path: the user's current folder.
        shapes: whole shapes by name of forward's argument, for a module without example.

    Raises:
        RefusedError: no such function, an exception inside it, or another value than a module.
    """
    place = source.rpartition(":")[0]
    folder = Path(search_path)
    _seed()
    sys.path.insert(0, str(folder))
    try:
        module = _load_file(folder / place) if place.endswith(".py") else _load_module(place)
        returned = _find(module, source)()
    except RefusedError:
        raise
    except (Exception, SystemExit) as error:
        raise RefusedError(
            "model",
            f"{source}: calling it failed{_where(error, folder)}: {type(error).__name__}: "
            f"{first_line(error)}",
            "Mend the function; what it imports must be installed in the Python it runs in, which "
            "--toolchain-python PATH chooses, and what it downloads must be there already.",
        ) from error
    return _read_result(source, returned, shapes)


def _seed() -> None:
    """Make random weights the same in every process: one converts, another one runs."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the user's code may draw from the global generator
    torch.manual_seed(0)


def _find(module: ModuleType, source: str) -> Callable[[], object]:
    place, _, name = source.rpartition(":")
    function = getattr(module, name, None)
    if callable(function):
        return cast("Callable[[], object]", function)
    known = [each for each, value in vars(module).items() if inspect.isfunction(value)]
    listed = ", ".join(each for each in known if not each.startswith("_"))
    raise RefusedError(
        "model",
        f"{source}: there is no function {name} in {place}; it has {listed or 'none'}",
        "Name a function that takes no arguments and returns an nn.Module.",
    )


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RefusedError(
            "model",
            f"{path}: expected a Python file, but there is none",
            "Check the path; it is taken from the current folder.",
        )
    sys.path.insert(1, str(path.parent))  # what stands beside it can be imported, too
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "own_model"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _read_result(source: str, returned: object, shapes: Mapping[str, Sequence[int]]) -> TorchSource:
    if isinstance(returned, torch.export.ExportedProgram):
        return flatten_program(source, returned)
    module, *rest = returned if isinstance(returned, tuple) else (returned,)
    if not isinstance(module, torch.nn.Module) or len(rest) > 2:  # noqa: PLR2004 - args, kwargs
        raise RefusedError(
            "model",
            f"{source}: expected it to return an nn.Module, alone or as (module, example_inputs), "
            f"but it returned {_describe(returned)}",
            _RETURN,
        )
    if isinstance(module, torch.jit.ScriptModule) or rest:
        args, kwargs = _split(rest)
        return flatten_module(source, module, args, kwargs)
    if not shapes:
        raise RefusedError(
            "model",
            f"{source}: it returned a module without example inputs, whose shapes nothing tells",
            _RETURN,
        )
    example = {name: torch.rand(tuple(shape)) for name, shape in shapes.items()}
    return flatten_module(source, module, (), example)


def _split(rest: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give positional and keyword arguments from what stands beside the module."""
    if len(rest) == 2:  # noqa: PLR2004 - (args, kwargs)
        return tuple(rest[0]), dict(rest[1])
    (example,) = rest or ((),)
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (tuple, list)):
        return tuple(example), {}
    return (example,), {}


def _describe(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(each).__name__ for each in value)})"
    return type(value).__name__


def _where(error: BaseException, folder: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
