"""Ctrl-C and its like, and the moments in which they must wait."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

_Entered = TypeVar("_Entered")

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


@contextlib.contextmanager
def enter_held(
    make: Callable[[], contextlib.AbstractContextManager[_Entered]],
) -> Iterator[_Entered]:
    """Make and enter a context while Ctrl-C waits; when it came, the context is left again."""
    with contextlib.ExitStack() as stack:
        with hold_interrupts():
            entered = stack.enter_context(make())
        yield entered


def start_thread(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread that does not outlive the program; Ctrl-C finds it started or not made.

    Interrupted in `Thread.start`, a thread is neither: to join it then is an error (CPython 3.11).
    """
    with hold_interrupts():
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread
