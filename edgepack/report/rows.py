"""A report's figures as rows of texts, the same for the terminal and for the page."""

from collections.abc import Sequence
from enum import StrEnum

from edgepack.fidelity import Judgement
from edgepack.report.labels import plain
from edgepack.report.summary import (
    BenchmarkSummary,
    EnergyRow,
    LatencyFigures,
    ParityRow,
    ParitySummary,
    StartRow,
    SustainedFigures,
    VariantRow,
)
from edgepack.report.units import (
    ABSENT,
    count,
    decibels,
    duration_scale,
    energy,
    energy_interval,
    latency,
    latency_interval,
    memory_size,
    seconds,
    share,
    small_number,
)

_MINUTE_SECONDS = 60
_BASES = {
    Judgement.SQNR: "SQNR",
    Judgement.ROUNDING: "rounding",
    Judgement.CONSTANT: "constant",
    Judgement.SATURATED: "saturated",
}
_ROUNDING_NOTE = (
    "rounding: the output is so small that its SQNR is that of rounding errors; it differs by "
    "no more than these"
)
_CONSTANT_NOTE = (
    "constant, saturated: the output was the same on all inputs that were tried, or nothing but "
    "0 and 1, which shows little; give real data with --data"
)


class Standing(StrEnum):
    """Where a variant stands, as its table cell reads."""

    CHOSEN = "chosen"
    CHOSEN_OUTSIDE = "chosen, outside"
    INSIDE = "inside"
    OUTSIDE = "outside"
    SKIPPED = "skipped"


def standing(row: VariantRow, *, chosen: str) -> Standing:
    """Tell whether a variant was skipped, meets the floors, and was chosen."""
    if row.skipped_reason is not None:
        return Standing.SKIPPED
    if row.recipe == chosen:
        return Standing.CHOSEN if row.within_budget else Standing.CHOSEN_OUTSIDE
    return Standing.INSIDE if row.within_budget else Standing.OUTSIDE


def parity_basis(row: ParityRow) -> str:
    """Say by what an output was found near enough, with the share of what agrees."""
    if row.equal_share is not None:
        return f"{share(row.equal_share)} equal"
    basis = _BASES[row.judgement]
    if row.top1_agreement is None:
        return basis
    return f"{basis}, top-1 {share(row.top1_agreement)}"


def parity_samples(parity: ParitySummary) -> str:
    """Say on how many samples of which kind the comparison was made."""
    kind = "generated sample" if parity.generated else "given sample"
    sets = f" in {count(parity.num_sets, 'set')}" if parity.num_sets > 1 else ""
    return f"{count(parity.num_samples, kind)}{sets}"


def parity_notes(parity: ParitySummary) -> tuple[str, ...]:
    """Explain the judgements that need it."""
    kinds = {row.judgement for row in parity.rows}
    notes = []
    if Judgement.ROUNDING in kinds:
        notes.append(_ROUNDING_NOTE)
    if not kinds.isdisjoint({Judgement.CONSTANT, Judgement.SATURATED}):
        notes.append(_CONSTANT_NOTE)
    return tuple(notes)


def figure_rows(benchmark: BenchmarkSummary) -> tuple[tuple[str, str, str], ...]:
    """Give a measurement's figures as name, value, and interval or the reason for none."""
    rows = _latency_rows(benchmark.latency) if benchmark.latency is not None else []
    rows += [_start_row(row) for row in benchmark.starts]
    peak = benchmark.peak_memory_bytes
    rows.append(
        ("peak memory", memory_size(peak), "of the measuring process")
        if peak is not None
        else ("peak memory", ABSENT, "the device does not tell it")
    )
    if benchmark.energy is not None:
        rows += _energy_rows(benchmark.energy)
    if benchmark.launches:
        launches = count(len(benchmark.launches), "launch", "launches")
        rows.append(("runs", f"{benchmark.num_runs:,}", f"in {launches}"))
    if benchmark.sustained is not None:
        rows += _sustained_rows(benchmark.sustained)
    if benchmark.precision is not None:
        reached, asked = benchmark.precision
        rows.append(("precision", f"±{reached:.2%}", f"of the median; ±{asked:.2%} was asked for"))
    rows.append(("golden check", *golden_text(benchmark)))
    threads = count(benchmark.num_threads, "thread") if benchmark.num_threads else ABSENT
    rows.append(("engine", threads, plain(benchmark.engine, longest=120)))
    return tuple(rows)


def _start_row(row: StartRow) -> tuple[str, str, str]:
    name = "cold start" if row.is_cold else "warm start"
    if row.total_ns is None:
        return name, ABSENT, plain(row.reason, longest=160)
    of_which = f"load {latency(row.init_ns)}, first inference {latency(row.first_ns)}"
    if row.is_cold:
        return name, latency(row.total_ns), f"{of_which}; the model's file was not in memory"
    launches = count(row.num_launches, "launch", "launches")
    return name, latency(row.total_ns), f"{of_which}; medians of {launches}"


