"""How many launches and runs a benchmark takes, and how they fit into its time."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.errors import MeasureError
from edgepack.measure import cooling
from edgepack.measure.stats import MINIMUM_LAUNCHES
from edgepack.profile import BenchmarkDefaults

AFFINITY: Final = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?){0,63}")
"""What `cpu_affinity` may be."""

MAXIMUM_SECONDS: Final = 86400.0
"""What `max_seconds` may be."""

_MINIMUM_RUNS: Final = 10  # in a launch, before launches are given up for more runs
_STRETCH_RUNS: Final = 3  # as both runners have it
_MAXIMUM_SAMPLES: Final = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkPlan:
    """How long to measure. A launch is a fresh process; runs are inferences within one.

    Attributes:
        num_launches: launches.
        warmup_runs: untimed runs at least, in each launch.
        warmup_seconds: untimed seconds at least, in each launch; it goes on until it is steady.
        min_runs: timed runs at least, in each launch.
        min_seconds: timed seconds at least, in each launch.
        max_seconds: all inferences of the benchmark together; beats the minimums.
        num_threads: threads inference runs with; 0 is as many as the device has cores, or as it is
            held to.
        max_samples: kept of a launch; a quicker model has only every n-th run timed.
        precision: how far the median's 95% interval may reach to either side, as a share: launches
            are added while there is time; None adds none.
        cpu_affinity: cores that the process is held to, as `taskset -c` reads them; None leaves it
            to the system.
        is_sustained: whether one launch goes on for `min_seconds`, to see what heat does.
        cooldown_seconds: how long is waited at most, before a launch, until the device is back near
            its first temperature; in any case where it tells none; None waits for nothing.
    """

    num_launches: int = 10
    warmup_runs: int = 5
    warmup_seconds: float = 0.5
    min_runs: int = 64
    min_seconds: float = 1.0
    max_seconds: float = 60.0
    num_threads: int = 1
    max_samples: int = 20_000
    precision: float | None = None
    is_sustained: bool = False
    cpu_affinity: str | None = None
    cooldown_seconds: float | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the warm-up goes on, within its third of a launch, until the times are steady.

        Not from cold, and not where fewer runs than make a stretch of it are left.
        """
        return not self.is_sustained and self.warmup_runs >= _STRETCH_RUNS

    @property
    def num_held_cores(self) -> int | None:
        """How many cores `cpu_affinity` names; None where the process is not held."""
        if self.cpu_affinity is None:
            return None
        ranges = (part.partition("-") for part in self.cpu_affinity.split(","))
        return len({at for a, _, z in ranges for at in range(int(a), int(z or a) + 1)})

    @property
    def launch_seconds(self) -> float:
        """What one launch may take for all its inferences."""
        return self.max_seconds / self.num_launches


def plan_from(defaults: BenchmarkDefaults, *, num_threads: int = 1) -> BenchmarkPlan:
    """Give the plan of a target profile's `[benchmark]`."""
    return BenchmarkPlan(
        num_launches=defaults.num_launches,
        min_runs=defaults.min_runs,
        min_seconds=defaults.min_seconds,
        max_seconds=defaults.max_seconds,
        num_threads=num_threads,
    )


def sustained_plan(seconds: float, *, num_threads: int) -> BenchmarkPlan:
    """Give the plan of one launch that goes on and on, from cold.

    A second of warm-up tells how many runs are to lie between two samples; it heats nothing.
    """
    return BenchmarkPlan(
        num_launches=1,
        warmup_runs=1,
        warmup_seconds=1.0,
        min_runs=1,
        min_seconds=seconds,
        max_seconds=min(MAXIMUM_SECONDS, 1.1 * seconds + 30),
        num_threads=num_threads,
        is_sustained=True,
    )


def check_plan(plan: BenchmarkPlan) -> None:
    """Refuse a plan that cannot be carried out.

    Raises:
        MeasureError: a count or a time out of its range; all faults are listed.
    """
    fields = Fields(to_json(plan))
    read_plan(fields)
    if fields.faults:
        raise MeasureError(
            join_faults("benchmark plan", fields.faults),
            remedy="Change the launches, runs or seconds that were asked for.",
        )


