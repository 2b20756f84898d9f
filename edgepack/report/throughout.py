"""What stood around a measurement from its first launch to its last, as a report shows it."""

from typing import TYPE_CHECKING

from edgepack.measure.cooling import TOLERANCE_C, sum_up
from edgepack.report.summary import Condition
from edgepack.report.units import count, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepack.measure.record import Measurement


def throughout(measurement: "Measurement") -> tuple[Condition, ...]:
    """Give what is told of the whole run, each in one text."""
    return tuple(
        Condition(name=name, before=text, after=text, is_throughout=True)
        for name, text in _texts(measurement)
    )


def _texts(measurement: "Measurement") -> "Iterator[tuple[str, str]]":
    cooling = sum_up(measurement.rests, began_c=measurement.before.temperature_c)
    if cooling is not None:
        waited = f"{count(cooling.num_rests, 'wait')}, {seconds(cooling.seconds)} together"
        if cooling.goal_c is None:
            yield "Cool-down", f"{waited}; no thermometer can be read"
        else:
            began = f"{cooling.goal_c:.1f} °C"
            warm = f"; {cooling.num_warm} ended warmer" if cooling.num_warm else ""
            yield "Cool-down", f"{waited}, each until {TOLERANCE_C:g} °C above {began}{warm}"
