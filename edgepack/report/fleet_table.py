"""A line of figures for each measurement of a fleet, on the terminal."""

from typing import TYPE_CHECKING

from rich.table import Table

from edgepack.report.labels import device_name, model_name
from edgepack.report.measured import summarize_measurement
from edgepack.report.trust import trust_of
from edgepack.report.units import ABSENT, latency, latency_ends, memory_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from edgepack.measure.record import Measurement


def render_fleet(measured: "Sequence[Measurement]") -> "RenderableType":
    """Give a table with a row for each measurement, a device's own next to each other."""
    has_models = len({_model(each) for each in measured}) > 1
    table = Table(box=None, pad_edge=False)
    columns = ["device", *(["model"] if has_models else []), "median", "95%", "p90", "memory", ""]
    for column in columns:
        right = column in {"median", "95%", "p90", "memory"}
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for each in measured:
        summary, memory = each.summary, each.peak_memory_bytes
        interval = summary.median_ci95_ns
        table.add_row(
            device_name(each.device_name),
            *([_model(each)] if has_models else []),
            latency(summary.median_ns),
            ABSENT if interval is None else latency_ends(interval, value_ns=summary.median_ns),
            latency(summary.p90_ns),
            ABSENT if memory is None else memory_size(memory),
            trust_of(summarize_measurement(each)).text,
        )
    return table


def _model(measurement: "Measurement") -> str:
    return model_name(measurement.model.name, measurement.model.recipe)
