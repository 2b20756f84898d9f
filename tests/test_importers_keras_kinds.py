from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.evaluate import run_model
from edgepack.fidelity import sqnr_db
from edgepack.importers import ImportOptions, check_parity, import_model
from edgepack.model import load_model
from edgepack.toolchains import Toolchain
from tests.fixtures.keras_sources import AskTensorflow, make_request

pytestmark = pytest.mark.toolchain

_OWN = """
import keras

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0

class Whole(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras.layers.Dense(3)

    def call(self, inputs):
        return self.inner(inputs)

def negated(inputs):
    return -inputs
"""
_NAMES = {
    "half.keras": (["x"], ["out"]),
    "brain.keras": (["x"], ["out"]),
    "double.keras": (["x"], ["out"]),
    "volume.keras": (["x"], ["out"]),
    "stateful.keras": (
        ["x", "memory_state_0", "memory_state_1"],
        ["out", "memory_state_0_next", "memory_state_1_next"],
    ),
    "open.keras": (["x"], ["out"]),
    "words.keras": (["x"], ["out"]),
    "own.keras": (["x"], ["out"]),
    "whole.keras": (["input"], ["output_0"]),
    "words.pb": (["x"], ["Identity"]),
    "recurrent": (["x"], ["output_0"]),
    "old": (["x"], ["probs"]),
    "memory": (["x", "memory_state_0"], ["y", "memory_state_0_next"]),
}
_DTYPES = {"half.keras": "float16", "double.keras": "float64"}


def _least_db(folder: Path, answer: dict[str, Any]) -> float:
    """Compare what the worker's source answered with the converted model."""
    model = load_model(folder / "model.tflite")
    with np.load(folder / "inputs.npz") as given, np.load(folder / "outputs.npz") as answers:
        inputs = dict(zip(answer["model_inputs"], given.values(), strict=True))
        expected = dict(zip(answer["model_outputs"], answers.values(), strict=True))
    specs = model.signature.inputs
    feeds = [tuple(inputs[s.name][0].astype(s.dtype) for s in specs)]
    results = run_model(model, feeds)[0]
    return min(
        sqnr_db(expected[spec.name][0].astype(np.float32), result)
        for spec, result in zip(model.signature.outputs, results, strict=True)
    )


def test_models_of_every_kind_compute_what_their_source_computes(
    keras_sources: Path, ask_tensorflow: AskTensorflow, tmp_path: Path
) -> None:
    own = tmp_path / "own_layers.py"
    own.write_text(_OWN)
    requests = {
        name: make_request(
            "convert",
            keras_sources / name,
            tmp_path / name,
            with_files=[str(own)],
            input_shapes={"x": [2, 9, 7, 3]} if name == "open.keras" else {},
        )
        for name in _NAMES
    }
    answers = dict(zip(_NAMES, ask_tensorflow(list(requests.values())), strict=True))
    assert {name: each.get("message") for name, each in answers.items() if "kind" in each} == {}
    found = {
        name: tuple([spec["name"] for spec in answer[side]] for side in ("inputs", "outputs"))
        for name, answer in answers.items()
    }
    assert found == _NAMES
    generator = np.random.default_rng(0)
    for name, answer in answers.items():
        arrays = [
            generator.integers(0, spec["maximum"], (1, *spec["shape"])).astype(spec["dtype"])
            if "maximum" in spec
            else generator.normal(size=(1, *spec["shape"])).astype(spec["dtype"])
            for spec in answer["inputs"]
        ]
        np.savez(tmp_path / name / "inputs.npz", **{str(i): a for i, a in enumerate(arrays)})  # type: ignore[arg-type] # numpy types it as bool
    refused = ask_tensorflow([each | {"operation": "run"} for each in requests.values()])
    assert [each.get("message") for each in refused if "kind" in each] == []
    reached = {name: _least_db(tmp_path / name, answer) for name, answer in answers.items()}
    assert min(reached.values()) > 100, reached
    assert {answers[n]["inputs"][0].get("maximum") for n in ("words.keras", "words.pb")} == {36}
    assert [spec.get("role") for spec in answers["stateful.keras"]["inputs"]] == [
        None, "state", "state",
    ]  # fmt: skip
    assert {name: answers[name]["outputs"][0]["dtype"] for name in _DTYPES} == _DTYPES
    assert answers["open.keras"]["outputs"][0]["shape"] == [2, 7, 5, 4]
    # Keras exports its only signature under two names, of which nothing need be said.
    assert answers["recurrent"]["notes"] == []
    assert answers["memory"]["notes"][0] == (
        "it has other signatures, too (scale): serving_default was taken, and --signature NAME "
        "chooses another"
    )


def test_a_layer_from_a_file_of_the_users_own_is_imported_without_trust(
    keras_sources: Path, tensorflow_toolchain: Toolchain, import_cache: Cache, tmp_path: Path
) -> None:
    own = tmp_path / "own_layers.py"
    own.write_text(_OWN)
    options = ImportOptions(toolchain_python=tensorflow_toolchain.python, with_files=(own,))
    path = keras_sources / "own.keras"
    imported = import_model(
        path, options=options, cache=import_cache, on_progress=lambda _line: None
    )
    (answer,) = run_model(imported.model, [(np.ones((1, 4), np.float32),)])[0]
    assert answer.tolist() == [[-2.0] * 4]
    report = check_parity(
        imported,
        path,
        samples=None,
        options=options,
        cache=import_cache,
        on_progress=lambda _line: None,
    )
    assert min(each.sqnr_db for each in report.outputs) > 100


def test_nodes_bear_the_layers_names_and_can_be_exposed(
    keras_sources: Path, ask_tensorflow: AskTensorflow, tmp_path: Path
) -> None:
    folder, path = tmp_path / "m", keras_sources / "volume.keras"
    request = make_request("nodes", path, folder)
    del request["expose"]  # it asks for none
    (listed,) = ask_tensorflow([request])
    nodes = listed["nodes"]
    assert [(each["name"].split("/", 1)[1], each["op"]) for each in nodes] == [
        ("conv/convolution", "Conv3D"),
        ("conv/BiasAdd", "BiasAdd"),
        ("max_pooling3d/MaxPool3D", "MaxPool3D"),
        ("out/AvgPool3D", "AvgPool3D"),
    ]
    exposed = [nodes[2]["output"], nodes[0]["output"]]
    shape = (1, 1, 7, 6, 5, 2)
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.savez(folder / "inputs.npz", **{"0": array})  # type: ignore[arg-type] # numpy types it as bool
    answer, _ = ask_tensorflow(
        [make_request(each, path, folder, expose=exposed) for each in ("convert", "run")]
    )
    assert [spec["shape"] for spec in answer["outputs"]] == [[1, 3, 2, 2, 3], [1, 6, 5, 4, 3]]
    assert _least_db(folder, answer) > 100
