"""Calibration data that are too few, or unlike what the model is judged on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.evaluate import Feeds
from edgepack.optimize.judging import activity as activity_module
from edgepack.optimize.judging.activity import (
    Extent,
    TensorActivity,
    check_calibration,
    judge_activity,
    observe_activity,
)
from edgepack.optimize.judging.findings import FindingKind, Severity
from tests.fixtures.models import came_as, make_feeds, small_model

UNIT = Extent(low=0.0, high=1.0, mean=0.5, std=0.25)
LIKE = TensorActivity(tensor="t", first=UNIT, second=UNIT, evaluation=UNIT)


def move(feeds: Feeds, scale: float, offset: float = 0.0) -> Feeds:
    return [tuple((scale * a + offset).astype(a.dtype) for a in feed) for feed in feeds]


def test_what_tensors_hold_is_what_numpy_says() -> None:
    model = small_model("cnn")
    calibration, evaluation = make_feeds(model, num_samples=6), make_feeds(model, seed=8)
    seen = observe_activity(model, calibration, evaluation)
    first = np.concatenate([feed[0] for feed in calibration[::2]])
    assert seen[0].first.low == first.min()
    assert seen[0].first.high == first.max()
    assert seen[0].first.mean == pytest.approx(first.mean(), abs=1e-6)
    assert seen[0].first.std == pytest.approx(first.std(), rel=1e-5)
    assert len(seen) > len(model.signature.inputs)
    assert len({each.tensor for each in seen}) == len(seen)


def test_like_data_have_no_findings_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = small_model("cnn"), Cache(root=tmp_path)
    feeds = make_feeds(model, num_samples=64, seed=3)
    assert check_calibration(model, feeds[::2], feeds[1::2], cache=cache) == ()

    def never(*_: object) -> None:
        pytest.fail("the model ran although the result was kept")

    monkeypatch.setattr(activity_module, "observe_activity", never)
    assert check_calibration(model, feeds[::2], feeds[1::2], cache=cache) == ()


def test_pixels_that_were_scaled_otherwise_are_named_and_kept(tmp_path: Path) -> None:
    model, cache = small_model("cnn"), Cache(root=tmp_path)
    feeds = make_feeds(model, num_samples=64)
    first = check_calibration(model, feeds[::2], move(feeds[1::2], 255.0), cache=cache)
    assert [each.kind for each in first] == [FindingKind.UNLIKE_SAMPLES]
    assert first[0].severity is Severity.WARNING
    assert first[0].text.startswith("input '")
    assert check_calibration(model, feeds[::2], move(feeds[1::2], 255.0), cache=cache) == first


def test_a_stream_is_halved_in_the_middle() -> None:
    model = came_as("stream")
    feeds = make_feeds(model, num_samples=8)
    grown = [*feeds[:4], *move(feeds[4:], 10.0)]
    seen = observe_activity(model, grown, feeds)
    assert seen[0].second.width == pytest.approx(10 * seen[0].first.width, rel=0.5)


def test_few_samples_and_halves_that_disagree() -> None:
    (finding,) = judge_activity([LIKE], num_inputs=1, num_samples=2)
    assert finding.kind is FindingKind.FEW_SAMPLES
    assert finding.text == ("calibration has 2 samples: ranges of activations hang on each of them")
    apart = replace(LIKE, tensor="far", second=replace(UNIT, high=4.0), evaluation=UNIT)
    (finding,) = judge_activity([LIKE, apart, apart], num_inputs=1, num_samples=8)
    assert finding.text == (
        "the halves of the 8 calibration samples disagree: in a tenth of the tensors their ranges "
        "have 25% or less in common (the least 25%, in 'far': 0 to 1 and 0 to 4)"
    )
    # One of many is no matter.
    assert judge_activity([*[LIKE] * 30, apart], num_inputs=1, num_samples=8) == ()


def test_inputs_that_are_unlike_in_evaluation() -> None:
    beyond = replace(LIKE, tensor="x", evaluation=replace(UNIT, high=1.3))
    (finding,) = judge_activity([beyond, LIKE], num_inputs=1, num_samples=100)
    assert finding.text == (
        "input 'x' is unlike in evaluation: 0 to 1.3 with mean 0.5, but 0 to 1 with mean 0.5 in "
        "calibration"
    )
    shifted = replace(LIKE, tensor="x", evaluation=replace(UNIT, mean=0.7))
    assert len(judge_activity([shifted], num_inputs=1, num_samples=100)) == 1


def test_inner_tensors_that_are_unlike_count_from_a_tenth_on() -> None:
    far = replace(LIKE, tensor="deep", evaluation=replace(UNIT, high=2.0))
    assert judge_activity([LIKE, far, *[LIKE] * 19], num_inputs=1, num_samples=100) == ()
    (finding,) = judge_activity([LIKE, far, *[LIKE] * 8], num_inputs=1, num_samples=100)
    assert finding.text == (
        "evaluation data are unlike calibration data in 1 of 9 tensors: 'deep' holds 0 to 2, but 0 "
        "to 1 in calibration"
    )


def test_tensors_that_hold_one_value_are_alike() -> None:
    still = Extent(low=1.0, high=1.0, mean=1.0, std=0.0)
    same = TensorActivity(tensor="t", first=still, second=still, evaluation=still)
    assert (same.overlap, same.excess, same.shift) == (1.0, 0.0, 0.0)
