"""A measurement, as a report shows it."""

from typing import TYPE_CHECKING, Final

from edgepack.device.survey.state import active_throttling
from edgepack.measure.likeness import tell_conditions
from edgepack.measure.rounds import reach
from edgepack.measure.sustained import split_stretches, sustain
from edgepack.report.ops import rank_ops
from edgepack.report.summary import (
    BenchmarkSummary,
    Condition,
    EnergyRow,
    Fact,
    GoldenRow,
    LatencyFigures,
    LaunchSeries,
    StartRow,
    SustainedFigures,
    TimePoint,
)
from edgepack.report.throughout import throughout
from edgepack.report.units import memory_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgepack.device.survey.facts import DeviceFacts
    from edgepack.device.survey.state import DeviceState
    from edgepack.measure.engine import EngineFacts
    from edgepack.measure.golden import GoldenVerdict
    from edgepack.measure.launch import LatencyLaunch
    from edgepack.measure.record import Measurement
    from edgepack.measure.starts import Start
    from edgepack.measure.stats import LatencySummary

# What XNNPACK and ruy look for, in the kernel's spelling, by its beginning.
_USED_FEATURES: Final = (
    *("neon", "asimd", "vfpv4", "fphp", "i8mm", "bf16", "sve", "sme"),
    *("sse4_1", "ssse3", "avx", "fma", "f16c", "amx"),
)
_NOT_TOLD: Final = "not told"
_STICKY_SHIFT: Final = 16  # flags from here on hold since the board was started


def summarize_measurement(measurement: "Measurement") -> BenchmarkSummary:
    """Give what a report shows of a measurement."""
    model, engine = measurement.model, measurement.engine
    is_bundle = model.bundle_sha256 is not None
    name = model.name
    if is_bundle:
        name = "-".join(part for part in (model.name, model.version, model.target) if part)
    return BenchmarkSummary(
        device=measurement.device_name,
        board=measurement.device.board or "",
        model=name,
        recipe=model.recipe,
        is_bundle=is_bundle,
        engine=_engine_label(engine),
        lacks_xnnpack=engine.has_xnnpack is False,
        num_threads=engine.num_threads,
        launches=tuple(
            _launch(launch, marks)
            for launch, marks in zip(measurement.launches, measurement.validity.marks, strict=True)
        ),
        latency=_figures(measurement.summary),
        verdict=measurement.validity.verdict.value,
        reasons=measurement.validity.reasons,
        golden=_golden(measurement.golden) if measurement.golden is not None else None,
        facts=device_facts(measurement.device),
        conditions=(
            *conditions(measurement.before, measurement.after),
            *throughout(measurement),
        ),
        provenance=_provenance(measurement),
        likeness=tuple(
            Fact(name=name, value=value) for name, value in tell_conditions(measurement).items()
        ),
        timeline=_timeline(measurement),
        sustained=_sustained(measurement),
        ops=rank_ops(measurement.profile),
        precision=_precision(measurement),
        energy=_energy(measurement),
        starts=_starts(measurement),
    )


def _starts(measurement: "Measurement") -> tuple[StartRow, ...]:
    found = measurement.starts
    return (
        _start(found.cold, is_cold=True, otherwise=found.cold_reason or ""),
        _start(found.warm, is_cold=False, otherwise="the only launch began cold"),
    )


def _start(found: "Start | None", *, is_cold: bool, otherwise: str) -> StartRow:
    if found is None:
        return StartRow(is_cold=is_cold, total_ns=None, reason=otherwise)
    return StartRow(
        is_cold=is_cold,
        total_ns=found.total_ns,
        init_ns=found.init_ns,
        first_ns=found.first_ns,
        num_launches=found.num_launches,
    )


def _energy(measurement: "Measurement") -> EnergyRow:
    found = measurement.energy
    return EnergyRow(
        gross_nj=found.gross_nj,
        gross_ci95_nj=found.gross_ci95_nj,
        above_idle_nj=found.above_idle_nj,
        idle_watts=found.idle_watts,
        remark=found.source or found.reason or "",
    )


def _timeline(measurement: "Measurement") -> tuple[TimePoint, ...]:
    points: list[TimePoint] = []
    before = 0.0
    for number, launch in enumerate(measurement.launches, start=1):
        stretches = split_stretches(launch)
        points += [
            TimePoint(
                seconds=before + each.seconds,
                launch=number,
                median_ns=each.median_ns,
                frequency_khz=each.conditions.frequency_khz,
                temperature_c=each.conditions.temperature_c,
            )
            for each in stretches
        ]
        before += stretches[-1].seconds
    return tuple(points)


def _sustained(measurement: "Measurement") -> SustainedFigures | None:
    if not measurement.plan.is_sustained:
        return None
    found = sustain(measurement.launches[0])
    return SustainedFigures(
        seconds=found.seconds,
        window_seconds=found.window_seconds,
        first_ns=found.first_ns,
        last_ns=found.last_ns,
    )


def _precision(measurement: "Measurement") -> tuple[float, float] | None:
    asked = measurement.plan.precision
    reached = reach([measurement.launch_samples_ns])
    return None if asked is None or reached is None else (reached, asked)


def _engine_label(engine: "EngineFacts") -> str:
    parts = [" ".join(part for part in (engine.name, engine.version) if part)]
    parts += ["native runner"] if engine.runner == "native" else []
    parts += ["without XNNPACK"] if engine.has_xnnpack is False else []
    return ", ".join(parts)


def _launch(launch: "LatencyLaunch", marks: tuple[str, ...]) -> LaunchSeries:
    return LaunchSeries(
        init_ns=launch.init_ns,
        first_ns=launch.first_ns,
        samples_ns=launch.samples_ns,
        peak_memory_bytes=launch.peak_memory_bytes,
        marks=marks,
    )


