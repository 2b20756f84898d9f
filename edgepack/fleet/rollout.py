"""A rollout: waves of devices through an executor, each tried again where that is worth it."""

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures import BrokenExecutor as Broken
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from edgepack.device.wire.address import subject
from edgepack.errors import DeviceError, EdgePackError, UncertainError
from edgepack.fleet.journal import State
from edgepack.fleet.retry import NO_RETRIES, RetryPolicy
from edgepack.fleet.waves import Amount, split_waves
from edgepack.interrupts import hold_interrupts

T = TypeVar("T")

_LISTEN_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a fleet is gone through.

    Attributes:
        devices: their addresses, in the order in which they begin.
        num_jobs: devices at a time.
        waves: sizes of the waves before the last.
        max_failures: failures beyond which no further device begins; None goes on.
        retry: what is tried again.
    """

    devices: tuple[str, ...]
    num_jobs: int
    waves: tuple[Amount, ...] = ()
    max_failures: Amount | None = None
    retry: RetryPolicy = NO_RETRIES


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome(Generic[T]):
    """What came of a device.

    Attributes:
        device: its address.
        state: how it went.
        num_tries: how often it was tried.
        result: where it is done.
        error: where it failed.
    """

    device: str
    state: State
    num_tries: int = 0
    result: T | None = None
    error: EdgePackError | None = None


class Watcher(Protocol):
    """Who is told how a rollout goes, always from the thread that runs it."""

    def begin_wave(self, number: int, num_waves: int, num_devices: int) -> None:
        """Hear that a wave begins; the first one's number is 1."""
        ...

    def begin(self, device: str) -> None:
        """Hear that a device begins, for the first time or once more."""
        ...

    def pause(self, device: str, error: EdgePackError, seconds: float) -> None:
        """Hear that a device is to be tried again after a pause."""
        ...

    def finish(self, outcome: Outcome[T]) -> None:
        """Hear what came of a device."""
        ...

    def stop(self, reason: str, num_running: int) -> None:
        """Hear that no further device begins, and why."""
        ...


