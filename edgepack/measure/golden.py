"""Judging the answers a device gives to the golden inputs; pure.

A float variant passes when each output is within 60 dB of the host's: two runtimes order
float additions otherwise, and that is all they may differ by. A quantized variant may differ
by roundings too (the same int8 file under XNNPACK and under the plain kernels agreed to
28.5 dB), so it passes when it is about as near to the float model as on the host (no more
than 3 dB farther), and within 20 dB of the host. A NaN or an infinity that the host does not
have fails either. An output of ids passes when 99% of them are the host's, and half for a
quantized variant: where two classes are near, a rounding decides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import Fields
from edgepack.bundle.golden import Golden, unpack_tensors
from edgepack.evaluate import dequantize_array
from edgepack.fidelity import LIMIT_DB, OutputFidelity, compare_outputs
from edgepack.model import Signature, TensorSpec

FLOAT_FLOOR_DB: Final = 60.0
QUANTIZED_FLOOR_DB: Final = 20.0
FLOAT_DISTANCE_DB: Final = 3.0
# Of outputs of ids, whose decibels count wrong ones (see `edgepack.fidelity`).
_FLOAT_INDEX_FLOOR_DB: Final = 20.0
_QUANTIZED_INDEX_FLOOR_DB: Final = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenOutput:
    """One output's answers, compared in real values.

    Attributes:
        output: its name.
        sqnr_to_host_db: device against the packed model on the host.
        sqnr_to_float_db: device against the float model on the host.
        host_to_float_db: packed model on the host against the float model there.
        max_abs_error: largest absolute difference to the host's answers.
        num_non_finite: NaNs and infinities the host does not have.
        is_index: whether it holds ids.
    """

    output: str
    sqnr_to_host_db: float
    sqnr_to_float_db: float
    host_to_float_db: float
    max_abs_error: float
    num_non_finite: int
    is_index: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenVerdict:
    """Whether a device gives the packed model's answers.

    Attributes:
        passed: whether it does.
        num_samples: samples compared.
        outputs: one entry for each output.
        reasons: why not; empty when passed.
    """

    passed: bool
    num_samples: int
    outputs: tuple[GoldenOutput, ...]
    reasons: tuple[str, ...] = ()

    @property
    def max_abs_error(self) -> float:
        """Largest absolute difference to the host, over all outputs."""
        return max((output.max_abs_error for output in self.outputs), default=0.0)

    @property
    def sqnr_to_host_db(self) -> float:
        """The worst output's."""
        return min((output.sqnr_to_host_db for output in self.outputs), default=LIMIT_DB)

    @property
    def sqnr_to_float_db(self) -> float:
        """The worst output's."""
        return min((output.sqnr_to_float_db for output in self.outputs), default=LIMIT_DB)


def judge_golden(
    golden: Golden, answers: Sequence[bytes], *, signature: Signature, is_quantized: bool
) -> GoldenVerdict:
    """Judge a device's answers to the golden inputs.

    Args:
        golden: what went in and what must come out.
        answers: the device's, one entry for each output, as in `Golden.host`.
        signature: the packed model's; integer outputs are dequantized by it.
        is_quantized: whether roundings may differ; see the module.

    Raises:
        BundleError: the answers' sizes are not those of the signature.
    """
    specs, count = signature.outputs, golden.num_samples
    names = tuple(spec.name for spec in specs)
    device = _real(answers, specs, count)
    host, reference = _real(golden.host, specs, count), _real(golden.reference, specs, count)
    # Bytes of a device may be signaling NaNs, of whose conversion numpy warns.
    with np.errstate(invalid="ignore"):
        to_host = compare_outputs(host, device, names=names).outputs
        to_float = compare_outputs(reference, device, names=names).outputs
        before = compare_outputs(reference, host, names=names).outputs
    outputs = tuple(_output(*three) for three in zip(to_host, to_float, before, strict=True))
    reasons = tuple(reason for each in outputs for reason in _faults(each, is_quantized))
    return GoldenVerdict(passed=not reasons, num_samples=count, outputs=outputs, reasons=reasons)


def _real(
    tensors: Sequence[bytes], specs: Sequence[TensorSpec], num_samples: int
) -> tuple[tuple[NDArray[Any], ...], ...]:
    samples = unpack_tensors(tensors, specs, num_samples=num_samples)
    return tuple(
        tuple(dequantize_array(array, spec) for array, spec in zip(sample, specs, strict=True))
        for sample in samples
    )


