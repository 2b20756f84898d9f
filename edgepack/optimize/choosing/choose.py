"""Choosing a variant among those inside the floors, by what was measured; pure.

- Latency counts only where it was measured on the device the model is for. The float model is the
  bound: only a variant whose 95% interval lies wholly below the float model's is shown to be
  quicker, and only such a one is chosen over it. Among these, all whose intervals overlap that of
  the quickest are tied. Without a measurement the target's order of schemes decides, and within a
  scheme what its recipe says of speed: the fewest layers of another scheme, then the most
  channels gone.
- Memory is that of an inference where it was measured, if need be on this machine; it varies
  between launches, and ranges that overlap the least one's are tied.
- Size is exact: bytes of the flatbuffer.

Of tied variants the one with the highest fidelity is chosen, then the smallest. An overlap with the
float model's latency is a tie with it, which it wins, as nothing is nearer to it than itself. So
when nothing else fits, the float model is chosen, and the reason says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from edgepack.fidelity import Fidelity
from edgepack.profile import Scheme


class Objective(StrEnum):
    """What the best variant is best in."""

    LATENCY = "latency"
    SIZE = "size"
    MEMORY = "memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A variant as the choice sees it.

    Attributes:
        name: the recipe's name.
        scheme: its representation, for the target's order of preference.
        num_bytes: size of the flatbuffer.
        fidelity: against the float model.
        num_exceptions: layers that have not that representation.
        channel_share: of the multiplications that went with whole channels.
        outside: why it is outside the floors; empty inside.
        median_ns: latency where it will run; None when it was not measured there.
        median_ci95_ns: its interval over launches; None when there were too few.
        measured_on: the device it was measured on.
        memory_bytes: most that an inference took, in the median over launches; None when unknown.
        memory_range_bytes: least and most of any launch.
        memory_on: where that was seen.
        is_reference: whether it is the float model itself, whatever its floors say.
    """

    name: str
    scheme: Scheme
    num_bytes: int
    fidelity: Fidelity
    num_exceptions: int = 0
    channel_share: float = 0.0
    outside: tuple[str, ...] = ()
    median_ns: float | None = None
    median_ci95_ns: tuple[float, float] | None = None
    measured_on: str | None = None
    memory_bytes: int | None = None
    memory_range_bytes: tuple[int, int] | None = None
    memory_on: str | None = None
    is_reference: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether it may be chosen."""
        return self.is_reference or not self.outside

    @property
    def interval_ns(self) -> tuple[float, float] | None:
        """The interval its latency is compared by; the median alone when there is none."""
        if self.median_ns is None:
            return None
        return self.median_ci95_ns or (self.median_ns, self.median_ns)

    @property
    def memory_ends(self) -> tuple[int, int] | None:
        """The range its memory is compared by."""
        if self.memory_bytes is None:
            return None
        return self.memory_range_bytes or (self.memory_bytes, self.memory_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which candidate was chosen and why.

    Attributes:
        index: position of the chosen candidate; None when none is inside the floors.
        reason: one sentence for people.
        measured_on: the device whose latency decided; None when latency did not decide.
        tied: positions of all candidates that latency did not tell from the best, in order.
        nearest: position of the candidate that misses the floors least, when none is inside.
    """

    index: int | None
    reason: str
    measured_on: str | None = None
    tied: tuple[int, ...] = ()
    nearest: int | None = None


