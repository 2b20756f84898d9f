"""What each layer costs, measured: against running the model with that layer changed."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.cache import Cache
from edgepack.comparison import ratio_db
from edgepack.errors import DataError, EdgePackError, OptimizeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import read_flatbuffer
from edgepack.graph import read_constant
from edgepack.model import Model
from edgepack.optimize.ranking.sensitivity import (
    Evidence,
    Precision,
    Sensitivity,
    analyze_sensitivity,
    find_gains,
)
from edgepack.optimize.walking.emulation import round_symmetric
from edgepack.optimize.walking.excerpt import ExcerptRunner, cut_excerpt
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.models import came_as, make_feeds, small_model, with_custom_op
from tests.fixtures.sensitivity import digits_feeds


def _analyze(model: Model, feeds: Feeds) -> Sensitivity:
    with tempfile.TemporaryDirectory() as folder:
        return analyze_sensitivity(
            model, feeds, cache=Cache(root=Path(folder)), on_progress=lambda _: None
        )


def _true_db(model: Model, name: str, num_bits: int) -> float:
    """Run the whole model with one layer's weights rounded."""
    tree: Any = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    layer = next(each for each in find_layers(tree) if each.name == name)
    weights = read_constant(tree, layer.weights)
    assert weights is not None
    rounded = round_symmetric(weights, axis=layer.channel_axis, num_bits=num_bits)
    answers = []
    for constants in ({}, {layer.weights: rounded}):
        whole = cut_excerpt(
            tree, 0, len(graph.operators), outputs=[int(graph.outputs[0])], constants=constants
        )
        with ExcerptRunner(whole) as runner:
            given = [runner.run({runner.inputs[0]: feed[0]}) for feed in digits_feeds()]
        answers.append(np.concatenate([each[whole.outputs[0]] for each in given]).astype(float))
    noise = float(np.sum((answers[0] - answers[1]) ** 2))
    return ratio_db(float(np.sum(answers[0] ** 2)), noise)


def test_every_layer_has_every_precision_in_the_order_they_run(
    digits_model: Model, digits_sensitivity: Sensitivity
) -> None:
    layers = find_layers(read_flatbuffer(digits_model.data))
    for precision in Precision:
        entries = digits_sensitivity.at(precision)
        assert [each.layer for each in entries] == [each.name for each in layers]
        assert [each.num_macs for each in entries] == [each.num_macs for each in layers]
    assert digits_sensitivity.num_samples == 8


@pytest.mark.parametrize(
    ("precision", "num_bits"),
    [(Precision.WEIGHT_ONLY_INT8, 8), (Precision.WEIGHT_ONLY_INT4, 4)],
)
def test_costs_are_near_those_of_one_layer_at_a_time(
    digits_model: Model, digits_sensitivity: Sensitivity, precision: Precision, num_bits: int
) -> None:
    for each in digits_sensitivity.at(precision):
        true_db = _true_db(digits_model, each.layer, num_bits)
        limit_db = 5.0 if each.evidence is Evidence.ESTIMATED else 3.0
        assert abs(each.output_sqnr_db - true_db) < limit_db, each


def test_fewer_bits_cost_more(digits_sensitivity: Sensitivity) -> None:
    half, eight, whole, four = (
        [each.local_sqnr_db for each in digits_sensitivity.at(precision)]
        for precision in (
            Precision.FLOAT16,
            Precision.WEIGHT_ONLY_INT8,
            Precision.INT8,
            Precision.WEIGHT_ONLY_INT4,
        )
    )
    for levels_db in zip(half, eight, four, strict=True):
        assert list(levels_db) == sorted(levels_db, reverse=True)
    assert all(with_inputs < alone for with_inputs, alone in zip(whole, eight, strict=True))


