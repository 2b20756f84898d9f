"""A rollout: waves, tries, failures and interrupts, through a real executor."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import (
    AuthError,
    ConnectError,
    DroppedError,
    EdgePackError,
    JournalError,
    UncertainError,
)
from edgepack.fleet.journal import State
from edgepack.fleet.retry import NO_RETRIES, RetryPolicy
from edgepack.fleet.rollout import Outcome, Plan, Rollout
from edgepack.fleet.waves import CANARY, Amount

_QUICK = RetryPolicy(num_dropped=2, num_lost=1, base_seconds=0.001)


class Told:
    """Keeps what a rollout tells, in its order."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def begin_wave(self, number: int, num_waves: int, num_devices: int) -> None:
        self.words.append(f"wave {number}/{num_waves} of {num_devices}")

    def begin(self, device: str) -> None:
        self.words.append(f"begin {device}")

    def pause(self, device: str, error: EdgePackError, seconds: float) -> None:
        assert seconds >= 0
        self.words.append(f"pause {device} {error.kind}")

    def finish(self, outcome: Outcome[Any]) -> None:
        self.words.append(f"{outcome.state.value} {outcome.device}")

    def stop(self, reason: str, num_running: int) -> None:
        self.words.append(f"stop: {reason}, {num_running} running")


def _plan(num_devices: int, **changes: Any) -> Plan:  # noqa: ANN401 - any field
    whole: dict[str, Any] = {
        "devices": tuple(f"d{number}" for number in range(num_devices)),
        "num_jobs": 1,
        "retry": _QUICK,
    }
    return Plan(**(whole | changes))


def _roll(
    plan: Plan,
    work: Callable[[str], object],
    record: Callable[[Outcome[object]], None] = lambda _: None,
) -> tuple[Rollout[object], Told]:
    told = Told()
    with ThreadPoolExecutor(plan.num_jobs) as pool:
        rollout: Rollout[object] = Rollout(
            plan, submit=lambda device: pool.submit(work, device), record=record, watcher=told
        )
        rollout.run()
    return rollout, told


def _states(rollout: Rollout[object]) -> str:
    """One letter a device: d, f or n."""
    return "".join(each.state.value[0] for each in rollout.outcomes)


class Failing:
    """Fails for some devices, as often as said."""

    def __init__(self, **errors: list[EdgePackError]) -> None:
        self._errors = errors

    def __call__(self, device: str) -> str:
        left = self._errors.get(device)
        if left:
            raise left.pop(0)
        return f"{device} is done"


_BUSY = DroppedError("busy", remedy="")
_LOST = ConnectError("lost", remedy="")
_DENIED = AuthError("denied", remedy="")


def test_each_device_has_its_result_or_its_error() -> None:
    recorded: list[str] = []
    rollout, told = _roll(
        _plan(3),
        Failing(d1=[_DENIED]),
        record=lambda outcome: recorded.append(f"{outcome.device} {outcome.state.value}"),
    )
    assert rollout.outcomes == (
        Outcome(device="d0", state=State.DONE, num_tries=1, result="d0 is done"),
        Outcome(device="d1", state=State.FAILED, num_tries=1, error=_DENIED),
        Outcome(device="d2", state=State.DONE, num_tries=1, result="d2 is done"),
    )
    assert recorded == ["d0 done", "d1 failed", "d2 done"]
    assert told.words == [
        *("begin d0", "done d0", "begin d1", "failed d1", "begin d2", "done d2"),
    ]


def test_what_may_be_otherwise_later_is_tried_again_and_keeps_no_one_waiting() -> None:
    work = Failing(d0=[_BUSY, _BUSY], d1=[_LOST, _LOST], d2=[_DENIED])
    rollout, told = _roll(_plan(4), work)
    assert _states(rollout) == "dffd"
    assert [each.num_tries for each in rollout.outcomes] == [3, 2, 1, 1]
    assert told.words.count("pause d0 dropped") == 2
    assert told.words.count("pause d1 connect") == 1


def test_waves_go_one_after_the_other_and_stop_at_a_failure() -> None:
    plan = _plan(20, waves=CANARY, max_failures=Amount(value=0))
    rollout, told = _roll(plan, Failing(d2=[_DENIED]))
    assert _states(rollout) == "ddf" + 17 * "n"
    assert told.words == [
        *("wave 1/3 of 1", "begin d0", "done d0"),
        *("wave 2/3 of 2", "begin d1", "done d1", "begin d2", "failed d2"),
        "stop: 1 failure, 0 running",
    ]


def test_a_share_of_failures_is_borne() -> None:
    for share, others in ((15, "d"), (10, "n")):
        errors: dict[str, list[EdgePackError]] = {f"d{each}": [_DENIED] for each in (0, 1, 2)}
        work = Failing(**errors)
        limit = Amount(value=share, is_share=True)
        rollout, _ = _roll(_plan(20, max_failures=limit), work)
        assert _states(rollout) == "fff" + 17 * others


def test_what_waits_for_another_try_has_failed_when_the_rollout_stops() -> None:
    plan = _plan(
        3, max_failures=Amount(value=0), retry=RetryPolicy(num_dropped=1, base_seconds=3600)
    )
    rollout, _ = _roll(plan, Failing(d0=[_BUSY], d1=[_DENIED]))
    assert _states(rollout) == "ffn"
    assert rollout.outcomes[0].error is _BUSY