def _latency_rows(figures: LatencyFigures) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    median, interval = figures.median_ns, figures.median_ci95_ns
    reasons = dict(figures.unavailable)

    def write(value_ns: float) -> str:
        # As fine as the median, where the unit is the median's; an outlier's is not.
        near = duration_scale(value_ns)[0] == duration_scale(median)[0]
        return latency(value_ns, interval_ns=interval if near else None)

    for name, key, value, ends in (
        ("median (p50)", "median", median, interval),
        ("p90", "p90", figures.p90_ns, figures.p90_ci95_ns),
        ("p99", "p99", figures.p99_ns, figures.p99_ci95_ns),
    ):
        if value is None:
            why = plain(reasons.get(f"{key}_ns", "not computed"))
            rows.append((name, ABSENT, why))
        elif ends is None:
            why = plain(reasons.get(f"{key}_ci95_ns", ""))
            remark = f"no interval: {why}" if why else ""
            rows.append((name, latency(value, interval_ns=interval), remark))
        else:
            spread = latency_interval(ends, value_ns=value)
            rows.append((name, latency(value, interval_ns=ends), spread))
    rows.append(("mean", write(figures.mean_ns), f"std {latency(figures.std_ns)}"))
    rows.append(("min", write(figures.min_ns), ""))
    rows.append(("max", write(figures.max_ns), ""))
    return rows


def _sustained_rows(figures: SustainedFigures) -> list[tuple[str, str, str]]:
    window = figures.window_seconds
    span = "minute" if round(window) == _MINUTE_SECONDS else seconds(window)
    went_on = f"of {seconds(figures.seconds)} of inference"
    ratio = figures.last_ns / max(figures.first_ns, 1)
    return [
        (f"first {span}", latency(figures.first_ns), f"median, {went_on}"),
        (f"last {span}", latency(figures.last_ns), f"median, {ratio:.2f}x the first"),
    ]


def _energy_rows(row: EnergyRow) -> list[tuple[str, str, str]]:
    """Give the energy with what it holds: above idle where idle is known, else gross."""
    remark = plain(row.remark, longest=160)
    if row.gross_nj is None:
        return [("energy", ABSENT, remark or "the device does not tell it")]
    ends = "" if row.gross_ci95_nj is None else f"{energy_interval(row.gross_ci95_nj)}, "
    if row.above_idle_nj is None or row.idle_watts is None:
        gross = f"{ends}an inference, what the device takes in idle included; {remark}"
        return [("energy, gross", energy(row.gross_nj), gross)]
    idle = f"an inference, above the {row.idle_watts:.3g} W of idle; {remark}"
    return [
        ("energy", energy(row.above_idle_nj), idle),
        ("energy, gross", energy(row.gross_nj), f"{ends}with idle"),
    ]


def golden_text(benchmark: BenchmarkSummary) -> tuple[str, str]:
    """Give the golden check's outcome and its figures."""
    golden = benchmark.golden
    if golden is None:
        return ABSENT, "nothing to compare with"
    parts = []
    if golden.sqnr_to_host_db is not None:
        parts.append(f"{decibels(golden.sqnr_to_host_db)} to the host")
    # A bare model is its own reference: nothing is known of a float model behind it.
    if golden.sqnr_to_float_db is not None and benchmark.is_bundle:
        parts.append(f"{decibels(golden.sqnr_to_float_db)} to float")
    if golden.max_abs_error is not None:
        parts.append(f"max abs error {small_number(golden.max_abs_error)}")
    return ("passed" if golden.passed else "failed"), ", ".join(parts)


def launch_medians(benchmark: BenchmarkSummary) -> tuple[str, ...]:
    """Give each launch's median in the unit of the whole, in launch order."""
    interval = benchmark.latency.median_ci95_ns if benchmark.latency else None
    return tuple(
        latency(quantile(sorted(launch.samples_ns), 0.5), interval_ns=interval)
        + ("!" if launch.marks else "")
        for launch in benchmark.launches
        if launch.samples_ns
    )


def launch_rows(benchmark: BenchmarkSummary) -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """Give each launch as its number, its figures, and what is doubtful about it."""
    interval = benchmark.latency.median_ci95_ns if benchmark.latency else None
    rows = []
    for number, launch in enumerate(benchmark.launches, start=1):
        ordered = sorted(launch.samples_ns)
        p5, p95 = (quantile(ordered, level) for level in (0.05, 0.95))
        peak = launch.peak_memory_bytes
        values = (
            *(
                latency(value, interval_ns=interval) if ordered else ABSENT
                for value in (quantile(ordered, 0.5), p5, p95)
            ),
            f"{len(ordered):,}",
            latency(launch.init_ns),
            latency(launch.first_ns),
            memory_size(peak) if peak is not None else ABSENT,
        )
        rows.append((str(number), values, ", ".join(plain(mark) for mark in launch.marks)))
    return tuple(rows)


def quantile(ordered: Sequence[int], level: float) -> float:
    """Give a quantile of sorted numbers, linear between neighbors; 0 of none."""
    if not ordered:
        return 0.0
    place = level * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
