"""What is asked of the runner on a device: launches, and after them its idling and its ops."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgepack.errors import DeviceError, MeasureError
from edgepack.measure import channel
from edgepack.measure.asking import STARTUP_SECONDS
from edgepack.measure.bench import Bench
from edgepack.measure.energy import IDLE_SECONDS, Idle
from edgepack.measure.engine import EngineFacts
from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.profile import PYTHON_TELLS_NONE, OpProfile, num_profile_runs

StepCallback = Callable[[str], None]


def ask_launch(
    bench: Bench, plan: BenchmarkPlan, *, run_ns: int, engine: EngineFacts, is_cold: bool
) -> LatencyLaunch:
    """Ask for a launch: a fresh process that times a model.

    Args:
        bench: what is run, where.
        plan: how long, fitted to the model's speed.
        run_ns: the longest that a run took until now.
        engine: what is to run it.
        is_cold: whether the model's file is to be dropped from memory before it is opened.

    Raises:
        MeasureError: the runner failed, died or answered nonsense, or another runtime ran.
        DeviceError: the link failed.
    """
    spec = {
        "warmup_runs": plan.warmup_runs,
        "warmup_seconds": plan.warmup_seconds,
        "until_steady": plan.is_settled,
        "min_runs": plan.min_runs,
        "min_seconds": plan.min_seconds,
        "max_seconds": plan.launch_seconds,
        "max_samples": plan.max_samples,
    }
    events = channel.talk(
        bench.device,
        bench.argv({"mode": "latency", "plan": spec, "cold": is_cold}, plan),
        timeout_seconds=STARTUP_SECONDS + 2 * plan.launch_seconds + 4 * run_ns / 1e9,
        max_events=8,
        max_samples=plan.max_samples,
    )
    name = bench.device.name
    launch = channel.parse_launch(events, max_samples=plan.max_samples, name=name)
    again = bench.engine_facts(events, plan)
    # The native runner does not watch its ops while it times them.
    if again.xnnpack is None:
        again = replace(again, xnnpack=engine.xnnpack)
    if again != engine:
        raise MeasureError(
            f"the runtime on {name} changed while it was measured: {engine} became {again}",
            remedy="Let nothing be installed on the device meanwhile, and measure again.",
        )
    return launch


def watch_idle(
    bench: Bench,
    plan: BenchmarkPlan,
    launches: Sequence[LatencyLaunch],
    on_progress: StepCallback,
) -> Idle | None:
    """Ask what the device takes in idle, where it tells energy at all."""
    if launches[0].energy_source is None:
        return None
    on_progress(f"asking what {bench.device.name} takes in idle")
    try:
        events = channel.talk(
            bench.device,
            bench.argv({"mode": "idle", "seconds": IDLE_SECONDS}, plan),
            timeout_seconds=STARTUP_SECONDS + IDLE_SECONDS,
            max_events=2,
        )
        return channel.parse_idle(events, name=bench.device.name)
    except (MeasureError, DeviceError):  # what was timed is not lost for it, and is told as gross
        return None


def ask_profile(
    bench: Bench,
    plan: BenchmarkPlan,
    engine: EngineFacts,
    *,
    run_ns: int,
    on_progress: StepCallback,
) -> OpProfile:
    """Ask what each op takes, in a process of its own, after all that is timed."""
    if engine.runner != "native":
        return PYTHON_TELLS_NONE
    on_progress(f"asking for each op's time on {bench.device.name}")
    num_runs = num_profile_runs(run_ns)
    try:
        events = channel.talk(
            bench.device,
            bench.argv({"mode": "profile", "runs": num_runs}, plan),
            timeout_seconds=STARTUP_SECONDS + 4 * (num_runs + 1) * run_ns / 1e9,
            max_events=4,
        )
        return channel.parse_profile(events, name=bench.device.name)
    except (MeasureError, DeviceError) as error:  # what was timed is not lost for it
        return OpProfile(reason=error.message)
