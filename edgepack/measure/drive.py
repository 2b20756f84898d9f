"""Driving the runner on a device: golden check first, then fresh launches, each bounded in time."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgepack.bundle.golden import pack_tensors
from edgepack.errors import DeviceError
from edgepack.measure.asking import check_answers
from edgepack.measure.bench import (
    RUNNER_PATH,
    Bench,
    TimedModel,
    check_affinity,
    own_site,
    place_runner,
    python_command,
)
from edgepack.measure.cooling import Rest, rest
from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.launching import StepCallback, ask_launch, ask_profile, watch_idle
from edgepack.measure.plan import BenchmarkPlan, check_plan, fit_plan
from edgepack.measure.profile import NOT_ASKED
from edgepack.measure.record import Measurement, ModelIdentity, make_measurement
from edgepack.measure.rounds import RoundPlan, take_rounds
from edgepack.model import Model
from edgepack.scratch import open_scratch

if TYPE_CHECKING:
    from edgepack.device.runtime.provision import Engine
    from edgepack.device.survey.facts import DeviceFacts
    from edgepack.device.survey.state import DeviceState
    from edgepack.device.wire.transport import Device


def measure(
    device: "Device",
    *,
    engine: "Engine",
    facts: "DeviceFacts",
    model: TimedModel,
    plan: BenchmarkPlan,
    root: str,
    on_progress: StepCallback,
) -> Measurement:
    """Measure a model's latency on a device, after checking that it answers rightly there.

    Args:
        device: a connected device.
        engine: the runtime installed there.
        facts: what the device says of itself.
        model: what to time.
        plan: how long; fitted to the model's speed.
        root: deploy root on the device.
        on_progress: called with what is being done.

    Raises:
        GoldenError: the answers are wrong; nothing was timed.
        MeasureError: the plan is unusable; the runner failed, died or answered nonsense.
        DeviceError: the link failed, or the runner's files could not be placed. Neither is raised
            once there are launches for an interval.
    """
    check_plan(plan)
    on_progress(f"placing the runner on {device.name}")
    bench = place_runner(device, engine=engine, model=model, root=root)
    return _measure([bench], facts=facts, plan=plan, on_progress=on_progress)[0]


def measure_in_turns(
    device: "Device",
    *,
    engine: "Engine",
    facts: "DeviceFacts",
    models: tuple[TimedModel, TimedModel],
    plan: BenchmarkPlan,
    root: str,
    on_progress: StepCallback,
) -> tuple[Measurement, Measurement]:
    """Measure two models on a device in launches that take turns: A B, B A, A B and so on.

    Args:
        device: a connected device.
        engine: the runtime installed there.
        facts: what the device says of itself.
        models: what to time; launches of one place in both results stood beside each other.
        plan: its launches of each, within its seconds for both.
        root: deploy root on the device.
        on_progress: called with what is being done.

    Raises:
        GoldenError, MeasureError, DeviceError: as `measure`.
    """
    check_plan(plan)
    on_progress(f"placing the runner on {device.name}")
    benches = [place_runner(device, engine=engine, model=each, root=root) for each in models]
    first, second = _measure(benches, facts=facts, plan=plan, on_progress=on_progress)
    return first, second


def measure_on_host(
    model: Model,
    feeds: Sequence[tuple[NDArray[Any], ...]],
    *,
    plan: BenchmarkPlan,
    name: str = "model.tflite",
    recipe: str | None = None,
    on_progress: StepCallback = lambda _: None,
) -> Measurement:
    """Measure a model on this machine, with this interpreter's own runtime.

    It goes the same way as on any device, but nothing is deployed.

    Args:
        model: what to time.
        feeds: samples in the model's input order and dtypes; the first is timed.
        plan: how long; fitted to the model's speed.
        name: what the model is called in the record.
        recipe: what it was made by.
        on_progress: called with what is being done.

    Raises:
        MeasureError: the plan is unusable; the runner failed or died.
    """
    from edgepack.device.survey.facts import read_facts  # noqa: PLC0415 - needs the device's room
    from edgepack.device.wire.local import LocalDevice  # noqa: PLC0415 - likewise

    check_plan(plan)
    with open_scratch("measure") as folder:
        device = LocalDevice()
        path = folder / "model.tflite"
        path.write_bytes(model.data)
        inputs = pack_tensors(list(feeds[:1]), model.signature.inputs) if feeds else ()
        paths: list[str] = []
        for index, data in enumerate(inputs):
            target = folder / f"input_{index}.bin"
            target.write_bytes(data)
            paths.append(str(target))
        timed = TimedModel(
            path=str(path),
            identity=ModelIdentity(
                name=name, sha256=model.sha256, num_bytes=model.num_bytes, recipe=recipe
            ),
            signature=model.signature,
            is_quantized=model.is_quantized,
            is_stream=model.is_stream,
            inputs=inputs,
        )
        bench = Bench(
            device=device,
            model=timed,
            # An isolated interpreter does not see what `pip install --user` installed.
            command=python_command(sys.executable, str(RUNNER_PATH), own_site()),
            inputs=tuple(paths),
        )
        facts = read_facts(device, str(folder))
        return _measure([bench], facts=facts, plan=plan, on_progress=on_progress)[0]


def _measure(
    benches: Sequence[Bench],
    *,
    facts: "DeviceFacts",
    plan: BenchmarkPlan,
    on_progress: StepCallback,
) -> tuple[Measurement, ...]:
    """Measure models on one device in turns, each with its share of the time; often only one."""
    from edgepack.device.survey.state import read_state  # noqa: PLC0415 - needs the device's room

    device = benches[0].device
    if plan.num_threads == 0:
        num_cores = facts.num_cores or 1
        plan = replace(plan, num_threads=min(num_cores, plan.num_held_cores or num_cores))
    check_affinity(device, plan)
    before = read_state(device)
    on_progress(f"checking the answers on {device.name}")
    checked = [check_answers(bench, plan) for bench in benches]
    share = replace(plan, max_seconds=plan.max_seconds / len(benches))
    # The first run sets things up; the quickest of the others is the model's own time.
    fitted = [
        fit_plan(share, run_ns=min(times[1:] or times), spent_ns=sum(times))
        for _, times, _ in checked
    ]

    rests: list[list[Rest]] = [[] for _ in benches]
    begun: set[int] = set()

    def take(place: int) -> LatencyLaunch:
        if plan.cooldown_seconds is not None:
            cooled = _cool(device, before, plan.cooldown_seconds, on_progress)
            rests[place].append(cooled)
        _, times, engine = checked[place]
        is_first = place not in begun
        begun.add(place)
        return ask_launch(
            benches[place], fitted[place], run_ns=max(times), engine=engine, is_cold=is_first
        )

    def clock() -> float:
        return time.monotonic() - sum(each.seconds for side in rests for each in side)

    rounds = take_rounds(
        take,
        RoundPlan(
            num_rounds=min(each.num_launches for each in fitted),
            precision=plan.precision,
            max_seconds=plan.max_seconds,
        ),
        num_models=len(benches),
        on_round=lambda number, wanted: on_progress(
            f"launch {number} of {wanted} on {device.name}"
        ),
        clock=clock,  # waiting is no measuring
    )
    launches, ended_early = rounds.launches, rounds.ended_early
    after = _read_last_state(device)
    idle = None
    if ended_early is None:
        idle = watch_idle(benches[0], plan, launches[0], on_progress)
    return tuple(
        make_measurement(
            device_name=device.name,
            device=facts,
            model=bench.model.identity,
            engine=engine,
            plan=_own_plan(plan, len(benches)),
            fitted_plan=replace(_own_plan(fit, len(benches)), num_launches=len(taken)),
            launches=taken,
            golden=verdict,
            before=before,
            after=after,
            profile=ask_profile(bench, fit, engine, run_ns=min(times), on_progress=on_progress)
            if ended_early is None
            else NOT_ASKED,
            rests=tuple(rested[: len(taken)]),
            idle=idle,
            ended_early=ended_early,
        )
        for bench, fit, taken, (verdict, times, engine), rested in zip(
            benches, fitted, launches, checked, rests, strict=True
        )
    )


def _cool(
    device: "Device", before: "DeviceState", max_seconds: float, on_progress: StepCallback
) -> Rest:
    from edgepack.device.survey.state import read_state  # noqa: PLC0415 - needs the device's room

    return rest(
        # Asking it also keeps the hold on the device, however long this takes.
        lambda: read_state(device).temperature_c,
        began_c=before.temperature_c,
        max_seconds=max_seconds,
        on_warm=lambda degrees: on_progress(
            f"letting {device.name} cool down from {degrees:.0f} °C"
        ),
    )


def _read_last_state(device: "Device") -> "DeviceState":
    """Ask what the device is doing after all that was timed, which is not lost for it."""
    from edgepack.device.survey.state import (  # noqa: PLC0415 - needs the device's room
        read_state,
        unknown_state,
    )

    try:
        return read_state(device)
    except DeviceError as error:
        return unknown_state(f"the device did not tell it any more: {error.message}")


def _own_plan(plan: BenchmarkPlan, num_models: int) -> BenchmarkPlan:
    """Give the plan of one model's result: in turns the precision is that of the speed-up."""
    return plan if num_models == 1 else replace(plan, precision=None)
