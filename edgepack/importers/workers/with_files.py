"""Run the Python files that the user gives beside a model, and offer what they define.

Runs inside a toolchain on its own interpreter: only the standard library is imported here.
"""

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType, ModuleType

from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)


def load_files(paths: Sequence[str]) -> tuple[ModuleType, ...]:
    """Run each file as a module of its own name, in order; its folder can be imported from.

    Raises:
        RefusedError: a file raised something; it is told where, without a traceback.
    """
    return tuple(_load_file(Path(path)) for path in paths)


def defined_objects(modules: Sequence[ModuleType]) -> dict[str, object]:
    """Give the classes and functions that the modules themselves define, by name."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, (type, FunctionType)) and value.__module__ == module.__name__
    }


def _load_file(path: Path) -> ModuleType:
    # Models name the module their classes came from, so the file stands under its own name;
    # unless that would shadow a module which others need.
    folder = str(path.parent)
    name = path.stem if path.stem.isidentifier() and not _is_taken(path.stem) else ""
    name = name or f"with_file_{path.stem}"
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RefusedError(
            "model",
            f"--with {path}: expected a Python file, whose name ends in .py",
            "Give the file that defines the model's own layers.",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code raises what it likes
        raise RefusedError(
            "model",
            f"--with {path.name}: {_place(error, path)}: {type(error).__name__}: "
            f"{first_line(error)}",
            "Correct the file; what it imports must be installed in the Python it runs in, which "
            "--toolchain-python PATH chooses.",
        ) from error
    return module


def _is_taken(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _place(error: BaseException, path: Path) -> str:
    """Give `file:line` of the user's own code where an error arose."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == path.parent]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else path.name
