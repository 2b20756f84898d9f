"""`edgepack convert`: from a source model to a float32 .tflite that was compared with it."""

import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json, print_table, show_work, warn
from edgepack.commands.import_options import import_options, make_import_options, source_model
from edgepack.commands.options import OUTPUT_FILE, json_option
from edgepack.commands.output import check_outputs, write_bytes
from edgepack.commands.pack_options import image_options, make_images
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.data import Samples
    from edgepack.importers import ImportedModel, TensorBinding, VerifiedImport
    from edgepack.model import TensorSpec
    from edgepack.report.conversion import AttemptRow, ConversionSummary, TensorRow

_USUAL_PARITY_DB = 60.0


@click.command()
@click.argument("model", type=source_model)
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    help="File to write [default: the model's name with .tflite, in this folder].",
)
@import_options
@click.option(
    "--data",
    metavar="SOURCE",
    help="Compare on these data: .npz, .npy, a folder of images, or module:function.",
)
@image_options
@json_option
def convert(*, model: Path, output: Path | None, as_json: bool, **given: Any) -> None:
    """Turn a model into a float32 .tflite that computes the same, and show that it does.

    MODEL is a .keras, .h5, .pb, .onnx, .pt2, TorchScript or .tflite file, a SavedModel
    directory, or module:function (or file.py:function) that returns a PyTorch model.

    Converters are tried in order; the first whose model passes the comparison with its source
    is taken. Nothing is written when none does.
    """
    from edgepack.cache import Cache, cache_directory
    from edgepack.importers import import_verified

    start = time.monotonic()
    target = output or Path(f"{_output_stem(model)}.tflite")
    _check_target(target, model)
    options = make_import_options(given)
    images = make_images(given)
    source = given["data"]

    def read_samples(specs: "tuple[TensorSpec, ...]") -> "Samples | None":
        from edgepack.data import load_samples

        return None if source is None else load_samples(source, inputs=specs, images=images)

    with show_work() as work:
        verified = import_verified(
            model,
            options=options,
            read_samples=read_samples,
            minimum_db=given["allow_parity"],
            cache=Cache(root=cache_directory()),
            on_progress=work.step,
        )
    write_bytes(target, verified.imported.model.data)
    took = time.monotonic() - start
    summary = _summarize(verified, seconds=took)
    if as_json:
        print_json(_to_json(verified, summary, target))
        return
    _show(verified, summary, target)
    if given["allow_parity"] < _USUAL_PARITY_DB:
        warn(f"the import was allowed {given['allow_parity']:g} dB of parity")


def _output_stem(model: Path) -> str:
    from edgepack.bundle.manifest import default_name
    from edgepack.importers.source import is_function

    return model.name.rpartition(":")[2] if is_function(model) else default_name(model.name)


def _check_target(target: Path, model: Path) -> None:
    """Refuse to write over the source or over a file of another kind."""
    if model.is_file() and target.exists() and target.samefile(model):
        raise UsageError(
            f"{target}: expected another file to write than the model that is read",
            remedy="Name the new file with -o.",
        )
    check_outputs(model=target)


def _peak_memory_bytes() -> int:
    """Give the most resident memory of this process or of any that it waited for."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB on Linux
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in both) * unit


def _summarize(verified: "VerifiedImport", *, seconds: float) -> "ConversionSummary":
    from edgepack.report.conversion import AttemptRow, ConversionSummary
    from edgepack.report.intake import summarize_parity

    imported = verified.imported
    return ConversionSummary(
        source=imported.source.file_name,
        source_format=imported.source.format.value,
        attempts=tuple(
            AttemptRow(converter=each.converter.value, fault=each.fault)
            for each in verified.attempts
        ),
        parity=summarize_parity(verified.parity) if verified.parity.outputs else None,
        tensors=_tensors(imported),
        num_bytes=imported.model.num_bytes,
        seconds=seconds,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _tensors(imported: "ImportedModel") -> "tuple[TensorRow, ...]":
    from edgepack.report.conversion import TensorRow, layout_text

    signature = imported.model.signature
    return tuple(
        TensorRow(
            side=side,
            name=spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            layout=layout_text(spec.shape, binding.source.shape, binding.permutation),
        )
        for side, specs, bindings in (
            ("input", signature.inputs, imported.inputs),
            ("output", signature.outputs, imported.outputs),
        )
        for spec, binding in zip(specs, bindings, strict=True)
    )


def _show(verified: "VerifiedImport", summary: "ConversionSummary", target: Path) -> None:
    from edgepack.report.conversion import describe_attempts, render_conversion
    from edgepack.report.units import file_size

    model = verified.imported.model
    if model.is_quantized:
        warn("the model is quantized already: it was written as it is")
    print_table(render_conversion(summary))
    how = describe_attempts(summary.attempts)
    click.echo(f"wrote {target} ({file_size(model.num_bytes)}), {how}")


def _to_json(
    verified: "VerifiedImport", summary: "ConversionSummary", target: Path
) -> dict[str, object]:
    imported, parity = verified.imported, verified.parity
    signature = imported.model.signature
    return {
        "model": str(target),
        "sha256": imported.model.sha256,
        "size_bytes": imported.model.num_bytes,
        "is_quantized": imported.model.is_quantized,
        "has_state": imported.model.has_state,
        "source": {
            "file_name": imported.source.file_name,
            "format": imported.source.format.value,
            "sha256": imported.source.sha256,
            "versions": dict(imported.source.versions),
        },
        "converter": imported.source.converter,
        "attempts": [_attempt_json(each) for each in summary.attempts],
        "parity": {
            "reference": parity.reference,
            "num_samples": parity.num_samples,
            "generated": parity.generated,
            "minimum_db": parity.minimum_db,
            "outputs": [asdict(each) for each in parity.outputs],
        },
        "inputs": [
            _tensor_json(spec, binding)
            for spec, binding in zip(signature.inputs, imported.inputs, strict=True)
        ],
        "outputs": [
            _tensor_json(spec, binding)
            for spec, binding in zip(signature.outputs, imported.outputs, strict=True)
        ],
        "seconds": summary.seconds,
        "peak_memory_bytes": summary.peak_memory_bytes,
    }


def _attempt_json(row: "AttemptRow") -> dict[str, object]:
    return {"converter": row.converter, "fault": row.fault}


def _tensor_json(spec: "TensorSpec", binding: "TensorBinding") -> dict[str, object]:
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "source_shape": list(binding.source.shape),
        "source_dtype": binding.source.dtype,
        "permutation": None if binding.permutation is None else list(binding.permutation),
    }
