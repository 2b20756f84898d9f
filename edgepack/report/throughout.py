"""What stood around a measurement from its first launch to its last, as a report shows it."""

from typing import TYPE_CHECKING, Final

from edgepack.measure.cooling import TOLERANCE_C, sum_up
from edgepack.measure.disturbance import measure_disturbance
from edgepack.report.summary import Condition
from edgepack.report.units import count, memory_size, seconds, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepack.measure.record import Measurement

_TOLD_CORES: Final = 0.05  # what the system does by itself is no other program


def throughout(measurement: "Measurement") -> tuple[Condition, ...]:
    """Give what is told of the whole run, each in one text."""
    return tuple(
        Condition(name=name, before=text, after=text, is_throughout=True)
        for name, text in _texts(measurement)
    )


def _texts(measurement: "Measurement") -> "Iterator[tuple[str, str]]":
    if measurement.ended_early is not None:
        yield "Ended early", measurement.ended_early
    shortfall = measurement.shortfall
    if shortfall is not None:
        yield "Cut to fit", shortfall
    cooling = sum_up(measurement.rests, began_c=measurement.before.temperature_c)
    if cooling is not None:
        waited = f"{count(cooling.num_rests, 'wait')}, {seconds(cooling.seconds)} together"
        if cooling.goal_c is None:
            yield "Cool-down", f"{waited}; no thermometer can be read"
        else:
            began = f"{cooling.goal_c:.1f} °C"
            warm = f"; {cooling.num_warm} ended warmer" if cooling.num_warm else ""
            yield "Cool-down", f"{waited}, each until {TOLERANCE_C:g} °C above {began}{warm}"
    lost = _lost(measurement)
    if lost:
        yield "Lost while timed", ", ".join(lost)


def _lost(measurement: "Measurement") -> tuple[str, ...]:
    """Say what other work took, as far as the system tells it."""
    taken = measure_disturbance(measurement.launches, num_threads=measurement.engine.num_threads)
    texts = []
    if taken.stolen is not None:
        texts.append(f"{share(taken.stolen)} of its cores' time to other virtual machines")
    if taken.others is not None and taken.others >= _TOLD_CORES:
        texts.append(f"{taken.others:.2f} cores to other programs")
    if taken.quota_wait:
        texts.append(f"{taken.quota_wait:.2f} s of each second to a quota")
    if taken.memory_stall is not None:
        texts.append(f"{share(taken.memory_stall)} of the time to waits for memory")
    if taken.swap_bytes_per_second is not None:
        texts.append(f"{memory_size(round(taken.swap_bytes_per_second))} a second were swapped")
    return tuple(texts)
