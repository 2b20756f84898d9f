"""A model's start: loading it, and its first inference, with its file on the disk or in memory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.stats import median

_NOT_ASKED = "no launch began with the model's file out of memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One kind of start.

    Attributes:
        init_ns: making the interpreter and allocating its tensors.
        first_ns: the first inference.
        total_ns: both together; of several launches each is a median of its own.
        num_launches: how many began so.
    """

    init_ns: int
    first_ns: int
    total_ns: int
    num_launches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StartFigures:
    """How long a model takes to give its first answer.

    Attributes:
        cold: of the launch before which the model's file was dropped from memory; None when none
            could be.
        warm: of the others; None when there are none.
        cold_reason: why there is no cold one.
    """

    cold: Start | None
    warm: Start | None
    cold_reason: str | None


def figure_starts(launches: Sequence[LatencyLaunch]) -> StartFigures:
    """Give the cold and the warm start of launches."""
    cold = [launch for launch in launches if launch.is_cold]
    warm = [launch for launch in launches if not launch.is_cold]
    reasons = [launch.cold_reason for launch in warm if launch.cold_reason is not None]
    reason = None if cold else reasons[0] if reasons else _NOT_ASKED
    return StartFigures(cold=_start(cold), warm=_start(warm), cold_reason=reason)


def _start(launches: Sequence[LatencyLaunch]) -> Start | None:
    if not launches:
        return None
    return Start(
        init_ns=median([launch.init_ns for launch in launches]),
        first_ns=median([launch.first_ns for launch in launches]),
        total_ns=median([launch.init_ns + launch.first_ns for launch in launches]),
        num_launches=len(launches),
    )


def to_json(figures: StartFigures) -> dict[str, object]:
    """Give the figures as JSON values; they follow from the launches."""
    return asdict(figures)