def test_no_more_run_at_a_time_than_asked_for() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3, timeout=30)

    def work(_device: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()  # so that there are three at least
        with lock:
            running -= 1

    _roll(_plan(12, num_jobs=3), work)
    assert most == 3


def test_a_process_that_died_fails_its_device_alone() -> None:
    def submit(device: str) -> Future[str]:
        future: Future[str] = Future()
        if device == "d0":
            future.set_exception(BrokenExecutor("signal 9"))
        elif device == "d1":
            future.set_result("done")
        else:
            raise BrokenExecutor("all processes have ended")
        return future

    rollout: Rollout[str] = Rollout(_plan(3), submit=submit, record=lambda _: None, watcher=Told())
    rollout.run()
    failed, done, last = rollout.outcomes
    assert done.result == "done"
    for outcome, cause in ((failed, "signal 9"), (last, "all processes have ended")):
        assert outcome.error is not None
        assert outcome.error.message == (
            f"{outcome.device}: the process that worked on it has ended: {cause}"
        )


@pytest.mark.parametrize("is_bug", [True, False])
def test_a_bug_or_a_full_disk_lets_those_under_way_finish(is_bug: bool) -> None:  # noqa: FBT001 - of the parametrization
    stopped = threading.Event()

    class Listening(Told):
        def stop(self, reason: str, num_running: int) -> None:
            super().stop(reason, num_running)
            stopped.set()

    def work(device: str) -> str:
        if device != "d0":
            assert stopped.wait(30)
        elif is_bug:
            raise ZeroDivisionError
        return device

    def record(outcome: Outcome[object]) -> None:
        if not is_bug and not recorded:
            recorded.append(outcome.device)
            raise JournalError("no room", remedy="")
        recorded.append(outcome.device)

    recorded: list[str] = []
    told = Listening()
    with ThreadPoolExecutor(2) as pool:
        rollout: Rollout[object] = Rollout(
            _plan(6, num_jobs=2),
            submit=lambda device: pool.submit(work, device),
            record=record,
            watcher=told,
        )
        with pytest.raises(ZeroDivisionError if is_bug else JournalError):
            rollout.run()
    assert sum(word.startswith("begin") for word in told.words) == 2
    assert _states(rollout).count("d") == (1 if is_bug else 2)
    assert len(recorded) == (1 if is_bug else 2)


def test_ctrl_c_waits_for_those_under_way_and_a_second_one_does_not() -> None:
    finish = threading.Event()
    recorded: list[str] = []

    class Listening(Told):
        def stop(self, reason: str, num_running: int) -> None:
            super().stop(reason, num_running)
            finish.set()

    def work(device: str) -> str:
        if device == "d1":
            os.kill(os.getpid(), signal.SIGINT)  # to the process, as a terminal does
            assert finish.wait(30)
        return device

    told = Listening()
    with ThreadPoolExecutor(1) as pool:
        rollout: Rollout[object] = Rollout(
            _plan(4),
            submit=lambda device: pool.submit(work, device),
            record=lambda outcome: recorded.append(outcome.device),
            watcher=told,
        )
        with pytest.raises(KeyboardInterrupt):
            rollout.run()
    assert _states(rollout) == "ddnn"
    assert recorded == ["d0", "d1"]
    assert told.words[-2:] == ["stop: interrupted, 1 running", "done d1"]


def test_a_second_ctrl_c_breaks_off() -> None:
    never = threading.Event()

    class Twice(Told):
        def stop(self, reason: str, num_running: int) -> None:
            super().stop(reason, num_running)
            signal.raise_signal(signal.SIGINT)

    def work(_device: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        never.wait(30)

    told = Twice()
    with ThreadPoolExecutor(1) as pool:
        rollout: Rollout[object] = Rollout(
            _plan(3),
            submit=lambda device: pool.submit(work, device),
            record=lambda _: None,
            watcher=told,
        )
        with pytest.raises(KeyboardInterrupt):
            rollout.run()
        never.set()
    # What was under way is no device that nothing was done to.
    assert _states(rollout) == "fnn"
    first = rollout.outcomes[0]
    assert first.num_tries == 1
    assert isinstance(first.error, UncertainError)
    assert first.error.message == "d0: broken off; what came of it is not known"
    assert told.words == ["begin d0", "stop: interrupted, 1 running"]


_ERRORS = st.sampled_from([_BUSY, _LOST, _DENIED])


@given(
    st.dictionaries(st.integers(0, 9), st.lists(_ERRORS, min_size=1, max_size=4)),
    st.integers(1, 4),
    st.sampled_from([(), CANARY, (Amount(value=2),)]),
    st.none() | st.integers(0, 3),
)
def test_each_device_ends_in_one_state_and_is_recorded_once(
    errors: dict[int, list[EdgePackError]],
    num_jobs: int,
    waves: tuple[Amount, ...],
    limit: int | None,
) -> None:
    recorded: list[str] = []
    rollout, _ = _roll(
        _plan(
            10,
            num_jobs=num_jobs,
            waves=waves,
            max_failures=None if limit is None else Amount(value=limit),
            retry=RetryPolicy(num_dropped=1, num_lost=1, base_seconds=0.0),
        ),
        Failing(**{f"d{number}": list(each) for number, each in errors.items()}),
        record=lambda outcome: recorded.append(outcome.device),
    )
    states = _states(rollout)
    assert len(states) == 10
    assert sorted(recorded) == [f"d{number}" for number in range(10) if states[number] != "n"]
    if limit is None or states.count("f") <= limit:
        assert "n" not in states
    for number, outcome in enumerate(rollout.outcomes):
        if outcome.state is State.DONE:
            assert outcome.num_tries <= 2
        if number not in errors:
            assert outcome.state is not State.FAILED


def test_nothing_is_tried_again_without_a_policy() -> None:
    rollout, _ = _roll(_plan(1, retry=NO_RETRIES), Failing(d0=[_BUSY]))
    assert _states(rollout) == "f"
