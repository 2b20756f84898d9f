from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from edgepack.child import run_child
from edgepack.errors import DataError, ModelError
from edgepack.evaluate import dequantize_array, quantize_array, run_model
from edgepack.model import Quantization, TensorSpec, read_model
from tests.fixtures.models import NAMES, came_as, make_feeds, small_model, with_custom_op


@pytest.mark.parametrize("name", NAMES)
def test_outputs_come_in_order_with_the_signature_s_shapes(name: str) -> None:
    model = small_model(name)
    outputs = run_model(model, make_feeds(model, num_samples=3))
    assert len(outputs) == 3
    for sample in outputs:
        shapes = [(array.shape, str(array.dtype)) for array in sample]
        assert shapes == [(spec.shape, spec.dtype) for spec in model.signature.outputs]


def test_each_sample_gives_what_it_gives_alone() -> None:
    model = small_model("two")
    feeds = make_feeds(model, num_samples=4)
    together = run_model(model, feeds)
    alone = run_model(model, feeds[2:3])
    for first, second in zip(together[2], alone[0], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(together[0][0], together[1][0])


def test_feeds_that_do_not_fit_are_listed_with_their_input() -> None:
    model = small_model("two")
    feeds = [(np.zeros((1, 4), np.float32), np.zeros((1, 3, 2), np.float64))]
    with pytest.raises(DataError) as caught:
        run_model(model, feeds)
    assert caught.value.message == (
        "the feeds do not fit the model: sample 0: input 'right' expects float32 (1, 2, 3), "
        "but got float64 (1, 3, 2)"
    )


def test_an_unsupported_op_is_named() -> None:
    model = with_custom_op(small_model("cnn"), "MyFancyOp")
    with pytest.raises(ModelError) as caught:
        run_model(model, make_feeds(model, num_samples=1))
    assert caught.value.message == (
        "the model needs the op MyFancyOp, which the TFLite runtime has no kernel for"
    )


def test_a_runtime_that_dies_is_an_error_naming_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = small_model("cnn")
    with pytest.raises(ModelError) as caught:
        run_model(model, make_feeds(model, num_samples=1))
    assert caught.value.message == (
        "running the model on this machine failed: the runtime was stopped by SIGSEGV"
    )


def test_a_model_that_takes_too_long_is_stopped() -> None:
    model = small_model("cnn")
    with pytest.raises(ModelError) as caught:
        run_model(model, make_feeds(model, num_samples=1), timeout_seconds=0.01)
    assert caught.value.message == (
        "expected the model to run within 0.01 s on this machine, but it did not"
    )


def test_a_truncated_constant_does_not_kill_the_caller() -> None:
    model = small_model("cnn")
    damaged = read_model(model.data)
    object.__setattr__(damaged, "data", model.data[: len(model.data) // 2])
    with pytest.raises(ModelError):
        run_model(damaged, make_feeds(model, num_samples=1))


def test_no_feeds_need_no_run() -> None:
    assert run_model(small_model("cnn"), []) == ()


def test_a_child_s_files_do_not_shadow_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    ended = run_child("edgepack.evaluate_worker", ["1"], folder=tmp_path, timeout_seconds=60)
    assert (ended.exit_code, ended.answer is None) == (0, False)


_INT8 = TensorSpec(
    name="x", shape=(3,), dtype="int8", quantization=Quantization(scales=(0.5,), zero_points=(-3,))
)


def test_quantizing_rounds_half_away_from_zero_and_saturates() -> None:
    real = np.array([0.25, -0.25, 0.75, 1e9, -1e9], np.float32)
    assert quantize_array(real, _INT8).tolist() == [-2, -4, -1, 127, -128]
    assert dequantize_array(np.array([-3, -2], np.int8), _INT8).tolist() == [0.0, 0.5]


def test_scales_along_an_axis_apply_to_their_slices() -> None:
    quantization = Quantization(scales=(1.0, 0.5), zero_points=(0, 1), axis=1)
    spec = TensorSpec(name="x", shape=(1, 2), dtype="int8", quantization=quantization)
    integers = quantize_array(np.array([[3.0, 3.0]], np.float32), spec)
    assert integers.tolist() == [[3, 7]]
    assert dequantize_array(integers, spec).tolist() == [[3.0, 3.0]]


def test_arrays_without_quantization_only_change_their_type() -> None:
    spec = TensorSpec(name="x", shape=(2,), dtype="int32")
    array = np.array([1, 2], np.int64)
    assert quantize_array(array, spec).dtype == np.int32
    assert dequantize_array(array, spec) is array


@given(
    st.floats(1e-4, 10.0),
    st.integers(-128, 127),
    st.lists(st.integers(-128, 127), min_size=1, max_size=20),
)
def test_integers_survive_the_round_trip(scale: float, point: int, values: list[int]) -> None:
    spec = TensorSpec(
        name="x",
        shape=(len(values),),
        dtype="int8",
        quantization=Quantization(scales=(scale,), zero_points=(point,)),
    )
    integers = np.array(values, np.int8)
    assert quantize_array(dequantize_array(integers, spec), spec).tolist() == values


def test_a_streams_samples_are_run_in_order_from_its_first_state() -> None:
    model = came_as("stream")
    (first,), (second,) = make_feeds(model, num_samples=2)
    interpreter = Interpreter(model_content=model.data)
    interpreter.allocate_tensors()
    expected = []
    for frame in (first, second, first):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame)
        interpreter.invoke()
        expected.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    answers = run_model(model, [(first,), (second,), (first,)])
    np.testing.assert_array_equal(
        np.concatenate([each for (each,) in answers]), np.concatenate(expected)
    )
    assert not np.array_equal(answers[0][0], answers[2][0])
    # The next run begins with the first state again.
    np.testing.assert_array_equal(run_model(model, [(first,)])[0][0], answers[0][0])


def test_each_sequence_begins_with_no_state() -> None:
    model = came_as("lstm")
    (feed,) = make_feeds(model, num_samples=1)
    (first,), (second,) = run_model(model, [feed, feed])
    np.testing.assert_array_equal(first, second)