def fit_plan(plan: BenchmarkPlan, *, run_ns: int, spent_ns: int = 0) -> BenchmarkPlan:
    """Fit a plan into its time for a model whose run takes `run_ns`.

    Runs are given up first, down to 10 a launch, then warm-up, then launches down to the 6
    an interval needs, then runs down to 1, and only then the interval itself.

    Args:
        plan: what was asked for.
        run_ns: time of one run.
        spent_ns: what the golden check's runs took of the time.
    """
    budget = max(plan.max_seconds - spent_ns / 1e9, plan.max_seconds / 4)
    run = max(run_ns, 1) / 1e9
    for warmup_runs in (plan.warmup_runs, min(1, plan.warmup_runs)):
        warmup = max(plan.warmup_seconds, warmup_runs * run)
        for launches in (plan.num_launches, min(MINIMUM_LAUNCHES, plan.num_launches)):
            # One more run is the first inference.
            room = budget / launches - run - min(warmup, budget / launches / 3)
            if room >= min(_MINIMUM_RUNS, plan.min_runs) * run and warmup <= budget / launches / 3:
                return _with(plan, launches, budget, warmup_runs, int(room / run))
    # Hardly any runs fit: no warm-up beyond the first inference, and one run at least.
    wanted = min(MINIMUM_LAUNCHES, plan.num_launches)
    launches = max(1, min(wanted, int(budget / (2 * run))))
    room = budget / launches - run
    return _with(plan, launches, budget, 0, max(1, int(room / run)))


def _with(
    plan: BenchmarkPlan, num_launches: int, budget: float, warmup_runs: int, runs: int
) -> BenchmarkPlan:
    return replace(
        plan,
        num_launches=num_launches,
        max_seconds=budget,
        warmup_runs=warmup_runs,
        warmup_seconds=plan.warmup_seconds if warmup_runs or not plan.warmup_runs else 0.0,
        min_runs=min(plan.min_runs, runs),
        max_samples=max(plan.max_samples, min(plan.min_runs, runs)),
    )


def _read_affinity(fields: Fields) -> str | None:
    if fields.raw("cpu_affinity") is None:
        return None
    text = fields.text("cpu_affinity")
    if not AFFINITY.fullmatch(text):
        fields.fault("cpu_affinity", f"expected cores such as 0-3,6, not {text[:40]!r}")
    return text


def to_json(plan: BenchmarkPlan) -> dict[str, object]:
    """Give a plan as JSON values; `read_plan` is its inverse."""
    return {key: value for key, value in asdict(plan).items() if value is not None}


def read_plan(fields: Fields) -> BenchmarkPlan:
    """Read a plan from a table of a larger record, noting faults in `fields`."""
    plan = BenchmarkPlan(
        num_launches=fields.integer("num_launches", minimum=1, maximum=1000),
        warmup_runs=fields.integer("warmup_runs", minimum=0, maximum=_MAXIMUM_SAMPLES),
        warmup_seconds=fields.number("warmup_seconds", minimum=0, maximum=3600),
        min_runs=fields.integer("min_runs", minimum=1, maximum=_MAXIMUM_SAMPLES),
        min_seconds=fields.number("min_seconds", minimum=0, maximum=MAXIMUM_SECONDS),
        max_seconds=fields.number("max_seconds", minimum=0.01, maximum=MAXIMUM_SECONDS),
        num_threads=fields.integer("num_threads", minimum=0, maximum=1024),
        max_samples=fields.integer("max_samples", minimum=1, maximum=_MAXIMUM_SAMPLES),
        precision=fields.optional_number("precision", minimum=0.0001, maximum=1),
        is_sustained=fields.boolean("is_sustained", False),
        cpu_affinity=_read_affinity(fields),
        cooldown_seconds=fields.optional_number(
            "cooldown_seconds", minimum=1, maximum=cooling.MAXIMUM_SECONDS
        ),
    )
    fields.close()
    return plan
