"""What running a model asks of a device: ops, versions, memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.errors import ModelError
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.workload import OpUse, read_workload
from tests.fixtures.graphs import GraphMaker
from tests.fixtures.layers import LayerPlan, chain_model

DATA = Path(__file__).parent / "data"


def test_ops_with_the_versions_that_the_file_asks_for() -> None:
    ops = read_workload((DATA / "kinds" / "dynamic_range.tflite").read_bytes()).ops
    assert ops == (
        OpUse(name="CONV_2D", version=1),
        OpUse(name="DEPTHWISE_CONV_2D", version=1),
        OpUse(name="FULLY_CONNECTED", version=12),
        OpUse(name="FULLY_CONNECTED", version=12, is_hybrid=True, is_per_channel=True),
        OpUse(name="RESHAPE", version=1),
    )


def test_integer_activations_are_not_hybrid() -> None:
    ops = read_workload((DATA / "kinds" / "int8.tflite").read_bytes()).ops
    (dense,) = (each for each in ops if each.name == "FULLY_CONNECTED")
    assert (dense.is_hybrid, dense.is_per_channel, dense.count) == (False, True, 2)


def test_an_op_that_is_declared_and_not_used_counts_too() -> None:
    tree = read_flatbuffer(chain_model((LayerPlan(op="FULLY_CONNECTED", num_out=3),), (1, 4)))
    for code, version, custom in ((schema.BuiltinOperator.ATAN2, 7, None), (32, 1, b"Mine")):
        declared = schema.OperatorCodeT()
        declared.builtinCode, declared.deprecatedBuiltinCode = code, min(code, 127)
        declared.version, declared.customCode = version, custom
        tree.operatorCodes.append(declared)
    assert read_workload(write_flatbuffer(tree)).ops == (
        OpUse(name="ATAN2", version=7, count=0),
        OpUse(name="FULLY_CONNECTED", version=1),
    )


def test_memory_is_the_most_that_is_alive_at_once() -> None:
    maker = GraphMaker((1, 8, 8, 4))  # 1 KiB, kept throughout
    wide = maker.layer("CONV_2D", maker.input, 16)  # 4 KiB
    narrow = maker.layer("CONV_2D", wide, 2)  # 0.5 KiB
    last = maker.add(narrow, narrow)
    maker.tree.subgraphs[0].outputs = [last]
    workload = read_workload(write_flatbuffer(maker.tree))
    assert workload.activation_bytes == 1024 + 4096 + 512
    assert workload.model_bytes > 4 * (4 * 16 + 16 * 2)


def test_a_branch_keeps_what_it_joins() -> None:
    maker = GraphMaker((1, 8, 8, 4))
    early = maker.layer("CONV_2D", maker.input, 4)
    late = maker.layer("CONV_2D", maker.layer("CONV_2D", early, 16), 4)
    maker.tree.subgraphs[0].outputs = [maker.add(early, late)]
    workload = read_workload(write_flatbuffer(maker.tree))
    assert workload.activation_bytes == 1024 + 1024 + 4096 + 1024


_GROWTH = """
import sys
from ai_edge_litert.interpreter import Interpreter
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
before = peak()
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
interpreter.invoke()
print(peak() - before)
"""


def test_a_runtime_needs_as_much_and_not_far_more(tmp_path: Path) -> None:
    plans = tuple(LayerPlan(op="CONV_2D", num_out=16) for _ in range(3))
    model = tmp_path / "wide.tflite"
    model.write_bytes(chain_model(plans, (1, 512, 512, 4)))
    workload = read_workload(model.read_bytes())
    assert workload.activation_bytes == (4 + 16 + 16) * 2**20
    ran = subprocess.run(
        [sys.executable, "-c", _GROWTH, model], capture_output=True, text=True, check=True
    )
    grown = int(ran.stdout)
    assert workload.activation_bytes * 0.95 < grown < workload.activation_bytes * 1.5


def test_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="expected a TFLite flatbuffer"):
        read_workload(b"PK\3\4" + bytes(40))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_model_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray((DATA / "models" / "two.tflite").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        workload = read_workload(bytes(content))
    except ModelError:
        return
    assert workload.activation_bytes >= 0
