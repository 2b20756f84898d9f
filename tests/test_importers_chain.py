"""The chain of converters: who gets a turn after whom, with workers that are written on the spot.

The source is a file with an ONNX model's outline that stands for max(x, 0); its workers answer
with a model of that, or of tanh(x), or as the test has it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgepack.cache import Cache, cache_directory
from edgepack.errors import ConversionError, EdgePackError, ModelError, ParityError, ToolchainError
from edgepack.importers import Converter, ImportOptions, import_verified, worker
from edgepack.importers.chain import VerifiedImport
from edgepack.toolchains import Toolchain
from edgepack.toolchains.worker import run_worker
from tests.fixtures.commands import run_command
from tests.fixtures.graphs import GraphMaker

_HEAD = """
import json, os, shutil, signal, sys
request = json.load(sys.stdin)
def answer(value):
    os.write(3, json.dumps(value).encode())
    sys.exit()
def refuse(kind, message):
    answer({"error": {"kind": kind, "message": message, "remedy": "Mend it."}})
def die():
    print("a last word", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
def write(model):
    shutil.copy(model, "model.tflite")
    answer({"ok": SPEC | {"converter": "stub"}})
SPEC = {
    "inputs": [{"name": "x", "shape": [1, 6], "dtype": "float32"}],
    "outputs": [{"name": "y", "shape": [1, 6], "dtype": "float32"}],
}
"""
# What the source's own framework does beside converting.
_RUN = """
if request["operation"] == "nodes":
    answer({"ok": {"nodes": []}})
if request["operation"] == "run":
    import numpy
    numpy.savez("outputs.npz", **{"0": numpy.maximum(numpy.load("inputs.npz")["0"], 0)})
    answer({"ok": {}})
"""
_KILLED = (
    "the worker {} of the own toolchain was killed by SIGTERM before it answered:\n  a last word"
)
_PREPARE = """
shutil.copy(request["model"], "prepared.onnx")
if request["operation"] == "prepare":
    answer({"ok": SPEC})
"""
_DB = r"y: SQNR -?\d+\.\d dB, max abs error [\d.]+, cosine -?[\d.]+"


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Converters as a test has them.

    Attributes:
        write: writes the workers' scripts, of the given bodies.
        convert: writes them and imports the source.
        toolchains: those that were asked for, in order.
        progress: the lines that were told.
        source: the file.
    """

    source: Path
    write: Callable[..., None]
    convert: Callable[..., VerifiedImport]
    toolchains: list[str]
    progress: list[str]


@pytest.fixture
def chain(own_toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Give a source and workers whose bodies a test writes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    toolchains: list[str] = []
    progress: list[str] = []

    def ensure(name: str, **_: object) -> Toolchain:
        toolchains.append(name)
        return own_toolchain

    workers = tmp_path / "workers"
    workers.mkdir()
    monkeypatch.setattr(worker, "_WORKERS", workers)
    monkeypatch.setattr(worker, "ensure_toolchain", ensure)
    source = tmp_path / "model.onnx"
    source.write_bytes(b"\x08\x08\x3a\x03abc")
    models = ""
    for name, op in (("RIGHT", "RELU"), ("WRONG", "TANH")):
        maker = GraphMaker((1, 6))
        (tmp_path / name).write_bytes(maker.finish(maker.op(op, [maker.input])))
        models += f"{name} = {str(tmp_path / name)!r}\n"

    def write(
        first: str, second: str = "die()", third: str = "die()", *, prepare: str = _PREPARE,
        run: str = _RUN,
    ) -> None:  # fmt: skip
        for name, body in (
            ("onnx_worker.py", f"{run}\n{prepare}\n{first}"),
            ("onnx2tf_worker.py", second),
            ("onnx_tf_worker.py", third),
        ):
            (workers / name).write_text(f"{_HEAD}{models}{body}")

    def convert(*bodies: str, converter: Converter | None = None, **parts: str) -> VerifiedImport:
        write(*bodies, **parts)
        return import_verified(
            source,
            options=ImportOptions(converter=converter),
            read_samples=lambda _specs: None,
            minimum_db=60.0,
            cache=Cache(root=tmp_path / "kept"),
            on_progress=progress.append,
        )

    return Chain(
        source=source, write=write, convert=convert, toolchains=toolchains, progress=progress
    )


def _tried(verified: VerifiedImport) -> list[tuple[str, str | None]]:
    return [(each.converter.value, each.fault) for each in verified.attempts]


def _fault(
    chain: Chain, *bodies: str, converter: Converter | None = None, **parts: str
) -> EdgePackError:
    with pytest.raises(EdgePackError) as caught:
        chain.convert(*bodies, converter=converter, **parts)
    return caught.value


def test_a_model_that_answers_otherwise_falls_and_the_next_converter_wins(chain: Chain) -> None:
    verified = chain.convert("write(WRONG)", "write(RIGHT)")
    first, second = _tried(verified)
    assert first[0] == "onnx2tf"
    assert first[1] is not None
    assert "expected at least 60 dB between ONNX Runtime and the converted model" in first[1]
    assert second == ("onnx2tf-tensorflow", None)
    assert min(each.sqnr_db for each in verified.parity.outputs) > 100
    assert "onnx-tf" not in chain.toolchains
    assert any(line.startswith("onnx2tf fell: ") for line in chain.progress)


def test_the_result_says_why_a_converter_fell(chain: Chain, tmp_path: Path) -> None:
    chain.write("refuse('conversion', 'no form for Odd')", "write(RIGHT)")
    ran = run_command("convert", chain.source, "-o", tmp_path / "model.tflite", "--json")
    assert ran.code == 0, ran.err
    assert ran.json()["attempts"] == [
        {"converter": "onnx2tf", "fault": "no form for Odd"},
        {"converter": "onnx2tf-tensorflow", "fault": None},
    ]


def test_converters_that_die_or_hang_leave_their_turn_to_the_next(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurry(toolchain: Toolchain, script: Path, *request: Any, **given: Any) -> dict[str, object]:  # noqa: ANN401 - handed on
        if script.stem == "onnx2tf_worker":
            given["timeout_seconds"] = 1.0
        return run_worker(toolchain, script, *request, **given)

    monkeypatch.setattr(worker, "run_worker", hurry)
    verified = chain.convert("die()", "signal.pause()", "write(RIGHT)")
    first, second, third = _tried(verified)
    assert first == ("onnx2tf", _KILLED.format("onnx_worker"))
    assert second[0] == "onnx2tf-tensorflow"
    assert second[1] is not None
    assert second[1].startswith(
        "the worker onnx2tf_worker of the own toolchain did not answer within 1 s"
    )
    assert third == ("onnx-tf", None)


def test_when_all_fall_each_reason_and_log_is_named_and_what_can_be_done(chain: Chain) -> None:
    fault = _fault(chain, "write(WRONG)", "refuse('conversion', 'no form for Odd')", "die()")
    assert isinstance(fault, ParityError)
    lines = fault.message.splitlines()
    assert lines[0].endswith(
        "model.onnx: expected one of 3 converters to give a model that computes what its source "
        "computes, but none did"
    )
    assert re.fullmatch(
        r"  onnx2tf: \S+model\.onnx: expected at least 60 dB between ONNX Runtime and the "
        r"converted model on every output, but on 9 generated samples it has",
        lines[1],
    )
    assert re.fullmatch(rf"  {_DB} \(seed 2\d\)  <- too far", lines[2])
    assert lines[3:] == [
        "  onnx2tf-tensorflow: no form for Odd",
        *f"  onnx-tf: {_KILLED.format('onnx_tf_worker')}".splitlines(),
        "onnx2tf: the source has no nodes that could be looked at",
    ]
    logs = cache_directory() / "logs"
    (log,) = logs.iterdir()
    assert log.name.startswith("convert-onnx-tf-model.onnx-")
    assert "another --converter" not in fault.remedy
    assert fault.remedy.endswith(
        " Mend it. The framework itself crashed on this model: export the model again. "
        f"Full logs: onnx-tf: {log}"
    )


def test_a_forced_converter_that_falls_says_that_there_are_others(chain: Chain) -> None:
    fault = _fault(
        chain, "die()", "die()", "refuse('conversion', 'no form for Odd')",
        converter=Converter.ONNX_TF,
    )  # fmt: skip
    assert isinstance(fault, ConversionError)
    assert fault.message == "no form for Odd"
    assert fault.remedy == (
        "Without --converter onnx-tf, onnx2tf, onnx2tf-tensorflow would be tried, too. Mend it."
    )


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ({"prepare": "refuse('model', 'Odd stands there')"}, ModelError, "Odd stands there"),
        ({"prepare": "die()"}, ToolchainError, _KILLED.format("onnx_worker")),
        (
            {"run": "\nif request['operation'] == 'run': die()\n"},
            ToolchainError,
            _KILLED.format("onnx_worker"),
        ),
    ],
)
def test_a_fault_of_the_source_itself_is_told_once(
    chain: Chain, parts: dict[str, Any], kind: type[EdgePackError], message: str
) -> None:
    fault = _fault(chain, "write(RIGHT)", "write(RIGHT)", "write(RIGHT)", converter=None, **parts)
    assert isinstance(fault, kind)
    assert fault.message == message
    # No toolchain of another converter was made for it.
    assert set(chain.toolchains) == {"onnx"}


def test_a_source_that_cannot_be_prepared_has_no_converters_toolchain_made(chain: Chain) -> None:
    fault = _fault(chain, "", prepare="die()", converter=Converter.ONNX_TF)
    assert fault.message.startswith("the worker onnx_worker of the own toolchain was killed")
    assert fault.remedy.startswith("The framework itself crashed on this model")
