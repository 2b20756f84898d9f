"""What other work took from a launch, by counters of the system before it and after it; pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edgepack.measure.launch import LatencyLaunch

MAXIMUM_STOLEN: Final = 0.10
"""Share of the launch's cores; counted in steps of 10 ms, and some percent are usual in a cloud."""

MINIMUM_CORES: Final = 0.90
"""What other programs must leave of the cores that the model's threads can use, as a share."""

MAXIMUM_QUOTA_WAIT: Final = 0.10
"""Of a second, all threads together: one that a quota stops makes the others wait for it."""

MAXIMUM_STALL: Final = 0.05
MAXIMUM_SWAP_BYTES_PER_SECOND: Final = 2.0**20
_MIB: Final = 2.0**20
_LEAST_BUSY_NS: Final = 500_000_000  # the system counts work in steps of 10 ms for each core


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """What was taken from one launch, or from several; None where the system does not tell it.

    Attributes:
        stolen: time that a hypervisor gave to others, as a share of the cores the model ran on.
        others: how many cores' worth of time other programs had, of those the model may run on.
        quota_wait: seconds of each second that a quota kept threads waiting, all of them together.
        memory_stall: share of the time in which some program waited for memory.
        swap_bytes_per_second: moved to swap and back.
    """

    stolen: float | None
    others: float | None
    quota_wait: float | None
    memory_stall: float | None
    swap_bytes_per_second: float | None


def measure_disturbance(launches: Sequence[LatencyLaunch], *, num_threads: int) -> Disturbance:
    """Give what was taken from launches together while their runs were timed."""
    seconds = sum(each.wall_ns for each in launches) / 1e9

    def rate(key: str) -> float | None:
        taken = [_increase(each, key) for each in launches]
        told = [each for each in taken if each is not None]
        return sum(told) / seconds if len(told) == len(taken) and seconds else None

    stolen, stall, swap = map(rate, ("stolen_ns", "memory_stall_ns", "swapped_bytes"))
    busy = rate("busy_ns") if seconds >= _LEAST_BUSY_NS / 1e9 * len(launches) else None
    waits = rate("quota_wait_ns")
    own = sum(each.cpu_ns for each in launches) / 1e9
    return Disturbance(
        stolen=None if stolen is None else stolen / 1e9 / max(num_threads, 1),
        others=None if busy is None else max(0.0, busy / 1e9 - own / seconds),
        quota_wait=None if waits is None else waits / 1e9,
        memory_stall=None if stall is None else min(1.0, stall / 1e9),
        swap_bytes_per_second=swap,
    )


def _increase(launch: LatencyLaunch, key: str) -> int | None:
    before, after = (getattr(each, key) for each in (launch.before, launch.after))
    # A counter that falls was started anew, as by a restored virtual machine.
    return None if before is None or after is None or after < before else after - before


def _crowding(launch: LatencyLaunch, found: Disturbance, *, num_threads: int) -> float | None:
    """Give the cores that other programs had where that left too few for the threads, else None.

    How many threads of all programs want a core (`num_runnable`) does not say which one.
    """
    others = found.others
    if others is None or not launch.num_cores:
        return None
    left, wanted = launch.num_cores - others, min(num_threads, launch.num_cores)
    return others if left < MINIMUM_CORES * wanted else None


def mark(launch: LatencyLaunch, *, num_threads: int) -> tuple[str, ...]:
    """Say what was taken from a launch, as far as it is too much."""
    found = measure_disturbance([launch], num_threads=num_threads)
    stolen = _beyond([found.stolen], MAXIMUM_STOLEN)
    crowding = _crowding(launch, found, num_threads=num_threads)
    others = [crowding] if crowding is not None else []
    waits = _beyond([found.quota_wait], MAXIMUM_QUOTA_WAIT)
    stalls = _beyond([found.memory_stall], MAXIMUM_STALL)
    swaps = _beyond([found.swap_bytes_per_second], MAXIMUM_SWAP_BYTES_PER_SECOND)
    return (
        *(f"lost {share:.0%} to other virtual machines" for share in stolen),
        *(f"other programs had {each:.1f} of {launch.num_cores} cores" for each in others),
        *(f"a quota stopped its threads for {wait:.2f} s of each second" for wait in waits),
        *(f"waited for memory for {share:.0%} of the time" for share in stalls),
        *(f"swapped {rate / _MIB:.0f} MiB/s" for rate in swaps),
    )


def find_disturbances(launches: Sequence[LatencyLaunch], *, num_threads: int) -> Iterator[str]:
    """Say of all launches what was taken from too many of them, and what to do."""
    each = [measure_disturbance([launch], num_threads=num_threads) for launch in launches]
    count = len(launches)
    stolen = _beyond((one.stolen for one in each), MAXIMUM_STOLEN)
    if stolen:
        yield (
            f"{len(stolen)} of {count} launches lost {MAXIMUM_STOLEN:.0%} or more of their cores' "
            f"time to other virtual machines (up to {max(stolen):.0%}): measure when their host "
            "is quiet, or on a machine of its own"
        )
    crowded = (
        _crowding(launch, one, num_threads=num_threads)
        for launch, one in zip(launches, each, strict=True)
    )
    others = [cores for cores in crowded if cores is not None]
    if others:
        yield (
            f"other programs had up to {max(others):.1f} cores of the {launches[0].num_cores} that "
            f"the model may run on, in {len(others)} of {count} launches: stop them, or hold them "
            "to other cores"
        )
    waits = _beyond((one.quota_wait for one in each), MAXIMUM_QUOTA_WAIT)
    if waits:
        yield (
            f"a quota of processor time stopped threads in {len(waits)} of {count} launches (for "
            f"up to {max(waits):.2f} s of each second, all threads together): raise it (CPUQuota "
            "of the unit, --cpus of the container), or measure outside of it"
        )
    stalls = _beyond((one.memory_stall for one in each), MAXIMUM_STALL)
    if stalls:
        yield (
            f"programs waited for memory for {MAXIMUM_STALL:.0%} or more of the time in "
            f"{len(stalls)} of {count} launches (up to {max(stalls):.0%}): stop other programs, "
            "or choose a smaller variant"
        )
    swaps = _beyond((one.swap_bytes_per_second for one in each), MAXIMUM_SWAP_BYTES_PER_SECOND)
    if swaps:
        yield (
            f"memory was swapped in {len(swaps)} of {count} launches (up to "
            f"{max(swaps) / _MIB:.0f} MiB/s): stop other programs, choose a smaller variant, or "
            "turn swap off (swapoff -a)"
        )


def _beyond(values: Iterable[float | None], limit: float) -> list[float]:
    return [each for each in values if each is not None and each >= limit]
