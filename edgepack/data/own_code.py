"""The user's own Python, named `module:function` or `file.py:function`.

It runs in this process, with the current directory first on the import path, just as
`python -m module` would have it; it is never taken from a model, bundle or device. What it
prints goes to standard error, as standard output is for results.
"""

import contextlib
import functools
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from edgepack.errors import DataError

_NAME: Final = re.compile(r"(?:[^:]+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def names_function(source: str) -> bool:
    """Tell whether a text is of the form `module:function` or `file.py:function`."""
    return _NAME.fullmatch(source) is not None


@contextlib.contextmanager
def own_code(source: str, *, remedy: str, folder: Path | None = None) -> Iterator[None]:
    """Let the user's code run inside, and explain what it raises.

    Args:
        source: how the user named it.
        remedy: what to do when it raises.
        folder: first on the import path; None is the current directory.

    Raises:
        DataError: whatever it raises, with the line.
    """
    place = str(folder or Path.cwd())
    sys.path.insert(0, place)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except DataError:
        raise
    # The user's own code may raise anything, and libraries call sys.exit.
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{source}: calling it failed: {type(error).__name__}: {error}{_where(error)}",
            remedy=remedy,
        ) from error
    finally:
        sys.path.remove(place)


def find_function(source: str, folder: Path) -> Callable[..., Any]:
    """Import the user's module or file and give the function; call it inside `own_code`.

    A file is run once, as a module is.

    Raises:
        AttributeError, ImportError, OSError: there is no such thing; and what its code raises.
    """
    place, _, name = source.rpartition(":")
    is_file = place.endswith(".py")
    module = _load_file(folder / place) if is_file else importlib.import_module(place)
    function = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{name!r} is no function")
    found: Callable[..., Any] = function
    return found


def _load_file(path: Path) -> Any:  # noqa: ANN401 - a module of the user's
    return _load_once(path.resolve(), path.stat().st_mtime_ns)


@functools.lru_cache
def _load_once(path: Path, _changed_ns: int) -> Any:  # noqa: ANN401 - as above
    name = f"edgepack_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Where classes of the file look for their module (dataclasses, pickle).
    sys.modules[name] = module
    # As `python file.py` has it: what lies beside the file can be imported.
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = (__file__, str(Path(__file__).parents[1]))
    inside = [frame for frame in frames if not frame.filename.startswith(("<", *ours))]
    return f" ({inside[-1].filename}, line {inside[-1].lineno})" if inside else ""
