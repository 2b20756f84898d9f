"""`edgepack convert`: from a source model to a float32 .tflite that was compared with it."""

import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json, print_table, show_work, warn
from edgepack.commands.contract_options import contract_options, make_contract_request
from edgepack.commands.import_options import import_options, make_import_options, source_model
from edgepack.commands.options import OUTPUT_FILE, json_option
from edgepack.commands.output import check_outputs, write_bytes
from edgepack.commands.pack_options import image_options, make_images
from edgepack.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgepack.report.conversion import AttemptRow, ConversionSummary, TensorRow
    from edgepack.workflow.converting import ConvertResult


@click.command()
@click.argument("model", type=source_model)
@click.option(
    "-o",
    "--out",
    "output",
    type=OUTPUT_FILE,
    help="File to write, over an earlier model [default: the model's name with .tflite, in "
    "this folder, when it is free].",
)
@import_options
@click.option(
    "--data",
    metavar="SOURCE",
    help="Compare on these data: .npz, .npy, a folder of images, or module:function.",
)
@image_options
@contract_options
@json_option
def convert(*, model: Path, output: Path | None, as_json: bool, **given: Any) -> None:
    """Turn a model into a float32 .tflite that computes the same, and show that it does.

    MODEL is a .keras, .h5, .pb, .onnx, .pt2, TorchScript or .tflite file, a SavedModel
    directory, or module:function (or file.py:function) that returns a PyTorch model.

    Converters are tried in order; the first whose model passes the comparison with its source
    is taken. Nothing is written when none does.
    """
    from edgepack.cache import Cache, cache_directory
    from edgepack.workflow.converting import ConvertRequest, convert_model
    from edgepack.workflow.request import DEFAULT_PARITY_DB

    start = time.monotonic()
    target = output or Path(f"{_output_stem(model)}.tflite")
    _check_target(target, model, is_named=output is not None)
    request = ConvertRequest(
        model=model,
        imports=make_import_options(given),
        contract=make_contract_request(given),
        data=given["data"],
        images=make_images(given),
        minimum_parity_db=given["allow_parity"],
    )
    with show_work() as work:
        result = convert_model(request, cache=Cache(root=cache_directory()), on_step=work.step)
    write_bytes(target, result.model.data)
    summary = _summarize(result, seconds=time.monotonic() - start)
    if as_json:
        print_json(_to_json(result, summary, target))
        return
    _show(result, summary, target)
    if given["allow_parity"] < DEFAULT_PARITY_DB:
        warn(f"the import was allowed {given['allow_parity']:g} dB of parity")


def _output_stem(model: Path) -> str:
    from edgepack.bundle.manifest import default_name
    from edgepack.importers.source import is_function

    return model.name.rpartition(":")[2] if is_function(model) else default_name(model.name)


def _check_target(target: Path, model: Path, *, is_named: bool) -> None:
    """Refuse to write over the source, a file of another kind, or one that nobody named."""
    if model.is_file() and target.exists() and target.samefile(model):
        raise UsageError(
            f"{target}: expected another file to write than the model that is read",
            remedy="Name the new file with -o.",
        )
    if not is_named and target.exists():
        raise OutputError(
            f"{target}: expected a free name, but a file is there already",
            remedy=f"Write `-o {target}` to replace it, or name another file with -o.",
        )
    check_outputs(model=target)


def _peak_memory_bytes() -> int:
    """Give the most resident memory of this process or of any that it waited for."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB on Linux
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in both) * unit


def _summarize(result: "ConvertResult", *, seconds: float) -> "ConversionSummary":
    from edgepack.report.conversion import AttemptRow, ConversionSummary
    from edgepack.report.packed import summarize_parity
    from edgepack.workflow.material import record_parity

    parity = record_parity(result.verified.parity)
    source = result.verified.imported.source
    return ConversionSummary(
        source=source.file_name,
        source_format=source.format.value,
        attempts=tuple(
            AttemptRow(converter=each.converter.value, fault=each.fault)
            for each in result.verified.attempts
        ),
        parity=summarize_parity(parity) if parity is not None else None,
        tensors=_tensors(result),
        num_bytes=result.model.num_bytes,
        seconds=seconds,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _tensors(result: "ConvertResult") -> "tuple[TensorRow, ...]":
    from edgepack.report.conversion import TensorRow, layout_text

    imported, signature = result.verified.imported, result.model.signature
    rows = [
        ("input", spec, each.kind.value, each.layout, binding)
        for spec, each, binding in zip(
            signature.inputs, result.contract.inputs, imported.inputs, strict=True
        )
    ] + [
        ("output", spec, each.meaning.value, each.layout, binding)
        for spec, each, binding in zip(
            signature.outputs, result.contract.outputs, imported.outputs, strict=True
        )
    ]
    return tuple(
        TensorRow(
            side=side,
            name=spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            holds=holds,
            layout=layout_text(layout, spec.shape, binding.source.shape),
        )
        for side, spec, holds, layout, binding in rows
    )


def _show(result: "ConvertResult", summary: "ConversionSummary", target: Path) -> None:
    from edgepack.importers import describe_left_out
    from edgepack.report.conversion import describe_attempts, render_conversion
    from edgepack.report.units import file_size
    from edgepack.workflow.doubts import nature_warnings

    for note in result.verified.imported.source.notes:
        warn(note)
    if result.model.is_quantized:
        warn("the model is quantized already: it was written as it is")
    for each in nature_warnings(result.model):
        warn(each)
    left_out = describe_left_out(result.verified.parity.seeds)
    if left_out is not None:
        warn(left_out)
    print_table(render_conversion(summary))
    how = describe_attempts(summary.attempts)
    click.echo(f"wrote {target} ({file_size(result.model.num_bytes)}), {how}")


def _to_json(
    result: "ConvertResult", summary: "ConversionSummary", target: Path
) -> dict[str, object]:
    from edgepack.contract.record import contract_to_json

    source, model = result.verified.imported.source, result.model
    return {
        "model": str(target),
        "sha256": model.sha256,
        "size_bytes": model.num_bytes,
        "is_quantized": model.is_quantized,
        "has_state": model.has_state,
        "signatures": list(model.traits.signatures),
        "source": {
            "file_name": source.file_name,
            "format": source.format.value,
            "sha256": source.sha256,
            "versions": dict(source.versions),
            "notes": list(source.notes),
        },
        "converter": source.converter,
        "attempts": [_attempt_json(each) for each in summary.attempts],
        "parity": asdict(result.verified.parity),
        "contract": contract_to_json(result.contract, model.signature),
        "seconds": summary.seconds,
        "peak_memory_bytes": summary.peak_memory_bytes,
    }


def _attempt_json(row: "AttemptRow") -> dict[str, object]:
    return {"converter": row.converter, "fault": row.fault}