def _figures(summary: "LatencySummary") -> LatencyFigures:
    return LatencyFigures(
        median_ns=summary.median_ns,
        median_ci95_ns=summary.median_ci95_ns,
        mean_ns=summary.mean_ns,
        std_ns=summary.std_ns,
        min_ns=summary.min_ns,
        max_ns=summary.max_ns,
        p90_ns=summary.p90_ns,
        p90_ci95_ns=summary.p90_ci95_ns,
        p99_ns=summary.p99_ns,
        p99_ci95_ns=summary.p99_ci95_ns,
        unavailable=summary.unavailable,
    )


def _golden(verdict: "GoldenVerdict") -> GoldenRow:
    return GoldenRow(
        passed=verdict.passed,
        max_abs_error=verdict.max_abs_error,
        sqnr_to_host_db=verdict.sqnr_to_host_db,
        sqnr_to_float_db=verdict.sqnr_to_float_db,
        num_samples=verdict.num_samples,
    )


def device_facts(facts: "DeviceFacts") -> tuple[Fact, ...]:
    """Give a device's facts as a report shows them; what it does not tell is left out."""
    python = facts.python
    rows = (
        ("Board", facts.board),
        ("Architecture", _architecture(facts)),
        ("CPU", facts.cpu),
        ("Cores", str(facts.num_cores) if facts.num_cores is not None else None),
        ("CPU features", _features(facts.cpu_features)),
        ("RAM", memory_size(facts.ram_bytes) if facts.ram_bytes is not None else None),
        ("System", facts.os_name or facts.system),
        ("Kernel", facts.kernel),
        ("C library", " ".join(each for each in (facts.libc, facts.libc_version) if each) or None),
        ("Python", ".".join(map(str, python.version)) if python is not None else None),
    )
    return tuple(Fact(name=name, value=value) for name, value in rows if value is not None)


def _features(features: tuple[str, ...]) -> str | None:
    """Name the features that kernels of neural networks use; the rest is a number."""
    used = [each for each in features if each.startswith(_USED_FEATURES)]
    more = len(features) - len(used)
    parts = [" ".join(used)] if used else []
    parts += [f"{more} more"] if more else []
    return ", ".join(parts) or None


def _architecture(facts: "DeviceFacts") -> str:
    if facts.arch == facts.kernel_arch:
        return facts.arch
    return f"{facts.arch}, kernel {facts.kernel_arch}"


def conditions(before: "DeviceState", after: "DeviceState") -> tuple[Condition, ...]:
    """Give a device's state before and after, row by row; what it does not tell is said."""
    return tuple(
        Condition(
            name=name,
            before=early or _reason(before, field),
            after=late or _reason(after, field),
            is_known=early is not None or late is not None,
        )
        for (name, field, early), (_, _, late) in zip(_state(before), _state(after), strict=True)
    )


def _reason(state: "DeviceState", field: str) -> str:
    return dict(state.unavailable).get(field, _NOT_TOLD)


def _state(state: "DeviceState") -> tuple[tuple[str, str, str | None], ...]:
    """Give each quantity's name, its field and its value; None where the device told none."""
    free = state.available_bytes
    return (
        ("Temperature", "temperature_c", _optional(state.temperature_c, "{:.1f} °C")),
        ("Governor", "governor", state.governor or None),
        ("Clock", "frequency_khz", _clocks(state.frequency_khz)),
        ("Highest clock", "maximum_khz", _clocks(state.maximum_khz)),
        ("Throttling", "throttled", _flags(state.throttled)),
        ("Load, 1 min", "load_1min", _optional(state.load_1min, "{:.2f}")),
        ("Free memory", "available_bytes", memory_size(free) if free is not None else None),
    )


def _optional(value: float | None, pattern: str) -> str | None:
    return None if value is None else pattern.format(value)


def _clocks(khz: "Sequence[int] | None") -> str | None:
    if not khz:
        return None
    return ", ".join(f"{each / 1e6:.2f} GHz" for each in khz)


def _flags(throttled: int | None) -> str | None:
    if throttled is None:
        return None
    now = active_throttling(throttled)
    earlier = [name for name in active_throttling(throttled >> _STICKY_SHIFT) if name not in now]
    parts = [", ".join(now)] if now else []
    parts += [f"since start: {', '.join(earlier)}"] if earlier else []
    return "; ".join(parts) or "none"


def _provenance(measurement: "Measurement") -> tuple[Fact, ...]:
    model, engine, origin = measurement.model, measurement.engine, measurement.provenance
    xnnpack = {True: "took part", False: "took no part", None: "unknown"}[engine.xnnpack]
    if engine.has_xnnpack is False:
        xnnpack = "not in this runtime"
    plan = measurement.fitted_plan
    planned = f"{plan.num_launches} launches, each at least {plan.min_runs} runs and "
    planned += f"{plan.min_seconds:g} s after {plan.warmup_seconds:g} s of warm-up"
    rows = (
        ("Model sha256", model.sha256),
        ("Bundle sha256", model.bundle_sha256),
        ("Target", model.target),
        ("Runtime", " ".join(each for each in (engine.name, engine.version) if each)),
        ("Runtime sha256", engine.sha256),
        ("XNNPACK", xnnpack),
        ("Runner", engine.runner),
        ("Python of the runtime", engine.python),
        ("Plan", planned),
        ("Held to cores", plan.cpu_affinity),
        ("Measured by", f"EdgePack {origin.tool_version} on {origin.host}"),
        ("Measured at", origin.time),
    )
    return tuple(Fact(name=name, value=value) for name, value in rows if value is not None)
