"""Import a source model: convert, name, bind to the source's layout, keep the result."""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from edgepack import child, comparison, evaluate, evaluate_worker, fidelity, flatbuffer
from edgepack import model as model_module
from edgepack._fields import Fields, join_faults
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.data import generate as generate_module
from edgepack.errors import ConversionError, ModelError
from edgepack.importers import binding as binding_module
from edgepack.importers import interface as interface_module
from edgepack.importers import layout as layout_module
from edgepack.importers.binding import ImportedModel, TensorBinding, candidate_permutations
from edgepack.importers.interface import rename_interface
from edgepack.importers.layout import settle_layouts
from edgepack.importers.source import (
    ImportOptions,
    SourceFormat,
    SourceInfo,
    detect_format,
    digest_source,
)
from edgepack.importers.worker import SourceWorker, convert_source, open_worker, runs_user_code
from edgepack.model import Model, TensorSpec, load_model, read_model

_MODEL: Final = "model.tflite"
_RECORD: Final = "import.json"
# A custom op named so is what onnx2tf 2.6.9 writes, without a word, for an op it does not know.
_UNKNOWN_ONNX: Final = "ONNX_"
_FLEX: Final = "Flex"


def import_model(
    path: Path,
    *,
    options: ImportOptions,
    cache: Cache,
    on_progress: Callable[[str], None],
) -> ImportedModel:
    """Turn a source model into a float32 TFLite model with the source's names and order.

    The result is kept in the cache under everything that decides it, unless code of the
    user's own decides it too. Call `check_parity` before relying on it.

    Raises:
        ModelError: unreadable, unsafe, of open shapes, or not supported.
        ConversionError: the converter failed, or wrote what no runtime can run.
        ToolchainError: the source's framework is not there and cannot be made.
    """
    source_format = detect_format(path)
    _check_options(path, source_format, options)
    sha256 = digest_source(path)
    if source_format is SourceFormat.TFLITE:
        return _import_tflite(path, sha256)
    worker = open_worker(source_format, options=options, on_progress=on_progress)
    key = digest_parts(
        "import",
        source=sha256,
        format=source_format.value,
        shapes=json.dumps(sorted(options.input_shapes)),
        signature=options.signature,
        trust=options.trust_model,
        worker=worker.digest,
        versions=worker.versions_text,
        engine=version("ai-edge-litert"),
        code=source_digest(
            binding_module,
            child,
            comparison,
            evaluate,
            evaluate_worker,
            fidelity,
            flatbuffer,
            generate_module,
            interface_module,
            layout_module,
            model_module,
            sys.modules[__name__],
        ),
    )
    if runs_user_code(worker, options):
        on_progress(f"converting {path.name} ({worker.title})")
        with tempfile.TemporaryDirectory(prefix="edgepack-import-") as name:
            for file, data in _convert(path, source_format, sha256, worker, options).items():
                (Path(name) / file).write_bytes(data)
            return _read_entry(Path(name), path.name)
    folder = cache.load(key)
    if folder is None:
        on_progress(f"converting {path.name} ({worker.title})")
        files = _convert(path, source_format, sha256, worker, options)
        folder = cache.store(key, files)
    return _read_entry(folder, path.name)


