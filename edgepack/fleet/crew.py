"""A crew: a few processes of many threads each, as an executor.

paramiko's threads share one interpreter's lock, so that a second core would stay idle; a process
for each device would take 40 MB each. Ctrl-C reaches this process alone, and what the crew is at
goes on until the crew is left.
"""

import itertools
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from edgepack.interrupts import hold_interrupts, start_thread

P = ParamSpec("P")
T = TypeVar("T")

StepCallback = Callable[[object, str], None]
"""Called, from any thread, with the first argument of a call and what it is doing now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    future: Future[Any]
    subject: object


class _Member:
    """One process of a crew and what it was given to do."""

    def __init__(self, num_threads: int, on_step: StepCallback) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: a file of the user's folder must not shadow a library.
                [
                    *(sys.executable, "-P", "-m", "edgepack.fleet.crew_worker"),
                    *(str(theirs.fileno()), str(num_threads)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._wire = Connection(ours.detach())
        self._on_step = on_step
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_gone = False
        self._reader = start_thread(self._read)

    @property
    def num_calls(self) -> int:
        """Calls it has not answered."""
        return len(self._calls)

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return self._is_gone

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def give(self, call: _Call, work: tuple[object, ...]) -> None:
        """Send it a call."""
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = call
            try:
                self._wire.send_bytes(pickle.dumps((number, *work)))
            except OSError:  # its end is told by the thread that reads
                if self._is_gone:
                    self._break(self._calls.pop(number))

    def _read(self) -> None:
        while True:
            try:
                # From a process of our own: what it sends is as trusted as this code.
                number, kind, value = pickle.loads(self._wire.recv_bytes())  # noqa: S301
            except (EOFError, OSError):
                break
            if kind == "step":
                self._on_step(self._calls[number].subject, value)
                continue
            future = self._calls.pop(number).future
            if kind == "result":
                future.set_result(value)
            else:
                future.set_exception(value)
        self._process.wait()
        with self._lock:
            self._is_gone = True
            calls, self._calls = self._calls, {}
        for call in calls.values():
            self._break(call)

    def _break(self, call: _Call) -> None:
        code = self._process.returncode
        cause = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        call.future.set_exception(BrokenExecutor(cause))

    def end(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._reader.join()
        self._wire.close()


class Crew(Executor):
    """Runs picklable functions in threads of a few processes; use it inside `with`.

    A function is called with `on_step` besides its arguments, to say what it is doing. Leaving the
    context breaks off what is still running.
    """

    def __init__(self, *, num_processes: int, num_threads: int, on_step: StepCallback) -> None:
        """Start the processes.

        Args:
            num_processes: at least 1.
            num_threads: of each, and so the calls it is at together.
            on_step: called with what is being done.
        """
        self._members: list[_Member] = []
        try:
            for _ in range(num_processes):
                with hold_interrupts():
                    self._members.append(_Member(num_threads, on_step))
        except BaseException:
            self.shutdown()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes."""
        return tuple(each.pid for each in self._members)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Give a call to the process that has the fewest.

        Raises:
            BrokenExecutor: all processes have ended.
        """
        present = [each for each in self._members if not each.is_gone]
        if not present:
            raise BrokenExecutor("all processes have ended")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        member = min(present, key=lambda each: each.num_calls)
        member.give(_Call(future=future, subject=args[0] if args else None), (fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - the signature of Executor
        """End all processes, whatever they are at."""
        for each in self._members:
            each.end()
        self._members.clear()
