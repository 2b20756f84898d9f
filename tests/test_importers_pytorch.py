"""PyTorch's programs, TorchScript and functions keep what they compute, or are refused."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.contract import ContractRequest, InputWish, OutputWish, make_plan, shape_model
from edgepack.data import ImageLayout
from edgepack.errors import ModelError
from edgepack.evaluate import run_model
from edgepack.importers import (
    ImportedModel,
    check_parity,
    detect_format,
    import_model,
    worker,
)
from edgepack.model import load_model
from edgepack.toolchains import Toolchain
from tests.fixtures.pytorch import NETWORKS, GetPytorchOptions

pytestmark = pytest.mark.toolchain

# Runs many requests in one process: PyTorch takes seconds to import.
_BATCH = """
import json, sys, traceback
sys.path.append(sys.argv[1])
import pytorch_worker
from exchange import RefusedError

operations = {"convert": pytorch_worker.convert, "run": pytorch_worker.run,
              "nodes": pytorch_worker.nodes, "load": pytorch_worker.load}
answers = []
for request in json.load(sys.stdin):
    try:
        answer = operations[request["operation"]](request)
        answers.append(answer if isinstance(answer, dict) else {})
    except RefusedError as refusal:
        answers.append(refusal.answer)
print(json.dumps(answers), file=open("answers.json", "w"))
"""


def _ignore(_line: str) -> None:
    pass


def _line(text: str) -> int:
    """Give the number of the line of networks.py that begins with a text."""
    lines = [line.strip() for line in NETWORKS.splitlines()]
    return next(number for number, line in enumerate(lines, 1) if line.startswith(text))


def _request(models: Path, model: str, **changed: object) -> dict[str, object]:
    is_function = ":" in model
    source_format = "torchscript" if Path(model).suffix in {".pt", ".ts"} else "pytorch"
    return {
        "operation": "convert",
        "model": model if is_function else str(models / model),
        "search_path": str(models),
        "format": "function" if is_function else source_format,
        "folder": str(models),
        "input_shapes": {},
        "dimensions": {},
        "signature": None,
        "trust_model": False,
        "with_files": [],
        "expose": None,
        "title": "PyTorch",
        **changed,
    }


def _ask(
    toolchain: Toolchain, folder: Path, requests: list[dict[str, object]]
) -> list[dict[str, Any]]:
    workers = Path(worker.__file__).parent / "workers"
    subprocess.run(
        [toolchain.python, "-W", "ignore", "-c", _BATCH, workers],
        input=json.dumps(requests),
        text=True,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=280,
    )
    answers: list[dict[str, Any]] = json.loads((folder / "answers.json").read_text())
    return answers


@pytest.mark.parametrize(
    ("name", "shapes", "inputs", "outputs"),
    [
        (
            "networks.py:recurrent",
            (),
            {"ids": (1, 7), "hidden": (1, 1, 5), "cell": (1, 1, 5), "start": (1, 1, 4)},
            {
                "scores": (1, 7, 4),
                "state_0": (1, 1, 5),
                "state_1": (1, 1, 5),
                "last": (1, 1, 4),
            },
        ),
        (
            "networks.py:decoder",
            (),
            {"code": (1, 4, 5, 6)},
            {"output_0": (1, 4, 120, 144), "output_1": (1, 3, 12)},
        ),
        ("batch.pt2", (), {"pixels": (1, 3, 16, 16)}, {"output_0": (1, 5)}),
        (
            "scripted.ts",
            (("pixels", (2, 3, 8, 12)),),
            {"pixels": (2, 3, 8, 12)},
            {"output_0": (2, 5)},
        ),
    ],
)
def test_a_model_keeps_its_names_shapes_and_answers(  # noqa: PLR0917 - pytest passes by name
    pytorch_models: Path,
    pytorch_options: GetPytorchOptions,
    import_cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
) -> None:
    monkeypatch.chdir(pytorch_models)
    options = pytorch_options(input_shapes=shapes)
    imported = import_model(Path(name), options=options, cache=import_cache, on_progress=_ignore)
    signature = imported.model.signature
    assert {spec.name: spec.shape for spec in signature.inputs} == inputs
    assert {spec.name: spec.shape for spec in signature.outputs} == outputs
    report = check_parity(
        imported, Path(name), samples=None, options=options, cache=import_cache, on_progress=_ignore
    )
    assert report.reference == "PyTorch"
    assert min(each.sqnr_db for each in report.outputs) > 100
    if "decoder" in name:
        _check_channels_last(imported)


def _check_channels_last(imported: ImportedModel) -> None:
    """Turn what came of PyTorch to channels last, in and out, as --input-layout NHWC asks."""
    request = ContractRequest(
        inputs=(InputWish(name="code", layout=ImageLayout.NHWC),),
        outputs=(OutputWish(name="output_0", layout=ImageLayout.NHWC),),
    )
    plan = make_plan(imported, request)
    shaped = shape_model(imported.model, plan)
    signature = shaped.signature
    assert [each.shape for each in signature.inputs] == [(1, 5, 6, 4)]
    assert [each.shape for each in signature.outputs] == [(1, 120, 144, 4), (1, 3, 12)]
    array = np.random.default_rng(3).normal(size=(1, 4, 5, 6)).astype(np.float32)
    ((own, line),) = run_model(imported.model, [(array,)])
    ((turned, same),) = run_model(shaped, [(array.transpose(0, 2, 3, 1).copy(),)])
    assert np.allclose(turned, own.transpose(0, 2, 3, 1), atol=1e-5)
    assert np.allclose(same, line, atol=1e-5)


def test_what_cannot_or_must_not_be_converted_is_refused_with_the_reason(
    pytorch_models: Path, pytorch_toolchain: Toolchain
) -> None:
    does_more = "loading or running it would do more than compute:"
    branch, failure = _line("if x.sum() > 0:"), _line("raise ValueError")
    expected = {
        "call.pt2": f"call.pt2: {does_more} it calls torch.os.system",
        "eval.pt2": f"eval.pt2: {does_more} a dimension is no arithmetic: "
        "\"__import__('os').abort()\"",
        "tree.pt2": f"tree.pt2: {does_more} its inputs or outputs stand in a "
        "collections.defaultdict",
        "pickle.pt2": f"pickle.pt2: {does_more} data/sample_inputs/model.pt is a pickle that holds "
        "posix.system",
        "double.pt": "double.pt: PyTorch cannot run it on x (1, 4) float32: RuntimeError: mat1 and "
        "mat2 must have the same dtype, but got Double and Float",
        "scripted.ts": "scripted.ts: it does not say what shapes its inputs pixels have",
        "networks.py:lacking": "networks.py:lacking: litert-torch cannot convert "
        "aten._linalg_svd.default (_linalg_svd)",
        "networks.py:branching": "networks.py:branching: its control flow depends on the values of "
        f"tensors (networks.py, line {branch}), and a TFLite graph is the same for every input",
        "networks.py:remembering": "networks.py:remembering: running it changes its buffers total, "
        "and the converted model would forget that between two calls",
        "networks.py:noisy": "networks.py:noisy: it answers the same inputs otherwise each time in "
        "its output output_0",
        "networks.py:failing": f"networks.py:failing: calling it failed (networks.py, line "
        f"{failure}): ValueError: no weights here",
        "networks.py:number": "networks.py:number: expected it to return an nn.Module, alone or as "
        "(module, example_inputs), but it returned int",
        "networks.py:alone": "networks.py:alone: it returned a module without example inputs, "
        "whose shapes nothing tells",
    }
    requests = [_request(pytorch_models, name) for name in expected]
    # What would run is tried without consent, and must not.
    answers = _ask(pytorch_toolchain, pytorch_models, requests)
    assert {
        name: answer.get("message") for name, answer in zip(expected, answers, strict=True)
    } == expected
    assert all(answer["remedy"] for answer in answers)
    assert answers[list(expected).index("double.pt")]["remedy"] == (
        "It was changed to float32, and may not take that: export it in float32, of model.float()."
    )
    assert not (pytorch_models / "stolen").exists()


def test_weights_that_a_function_draws_are_the_same_in_each_call(
    pytorch_models: Path, pytorch_toolchain: Toolchain, tmp_path: Path
) -> None:
    np.savez(tmp_path / "inputs.npz", allow_pickle=False, **{"0": np.ones((1, 1, 4), np.float32)})
    request = _request(pytorch_models, "networks.py:drawn", folder=str(tmp_path), operation="run")
    answers = []
    for _ in range(2):
        _ask(pytorch_toolchain, pytorch_models, [request])
        with np.load(tmp_path / "outputs.npz") as arrays:
            answers.append(arrays["0"])
    assert np.array_equal(*answers)


def test_models_of_half_and_double_are_changed_to_float32_and_compared_with_themselves(
    pytorch_models: Path, pytorch_toolchain: Toolchain, tmp_path: Path
) -> None:
    inputs = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 1, 4)
    requests = []
    for name in ("half.pt2", "double.pt2"):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "inputs.npz", allow_pickle=False, **{"0": inputs})
        requests += [
            _request(pytorch_models, name, folder=str(folder), operation=operation)
            for operation in ("convert", "run")
        ]
    half, _, double, _ = _ask(pytorch_toolchain, pytorch_models, requests)
    for name, answer, precision, source_type in (
        ("half.pt2", half, "bfloat16", np.float32),
        ("double.pt2", double, "float64", np.float64),
    ):
        assert answer["notes"] == [f"the module computes in {precision}: it was changed to float32"]
        assert [each["dtype"] for each in (*answer["inputs"], *answer["outputs"])] == [
            "float32",
            "float32",
        ]
        with np.load(tmp_path / name / "outputs.npz") as arrays:
            source = arrays["0"]
        assert source.dtype == source_type
        model = load_model(tmp_path / name / "model.tflite")
        converted = run_model(model, [(sample,) for sample in inputs])
        assert np.allclose(np.stack([each for (each,) in converted]), source, atol=1e-6)


def test_what_was_changed_or_is_known_of_a_model_is_told(
    pytorch_models: Path, pytorch_toolchain: Toolchain, tmp_path: Path
) -> None:
    np.savez(
        tmp_path / "inputs.npz", allow_pickle=False, **{"0": np.ones((1, 1, 3, 16, 16), np.float32)}
    )
    names = ["training.pt2", "networks.py:half", "networks.py:recurrent", "networks.py:conv"]
    requests = [_request(pytorch_models, name, folder=str(tmp_path)) for name in names]
    requests += [
        _request(pytorch_models, "networks.py:conv", folder=str(tmp_path), operation="nodes"),
        _request(
            pytorch_models,
            "networks.py:conv",
            folder=str(tmp_path),
            operation="run",
            expose=["conv2d", "relu"],
        ),
        _request(pytorch_models, "traced.pt", folder=str(tmp_path), operation="nodes"),
    ]
    training, half, recurrent, conv, nodes, _, traced = _ask(
        pytorch_toolchain, pytorch_models, requests
    )
    assert training["notes"] == [
        "batch_norm was exported in training mode: it was set at rest",
        "dropout was exported in training mode: it was set at rest",
    ]
    assert half["notes"] == [
        "the module was in training mode: eval() was called",
        "the module computes in bfloat16: it was changed to float32",
    ]
    assert [each["dtype"] for each in half["inputs"]] == ["float32"]
    # A trace knows its shapes; a script has to be told them.
    assert "convolution" in [each["op"] for each in traced["nodes"]]
    ids, *states = recurrent["inputs"]
    assert (ids["dtype"], ids["maximum"]) == ("int64", 10)
    assert [each["role"] for each in states] == ["state"] * 3
    assert len(conv["sha256"]) == 64
    assert nodes["nodes"][0] == {"name": "conv: conv2d", "op": "conv2d", "output": "conv2d"}
    with np.load(tmp_path / "outputs.npz") as arrays:
        before, after = arrays["0"], arrays["1"]
    assert before.shape == after.shape == (1, 1, 8, 8, 8)
    assert before.min() < 0
    assert after.min() == 0


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("weights.pt", "it holds weights alone (a state_dict)", "give FILE.py:function"),
        ("module.pt", "it is a pickled module (networks.ConvNet, ", "torch.export.save"),
        ("old.pth", "it is a pickle that torch.save wrote", "FILE.py:function"),
    ],
)
def test_weights_and_pickles_are_told_apart(
    pytorch_models: Path, name: str, message: str, remedy: str
) -> None:
    with pytest.raises(ModelError) as caught:
        detect_format(pytorch_models / name)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