class Rollout(Generic[T]):
    """A rollout that is under way; `run` carries it out."""

    def __init__(
        self,
        plan: Plan,
        *,
        submit: Callable[[str], Future[T]],
        record: Callable[[Outcome[T]], None],
        watcher: Watcher,
    ) -> None:
        """Make a rollout.

        Args:
            plan: how the fleet is gone through.
            submit: begins a device, and gives what will come of it.
            record: keeps what came of a device, before the watcher hears of it.
            watcher: hears how it goes.
        """
        self._plan = plan
        self._submit = submit
        self._record = record
        self._watcher = watcher
        self._outcomes: dict[str, Outcome[T]] = {}
        self._num_tries: dict[str, int] = {}
        self._waiting: deque[str] = deque()
        self._paused: list[tuple[float, str]] = []
        self._last_error: dict[str, EdgePackError] = {}
        self._running: dict[Future[T], str] = {}
        self._num_failed = 0
        self._fault: BaseException | None = None
        self._is_stopped = False
        self._random = random.Random()  # noqa: S311 - spreads load, guards nothing

    @property
    def outcomes(self) -> tuple[Outcome[T], ...]:
        """What came of each device, in the order of the plan; also after an exception."""
        return tuple(
            self._outcomes.get(each) or self._unfinished(each) for each in self._plan.devices
        )

    def _unfinished(self, device: str) -> Outcome[T]:
        num_tries = self._num_tries.get(device, 0)
        if not num_tries:
            return Outcome(device=device, state=State.NOT_STARTED)
        error: EdgePackError = UncertainError(
            f"{subject(device)} broken off; what came of it is not known",
            remedy="The device is whole; see what is current with `edgepack releases`.",
        )
        if device not in self._running.values():  # it waited for its next try
            error = self._last_error.get(device, error)
        return Outcome(device=device, state=State.FAILED, num_tries=num_tries, error=error)

    def run(self) -> None:
        """Go through the waves until the last device is finished, or too many have failed.

        At a first Ctrl-C no further device begins, and those that are under way are waited for;
        a second one does not wait.

        Raises:
            KeyboardInterrupt: once or twice, as said.
            JournalError: what came could not be kept; no further device began.
        """
        waves = split_waves(len(self._plan.devices), self._plan.waves)
        for number, places in enumerate(waves, 1):
            if len(waves) > 1:
                self._watcher.begin_wave(number, len(waves), len(places))
            self._waiting.extend(self._plan.devices[place] for place in places)
            self._finish_wave()
            if self._is_stopped:
                break
        if self._fault is not None:
            raise self._fault

    def _finish_wave(self) -> None:
        while True:
            # The loop stands inside, as Ctrl-C may come between two of its rounds, too.
            try:
                while self._is_going:
                    with hold_interrupts():
                        self._begin()
                    self._wait()
                    with hold_interrupts():
                        self._collect()
            except KeyboardInterrupt as interrupt:
                if isinstance(self._fault, KeyboardInterrupt):
                    raise
                self._fault = interrupt
                self._stop("interrupted")
            else:
                return

    @property
    def _is_going(self) -> bool:
        return bool(self._waiting or self._paused or self._running)

    def _begin(self) -> None:
        """Begin as many devices as may run, those that waited for another try first."""
        now = time.monotonic()
        while len(self._running) < self._plan.num_jobs:
            if self._paused and self._paused[0][0] <= now:
                _, device = heapq.heappop(self._paused)
            elif self._waiting:
                device = self._waiting.popleft()
            else:
                return
            self._num_tries[device] = self._num_tries.get(device, 0) + 1
            self._watcher.begin(device)
            try:
                future = self._submit(device)
            except Broken as broken:  # no process is left to do it
                future = Future()
                future.set_exception(broken)
            self._running[future] = device

    def _wait(self) -> None:
        # A signal that comes right before a lock is waited for wakes nobody (CPython 3.11): Ctrl-C
        # would be heard when the next device is finished.
        seconds = _LISTEN_SECONDS
        if self._paused and len(self._running) < self._plan.num_jobs:
            seconds = min(seconds, max(0.0, self._paused[0][0] - time.monotonic()))
        if self._running:
            wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        elif self._paused:
            threading.Event().wait(seconds)

    def _collect(self) -> None:
        for future in [each for each in self._running if each.done()]:
            device = self._running.pop(future)
            self._settle(device, future)

    def _settle(self, device: str, future: Future[T]) -> None:
        num_tries = self._num_tries[device]
        try:
            result = future.result()
        except (Broken, CancelledError) as broken:
            error: EdgePackError = DeviceError(
                f"{device}: the process that worked on it has ended: {str(broken) or 'canceled'}",
                remedy="The device is whole; push again. If it happens again, give fewer --jobs.",
            )
        except EdgePackError as refused:
            error = refused
        except Exception as bug:  # noqa: BLE001 - raised again once the others are finished
            self._fault = self._fault or bug
            self._stop(f"a bug came up at {device}")
            return
        else:
            self._keep(Outcome(device=device, state=State.DONE, num_tries=num_tries, result=result))
            return
        pause = self._plan.retry.pause_seconds(error, num_tries=num_tries, draw=self._random.random)
        if pause is not None and not self._is_stopped:
            heapq.heappush(self._paused, (time.monotonic() + pause, device))
            self._last_error[device] = error
            self._watcher.pause(device, error, pause)
            return
        self._fail(device, error)
        self._judge()

    def _fail(self, device: str, error: EdgePackError) -> None:
        self._num_failed += 1
        tries = self._num_tries[device]
        self._keep(Outcome(device=device, state=State.FAILED, num_tries=tries, error=error))

    def _keep(self, outcome: Outcome[T]) -> None:
        self._outcomes[outcome.device] = outcome
        try:
            self._record(outcome)
        except EdgePackError as error:
            self._fault = self._fault or error
            self._stop("the journal cannot be written")
        self._watcher.finish(outcome)

    def _judge(self) -> None:
        limit = self._plan.max_failures
        if limit is not None and self._num_failed > limit.of(len(self._plan.devices)):
            word = "failure" if self._num_failed == 1 else "failures"
            self._stop(f"{self._num_failed} {word}")

    def _stop(self, reason: str) -> None:
        """Let no further device begin; those under way are still waited for."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._waiting.clear()
        self._watcher.stop(reason, len(self._running))
        paused, self._paused = self._paused, []
        for _, device in paused:  # what was tried and is not tried again has failed
            self._fail(device, self._last_error[device])
