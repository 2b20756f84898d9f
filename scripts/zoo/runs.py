"""Runs of `edgepack convert`, one process each, measured from outside."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

ONNX_CONVERTERS = ("onnx2tf", "onnx2tf-tensorflow", "onnx-tf")
# What a conversion may take; the process around it gets some more to end by itself.
SPARE_SECONDS = 60
_LONGEST_FAULT = 1500


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file, folder or function of the zoo.

    Attributes:
        case: name of the model.
        toolchain: what it is made in, whose Python may be given.
        file: name below the model's folder; or `file.py:function`.
        arguments: of `edgepack convert`.
    """

    case: str
    toolchain: str
    file: str
    arguments: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What it is called in the results."""
        return f"{self.case}/{Path(self.file).name}"

    @property
    def converters(self) -> tuple[str, ...]:
        """The converters of its chain."""
        if ".onnx" in self.file:
            return ONNX_CONVERTERS
        return ("litert-torch",) if self.toolchain == "pytorch" else ("tflite-converter",)

    @property
    def form(self) -> str:
        """What its format is called in the table."""
        name = Path(self.file).name
        if ":" in name:
            return "function"
        titles = {"keras.onnx": "onnx (tf2onnx)", "dynamo.onnx": "onnx (torch dynamo)",
                  "tf_keras": "SavedModel (tf-keras)", "tf_keras.h5": ".h5 (tf-keras)"}  # fmt: skip
        if self.case == "keras-legacy":
            name = f"tf_keras{Path(name).suffix}"
        if name in titles:
            return titles[name]
        return Path(name).suffix or "SavedModel"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one run.

    Attributes:
        converter: the one that was forced; None for the chain's own choice.
        passed: whether a model came out that passed parity.
        chosen: the converter that won.
        sqnr_db: of the worst output; None without one.
        judged: by what the outputs passed.
        seconds: wall-clock time.
        peak_memory_bytes: most resident memory of one process.
        size_bytes: of the model.
        fault: why there is none.
        fallen: (converter, why) of those that fell before.
    """

    converter: str | None
    passed: bool
    chosen: str | None
    sqnr_db: float | None
    judged: tuple[str, ...]
    seconds: float
    peak_memory_bytes: int
    size_bytes: int | None
    fault: str | None
    fallen: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one run may take."""

    seconds: float
    memory_gib: float


def convert(
    source: Source,
    models: Path,
    *,
    converter: str | None,
    cache_home: Path,
    limits: Limits,
    extra: tuple[str, ...] = (),
) -> Result:
    """Run `edgepack convert` on a source and measure it."""
    path = source.file if ":" in source.file else str(models / source.case / source.file)
    with tempfile.TemporaryDirectory(prefix="model-support-") as name:
        folder = Path(name)
        command = [
            *(sys.executable, "-m", "edgepack", "convert", path, "-o", "made.tflite", "--json"),
            *source.arguments,
            *(("--converter", converter) if converter else ()),
            *("--convert-timeout", str(limits.seconds), "--convert-memory", str(limits.memory_gib)),
            *extra,
        ]
        ran = _measure(command, folder, cache_home, limits.seconds + SPARE_SECONDS)
        return _result(converter, ran, folder, models)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ran:
    code: int
    seconds: float
    peak_memory_bytes: int


def _measure(command: list[str], folder: Path, cache_home: Path, limit_seconds: float) -> _Ran:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_home), "TMPDIR": str(folder)}
    start = time.monotonic()
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
        )
        timer = threading.Timer(limit_seconds, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            # wait4 tells what this child and all it waited for took; Popen.wait would not.
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return _Ran(
        code=process.returncode,
        seconds=time.monotonic() - start,
        peak_memory_bytes=usage.ru_maxrss * unit,
    )


def _result(converter: str | None, ran: _Ran, folder: Path, models: Path) -> Result:
    text = (folder / "out").read_text("utf-8")
    body: dict[str, Any] = json.loads(text) if text.strip() else {}
    outputs = body.get("parity", {}).get("outputs", ())
    fault = None
    if ran.code != 0:
        error = body.get("error", {})
        fault = error.get("message") or _last_line(folder / "err") or f"exit code {ran.code}"
        if ran.code == -signal.SIGKILL:
            fault = (
                f"stopped after {ran.seconds:.0f} s, the limit of all converters together: {fault}"
            )
        if error.get("kind") == "bug":
            fault = f"{fault} ({error.get('remedy')})"
    attempts = body.get("attempts", ())
    winner = next((each["converter"] for each in attempts if each["fault"] is None), "none")
    return Result(
        converter=converter,
        passed=ran.code == 0,
        chosen=winner if ran.code == 0 else None,
        sqnr_db=min((each["sqnr_db"] for each in outputs), default=None),
        judged=tuple(sorted({each["judgement"] for each in outputs})),
        seconds=round(ran.seconds, 2),
        peak_memory_bytes=ran.peak_memory_bytes,
        size_bytes=body.get("size_bytes"),
        fault=_tidy(fault, folder, models) if fault else None,
        fallen=tuple(
            (each["converter"], _tidy(each["fault"], folder, models))
            for each in attempts
            if each["fault"] is not None
        ),
    )


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _tidy(text: str, folder: Path, models: Path) -> str:
    """Take this machine's folders out of a message, and bound it."""
    for place in (models, folder):
        text = text.replace(f"{place}/", "")
    return re.sub(r"/tmp/[\w./-]*", "…", text)[:_LONGEST_FAULT]  # noqa: S108 - a pattern, no file


def cache_home(folder: Path, real: Path) -> Path:
    """Make an empty cache that shares the toolchains with the user's own."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "edgepack").mkdir(parents=True)
    (real / "toolchains").mkdir(parents=True, exist_ok=True)
    (folder / "edgepack" / "toolchains").symlink_to(real / "toolchains")
    return folder


def load_results(path: Path) -> dict[str, list[Result]]:
    """Read the results of earlier runs, by source."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text("utf-8"))
    return {
        key: [
            Result(
                **{
                    **each,
                    "judged": tuple(each["judged"]),
                    "fallen": tuple((a, b) for a, b in each["fallen"]),
                }
            )
            for each in results
        ]
        for key, results in stored.items()
    }


def store_results(path: Path, results: dict[str, list[Result]]) -> None:
    """Put results among those that are kept; another process may keep some too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        kept = load_results(path) | results
        temporary = path.with_suffix(".new")
        body = {key: [asdict(each) for each in kept[key]] for key in sorted(kept)}
        temporary.write_text(json.dumps(body, indent=1, ensure_ascii=False), "utf-8")
        temporary.replace(path)
