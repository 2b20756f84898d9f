"""Whether two measurements were taken under like conditions, so that they may be compared; pure."""

from collections.abc import Iterator

from edgepack.measure.record import Measurement
from edgepack.measure.validity import VerdictName


def find_unlike(first: Measurement, second: Measurement) -> tuple[str, ...]:
    """Say in what the conditions of two measurements differ; empty when they match.

    What a device does not tell is no difference. Temperature and load are judged by each
    measurement's own verdict, of which only `valid` and `noisy` can be compared.
    """
    return (
        *_device(first, second),
        *_engine(first, second),
        *_settings(first, second),
        *_verdicts(first, second),
    )


def _device(first: Measurement, second: Measurement) -> Iterator[str]:
    one, other = first.device, second.device
    for what, mine, theirs in (
        ("board", one.board, other.board),
        ("CPU", one.cpu, other.cpu),
        ("architecture", one.arch, other.arch),
        ("cores", one.num_cores, other.num_cores),
        ("RAM", one.ram_bytes, other.ram_bytes),
        ("system", one.os_name, other.os_name),
        ("kernel", one.kernel, other.kernel),
    ):
        yield from _unequal(what, mine, theirs)


def _engine(first: Measurement, second: Measurement) -> Iterator[str]:
    one, other = first.engine, second.engine
    for what, mine, theirs in (
        ("runtime", one.name, other.name),
        ("runtime's version", one.version, other.version),
        ("threads", one.num_threads, other.num_threads),
        ("runner", one.runner, other.runner),
        ("Python", one.python, other.python),
        ("XNNPACK in the runtime", one.has_xnnpack, other.has_xnnpack),
    ):
        yield from _unequal(what, mine, theirs)


def _settings(first: Measurement, second: Measurement) -> Iterator[str]:
    yield from _unequal("governor", first.before.governor, second.before.governor)
    yield from _unequal("highest clock", first.before.maximum_khz, second.before.maximum_khz)
    for what, mine, theirs in (
        ("warm-up seconds", first.fitted_plan.warmup_seconds, second.fitted_plan.warmup_seconds),
        ("warm-up runs", first.fitted_plan.warmup_runs > 0, second.fitted_plan.warmup_runs > 0),
    ):
        yield from _unequal(what, mine, theirs)


def _verdicts(first: Measurement, second: Measurement) -> Iterator[str]:
    for each in (first, second):
        verdict = each.validity.verdict
        if verdict in {VerdictName.THROTTLED, VerdictName.CONTENDED}:
            yield f"{each.model.name} was measured on a device that was {verdict.value}"


def _unequal(what: str, mine: object, theirs: object) -> Iterator[str]:
    if mine is not None and theirs is not None and mine != theirs:
        yield f"{what}: {mine} and {theirs}"
