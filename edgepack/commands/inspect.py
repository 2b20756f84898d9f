"""`edgepack inspect`: what a model or a bundle holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json, print_table
from edgepack.commands.options import EXISTING_FILE, json_option
from edgepack.commands.sensitivity_options import (
    analyze,
    make_sensitivity_request,
    sensitivity_json,
    sensitivity_options,
    show_sensitivity,
)

if TYPE_CHECKING:
    from edgepack.bundle.archive import Bundle
    from edgepack.model import Model, TensorSpec
    from edgepack.traits import Traits


@click.command()
@click.argument("subject", type=EXISTING_FILE, metavar="TFLITE|BUNDLE")
@click.option(
    "--layers",
    "with_layers",
    is_flag=True,
    help="Also list the ops that compute, by the names that recipe files call them.",
)
@sensitivity_options
@json_option
def inspect(*, subject: Path, with_layers: bool, as_json: bool, **given: Any) -> None:
    """Show what a .tflite model or a bundle holds, and what may still be done to it.

    Listed are inputs, outputs, ops and origin, how the model stores numbers, whether it keeps
    state, and which recipes it can be packed by or why not. With --layers, also each op that
    computes. With --sensitivity and --data, what each layer costs when it is quantized alone.
    """
    from edgepack.bundle.archive import Bundle
    from edgepack.bundle.manifest import MODEL_PATH, manifest_to_json
    from edgepack.model import read_model, signature_to_json
    from edgepack.optimize.recipes.eligibility import list_offers
    from edgepack.workflow.subject import open_subject

    request = make_sensitivity_request(given)
    content = open_subject(subject).content
    is_bundle = isinstance(content, Bundle)
    model = read_model(content.read(MODEL_PATH)) if isinstance(content, Bundle) else content
    found = analyze(model, request, name=subject.name) if request is not None else None
    if as_json:
        body: dict[str, object] = {
            "model": {
                "sha256": model.sha256,
                "size_bytes": model.num_bytes,
                "signature": signature_to_json(model.signature),
                "ops": dict(model.op_counts),
                "is_quantized": model.is_quantized,
                "has_state": model.has_state,
                "traits": _traits_json(model.traits),
                "recipes": [
                    {"name": offer.name, "offered": offer.refusal is None, "reason": offer.refusal}
                    for offer in list_offers(model.traits)
                ],
            }
        }
        if isinstance(content, Bundle):
            body["bundle"] = {
                "release": content.release,
                "sha256": content.sha256,
                "size_bytes": content.num_bytes,
                "manifest": manifest_to_json(content.manifest),
                "is_signed": content.is_signed,
            }
        if with_layers:
            body["layers"] = _layers_json(model)
        if found is not None:
            body["sensitivity"] = sensitivity_json(found)
        print_json(body)
        return
    if is_bundle and isinstance(content, Bundle):
        _show_bundle(content)
    _show_model(model)
    if with_layers:
        _show_layers(model)
    if found is not None and request is not None:
        show_sensitivity(found, request)


def _show_bundle(bundle: "Bundle") -> None:
    from edgepack.report.contract import contract_facts
    from edgepack.report.packed import bundle_provenance, summarize_parity
    from edgepack.report.summary import Fact
    from edgepack.report.terminal import render_facts, render_parity
    from edgepack.report.units import decibels

    manifest = bundle.manifest
    facts = [
        Fact(name="Bundle", value=f"{manifest.name} {manifest.version} for {manifest.target.id}"),
        Fact(name="Release", value=bundle.release),
        Fact(name="Signature", value=_describe_signature(bundle)),
        Fact(name="Recipe", value=manifest.recipe.name),
        Fact(name="SQNR to float", value=decibels(manifest.fidelity.sqnr_db)),
        *contract_facts(manifest),
        *bundle_provenance(manifest),
    ]
    print_table(render_facts(facts))
    if manifest.parity is not None:
        print_table(render_parity(summarize_parity(manifest.parity)))
    for record in bundle.files():
        click.echo(f"  {record.sha256[:12]}  {record.num_bytes:>10}  {record.path}")
    click.echo()


def _describe_signature(bundle: "Bundle") -> str:
    from edgepack.bundle.sealing import read_seal
    from edgepack.errors import SignatureError
    from edgepack.signing.seal import check_seal

    try:
        signed = check_seal(read_seal(bundle))
    except SignatureError as error:
        return f"not right: {error.message}"
    return "none" if signed is None else f"by the {signed.key}"


def _show_model(model: "Model") -> None:
    from rich.table import Table

    from edgepack.optimize.recipes.eligibility import describe, list_offers

    table = Table(box=None, pad_edge=False)
    for column in ("", "name", "shape", "dtype", "quantization"):
        table.add_column(column)
    for side, specs in (("input", model.signature.inputs), ("output", model.signature.outputs)):
        for spec in specs:
            shape = "x".join(str(size) for size in spec.shape) or "scalar"
            table.add_row(side, spec.name, shape, spec.dtype, _quantization(spec))
    print_table(table)
    click.echo(f"{model.num_bytes} bytes, {describe(model.traits)}, sha256 {model.sha256}")
    click.echo("ops: " + ", ".join(f"{name} {count}" for name, count in model.op_counts))
    for fact in _facts(model.traits):
        click.echo(fact)
    click.echo()
    offers = Table(box=None, pad_edge=False)
    offers.add_column("recipe")
    offers.add_column("")
    for offer in list_offers(model.traits):
        offers.add_row(
            offer.name, "offered" if offer.refusal is None else f"refused: {offer.refusal}"
        )
    print_table(offers)


def _show_layers(model: "Model") -> None:
    """Print each op that computes on a line of its own, its name whole, for it is to be copied."""
    from edgepack.optimize.walking.works import list_works
    from edgepack.report.labels import plain

    works = list(list_works(model))
    width = max((len(each.op) for each in works), default=0)
    click.echo(f"\n{'op':<{width}}  gives    weights     constants  multiplications  layer")
    for each in works:
        macs = f"{each.num_macs:,}" if each.num_macs else ""
        click.echo(
            f"{each.op:<{width}}  {each.output:<7}  {each.weights or '':<7}  "
            f"{f'{each.constant_bytes:,} B':>12}  {macs:>15}  {plain(each.name, longest=1000)}"
        )


def _layers_json(model: "Model") -> list[dict[str, object]]:
    from edgepack.optimize.walking.works import list_works

    return [
        {
            "layer": each.name,
            "op": each.op,
            "output_dtype": each.output,
            "weights_dtype": each.weights,
            "constant_bytes": each.constant_bytes,
            "num_macs": each.num_macs,
        }
        for each in list_works(model)
    ]


def _facts(traits: "Traits") -> list[str]:
    """Give what else a runner of the model must know, one fact a line."""
    facts: list[str] = []
    if len(traits.signatures) > 1:
        facts.append(f"signatures: {', '.join(traits.signatures)}")
    if traits.custom_ops:
        facts.append(f"ops outside TFLite: {', '.join(traits.custom_ops)}")
    if traits.open_inputs:
        facts.append(f"inputs with open dimensions: {', '.join(traits.open_inputs)}")
    return facts


def _traits_json(traits: "Traits") -> dict[str, object]:
    return {
        "numerics": traits.numerics.value,
        "weight_dtypes": list(traits.weight_dtypes),
        "state": traits.state.value,
        "is_sparse": traits.is_sparse,
        "has_loop": traits.has_loop,
        "custom_ops": list(traits.custom_ops),
        "signatures": list(traits.signatures),
        "open_inputs": list(traits.open_inputs),
    }


def _quantization(spec: "TensorSpec") -> str:
    if spec.quantization is None:
        return ""
    scales, points = spec.quantization.scales, spec.quantization.zero_points
    if len(scales) > 1:
        return f"{len(scales)} scales along axis {spec.quantization.axis}"
    return f"scale {scales[0]:.6g}, zero point {points[0]}"
