"""A model's answers to its golden inputs, asked of a device and judged; nothing is timed."""

from typing import TYPE_CHECKING, Final

from edgepack.errors import GoldenError
from edgepack.measure import channel
from edgepack.measure.bench import Bench, TimedModel, place_runner
from edgepack.measure.engine import EngineFacts
from edgepack.measure.golden import GoldenVerdict, judge_golden
from edgepack.measure.plan import BenchmarkPlan, check_plan

if TYPE_CHECKING:
    from edgepack.device.runtime.provision import Engine
    from edgepack.device.wire.transport import Device

WRONG_ANSWERS_REMEDY: Final = (
    "Choose another recipe (float32 is the plainest), or another version of the runtime; "
    "a runtime that computes wrongly on this CPU is worth a bug report."
)
STARTUP_SECONDS: Final = 120.0  # importing numpy alone takes seconds on a slow card


def ask_answers(
    device: "Device", *, engine: "Engine", model: TimedModel, plan: BenchmarkPlan, root: str
) -> GoldenVerdict | None:
    """Run a model on a device on its golden inputs and judge the answers; nothing is timed.

    Args:
        device: a connected device.
        engine: the runtime installed there.
        model: what to run.
        plan: its threads, and its seconds as the limit beside the start of the runtime.
        root: deploy root on the device.

    Returns:
        The verdict, which may be that it failed; None without golden samples.

    Raises:
        MeasureError: the runner failed, died or answered nonsense.
        DeviceError: the link failed, or the runner's files could not be placed.
    """
    check_plan(plan)
    bench = place_runner(device, engine=engine, model=model, root=root)
    verdict, _, _ = _ask(bench, plan)
    return verdict


def check_answers(
    bench: Bench, plan: BenchmarkPlan
) -> tuple[GoldenVerdict | None, list[int], EngineFacts]:
    """Ask for the answers before anything is timed; give the verdict, run times and the engine.

    Raises:
        GoldenError: they are wrong.
        MeasureError, DeviceError: as `ask_answers`.
    """
    verdict, times, engine = _ask(bench, plan)
    if verdict is not None and not verdict.passed:
        raise GoldenError(
            f"the model answers otherwise on {bench.device.name} than where it was packed, so it "
            "was not timed:\n" + "\n".join(f"  - {reason}" for reason in verdict.reasons),
            remedy=WRONG_ANSWERS_REMEDY,
        )
    return verdict, times, engine


def _ask(bench: Bench, plan: BenchmarkPlan) -> tuple[GoldenVerdict | None, list[int], EngineFacts]:
    golden, signature = bench.model.golden, bench.model.signature
    name = bench.device.name
    # Without golden samples the first one is run twice, to learn how long a run takes.
    num_samples = golden.num_samples if golden is not None else 2
    request = {
        "mode": "outputs",
        "samples": num_samples,
        "emit": golden is not None,
        "stream": bench.model.is_stream,
    }
    num_outputs = channel.num_output_events(signature, num_samples=num_samples)
    events = channel.talk(
        bench.device,
        bench.argv(request, plan),
        timeout_seconds=STARTUP_SECONDS + plan.max_seconds,
        max_events=2 * num_samples + num_outputs + 2,
    )
    times = channel.parse_run_times(events, num_samples=num_samples, name=name)
    engine = bench.engine_facts(events, plan)
    if golden is None:
        return None, times, engine
    answers = channel.parse_outputs(events, signature=signature, num_samples=num_samples, name=name)
    verdict = judge_golden(
        golden, answers, signature=signature, is_quantized=bench.model.is_quantized
    )
    return verdict, times, engine
