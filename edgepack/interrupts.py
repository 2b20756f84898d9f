"""Ctrl-C and its like, and the moments in which they must wait."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Final

_ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait while something is made, until something is bound to undo it.

    Blocking the signals would not do: the kernel gives them to another thread then, such as one of
    numpy's, and Python raises in this one all the same.
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
