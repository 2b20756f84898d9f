"""Models that broke down without a word, and those that did not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgepack._fields import Fields
from edgepack.evaluate import run_model
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import Model, read_model
from edgepack.optimize.judging.collapse import find_collapse
from edgepack.optimize.judging.findings import (
    Finding,
    FindingKind,
    Severity,
    findings_to_json,
    read_findings,
)
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.models import make_feeds, small_model

RNG = np.random.default_rng(7)


def check(reference: list[NDArray[Any]], candidate: list[NDArray[Any]]) -> tuple[Finding, ...]:
    return find_collapse([[a] for a in reference], [[a] for a in candidate], names=("y",))


def only(found: tuple[Finding, ...]) -> tuple[FindingKind, Severity, str]:
    (finding,) = found
    return finding.kind, finding.severity, finding.text


def scaled(model: Model, factor: float) -> Model:
    """Give the model with its last layer's weights and bias multiplied."""
    tree = read_flatbuffer(model.data)
    layer = find_layers(tree)[-1]
    for index in (layer.weights, layer.bias):
        values = None if index is None else read_constant(tree, index)
        if index is not None and values is not None:
            set_constant(tree, index, (values * np.float32(factor)).astype(np.float32))
    return read_model(write_flatbuffer(tree))


class TestModels:
    """Real models, really broken."""

    def test_sound_variants_have_no_findings(self) -> None:
        model = small_model("cnn")
        feeds = make_feeds(model)
        names = tuple(spec.name for spec in model.signature.outputs)
        reference = run_model(model, feeds)
        for scheme in (Scheme.FLOAT16, Scheme.DYNAMIC_RANGE, Scheme.INT8):
            variant = quantize(model, stock_recipe(scheme), make_feeds(model, seed=5)).model
            assert find_collapse(reference, run_model(variant, feeds), names=names) == ()

    def test_calibration_on_other_values_leaves_one_answer(self) -> None:
        model = small_model("cnn")
        feeds = [tuple(1000 * array for array in feed) for feed in make_feeds(model)]
        variant = quantize(model, stock_recipe(Scheme.INT8), make_feeds(model, seed=5)).model
        names = tuple(spec.name for spec in model.signature.outputs)
        found = find_collapse(run_model(model, feeds), run_model(variant, feeds), names=names)
        assert {each.severity for each in found} <= {Severity.FAULT, Severity.WARNING}
        assert {each.kind for each in found} & {FindingKind.CONSTANT, FindingKind.SATURATED}

    def test_a_layer_of_zeros_gives_one_answer(self) -> None:
        model = small_model("cnn")
        feeds = make_feeds(model)
        names = tuple(spec.name for spec in model.signature.outputs)
        broken = run_model(scaled(model, 0.0), feeds)
        found = find_collapse(run_model(model, feeds), broken, names=names)
        assert [each.kind for each in found] == [FindingKind.CONSTANT]
        assert found[0].severity is Severity.FAULT

    def test_weights_that_overflow_give_nan(self) -> None:
        model = small_model("cnn")
        feeds = make_feeds(model)
        names = tuple(spec.name for spec in model.signature.outputs)
        broken = run_model(scaled(model, np.inf), feeds)
        found = find_collapse(run_model(model, feeds), broken, names=names)
        assert [each.kind for each in found] == [FindingKind.NON_FINITE]


def test_one_value_everywhere() -> None:
    reference = [RNG.normal(size=(1, 6, 6, 3)) for _ in range(4)]
    assert only(check(reference, [np.full((1, 6, 6, 3), 0.25)] * 4)) == (
        FindingKind.CONSTANT,
        Severity.FAULT,
        (
            f"output 'y' is 0.25 everywhere, but the float model's reaches from "
            f"{min(a.min() for a in reference):.4g} to {max(a.max() for a in reference):.4g}"
        ),
    )


def test_the_same_answer_for_all_samples() -> None:
    reference = [RNG.normal(size=(1, 10)) for _ in range(4)]
    kind, severity, text = only(check(reference, [reference[0]] * 4))
    assert (kind, severity) == (FindingKind.CONSTANT, Severity.FAULT)
    assert text.startswith("output 'y' is the same for all 4 samples (they differ by 0), but the")


def test_scores_beside_boxes_become_one_number() -> None:
    # Boxes of 0 to 320 and scores of 0 to 1 in one tensor of 8 bits: a step is 1.25.
    reference = []
    for _ in range(4):
        boxes, scores = RNG.uniform(0, 320, (1, 60, 4)), RNG.uniform(0, 0.6, (1, 60, 6))
        reference.append(np.concatenate([boxes, scores], axis=2))
    step = 320 / 255
    kind, severity, text = only(check(reference, [np.round(a / step) * step for a in reference]))
    assert (kind, severity) == (FindingKind.CONSTANT, Severity.FAULT)
    assert text.startswith(
        "output 'y': 6 of 10 channels (axis 2) hold one value: channel 4 is 0, but the float "
        "model's reaches from "
    )