def test_the_worst_are_measured_and_it_takes_less_than_one_by_one(
    digits_sensitivity: Sensitivity, digits_steps: list[str]
) -> None:
    for precision in (Precision.WEIGHT_ONLY_INT8, Precision.INT8, Precision.WEIGHT_ONLY_INT4):
        assert Evidence.MEASURED in {each.evidence for each in digits_sensitivity.at(precision)}
    assert 0 < digits_sensitivity.num_evaluations < len(digits_sensitivity.layers)
    assert digits_steps[0] == "probing 5 layers on 8 samples"


def test_a_shift_of_the_mean_is_told_from_noise() -> None:
    # All inputs are alike, so that every error of the weights is a shift and nothing else.
    model = small_model("cnn")
    spec = model.signature.inputs[0]
    feeds = [(np.full(spec.shape, 0.5, np.float32),)] * 4
    tree: Any = read_flatbuffer(model.data)
    last = find_layers(tree)[-1]
    found = _analyze(model, feeds)
    entry = next(each for each in found.at(Precision.WEIGHT_ONLY_INT8) if each.layer == last.name)
    assert entry.mean_shift_share > 0.999
    assert entry.corrected_sqnr_db > entry.output_sqnr_db + 60


def test_a_second_analysis_is_the_kept_one(
    digits_model: Model, digits_sensitivity: Sensitivity, sensitivity_cache: Cache
) -> None:
    steps: list[str] = []
    again = analyze_sensitivity(
        digits_model, digits_feeds(), cache=sensitivity_cache, on_progress=steps.append
    )
    assert again == digits_sensitivity
    assert steps == []


def test_models_of_two_inputs_and_outputs_are_analyzed() -> None:
    model = small_model("two")
    found = _analyze(model, make_feeds(model, num_samples=3))
    assert found.num_samples == 3
    assert all(math.isfinite(each.output_sqnr_db) for each in found.layers)


def test_float16_weights_are_analyzed_as_float32() -> None:
    model = came_as("float16")
    found = _analyze(model, make_feeds(model, num_samples=2))
    # They lose nothing by becoming what they are.
    assert all(each.output_sqnr_db == 300.0 for each in found.at(Precision.FLOAT16))
    # Two samples are all there are, so that nothing is left to measure again.
    assert {each.evidence for each in found.at(Precision.INT8)} == {Evidence.MEASURED}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8", "expected a float model to analyze, but"),
        ("stream", "which a model with state between samples does not allow"),
        ("loop", "which a model with a loop or branch does not allow"),
    ],
)
def test_what_cannot_be_analyzed_is_refused(name: str, message: str) -> None:
    model = came_as(name)
    with pytest.raises(OptimizeError) as caught:
        _analyze(model, make_feeds(model, num_samples=2))
    assert message in caught.value.message
    assert caught.value.remedy


def test_no_samples_and_unknown_ops_are_refused(digits_model: Model) -> None:
    with pytest.raises(DataError, match="no samples were given"):
        _analyze(digits_model, ())
    model = with_custom_op(small_model("cnn"), "Mystery")
    with pytest.raises(EdgePackError) as caught:
        _analyze(model, make_feeds(model, num_samples=1))
    assert "Mystery" in caught.value.message or "constant float weights" in caught.value.message


@given(
    noise=st.floats(1e-9, 1.0),
    share=st.floats(0.01, 0.99),
    shift=st.floats(0.01, 100.0),
    rest=st.floats(0.01, 100.0),
)
def test_gains_are_found_again(noise: float, share: float, shift: float, rest: float) -> None:
    record = {
        "noise": noise,
        "shift_share": share,
        "output_db": ratio_db(1.0, noise * (share * shift + (1 - share) * rest)),
        "rest_db": ratio_db(1.0, noise * (1 - share) * rest),
    }
    gains = find_gains(record)
    assert math.isclose(gains.rest, rest, rel_tol=1e-6)
    assert math.isclose(gains.shift, shift, rel_tol=1e-3, abs_tol=1e-6)


def test_an_error_of_nothing_tells_no_gain() -> None:
    gains = find_gains({"noise": 0.0, "shift_share": 0.0, "output_db": 300.0, "rest_db": 300.0})
    assert (gains.shift, gains.rest) == (1.0, 1.0)
