"""A process of a crew: `python -m edgepack.fleet.crew_worker SOCKET NUM_THREADS`.

Reads calls from the socket, runs them in threads, and answers with steps and results. It ends with
the process that started it, or when that one is done with it.
"""

import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from edgepack.errors import EdgePackError


def main() -> None:
    """Serve until the other side hangs up."""
    wire = Connection(int(sys.argv[1]))
    lock = threading.Lock()

    def answer(number: int, kind: str, value: object) -> None:
        data = pickle.dumps((number, kind, value))
        with lock:
            wire.send_bytes(data)

    def work(number: int, call: Callable[..., Any], given: tuple[Any, ...], named: Any) -> None:  # noqa: ANN401 - anybody's arguments
        try:
            result = call(*given, on_step=lambda text: answer(number, "step", text), **named)
            answer(number, "result", result)
        except EdgePackError as error:
            answer(number, "error", error)
        except Exception as bug:  # noqa: BLE001 - goes to who called, as a future's exception does
            answer(number, "error", _portable(bug))

    with ThreadPoolExecutor(int(sys.argv[2])) as threads:
        while True:
            try:
                # From the process that started this one.
                number, call, given, named = pickle.loads(wire.recv_bytes())  # noqa: S301
            except (EOFError, OSError):
                os._exit(0)  # what runs is broken off: nobody is left to hear of it
            threads.submit(work, number, call, given, named)


def _portable(bug: Exception) -> Exception:
    """Give a bug as something that can be sent, with its traceback as a note."""
    import traceback  # noqa: PLC0415 - a bug is rare

    return RuntimeError("".join(traceback.format_exception(bug)))


if __name__ == "__main__":
    main()
