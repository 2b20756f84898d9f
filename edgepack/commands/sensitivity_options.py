"""Options of the sensitivity analysis that `edgepack inspect` shows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.commands.console import note, print_table, show_work
from edgepack.commands.options import OUTPUT_FILE, apply_options
from edgepack.commands.output import check_outputs, write_text
from edgepack.commands.pack_options import image_options, make_images
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.data import ImagePreprocessing
    from edgepack.model import Model
    from edgepack.optimize.ranking.sensitivity import Sensitivity

F = TypeVar("F", bound=Callable[..., Any])

# Written out, for importing the analysis takes longer than `--help` may; a test compares.
PRECISION_NAMES: Final = ("int8", "weight_only_int8", "weight_only_int4", "float16")
_IDLE_ALONE: Final = ("data", "report_path", "node_data_path")
_NAMES: Final = {
    "data": "--data",
    "report_path": "--out",
    "node_data_path": "--model-explorer",
}


def sensitivity_options(function: F) -> F:
    """Add the options that ask what each layer costs, and where that goes."""
    return apply_options(
        click.option(
            "--sensitivity",
            "with_sensitivity",
            is_flag=True,
            help="Also find which layer, at which precision, costs how much fidelity.",
        ),
        click.option(
            "--data",
            metavar="SOURCE",
            help="Samples for --sensitivity: .npz, .npy, a folder of images, or module:function; "
            "up to 8 of them are used.",
        ),
        image_options,
        click.option(
            "--precision",
            type=click.Choice(PRECISION_NAMES),
            default=PRECISION_NAMES[0],
            show_default=True,
            help="Which one the table and --model-explorer show.",
        ),
        click.option(
            "-o",
            "--out",
            "report_path",
            type=OUTPUT_FILE,
            metavar="FILE.html",
            help="Write all precisions with charts as a page.",
        ),
        click.option(
            "--model-explorer",
            "node_data_path",
            type=OUTPUT_FILE,
            metavar="FILE.json",
            help="Write the SQNR of each layer as node data for Model Explorer.",
        ),
    )(function)


@dataclass(frozen=True, kw_only=True, slots=True)
class SensitivityRequest:
    """What is asked of the analysis.

    Attributes:
        data: where its samples come from.
        images: how pictures become arrays.
        precision: what is shown.
        report_path: page to write.
        node_data_path: node data to write.
    """

    data: str
    images: "ImagePreprocessing | None"
    precision: str
    report_path: Path | None
    node_data_path: Path | None


def make_sensitivity_request(given: Mapping[str, Any]) -> SensitivityRequest | None:
    """Make the request of the options of `sensitivity_options`; None when none is asked for.

    Raises:
        UsageError: an option without --sensitivity, or that without samples.
        OutputError: a file that cannot be written, or would be lost.
    """
    images = make_images(given)
    if not given["with_sensitivity"]:
        idle = [_NAMES[name] for name in _IDLE_ALONE if given[name] is not None]
        idle += ["--image-…"] if images is not None else []
        if idle:
            raise UsageError(
                f"{', '.join(idle)}: only the sensitivity analysis uses this",
                remedy="Add --sensitivity, or leave it out.",
            )
        return None
    if given["data"] is None:
        raise UsageError(
            "--sensitivity: it looks at each layer's inputs, but no samples were given",
            remedy="Give real inputs with --data; 8 are enough.",
        )
    check_outputs(results=given["node_data_path"], report=given["report_path"])
    return SensitivityRequest(
        data=given["data"],
        images=images,
        precision=given["precision"],
        report_path=given["report_path"],
        node_data_path=given["node_data_path"],
    )


def analyze(model: "Model", request: SensitivityRequest, *, name: str) -> "Sensitivity":
    """Analyze a model as asked, and write the files that were asked for.

    Raises:
        DataError: samples that do not fit.
        OptimizeError: the model cannot be analyzed.
        OutputError: a file cannot be written.
    """
    from edgepack import __version__
    from edgepack.cache import Cache, cache_directory
    from edgepack.data import load_samples
    from edgepack.optimize.ranking.model_explorer import make_node_data
    from edgepack.optimize.ranking.sensitivity import Precision, analyze_sensitivity
    from edgepack.report.sensitivity import sensitivity_page

    samples = load_samples(request.data, inputs=model.signature.inputs, images=request.images)
    feeds = tuple(zip(*(array for _, array in samples.arrays), strict=True))
    with show_work() as work:
        found = analyze_sensitivity(
            model, feeds, cache=Cache(root=cache_directory()), on_progress=work.step
        )
    if request.report_path is not None:
        page = sensitivity_page(found, name=name, tool_version=__version__)
        write_text(request.report_path, page)
    if request.node_data_path is not None:
        body = make_node_data(model.data, found, Precision(request.precision))
        write_text(request.node_data_path, json.dumps(body, indent=2))
    return found


def show_sensitivity(found: "Sensitivity", request: SensitivityRequest) -> None:
    """Print the table of the precision that was asked for, and what was written."""
    from edgepack.optimize.ranking.sensitivity import Precision
    from edgepack.report.sensitivity import render_sensitivity

    click.echo()
    print_table(render_sensitivity(found, Precision(request.precision)), width=100)
    for path in (request.report_path, request.node_data_path):
        if path is not None:
            note(f"wrote {path}")


def sensitivity_json(found: "Sensitivity") -> dict[str, object]:
    """Give the analysis as JSON values, with the layers of each precision in order of rank."""
    from edgepack.optimize.ranking.sensitivity import Precision, rank_layers, sensitivity_to_json

    ranking = {each.value: list(rank_layers(found, each)) for each in Precision}
    return {**sensitivity_to_json(found), "ranking": ranking}
