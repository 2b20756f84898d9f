"""A verb carried out on many devices: the executor, the journal, what is shown, what came."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from edgepack.commands.boundary import end_early, error_json
from edgepack.commands.console import note
from edgepack.commands.fleet import Reached
from edgepack.commands.fleet_view import FleetLines, count_devices, show_fleet
from edgepack.commands.options import find_target
from edgepack.errors import (
    EdgePackError,
    ExitCode,
    NotBegunError,
    UncertainError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from edgepack.fleet.inventory import FleetDevice
    from edgepack.fleet.journal import Journal
    from edgepack.fleet.rollout import Outcome, Plan
    from edgepack.workflow.delivery import ReachOptions

T = TypeVar("T")
K = TypeVar("K", bound="Task")

# More threads than this wait for their interpreter's lock more than for the network.
_THREADS_A_PROCESS: Final = 8


class Task(Protocol):
    """What a device is to do."""

    @property
    def address(self) -> str:
        """Of the device."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Rolled(Generic[T]):
    """What came of a rollout.

    Attributes:
        outcomes: of each device, in the order given.
        fault: what ended it early: an interrupt, or a journal that could not be written.
    """

    outcomes: "tuple[Outcome[T], ...]"
    fault: BaseException | None

    @property
    def reached(self) -> tuple[Reached[T], ...]:
        """The outcomes as verbs for single devices know them."""
        return tuple(
            Reached(
                device=each.device,
                result=each.result,
                error=_fault_of(each) if each.result is None else None,
            )
            for each in self.outcomes
        )


def _fault_of(outcome: "Outcome[Any]") -> EdgePackError:
    return outcome.error or NotBegunError(
        "the rollout ended before this device",
        remedy="Run it again; with a journal it goes on by --resume.",
    )


def roll_out(
    tasks: Sequence[K],
    function: Callable[..., T],
    *,
    plan: "Plan",
    given: Mapping[str, Any],
    journal: "Journal | None" = None,
    stored: "Callable[[T], object] | None" = None,
    on_done: Callable[[T], None] | None = None,
    earlier: "Mapping[str, Outcome[T]] | None" = None,
) -> Rolled[T]:
    """Carry out a task for each device, several at a time, showing how it goes.

    Args:
        tasks: one for each device of the plan.
        function: does one; it and the tasks can be pickled.
        plan: how the fleet is gone through.
        given: values of `journal_options`, where the verb has them.
        journal: where each finished device is written down.
        stored: gives what the journal keeps of a result, as JSON; None keeps nothing of it.
        on_done: called with each result at once.
        earlier: what came of devices in an earlier run, which are not begun again.
    """
    from edgepack.fleet.journal import make_entry
    from edgepack.fleet.rollout import Rollout

    known = dict(earlier or {})
    by_address = {each.address: each for each in tasks if each.address not in known}
    devices, plan = plan.devices, replace(plan, devices=tuple(by_address))
    if not by_address:
        return Rolled(outcomes=tuple(known[each] for each in devices), fault=None)

    recorded: set[str] = set()

    def record(outcome: "Outcome[T]") -> None:
        result = outcome.result
        recorded.add(outcome.device)
        if result is not None and on_done is not None:
            on_done(result)
        if journal is not None:
            journal.append(
                make_entry(
                    outcome.device,
                    outcome.state,
                    num_tries=outcome.num_tries,
                    error=outcome.error,
                    result=None if result is None or stored is None else stored(result),
                )
            )

    with ExitStack() as stack:
        view = stack.enter_context(show_fleet(len(by_address)))
        executor, num_jobs = stack.enter_context(_open_executor(plan, given.get("scheduler"), view))
        plan = replace(plan, num_jobs=num_jobs)
        rollout: Rollout[T] = Rollout(
            plan,
            submit=lambda device: executor.submit(function, by_address[device]),
            record=record,
            watcher=view,
        )
        fault: BaseException | None = None
        try:
            rollout.run()
        except BaseException as error:  # noqa: BLE001 - raised again once what came is told
            fault = error
        for outcome in rollout.outcomes:
            # What was broken off is not in the journal yet, and may have been done.
            is_broken_off = isinstance(outcome.error, UncertainError)
            if is_broken_off and outcome.device not in recorded:
                record(outcome)
        came = {each.device: each for each in rollout.outcomes}
        return Rolled(outcomes=tuple((known | came)[each] for each in devices), fault=fault)


@contextmanager
def keep_journal(path: Path | None, *, subject: str, resume: bool) -> "Iterator[Journal | None]":
    """Open the journal of a rollout; give None where there is no path for one.

    Raises:
        JournalError: as `open_journal`.
    """
    from edgepack.fleet.journal import open_journal

    if path is None:
        yield None
        return
    with open_journal(path, subject=subject, resume=resume) as journal:
        yield journal


def read_earlier(
    journal: "Journal", devices: Sequence[str], parse: Callable[[str, object], T]
) -> "dict[str, Outcome[T]]":
    """Give what a journal says of devices that were done.

    Args:
        journal: of the earlier run.
        devices: that are meant now.
        parse: reads what was stored of a device's result.
    """
    from edgepack.fleet.journal import State
    from edgepack.fleet.rollout import Outcome

    entries = (journal.past.entries[each] for each in devices if each in journal.past.done)
    return {
        each.device: Outcome(
            device=each.device,
            state=State.DONE,
            num_tries=each.num_tries,
            result=parse(each.device, each.result),
        )
        for each in entries
    }


