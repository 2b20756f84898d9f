"""What a report shows of a pack."""

from typing import TYPE_CHECKING

from edgepack.report.intake import bundle_provenance, summarize_parity, variant_row
from edgepack.report.summary import PackSummary, VariantRow

if TYPE_CHECKING:
    from edgepack.measure.record import Measurement
    from edgepack.workflow.request import Outcome, PackRequest, PackResult


def summarize_pack(request: "PackRequest", result: "PackResult") -> PackSummary:
    """Give what a report shows of a pack: every variant, the choice, and where it comes from."""
    is_device = any(outcome.device is not None for outcome in result.outcomes)
    floors = request.floors
    fidelity = result.chosen.variant.fidelity if result.chosen.variant else None
    return PackSummary(
        model=result.source.file_name,
        target=request.profile.id,
        target_description=request.profile.description,
        variants=tuple(_row(outcome, is_device=is_device) for outcome in result.outcomes),
        chosen=result.chosen.recipe.name,
        chosen_reason=result.choice.reason,
        bundle=result.bundle.path.name,
        bundle_bytes=result.bundle.num_bytes,
        latency_on=result.measured_on if is_device else "this machine",
        measured_on=result.measured_on,
        objective=request.objective.value,
        min_sqnr_db=floors.min_sqnr_db if floors.max_drop is None else None,
        min_agreement=floors.min_agreement if floors.max_drop is None else None,
        max_drop=floors.max_drop,
        reference_accuracy=fidelity.reference_accuracy if fidelity else None,
        num_samples=result.evaluation_num_samples,
        parity=summarize_parity(result.parity) if result.parity else None,
        provenance=bundle_provenance(result.bundle.manifest),
        warnings=result.warnings,
    )


def _row(outcome: "Outcome", *, is_device: bool) -> VariantRow:
    variant = outcome.variant
    if variant is None:
        return VariantRow(recipe=outcome.recipe.name, skipped_reason=outcome.skipped_reason)
    measurement: Measurement | None = outcome.device if is_device else outcome.host
    summary = measurement.summary if measurement is not None else None
    interval = summary.median_ci95_ns if summary is not None else None
    facts = variant.prune_facts
    reasons = outcome.outside
    if outcome.skipped_reason is not None:
        reasons = (*reasons, outcome.skipped_reason)
    return variant_row(
        outcome.recipe.name,
        num_bytes=variant.model.num_bytes,
        compressed_bytes=variant.compressed_bytes,
        fidelity=variant.fidelity,
        reasons=reasons,
        median_ns=summary.median_ns if summary is not None else None,
        median_ci95_ns=(float(interval[0]), float(interval[1])) if interval else None,
        zero_share=facts.zero_share if facts is not None else None,
        sha256=variant.model.sha256,
    )
