"""Folders for work that nobody keeps: removed at the end, whatever ends it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgepack.interrupts import enter_held


@contextlib.contextmanager
def open_scratch(purpose: str) -> Iterator[Path]:
    """Give an empty folder for temporary files, removed with what it holds at the end.

    Ctrl-C waits while it is made: Python's `tempfile`, on its first use, tries the temporary
    folder with a file that an exception would leave (CPython 3.11).

    Args:
        purpose: a word in the folder's name, for who finds it after a kill -KILL.
    """
    prefix = f"edgepack-{purpose}-"
    with enter_held(lambda: tempfile.TemporaryDirectory(prefix=prefix)) as name:
        yield Path(name)


@contextlib.contextmanager
def open_scratch_file() -> Iterator[BinaryIO]:
    """Give an empty file without a name, gone at the end."""
    with enter_held(tempfile.TemporaryFile) as file:
        yield file
