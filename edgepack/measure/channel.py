"""Talking to the runner: its events, every one checked, since a device's words are untrusted."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgepack._fields import Fields, describe, join_faults
from edgepack.device.wire.address import subject
from edgepack.errors import (
    ConnectError,
    DeviceError,
    DeviceTimeoutError,
    KilledError,
    MeasureError,
)
from edgepack.measure.energy import Idle, read_idle
from edgepack.measure.engine import EngineFacts, read_engine
from edgepack.measure.launch import LatencyLaunch, read_launch
from edgepack.measure.profile import OpProfile, read_profile
from edgepack.model import Signature

if TYPE_CHECKING:
    from edgepack.device.wire.transport import Device

CHUNK_BYTES: Final = 3 * 2**20
"""Most bytes of an output that the runner sends in one line."""

_LINE_BYTES: Final = 8 * 2**20
_SAMPLE_CHARACTERS: Final = 20  # of one time in a launch's line, at most
_MAXIMUM_TEXT: Final = 1000  # of a message from the device

_MEMORY_REMEDY: Final = (
    "Free memory on the device, choose a smaller variant, or use `--runner native`, which needs "
    "less; `edgepack doctor DEVICE MODEL` tells what is needed and what is free."
)
# In the words of Python, C, C++ and OpenBLAS.
_OUT_OF_MEMORY: Final = re.compile(
    r"MemoryError|[Cc]annot allocate memory|bad_alloc|[Mm]emory allocation"
)
_REMEDIES: Final[Mapping[str, str]] = {
    "python_too_old": "Install Python 3.9 or newer on the device, beside the one it has.",
    "import": "Push again, so that the runtime is installed anew; "
    "`edgepack doctor` says what fits the device.",
    "missing_file": "Push again: a file has gone from the device meanwhile.",
    "model": "Convert the model again, or choose a recipe this runtime version can run.",
    "unsupported_op": "Replace that op in the source model, or convert it with builtin ops only.",
    "inputs": "Pack the model again: its golden inputs do not fit it.",
    "memory": _MEMORY_REMEDY,
}
_REMEDY: Final = "Run it again; when it fails again, `edgepack doctor` checks the device."
_DEAD_REMEDY: Final = (
    "A crash (139, 134) means this runtime cannot run this model: convert it again, or choose "
    "another recipe."
)

Event = dict[str, Any]


def talk(
    device: "Device",
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    max_events: int,
    max_samples: int = 0,
) -> list[Event]:
    """Run the runner to its end and give its events, the last one, `done`, left out.

    Raises:
        MeasureError: it failed, died, or said something a runner does not say.
        DeviceTimeoutError: it did not end in time.
        ConnectError: the link was lost.
    """
    limit = _LINE_BYTES + _SAMPLE_CHARACTERS * max_samples
    events: list[Event] = []
    try:
        with device.stream(argv, timeout_seconds=timeout_seconds, max_line_bytes=limit) as lines:
            for event in _read_events(lines, device.name):
                if event["event"] == "error":
                    raise _runner_error(event, device.name)
                events.append(event)
                if len(events) > max_events:
                    raise _nonsense(device.name, f"expected at most {max_events} events")
    except (ConnectError, DeviceTimeoutError):
        raise
    except KilledError as error:
        raise MeasureError(
            f"the runner on {device.name} was killed, as Linux does when memory runs out: "
            f"{error.message}",
            remedy=_MEMORY_REMEDY,
        ) from error
    except DeviceError as error:
        is_short = _OUT_OF_MEMORY.search(error.message) is not None
        raise MeasureError(
            f"the runner on {device.name} died without a result: {error.message}",
            remedy=_MEMORY_REMEDY if is_short else _DEAD_REMEDY,
        ) from error
    if not events or events.pop()["event"] != "done":
        raise _nonsense(device.name, "it ended without saying that it was done")
    return events


def _read_events(lines: Iterator[bytes], name: str) -> Iterator[Event]:
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _nonsense(name, f"expected a JSON line, not {line[:80]!r}") from error
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise _nonsense(name, f"expected an object with 'event', not {describe(event)}")
        yield event


def _runner_error(event: Event, name: str) -> MeasureError:
    kind = event.get("kind")
    message = str(event.get("message"))[:_MAXIMUM_TEXT]
    clean = "".join(each if each.isprintable() else " " for each in message)
    remedy = _REMEDIES.get(kind, _REMEDY) if isinstance(kind, str) else _REMEDY
    return MeasureError(f"the model cannot be run on {subject(name)} {clean}", remedy=remedy)


def _nonsense(name: str, text: str) -> MeasureError:
    return MeasureError(
        f"the runner on {name} answered with something else than a measurement: {text}",
        remedy="A program on the device may have written into its output; run it again.",
    )


def take(events: Sequence[Event], kind: str, name: str) -> Fields:
    """Give the one event of a kind, to be read; its own kind counts as known.

    Raises:
        MeasureError: there is none, or more than one.
    """
    found = [event for event in events if event["event"] == kind]
    if len(found) != 1:
        raise _nonsense(name, f"expected one {kind!r} event, not {len(found)}")
    fields = Fields(found[0])
    fields.raw("event")
    return fields


def close(fields: Fields, name: str) -> None:
    """Refuse an event with faults.

    Raises:
        MeasureError: all faults are listed.
    """
    if fields.faults:
        raise _nonsense(name, join_faults("event", fields.faults[:10]))


def parse_launch(events: Sequence[Event], *, max_samples: int, name: str) -> LatencyLaunch:
    """Read the launch among a runner's events.

    Raises:
        MeasureError: none, or a malformed one.
    """
    fields = take(events, "launch", name)
    launch = read_launch(fields, max_samples=max_samples)
    close(fields, name)
    return launch


def parse_engine(events: Sequence[Event], name: str) -> EngineFacts:
    """Read which runtime ran, in whose runner, and whether XNNPACK took part.

    Raises:
        MeasureError: not said, or malformed.
    """
    fields = take(events, "engine", name)
    engine = read_engine(fields, threads_key="threads")
    close(fields, name)
    return engine


def parse_profile(events: Sequence[Event], *, name: str) -> OpProfile:
    """Read the profile among a runner's events.

    Raises:
        MeasureError: none, or a malformed one.
    """
    fields = take(events, "profile", name)
    profile = read_profile(fields)
    close(fields, name)
    return profile


def parse_idle(events: Sequence[Event], *, name: str) -> Idle:
    """Read what was taken while the runner slept.

    Raises:
        MeasureError: none, or a malformed one.
    """
    fields = take(events, "idle", name)
    idle = read_idle(fields)
    close(fields, name)
    return idle


def parse_run_times(events: Sequence[Event], *, num_samples: int, name: str) -> list[int]:
    """Read how long each sample's inference took, in nanoseconds, in order.

    Raises:
        MeasureError: a sample is missing, or a time is malformed.
    """
    times: list[int] = []
    for event in events:
        if event["event"] == "sample":
            fields = Fields(event)
            fields.raw("event")
            fields.integer("sample", minimum=len(times), maximum=len(times))
            times.append(fields.integer("run_ns", minimum=0, maximum=2**62))
            fields.close()
            close(fields, name)
    if len(times) != num_samples:
        raise _nonsense(name, f"expected {num_samples} samples, not {len(times)}")
    return times


def num_output_events(signature: Signature, *, num_samples: int) -> int:
    """Give how many events carry the outputs of so many samples."""
    return num_samples * sum(
        max(1, -(-spec.num_bytes // CHUNK_BYTES)) for spec in signature.outputs
    )


def parse_outputs(
    events: Sequence[Event], *, signature: Signature, num_samples: int, name: str
) -> tuple[bytes, ...]:
    """Put the outputs together, samples concatenated, one entry for each output.

    Raises:
        MeasureError: a piece is missing, out of order, malformed, or of another shape or
            element type than the signature says.
    """
    expected = (
        (sample, index, offset)
        for sample in range(num_samples)
        for index, spec in enumerate(signature.outputs)
        for offset in range(0, max(1, spec.num_bytes), CHUNK_BYTES)
    )
    tensors = [bytearray() for _ in signature.outputs]
    pieces = iter(event for event in events if event["event"] == "output")
    for sample, index, offset in expected:
        piece = next(pieces, None)
        if piece is None:
            raise _nonsense(name, f"sample {sample}, output {index}: it is missing")
        spec = signature.outputs[index]
        fields = Fields(piece)
        fields.raw("event")
        for key, value in (("sample", sample), ("index", index), ("offset", offset)):
            fields.integer(key, minimum=value, maximum=value)
        shape, dtype = fields.integers("shape", minimum=0), fields.text("dtype")
        if (shape, dtype) != (spec.shape, spec.dtype):
            fields.fault(
                "shape",
                f"output {spec.name!r}: expected {spec.dtype} {spec.shape}, not {dtype} {shape}",
            )
        fields.integer("num_bytes", minimum=spec.num_bytes, maximum=spec.num_bytes)
        data = _decode(fields)
        wanted = min(CHUNK_BYTES, spec.num_bytes - offset)
        if not fields.faults and len(data) != wanted:
            fields.fault("data", f"expected {wanted} bytes, not {len(data)}")
        fields.close()
        close(fields, name)
        tensors[index] += data
    return tuple(bytes(tensor) for tensor in tensors)


def _decode(fields: Fields) -> bytes:
    try:
        return base64.b64decode(fields.text("data", empty=True), validate=True)
    except (binascii.Error, ValueError):
        fields.fault("data", "expected base64")
        return b""
