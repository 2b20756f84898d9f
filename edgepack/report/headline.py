"""What must be seen first: the result in a sentence, its key figures, and what to doubt."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack.report.labels import device_name, plain
from edgepack.report.summary import (
    BenchmarkSummary,
    DeployReport,
    PackSummary,
    SustainedFigures,
    VariantRow,
)
from edgepack.report.trust import describe_change, trust_of
from edgepack.report.units import (
    count,
    decibels,
    file_size,
    latency,
    latency_interval,
    memory_size,
    ratio,
    share,
    share_interval,
)

_FLOAT: Final = "float32"
_VALID: Final = "valid"


class Level(StrEnum):
    """How much a notice takes away from the result."""

    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something the reader must know before believing a figure."""

    level: Level
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One key figure."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The top of a report."""

    sentence: str
    tiles: tuple[Tile, ...]
    notices: tuple[Notice, ...]


def chosen_row(pack: PackSummary) -> VariantRow | None:
    """Find the chosen variant's row."""
    return next((row for row in pack.variants if row.recipe == pack.chosen), None)


def float_row(pack: PackSummary) -> VariantRow | None:
    """Find the row of the float model that the others are compared with."""
    return next(
        (row for row in pack.variants if row.recipe == _FLOAT and row.num_bytes is not None), None
    )


def lead_benchmark(report: DeployReport) -> BenchmarkSummary | None:
    """Pick the benchmark to lead with: the chosen variant's, else the first that has figures."""
    measured = [each for each in report.benchmarks if each.latency is not None]
    chosen = report.pack.chosen if report.pack else None
    return next((e for e in measured if e.recipe == chosen), next(iter(measured), None))


def write_headline(report: DeployReport) -> Headline:
    """Derive the top of a report from its parts."""
    lead = lead_benchmark(report)
    return Headline(
        sentence=_sentence(report, lead),
        tiles=tuple(
            tile
            for tile in (
                _latency_tile(report, lead),
                _speed_tile(report.pack),
                _size_tile(report.pack),
                _fidelity_tile(report.pack),
                _memory_tile(lead),
            )
            if tile is not None
        ),
        notices=_notices(report, lead),
    )


def device_title(benchmark: BenchmarkSummary) -> str:
    """Name a device and, where it told, what it is."""
    name = device_name(benchmark.device)
    return f"{name} ({plain(benchmark.board, longest=80)})" if benchmark.board else name


def model_title(benchmark: BenchmarkSummary) -> str:
    """Name what was measured, with its recipe when it came in a bundle, and what is special."""
    recipe = [plain(benchmark.recipe, longest=64)] if benchmark.recipe else []
    return " · ".join((plain(benchmark.model, longest=80), *recipe, *benchmark.distinction))


def _sentence(report: DeployReport, lead: BenchmarkSummary | None) -> str:
    pack = report.pack
    if lead is not None and lead.latency is not None:
        figures = lead.latency
        took = latency(figures.median_ns, interval_ns=figures.median_ci95_ns)
        return f"{model_title(lead)} takes {took} on {device_title(lead)}"
    if pack is not None:
        name = f"{plain(pack.model, longest=80)} · {plain(pack.chosen, longest=64)}"
        row = chosen_row(pack)
        if row is not None and row.median_ns is not None and pack.measured_on is not None:
            took = latency(row.median_ns, interval_ns=row.median_ci95_ns)
            return f"{name} takes {took} on {device_name(pack.latency_on or 'local:')}"
        return f"{name} packed for {plain(pack.target, longest=64)}, not measured there"
    if any(push.error is None for push in report.pushes):
        reached = sum(push.error is None for push in report.pushes)
        return f"Pushed to {count(reached, 'device')}, not measured"
    return "Nothing was measured"


def _latency_tile(report: DeployReport, lead: BenchmarkSummary | None) -> Tile | None:
    if lead is None or lead.latency is None:
        return _trial_tile(report.pack)
    figures = lead.latency
    interval = figures.median_ci95_ns
    return Tile(
        name="Median latency",
        value=latency(figures.median_ns, interval_ns=interval),
        detail=(
            f"95%: {latency_interval(interval, value_ns=figures.median_ns)}"
            if interval
            else f"no interval from {count(len(lead.launches), 'launch', 'launches')}"
        ),
    )


