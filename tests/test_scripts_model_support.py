"""The script that converts the model zoo: its list, its stored results and its page."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def zoo(repository: Path) -> Iterator[Any]:
    """The modules beside the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "scripts" / "zoo"))
        yield importlib.import_module("runs"), importlib.import_module("table")


@pytest.fixture(scope="module")
def listed(repository: Path) -> list[list[str]]:
    """The columns of `--list`, which needs no toolchain and no network."""
    done = subprocess.run(
        [sys.executable, str(repository / "scripts" / "model-support"), "--list"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines()]


def test_every_file_is_listed_once_under_a_name_of_its_own(listed: list[list[str]]) -> None:
    names = [row[0] for row in listed]
    assert len(names) == len(set(names))
    assert len(names) > 200


def test_every_kind_of_source_is_in_the_zoo(listed: list[list[str]]) -> None:
    forms = {row[1].split("  ")[0] for row in listed}
    assert {".keras", ".h5", "SavedModel", ".pb", ".onnx", ".pt2", ".pt", "function"} <= forms


def test_every_architecture_of_keras_applications_is_in_the_zoo(listed: list[list[str]]) -> None:
    cases = {row[0].split("/")[0] for row in listed}
    assert {
        *("keras-xception", "keras-vgg16", "keras-resnet152v2", "keras-inceptionresnetv2"),
        *("keras-mobilenetv3small", "keras-densenet201", "keras-nasnetlarge"),
        *(f"keras-efficientnetb{number}" for number in range(8)),
        *(f"keras-efficientnetv2{size}" for size in ("b0", "b1", "b2", "b3", "s", "m", "l")),
        *(f"keras-convnext{size}" for size in ("tiny", "small", "base", "large", "xlarge")),
    } <= cases


def test_every_opset_since_9_is_in_the_zoo(listed: list[list[str]]) -> None:
    cases = {row[0].split("/")[0] for row in listed}
    assert {f"onnx-opset-{opset}" for opset in range(9, 26)} <= cases


def test_every_kind_of_network_is_in_the_zoo(listed: list[list[str]]) -> None:
    cases = {row[0].split("/")[0] for row in listed}
    kinds = {
        "keras": (
            *("lstm", "gru", "bidirectional", "transformer", "vision-transformer", "unet"),
            *("detector", "embeddings", "grouped-convolution", "keyword-spotting", "legacy"),
            *("signatures", "several-inputs", "autoencoder", "squeeze-excite"),
        ),
        "torch": (
            *("lstm", "stateful-lstm", "gru", "bidirectional", "transformer", "unet", "detector"),
            *("depthwise-separable", "convolution-1d", "convolution-3d", "embeddings"),
            *("several-inputs", "autoencoder", "squeeze-excite", "vit-b-16", "mobilenet-v2"),
        ),
        "onnx": (
            *("lstm-states", "lstm-bidirectional", "gru-states", "rnn", "attention-mask"),
            *("convolution-1d", "convolution-3d", "external-data", "open-dimensions"),
            *("several-types", "half-precision", "if-constant", "if-shape", "quantized"),
        ),
    }
    wanted = {f"{source}-{name}" for source, names in kinds.items() for name in names}
    assert wanted - cases == set()


def _result(runs: Any) -> Any:  # noqa: ANN401 - a module found at run time
    return runs.Result(
        converter=None,
        passed=True,
        chosen="onnx2tf",
        sqnr_db=131.4,
        judged=("sqnr",),
        seconds=12.3,
        peak_memory_bytes=300 * 2**20,
        size_bytes=4321,
        fault=None,
        fallen=(),
    )


def test_results_are_read_as_they_were_stored(zoo: Any, tmp_path: Path) -> None:  # noqa: ANN401 - modules
    runs, _ = zoo
    failed = replace(_result(runs), passed=False, fault="no kernel | here", fallen=(("a", "b"),))
    results = {"one/model.onnx": [_result(runs), failed]}
    path = tmp_path / "below" / "results.json"
    runs.store_results(path, results)
    assert runs.load_results(path) == results
    assert runs.load_results(tmp_path / "absent.json") == {}


def test_the_page_counts_models_and_gives_each_failure_its_reason(
    zoo: Any,  # noqa: ANN401 - modules
    tmp_path: Path,
) -> None:
    runs, table = zoo
    issues = tmp_path / "issues.toml"
    issues.write_text(
        "[[issue]]\nfault = 'no kernel'\nconverters = ['onnx2tf']\nupstream = 'PINTO/1'\n"
    )
    good, bad = (
        runs.Source(case=name, toolchain="onnx", file="model.onnx") for name in ("good", "bad")
    )
    passed = replace(_result(runs), fallen=(("onnx2tf", "died"),), chosen="onnx-tf")
    failed = replace(
        _result(runs), passed=False, chosen=None, sqnr_db=None, size_bytes=None, fault="no kernel"
    )
    page, share = table.render(
        [good, bad],
        {good.key: [passed], bad.key: [failed, replace(failed, converter="onnx-tf")]},
        missing=["late/model.keras"],
        issues=issues,
        versions={"onnx": {"onnx2tf": "2.6.9"}},
    )
    assert share == 0.5
    assert "**1 of 2 model files pass (50.0%)**; 1 of 2 models pass in every format tried." in page
    assert "| onnx-tf | 2 | 1 (50.0%) |" in page
    assert "| onnx2tf | 1 | 0 (0.0%) |" in page
    assert "| bad | .onnx | chain | no kernel | PINTO/1 |" in page
    assert "| bad | .onnx | onnx-tf | no kernel | none found |" in page
    assert "| good | .onnx | onnx2tf | died | none found |" in page
    assert "| good | .onnx | chain: onnx-tf | pass | 131 dB | 12 | 300 | 4321 |" in page
    assert "| bad | .onnx | chain | **fail** |  | 12 | 300 |  |" in page
    assert "- Toolchain `onnx`: onnx2tf 2.6.9" in page
    assert "These have no result: `late/model.keras`" in page


def test_the_issues_that_are_shown_are_links(zoo: Any, repository: Path) -> None:  # noqa: ANN401 - modules
    _, table = zoo
    for issue in table.read_issues(repository / "scripts" / "zoo" / "issues.toml"):
        assert re.search(r"\[[^]]+\]\(https://github\.com/[^)]+\)", issue.upstream)