def _output(
    to_host: OutputFidelity, to_float: OutputFidelity, before: OutputFidelity
) -> GoldenOutput:
    return GoldenOutput(
        output=to_host.output,
        sqnr_to_host_db=to_host.sqnr_db,
        sqnr_to_float_db=to_float.sqnr_db,
        host_to_float_db=before.sqnr_db,
        max_abs_error=to_host.max_abs_error,
        num_non_finite=to_host.num_non_finite,
        is_index=to_host.is_index,
    )


def _faults(output: GoldenOutput, is_quantized: bool) -> list[str]:  # noqa: FBT001 - private
    name = f"output {output.output!r}"
    if output.num_non_finite:
        return [f"{name}: {output.num_non_finite} values are NaN or infinite on the device only"]
    if output.is_index:
        return _index_faults(output, name, is_quantized)
    if output.sqnr_to_host_db == -LIMIT_DB and output.max_abs_error == 0:
        return [f"{name}: no finite value to compare"]
    floor = QUANTIZED_FLOOR_DB if is_quantized else FLOAT_FLOOR_DB
    faults: list[str] = []
    if output.sqnr_to_host_db < floor:
        faults.append(
            f"{name}: {output.sqnr_to_host_db:.1f} dB to the host's answers, needs {floor:g} dB "
            f"(largest difference {output.max_abs_error:.3g})"
        )
    needed = output.host_to_float_db - FLOAT_DISTANCE_DB
    # Exact answers on the host are the limit value, not a measured one: the floor above judges.
    measured = output.host_to_float_db < LIMIT_DB
    if is_quantized and measured and output.sqnr_to_float_db < needed:
        faults.append(
            f"{name}: {output.sqnr_to_float_db:.1f} dB to the float model, needs {needed:.1f} dB "
            f"({output.host_to_float_db:.1f} dB on the host less {FLOAT_DISTANCE_DB:g})"
        )
    return faults


def _index_faults(output: GoldenOutput, name: str, is_quantized: bool) -> list[str]:  # noqa: FBT001 - private
    floor = _QUANTIZED_INDEX_FLOOR_DB if is_quantized else _FLOAT_INDEX_FLOOR_DB
    if output.sqnr_to_host_db >= floor:
        return []
    wrong, allowed = (100 * 10 ** (-each / 10) for each in (output.sqnr_to_host_db, floor))
    return [f"{name}: {wrong:.1f}% of its ids are not the host's, at most {allowed:.0f}% may be"]


def to_json(verdict: GoldenVerdict | None) -> dict[str, object]:
    """Give a verdict as JSON values; without golden samples `passed` is null."""
    if verdict is None:
        return {"passed": None, "max_abs_error": None, "reasons": ["no golden samples were given"]}
    return {
        "passed": verdict.passed,
        "max_abs_error": verdict.max_abs_error,
        "sqnr_to_host_db": verdict.sqnr_to_host_db,
        "sqnr_to_float_db": verdict.sqnr_to_float_db,
        "num_samples": verdict.num_samples,
        "outputs": [asdict(output) for output in verdict.outputs],
        "reasons": list(verdict.reasons),
    }


def read_verdict(fields: Fields) -> GoldenVerdict | None:
    """Read a verdict from a table of a larger record, noting faults in `fields`."""
    if fields.raw("passed") is None and fields.has("passed"):
        for key in ("max_abs_error", "reasons"):
            fields.raw(key)
        fields.close()
        return None
    for key in ("max_abs_error", "sqnr_to_host_db", "sqnr_to_float_db"):
        fields.number(key)  # they stand for readers; computed from the outputs
    verdict = GoldenVerdict(
        passed=fields.boolean("passed"),
        num_samples=fields.integer("num_samples", minimum=1),
        outputs=tuple(_read_output(table) for table in fields.tables("outputs")),
        reasons=fields.texts("reasons"),
    )
    fields.close()
    return verdict


def _read_output(fields: Fields) -> GoldenOutput:
    output = GoldenOutput(
        output=fields.text("output", empty=True),
        sqnr_to_host_db=fields.number("sqnr_to_host_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        sqnr_to_float_db=fields.number("sqnr_to_float_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        host_to_float_db=fields.number("host_to_float_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        max_abs_error=fields.number("max_abs_error", minimum=0),
        num_non_finite=fields.integer("num_non_finite", minimum=0),
        is_index=fields.boolean("is_index", default=False),
    )
    fields.close()
    return output
