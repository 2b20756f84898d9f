"""Whether two measurements were taken under like conditions, so that they may be compared; pure."""

from collections.abc import Iterator
from typing import Final

from edgepack.device.wire.sections import clean_text
from edgepack.measure.record import Measurement
from edgepack.measure.validity import DISTURBED

_LONGEST: Final = 400  # of what a device or a bundle named itself


def find_unlike(first: Measurement, second: Measurement) -> tuple[str, ...]:
    """Say in what the conditions of two measurements differ; empty when they match.

    What a device does not tell is no difference. Temperature and load are judged by each
    measurement's own verdict, of which only `valid` and `noisy` can be compared.
    """
    return (
        *(
            clean_text(f"{what}: {mine} and {theirs}", limit=_LONGEST)
            for (what, mine), theirs in zip(
                _conditions(first).items(), _conditions(second).values(), strict=True
            )
            if mine is not None and theirs is not None and mine != theirs
        ),
        *_verdicts(first, second),
    )


def tell_conditions(measurement: Measurement) -> dict[str, str]:
    """Give what must be alike in words, name by name; what the device does not tell is left out."""
    return {
        name: _word(name, value)
        for name, value in _conditions(measurement).items()
        if value not in {None, ""}
    }


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):  # kHz of each frequency policy
        return ", ".join(f"{each / 1e6:.2f} GHz" for each in value)
    # The kernel takes a little more or less of it at each start.
    return f"{value / 2**30:.1f} GiB" if name == "RAM" and isinstance(value, int) else str(value)


def _conditions(measurement: Measurement) -> dict[str, object]:
    """Give what must be alike; None where the device does not tell it."""
    device, engine = measurement.device, measurement.engine
    state, plan = measurement.before, measurement.fitted_plan
    return {
        "board": device.board,
        "CPU": device.cpu,
        "architecture": device.arch,
        "cores": device.num_cores,
        "RAM": device.ram_bytes,
        "system": device.os_name,
        "kernel": device.kernel,
        "runtime": engine.name,
        "runtime's version": engine.version,
        "threads": engine.num_threads,
        "cores it was held to": plan.cpu_affinity or "all",
        "runner": engine.runner,
        "Python": engine.python,
        "XNNPACK in the runtime": engine.has_xnnpack,
        "governor": state.governor,
        "highest clock": state.maximum_khz,
        "sustained load": "yes" if plan.is_sustained else "no",
        "cooling down between launches": "no" if plan.cooldown_seconds is None else "yes",
        "warm-up seconds": plan.warmup_seconds,
        "warm-up runs": plan.warmup_runs > 0,
    }


def _verdicts(first: Measurement, second: Measurement) -> Iterator[str]:
    for each in (first, second):
        verdict = each.validity.verdict
        if verdict in DISTURBED:
            name = clean_text(each.model.name, limit=_LONGEST)
            yield f"{name} was measured on a device that was {verdict.value}"
