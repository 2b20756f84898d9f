"""The runner on a device: what it is to run, the files it needs there, and its command line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import edgepack.runner
from edgepack.bundle.golden import Golden
from edgepack.device.wire.sections import clean_text
from edgepack.errors import MeasureError
from edgepack.measure import channel
from edgepack.measure.engine import EngineFacts
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import ModelIdentity
from edgepack.model import Signature

if TYPE_CHECKING:
    from edgepack.device.runtime.provision import Engine
    from edgepack.device.wire.transport import Device

_AFFINITY_SECONDS: Final = 20.0
RUNNER_PATH: Final = Path(edgepack.runner.__path__[0]) / "tflite.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedModel:
    """A model on a device, ready to be run there.

    Attributes:
        path: of the `.tflite` file on the device, absolute.
        identity: what it is, for the record.
        signature: its I/O contract.
        is_quantized: whether its answers may differ by roundings (decides the golden floors).
        is_stream: whether its samples are one stream, so that state is kept between them.
        golden: samples with the answers that must come out; None when there are none.
        inputs: raw samples to run on when there is no golden, one entry for each input;
            empty: the runner makes values up.
    """

    path: str
    identity: ModelIdentity
    signature: Signature
    is_quantized: bool
    is_stream: bool = False
    golden: Golden | None = None
    inputs: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """The runner and its files in place on a device.

    Attributes:
        device: a connected device.
        model: what is run.
        command: that a request is appended to.
        inputs: absolute paths of the samples' files there, one for each input.
        engine: the runtime that must run it; None takes the one that is found.
    """

    device: "Device"
    model: TimedModel
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    engine: "Engine | None" = None

    def argv(self, request: Mapping[str, object], plan: BenchmarkPlan) -> list[str]:
        """Give the command line of a request, with the threads and on the cores of a plan."""
        module = self.engine.module if self.engine is not None else None
        common = {"model": self.model.path, "inputs": self.inputs, "module": module}
        text = json.dumps({**common, "threads": plan.num_threads, **request})
        return [*hold_command(plan), *self.command, text]

    def engine_facts(self, events: Sequence[channel.Event], plan: BenchmarkPlan) -> EngineFacts:
        """Give what ran the model, as it said itself.

        Raises:
            MeasureError: it is not the engine that was wanted.
        """
        said = channel.parse_engine(events, self.device.name)
        wanted = self.engine
        if wanted is not None and (said.name, said.version) != (wanted.name, wanted.version):
            raise MeasureError(
                f"expected {wanted.name} {wanted.version} to run on {self.device.name}, but "
                f"{said.name} {said.version} did",
                remedy="Remove the runtime's folder on the device and push again.",
            )
        return replace(
            said,
            num_threads=plan.num_threads,
            sha256=wanted.sha256 if wanted is not None else None,
            has_xnnpack=wanted.xnnpack if wanted is not None else None,
        )


def hold_command(plan: BenchmarkPlan) -> tuple[str, ...]:
    """Give what stands before a command that is to stay on the cores of a plan."""
    return () if plan.cpu_affinity is None else ("taskset", "-c", plan.cpu_affinity)


def check_affinity(device: "Device", plan: BenchmarkPlan) -> None:
    """See whether a process can be held to the cores of a plan.

    Raises:
        MeasureError: the device has no `taskset`, or not these cores.
    """
    if plan.cpu_affinity is None:
        return
    done = device.run([*hold_command(plan), "true"], timeout_seconds=_AFFINITY_SECONDS)
    if done.exit_code != 0:
        said = clean_text(" ".join(done.stderr.split()), limit=200)
        raise MeasureError(
            f"{device.name} cannot hold a process to the cores {plan.cpu_affinity}: "
            f"{said or f'taskset ended with {done.exit_code}'}",
            remedy="Give cores that it has and may use (`nproc`, `taskset -p $$`); taskset comes "
            "with util-linux.",
        )


def place_runner(device: "Device", *, engine: "Engine", model: TimedModel, root: str) -> Bench:
    """Bring the runner, where it is not there yet, and the samples to a device.

    Raises:
        DeviceError: the link failed, or the files could not be placed.
    """
    from edgepack.device.store.deploy import place_files  # noqa: PLC0415 - not needed on the host

    inputs = model.golden.inputs if model.golden is not None else model.inputs
    names = [f"input_{index}.bin" for index in range(len(inputs))]
    files: dict[str, bytes | Path] = dict(zip(names, inputs, strict=True))
    # The native runner came with its library; Python's is sent with the inputs.
    if engine.program is None:
        files[RUNNER_PATH.name] = read_runner()
    folder = place_files(device, files, root=root) if files else ""
    return Bench(
        device=device,
        model=model,
        command=_command(engine, f"{folder}/{RUNNER_PATH.name}"),
        inputs=tuple(f"{folder}/{name}" for name in names),
        engine=engine,
    )


def _command(engine: "Engine", runner: str) -> tuple[str, ...]:
    """Give the command that a request is appended to."""
    if engine.program is not None and engine.library is not None:
        return (engine.program, "--library", engine.library)
    if engine.python is None:
        raise MeasureError(
            f"{engine.name} has neither a Python nor a program that runs it",
            remedy="The record was changed or comes from another version; push again.",
        )
    return python_command(engine.python, runner, engine.site)


def python_command(python: str, runner: str, site: str) -> tuple[str, ...]:
    """Give the command of Python's runner; an empty site leaves its own path."""
    # -I: neither the user's environment nor the runner's folder may shadow a library.
    return (python, "-I", runner, *(("--site", site) if site else ()))


def own_site() -> str:
    """Give the folder this process has its runtime from; empty without one."""
    found = find_spec("ai_edge_litert")
    return str(Path(found.origin).parent.parent) if found and found.origin else ""


def read_runner() -> bytes:
    """Give the program that is sent to devices."""
    return RUNNER_PATH.read_bytes()
