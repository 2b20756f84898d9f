"""Measuring variants so that one can be chosen: one short plan, the same for every variant."""

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import edgepack.measure.bench as bench_module
import edgepack.measure.channel as channel_module
import edgepack.measure.drive as drive_module
import edgepack.measure.launch as launch_module
import edgepack.measure.launching as launching_module
import edgepack.measure.plan as plan_module
import edgepack.measure.stats as stats_module
import edgepack.measure.validity as validity_module
from edgepack._fields import Fields
from edgepack.bundle.golden import make_golden
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.errors import CacheError
from edgepack.evaluate import Feeds, RunModel, quantize_array, run_model
from edgepack.measure.bench import read_runner
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import Measurement, write_measurement
from edgepack.measure.validity import VerdictName
from edgepack.model import Model
from edgepack.optimize.choosing.variant import Variant
from edgepack.optimize.judging.evaluation import digest_feeds
from edgepack.profile import OperatingSystem, TargetProfile
from edgepack.workflow.benching import bench_placed, place_model
from edgepack.workflow.request import StepCallback, TrialLatency

if TYPE_CHECKING:
    from edgepack.workflow.rig import Rig

_RECORD: Final = "measurement.json"
_LATENCY: Final = "latency.json"
_SYSTEMS: Final = {"Linux": OperatingSystem.LINUX, "Darwin": OperatingSystem.MACOS}
_ARCHITECTURES: Final = {"arm64": "aarch64", "AMD64": "x86_64"}


def trial_plan(num_threads: int) -> BenchmarkPlan:
    """Give the plan variants are compared by: enough launches for an interval, few seconds."""
    return BenchmarkPlan(
        num_launches=6,
        warmup_runs=3,
        warmup_seconds=0.1,
        min_runs=30,
        min_seconds=0.25,
        max_seconds=15.0,
        num_threads=num_threads,
    )


def host_is(profile: TargetProfile) -> bool:
    """Tell whether this machine is of the target's kind, as far as names go.

    Architecture and system must be the same; another core of the same architecture can still
    rank variants otherwise, which is why a device's word always comes first.
    """
    arch = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return arch == profile.hardware.arch and _SYSTEMS.get(platform.system()) is profile.os


def measure_on_this_machine(
    variant: Variant,
    feeds: Feeds,
    *,
    num_threads: int,
    cache: Cache,
    on_step: StepCallback,
    remeasure: bool = False,
) -> TrialLatency:
    """Measure a variant on this machine; a measurement of the same bytes here is kept.

    It is kept so that a repeated pack chooses the same variant and gives the same bundle; the
    record beside it has every sample, and says when they were taken. `remeasure` takes it anew.

    Raises:
        MeasureError: the runner failed.
    """
    plan = trial_plan(num_threads)
    inputs = interface_feeds(variant.model, feeds[:1])
    key = digest_parts(
        "host-latency",
        model=variant.model.sha256,
        inputs=digest_feeds(inputs),
        plan=repr(plan),
        machine=digest_machine(sys.modules[__name__]),
    )
    folder = None if remeasure else cache.load(key)
    if folder is not None:
        return _read_latency(folder / _LATENCY)
    on_step(f"timing {variant.recipe.name} on this machine")
    measurement = measure_on_host(
        variant.model,
        inputs,
        plan=plan,
        name=variant.recipe.name,
        recipe=variant.recipe.name,
        on_progress=_quiet,
    )
    latency = _summarize(measurement)
    if latency.median_ci95_ns is None:  # cut short by the plan's limit: not worth keeping
        return latency
    cache.store(
        key,
        {
            _LATENCY: json.dumps(asdict(latency)).encode(),
            _RECORD: write_measurement(measurement),
        },
    )
    return latency


def digest_machine(*modules: ModuleType) -> str:
    """Give the digest of what a latency kept on this machine depends on, beside the model.

    Args:
        modules: the caller's own source.
    """
    return digest_parts(
        "machine",
        hardware=f"{platform.node()} {platform.machine()} {platform.release()} {_cpu_name()}",
        python=sys.version,
        runner=read_runner().hex(),
        source=source_digest(
            channel_module,
            bench_module,
            drive_module,
            launch_module,
            launching_module,
            plan_module,
            stats_module,
            validity_module,
            *modules,
        ),
        engine=version("ai-edge-litert"),
    )


def measure_on_rig(
    rig: "Rig",
    variant: Variant,
    float_model: Model,
    feeds: Feeds,
    *,
    profile: TargetProfile,
    name: str,
    on_step: StepCallback,
    run: RunModel = run_model,
) -> TrialLatency:
    """Measure a variant on the device, whose answers are checked first; never kept.

    Raises:
        GoldenError: the device answers otherwise than this machine.
        MeasureError: the runner failed there.
        DeviceError: the link failed.
    """
    on_step(f"timing {variant.recipe.name} on {rig.device.name}")
    placed = place_model(
        rig,
        variant.model,
        name=name,
        golden=make_golden(float_model, variant.model, feeds, run=run),
        target=profile.id,
        recipe=variant.recipe.name,
        on_step=_quiet,
    )
    plan = trial_plan(rig.num_threads(profile))
    return _summarize(bench_placed(rig, placed, plan=plan, on_step=_quiet))


def _summarize(measurement: Measurement) -> TrialLatency:
    summary = measurement.summary
    added = sorted(
        each.peak_memory_bytes - each.start_memory_bytes
        for each in measurement.launches
        if each.peak_memory_bytes is not None and each.start_memory_bytes is not None
    )
    return TrialLatency(
        median_ns=summary.median_ns,
        median_ci95_ns=summary.median_ci95_ns,
        verdict=measurement.validity.verdict,
        memory_bytes=added[len(added) // 2] if added else None,
        memory_range_bytes=(added[0], added[-1]) if added else None,
    )


def _read_latency(path: Path) -> TrialLatency:
    try:
        fields = Fields(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    median_ns = fields.integer("median_ns", minimum=0)
    interval = fields.integers("median_ci95_ns", minimum=0)
    verdict = fields.choice("verdict", VerdictName)
    memory = None
    if fields.raw("memory_bytes") is not None:
        memory = fields.integers("memory_range_bytes", minimum=0)
    if fields.faults or len(interval) != 2 or len(memory or (0, 0)) != 2:  # noqa: PLR2004 - ends
        raise _unreadable(path, "; ".join(fields.faults) or "an interval has two ends")
    return TrialLatency(
        median_ns=median_ns,
        median_ci95_ns=(interval[0], interval[1]),
        verdict=verdict,
        memory_bytes=None if memory is None else fields.integer("memory_bytes", minimum=0),
        memory_range_bytes=None if memory is None else (memory[0], memory[1]),
    )


def _unreadable(path: Path, reason: str) -> CacheError:
    return CacheError(
        f"the kept result {path} cannot be read: {reason}",
        remedy=f"Remove the folder {path.parent} and try again.",
    )


def interface_feeds(model: Model, feeds: Feeds) -> Feeds:
    """Give feeds of the float model as a variant takes them, integers where its inputs are."""
    specs = model.signature.inputs
    return [
        tuple(quantize_array(array, spec) for array, spec in zip(feed, specs, strict=True))
        for feed in feeds
    ]


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a pseudo file
            return next(
                (line.split(":", 1)[1].strip() for line in file if "model name" in line), ""
            )
    except OSError:
        return platform.processor()


def _quiet(text: str) -> None:
    """Leave a trial's inner steps untold: the variant's name is what the user follows."""