def test_one_silent_class_of_many_is_a_warning() -> None:
    reference = [RNG.uniform(0, 1, (1, 300, 20)) for _ in range(3)]
    candidate = [a.copy() for a in reference]
    for array in candidate:
        array[..., 3] = 0.0
    kind, severity, _ = only(check(reference, candidate))
    assert (kind, severity) == (FindingKind.CONSTANT, Severity.WARNING)


def test_empty_rows_of_a_picture_are_no_channels() -> None:
    reference = [np.zeros((1, 32, 32, 1)) for _ in range(3)]
    for index, array in enumerate(reference):
        array[0, 4 + index : 20, 8:24] = RNG.uniform(0.5, 1.0, (16 - index, 16, 1))
        array[0, 30, 5] = 0.4
    candidate = [np.where(a >= 0.5, a, 0.0) for a in reference]
    assert check(reference, candidate) == ()


def test_a_reference_that_is_constant_itself_proves_nothing() -> None:
    flat = [np.full((1, 4, 4, 2), 1.0 + 1e-6 * i) for i in range(4)]
    assert check(flat, [np.ones((1, 4, 4, 2))] * 4) == ()


def test_a_sigmoid_that_knows_only_its_ends() -> None:
    reference = [1 / (1 + np.exp(-RNG.normal(size=(1, 8, 8, 1)))) for _ in range(4)]
    kind, severity, text = only(check(reference, [np.round(a) for a in reference]))
    assert (kind, severity) == (FindingKind.SATURATED, Severity.FAULT)
    assert text == (
        "output 'y': 100% of the values that the float model has in between are stuck at 0 or 1"
    )
    half = [np.where(np.arange(64).reshape(a.shape) % 4 == 0, np.round(a), a) for a in reference]
    kind, severity, _ = only(check(reference, half))
    assert (kind, severity) == (FindingKind.SATURATED, Severity.WARNING)


def test_ends_that_the_reference_goes_beyond() -> None:
    reference = [RNG.normal(size=(1, 200)) for _ in range(6)]
    for array in reference[:3]:
        array[0, 0] = 9.0
    kind, severity, text = only(check(reference, [np.clip(a, -4, 4) for a in reference]))
    assert (kind, severity) == (FindingKind.SATURATED, Severity.WARNING)
    assert "in 3 of 6 samples the float model goes on beyond" in text


@pytest.mark.parametrize(("kept", "severity"), [(0.8, Severity.WARNING), (0.3, Severity.FAULT)])
def test_shares_that_do_not_add_up(kept: float, severity: Severity) -> None:
    exponents = [np.exp(RNG.normal(size=(1, 12))) for _ in range(5)]
    reference = [a / a.sum() for a in exponents]
    found = check(reference, [kept * a for a in reference])
    sums = [each for each in found if each.kind is FindingKind.SOFTMAX_SUM]
    assert [each.severity for each in sums] == [severity]
    assert sums[0].text == (
        f"output 'y': the float model's shares add up to 1, these to {kept:.2f} "
        f"({kept:.2f} to {kept:.2f})"
    )


def test_ids_that_are_always_the_same() -> None:
    reference = [np.array([i % 5], np.int32) for i in range(10)]
    kind, _, text = only(check(reference, [np.array([2], np.int32)] * 10))
    assert kind is FindingKind.CONSTANT
    assert text == "output 'y' is 2 everywhere, but the float model's reaches from 0 to 4"


def test_masks_of_infinity_and_outputs_of_any_shape_are_no_findings() -> None:
    masked = [np.array([[1.0, -np.inf]])] * 3
    assert check(masked, masked) == ()
    varying = [np.arange(float(i)) for i in range(4)]
    assert check(varying, varying) == ()
    assert find_collapse([], [], names=("y",)) == ()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), *[st.integers(1, 6)] * 3),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_an_equal_candidate_has_no_findings(array: NDArray[np.float32]) -> None:
    samples = [each[None] for each in array]
    assert check(samples, samples) == ()


def test_findings_travel_as_json() -> None:
    found = check([RNG.normal(size=(1, 10)) for _ in range(4)], [np.zeros((1, 10))] * 4)
    fields = Fields({"findings": findings_to_json(found)})
    assert read_findings(fields, "findings") == found
    assert fields.faults == []