@contextmanager
def _open_executor(
    plan: "Plan", scheduler: str | None, view: FleetLines
) -> "Iterator[tuple[Executor, int]]":
    """Give what carries out the tasks, and how many at a time."""
    if scheduler is not None:
        from edgepack.fleet.cluster import open_cluster

        with open_cluster(scheduler) as cluster:
            # What waits in the cluster's own queue could not be kept from beginning.
            yield cluster.executor, min(plan.num_jobs, cluster.num_threads)
        return
    import os

    from edgepack.fleet.crew import Crew

    def on_step(task: object, text: str) -> None:
        view.step(task.address, text)  # type: ignore[attr-defined]  # what was submitted

    num_jobs = min(plan.num_jobs, len(plan.devices))
    num_processes = min(os.cpu_count() or 1, -(-num_jobs // _THREADS_A_PROCESS))
    with Crew(
        num_processes=num_processes, num_threads=-(-num_jobs // num_processes), on_step=on_step
    ) as crew:
        yield crew, num_jobs


def end_rollout(rolled: Rolled[Any], journal: Path | None = None) -> ExitCode:
    """Say how it ended, once its results are shown, and give the verb's exit code.

    Raises:
        BaseException: a bug that ended the rollout early.
    """
    tell_counts(rolled, journal)
    if rolled.fault is not None:
        return end_early(rolled.fault)
    return ExitCode.DONE if all(each.result for each in rolled.outcomes) else ExitCode.FAILURE


def tell_counts(rolled: Rolled[Any], journal: Path | None = None) -> None:
    """Say how many are done, how many failed, and how to go on."""
    from edgepack.fleet.journal import State

    total = len(rolled.outcomes)
    counts = {state: sum(each.state is state for each in rolled.outcomes) for state in State}
    again = sum(each.num_tries > 1 for each in rolled.outcomes if each.state is State.DONE)
    parts = [f"{counts[State.DONE]} of {count_devices(total)} done"]
    if again:
        parts[0] += f" ({again} not at the first try)"
    parts += [f"{counts[State.FAILED]} failed"] if counts[State.FAILED] else []
    parts += [f"{counts[State.NOT_STARTED]} not begun"] if counts[State.NOT_STARTED] else []
    note(", ".join(parts))
    if journal is not None and counts[State.DONE] < total:
        note(f"journal: {journal}; the same command with --resume goes on from it")


def outcome_json(outcome: "Outcome[T]", to_json: Callable[[T], dict[str, object]]) -> object:
    """Give the JSON of a device: its result and how often it was tried, or its error."""
    if outcome.result is not None:
        return {**to_json(outcome.result), "tries": outcome.num_tries}
    error = error_json(_fault_of(outcome))
    return {"device": outcome.device, "error": error, "tries": outcome.num_tries}


def journal_path(
    devices: Sequence[str], given: Mapping[str, Any], *, verb: str, release: str
) -> Path | None:
    """Give where the journal is; None where none is kept.

    Raises:
        UsageError: one is to go on from, and none is named.
    """
    from edgepack.errors import UsageError

    if given["journal"] is not None:
        path: Path = given["journal"]
        return path
    files = [Path(each[1:]) for each in devices if each.startswith("@")]
    if not files:
        if given["resume"]:
            raise UsageError(
                "--resume: expected --journal with it, or a fleet file",
                remedy="Name the journal of the earlier run.",
            )
        return None
    import hashlib

    import platformdirs

    # Two fleet files of one name in different folders are two fleets.
    place = hashlib.sha256("\0".join(str(each.resolve()) for each in files).encode()).hexdigest()
    name = f"{verb}-{files[0].stem}-{place[:8]}-{release}.jsonl"
    return platformdirs.user_data_path("edgepack") / "journals" / name


def root_of(device: "FleetDevice", given: Mapping[str, Any]) -> str | None:
    """Give the deploy root: the command line's, else the fleet file's."""
    root: str | None = given["root"] or device.root
    return root


def site_root(device: "FleetDevice", given: Mapping[str, Any]) -> str:
    """Give the deploy root where nothing but the target's is left to go by, or the default."""
    from edgepack.workflow.site import default_root

    return root_of(device, given) or default_root(find_target(given["target"] or device.target))


def reach_options(given: Mapping[str, Any]) -> "ReachOptions":
    """Make the options that devices are reached with from any process; nobody is asked."""
    from edgepack.cache import cache_directory
    from edgepack.commands.options import android_runtime_from
    from edgepack.device.store.lock import WAIT_SECONDS
    from edgepack.device.wire.connect import ConnectOptions
    from edgepack.workflow.delivery import ReachOptions

    wait = given.get("lock_wait")  # of verbs that only look there is none
    return ReachOptions(
        connect=ConnectOptions(
            ssh_config=given["ssh_config"],
            identity=given["identity"],
            accept_new_host_key=given["accept_new_host_key"],
            host_key=given["host_key"],
            connect_timeout_seconds=given["connect_timeout"],
        ),
        cache_root=cache_directory(),
        lock_wait_seconds=WAIT_SECONDS if wait is None else wait,
        runner=given.get("runner") or "auto",
        android=android_runtime_from(given),
    )
