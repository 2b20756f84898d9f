"""Which measurements of two results belong together: of one device, or of one model on it; pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.device.wire.sections import clean_text
from edgepack.errors import MeasureError
from edgepack.measure.record import Measurement

Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairing:
    """What two results have in common.

    Attributes:
        pairs: a measurement of each, in the order of the first.
        alone: devices, or models on them, that stand in one of the two.
    """

    pairs: tuple[tuple[Measurement, Measurement], ...]
    alone: tuple[Key, ...]


def pair_measurements(
    first: Sequence[Measurement], second: Sequence[Measurement], *, is_whole: bool = True
) -> Pairing:
    """Pair the measurements of two results.

    One and one are a pair whatever they are of. Otherwise a pair is of one device; where a device
    has several measurements, of one device and one model in one recipe.

    Args:
        first: of one result.
        second: of the other.
        is_whole: whether all devices of both were measured; what is left of a fleet is no pair
            only because one is left of each.

    Raises:
        MeasureError: two of them in one result cannot be told apart.
    """
    if is_whole and len(first) == len(second) == 1:
        return Pairing(pairs=((first[0], second[0]),), alone=())
    by_model = any(
        count > 1
        for measured in (first, second)
        for count in Counter(each.device_name for each in measured).values()
    )
    ours, theirs = (_index(measured, by_model=by_model) for measured in (first, second))
    return Pairing(
        pairs=tuple((ours[key], theirs[key]) for key in ours if key in theirs),
        alone=tuple(key for key in {**ours, **theirs} if key not in ours or key not in theirs),
    )


def _index(measured: Sequence[Measurement], *, by_model: bool) -> dict[Key, Measurement]:
    indexed: dict[Key, Measurement] = {}
    for each in measured:
        key: Key = (each.device_name,)
        if by_model:
            key = (each.device_name, each.model.name, each.model.recipe or "")
        if key in indexed:
            which = clean_text(f"{each.model.name} on {each.device_name}", limit=400)
            raise MeasureError(
                "expected one measurement of each model on each device, but there are several of "
                f"{which}",
                remedy="Measure what is to be compared into a file of its own.",
            )
        indexed[key] = each
    return indexed
