"""What a comparison of outputs gives; `edgepack.fidelity` defines each figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgepack.comparison import LIMIT_DB

Outputs = Sequence[Sequence[NDArray[Any]]]
"""One sequence of output arrays for each sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFidelity:
    """How near one output is to the reference.

    Attributes:
        output: name of the output.
        sqnr_db: over all samples, -300 to 300.
        max_abs_error: largest absolute difference of finite values.
        cosine: similarity of the two as vectors, -1 to 1.
        sqnr_ci95_db: the SQNR's interval over samples; None for ids, and where there is none:
            of one sample, or of values that are not finite.
        worst_channel: its index; None for an output without channels.
        worst_channel_axis: the axis that was taken for the channels'.
        worst_channel_sqnr_db: its SQNR.
        top1_agreement: share of rows with the same largest class; None for other outputs.
        top1_agreement_ci95: its interval.
        num_non_finite: candidate's NaNs and infinities where the reference has another value.
        is_index: whether it holds ids, which are the same or not.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float
    sqnr_ci95_db: tuple[float, float] | None = None
    worst_channel: int | None = None
    worst_channel_axis: int | None = None
    worst_channel_sqnr_db: float | None = None
    top1_agreement: float | None = None
    top1_agreement_ci95: tuple[float, float] | None = None
    num_non_finite: int = 0
    is_index: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricFidelity:
    """What the user's own metric says of both models; higher is better.

    Attributes:
        name: `module:function` or `file.py:function`.
        reference: its value for the float model's outputs.
        candidate: its value for the candidate's; None when that is no finite number.
        drop_ci95: interval of what was lost, over samples; None where there is none: of too
            few samples, or of a metric that cannot be taken of a part of them.
    """

    name: str
    reference: float
    candidate: float | None
    drop_ci95: tuple[float, float] | None = None

    @property
    def drop(self) -> float | None:
        """What was lost against the reference, in the metric's own points."""
        return None if self.candidate is None else self.reference - self.candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """How near a candidate's outputs are to the float reference's.

    Attributes:
        outputs: one entry for each output, in the model's order.
        num_samples: samples that were compared.
        top1_agreement: of the class output that agrees least; None without a class output.
        top1_agreement_ci95: its interval.
        accuracy: share of samples whose label is the largest class of the first class output;
            None without labels.
        accuracy_ci95: its Wilson interval.
        reference_accuracy: the float reference's accuracy on the same samples.
        drop_points: percentage points lost against the reference; negative when better.
        drop_points_ci95: its interval for paired samples (Bonett and Price 2012).
        metric: what the user's own metric says; None without one.
    """

    outputs: tuple[OutputFidelity, ...]
    num_samples: int
    top1_agreement: float | None = None
    top1_agreement_ci95: tuple[float, float] | None = None
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    reference_accuracy: float | None = None
    drop_points: float | None = None
    drop_points_ci95: tuple[float, float] | None = None
    metric: MetricFidelity | None = None

    @property
    def sqnr_db(self) -> float:
        """The worst output's SQNR."""
        return min((output.sqnr_db for output in self.outputs), default=LIMIT_DB)
