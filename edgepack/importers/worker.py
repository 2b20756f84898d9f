"""Asking a source model's own framework to convert it or to run it."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.cache import cache_directory
from edgepack.errors import ConversionError, ModelError, ToolchainError
from edgepack.importers.source import ImportOptions, SourceFormat
from edgepack.toolchains import Toolchain, ensure_toolchain, run_worker
from edgepack.toolchains.catalog import Origin
from edgepack.toolchains.worker import LOG_NAME

_WORKERS: Final = Path(__file__).parent / "workers"
_TIMEOUT_SECONDS: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceWorker:
    """The script that handles a source format, and the toolchain it runs in.

    Attributes:
        script: path of the script.
        toolchain: where it runs.
        title: what the framework is called.
    """

    script: Path
    toolchain: Toolchain
    title: str

    @property
    def digest(self) -> str:
        """Hex digest of all workers' scripts, which share code."""
        files = sorted(_WORKERS.glob("*.py"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    @property
    def versions_text(self) -> str:
        """The toolchain's packages as one text, for cache keys."""
        return " ".join(f"{name}=={version}" for name, version in self.toolchain.versions)


_SCRIPTS: Final = {
    SourceFormat.KERAS: ("tensorflow", "tensorflow_worker.py", "Keras"),
    SourceFormat.KERAS_H5: ("tensorflow", "tensorflow_worker.py", "Keras"),
    SourceFormat.SAVED_MODEL: ("tensorflow", "tensorflow_worker.py", "TensorFlow"),
    SourceFormat.ONNX: ("onnx", "onnx_worker.py", "ONNX Runtime"),
}


def open_worker(
    source_format: SourceFormat, *, options: ImportOptions, on_progress: Callable[[str], None]
) -> SourceWorker:
    """Give the worker of a source format; its toolchain is made on first use.

    Raises:
        ToolchainError: the toolchain cannot be made or found.
    """
    toolchain_name, script, title = _SCRIPTS[source_format]
    toolchain = ensure_toolchain(
        toolchain_name, python=options.toolchain_python, on_progress=on_progress
    )
    return SourceWorker(script=_WORKERS / script, toolchain=toolchain, title=title)


def runs_user_code(worker: SourceWorker, options: ImportOptions) -> bool:
    """Tell whether modules of the user's own environment may take part in a model.

    No digest covers them: an edited layer leaves the model's file and every version as they
    were, so what comes of them is never kept.
    """
    return options.trust_model and worker.toolchain.origin is not Origin.ISOLATED


@contextmanager
def convert_source(
    worker: SourceWorker, path: Path, source_format: SourceFormat, options: ImportOptions
) -> Iterator[tuple[dict[str, object], Path]]:
    """Convert a source model; give the worker's answer and the folder that holds its files.

    Raises:
        ModelError, ConversionError: the worker refused the model, or could not convert it.
        ToolchainError: the worker died.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-import-") as name:
        folder = Path(name)
        request = _request(path, source_format, options, folder) | {"operation": "convert"}
        yield _ask(worker, request, folder, path), folder


def run_source(
    worker: SourceWorker,
    path: Path,
    source_format: SourceFormat,
    options: ImportOptions,
    *,
    inputs: Sequence[NDArray[Any]],
    num_outputs: int,
) -> tuple[tuple[NDArray[Any], ...], ...]:
    """Run a source model in its own framework; give each sample's outputs in its order.

    Args:
        worker: of `open_worker`.
        path: the source model.
        source_format: its format.
        options: as it was imported with.
        inputs: one array for each input in the source's order, (num_samples, *shape).
        num_outputs: how many outputs the source has.

    Raises:
        ModelError: the framework cannot run the model on the samples.
        ToolchainError: the worker died.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-reference-") as name:
        folder = Path(name)
        arrays = {str(index): array for index, array in enumerate(inputs)}
        np.savez(folder / "inputs.npz", allow_pickle=False, **arrays)
        request = _request(path, source_format, options, folder) | {
            "operation": "run",
            "title": worker.title,
        }
        _ask(worker, request, folder, path)
        columns = _read_outputs(folder / "outputs.npz", num_outputs)
    return tuple(zip(*columns, strict=True))


def _ask(
    worker: SourceWorker, request: dict[str, object], folder: Path, path: Path
) -> dict[str, object]:
    """Run the worker; when it fails, keep its log and name it in the remedy."""
    try:
        return run_worker(
            worker.toolchain,
            worker.script,
            request,
            folder=folder,
            timeout_seconds=_TIMEOUT_SECONDS,
        )
    except (ToolchainError, ConversionError) as error:
        log = _keep_log(folder / LOG_NAME, f"{request['operation']}-{path.name}.log")
        if log is None:
            raise
        remedy = f"{error.remedy} The framework's whole log: {log}"
        raise type(error)(error.message, remedy=remedy) from error


def _keep_log(log: Path, name: str) -> Path | None:
    """Move a log to the cache directory, over an older one of the same model."""
    kept = cache_directory() / "logs" / name
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(log, kept)
    except OSError:  # the failure itself is what the user must hear of
        return None
    return kept


def _request(
    path: Path, source_format: SourceFormat, options: ImportOptions, folder: Path
) -> dict[str, object]:
    return {
        "model": str(path.resolve()),
        "format": source_format.value,
        "folder": str(folder),
        "input_shapes": {name: list(shape) for name, shape in options.input_shapes},
        "signature": options.signature,
        "trust_model": options.trust_model,
    }


def _read_outputs(path: Path, num_outputs: int) -> list[NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[str(index)] for index in range(num_outputs)]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"expected {num_outputs} outputs of the source model, but reading them failed: {error}",
            remedy="Run the command again; if it stays so, use fewer samples.",
        ) from error
