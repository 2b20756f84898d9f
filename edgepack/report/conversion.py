"""One import on the terminal: which converter won, how near it is, and what goes in and out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgepack.report.labels import plain
from edgepack.report.summary import ParitySummary
from edgepack.report.terminal import render_parity
from edgepack.report.units import count, memory_size, seconds

_LONGEST_FAULT: Final = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRow:
    """One converter that was tried.

    Attributes:
        converter: its name.
        fault: why its model was not taken; None for the one that was.
    """

    converter: str
    fault: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRow:
    """An input or output of the converted model.

    Attributes:
        side: `input` or `output`.
        name: as in the source.
        shape: in the converted model.
        dtype: in the converted model.
        holds: what its values are or mean.
        layout: the order of its axes, and how they stand in the source where that differs.
    """

    side: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    holds: str
    layout: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionSummary:
    """What became of an import.

    Attributes:
        source: the source file's name.
        source_format: its format.
        attempts: the converters that were tried, in order; empty for a `.tflite` source.
        parity: how near the model is to its source; None for a `.tflite` source.
        tensors: inputs, then outputs.
        num_bytes: size of the model.
        seconds: wall-clock time of all of it.
        peak_memory_bytes: most resident memory of one process.
    """

    source: str
    source_format: str
    attempts: tuple[AttemptRow, ...]
    parity: ParitySummary | None
    tensors: tuple[TensorRow, ...]
    num_bytes: int
    seconds: float
    peak_memory_bytes: int


def layout_text(layout: str | None, shape: Sequence[int], source_shape: Sequence[int]) -> str:
    """Give an image's order of axes, and the source's shape where it is another."""
    source = "x".join(map(str, source_shape))
    parts = [layout] if layout else []
    return ", ".join(
        [*parts, *([f"source {source}"] if tuple(shape) != tuple(source_shape) else [])]
    )


def render_conversion(summary: ConversionSummary) -> RenderableType:
    """Give the converters that were tried, the inputs and outputs, parity, and what it took."""
    parts: list[RenderableType] = []
    if summary.attempts:
        heading = f"Converters of {plain(summary.source, longest=80)} ({summary.source_format})"
        parts.append(_heading(heading))
        parts += [_attempt(each) for each in summary.attempts]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("name", "shape", "dtype", "holds", "layout"):
        table.add_column(column, overflow="fold")
    for row in summary.tensors:
        shape = "x".join(str(size) for size in row.shape) or "scalar"
        name = Text(plain(row.name, longest=120))
        table.add_row(row.side, name, shape, row.dtype, row.holds, row.layout)
    parts += [_heading("Inputs and outputs"), table]
    if summary.parity is not None:
        parts.append(render_parity(summary.parity))
    memory = memory_size(summary.peak_memory_bytes)
    took = f"{seconds(summary.seconds)}, at most {memory} of memory in one process"
    parts.append(Padding(Text(took), (0, 0, 0, 2)))
    return Group(*parts)


def describe_attempts(attempts: Sequence[AttemptRow]) -> str:
    """Give in one sentence which converter was taken and how many fell before it."""
    if not attempts:
        return "converted already"
    fallen = sum(each.fault is not None for each in attempts)
    after = f" after {count(fallen, 'other')} fell" if fallen else ""
    return f"converted by {attempts[-1].converter}{after}"


def _attempt(row: AttemptRow) -> RenderableType:
    if row.fault is None:
        return Padding(Text(f"{row.converter}: taken", style="green"), (0, 0, 0, 2))
    first, *rest = row.fault[:_LONGEST_FAULT].splitlines() or [""]
    lines = [Padding(Text(f"{row.converter}: fell: {plain(first)}"), (0, 0, 0, 2))]
    lines += [Padding(Text(plain(line)), (0, 0, 0, 6)) for line in rest if line.strip()]
    return Group(*lines)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
