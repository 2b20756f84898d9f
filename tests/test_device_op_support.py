"""Ops against runtimes: the table says what the runtimes say, and the known faults are real."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgepack.cache import cache_directory
from edgepack.device.runtime.native import ENGINE, VERSION
from edgepack.device.runtime.op_support import OpFault, find_op_support, judge_ops, load_op_support
from edgepack.device.runtime.wheel_files import fetch_wheel, unpack_wheel
from edgepack.device.runtime.wheels import load_wheels
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import read_model
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import Granularity, stock_recipe
from edgepack.profile import Scheme
from edgepack.workload import OpUse, read_workload
from tests.fixtures.layers import LayerPlan, chain_model

DATA = Path(__file__).parent / "data"

_ANSWER = """
import json, pickle, sys
sys.path.insert(0, sys.argv[1])
from tflite_runtime.interpreter import Interpreter
with open(sys.argv[2], "rb") as file:
    cases = pickle.load(file)
answers = {}
for name, (model, feed) in cases.items():
    try:
        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        answers[name] = str(error)
        continue
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feed)
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    answers[name] = output.ravel().tolist()
print(json.dumps(answers))
"""


def faults(data: bytes, project: str, version: str) -> tuple[OpFault, ...]:
    support = find_op_support(project, version)
    assert support is not None
    return judge_ops(read_workload(data).ops, support)


def declare(name: str, version: int) -> bytes:
    """A model that declares an op and uses none."""
    tree = read_flatbuffer(chain_model((LayerPlan(op="FULLY_CONNECTED", num_out=1),), (1, 1)))
    graph = tree.subgraphs[0]
    graph.operators, graph.outputs = [], list(graph.inputs)
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    tree.operatorCodes = [code]
    return write_flatbuffer(tree)


def is_loaded(model: bytes) -> bool:
    try:
        Interpreter(model_content=model)
    except ValueError as error:
        return "Didn't find op" not in str(error)
    return True


def test_every_runtime_that_is_installed_was_asked() -> None:
    engines = {
        (each.project, each.version) for each in load_wheels() if each.project != "numpy"
    } - {("pymicro-wakeword", "2.5.0")} | {(ENGINE, VERSION)}
    assert {(each.project, each.version) for each in load_op_support()} == engines


def test_the_table_says_what_the_runtime_here_says() -> None:
    support = find_op_support("ai-edge-litert", "2.3.0")
    assert support is not None
    assert len(support.builtin) > 150
    wrong = [
        name
        for name, (oldest, newest) in support.builtin.items()
        if not is_loaded(declare(name, oldest))
        or not is_loaded(declare(name, newest))
        or is_loaded(declare(name, newest + 1))
        or (oldest > 1 and is_loaded(declare(name, oldest - 1)))
    ]
    assert wrong == []
    absent = next(
        name
        for name in vars(schema.BuiltinOperator)
        if name.isupper() and name not in support.builtin and name != "CUSTOM"
    )
    assert not is_loaded(declare(absent, 1))


def test_a_real_model_that_an_older_runtime_does_not_load() -> None:
    """TensorFlow 2.21's converter asks for FULLY_CONNECTED 12; tflite-runtime 2.14 has 10."""
    model = (DATA / "kinds" / "dynamic_range.tflite").read_bytes()
    assert faults(model, "ai-edge-litert", "2.3.0") == ()
    assert faults(model, "tensorflow-lite-c", "2.17.1") == ()
    (fault,) = faults(model, "tflite-runtime", "2.14.0")
    assert fault.expected == "the op FULLY_CONNECTED at version 12"
    assert fault.found == "tflite-runtime 2.14.0 loads up to version 10"
    assert fault.fix.startswith("Pack from the source model instead of a .tflite made by a newer")


