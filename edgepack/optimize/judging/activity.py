"""Whether calibration data are enough, and like what a model is evaluated on.

Ranges of activations are set by what calibration samples reach. So a float model's tensors are
watched on both halves of the calibration data and on the evaluation data, in one pass.

- Halves: the ranges of a tensor overlap by the length both have in common, as a share of that of
  either. When the halves disagree, more samples would have given other ranges. A tenth of the
  tensors of PP-OCRv4's detector overlaps by less than 0.81 with 48 pages, 0.75 with 16, 0.63 with
  8 and 0.46 with 2; of EfficientNet-Lite0's, many of whose end at 6, by 0.92 with 72 crops and
  0.75 with 2.
- Unlike: evaluation reaches beyond calibration's range by a share of its width, or its mean lies
  away from calibration's by a share of calibration's standard deviation. Like data gave up to 0.43
  and 0.1 in both models with 16 samples or more; pixels from 0 to 1 instead of -1 to 1 shift the
  input by 1.0, those from 0 to 255 by 157, and noise reaches 2.0 beyond.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from edgepack._fields import Fields
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.errors import ModelError
from edgepack.evaluate import Feeds
from edgepack.model import Model
from edgepack.optimize.judging import activity_worker
from edgepack.optimize.judging import findings as findings_module
from edgepack.optimize.judging.evaluation import digest_feeds
from edgepack.optimize.judging.findings import (
    Finding,
    FindingKind,
    Severity,
    findings_to_json,
    read_findings,
)
from edgepack.optimize.walking.pass_process import run_pass

_TIMEOUT_SECONDS: Final = 1800.0
_RECORD: Final = "findings.json"
# Of each half and of the evaluation data: 0.1 s each with a detector of 265 tensors.
_MOST_SAMPLES: Final = 16
_FEWEST_SAMPLES: Final = 4
_OVERLAP: Final = 0.7
_TENTH: Final = 0.1
_INPUT_EXCESS: Final = 0.25
_EXCESS: Final = 0.5
_SHIFT: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """What one tensor held on a set of samples.

    Attributes:
        low: least value.
        high: largest value.
        mean: of its values.
        std: their standard deviation.
    """

    low: float
    high: float
    mean: float
    std: float

    @property
    def width(self) -> float:
        """From least to largest."""
        return self.high - self.low


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorActivity:
    """What one tensor held.

    Attributes:
        tensor: its name.
        first: on the first half of the calibration data.
        second: on the second half.
        evaluation: on the evaluation data.
    """

    tensor: str
    first: Extent
    second: Extent
    evaluation: Extent

    @property
    def overlap(self) -> float:
        """Length that both halves' ranges have in common, as a share of that of either."""
        either = max(self.first.high, self.second.high) - min(self.first.low, self.second.low)
        common = min(self.first.high, self.second.high) - max(self.first.low, self.second.low)
        return max(0.0, common) / either if either else 1.0

    @property
    def calibration(self) -> Extent:
        """Both halves together, as if of the same size."""
        first, second = self.first, self.second
        mean = (first.mean + second.mean) / 2
        square = (first.std**2 + first.mean**2 + second.std**2 + second.mean**2) / 2
        return Extent(
            low=min(first.low, second.low),
            high=max(first.high, second.high),
            mean=mean,
            std=math.sqrt(max(0.0, square - mean**2)),
        )

    @property
    def excess(self) -> float:
        """How far evaluation reaches beyond calibration, as a share of its range."""
        seen = self.calibration
        beyond = max(self.evaluation.high - seen.high, seen.low - self.evaluation.low, 0.0)
        return beyond / seen.width if seen.width else 0.0

    @property
    def shift(self) -> float:
        """How far the means lie apart, in calibration's standard deviations."""
        seen = self.calibration
        return abs(self.evaluation.mean - seen.mean) / seen.std if seen.std else 0.0


def check_calibration(
    model: Model, calibration: Feeds, evaluation: Feeds, *, cache: Cache
) -> tuple[Finding, ...]:
    """Say whether calibration data are too few, or unlike the evaluation data; cached.

    Raises:
        ModelError: the model cannot be run.
        CacheError: the result cannot be kept.
    """
    key = digest_parts(
        "calibration",
        model=model.sha256,
        calibration=digest_feeds(calibration),
        evaluation=digest_feeds(evaluation),
        source=source_digest(sys.modules[__name__], activity_worker, findings_module),
        engine=version("ai-edge-litert"),
    )
    folder = cache.load(key)
    if folder is not None:
        fields = Fields(json.loads((folder / _RECORD).read_bytes()))
        return read_findings(fields, "findings")
    seen = observe_activity(model, calibration, evaluation)
    num_inputs = sum(spec.dtype == "float32" for spec in model.signature.inputs)
    findings = judge_activity(seen, num_inputs=num_inputs, num_samples=len(calibration))
    record = json.dumps({"findings": findings_to_json(findings)})
    cache.store(key, {_RECORD: record.encode()})
    return findings


