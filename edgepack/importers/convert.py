"""Import a source model with one converter, and keep the result."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from edgepack import child, comparison, evaluate, evaluate_worker, fidelity, flatbuffer
from edgepack import model as model_module
from edgepack._fields import Fields, join_faults
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.data import generate as generate_module
from edgepack.data import noise as noise_module
from edgepack.errors import ConversionError, ModelError
from edgepack.importers import binding as binding_module
from edgepack.importers import conversion as conversion_module
from edgepack.importers import interface as interface_module
from edgepack.importers import layout as layout_module
from edgepack.importers import limits as limits_module
from edgepack.importers import worker as worker_module
from edgepack.importers.binding import ImportedModel, TensorBinding
from edgepack.importers.conversion import Conversion, convert, read_hint, read_spec
from edgepack.importers.detection import detect_format
from edgepack.importers.source import (
    CONVERTERS,
    Converter,
    ImportOptions,
    SourceFormat,
    SourceInfo,
    digest_source,
)
from edgepack.importers.worker import open_converter, open_worker, runs_user_code
from edgepack.model import load_model
from edgepack.scratch import open_scratch

_MODEL: Final = "model.tflite"
_RECORD: Final = "import.json"
_SIGNED: Final = (SourceFormat.SAVED_MODEL, SourceFormat.FROZEN_GRAPH)
_SYMBOLIC: Final = (SourceFormat.ONNX, SourceFormat.PYTORCH)


def import_model(
    path: Path,
    *,
    options: ImportOptions,
    cache: Cache,
    on_progress: Callable[[str], None],
    converter: Converter | None = None,
) -> ImportedModel:
    """Turn a source model into a float32 TFLite model with the source's names and order.

    The result is kept in the cache under everything that decides it, unless code of the
    user's own decides it too. Call `check_parity` before relying on it.

    Args:
        path: the source model, or `module:function`.
        options: what the user asks.
        cache: where results are kept.
        on_progress: called with one line at a time.
        converter: what converts it; None is the one asked for, else the first of the format.

    Raises:
        ModelError: unreadable, unsafe, of open shapes, or not supported.
        ConversionError: the converter failed, or wrote what no runtime can run.
        ToolchainError: the source's framework is not there and cannot be made.
    """
    source_format = detect_format(path)
    check_options(path, source_format, options)
    if source_format is SourceFormat.TFLITE:
        return _import_tflite(path, digest_source(path))
    conversion = open_conversion(
        path, options=options, on_progress=on_progress, converter=converter
    )
    worker = conversion.worker
    title = path if source_format is SourceFormat.FUNCTION else path.name
    if runs_user_code(worker, source_format, options):
        on_progress(f"converting {title} with {worker.title}")
        with open_scratch("import") as scratch:
            for file, data in _convert_files(conversion).items():
                (scratch / file).write_bytes(data)
            return _read_entry(scratch, path.name)
    key = _digest(conversion)
    folder = cache.load(key)
    if folder is None:
        on_progress(f"converting {title} with {worker.title}")
        folder = cache.store(key, _convert_files(conversion))
    return _read_entry(folder, path.name)


def open_conversion(
    path: Path,
    *,
    options: ImportOptions,
    on_progress: Callable[[str], None],
    converter: Converter | None,
) -> Conversion:
    """Give what a conversion needs; its toolchains are made on first use.

    Raises:
        ModelError: the source cannot be read, or is converted already.
        ToolchainError: a toolchain cannot be made or found.
    """
    source_format = detect_format(path)
    is_code = source_format is SourceFormat.FUNCTION
    converter = converter or options.converter or CONVERTERS[source_format][0]
    # First, so that no converter's toolchain is made where the source cannot be read.
    reference = open_worker(source_format, options=options, on_progress=on_progress)
    return Conversion(
        path=path,
        source_format=source_format,
        sha256="" if is_code else digest_source(path),
        converter=converter,
        worker=open_converter(converter, options=options, on_progress=on_progress),
        reference=reference,
        options=options,
    )


def _digest(conversion: Conversion) -> str:
    return digest_parts(
        "import",
        source=conversion.sha256,
        format=conversion.source_format.value,
        options=conversion.options.key,
        converter=conversion.converter.value,
        worker=conversion.worker.digest,
        versions=f"{conversion.worker.versions_text} {conversion.reference.versions_text}",
        engine=version("ai-edge-litert"),
        code=source_digest(
            binding_module,
            child,
            comparison,
            conversion_module,
            evaluate,
            evaluate_worker,
            fidelity,
            flatbuffer,
            generate_module,
            noise_module,
            limits_module,
            interface_module,
            layout_module,
            model_module,
            worker_module,
            sys.modules[__name__],
        ),
    )


def check_options(path: Path, source_format: SourceFormat, options: ImportOptions) -> None:
    """Refuse options that mean nothing for a format, all at once.

    Raises:
        ModelError: there are some.
    """
    faults: list[str] = []
    named = f"but this is {source_format.value}"
    if options.signature is not None and source_format is SourceFormat.TFLITE:
        faults.append(
            f"--signature {options.signature} is about converting, and a .tflite model is run by "
            "its main signature"
        )
    elif options.signature is not None and source_format not in _SIGNED:
        faults.append(
            f"--signature {options.signature} chooses among a SavedModel's signatures, {named}"
        )
    if source_format is SourceFormat.TFLITE:
        faults += [
            f"{option} is about converting, but a .tflite model is converted already"
            for option, given in (
                ("--input-shape", options.input_shapes),
                ("--dim", options.dimensions),
                ("--converter", options.converter),
                ("--with", options.with_files),
            )
            if given
        ]
    else:
        known = CONVERTERS[source_format]
        if options.converter is not None and options.converter not in known:
            choices = " or ".join(each.value for each in known)
            faults.append(f"--converter {options.converter.value}: expected {choices}, {named}")
        if options.dimensions and source_format not in _SYMBOLIC:
            faults.append(f"--dim names dimensions of ONNX and PyTorch models, {named}")
        if options.with_files and source_format is SourceFormat.ONNX:
            faults.append(f"--with runs Python that a Keras or PyTorch model needs, {named}")
    if faults:
        is_done = source_format is SourceFormat.TFLITE
        raise ModelError(
            join_faults(str(path), faults),
            remedy="Convert its source again with these options, or leave them out."
            if is_done
            else "Leave these options out.",
        )


def _import_tflite(path: Path, sha256: str) -> ImportedModel:
    model = load_model(path)
    for side, specs in (("input", model.signature.inputs), ("output", model.signature.outputs)):
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names) or not all(names):
            raise ModelError(
                f"{path}: expected {side}s with distinct names, but they are {names}",
                remedy="Name them when converting, or add a signature to the model.",
            )
    info = SourceInfo(
        file_name=path.name,
        format=SourceFormat.TFLITE,
        sha256=sha256,
        versions=(),
        converter="none",
    )
    return ImportedModel(
        model=model,
        source=info,
        inputs=tuple(TensorBinding(source=spec) for spec in model.signature.inputs),
        outputs=tuple(TensorBinding(source=spec) for spec in model.signature.outputs),
    )


def _convert_files(conversion: Conversion) -> dict[str, bytes]:
    imported = convert(conversion)
    return {_MODEL: imported.model.data, _RECORD: _write_record(imported)}


def _write_record(imported: ImportedModel) -> bytes:
    source = imported.source
    record = {
        "format": source.format.value,
        "sha256": source.sha256,
        "converter": source.converter,
        "notes": list(source.notes),
        "versions": [{"name": name, "version": version} for name, version in source.versions],
        "inputs": [_binding_table(each) for each in imported.inputs],
        "outputs": [_binding_table(each) for each in imported.outputs],
    }
    return json.dumps(record, indent=1).encode()


def _binding_table(binding: TensorBinding) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": binding.source.name,
        "shape": list(binding.source.shape),
        "dtype": binding.source.dtype,
    }
    if binding.permutation is not None:
        table["permutation"] = list(binding.permutation)
    if binding.hint.maximum is not None:
        table["maximum"] = binding.hint.maximum
    table["role"] = binding.hint.role.value
    return table


def _read_entry(folder: Path, file_name: str) -> ImportedModel:
    fields = Fields(json.loads((folder / _RECORD).read_bytes()))
    versions = tuple(
        (table.text("name"), table.text("version")) for table in fields.tables("versions")
    )
    info = SourceInfo(
        file_name=file_name,
        format=fields.choice("format", SourceFormat),
        sha256=fields.text("sha256"),
        versions=versions,
        converter=fields.text("converter"),
        notes=fields.texts("notes"),
    )
    imported = ImportedModel(
        model=load_model(folder / _MODEL),
        source=info,
        inputs=tuple(_read_binding(table) for table in fields.tables("inputs")),
        outputs=tuple(_read_binding(table) for table in fields.tables("outputs")),
    )
    if fields.faults:
        raise ConversionError(
            join_faults(f"cached import {folder}", fields.faults),
            remedy=f"Remove the folder {folder} and run the command again.",
        )
    return imported


def _read_binding(fields: Fields) -> TensorBinding:
    has_order = fields.has("permutation")
    return TensorBinding(
        source=read_spec(fields),
        permutation=fields.integers("permutation", minimum=0) if has_order else None,
        hint=read_hint(fields),
    )