def _trial_tile(pack: PackSummary | None) -> Tile | None:
    """Give the latency that the choice rests on, where there was no measurement of its own."""
    row = chosen_row(pack) if pack else None
    if pack is None:
        return None
    if row is None or row.median_ns is None or pack.measured_on is None:
        return Tile(name="Median latency", value="not measured", detail="on the target")
    interval = row.median_ci95_ns
    return Tile(
        name="Median latency",
        value=latency(row.median_ns, interval_ns=interval),
        detail=f"95%: {latency_interval(interval, value_ns=row.median_ns)}"
        if interval
        else "no interval",
    )


def _speed_tile(pack: PackSummary | None) -> Tile | None:
    """Compare the chosen variant with float; claim nothing while their intervals overlap."""
    if pack is None or pack.latency_on is None or pack.measured_on is None:
        return None
    if pack.chosen == _FLOAT:
        return None
    chosen, reference = chosen_row(pack), float_row(pack)
    if chosen is None or reference is None or not chosen.median_ns or not reference.median_ns:
        return None
    mine, theirs = chosen.median_ci95_ns, reference.median_ci95_ns
    where = f"median on {device_name(pack.latency_on)}"
    if mine is None or theirs is None:
        factor = reference.median_ns / chosen.median_ns
        return Tile(name="Speed against float", value=ratio(factor), detail=f"{where}, no interval")
    if mine[0] <= theirs[1] and theirs[0] <= mine[1]:
        detail = f"intervals overlap on {device_name(pack.latency_on)}"
        return Tile(name="Speed against float", value="no difference", detail=detail)
    if chosen.median_ns <= reference.median_ns:
        value = f"{ratio(reference.median_ns / chosen.median_ns)} faster"
    else:
        value = f"{ratio(chosen.median_ns / reference.median_ns)} slower"
    return Tile(name="Speed against float", value=value, detail=where)


def _size_tile(pack: PackSummary | None) -> Tile | None:
    chosen = chosen_row(pack) if pack else None
    if pack is None or chosen is None or chosen.num_bytes is None:
        return None
    reference = float_row(pack)
    if pack.chosen == _FLOAT:
        detail = "the float model itself"
    elif reference is not None and reference.num_bytes:
        detail = f"{share(chosen.num_bytes / reference.num_bytes)} of float's "
        detail += file_size(reference.num_bytes)
    else:
        detail = "no float variant to compare with"
    return Tile(name="Model size", value=file_size(chosen.num_bytes), detail=detail)


def _fidelity_tile(pack: PackSummary | None) -> Tile | None:
    chosen = chosen_row(pack) if pack else None
    if pack is None or chosen is None:
        return None
    if chosen.accuracy is not None:
        parts = []
        if chosen.accuracy_ci95:
            parts.append(share_interval(chosen.accuracy_ci95))
        if pack.reference_accuracy is not None:
            parts.append(f"float {share(pack.reference_accuracy)}")
        return Tile(name="Accuracy", value=share(chosen.accuracy), detail=", ".join(parts))
    if chosen.sqnr_db is None:
        return None
    detail = "signal to noise against float"
    if chosen.top1_agreement is not None:
        detail = f"{share(chosen.top1_agreement)} of answers agree with float"
    return Tile(name="Fidelity", value=decibels(chosen.sqnr_db), detail=detail)


def _memory_tile(lead: BenchmarkSummary | None) -> Tile | None:
    peak = lead.peak_memory_bytes if lead else None
    if peak is None:
        return None
    return Tile(name="Peak memory", value=memory_size(peak), detail="of the measuring process")


def _notices(report: DeployReport, lead: BenchmarkSummary | None) -> tuple[Notice, ...]:
    notices: list[Notice] = []
    notices += _failures([each for each in report.benchmarks if each.error is not None])
    for each in report.benchmarks:
        notices += _benchmark_notices(each) if each.error is None else []
    notices += [
        Notice(
            level=Level.FAULT,
            text=f"Push to {device_name(push.device)} failed",
            details=(plain(push.error),),
        )
        for push in report.pushes
        if push.error is not None
    ]
    if report.pack is not None:
        notices += _pack_notices(report.pack, lead)
    # The gravest first; `sorted` keeps the order of what weighs the same.
    return tuple(sorted(notices, key=lambda notice: -list(Level).index(notice.level)))


