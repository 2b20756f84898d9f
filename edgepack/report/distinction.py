"""What tells results of one model apart: the conditions in which they are unlike; pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from edgepack.report.labels import plain
from edgepack.report.summary import BenchmarkSummary

SETTINGS: Final = frozenset(
    {"threads", "cores it was held to", "cooling down between launches", "sustained load"}
)
"""Conditions that the user chooses; the others are the device's own."""

# Fitted to a model's speed and to what was asked for: a difference where these are the same.
_FITTED: Final = frozenset({"warm-up seconds", "warm-up runs"})
# The matrix and the figures set runtimes without it apart by themselves.
_TOLD_ANYWAY: Final = frozenset({"XNNPACK in the runtime"})
_LONGEST: Final = 60

# What is usual needs no words beside what is not.
_PHRASES: Final[Mapping[tuple[str, str], str]] = {
    ("threads", "1"): "1 thread",
    ("cores it was held to", "all"): "all cores",
    ("cooling down between launches", "yes"): "cooled down",
    ("cooling down between launches", "no"): "",
    ("sustained load", "yes"): "sustained",
    ("sustained load", "no"): "",
    ("XNNPACK in the runtime", "yes"): "with XNNPACK",
    ("XNNPACK in the runtime", "no"): "without XNNPACK",
    ("warm-up runs", "yes"): "warmed up",
    ("warm-up runs", "no"): "not warmed up",
}
_PATTERNS: Final = {
    "threads": "{} threads",
    "cores it was held to": "cores {}",
    "runner": "{} runner",
    "highest clock": "up to {}",
    "warm-up seconds": "{} s of warm-up",
}


def are_alike(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Tell whether conditions match; what is not told is no difference."""
    return all(second.get(name, value) == value for name, value in first.items())


def find_differing(told: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """Name the conditions that are not alike in all; what is not told is no difference."""
    values: dict[str, set[str]] = defaultdict(set)
    for name, value in chain.from_iterable(each.items() for each in told):
        values[name].add(value)
    return frozenset(name for name, found in values.items() if len(found) > 1)


def find_telling(told: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """Name the conditions that tell results of one model on one device apart.

    What is fitted to a plan tells nothing of results whose plans are told apart already.
    """
    plans: dict[tuple[str | None, ...], list[Mapping[str, str]]] = defaultdict(list)
    for each in told:
        plans[tuple(each.get(name) for name in sorted(SETTINGS))].append(each)
    fitted = _unite(map(find_differing, plans.values())) & _FITTED
    return (find_differing(told) - _FITTED) | fitted


def _unite(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset(chain.from_iterable(sets))


def describe(told: Mapping[str, str], names: frozenset[str]) -> tuple[str, ...]:
    """Say in a few words each what some of the conditions were."""
    phrases = (_phrase(name, value) for name, value in told.items() if name in names)
    return tuple(each for each in phrases if each)


def _phrase(name: str, value: str) -> str:
    pattern = _PATTERNS.get(name, f"{name} {{}}")
    return plain(_PHRASES.get((name, value), pattern.replace("{}", value)), longest=_LONGEST)


def tell_apart(benchmarks: Sequence[BenchmarkSummary]) -> tuple[BenchmarkSummary, ...]:
    """Give each measurement the conditions that set it apart from others of the same report.

    Devices are unlike each other anyway: between them only what the user chose tells apart.
    """
    told = [(each, {fact.name: fact.value for fact in each.likeness}) for each in benchmarks]
    devices: dict[tuple[str | None, ...], list[Mapping[str, str]]] = defaultdict(list)
    models: dict[tuple[str | None, ...], list[Mapping[str, str]]] = defaultdict(list)
    for each, conditions in told:
        devices[each.device, each.board].append(conditions)
        models[each.device, each.board, each.model, each.recipe].append(conditions)
    names = (
        _differing_settings([conditions for _, conditions in told])
        | (_unite(map(find_differing, devices.values())) - _FITTED)
        | _unite(map(find_telling, models.values()))
    ) - _TOLD_ANYWAY
    return tuple(
        replace(each, distinction=describe(conditions, names)) for each, conditions in told
    )


def _differing_settings(told: Sequence[Mapping[str, str]]) -> frozenset[str]:
    found = find_differing(told) & SETTINGS
    # As many threads as a device has cores is one choice, whatever the number.
    full = [each["threads"] == each["cores"] for each in told if {"threads", "cores"} <= set(each)]
    return found - {"threads"} if all(full) else found
