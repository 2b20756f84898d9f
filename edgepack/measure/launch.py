"""One launch of a model in a fresh process: its raw times, and what stood around them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from edgepack._fields import Fields

MAXIMUM_NS: Final = 2**62
MAXIMUM_UJ: Final = 2**62
MAXIMUM_TICKS: Final = 1000
_MAXIMUM_BYTES: Final = 2**50
_MAXIMUM_CORES: Final = 2**16
_GOVERNOR: Final = re.compile(r"[a-zA-Z_0-9]{1,32}(\+[a-zA-Z_0-9]{1,32}){0,3}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What may move the latency, read in the launch itself; None where it is not told.

    Attributes:
        frequency_khz: clock of the fastest core that the launch may run on.
        temperature_c: of the hottest zone.
        num_runnable: threads of all programs that wanted a core, this launch's own included.
        stolen_ns: time of all cores that a hypervisor gave to others, since the system's start.
        busy_ns: time that the cores the launch may run on worked, for any program, since then.
        quota_wait_ns: time that quotas of the launch's control groups kept threads waiting, summed
            over cores, since the groups were made.
        memory_stall_ns: time in which some program waited for memory, since the system's start.
        swapped_bytes: what was moved to swap and back, since then.
        throttled: flags that a Raspberry Pi's kernel has of its firmware, as in `DeviceState`.
        governor: of the clocks of the cores the launch may run on; several, joined by `+`.
        energy_uj: taken of what the launch's `energy_source` sees, since its meter was opened.
    """

    frequency_khz: int | None = None
    temperature_c: float | None = None
    num_runnable: int | None = None
    stolen_ns: int | None = None
    busy_ns: int | None = None
    quota_wait_ns: int | None = None
    memory_stall_ns: int | None = None
    swapped_bytes: int | None = None
    throttled: int | None = None
    governor: str | None = None
    energy_uj: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A look at the conditions between timed runs.

    Attributes:
        sample: index of the sample that came next.
        conditions: what was read.
    """

    sample: int
    conditions: Conditions


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyLaunch:
    """A fresh process: all times are whole nanoseconds of a monotonic clock.

    Attributes:
        init_ns: making the interpreter and allocating its tensors.
        first_ns: the first inference.
        warmup_ns: untimed inferences' times, the first 1,000.
        num_warmup_runs: all of them.
        samples_ns: timed inferences, in order.
        stride: every so many inferences one was timed; the rest ran untimed.
        wall_ns: from the first timed inference to the last.
        cpu_ns: processor time of all threads of the process meanwhile.
        before: right before the timed inferences.
        after: right after them.
        peak_memory_bytes: largest resident memory of the process, the interpreter's language
            included; None when unknown.
        peak_memory_reason: why it is unknown.
        start_memory_bytes: largest resident memory before the model was opened.
        num_cores: how many cores it may run on; None when unknown.
        ticks: looks at the conditions in between, about each half second.
        energy_source: the counter or sensor that tells the energy; None when there is none.
        energy_reason: why there is none.
        is_steady: whether the warm-up went on until two stretches of it, one after the other, had
            medians alike; None where that was not looked for, or there was no time for two.
        is_cold: whether the model's file was dropped from memory before it was opened; None where
            that was not asked for.
        cold_reason: why it was not, though it was asked for.
    """

    init_ns: int
    first_ns: int
    warmup_ns: tuple[int, ...]
    num_warmup_runs: int
    samples_ns: tuple[int, ...]
    stride: int
    wall_ns: int
    cpu_ns: int
    before: Conditions
    after: Conditions
    peak_memory_bytes: int | None
    peak_memory_reason: str | None
    start_memory_bytes: int | None
    num_cores: int | None = None
    ticks: tuple[Tick, ...] = ()
    energy_source: str | None = None
    energy_reason: str | None = None
    is_steady: bool | None = None
    is_cold: bool | None = None
    cold_reason: str | None = None

    @property
    def timed_conditions(self) -> tuple[Conditions, ...]:
        """What was read between the timed runs and right after them."""
        return (*(tick.conditions for tick in self.ticks), self.after)


def to_json(launch: LatencyLaunch) -> dict[str, object]:
    """Give a launch as JSON values; `read_launch` is its inverse."""
    return {
        "init_ns": launch.init_ns,
        "first_ns": launch.first_ns,
        "warmup_ns": list(launch.warmup_ns),
        "num_warmup_runs": launch.num_warmup_runs,
        "samples_ns": list(launch.samples_ns),
        "stride": launch.stride,
        "wall_ns": launch.wall_ns,
        "cpu_ns": launch.cpu_ns,
        "before": _conditions_to_json(launch.before),
        "after": _conditions_to_json(launch.after),
        "ticks": [
            {"sample": tick.sample, **_conditions_to_json(tick.conditions)} for tick in launch.ticks
        ],
        "peak_memory_bytes": launch.peak_memory_bytes,
        "peak_memory_reason": launch.peak_memory_reason,
        "start_memory_bytes": launch.start_memory_bytes,
        "num_cores": launch.num_cores,
        "energy_source": launch.energy_source,
        "energy_reason": launch.energy_reason,
        "is_steady": launch.is_steady,
        "is_cold": launch.is_cold,
        "cold_reason": launch.cold_reason,
    }


def _conditions_to_json(conditions: Conditions) -> dict[str, object]:
    return asdict(conditions)


def read_launch(fields: Fields, *, max_samples: int) -> LatencyLaunch:
    """Read a launch from what a device or a file says, noting faults in `fields`."""
    launch = LatencyLaunch(
        init_ns=fields.integer("init_ns", minimum=0, maximum=MAXIMUM_NS),
        first_ns=fields.integer("first_ns", minimum=0, maximum=MAXIMUM_NS),
        warmup_ns=_times(fields, "warmup_ns", max_samples=max_samples),
        num_warmup_runs=fields.integer("num_warmup_runs", minimum=0),
        samples_ns=_times(fields, "samples_ns", max_samples=max_samples),
        stride=fields.integer("stride", minimum=1),
        wall_ns=fields.integer("wall_ns", minimum=0, maximum=MAXIMUM_NS),
        cpu_ns=fields.integer("cpu_ns", minimum=0, maximum=MAXIMUM_NS),
        before=_read_conditions(fields.table("before", required=True)),
        after=_read_conditions(fields.table("after", required=True)),
        peak_memory_bytes=optional_integer(fields, "peak_memory_bytes", maximum=_MAXIMUM_BYTES),
        peak_memory_reason=optional_text(fields, "peak_memory_reason"),
        start_memory_bytes=optional_integer(fields, "start_memory_bytes", maximum=_MAXIMUM_BYTES),
        num_cores=optional_integer(fields, "num_cores", maximum=_MAXIMUM_CORES),
        # Results of older versions have none.
        ticks=_read_ticks(fields) if fields.has("ticks") else (),
        energy_source=optional_text(fields, "energy_source"),
        energy_reason=optional_text(fields, "energy_reason"),
        is_steady=_optional_truth(fields, "is_steady"),
        is_cold=_optional_truth(fields, "is_cold"),
        cold_reason=optional_text(fields, "cold_reason"),
    )
    if not fields.faults and not launch.samples_ns:
        fields.fault("samples_ns", "expected at least one time")
    fields.close()
    return launch


def _times(fields: Fields, key: str, *, max_samples: int) -> tuple[int, ...]:
    value = fields.raw(key)
    if not isinstance(value, list):
        fields.fault(key, "missing; expected a list")
        return ()
    if len(value) > max_samples:
        fields.fault(key, f"expected at most {max_samples} times, not {len(value)}")
        return ()
    # Lists of 10^5 times: one pass, where the readers of Fields check and name each item.
    if not _are_times(value):
        fields.fault(key, "expected whole nanoseconds of at least 0 only")
        return ()
    return tuple(value)


def _are_times(values: Sequence[object]) -> bool:
    return all(type(value) is int and 0 <= value <= MAXIMUM_NS for value in values)


def _read_ticks(fields: Fields) -> tuple[Tick, ...]:
    tables = fields.tables("ticks")
    if len(tables) > MAXIMUM_TICKS:
        fields.fault("ticks", f"expected at most {MAXIMUM_TICKS}, not {len(tables)}")
        return ()
    ticks = []
    for table in tables:
        sample = table.integer("sample", minimum=0, maximum=MAXIMUM_NS)
        ticks.append(Tick(sample=sample, conditions=_read_conditions(table)))
    return tuple(ticks)


def _read_conditions(fields: Fields) -> Conditions:
    conditions = Conditions(
        frequency_khz=optional_integer(fields, "frequency_khz", maximum=10**9),
        temperature_c=optional_number(fields, "temperature_c"),
        num_runnable=optional_integer(fields, "num_runnable", maximum=10**9),
        # Results of older versions have none of these.
        stolen_ns=optional_integer(fields, "stolen_ns", maximum=MAXIMUM_NS),
        busy_ns=optional_integer(fields, "busy_ns", maximum=MAXIMUM_NS),
        quota_wait_ns=optional_integer(fields, "quota_wait_ns", maximum=MAXIMUM_NS),
        memory_stall_ns=optional_integer(fields, "memory_stall_ns", maximum=MAXIMUM_NS),
        swapped_bytes=optional_integer(fields, "swapped_bytes", maximum=2**62),
        throttled=optional_integer(fields, "throttled", maximum=2**32 - 1),
        governor=_read_governor(fields),
        energy_uj=optional_integer(fields, "energy_uj", maximum=MAXIMUM_UJ),
    )
    fields.close()
    return conditions


def _optional_truth(fields: Fields, key: str) -> bool | None:
    return None if fields.raw(key) is None else fields.boolean(key, False)


def _read_governor(fields: Fields) -> str | None:
    text = optional_text(fields, "governor")
    if text is not None and _GOVERNOR.fullmatch(text) is None:
        fields.fault("governor", f"expected names joined by +, not {text[:40]!r}")
        return None
    return text


def optional_integer(fields: Fields, key: str, *, maximum: int) -> int | None:
    """Read a whole number of at least 0 that may be null."""
    return None if fields.raw(key) is None else fields.integer(key, minimum=0, maximum=maximum)


def optional_number(fields: Fields, key: str) -> float | None:
    """Read a finite number that may be null."""
    return None if fields.raw(key) is None else fields.number(key)


def optional_text(fields: Fields, key: str) -> str | None:
    """Read a text that may be null."""
    return None if fields.raw(key) is None else fields.text(key)
