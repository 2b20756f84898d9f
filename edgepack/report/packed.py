"""What packing gave, as a report shows it: variants, parity, origin."""

from typing import TYPE_CHECKING

from edgepack.optimize.choosing.account import describe_passes
from edgepack.optimize.judging.findings import Severity
from edgepack.optimize.pruning.sparse_facts import describe_sparse
from edgepack.optimize.recipes.recipe import describe_recipe
from edgepack.optimize.recipes.recipe_file import recipe_to_toml
from edgepack.report.contract import attempt_facts, contract_facts
from edgepack.report.summary import (
    Fact,
    MetricFigures,
    PackSummary,
    ParityRow,
    ParitySummary,
    VariantRow,
)

if TYPE_CHECKING:
    from edgepack.bundle.manifest import BundleManifest, Parity
    from edgepack.fidelity import Fidelity
    from edgepack.optimize.choosing.choose import Choice
    from edgepack.optimize.choosing.variant import Variant
    from edgepack.optimize.judging.floors import Floors


def summarize_parity(parity: "Parity") -> ParitySummary:
    """Give what a report shows of an import's parity check."""
    return ParitySummary(
        rows=tuple(
            ParityRow(
                output=each.output,
                sqnr_db=each.sqnr_db,
                max_abs_error=each.max_abs_error,
                cosine=each.cosine,
                judgement=each.judgement,
                top1_agreement=each.top1_agreement,
                equal_share=each.equal_share,
            )
            for each in parity.outputs
        ),
        reference=parity.reference,
        num_samples=parity.num_samples,
        generated=parity.generated,
        minimum_db=parity.minimum_db,
        num_sets=max(1, len(parity.seeds)),
    )


def bundle_provenance(manifest: "BundleManifest") -> tuple[Fact, ...]:
    """Give where a bundle's model comes from."""
    origin = manifest.provenance
    rows = (
        ("Source", f"{origin.source_name} ({origin.source_format})"),
        ("Source sha256", origin.source_sha256),
        ("Converter", origin.converter),
        ("Calibration data sha256", origin.calibration_digest),
        ("Evaluation data sha256", origin.evaluation_digest),
        ("EdgePack", origin.tool_version),
        *origin.versions,
    )
    facts = (Fact(name=name, value=value) for name, value in rows if value)
    return (*facts, *attempt_facts(manifest))


def summarize_variant(
    variant: "Variant",
    *,
    reasons: tuple[str, ...],
    median_ns: float | None = None,
    median_ci95_ns: tuple[float, float] | None = None,
) -> VariantRow:
    """Give a built variant's row; `reasons` say why it is outside the floors, if it is."""
    fidelity, pruned = variant.fidelity, variant.prune_facts
    worst_db, worst_channel = _worst_channel(fidelity)
    return VariantRow(
        recipe=variant.recipe.name,
        passes=describe_recipe(variant.recipe),
        num_bytes=variant.model.num_bytes,
        compressed_bytes=variant.compressed_bytes,
        sqnr_db=fidelity.sqnr_db,
        sqnr_ci95_db=min(fidelity.outputs, key=lambda each: each.sqnr_db).sqnr_ci95_db
        if fidelity.outputs
        else None,
        worst_channel_sqnr_db=worst_db,
        worst_channel=worst_channel,
        top1_agreement=fidelity.top1_agreement,
        top1_agreement_ci95=fidelity.top1_agreement_ci95,
        accuracy=fidelity.accuracy,
        accuracy_ci95=fidelity.accuracy_ci95,
        drop_points=fidelity.drop_points,
        drop_points_ci95=fidelity.drop_points_ci95,
        metric=MetricFigures(
            value=fidelity.metric.candidate,
            drop=fidelity.metric.drop,
            drop_ci95=fidelity.metric.drop_ci95,
        )
        if fidelity.metric is not None
        else None,
        median_ns=median_ns,
        median_ci95_ns=median_ci95_ns,
        within_budget=not reasons,
        reasons=reasons,
        doubts=tuple(each.text for each in variant.findings if each.severity is Severity.WARNING),
        done=describe_passes(variant),
        zero_share=pruned.num_zero_after / pruned.num_weights
        if pruned is not None and pruned.num_weights
        else None,
        storage=() if variant.sparse_facts is None else describe_sparse(variant.sparse_facts),
        sha256=variant.model.sha256,
    )


def _worst_channel(fidelity: "Fidelity") -> tuple[float | None, str]:
    """Give the least SQNR of one channel, and which one that is."""
    known = [
        (each.worst_channel_sqnr_db, each)
        for each in fidelity.outputs
        if each.worst_channel_sqnr_db is not None
    ]
    if not known:
        return None, ""
    worst_db, output = min(known, key=lambda each: each[0])
    axis = "" if output.worst_channel_axis is None else f" of axis {output.worst_channel_axis}"
    return worst_db, f"channel {output.worst_channel}{axis} of output {output.output!r}"


def summarize_pack(
    manifest: "BundleManifest",
    *,
    variants: tuple[VariantRow, ...],
    choice: "Choice",
    floors: "Floors",
    objective: str,
    bundle: str,
    bundle_bytes: int,
    latency_on: str | None = None,
    warnings: tuple[str, ...] = (),
) -> PackSummary:
    """Give what a report shows of a pack; the bundle's own variant is the chosen one.

    Args:
        manifest: of the bundle that was written.
        variants: rows of all recipes, in the order they were asked for.
        choice: why the chosen one was chosen.
        floors: what a variant had to keep.
        objective: what the choice was to be best in.
        bundle: the bundle's file name.
        bundle_bytes: its size.
        latency_on: what the rows' latencies were taken on.
        warnings: what the user must know.
    """
    by_labels = floors.max_drop is not None
    metric = manifest.fidelity.metric
    return PackSummary(
        model=manifest.provenance.source_name,
        target=manifest.target.id,
        target_description=manifest.target.description,
        variants=variants,
        chosen=manifest.recipe.name,
        chosen_reason=choice.reason,
        bundle=bundle,
        bundle_bytes=bundle_bytes,
        latency_on=latency_on,
        measured_on=choice.measured_on,
        objective=objective,
        min_sqnr_db=None if by_labels else floors.min_sqnr_db,
        min_agreement=None if by_labels else floors.min_agreement,
        max_drop_points=floors.max_drop,
        is_confident=floors.is_confident,
        reference_accuracy=manifest.fidelity.reference_accuracy,
        metric=metric.name if metric is not None else None,
        reference_metric=metric.reference if metric is not None else None,
        num_samples=manifest.fidelity.num_samples,
        parity=summarize_parity(manifest.parity) if manifest.parity is not None else None,
        provenance=(*contract_facts(manifest), *bundle_provenance(manifest)),
        warnings=warnings,
        recipe_toml=recipe_to_toml(manifest.recipe),
    )
