"""Folders for work that nobody keeps: removed at the end, whatever ends it."""

import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

_ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def open_scratch(purpose: str) -> Iterator[Path]:
    """Give an empty folder for temporary files, removed with what it holds at the end.

    Args:
        purpose: a word in the folder's name, for who finds it after a kill -KILL.
    """
    with contextlib.ExitStack() as stack:
        with _signals_held():
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"edgepack-{purpose}-"))
        yield Path(name)


@contextlib.contextmanager
def open_scratch_file() -> Iterator[BinaryIO]:
    """Give an empty file without a name, gone at the end."""
    with contextlib.ExitStack() as stack:
        with _signals_held():
            file = stack.enter_context(tempfile.TemporaryFile())
        yield file


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C wait while something temporary is made.

    Between its making and the moment that something is bound to remove it, an exception would
    leave it; and Python's `tempfile`, on its first use, tries the temporary folder with a file
    that it would leave likewise (CPython 3.11). Blocking the signals would not do: the kernel gives
    them to another thread then, such as one of numpy's, and Python raises in this one all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python raises in the main thread alone
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    try:
        for number, handler in handlers.items():
            if handler is not None:  # None: not Python's, and so raises nothing
                signal.signal(number, lambda each, _: came.append(each))
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        for each in came:
            signal.raise_signal(each)
