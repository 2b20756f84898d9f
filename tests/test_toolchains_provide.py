"""The right environment serves: the given one, the current one, or an isolated one."""

import configparser
import importlib.metadata
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgepack.errors import ToolchainError, UsageError
from edgepack.toolchains import (
    Origin,
    ToolchainState,
    catalog,
    ensure_toolchain,
    list_toolchains,
    provide,
    remove_toolchain,
    run_worker,
)
from edgepack.toolchains.catalog import LOCKS, SPECS, ToolchainSpec, find_spec
from edgepack.toolchains.interpreter import probe_interpreter
from tests.fixtures.toolchains import WriteWorker


def ignore(_line: str) -> None:
    """Take a line of progress."""


@pytest.fixture
def click_spec(monkeypatch: pytest.MonkeyPatch, toolchain_cache: Path) -> ToolchainSpec:
    """Add a toolchain that any environment with EdgePack's own dependencies can serve as."""
    assert not toolchain_cache.exists()
    spec = ToolchainSpec(
        name="clicks", purpose="tests", lock=None, modules=("click",),
        serving=("no-such-package>=1 | click>=8",), reported=("click",),
    )  # fmt: skip
    monkeypatch.setattr(catalog, "SPECS", (spec,))
    monkeypatch.setattr(provide, "SPECS", (spec,))
    return spec