def _pack_notices(pack: PackSummary, lead: BenchmarkSummary | None) -> list[Notice]:
    notices: list[Notice] = []
    chosen = chosen_row(pack)
    if chosen is not None and not chosen.within_budget:
        notices.append(
            Notice(
                level=Level.FAULT,
                text=f"{plain(pack.chosen, longest=64)} is outside the accuracy floors",
                details=tuple(plain(reason) for reason in chosen.reasons),
            )
        )
    notice = _evidence(pack, lead)
    if notice is not None:
        notices.append(notice)
    if lead is not None and lead.recipe is not None and lead.recipe != pack.chosen:
        text = f"The latency shown first is of {plain(lead.recipe, longest=64)}, not of the chosen "
        text += plain(pack.chosen, longest=64)
        notices.append(Notice(level=Level.WARNING, text=text))
    if pack.chosen == _FLOAT and len(pack.variants) > 1:
        text = "The float model was chosen: no other was shown to be better within the floors"
        notices.append(Notice(level=Level.NOTE, text=text))
    if len(pack.variants) == 1:
        text = "One variant only: there was nothing to compare it with"
        notices.append(Notice(level=Level.NOTE, text=text))
    notices += [Notice(level=Level.WARNING, text=plain(text)) for text in pack.warnings]
    return notices


def _evidence(pack: PackSummary, lead: BenchmarkSummary | None) -> Notice | None:
    """Say it when no latency of the target stands behind the choice."""
    if pack.measured_on is not None:
        return None
    by_order = pack.objective == "latency" and len(pack.variants) > 1
    if lead is None:
        text = "Not measured on the target"
        text += ": the profile's order decided, not latency" if by_order else ""
    elif by_order:
        text = "Latency did not decide between the variants: the profile's order did"
    else:
        return None
    if pack.latency_on is not None:
        where = device_name(pack.latency_on)
        text += f"; the latency among the variants is of {where} and no evidence"
    return Notice(level=Level.WARNING if lead is None else Level.NOTE, text=text)


def _failures(failed: Sequence[BenchmarkSummary]) -> list[Notice]:
    """Tell what was not measured; a device that failed with all it was to measure is told once."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in failed:
        found[each.device, plain(each.error or "")].append(model_title(each))
    return [
        Notice(
            level=Level.FAULT,
            text=f"{titles[0]} on {device_name(device)} was not measured"
            if len(titles) == 1
            else f"{count(len(titles), 'measurement')} on {device_name(device)} failed",
            details=(reason,),
        )
        for (device, reason), titles in found.items()
    ]


def _benchmark_notices(benchmark: BenchmarkSummary) -> list[Notice]:
    title = f"{model_title(benchmark)} on {device_name(benchmark.device)}"
    notices: list[Notice] = []
    if benchmark.golden is not None and not benchmark.golden.passed:
        text = f"The answers of {title} are not the packed model's"
        notices.append(Notice(level=Level.FAULT, text=text))
    if benchmark.verdict != _VALID:
        verdict = plain(benchmark.verdict, longest=40) or "unknown"
        meaning = trust_of(benchmark).meaning
        text = f"The measurement of {title} is {verdict}" + (f": {meaning}" if meaning else "")
        details = tuple(plain(reason) for reason in benchmark.reasons)
        notices.append(Notice(level=Level.WARNING, text=text, details=details))
    if benchmark.sustained is not None:
        notices += _change_notices(title, benchmark.sustained)
    if benchmark.golden is None:
        text = f"The answers of {title} were not checked: there was nothing to compare them with"
        notices.append(Notice(level=Level.NOTE, text=text))
    return notices


def _change_notices(title: str, figures: SustainedFigures) -> list[Notice]:
    """Tell what a load that went on did, where it did more than launches may drift."""
    change = describe_change(figures)
    if change is None:
        return []
    ends = f"{latency(figures.first_ns)} at first, {latency(figures.last_ns)} at last"
    text = f"{title} {change} under a load that goes on: {ends}"
    return [Notice(level=Level.WARNING, text=text)]
