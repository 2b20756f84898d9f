"""Asking a source model's own framework to convert it or to run it."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import Fields, join_faults
from edgepack.cache import cache_directory
from edgepack.data.arrays import read_npz
from edgepack.errors import DataError, EdgePackError, ModelError, ToolchainError
from edgepack.importers.source import Converter, ImportOptions, SourceFormat
from edgepack.scratch import open_scratch
from edgepack.toolchains import Toolchain, ensure_toolchain, run_worker
from edgepack.toolchains.catalog import Origin
from edgepack.toolchains.worker import LOG_NAME

# Of a log, so much is kept of its beginning and of its end.
_KEPT_BYTES: Final = 4 << 20
# Of the digest of a source's path, in the name of its log.
_DIGEST_DIGITS: Final = 8
LOG_LABEL: Final = " Full log: "
"""Stands in a remedy before the path of a kept log."""
_TRACEBACK: Final = b"Traceback (most recent call last)"
_WORKERS: Final = Path(__file__).parent / "workers"
_PREPARED: Final = "prepared.onnx"

# Toolchain and script of each converter.
_CONVERTERS: Final = {
    Converter.TFLITE_CONVERTER: ("tensorflow", "tensorflow_worker.py"),
    Converter.ONNX2TF: ("onnx", "onnx_worker.py"),
    Converter.ONNX2TF_TENSORFLOW: ("onnx2tf-tensorflow", "onnx2tf_worker.py"),
    Converter.ONNX_TF: ("onnx-tf", "onnx_tf_worker.py"),
    Converter.LITERT_TORCH: ("pytorch", "pytorch_worker.py"),
}
# The converter whose worker also runs the source itself, and what that framework is called.
_REFERENCES: Final = {
    SourceFormat.KERAS: (Converter.TFLITE_CONVERTER, "Keras"),
    SourceFormat.KERAS_H5: (Converter.TFLITE_CONVERTER, "Keras"),
    SourceFormat.SAVED_MODEL: (Converter.TFLITE_CONVERTER, "TensorFlow"),
    SourceFormat.FROZEN_GRAPH: (Converter.TFLITE_CONVERTER, "TensorFlow"),
    SourceFormat.ONNX: (Converter.ONNX2TF, "ONNX Runtime"),
    SourceFormat.PYTORCH: (Converter.LITERT_TORCH, "PyTorch"),
    SourceFormat.TORCHSCRIPT: (Converter.LITERT_TORCH, "PyTorch"),
    SourceFormat.FUNCTION: (Converter.LITERT_TORCH, "PyTorch"),
}


class SourceError(ToolchainError):
    """The source's own framework is not there, or failed on it: no other converter helps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceWorker:
    """The script that handles a source format, and the toolchain it runs in.

    Attributes:
        script: path of the script.
        toolchain: where it runs.
        title: what the framework or the converter is called.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceNode:
    """A node of a source's graph whose output can be looked at.

    Attributes:
        name: as the source calls it.
        op: its operation.
        output: what to expose to see its output.
    """

    name: str
    op: str
    output: str


def open_worker(
    source_format: SourceFormat, *, options: ImportOptions, on_progress: Callable[[str], None]
) -> SourceWorker:
    """Give the worker that runs sources of a format; its toolchain is made on first use.

    Raises:
        SourceError: the toolchain cannot be made or found.
    """
    converter, title = _REFERENCES[source_format]
    with _as_source_error():
        return _open(converter, title, options=options, on_progress=on_progress)


def open_converter(
    converter: Converter, *, options: ImportOptions, on_progress: Callable[[str], None]
) -> SourceWorker:
    """Give the worker of a converter; its toolchain is made on first use.

    Raises:
        ToolchainError: the toolchain cannot be made or found.
    """
    return _open(converter, converter.value, options=options, on_progress=on_progress)


def _open(
    converter: Converter,
    title: str,
    *,
    options: ImportOptions,
    on_progress: Callable[[str], None],
) -> SourceWorker:
    toolchain_name, script = _CONVERTERS[converter]
    toolchain = ensure_toolchain(
        toolchain_name, python=options.toolchain_python, on_progress=on_progress
    )
    return SourceWorker(script=_WORKERS / script, toolchain=toolchain, title=title)


def runs_user_code(
    worker: SourceWorker, source_format: SourceFormat, options: ImportOptions
) -> bool:
    """Tell whether code of the user's own may take part in a model.

    No digest covers it: an edited layer leaves the model's file and every version as they
    were, so what comes of it is never kept.
    """
    return (
        source_format is SourceFormat.FUNCTION
        or bool(options.with_files)
        or (options.trust_model and worker.toolchain.origin is not Origin.ISOLATED)
    )


@contextmanager
def convert_source(
    worker: SourceWorker,
    path: Path,
    source_format: SourceFormat,
    options: ImportOptions,
    *,
    converter: Converter,
    reference: SourceWorker,
    expose: Sequence[str] | None = None,
) -> Iterator[tuple[dict[str, object], Path]]:
    """Convert a source model; give the worker's answer and the folder that holds its files.

    A converter that lives apart from the source's own framework gets what that framework
    prepared (fixed shapes, simplified), and the framework's word on inputs and outputs.

    Args:
        worker: of `open_converter`.
        path: the source model.
        source_format: its format.
        options: what the user asks.
        converter: which one.
        reference: of `open_worker`.
        expose: intermediate tensors that take the outputs' place.

    Raises:
        ModelError, ConversionError: the worker refused the model, or could not convert it.
        SourceError: a worker died before the model was ready for any converter.
        ToolchainError: it died afterwards.
    """
    with open_scratch("import") as folder:
        request = _request(path, source_format, options, folder) | {
            "converter": converter.value,
            "expose": None if expose is None else list(expose),
        }
        convert = request | {"operation": "convert"}
        if worker.script == reference.script:
            try:
                answer = _ask(worker, convert, path, options)
            except ToolchainError as error:
                # A worker leaves it between preparing and converting.
                if (folder / _PREPARED).exists():
                    raise
                raise SourceError(error.message, remedy=error.remedy) from error
            yield answer, folder
            return
        with _as_source_error():
            prepared = _ask(reference, request | {"operation": "prepare"}, path, options)
        convert |= {"model": str(folder / _PREPARED), "expose": None}
        yield prepared | _ask(worker, convert, path, options), folder


def run_source(
    worker: SourceWorker,
    path: Path,
    source_format: SourceFormat,
    options: ImportOptions,
    *,
    inputs: Sequence[NDArray[Any]],
    num_outputs: int,
    expose: Sequence[str] | None = None,
) -> tuple[tuple[NDArray[Any], ...], ...]:
    """Run a source model in its own framework; give each sample's outputs in its order.

    Args:
        worker: of `open_worker`.
        path: the source model.
        source_format: its format.
        options: as it was imported with.
        inputs: one array for each input in the source's order, (num_samples, *shape).
        num_outputs: how many outputs the source has, or are exposed.
        expose: intermediate tensors that take the outputs' place.

    Raises:
        ModelError: the framework cannot run the model on the samples.
        SourceError: the worker died.
    """
    with open_scratch("reference") as folder:
        arrays = {str(index): array for index, array in enumerate(inputs)}
        np.savez(folder / "inputs.npz", allow_pickle=False, **arrays)
        request = _request(path, source_format, options, folder) | {
            "operation": "run",
            "title": worker.title,
            "expose": None if expose is None else list(expose),
        }
        with _as_source_error():
            _ask(worker, request, path, options)
        columns = _read_outputs(
            folder / "outputs.npz", num_outputs, len(inputs[0]) if inputs else 0
        )
    return tuple(zip(*columns, strict=True))


def list_nodes(
    worker: SourceWorker, path: Path, source_format: SourceFormat, options: ImportOptions
) -> tuple[SourceNode, ...]:
    """Give the nodes of a source's graph whose outputs can be looked at, in topological order.

    Raises:
        ModelError: the source cannot be read.
        ToolchainError: the worker died, or answered something else.
    """
    with open_scratch("nodes") as folder:
        request = _request(path, source_format, options, folder) | {"operation": "nodes"}
        fields = Fields(_ask(worker, request, path, options))
    nodes = tuple(
        SourceNode(name=table.text("name"), op=table.text("op"), output=table.text("output"))
        for table in fields.tables("nodes")
    )
    if fields.faults:
        raise ToolchainError(
            join_faults(f"the answer of {worker.title}", fields.faults),
            remedy="Report this as a bug of EdgePack, with the model if you can.",
        )
    return nodes


@contextmanager
def _as_source_error() -> Iterator[None]:
    try:
        yield
    except ToolchainError as error:
        raise SourceError(error.message, remedy=error.remedy) from error


def _ask(
    worker: SourceWorker, request: dict[str, object], path: Path, options: ImportOptions
) -> dict[str, object]:
    """Run the worker; when it fails, keep its log and name it in the remedy."""
    folder = Path(str(request["folder"]))
    try:
        return run_worker(
            worker.toolchain,
            worker.script,
            request,
            folder=folder,
            timeout_seconds=options.timeout_seconds,
            memory_bytes=options.memory_bytes,
            # It may fetch its weights; a model file of unknown origin may not.
            own_code=options.trust_model or request["format"] == SourceFormat.FUNCTION.value,
        )
    except EdgePackError as error:
        log = _keep_log(folder / LOG_NAME, _log_name(request, path), error)
        if log is None:
            raise
        remedy = f"{error.remedy}{LOG_LABEL}{log}".lstrip()
        raise type(error)(error.message, remedy=remedy) from error


def _log_name(request: dict[str, object], path: Path) -> str:
    """Name a log: models of one name and the converters of a chain each have their own."""
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    parts = (request["operation"], request.get("converter"), path.name, digest[:_DIGEST_DIGITS])
    return "-".join(str(part) for part in parts if part is not None) + ".log"


def _keep_log(log: Path, name: str, error: EdgePackError) -> Path | None:
    """Keep a log in the cache directory, over an older one of the same model and converter.

    That a model is refused says all there is, unless the framework itself raised: then its
    traceback is in the log.

    Returns:
        where it is; None when there is nothing to read, or it cannot be kept.
    """
    kept = cache_directory() / "logs" / Path(name).name
    try:
        with log.open("rb") as file:
            text = file.read(_KEPT_BYTES)
            end = file.seek(0, os.SEEK_END)
            if end > 2 * _KEPT_BYTES:
                text += f"\n[{end - 2 * _KEPT_BYTES} bytes left out]\n".encode()
            file.seek(max(_KEPT_BYTES, end - _KEPT_BYTES))
            text += file.read(_KEPT_BYTES)
        is_explained = isinstance(error, ModelError) and _TRACEBACK not in text
        if is_explained or not text.strip():
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(text)
    except OSError:  # the failure itself is what the user must hear of
        return None
    return kept


def _request(
    path: Path, source_format: SourceFormat, options: ImportOptions, folder: Path
) -> dict[str, object]:
    is_code = source_format is SourceFormat.FUNCTION
    return {
        "model": str(path if is_code else path.resolve()),
        "search_path": str(Path.cwd()),
        "format": source_format.value,
        "folder": str(folder),
        "input_shapes": {name: list(shape) for name, shape in options.input_shapes},
        "dimensions": dict(options.dimensions),
        "signature": options.signature,
        "trust_model": options.trust_model,
        "with_files": [str(file.resolve()) for file in options.with_files],
    }


def _read_outputs(path: Path, num_outputs: int, num_samples: int) -> list[NDArray[Any]]:
    """Read what a worker wrote, as untrusted as the model it ran.

    Raises:
        ModelError: unreadable, too large, or not one array of `num_samples` for each output.
    """
    remedy = "Run the command again; if it stays so, use fewer samples."
    try:
        arrays = read_npz(path)
        columns = [arrays[str(index)] for index in range(num_outputs)]
    except (DataError, KeyError) as error:
        raise ModelError(
            f"expected {num_outputs} outputs of the source model, but reading them failed: {error}",
            remedy=remedy,
        ) from error
    counts = [column.shape[:1] for column in columns]
    if any(count != (num_samples,) for count in counts):
        raise ModelError(
            f"expected {num_samples} samples of each output of the source model, but there are "
            f"{', '.join(str(count[0] if count else 0) for count in counts)}",
            remedy=remedy,
        )
    return columns
