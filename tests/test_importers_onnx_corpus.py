from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgepack.toolchains import Toolchain
from tests.fixtures.onnx_batch import GetResult, Result, request_for, run_batch, run_requests
from tests.fixtures.onnx_choices import choice, contributed, detector, places
from tests.fixtures.onnx_corpus import FLOAT, Entry, convnet, corpus, make, node, weights

pytestmark = pytest.mark.toolchain

_VECTOR = (FLOAT, [1, 4])


@pytest.mark.parametrize("name", sorted(corpus()))
def test_every_model_computes_what_its_source_computes(onnx_result: GetResult, name: str) -> None:
    result = onnx_result(name)
    assert result.error is None
    # float16 rounds otherwise in each runtime; everything else is exact but for summation order.
    assert min(result.decibels) > (60 if name == "half" else 100)


def test_largest_ids_and_states_are_read_from_the_graph(onnx_result: GetResult) -> None:
    def facts(name: str) -> list[tuple[str, object, object]]:
        answer = onnx_result(name).answer
        assert answer is not None
        return [(each["name"], each.get("maximum"), each.get("role")) for each in answer["inputs"]]

    assert facts("several") == [
        ("vector", None, None),
        ("ids", 9, None),
        ("keep", None, None),
        ("image", None, None),
    ]
    assert facts("onehot") == [("ids", 8, None)]
    assert facts("attention") == [("ids", 19, None)]
    for direction in ("forward", "reverse", "bidirectional"):
        assert facts(f"lstm_{direction}_states") == [
            ("x", None, None),
            ("h0", None, "state"),
            ("c0", None, "state"),
        ]
        assert facts(f"gru_{direction}_states")[1:] == [("h0", None, "state")]


def test_names_order_and_types_are_the_sources(onnx_result: GetResult) -> None:
    def described(name: str, side: str) -> list[tuple[str, list[int], str]]:
        answer = onnx_result(name).answer
        assert answer is not None
        return [(each["name"], each["shape"], each["dtype"]) for each in answer[side]]

    assert described("names", "inputs") == [("in:0/ ü", [1, 3, 5, 6], "float32")]
    assert described("names", "outputs") == [("out put/1:0", [1, 4, 5, 6], "float32")]
    assert described("several", "inputs") == [
        ("vector", [1, 6], "float32"),
        ("ids", [1, 7], "int32"),
        ("keep", [1, 7, 1], "bool"),
        ("image", [1, 3, 8, 6], "float32"),
    ]
    assert described("passed", "outputs") == [("y", [1, 4], "float32"), ("x", [1, 4], "float32")]
    assert described("constant", "outputs")[1] == ("k", [3], "float32")
    assert described("unused", "inputs")[1] == ("unused", [1, 3], "float32")
    assert described("half", "inputs") == [("x", [1, 3, 6, 7], "float16")]
    assert described("scalar", "inputs")[1] == ("gain", [], "float32")
    assert described("lstm_forward_states", "inputs") == [
        ("x", [6, 1, 3], "float32"),
        ("h0", [1, 1, 4], "float32"),
        ("c0", [1, 1, 4], "float32"),
    ]


def _quantized() -> onnx.ModelProto:
    return make(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"], name="to_int"),
            node("DequantizeLinear", ["q", "s", "z"], ["y"], name="to_float"),
        ],
        {"x": _VECTOR},
        {"y": _VECTOR},
        {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)},
    )


