"""A benchmark from its beginning to its end, as a function that any process can run."""

import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from edgepack.bundle.archive import Bundle
from edgepack.bundle.golden import Golden
from edgepack.bundle.kept import keep_bundle
from edgepack.device.preflight.diagnosis import Cargo
from edgepack.device.store.staging import TransferCallback
from edgepack.errors import ModelError
from edgepack.measure import plan as planning
from edgepack.measure.bench import TimedModel
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import Measurement
from edgepack.profile import BenchmarkDefaults
from edgepack.workflow.benching import (
    answer_feeds,
    bench_in_turns,
    bench_placed,
    place_model,
    place_release,
)
from edgepack.workflow.delivery import ReachOptions, ignore_step
from edgepack.workflow.outfitting import open_reached
from edgepack.workflow.preflight import weigh_cargo
from edgepack.workflow.request import StepCallback
from edgepack.workflow.rig import Rig
from edgepack.workflow.subject import Subject, open_subject


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanWishes:
    """What the user says of a plan; None leaves it to the target's defaults.

    Attributes:
        launches: fresh launches to time.
        runs: timed runs a launch.
        threads: to infer with.
        cpu_affinity: cores to hold the process to.
        precision: share to which the median shall be known.
        cooldown: most seconds to let the device cool down before a launch.
        sustained: seconds of one launch that goes on.
        max_seconds: limit for measuring on one device.
    """

    launches: int | None = None
    runs: int | None = None
    threads: int | None = None
    cpu_affinity: str | None = None
    precision: float | None = None
    cooldown: float | None = None
    sustained: float | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenSubject:
    """A subject that a process opened once, for all devices it is timed on.

    Attributes:
        subject: what is to be timed; a bundle's files stay in memory.
        cargo: what it asks of a device.
        golden: this machine's answers to generated inputs; None for a bundle, which has its own.
    """

    subject: Subject
    cargo: Cargo
    golden: Golden | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTask:
    """A benchmark on one device.

    Attributes:
        subject: file of what is timed, and its hex sha256.
        against: likewise what is timed in turns with it; None for nothing.
        address: of the device.
        root: its deploy root; None for the target's.
        reach: how it is reached.
        wishes: how long to measure.
    """

    subject: tuple[Path, str]
    against: tuple[Path, str] | None
    address: str
    root: str | None
    reach: ReachOptions
    wishes: PlanWishes


_taken_lock: Final = threading.Lock()


def take_subject(path: Path, sha256: str) -> TakenSubject:
    """Give a subject that is opened, and its answers found, once in this process.

    Raises:
        EdgePackError: as `open_subject` and `answer_feeds`.
        ModelError: it is another one than is meant.
    """
    with _taken_lock:  # whose threads ask together, and one is to read
        return _take(path, sha256)


@lru_cache(maxsize=2)  # of two that take turns; those of earlier tasks need no memory
def _take(path: Path, sha256: str) -> TakenSubject:
    subject = open_subject(path)
    if subject.sha256 != sha256:
        raise ModelError(
            f"{path}: expected the file with sha256 {sha256[:12]}, but it is {subject.sha256[:12]}",
            remedy="Do not replace a file while it is in use; run the command again.",
        )
    content, golden = subject.content, None
    if isinstance(content, Bundle):
        content = keep_bundle(content)
    else:
        golden = answer_feeds(content)
    return TakenSubject(
        subject=Subject(name=subject.name, content=content),
        cargo=weigh_cargo(content),
        golden=golden,
    )


def make_plan(
    wishes: PlanWishes, *, defaults: BenchmarkDefaults, num_threads: int
) -> BenchmarkPlan:
    """Make the plan from the profile's defaults and what the user says beside them."""
    num_threads, affinity = wishes.threads or num_threads, wishes.cpu_affinity
    if wishes.sustained is not None:
        plan = planning.sustained_plan(wishes.sustained, num_threads=num_threads)
        return replace(plan, cpu_affinity=affinity)
    plan = replace(planning.plan_from(defaults, num_threads=num_threads), cpu_affinity=affinity)
    if wishes.launches:
        plan = replace(plan, num_launches=wishes.launches)
    if wishes.runs:  # that many and no more: no least time beside them
        plan = replace(plan, min_runs=wishes.runs, min_seconds=0.0)
    if wishes.precision is not None:
        plan = replace(plan, precision=wishes.precision)
    if wishes.cooldown is not None:
        plan = replace(plan, cooldown_seconds=wishes.cooldown)
    if wishes.max_seconds:
        plan = replace(plan, max_seconds=wishes.max_seconds)
    return plan


def bench_task(task: BenchTask, *, on_step: StepCallback = ignore_step) -> tuple[Measurement, ...]:
    """Carry a benchmark out; give its measurement, or both where two take turns.

    Args:
        task: all there is to know of it.
        on_step: called with what is being done.

    Raises:
        EdgePackError: as `open_rig` and `bench_subjects`.
    """
    first = take_subject(*task.subject)
    subjects = [(first.subject, first.golden)]
    if task.against is not None:
        other = take_subject(*task.against)
        subjects.append((other.subject, other.golden))
    content = first.subject.content
    with open_reached(
        task.address,
        task.reach,
        purpose="bench",
        root=task.root,
        bundle=content if isinstance(content, Bundle) else None,
        cargo=first.cargo,
        on_step=on_step,
    ) as rig:
        return bench_subjects(rig, subjects, wishes=task.wishes, on_step=on_step)


def bench_subjects(
    rig: Rig,
    subjects: list[tuple[Subject, Golden | None]],
    *,
    wishes: PlanWishes,
    on_step: StepCallback,
    on_transfer: TransferCallback | None = None,
) -> tuple[Measurement, ...]:
    """Time a subject, or two in launches that take turns, on a device that was made ready.

    Args:
        rig: the device.
        subjects: one or two, each with the answers it must give where they are known already.
        wishes: how long to measure; the first one's target says the rest.
        on_step: called with what is being done.
        on_transfer: called as bytes go out.

    Raises:
        EdgePackError: as the functions of `benching`.
    """
    profile = subjects[0][0].profile
    plan = make_plan(
        wishes,
        defaults=profile.benchmark if profile else BenchmarkDefaults(),
        num_threads=rig.num_threads(profile),
    )
    placed = [
        _place(rig, subject, golden, on_step=on_step, on_transfer=on_transfer)
        for subject, golden in subjects
    ]
    if len(placed) == 1:
        return (bench_placed(rig, placed[0], plan=plan, on_step=on_step),)
    first, second = placed
    return bench_in_turns(rig, (first, second), plan=plan, on_step=on_step)


def _place(
    rig: Rig,
    subject: Subject,
    golden: Golden | None,
    *,
    on_step: StepCallback,
    on_transfer: TransferCallback | None,
) -> TimedModel:
    if isinstance(subject.content, Bundle):
        return place_release(rig, subject.content, on_step=on_step, on_transfer=on_transfer)
    return place_model(
        rig,
        subject.content,
        name=subject.name,
        golden=golden,
        on_step=on_step,
        on_transfer=on_transfer,
    )
