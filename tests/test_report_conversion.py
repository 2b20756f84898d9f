"""What is shown of an import: the converter that was taken, and those that fell and why."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from edgepack.report.contract import attempt_facts
from edgepack.report.conversion import AttemptRow, ConversionSummary, TensorRow, render_conversion
from edgepack.report.summary import Fact
from tests.fixtures.bundle import write_digits_bundle

_FAULT = (
    "net.onnx: expected at least 60 dB on every output, but it has\n"
    "  y: SQNR 3.1 dB  <- too far\n\n"
    "first node whose output departs: resize (Resize)"
)


def _shown(summary: ConversionSummary) -> list[str]:
    console = Console(width=100, record=True, color_system=None)
    with console.capture() as captured:
        console.print(render_conversion(summary))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_each_converter_that_fell_is_shown_with_its_whole_reason() -> None:
    summary = ConversionSummary(
        source="net.onnx",
        source_format="onnx",
        attempts=(
            AttemptRow(converter="onnx2tf", fault=_FAULT),
            AttemptRow(converter="onnx-tf", fault=None),
        ),
        parity=None,
        tensors=(
            TensorRow(
                side="output", name="y", shape=(1, 4), dtype="float32", holds="values", layout=""
            ),
        ),
        num_bytes=100,
        seconds=2.0,
        peak_memory_bytes=3 << 20,
    )
    lines = _shown(summary)
    start = lines.index("Converters of net.onnx (onnx)")
    assert lines[start + 1 : start + 5] == [
        "  onnx2tf: fell: net.onnx: expected at least 60 dB on every output, but it has",
        "      y: SQNR 3.1 dB <- too far",
        "      first node whose output departs: resize (Resize)",
        "  onnx-tf: taken",
    ]
    # A traceback of pages does not scroll the rest away.
    long = AttemptRow(converter="onnx2tf", fault="x " * 9000)
    assert len("".join(_shown(replace(summary, attempts=(long,))))) < 6000


def test_a_report_has_one_fact_for_each_converter_that_fell(tmp_path: Path) -> None:
    manifest = write_digits_bundle(tmp_path / "digits.edgepack").manifest
    tried = (("onnx2tf", _FAULT), ("onnx-tf", None))
    provenance = replace(manifest.provenance, attempts=tried)
    facts = attempt_facts(replace(manifest, provenance=provenance))
    assert facts == (Fact(name="Tried onnx2tf", value=_FAULT),)
    assert attempt_facts(replace(manifest, provenance=replace(provenance, attempts=()))) == ()
