"""What a load that goes on and on does to latency: its beginning against its end; pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.measure.launch import Conditions, LatencyLaunch
from edgepack.measure.stats import median

_WINDOW_SECONDS: Final = 60.0
_LARGEST_WINDOW: Final = 0.25  # of the whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A part of a launch between two looks at the conditions.

    Attributes:
        seconds: from the launch's first timed run to the stretch's end.
        median_ns: of its samples.
        conditions: at its end.
    """

    seconds: float
    median_ns: int
    conditions: Conditions


@dataclass(frozen=True, kw_only=True, slots=True)
class Sustained:
    """The beginning and the end of a long launch.

    Attributes:
        seconds: of inference in all.
        window_seconds: of the beginning and of the end: a minute, or a quarter of a short launch.
        first_ns: median of the samples in the first window.
        last_ns: median of those in the last.
    """

    seconds: float
    window_seconds: float
    first_ns: int
    last_ns: int

    @property
    def ratio(self) -> float:
        """The end's median as a multiple of the beginning's."""
        return self.last_ns / max(self.first_ns, 1)


def sustain(launch: LatencyLaunch) -> Sustained:
    """Compare a launch's last minute with its first."""
    ends = _ends(launch)
    total = float(ends[-1])
    window = min(_WINDOW_SECONDS, _LARGEST_WINDOW * total)
    samples = np.asarray(launch.samples_ns, dtype=np.int64)
    first = samples[: max(1, int(np.searchsorted(ends, window, side="right")))]
    last = samples[
        min(samples.size - 1, int(np.searchsorted(ends, total - window, side="right"))) :
    ]
    return Sustained(
        seconds=total,
        window_seconds=window,
        first_ns=median(first.tolist()),
        last_ns=median(last.tolist()),
    )


def split_stretches(launch: LatencyLaunch) -> tuple[Stretch, ...]:
    """Split a launch at its looks at the conditions."""
    ends = _ends(launch)
    count = len(launch.samples_ns)
    looks = [(min(tick.sample, count), tick.conditions) for tick in launch.ticks]
    found: list[Stretch] = []
    start = 0
    for stop, conditions in (*looks, (count, launch.after)):
        if stop > start:  # else two looks with no sample between them
            found.append(
                Stretch(
                    seconds=float(ends[stop - 1]),
                    median_ns=median(launch.samples_ns[start:stop]),
                    conditions=conditions,
                )
            )
            start = stop
    return tuple(found)


def _ends(launch: LatencyLaunch) -> NDArray[np.float64]:
    """Give when each sample ended, in seconds; the runs between two of them took as long."""
    samples = np.asarray(launch.samples_ns, dtype=np.float64)
    return np.asarray(np.cumsum(samples) * launch.stride / 1e9)