@pytest.mark.parametrize(
    ("use", "expected", "found"),
    [
        (
            OpUse(name="STABLEHLO_ADD", version=1),
            "the op STABLEHLO_ADD at version 1",
            "tflite-runtime 2.14.0 does not have it",
        ),
        (
            OpUse(name="BROADCAST_TO", version=1),
            "the op BROADCAST_TO at version 1",
            "tflite-runtime 2.14.0 loads version 2 and newer",
        ),
        (
            OpUse(name="Mine", version=1, is_custom=True),
            "the custom op Mine",
            "tflite-runtime 2.14.0 does not come with it",
        ),
        (
            OpUse(name="FlexErf", version=1, is_custom=True),
            "the op FlexErf of TensorFlow itself",
            "tflite-runtime 2.14.0 has no TensorFlow ops",
        ),
    ],
)
def test_what_a_runtime_lacks(use: OpUse, expected: str, found: str) -> None:
    support = find_op_support("tflite-runtime", "2.14.0")
    assert support is not None
    (fault,) = judge_ops((use,), support)
    assert (fault.expected, fault.found) == (expected, found)
    known = OpUse(name="TFLite_Detection_PostProcess", version=1, is_custom=True)
    assert judge_ops((known,), support) == ()


@pytest.fixture(scope="module")
def old_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tflite-runtime 2.14 and its numpy for this Python, unpacked as they are on a device."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    site = tmp_path_factory.mktemp("site")
    wanted = (("tflite-runtime", "2.14.0"), ("numpy", "1.26.4"))
    found = [
        each
        for each in load_wheels()
        if (each.project, each.version) in wanted
        and (each.tag, each.system, each.arch) == (tag, "Linux", "x86_64")
    ]
    if len(found) != len(wanted):
        pytest.skip("tflite-runtime 2.14 is for Python 3.9 to 3.11 on x86-64")
    for wheel in found:
        for name, content in unpack_wheel(fetch_wheel(wheel, cache_directory() / "wheels")):
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(content)
    return site


def test_the_known_faults_are_found_where_the_runtime_has_them(
    old_runtime: Path, tmp_path: Path
) -> None:
    dense = LayerPlan(op="FULLY_CONNECTED", num_out=64)
    up = LayerPlan(op="TRANSPOSE_CONV", num_out=16, kernel=(3, 3), stride=(2, 2))
    cases: dict[str, tuple[bytes, object]] = {}
    host: dict[str, np.ndarray] = {}
    for name, granularity, plan, shape in (
        ("dense of several scales", Granularity.CHANNELWISE, dense, (1, 96)),
        ("dense of one scale", Granularity.TENSORWISE, dense, (1, 96)),
        ("up", Granularity.CHANNELWISE, up, (1, 8, 8, 16)),
    ):
        feed = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        recipe = replace(stock_recipe(Scheme.DYNAMIC_RANGE), granularity=granularity)
        data = quantize(read_model(chain_model((plan,), shape)), recipe).model.data
        cases[name] = (data, feed)
        interpreter = Interpreter(model_content=data)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feed)
        interpreter.invoke()
        output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        host[name] = output.ravel()
        assert faults(data, "ai-edge-litert", "2.3.0") == ()
    (tmp_path / "cases").write_bytes(pickle.dumps(cases, protocol=4))
    ran = subprocess.run(
        [sys.executable, "-I", "-c", _ANSWER, old_runtime, tmp_path / "cases"],
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(ran.stdout)
    really_wrong = set()
    for name, answer in answers.items():
        if isinstance(answer, str):
            assert "weights->type != input->type (INT8 != FLOAT32)" in answer
            really_wrong.add(name)
        else:
            noise = np.sum((host[name] - np.array(answer)) ** 2)
            if 10 * np.log10(np.sum(host[name] ** 2) / noise) < 20:
                really_wrong.add(name)
    said = {name for name, (data, _) in cases.items() if faults(data, "tflite-runtime", "2.14.0")}
    assert said == really_wrong == {"dense of several scales", "up"}
    (fault,) = faults(cases["dense of several scales"][0], "tflite-runtime", "2.14.0")
    assert fault.found == (
        "tflite-runtime 2.14.0: it answers nonsense (-0.1 dB where other runtimes give 46 dB), "
        "without a word"
    )
    assert faults(cases["up"][0], "tensorflow-lite-c", "2.17.1") == ()


def test_the_library_refuses_one_scale_where_it_wants_several() -> None:
    support = find_op_support("tensorflow-lite-c", "2.17.1")
    assert support is not None
    use = OpUse(name="TRANSPOSE_CONV", version=3, is_hybrid=True)
    (fault,) = judge_ops((use,), support)
    assert fault.found.startswith("tensorflow-lite-c 2.17.1: it refuses it: scale->size")
    assert judge_ops((replace(use, is_per_channel=True),), support) == ()
