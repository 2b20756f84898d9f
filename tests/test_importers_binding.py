import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.data import generate_samples
from edgepack.data.samples import make_samples
from edgepack.errors import ConversionError, DataError
from edgepack.importers import (
    ImportedModel,
    SourceFormat,
    SourceInfo,
    TensorBinding,
    model_feeds,
)
from edgepack.importers.binding import candidate_permutations, run_converted
from edgepack.model import Model, Signature, TensorSpec
from tests.fixtures.models import make_feeds, small_model, with_custom_op

_SOURCE = SourceInfo(
    file_name="m.onnx", format=SourceFormat.ONNX, sha256="0" * 64, versions=(), converter="onnx2tf"
)


def _imported(binding: TensorBinding, spec: TensorSpec) -> ImportedModel:
    model = Model(
        data=b"",
        signature=Signature(inputs=(spec,), outputs=()),
        op_counts=(),
    )
    return ImportedModel(model=model, source=_SOURCE, inputs=(binding,), outputs=())


@pytest.mark.parametrize(
    ("source", "model", "expected"),
    [
        ((1, 3, 48, 192), (1, 48, 192, 3), ((0, 2, 3, 1),)),
        ((1, 48, 192, 3), (1, 48, 192, 3), (None,)),
        ((1, 10), (1, 10), (None,)),
        ((1, 3, 3, 3), (1, 3, 3, 3), ((0, 2, 3, 1), None, (0, 3, 1, 2))),
        ((1, 1, 8, 8), (1, 8, 8, 1), ((0, 2, 3, 1),)),
        ((1, 5, 7), (1, 7, 5), ((0, 2, 1),)),
        ((2, 3, 4, 5), (5, 4, 3, 2), ((3, 2, 1, 0),)),
    ],
)
def test_candidates_stand_likeliest_first(
    source: tuple[int, ...],
    model: tuple[int, ...],
    expected: tuple[tuple[int, ...] | None, ...],
) -> None:
    assert candidate_permutations(source, model) == expected


def test_shapes_no_permutation_explains_are_refused() -> None:
    with pytest.raises(ConversionError, match=r"shape \(1, 3, 8\), .* has \(1, 24\)"):
        candidate_permutations((1, 3, 8), (1, 24))


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_every_candidate_gives_the_models_shape(order: list[int], shape: list[int]) -> None:
    model = tuple(shape[axis] for axis in order)
    found = candidate_permutations(tuple(shape), model)
    assert found
    for permutation in found:
        axes = range(4) if permutation is None else permutation
        assert tuple(shape[axis] for axis in axes) == model


def test_samples_are_carried_to_the_models_layout_and_type() -> None:
    source = TensorSpec(name="x", shape=(1, 3, 4, 5), dtype="float64")
    spec = TensorSpec(name="x", shape=(1, 4, 5, 3), dtype="float32")
    samples = generate_samples((source,), num_samples=2, seed=1)
    imported = _imported(TensorBinding(source=source, permutation=(0, 2, 3, 1)), spec)
    feeds = model_feeds(imported, samples)
    assert [feed[0].shape for feed in feeds] == [(1, 4, 5, 3)] * 2
    assert feeds[1][0].dtype == np.float32
    assert feeds[1][0][0, 2, 4, 1] == np.float32(samples.arrays[0][1][1, 0, 1, 2, 4])


def test_integers_the_model_cannot_hold_are_refused() -> None:
    source = TensorSpec(name="ids", shape=(1, 2), dtype="int64")
    imported = _imported(
        TensorBinding(source=source), TensorSpec(name="ids", shape=(1, 2), dtype="int32")
    )
    small = make_samples([("ids", np.array([[[1, 2]]]))])
    assert model_feeds(imported, small)[0][0].dtype == np.int32
    large = make_samples([("ids", np.array([[[1, 2**40]]]))])
    with pytest.raises(DataError, match=f"but the samples hold 1 to {2**40}"):
        model_feeds(imported, large)


def test_a_missing_array_is_named() -> None:
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    samples = make_samples([("y", np.zeros((3, 1, 2), np.float32))])
    with pytest.raises(DataError, match=r"shape \(3, 1, 2\) for input 'x', but there is none"):
        model_feeds(_imported(TensorBinding(source=spec), spec), samples)


def test_a_converted_model_that_does_not_run_is_its_converters_failure() -> None:
    model = small_model("cnn")
    assert len(run_converted(model, make_feeds(model, num_samples=2))) == 2
    broken = with_custom_op(model, "ONNX_GRIDSAMPLE")
    with pytest.raises(ConversionError) as caught:
        run_converted(broken, make_feeds(model, num_samples=1))
    assert caught.value.message.startswith("the converter wrote a model that does not run: ")
    assert "ONNX_GRIDSAMPLE" in caught.value.message
    assert caught.value.remedy == "Export the model with other operations or another opset."
