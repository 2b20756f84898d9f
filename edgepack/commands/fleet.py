"""One verb on several devices: each gets its result or its error, none hides another's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgepack.commands.boundary import error_json
from edgepack.commands.console import note
from edgepack.errors import EdgePackError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached(Generic[T]):
    """What a device gave: a result, or the error in its place."""

    device: str
    result: T | None = None
    error: EdgePackError | None = None


def run_each(addresses: Sequence[str], action: Callable[[str], T]) -> tuple[Reached[T], ...]:
    """Run an action for each device in turn.

    A single device's error is raised; among several it is kept beside the others' results.

    Raises:
        EdgePackError: of the only device.
    """
    if len(addresses) == 1:
        return (Reached(device=addresses[0], result=action(addresses[0])),)
    reached: list[Reached[T]] = []
    for address in addresses:
        try:
            reached.append(Reached(device=address, result=action(address)))
        except EdgePackError as error:
            note(f"{address}: {error.message}\n  {error.remedy}")
            reached.append(Reached(device=address, error=error))
    return tuple(reached)


def fleet_json(reached: Sequence[Reached[T]], to_json: Callable[[T], object]) -> object:
    """Give the JSON of one result, or a list in the order of the devices."""
    items = [
        to_json(each.result)
        if each.result is not None
        else {"device": each.device, "error": error_json(each.error) if each.error else None}
        for each in reached
    ]
    return items[0] if len(items) == 1 else items