def judge_activity(
    seen: Sequence[TensorActivity], *, num_inputs: int, num_samples: int
) -> tuple[Finding, ...]:
    """Judge what tensors held; pure.

    Args:
        seen: the inputs first.
        num_inputs: how many of them are inputs.
        num_samples: in the calibration data.
    """
    findings = [*_find_few(seen, num_samples), *_find_unlike(seen, num_inputs)]
    return tuple(findings)


def _find_few(seen: Sequence[TensorActivity], num_samples: int) -> Iterator[Finding]:
    remedy = "Give more calibration samples, as varied as what the model will see; 100 to 500 do"
    if num_samples < _FEWEST_SAMPLES:
        yield _doubt(
            FindingKind.FEW_SAMPLES,
            f"calibration has {num_samples} sample{'' if num_samples == 1 else 's'}: ranges of "
            "activations hang on each of them",
            remedy,
        )
        return
    ordered = sorted(seen, key=lambda each: each.overlap)
    if not ordered:
        return
    tenth = ordered[int(_TENTH * (len(ordered) - 1))]
    if tenth.overlap < _OVERLAP:
        worst = ordered[0]
        yield _doubt(
            FindingKind.FEW_SAMPLES,
            f"the halves of the {num_samples} calibration samples disagree: in a tenth of the "
            f"tensors their ranges have {tenth.overlap:.0%} or less in common (the least "
            f"{worst.overlap:.0%}, in {worst.tensor!r}: {_range(worst.first)} and "
            f"{_range(worst.second)})",
            remedy,
        )


def _find_unlike(seen: Sequence[TensorActivity], num_inputs: int) -> Iterator[Finding]:
    remedy = (
        "See that both are preprocessed alike, and calibrate with samples like those the model "
        "will see"
    )
    inputs = [
        each for each in seen[:num_inputs] if each.excess >= _INPUT_EXCESS or each.shift >= _SHIFT
    ]
    for each in inputs:
        known = each.calibration
        yield _doubt(
            FindingKind.UNLIKE_SAMPLES,
            f"input {each.tensor!r} is unlike in evaluation: {_range(each.evaluation)} with mean "
            f"{each.evaluation.mean:.4g}, but {_range(known)} with mean {known.mean:.4g} in "
            "calibration",
            remedy,
        )
    if inputs:
        return
    inner = seen[num_inputs:]
    far = [each for each in inner if each.excess >= _EXCESS or each.shift >= _SHIFT]
    if far and len(far) >= _TENTH * len(inner):
        worst = max(far, key=lambda each: max(each.excess, each.shift))
        yield _doubt(
            FindingKind.UNLIKE_SAMPLES,
            f"evaluation data are unlike calibration data in {len(far)} of {len(inner)} tensors: "
            f"{worst.tensor!r} holds {_range(worst.evaluation)}, but {_range(worst.calibration)} "
            "in calibration",
            remedy,
        )


def _doubt(kind: FindingKind, text: str, remedy: str) -> Finding:
    return Finding(kind=kind, severity=Severity.WARNING, text=text, remedy=remedy)


def _range(extent: Extent) -> str:
    return f"{extent.low:.4g} to {extent.high:.4g}"


def observe_activity(
    model: Model, calibration: Feeds, evaluation: Feeds
) -> tuple[TensorActivity, ...]:
    """Run a float model on calibration and evaluation data and give what its tensors held.

    At most 16 samples of each half and of the evaluation data, evenly spread, take part.

    Raises:
        ModelError: the model cannot be run.
    """
    halves = _halve(calibration, is_stream=model.is_stream)
    sets = [_spread(each) for each in (*halves, evaluation)]
    groups = [group for group, feeds in enumerate(sets) for _ in feeds]
    request = {"groups": groups, "stream": model.is_stream}

    def explain(reason: str) -> ModelError:
        return ModelError(
            f"watching the model's tensors failed: {reason}",
            remedy="Convert the model again; `edgepack inspect` lists its ops.",
        )

    feeds = [feed for each in sets for feed in each]
    with run_pass(
        "edgepack.optimize.judging.activity_worker", model, feeds, request, explain=explain
    ) as done:
        answer = done.facts
    return tuple(
        TensorActivity(
            tensor=name,
            first=_extent(first),
            second=_extent(second),
            evaluation=_extent(third),
        )
        for name, first, second, third in zip(answer["tensors"], *answer["groups"], strict=True)
        if first and second and third
    )


def _halve(feeds: Feeds, *, is_stream: bool) -> tuple[Feeds, Feeds]:
    middle = len(feeds) // 2
    return (feeds[:middle], feeds[middle:]) if is_stream else (feeds[::2], feeds[1::2])


def _spread(feeds: Feeds) -> Feeds:
    return feeds[:: -(-len(feeds) // _MOST_SAMPLES)] if feeds else feeds


def _extent(figures: Sequence[float]) -> Extent:
    low, high, total, squares, count = figures
    mean = total / count
    return Extent(low=low, high=high, mean=mean, std=math.sqrt(max(0.0, squares / count - mean**2)))