def _check_options(path: Path, source_format: SourceFormat, options: ImportOptions) -> None:
    if options.signature is not None and source_format is not SourceFormat.SAVED_MODEL:
        raise ModelError(
            f"{path}: --signature {options.signature} chooses among a SavedModel's signatures, "
            f"but this is {source_format.value}",
            remedy="Leave --signature out.",
        )
    if options.input_shapes and source_format is SourceFormat.TFLITE:
        raise ModelError(
            f"{path}: --input-shape fixes shapes while converting, but a .tflite model is "
            "converted already",
            remedy="Leave --input-shape out, or convert the source model again.",
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


def _convert(
    path: Path,
    source_format: SourceFormat,
    sha256: str,
    worker: SourceWorker,
    options: ImportOptions,
) -> dict[str, bytes]:
    with convert_source(worker, path, source_format, options) as (answer, folder):
        inputs = _read_specs(answer, "inputs")
        outputs = _read_specs(answer, "outputs")
        converted = load_model(folder / _MODEL)
    _check_ops(path, converted)
    named = _name(converted, source_format, inputs, outputs)
    _check_types(named, inputs)
    info = SourceInfo(
        file_name=path.name,
        format=source_format,
        sha256=sha256,
        versions=worker.toolchain.versions,
        converter=str(answer.get("converter")),
    )
    sides = (inputs, named.signature.inputs), (outputs, named.signature.outputs)
    input_orders, output_orders = (
        [candidate_permutations(s.shape, m.shape) for s, m in zip(sources, specs, strict=True)]
        for sources, specs in sides
    )
    imported = settle_layouts(
        ImportedModel(
            model=named,
            source=info,
            inputs=tuple(
                TensorBinding(source=s, permutation=o[0])
                for s, o in zip(inputs, input_orders, strict=True)
            ),
            outputs=tuple(
                TensorBinding(source=s, permutation=o[0])
                for s, o in zip(outputs, output_orders, strict=True)
            ),
        ),
        path,
        worker=worker,
        options=options,
        input_orders=input_orders,
        output_orders=output_orders,
    )
    return {_MODEL: imported.model.data, _RECORD: _write_record(imported)}


def _name(
    converted: Model,
    source_format: SourceFormat,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Model:
    """Give the model the source's names in the source's order."""
    if source_format is SourceFormat.ONNX:
        # onnx2tf keeps the graph's order and rewrites characters of names (2.6.9: ':' as '__').
        found_in = [spec.name for spec in converted.signature.inputs]
        found_out = [spec.name for spec in converted.signature.outputs]
    else:
        # The worker numbers them, since the converter sorts outputs as it likes.
        found_in = [f"i{index}" for index in range(len(inputs))]
        found_out = [f"o{index}" for index in range(len(outputs))]
    for side, found, specs in (("input", found_in, inputs), ("output", found_out, outputs)):
        if len(found) != len(specs):
            raise ConversionError(
                f"expected {len(specs)} {side}s as in the source, but the converter left "
                f"{len(found)}: {', '.join(found)}",
                remedy=f"Remove {side}s that nothing uses from the source and export it again.",
            )
    data = rename_interface(
        converted.data,
        inputs=[(name, spec.name) for name, spec in zip(found_in, inputs, strict=True)],
        outputs=[(name, spec.name) for name, spec in zip(found_out, outputs, strict=True)],
    )
    return read_model(data)


def _check_ops(path: Path, converted: Model) -> None:
    """Refuse ops no runtime of ours has, which converters may write without a word."""
    unknown = [
        name.removeprefix(_UNKNOWN_ONNX).removeprefix(_FLEX)
        for name, _ in converted.op_counts
        if name.startswith((_UNKNOWN_ONNX, _FLEX))
    ]
    if unknown:
        raise ConversionError(
            f"{path}: TFLite has no kernel for {', '.join(unknown)}, and the converter has no "
            "replacement",
            remedy="Replace these operations in the source model, or move them before or after "
            "the model.",
        )


def _check_types(model: Model, inputs: tuple[TensorSpec, ...]) -> None:
    """Float inputs are float32 and integer inputs stay integers."""
    for spec, source in zip(model.signature.inputs, inputs, strict=True):
        floating = source.dtype.startswith("float")
        if floating != (spec.dtype == "float32") and spec.dtype != source.dtype:
            raise ConversionError(
                f"expected input {source.name!r} ({source.dtype}) as "
                f"{'float32' if floating else 'an integer'}, but the converter made it "
                f"{spec.dtype}",
                remedy="Export the model with float32 or integer inputs.",
            )


def _read_specs(answer: Mapping[str, object], key: str) -> tuple[TensorSpec, ...]:
    fields = Fields(answer)
    specs = tuple(_read_spec(table) for table in fields.tables(key))
    if fields.faults:
        raise ConversionError(
            join_faults("the converter's answer", fields.faults),
            remedy="Run the command again; if it stays so, remove and reinstall the toolchain.",
        )
    return specs


def _read_spec(fields: Fields) -> TensorSpec:
    return TensorSpec(
        name=fields.text("name"),
        shape=fields.integers("shape", minimum=0),
        dtype=fields.text("dtype"),
    )


def _write_record(imported: ImportedModel) -> bytes:
    source = imported.source
    record = {
        "format": source.format.value,
        "sha256": source.sha256,
        "converter": source.converter,
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
        source=_read_spec(fields),
        permutation=fields.integers("permutation", minimum=0) if has_order else None,
    )
