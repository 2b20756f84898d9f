"""`edgepack pack`: from a source model to one verifiable bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgepack.commands.console import note, print_json, print_table, show_work, warn
from edgepack.commands.contract_options import contract_options
from edgepack.commands.fleet import ready_device
from edgepack.commands.import_options import import_options, source_model
from edgepack.commands.named_shapes import naming_shape, path_for
from edgepack.commands.options import (
    OUTPUT_FILE,
    device_options,
    json_option,
    lock_option,
    refuse_device_options,
    root_option,
    runner_option,
)
from edgepack.commands.output import check_outputs, write_recipe, write_report
from edgepack.commands.pack_options import make_requests, pack_options
from edgepack.commands.signing_options import open_key, signed_json
from edgepack.errors import ExitCode

if TYPE_CHECKING:
    from edgepack.optimize.judging.floors import Floors
    from edgepack.report.summary import PackSummary, VariantRow
    from edgepack.signing.seal import Signed
    from edgepack.workflow.request import Outcome, PackRequest, PackResult, TrialLatency

# What is known of a variant that was built; null for one that was not.
_FACTS: Final = (
    *("size_bytes", "sha256", "compressed_bytes", "fidelity", "float_ops", "float_layers"),
    *("prune_facts", "channel_facts", "sparse_facts", "fusion_facts", "equalize_facts"),
    "findings",
)


@click.command()
@click.argument("model", type=source_model)
@pack_options
@contract_options
@import_options
@click.option("--device", metavar="DEVICE", help="Choose by what this device measures.")
@device_options
@root_option
@runner_option
@lock_option
@click.option("-o", "--out", "output", type=click.Path(path_type=Path), help="Bundle to write.")
@click.option(
    "--report",
    "report_path",
    type=OUTPUT_FILE,
    help="Write an HTML page of every candidate, with the Pareto chart.",
)
@json_option
def pack(
    *,
    model: Path,
    device: str | None,
    output: Path | None,
    report_path: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Turn a model into the best variant for a target, in one verifiable bundle.

    MODEL is a .keras, .h5, .pb, .onnx, .pt2, TorchScript or .tflite file, a SavedModel
    directory, or module:function (or file.py:function) that returns a PyTorch model.
    """
    from edgepack.cache import Cache, cache_directory
    from edgepack.workflow.packing import pack_model

    check_outputs(bundle=output or Path())
    if device is None:
        refuse_device_options(given)
    requests = make_requests(model, output, given)
    key = open_key(given["sign_key"]) if given["sign_key"] is not None else None
    files = [
        tuple(path and path_for(path, name) for path in (given["save_recipe"], report_path))
        for name, _ in requests
    ]
    for recipe, page in files:
        check_outputs(bundle=output or Path(), recipe=recipe, report=page)
    cache = Cache(root=cache_directory())
    results: list[PackResult] = []
    if device is None:
        with show_work() as work:
            for name, request in requests:
                with naming_shape(name, [each.bundle.path for each in results]):
                    results.append(
                        pack_model(
                            request,
                            cache=cache,
                            rig=None,
                            on_step=work.step,
                            on_progress=work.progress,
                            sign=key.sign if key is not None else None,
                        )
                    )
    else:
        profile = requests[0][1].profile
        with ready_device(
            device, purpose="pack", given=given, profile=profile, cache=cache
        ) as ready:
            for name, request in requests:
                with naming_shape(name, [each.bundle.path for each in results]):
                    results.append(
                        pack_model(
                            request,
                            cache=cache,
                            rig=ready.rig,
                            on_step=ready.work.step,
                            on_progress=ready.work.progress,
                            sign=key.sign if key is not None else None,
                        )
                    )
    for (_, request), result, (recipe, page) in zip(requests, results, files, strict=True):
        write_records(request, result, recipe=recipe, page=page)
    if as_json:
        bodies = {
            name: pack_json(request, result)
            for (name, request), result in zip(requests, results, strict=True)
        }
        print_json(bodies.get(None, {"shapes": bodies}))
    else:
        for (_, request), result in zip(requests, results, strict=True):
            show_pack(request, result)
    return max(exit_code(result, strict=given["strict"]) for result in results)


def exit_code(result: "PackResult", *, strict: bool) -> int:
    """Give 4 when the packed variant is outside the floors and that was to be refused.

    A search that the user ended gives 130, so that what follows in a script does not run.
    """
    if result.is_interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.LIMIT if strict and not result.chosen.within_budget else ExitCode.DONE


def write_records(
    request: "PackRequest", result: "PackResult", *, recipe: Path | None, page: Path | None
) -> None:
    """Write the packed recipe and the page of all candidates where they were asked for."""
    if recipe is not None:
        write_recipe(recipe, result.chosen.recipe)
        note(f"wrote {recipe}")
    if page is not None:
        from edgepack import __version__
        from edgepack.report.summary import DeployReport

        summary = pack_summary(request, result)
        title = f"{result.bundle.manifest.name} for {request.profile.id}"
        write_report(page, DeployReport(title=title, pack=summary, tool_version=__version__))
        note(f"wrote {page}")


