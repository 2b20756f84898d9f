"""What an inference takes in joules, where a counter or a sensor of the device tells it.

A launch's energy is that of its timed runs, from right before the first to right after the last;
an inference's is the mean power over that time by the mean latency. The counter sees all that the
device does (`gross`), so what it takes in idle, watched after the launches by a process that only
sleeps, is told beside it: the power above idle by the mean latency is what inference adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgepack._fields import Fields
from edgepack.measure import stats
from edgepack.measure.launch import (
    MAXIMUM_NS,
    MAXIMUM_UJ,
    LatencyLaunch,
    optional_integer,
    optional_text,
)
from edgepack.measure.stats import Interval

IDLE_SECONDS: Final = 2.0
_NOT_READ: Final = "the runner did not look for a counter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    """What the device took while a process of ours slept.

    Attributes:
        wall_ns: how long.
        energy_uj: taken in that time; None where it is not told.
    """

    wall_ns: int
    energy_uj: int | None

    @property
    def watts(self) -> float | None:
        """Mean power; None where it is not told."""
        if self.energy_uj is None or self.wall_ns == 0:
            return None
        return self.energy_uj * 1e3 / self.wall_ns


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyFigures:
    """Energy of one inference.

    Attributes:
        source: the counter or sensor; None when there is none.
        gross_nj: median of the launches, all that the device took; None without a source.
        gross_ci95_nj: its 95% interval; None with fewer than 6 launches.
        above_idle_nj: the same without what the device takes in idle; None where that is unknown.
        idle_watts: what it takes in idle.
        reason: why there is no energy; None when there is.
    """

    source: str | None = None
    gross_nj: int | None = None
    gross_ci95_nj: Interval | None = None
    above_idle_nj: int | None = None
    idle_watts: float | None = None
    reason: str | None = None


def figure_energy(launches: Sequence[LatencyLaunch], idle: Idle | None) -> EnergyFigures:
    """Give the energy of an inference from launches and what was seen in idle; pure."""
    each = [_launch_energy(launch, idle_watts=0.0) for launch in launches]
    taken = [one for one in each if one is not None]
    source = launches[0].energy_source
    if source is None or len(taken) < len(each):
        reason = next((one.energy_reason for one in launches if one.energy_reason), None)
        lost = f"{source} told nothing in {len(each) - len(taken)} of {len(each)} launches"
        return EnergyFigures(reason=reason or (_NOT_READ if source is None else lost))
    watts = None if idle is None else idle.watts
    above = [_launch_energy(launch, idle_watts=watts or 0.0) or 0 for launch in launches]
    return EnergyFigures(
        source=source,
        gross_nj=stats.median(taken),
        gross_ci95_nj=stats.order_interval(taken),
        above_idle_nj=None if watts is None else stats.median(above),
        idle_watts=watts,
    )


def _launch_energy(launch: LatencyLaunch, *, idle_watts: float) -> int | None:
    """Give the nanojoules of one inference of a launch, above a power."""
    before, after = launch.before.energy_uj, launch.after.energy_uj
    if before is None or after is None or after < before or launch.wall_ns == 0:
        return None
    watts = (after - before) * 1e3 / launch.wall_ns - idle_watts
    return round(watts * sum(launch.samples_ns) / len(launch.samples_ns))


def to_json(figures: EnergyFigures, idle: Idle | None) -> dict[str, object]:
    """Give the energy as JSON values; all but `idle` follows from the launches."""

    def joules(nanojoules: int | None) -> float | None:
        return None if nanojoules is None else nanojoules / 1e9

    interval = figures.gross_ci95_nj
    return {
        "source": figures.source,
        "joules_per_inference": joules(figures.gross_nj),
        "joules_per_inference_ci95": None if interval is None else [x / 1e9 for x in interval],
        "joules_per_inference_above_idle": joules(figures.above_idle_nj),
        "idle_watts": figures.idle_watts,
        "idle": None if idle is None else {"wall_ns": idle.wall_ns, "energy_uj": idle.energy_uj},
        "reason": figures.reason,
    }


def read_idle(fields: Fields) -> Idle:
    """Read what a runner or a file says of idling, noting faults in `fields`."""
    idle = Idle(
        wall_ns=fields.integer("wall_ns", minimum=0, maximum=MAXIMUM_NS),
        energy_uj=optional_integer(fields, "energy_uj", maximum=MAXIMUM_UJ),
    )
    for key in ("energy_source", "energy_reason"):
        optional_text(fields, key)
    fields.close()
    return idle
