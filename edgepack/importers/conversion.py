"""One conversion: ask the converter, then name, check and bind what it wrote."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.data import InputHint, InputRole
from edgepack.errors import ConversionError, ModelError
from edgepack.importers.binding import ImportedModel, TensorBinding, candidate_permutations
from edgepack.importers.interface import rename_interface
from edgepack.importers.layout import settle_layouts
from edgepack.importers.limits import integer_maxima
from edgepack.importers.source import Converter, ImportOptions, SourceFormat, SourceInfo
from edgepack.importers.worker import SourceWorker, convert_source
from edgepack.model import Model, TensorSpec, load_model, read_model

_MODEL: Final = "model.tflite"
# A custom op named so is what onnx2tf 2.6.9 writes, without a word, for an op it does not know.
_UNKNOWN_ONNX: Final = "ONNX_"
_FLEX: Final = "Flex"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What is to be converted, and by what.

    Attributes:
        path: the source model, or `module:function`.
        source_format: its format.
        sha256: its digest; empty for code, of which the worker gives one.
        converter: which one.
        worker: where the converter runs.
        reference: where the source itself runs.
        options: what the user asks.
    """

    path: Path
    source_format: SourceFormat
    sha256: str
    converter: Converter
    worker: SourceWorker
    reference: SourceWorker
    options: ImportOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """What a converter wrote, under the source's names and in its order.

    Attributes:
        model: the TFLite model.
        inputs: as they are in the source.
        outputs: likewise.
        hints: what else is known of each input.
        source: where it came from.
    """

    model: Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    hints: tuple[InputHint, ...]
    source: SourceInfo


def convert(conversion: Conversion) -> ImportedModel:
    """Convert a source and bind the result's inputs and outputs to the source's.

    Raises:
        ModelError: the source is unreadable, unsafe, of open shapes, or not supported.
        ConversionError: the converter failed, or wrote what no runtime can run.
        ToolchainError: the worker died.
    """
    translation = translate(conversion)
    inputs, outputs = translation.inputs, translation.outputs
    signature = translation.model.signature
    sides = (inputs, signature.inputs), (outputs, signature.outputs)
    input_orders, output_orders = (
        [candidate_permutations(s.shape, m.shape) for s, m in zip(sources, specs, strict=True)]
        for sources, specs in sides
    )
    return settle_layouts(
        ImportedModel(
            model=translation.model,
            source=translation.source,
            inputs=tuple(
                TensorBinding(source=s, permutation=o[0], hint=h)
                for s, o, h in zip(inputs, input_orders, translation.hints, strict=True)
            ),
            outputs=tuple(
                TensorBinding(source=s, permutation=o[0])
                for s, o in zip(outputs, output_orders, strict=True)
            ),
        ),
        conversion.path,
        worker=conversion.reference,
        options=conversion.options,
        input_orders=input_orders,
        output_orders=output_orders,
    )


def translate(conversion: Conversion, *, expose: Sequence[str] | None = None) -> Translation:
    """Convert a source and give the result the source's names.

    Args:
        conversion: what is to be done.
        expose: intermediate tensors of the source that take its outputs' place.

    Raises:
        ModelError, ConversionError, ToolchainError: as `convert`.
    """
    path, source_format = conversion.path, conversion.source_format
    with convert_source(
        conversion.worker,
        path,
        source_format,
        conversion.options,
        converter=conversion.converter,
        reference=conversion.reference,
        expose=expose,
    ) as (answer, folder):
        inputs = _read_specs(answer, "inputs")
        told = _read_hints(answer)
        outputs = _read_specs(answer, "outputs")
        # What a converter wrote is not the user's: it is refused as the converter's failure, so
        # that the next one gets its turn.
        with _as_written():
            converted = load_model(folder / _MODEL)
    _check_ops(path, converted)
    with _as_written():
        named = _name(converted, answer, inputs, outputs)
    _check_types(named, inputs)
    return Translation(
        model=named,
        inputs=inputs,
        outputs=outputs,
        hints=tuple(
            hint if hint.maximum is not None else replace(hint, maximum=maximum)
            for hint, maximum in zip(told, integer_maxima(named), strict=True)
        ),
        source=SourceInfo(
            file_name=path.name,
            format=source_format,
            sha256=conversion.sha256 or _read_digest(answer),
            versions=_versions(conversion),
            converter=str(answer.get("converter")),
            notes=_read_notes(answer),
        ),
    )


@contextlib.contextmanager
def _as_written() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise ConversionError(
            f"what the converter wrote cannot be read: {error.message}", remedy=error.remedy
        ) from error


def _versions(conversion: Conversion) -> tuple[tuple[str, str], ...]:
    ours = dict(conversion.worker.toolchain.versions)
    others = dict(conversion.reference.toolchain.versions)
    return tuple(sorted((others | ours).items()))


def _read_digest(answer: Mapping[str, object]) -> str:
    fields = Fields(answer)
    digest = fields.text("sha256")
    if fields.faults or not _SHA256.fullmatch(digest):
        raise ConversionError(
            "expected the worker to answer with the digest of the model that the code made",
            remedy="Report this as a bug of EdgePack, with the model if you can.",
        )
    return digest


def _refuse_faults(fields: Fields) -> None:
    if fields.faults:
        raise ConversionError(
            join_faults("the converter's answer", fields.faults),
            remedy="Report this as a bug of EdgePack, with the model if you can.",
        )


def _read_notes(answer: Mapping[str, object]) -> tuple[str, ...]:
    fields = Fields(answer)
    notes = fields.texts("notes", ())
    _refuse_faults(fields)
    return notes


def _name(
    converted: Model,
    answer: Mapping[str, object],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Model:
    """Give the model the source's names in the source's order.

    The worker says what the converter called them; else they stand in the source's order.
    """
    fields = Fields(answer)
    found_in, found_out = (
        fields.texts(key) if fields.has(key) else tuple(spec.name for spec in specs)
        for key, specs in (
            ("model_inputs", converted.signature.inputs),
            ("model_outputs", converted.signature.outputs),
        )
    )
    _refuse_faults(fields)
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
    specs = tuple(read_spec(table) for table in fields.tables(key))
    _refuse_faults(fields)
    return specs


def _read_hints(answer: Mapping[str, object]) -> tuple[InputHint, ...]:
    fields = Fields(answer)
    hints = tuple(read_hint(table) for table in fields.tables("inputs"))
    _refuse_faults(fields)
    return hints


def read_hint(fields: Fields) -> InputHint:
    """Read what a worker's answer or a kept import tells of an input."""
    return InputHint(
        maximum=fields.optional_integer("maximum", minimum=0),
        role=fields.choice("role", InputRole, InputRole.DATA),
    )


def read_spec(fields: Fields) -> TensorSpec:
    """Read a tensor of a worker's answer or of a kept import."""
    return TensorSpec(
        name=fields.text("name"),
        shape=fields.integers("shape", minimum=0),
        dtype=fields.text("dtype"),
    )