def _refused() -> dict[str, tuple[Entry, str, str]]:
    """Give models that must be refused, with what must be said and advised."""
    relu, wide = [node("Relu", ["x"], ["r"])], {"x": (FLOAT, ["N", "seq"])}
    y = {"y": _VECTOR}
    text = {"batch": 2}
    return {
        "quantized": (
            Entry(model=_quantized()),
            ("expected a float model, but this one is quantized already: 2 nodes hold or compute "
            "with integers that stand for floats: QuantizeLinear 'to_int', DequantizeLinear "
            "'to_float'"),
            "Give the float model it was made from: EdgePack quantizes it for the device.",
        ),
        "learned": (
            Entry(
                model=make(
                    [node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", name="scale",
                          offset=[0.0], scale=[2.0])],
                    {"x": _VECTOR}, y, domains={"ai.onnx.ml": 3},
                )
            ),
            ("expected operations of ONNX's own, but 1 are of other domains, which TFLite has no "
            "kernel for: ai.onnx.ml:Scaler 'scale'"),
            ("Replace them in the source model by operations of ONNX's own, or move them before or "
            "after the model."),
        ),
        "unknown": (
            Entry(
                model=make([*relu, node("Det", ["r"], ["y"], name="area")],
                           {"x": (FLOAT, [1, 4, 4])}, {"y": (FLOAT, [1])})
            ),
            ("onnx2tf cannot convert Det 'area': Det builtin lowering currently supports static "
            "square 2x2/3x3 matrices only. input_shape=[1, 4, 4]"),
            "Replace the operation in the source model.",
        ),
        "open": (
            Entry(model=make([*relu, node("Neg", ["r"], ["y"])], wide, y)),
            ("expected fixed input shapes, but input 'x' of shape N,seq leaves open dimension 1 "
            "(seq)"),
            "Give --dim seq=? with a number for each '?'.",
        ),
        "misnamed": (
            Entry(model=make([*relu, node("Neg", ["r"], ["y"])], wide, y), dimensions=text,
                  shapes={"z": (1, 2)}),
            ("expected fixed input shapes, but --input-shape z: there is no such input; known: x; "
            "--dim batch: the model has no such dimension; known: N, seq; input 'x' of shape "
            "N,seq leaves open dimension 1 (seq)"),
            "Give --dim seq=? with a number for each '?'.",
        ),
        "contradicting": (
            Entry(model=make([node("Add", ["x", "m"], ["y"])],
                             {"x": (FLOAT, ["N", "seq"]), "m": (FLOAT, ["N", "seq"])}, y),
                  dimensions={"N": 3}, shapes={"x": (2, 7), "m": (3, 8)}),
            ("expected fixed input shapes, but --input-shape x=2,7: N is 2 here, but --dim N=3; "
            "--input-shape m=3,8: seq is 8 here, but 7 in --input-shape x=2,7"),
            "Give every input's whole shape, as in --input-shape NAME=1,224,224,3.",
        ),
        "zero": (
            Entry(model=make([node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 0, 4])},
                             {"y": (FLOAT, [1, 0, 4])})),
            "expected fixed input shapes, but input 'x' of shape 1,0,4 holds no value at all",
            "Give every input's whole shape, as in --input-shape NAME=1,224,224,3.",
        ),
        "huge": (
            Entry(model=make([node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 1 << 31, 4])},
                             {"y": (FLOAT, [1, 1 << 31, 4])})),
            ("expected inputs of less than 2 GB, but these hold more: 'x' of shape "
            "1,2147483648,4"),
            "Give smaller shapes with --input-shape NAME=1,3,224,224 or --dim NAME=224.",
        ),
        "mismatched": (
            Entry(model=make([node("MatMul", ["x", "w"], ["y"], name="product")],
                             {"x": (FLOAT, ["N", "features"])}, {"y": (FLOAT, ["N", 3])},
                             {"w": weights(4, 3)}), dimensions={"features": 5}),
            "ONNX Runtime cannot run the model on x (1, 5) at MatMul 'product'",
            ("Give shapes the model accepts with --input-shape NAME=1,3,224,224 or --dim NAME=224. "
            "If it is the values that it cannot take: it must run on zeros or on noise."),
        ),
        "words": (
            Entry(model=make([node("Identity", ["x"], ["y"])], {"x": (TensorProto.STRING, [1])},
                             {"y": (TensorProto.STRING, [1])})),
            "input 'x' holds STRING; EdgePack feeds numbers",
            "Move that step out of the model and export it again.",
        ),
        "detector": (
            Entry(model=detector()),
            ("expected outputs that have one shape, whatever the inputs hold, but 'found' has "
            "(10,) at times, as NonMaxSuppression 'nms' gives as many values as it finds"),
            ("Cut the model before that, and do it on the device: onnx.utils.extract_model("
            "'model.onnx', 'cut.onnx', ['x'], ['pooled', 'boxes', 'scores'])."),
        ),
        "places": (
            Entry(model=places()),
            ("expected outputs that have one shape, whatever the inputs hold, but 'places' has "
            "(2, 0) or (2, 3), as NonZero 'where' gives as many values as it finds"),
            ("Cut the model before that, and do it on the device: onnx.utils.extract_model("
            "'model.onnx', 'cut.onnx', ['x'], ['r'])."),
        ),
        "unlike": (
            Entry(model=choice(rows=2)),
            ("expected outputs that have one shape, whatever the inputs hold, but 'y' has (2, 4) "
            "or (1, 4), as If 'choose' goes by values"),
            ("Cut the model before that, and do it on the device: onnx.utils.extract_model("
            "'model.onnx', 'cut.onnx', ['x'], ['is_large'])."),
        ),
        "seldom": (
            Entry(model=choice(rows=2, limit=1e6)),
            ("expected branches of the same shapes, as their conditions depend on values, which "
            "are known only when the model runs, but If 'choose': (1, 4) or (2, 4)"),
            ("Export the model with a condition that follows from the shapes of its inputs, or "
            "with branches that give the same shapes."),
        ),
        "contributed": (
            Entry(model=contributed("BiasGelu", "b")),
            ("onnx2tf cannot convert BiasGelu 'own': ONNX op is not supported by "
            "flatbuffer_direct: BiasGelu"),
            "Replace the operation in the source model.",
        ),
        "nothing": (
            Entry(model=make([], {"x": _VECTOR}, {})),
            "model.onnx: expected an ONNX model with outputs, but its graph has none",
            "Export the model again with the outputs it is to have.",
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def refusals(
    onnx_toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result]:
    entries = {name: entry for name, (entry, _, _) in _refused().items()}
    return run_batch(onnx_toolchain, tmp_path_factory.mktemp("refused"), entries)


@pytest.mark.parametrize("name", sorted(_refused()))
def test_what_cannot_be_imported_is_refused_with_node_reason_and_remedy(
    refusals: dict[str, Result], name: str
) -> None:
    _, message, remedy = _refused()[name]
    error = refusals[name].error
    assert error is not None
    if name == "mismatched":  # the rest is ONNX Runtime's own
        assert error["message"].startswith(message)
    else:
        assert error["message"] == message
    assert error["remedy"] == remedy


def _external(folder: Path, num_values: int) -> Path:
    """Write a model whose weights lie in a sparse file of any size beside it."""
    folder.mkdir()
    model = make([node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [1, num_values // 4])},
                 {"y": _VECTOR}, {"w": np.zeros((1, 4), np.float32)})  # fmt: skip
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [num_values // 4, 4]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(num_values * 4)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_and_more_than_2_gb_refused_unread(
    onnx_toolchain: Toolchain, tmp_path: Path
) -> None:
    paths = {
        "small": _external(tmp_path / "small", 64),
        "huge": _external(tmp_path / "huge", 3 << 28),
        "absent": _external(tmp_path / "absent", 64),
    }
    (tmp_path / "absent" / "weights.bin").unlink()
    entry = Entry(model=onnx.ModelProto())
    results = run_requests(
        onnx_toolchain, tmp_path, {name: request_for(path, entry) for name, path in paths.items()}
    )
    assert results["small"].error is None
    assert results["huge"].error == {
        "kind": "model",
        "message": "model.onnx: expected less than 2 GB of weights, but with its external data, "
        "the model has 3.2 GB",
        "remedy": "Split the model: a .tflite holds 2 GB at most, and its weights as float32.",
    }
    absent = results["absent"].error
    assert absent is not None
    assert absent["message"].startswith("model.onnx: its external data cannot be read: ")
    assert absent["remedy"] == (
        "Put the data files beside the model, under the names it was exported with."
    )


@pytest.mark.parametrize("trust", [False, True])
def test_external_data_under_a_name_that_is_no_text_is_refused(
    onnx_toolchain: Toolchain, tmp_path: Path, *, trust: bool
) -> None:
    path = _external(tmp_path / "odd", 64)
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"\xff\xfeights.bin"))
    request = request_for(path, Entry(model=onnx.ModelProto())) | {"trust_model": trust}
    assert run_requests(onnx_toolchain, tmp_path, {"odd": request})["odd"].error == {
        "kind": "model",
        "message": "expected external data named in UTF-8, but 1 of the model's entries are not: "
        "'w' in b'\\xff\\xfeights.bin'",
        "remedy": "Export the model again, its data files under plain names.",
    }


def test_a_source_of_half_precision_must_agree_with_itself_in_float32(
    onnx_toolchain: Toolchain, tmp_path: Path
) -> None:
    half = (TensorProto.FLOAT16, [1, 4])
    requests = {}
    # The largest half is 65504, so that the second factor makes an infinity of the first's.
    for name, factor in (("sound", 2.0), ("overflowing", 60000.0)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.onnx"
        model = make(
            [node("Mul", ["x", "k"], ["h"]), node("Mul", ["h", "k"], ["y"])],
            {"x": half}, {"y": half}, {"k": np.array([factor], np.float16)},
        )  # fmt: skip
        onnx.save(model, str(path))
        np.savez(path.parent / "inputs.npz", **{"0": np.ones((2, 1, 4), np.float16)})  # type: ignore[arg-type] # numpy types it as bool
        requests[name] = request_for(path, Entry(model=model)) | {"operation": "run"}
    results = run_requests(onnx_toolchain, tmp_path, requests)
    assert results["sound"].answer == {
        "file": "outputs.npz",
        "reference": "ONNX Runtime in float32",
    }
    with np.load(tmp_path / "sound" / "outputs.npz") as arrays:
        assert arrays["0"].dtype == np.float32
        assert np.all(arrays["0"] == 4.0)
    assert results["overflowing"].error == {
        "kind": "model",
        "message": "expected a model of half precision to answer in float32 as it does itself, "
        "within 20 dB, but these outputs differ: y (largest difference inf)",
        "remedy": "Export the model in float32.",
    }


def test_nodes_are_the_users_and_leave_out_what_simplification_folded(
    onnx_toolchain: Toolchain, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    path = tmp_path / "net" / "model.onnx"
    onnx.save(convnet(17), str(path))
    request = request_for(path, Entry(model=onnx.ModelProto()))
    exposed = request | {"expose": ["pool", "logits"]}
    results = run_requests(
        onnx_toolchain,
        tmp_path,
        {"nodes": request | {"operation": "nodes"}, "exposed": exposed},
    )
    listed = results["nodes"].answer
    assert listed is not None
    names = [(each["name"], each["op"], each["output"]) for each in listed["nodes"]]
    # The convolution took the batch normalization in, so its own output is gone, though
    # onnxsim left its name to what comes after both.
    assert ("conv", "Conv", "conv") not in names
    assert names[-1] == ("softmax", "Softmax", "y")
    assert ("pool", "MaxPool", "pool") in names
    assert ("logits", "Gemm", "logits") in names
    assert names.index(("pool", "MaxPool", "pool")) < names.index(("logits", "Gemm", "logits"))

    answer = results["exposed"].answer
    assert answer is not None
    assert [(each["name"], each["shape"]) for each in answer["outputs"]] == [
        ("pool", [1, 8, 8, 8]),
        ("logits", [1, 5]),
    ]
    assert min(results["exposed"].decibels) > 100
