"""Folders for work that nobody keeps: removed at the end, whatever ends it."""

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ENDING: Final = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def open_scratch(purpose: str) -> Iterator[Path]:
    """Give an empty folder for temporary files, removed with what it holds at the end.

    Ctrl-C waits while the folder is made. Between its making and the moment that something is
    bound to remove it, an exception would leave it; and Python's `tempfile`, on its first use,
    tries the temporary folder with a file that it would leave likewise (CPython 3.11).

    Args:
        purpose: a word in the folder's name, for who finds it after a kill -KILL.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        with tempfile.TemporaryDirectory(prefix=f"edgepack-{purpose}-") as name:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            yield Path(name)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