def choose(
    candidates: Sequence[Candidate],
    *,
    objective: Objective,
    schemes: Sequence[Scheme] = (),
) -> Choice:
    """Choose among the candidates inside the floors; the candidates' order does not matter.

    By latency: the rules of the module. A candidate that was not measured while others were could
    not run there, and is passed over. When none was measured where it will run, `schemes` decides,
    best first, and then the recipes. By size: the smallest, then the highest fidelity. By memory:
    the least, where ranges that overlap are tied; without any measurement, size decides.

    Args:
        candidates: at least one.
        objective: what to be best in.
        schemes: the target profile's order of preference.

    Raises:
        ValueError: no candidates, or figures of different devices.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    inside = [i for i, candidate in enumerate(candidates) if candidate.is_inside]
    if not inside:
        return _choose_none(candidates)
    if objective is Objective.SIZE:
        return _choose_by_size(candidates, inside)
    if objective is Objective.MEMORY:
        known = [i for i in inside if candidates[i].memory_bytes is not None]
        _check_devices("memory", {candidates[i].memory_on for i in known})
        if known:
            return _choose_by_memory(candidates, known)
        smallest = _choose_by_size(candidates, inside)
        return replace(smallest, reason=f"memory was not measured: {smallest.reason}")
    measured = [i for i in inside if candidates[i].median_ns is not None]
    _check_devices("latencies", {candidates[i].measured_on for i in measured})
    if not measured:
        return _choose_by_preference(candidates, inside, schemes)
    return _choose_by_latency(candidates, measured)


def _check_devices(figures: str, devices: set[str | None]) -> None:
    if len(devices) > 1:
        raise ValueError(f"{figures} of different devices cannot be compared: {devices}")


def _choose_by_latency(candidates: Sequence[Candidate], inside: Sequence[int]) -> Choice:
    reference = next((i for i in inside if candidates[i].is_reference), None)
    allowed = list(inside)
    if reference is not None:
        allowed = [
            i for i in inside if i == reference or _is_below(candidates[i], candidates[reference])
        ]
    quickest = min(allowed, key=lambda i: (candidates[i].median_ns, *_rank(candidates[i])))
    # Where the float model is the quickest that is allowed, what overlaps it lost the tie to it.
    among = inside if quickest == reference else allowed
    tied = tuple(i for i in among if _overlap(candidates[i], candidates[quickest]))
    index = min(tied, key=lambda i: _rank(candidates[i]))
    device = candidates[index].measured_on
    name = candidates[index].name
    if index == reference and len(inside) > 1:
        others = [candidates[i].name for i in inside if i != reference]
        which = others[0] if len(others) == 1 else f"none of {', '.join(sorted(others))}"
        is_shown = "is not shown" if len(others) == 1 else "is shown"
        reason = f"{which} {is_shown} to be quicker on {device} than {name}, which stays"
    elif len(tied) == 1:
        reason = f"{name} is {_best('quickest', inside)} on {device}"
    else:
        names = ", ".join(sorted(candidates[i].name for i in tied))
        reason = (
            f"no difference in latency is shown on {device} between {names}; {name} is nearest "
            "to the float model"
        )
    return Choice(index=index, reason=reason, measured_on=device, tied=tied)


def _choose_by_size(candidates: Sequence[Candidate], inside: Sequence[int]) -> Choice:
    index = min(inside, key=lambda i: (candidates[i].num_bytes, *_rank(candidates[i])))
    return Choice(index=index, reason=f"{candidates[index].name} is {_best('smallest', inside)}")


def _choose_by_memory(candidates: Sequence[Candidate], inside: Sequence[int]) -> Choice:
    least = min(inside, key=lambda i: (candidates[i].memory_bytes, *_rank(candidates[i])))
    bound = candidates[least].memory_ends
    tied = tuple(i for i in inside if _share_a_point(candidates[i].memory_ends, bound))
    index = min(tied, key=lambda i: _rank(candidates[i]))
    name, device = candidates[index].name, candidates[index].memory_on
    if len(tied) == 1:
        words = _best("leanest", inside)
        reason = f"{name} is {words}, by the memory an inference took on {device}"
    else:
        names = ", ".join(sorted(candidates[i].name for i in tied))
        reason = (
            f"no difference in memory is shown on {device} between {names}; {name} is nearest "
            "to the float model"
        )
    return Choice(index=index, reason=reason, tied=tied)


def _choose_by_preference(
    candidates: Sequence[Candidate], inside: Sequence[int], schemes: Sequence[Scheme]
) -> Choice:
    order = {scheme: position for position, scheme in enumerate(schemes)}

    def place(i: int) -> int:
        return order.get(candidates[i].scheme, len(order))

    def preference(i: int) -> tuple[object, ...]:
        each = candidates[i]
        return (place(i), each.num_exceptions, -each.channel_share, *_rank(each))

    index = min(inside, key=preference)
    chosen = candidates[index]
    others = [candidates[i] for i in inside if place(i) == place(index) and i != index]
    fewer = (
        " with the fewest layers of another"
        if any(each.num_exceptions > chosen.num_exceptions for each in others)
        else ""
    )
    return Choice(
        index=index,
        reason=f"{chosen.name} is the first of the target's schemes inside the floors{fewer}; "
        "not measured on the target",
    )


def _choose_none(candidates: Sequence[Candidate]) -> Choice:
    nearest = min(
        range(len(candidates)),
        key=lambda i: (len(candidates[i].outside), *_rank(candidates[i])),
    )
    missed = "; ".join(candidates[nearest].outside)
    return Choice(
        index=None,
        nearest=nearest,
        reason=f"no variant is inside the floors; the nearest is {candidates[nearest].name}: "
        f"{missed}",
    )


def _rank(candidate: Candidate) -> tuple[bool, float, int, str]:
    """Order by fidelity, then size; the name makes ties the same in every order."""
    return (
        not candidate.is_reference,
        -candidate.fidelity.sqnr_db,
        candidate.num_bytes,
        candidate.name,
    )


def _overlap(first: Candidate, second: Candidate) -> bool:
    return _share_a_point(first.interval_ns, second.interval_ns)


def _is_below(candidate: Candidate, reference: Candidate) -> bool:
    ours, theirs = candidate.interval_ns, reference.interval_ns
    return ours is not None and theirs is not None and ours[1] < theirs[0]


def _share_a_point(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool:
    return (
        first is not None and second is not None and first[0] <= second[1] and second[0] <= first[1]
    )


def _best(word: str, inside: Sequence[int]) -> str:
    if len(inside) == 1:
        return "the only variant inside the floors"
    return f"the {word} of {len(inside)} variants inside the floors"