def show_pack(request: "PackRequest", result: "PackResult") -> None:
    """Print the variants, the choice and where the bundle is."""
    from edgepack.report.terminal import render_pack

    for warning in result.warnings:
        warn(warning)
    print_table(render_pack(pack_summary(request, result)))
    signed = _signed(result)
    by = f", signed by {signed}" if signed is not None else ""
    click.echo(f"wrote {result.bundle.path} (release {result.bundle.release}{by})")


def _signed(result: "PackResult") -> "Signed | None":
    from edgepack.bundle.sealing import read_seal
    from edgepack.signing.seal import check_seal

    return check_seal(read_seal(result.bundle)) if result.bundle.is_signed else None


def pack_summary(request: "PackRequest", result: "PackResult") -> "PackSummary":
    """Give what a report shows of a pack."""
    from edgepack.report.packed import summarize_pack

    on_device = any(outcome.device is not None for outcome in result.outcomes)
    return summarize_pack(
        result.bundle.manifest,
        variants=tuple(_row(outcome, on_device=on_device) for outcome in result.outcomes),
        choice=result.choice,
        floors=result.floors,
        objective=request.objective.value,
        bundle=result.bundle.path.name,
        bundle_bytes=result.bundle.num_bytes,
        latency_on=result.measured_on if on_device else "this machine",
        warnings=result.warnings,
    )


def _row(outcome: "Outcome", *, on_device: bool) -> "VariantRow":
    from edgepack.optimize.recipes.recipe import describe_recipe
    from edgepack.report.packed import summarize_variant
    from edgepack.report.summary import VariantRow

    if outcome.variant is None:
        return VariantRow(
            recipe=outcome.recipe.name,
            passes=describe_recipe(outcome.recipe),
            skipped_reason=outcome.skipped_reason,
        )
    reasons = outcome.outside
    if outcome.skipped_reason is not None:
        reasons = (*reasons, outcome.skipped_reason)
    latency = outcome.device if on_device else outcome.host
    if latency is None:
        return summarize_variant(outcome.variant, reasons=reasons)
    return summarize_variant(
        outcome.variant,
        reasons=reasons,
        median_ns=latency.median_ns,
        median_ci95_ns=latency.median_ci95_ns,
    )


def pack_json(request: "PackRequest", result: "PackResult") -> dict[str, object]:
    """Give the JSON form that `pack --json` prints."""
    return {
        "bundle": str(result.bundle.path),
        "release": result.bundle.release,
        "target": request.profile.id,
        "objective": request.objective.value,
        "floors": _floors_json(request.floors),
        "chosen": result.chosen.recipe.name,
        "reason": result.choice.reason,
        "is_interrupted": result.is_interrupted,
        "evaluation_num_samples": result.evaluation_num_samples,
        "variants": [_variant_json(outcome) for outcome in result.outcomes],
        "measured_on": result.measured_on,
        "num_evaluations": result.num_evaluations,
        "parity": [
            {
                "output": each.output,
                "sqnr_db": each.sqnr_db,
                "max_abs_error": each.max_abs_error,
                "cosine": each.cosine,
                "judgement": each.judgement.value,
                "top1_agreement": each.top1_agreement,
                "equal_share": each.equal_share,
            }
            for each in (result.parity.outputs if result.parity else ())
        ],
        "warnings": list(result.warnings),
        "signature": signed_json(_signed(result)),
    }


def _floors_json(floors: "Floors") -> dict[str, object]:
    """Give what is judged: a limit on what is lost stands in place of the other two."""
    by_task = floors.max_drop is not None
    return {
        "min_sqnr_db": None if by_task else floors.min_sqnr_db,
        "min_agreement": None if by_task else floors.min_agreement,
        "max_drop": floors.max_drop,
        "is_confident": floors.is_confident,
    }


def _variant_json(outcome: "Outcome") -> dict[str, object]:
    from edgepack.optimize.choosing.account import describe_passes
    from edgepack.optimize.choosing.variant import variant_to_json
    from edgepack.optimize.pruning.sparse_facts import describe_sparse
    from edgepack.optimize.recipes.recipe import describe_recipe, recipe_to_json

    variant = outcome.variant
    facts = dict.fromkeys(_FACTS) if variant is None else variant_to_json(variant)
    sparse = None if variant is None else variant.sparse_facts
    return {
        **facts,
        "recipe": outcome.recipe.name,
        "settings": recipe_to_json(outcome.recipe),
        "passes": describe_recipe(outcome.recipe),
        "done": list(describe_passes(variant)) if variant else [],
        "storage": list(describe_sparse(sparse)) if sparse else [],
        "findings": facts["findings"] or [],
        **_latency_json("host", outcome.host),
        **_latency_json("device", outcome.device),
        "within_budget": outcome.within_budget,
        "outside": list(outcome.outside),
        "skipped_reason": outcome.skipped_reason,
    }


def _latency_json(where: str, latency: "TrialLatency | None") -> dict[str, object]:
    return {
        f"{where}_median_ns": latency.median_ns if latency else None,
        f"{where}_median_ci95_ns": latency.median_ci95_ns if latency else None,
        f"{where}_verdict": latency.verdict.value if latency else None,
        f"{where}_memory_bytes": latency.memory_bytes if latency else None,
        f"{where}_memory_range_bytes": latency.memory_range_bytes if latency else None,
    }
