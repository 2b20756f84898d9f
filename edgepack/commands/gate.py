"""`edgepack gate`: whether stored results keep their limits, by an exit code for CI systems."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.commands.console import print_json
from edgepack.commands.options import EXISTING_FILE, OUTPUT_FILE, F, NumberRange, Share, json_option
from edgepack.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgepack.bundle.archive import Bundle
    from edgepack.measure.record import Measurement
    from edgepack.profile import Limits
    from edgepack.report.verdicts import Gated


def _limit(name: str, metavar: str, text: str) -> Callable[[F], F]:
    kind = Share(minimum=0) if metavar == "SHARE" else NumberRange(min=0)
    return click.option(name, type=kind, metavar=metavar, help=text)


@click.command()
@click.argument("results", nargs=-1, required=True, type=EXISTING_FILE, metavar="RESULT...")
@click.option(
    "--limits",
    "limits_path",
    type=EXISTING_FILE,
    metavar="FILE.toml",
    help="Take the limits from a file [default: the bundle's target, with --bundle].",
)
@click.option("--target", metavar="NAME|FILE", help="Take the limits from a target profile.")
@click.option(
    "--bundle",
    "bundle_path",
    type=EXISTING_FILE,
    help="What was measured: for its size, and what accuracy it lost.",
)
@click.option("--baseline", type=EXISTING_FILE, metavar="RESULT", help="What --slowdown is of.")
@_limit("--p95-ms", "MS", "Largest 95th percentile of latency.")
@_limit("--peak-memory-mib", "MIB", "Largest peak memory of the process.")
@_limit("--bundle-mib", "MIB", "Largest bundle.")
@_limit("--accuracy-drop", "POINTS", "Most that may be lost against the float model.")
@_limit("--slowdown", "SHARE", "Most by which the median may be slower than the baseline's: 5%.")
@click.option(
    "--accept-unknown", is_flag=True, help="Pass what cannot be judged, such as a disturbed device."
)
@click.option("--junit", type=OUTPUT_FILE, help="Write the checks as JUnit XML.")
@click.option("--markdown", is_flag=True, help="Print the checks as a table of Markdown.")
@json_option
def gate(
    *,
    results: tuple[Path, ...],
    limits_path: Path | None,
    target: str | None,
    bundle_path: Path | None,
    baseline: Path | None,
    accept_unknown: bool,
    junit: Path | None,
    markdown: bool,
    as_json: bool,
    **flags: float | None,
) -> int:
    """Hold stored results to limits: exit with 4 unless all are shown to be kept.

    RESULT is a file of `bench -o` or `deploy --results`; all its devices are held to the same
    limits. Limits come from a file, a target, or the bundle's own target; options go before them.
    """
    from edgepack.commands.output import check_outputs, write_text
    from edgepack.measure.gate import Verdict
    from edgepack.measure.results import load_measurements, load_results
    from edgepack.report.verdicts import write_junit, write_markdown

    if as_json and markdown:
        raise UsageError("--json and --markdown both print the result", remedy="Choose one.")
    check_outputs(junit=junit)
    bundle = _open_bundle(bundle_path)
    limits = _find_limits(limits_path, target, bundle, flags)
    _check_baseline(limits, baseline, flags)
    stored = [load_results(path) for path in results]
    baselines = load_measurements(baseline) if baseline is not None else ()
    gated = [_gate(limits, one, bundle, baselines) for each in stored for one in each.measured]
    gated += [_not_measured(lost.device) for each in stored for lost in each.failed]
    checks = [check for each in gated for check in each.checks]
    if junit is not None:
        write_text(junit, write_junit(gated))
    if as_json:
        print_json([_to_json(each) for each in gated])
    elif markdown:
        click.echo(write_markdown(gated), nl=False)
    else:
        for each in gated:
            click.echo(f"{each.model} on {each.device}")
            for check in each.checks:
                click.echo(f"  {check.verdict.value}: {check.text}")
    refused = {Verdict.FAILED} if accept_unknown else {Verdict.FAILED, Verdict.UNKNOWN}
    is_kept = not any(check.verdict in refused for check in checks)
    return ExitCode.DONE if is_kept else ExitCode.LIMIT


def _open_bundle(path: Path | None) -> "Bundle | None":
    if path is None:
        return None
    from edgepack.bundle.archive import open_bundle

    return open_bundle(path)


def _find_limits(
    path: Path | None,
    target: str | None,
    bundle: "Bundle | None",
    flags: Mapping[str, float | None],
) -> "Limits":
    from edgepack.catalog import find_profile, user_profile_directory
    from edgepack.profile import Limits, parse_limits

    if path is not None and target is not None:
        raise UsageError(
            "--limits and --target both say where the limits come from", remedy="Choose one."
        )
    found = Limits() if bundle is None else bundle.manifest.target.limits
    if path is not None:
        try:
            found = parse_limits(path.read_text(encoding="utf-8"), name=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path}: expected a text file of limits: {error}", remedy="Check the path."
            ) from error
    elif target is not None:
        found = find_profile(target, user_directory=user_profile_directory())[0].limits
    given = {key: value for key, value in flags.items() if value is not None}
    found = replace(found, **given)
    if all(getattr(found, each.name) is None for each in fields(found)):
        raise UsageError(
            "expected a limit to hold the results to, but there is none",
            remedy="Give one, such as --p95-ms 20, or --limits FILE.toml, or a --bundle or "
            "--target whose profile has [limits].",
        )
    return found


def _check_baseline(
    limits: "Limits", baseline: Path | None, flags: Mapping[str, float | None]
) -> None:
    if baseline is not None and limits.slowdown is None:
        raise UsageError(
            "--baseline: expected a limit of how much slower a result may be, but there is none",
            remedy="Give --slowdown 5%, or `slowdown` among the limits.",
        )
    if baseline is None and flags["slowdown"] is not None:
        raise UsageError(
            "--slowdown: expected --baseline with it, the earlier result that it is of",
            remedy="Give the file that an earlier `edgepack bench -o` wrote.",
        )


def _gate(
    limits: "Limits",
    measurement: "Measurement",
    bundle: "Bundle | None",
    baselines: "Sequence[Measurement]",
) -> "Gated":
    from edgepack.measure.gate import check_limits
    from edgepack.report.labels import device_name, model_name
    from edgepack.report.verdicts import Gated

    model = measurement.model
    if bundle is not None and model.bundle_sha256 != bundle.sha256:
        raise UsageError(
            f"{bundle.path}: expected the bundle that was measured, but {model.name} on "
            f"{device_name(measurement.device_name)} was of another one",
            remedy="Measure this bundle: `edgepack bench BUNDLE DEVICE -o RESULT`.",
        )
    return Gated(
        model=model_name(model.name, model.recipe),
        device=device_name(measurement.device_name),
        checks=check_limits(limits, measurement, bundle=bundle, baselines=baselines),
    )


def _not_measured(device: str) -> "Gated":
    from edgepack.measure.gate import Check, Verdict
    from edgepack.report.labels import device_name
    from edgepack.report.verdicts import Gated

    text = "the device could not be measured"
    check = Check(name="measurement", verdict=Verdict.UNKNOWN, text=text)
    return Gated(model="nothing", device=device_name(device), checks=(check,))


def _to_json(gated: "Gated") -> dict[str, object]:
    return {
        "model": gated.model,
        "device": gated.device,
        "checks": [
            {"name": check.name, "verdict": check.verdict.value, "text": check.text}
            for check in gated.checks
        ],
    }