class TestOrder:
    @pytest.mark.usefixtures("click_spec")
    def test_the_current_environment_serves(self) -> None:
        found = ensure_toolchain("clicks", on_progress=ignore)
        assert found.origin is Origin.CURRENT
        assert found.python == Path(sys.executable)
        assert found.versions == (("click", importlib.metadata.version("click")),)
        (status,) = list_toolchains()
        assert status.state is ToolchainState.CURRENT

    @pytest.mark.usefixtures("click_spec")
    def test_the_variable_comes_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGEPACK_TOOLCHAIN_PYTHON", sys.prefix)  # the venv's folder will do
        found = ensure_toolchain("clicks", on_progress=ignore)
        assert found.origin is Origin.GIVEN
        assert found.python == Path(sys.prefix) / "bin" / "python"

    @pytest.mark.usefixtures("click_spec")
    def test_the_argument_comes_before_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGEPACK_TOOLCHAIN_PYTHON", "/gone")
        python = Path(sys.executable)
        assert ensure_toolchain("clicks", python=python, on_progress=ignore).python == python

    def test_an_unfit_version_does_not_serve(
        self, click_spec: ToolchainSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = replace(click_spec, serving=("click>=999",))
        monkeypatch.setattr(catalog, "SPECS", (spec,))
        monkeypatch.setattr(provide, "SPECS", (spec,))
        (status,) = list_toolchains()
        assert status.state is ToolchainState.MISSING
        with pytest.raises(ToolchainError) as caught:
            ensure_toolchain("clicks", on_progress=ignore)
        assert caught.value.message == (
            "the clicks toolchain is not installed in this environment, and it has no isolated one"
        )
        assert "pip install 'edgepack[clicks]'" in caught.value.remedy


class TestGiven:
    @staticmethod
    def fail(path: Path, name: str = "tensorflow") -> str:
        with pytest.raises(ToolchainError) as caught:
            ensure_toolchain(name, python=path, on_progress=ignore)
        return caught.value.message

    def test_one_that_lacks_the_framework(self) -> None:
        if not probe_interpreter(Path(sys.executable), modules=["tensorflow"]).missing:
            pytest.skip("this environment has TensorFlow")
        assert self.fail(Path(sys.executable)) == (
            f"{sys.executable}: expected tensorflow in the environment named by "
            "--toolchain-python for the tensorflow toolchain; missing: tensorflow"
        )

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("exit 3", "it ended with exit code 3"),
            ("echo broken >&2; exit 1", "it ended with exit code 1 (broken)"),
        ],
    )
    def test_one_that_fails(self, tmp_path: Path, script: str, reason: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        assert self.fail(path) == f"{path}: expected a Python interpreter: {reason}"

    def test_one_that_is_no_python(self, tmp_path: Path) -> None:
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\necho hello\n")
        path.chmod(0o755)
        assert self.fail(path).startswith(f"{path}: expected a Python interpreter's answer: ")

    def test_one_that_is_not_there(self) -> None:
        assert self.fail(Path("/gone")) == (
            "/gone: expected a Python interpreter: No such file or directory"
        )

    def test_one_that_is_too_old(self, tmp_path: Path) -> None:
        path = tmp_path / "python"
        path.write_text(
            "#!/bin/sh\n"
            'echo \'{"version": [3, 8, 1], "base": "/x", "can_make_venv": true, "missing": [], '
            '"versions": {}}\'\n'
        )
        path.chmod(0o755)
        assert self.fail(path) == (
            f"{path}: expected Python 3.11 to 3.13 from --toolchain-python for the tensorflow "
            "toolchain, not Python 3.8.1"
        )


class TestCatalog:
    def test_an_unknown_name_gets_the_nearest(self) -> None:
        with pytest.raises(UsageError) as caught:
            ensure_toolchain("tensorflw", on_progress=ignore)
        assert caught.value.message == ("unknown toolchain 'tensorflw'; did you mean 'tensorflow'?")
        with pytest.raises(UsageError, match="unknown toolchain 'x'"):
            remove_toolchain("x")

    def test_nothing_is_there_at_first(self, toolchain_cache: Path) -> None:
        states = {status.name: status.state for status in list_toolchains()}
        assert states["onnx"] is ToolchainState.AVAILABLE
        assert not remove_toolchain("onnx")
        assert not toolchain_cache.exists()

    def test_the_extras_promise_what_serves(self) -> None:
        setup = configparser.ConfigParser()
        setup.read(Path(__file__).parent.parent / "setup.cfg")
        for spec in SPECS:
            if not spec.serving:
                continue
            extra = setup["options.extras_require"][spec.name].strip().splitlines()
            promised = {str(Requirement(line)) for line in extra}
            for group in spec.serving:
                assert promised & {str(Requirement(one)) for one in group.split("|")}

    @pytest.mark.parametrize("name", ["tensorflow", "onnx", "pytorch"])
    def test_a_lock_is_exact_hashed_and_names_no_address(self, name: str) -> None:
        text = (LOCKS / f"{name}.txt").read_text()
        assert not re.search(r"https?:|file:|@", text)
        entries = re.split(r"\n(?=[a-z])", re.sub(r"(?m)^#.*\n", "", text).strip())
        assert len(entries) > 20
        for entry in entries:
            assert re.fullmatch(
                r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+",
                entry,
            ), entry

    @pytest.mark.parametrize("name", ["tensorflow", "onnx", "pytorch"])
    def test_what_is_reported_is_locked(self, name: str) -> None:
        spec = find_spec(name)
        locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", spec.read_lock().decode()))
        outside = {Requirement(each).name for each in spec.unhashed}
        assert set(spec.reported) <= locked | outside
        assert not locked & outside

    def test_importing_the_room_is_light(self) -> None:
        program = (
            "import sys, edgepack.toolchains\n"
            "print(sorted({'numpy', 'onnx', 'paramiko', 'tensorflow'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        assert done.stdout == "[]\n"


@pytest.mark.toolchain
class TestRealToolchains:
    """The real ones, in the user's own cache: created once, then reused by every run."""

    def test_onnx_computes(self, tmp_path: Path, write_worker: WriteWorker) -> None:
        toolchain = ensure_toolchain("onnx", on_progress=ignore)
        assert dict(toolchain.versions)["onnx2tf"] == "2.6.9"
        worker = write_worker(
            "import numpy, onnx, onnxruntime, onnxsim, onnx2tf\n"
            "from onnx import helper as h, TensorProto as T\n"
            "io = [h.make_tensor_value_info(n, T.FLOAT, [1, 4]) for n in 'xy']\n"
            "node = h.make_node('Relu', ['x'], ['y'])\n"
            "graph = h.make_graph([node], 'g', io[:1], io[1:])\n"
            "model = h.make_model(graph, ir_version=10, opset_imports=[h.make_opsetid('', 17)])\n"
            "model, ok = onnxsim.simplify(model)\n"
            "session = onnxruntime.InferenceSession(model.SerializeToString())\n"
            "feeds = {'x': numpy.array([[-1, 0, 1, 2]], 'float32')}\n"
            "answer({'ok': {'y': session.run(None, feeds)[0].tolist(), 'ok': ok}})\n"
        )
        answer = run_worker(toolchain, worker, {}, folder=tmp_path, timeout_seconds=120)
        assert answer == {"y": [[0, 0, 1, 2]], "ok": True}

    def test_tensorflow_converts(self, tmp_path: Path, write_worker: WriteWorker) -> None:
        toolchain = ensure_toolchain("tensorflow", on_progress=ignore)
        assert dict(toolchain.versions)["tf-keras"] == "2.21.0"
        worker = write_worker(
            "import keras, tensorflow as tf, tf_keras, tensorflow_model_optimization\n"
            "model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])\n"
            "data = tf.lite.TFLiteConverter.from_keras_model(model).convert()\n"
            "answer({'ok': {'identifier': data[4:8].decode()}})\n"
        )
        answer = run_worker(toolchain, worker, {}, folder=tmp_path, timeout_seconds=120)
        assert answer == {"identifier": "TFL3"}
        (status,) = [
            one
            for one in list_toolchains()
            if one.name == "tensorflow" and one.state is not ToolchainState.OUTDATED
        ]
        assert status.path
        assert os.access(status.path, os.R_OK)

    def test_a_ready_one_is_found_at_once(self) -> None:
        ensure_toolchain("onnx", on_progress=ignore)
        start = time.monotonic()
        ensure_toolchain("onnx", on_progress=ignore)
        assert time.monotonic() - start < 1
