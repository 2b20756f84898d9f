"""Choosing a variant: floors that none may fall below, then what was measured; pure.

The rules are those of `docs/architecture.md`: latency counts only where it was measured on
the device the model is for; among variants whose intervals overlap the best one's, the
highest fidelity wins, then the smallest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgepack.errors import UsageError
from edgepack.fidelity import Fidelity
from edgepack.profile import Scheme


class Objective(StrEnum):
    """What the best variant is best in."""

    LATENCY = "latency"
    SIZE = "size"


@dataclass(frozen=True, kw_only=True, slots=True)
class Floors:
    """What a variant must keep of the float model.

    Attributes:
        min_sqnr_db: least SQNR of every output.
        min_agreement: least top-1 agreement of every class output, judged on the point
            estimate.
        max_drop: most percentage points of accuracy lost; needs labels, and stands in place
            of the other two. None is no such limit.
    """

    min_sqnr_db: float = 20.0
    min_agreement: float = 0.9
    max_drop: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A variant as the choice sees it.

    Attributes:
        name: the recipe's name.
        scheme: its representation, for the target's order of preference.
        num_bytes: size of the flatbuffer.
        fidelity: against the float model.
        outside: why it is outside the floors; empty inside.
        median_ns: latency where it will run; None when it was not measured there.
        median_ci95_ns: its interval over launches; None when there were too few.
        measured_on: the device it was measured on.
    """

    name: str
    scheme: Scheme
    num_bytes: int
    fidelity: Fidelity
    outside: tuple[str, ...] = ()
    median_ns: float | None = None
    median_ci95_ns: tuple[float, float] | None = None
    measured_on: str | None = None

    @property
    def interval_ns(self) -> tuple[float, float] | None:
        """The interval its latency is compared by; the median alone when there is none."""
        if self.median_ns is None:
            return None
        return self.median_ci95_ns or (self.median_ns, self.median_ns)


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


def judge(fidelity: Fidelity, floors: Floors) -> tuple[str, ...]:
    """Say why a variant is outside the floors; an empty tuple when it is inside.

    Raises:
        UsageError: a limit on lost accuracy without labels to measure it by.
    """
    reasons = [
        f"output {output.output!r} holds {output.num_non_finite} NaN or infinite values"
        for output in fidelity.outputs
        if output.num_non_finite
    ]
    if floors.max_drop is not None:
        if fidelity.drop_points is None or fidelity.accuracy is None:
            raise UsageError(
                "--max-drop limits the accuracy lost, but without labels there is no accuracy",
                remedy="Give labels with --labels or in the data, or use --min-sqnr and "
                "--min-agreement.",
            )
        if fidelity.drop_points > floors.max_drop:
            reasons.append(
                f"accuracy {100 * fidelity.accuracy:.1f}% is {fidelity.drop_points:.1f} points "
                f"below the float model's{_interval(fidelity.drop_points_ci95)}, above "
                f"{floors.max_drop:g}"
            )
        return tuple(reasons)
    for output in fidelity.outputs:
        is_judged = not output.num_non_finite and not output.is_index
        if is_judged and output.sqnr_db < floors.min_sqnr_db:
            reasons.append(
                f"output {output.output!r}: SQNR {output.sqnr_db:.1f} dB is below "
                f"{floors.min_sqnr_db:g} dB"
            )
        agreement = output.top1_agreement
        if agreement is not None and agreement < floors.min_agreement:
            reasons.append(
                f"output {output.output!r}: top-1 agreement {100 * agreement:.1f}% is below "
                f"{100 * floors.min_agreement:g}%"
            )
    return tuple(reasons)


def choose(
    candidates: Sequence[Candidate],
    *,
    objective: Objective,
    schemes: Sequence[Scheme] = (),
) -> Choice:
    """Choose among the candidates inside the floors; the candidates' order does not matter.

    By latency: those whose interval overlaps that of the quickest, then the highest fidelity,
    then the smallest; a candidate that was not measured while others were could not run there,
    and is passed over. When none was measured where it will run, `schemes` decides, best
    first. By size: the smallest, then the highest fidelity.

    Args:
        candidates: at least one.
        objective: what to be best in.
        schemes: the target profile's order of preference.

    Raises:
        ValueError: no candidates, or latencies of different devices.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    inside = [i for i, candidate in enumerate(candidates) if not candidate.outside]
    if not inside:
        return _choose_none(candidates)
    if objective is Objective.SIZE:
        index = min(inside, key=lambda i: (candidates[i].num_bytes, *_rank(candidates[i])))
        return Choice(
            index=index,
            reason=f"{candidates[index].name} is {_best('smallest', inside)}",
        )
    measured = [i for i in inside if candidates[i].median_ns is not None]
    devices = {candidates[i].measured_on for i in measured}
    if len(devices) > 1:
        raise ValueError(f"latencies of different devices cannot be compared: {devices}")
    if not measured:
        return _choose_by_preference(candidates, inside, schemes)
    return _choose_by_latency(candidates, measured)


def _choose_by_latency(candidates: Sequence[Candidate], inside: Sequence[int]) -> Choice:
    quickest = min(inside, key=lambda i: (candidates[i].median_ns, *_rank(candidates[i])))
    tied = tuple(i for i in inside if _overlap(candidates[i], candidates[quickest]))
    index = min(tied, key=lambda i: _rank(candidates[i]))
    device = candidates[index].measured_on
    name = candidates[index].name
    if len(tied) == 1:
        reason = f"{name} is {_best('quickest', inside)} on {device}"
    else:
        names = ", ".join(sorted(candidates[i].name for i in tied))
        reason = (
            f"no difference in latency is shown on {device} between {names}; {name} is nearest "
            "to the float model"
        )
    return Choice(index=index, reason=reason, measured_on=device, tied=tied)


def _choose_by_preference(
    candidates: Sequence[Candidate], inside: Sequence[int], schemes: Sequence[Scheme]
) -> Choice:
    order = {scheme: position for position, scheme in enumerate(schemes)}

    def preference(i: int) -> tuple[object, ...]:
        return (order.get(candidates[i].scheme, len(order)), *_rank(candidates[i]))

    index = min(inside, key=preference)
    return Choice(
        index=index,
        reason=f"{candidates[index].name} is the first of the target's schemes inside the "
        "floors; not measured on the target",
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


def _rank(candidate: Candidate) -> tuple[float, int, str]:
    """Order by fidelity, then size; the name makes ties the same in every order."""
    return (-candidate.fidelity.sqnr_db, candidate.num_bytes, candidate.name)


def _overlap(first: Candidate, second: Candidate) -> bool:
    ours, theirs = first.interval_ns, second.interval_ns
    if ours is None or theirs is None:
        return False
    return ours[0] <= theirs[1] and theirs[0] <= ours[1]


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" (95%: {interval[0]:.1f} to {interval[1]:.1f})"


def _best(word: str, inside: Sequence[int]) -> str:
    if len(inside) == 1:
        return "the only variant inside the floors"
    return f"the {word} of {len(inside)} variants inside the floors"
