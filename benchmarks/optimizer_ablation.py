"""What each pass of the optimizer adds to static int8, one after the other, on two real models.

    python benchmarks/optimizer_ablation.py [--model NAME] [--float-layers N] [--rounds N]

Each row keeps what the rows above it do. The models come by scripts/fetch-models: EfficientNet-
Lite0 with the 144 crops of examples/efficientnet, and PP-OCR's detector with the 96 pages of
examples/ppocr; one half calibrates, the other judges. `stock` is ai-edge-quantizer with the
extremes of all calibration samples as ranges. The last row leaves the layers in float that
cost most, by the sensitivity analysis. Fidelity is the same on every machine; latency, taken in
interleaved launches when --rounds is given, holds for this one alone. The tables are Markdown.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edgepack.cache import Cache, cache_directory
from edgepack.data import load_samples, split_samples
from edgepack.evaluate import Feeds
from edgepack.importers import ImportOptions, import_model, model_feeds
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import summarize
from edgepack.model import Model
from edgepack.optimize.choosing.variant import Variant, build_variant
from edgepack.optimize.judging.evaluation import EvaluationSet, make_evaluation
from edgepack.optimize.ranking.sensitivity import analyze_sensitivity, rank_layers
from edgepack.optimize.recipes.recipe import (
    LayerScheme,
    RangeMethod,
    Recipe,
    Rounding,
    stock_recipe,
)
from edgepack.profile import Scheme

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model of the benchmark.

    Attributes:
        source: what scripts/fetch-models calls it.
        example: folder of the samples' function below examples/.
        samples: the function, as `--data` takes it.
        options: how it is imported.
    """

    source: str
    example: str
    samples: str
    options: ImportOptions


SUBJECTS = {
    "efficientnet-lite0": Subject(
        source="efficientnet-lite0",
        example="efficientnet",
        samples="photos:crops",
        options=ImportOptions(),
    ),
    "ppocr-detector": Subject(
        source="ppocr-detector",
        example="ppocr",
        samples="pages:pages",
        options=ImportOptions(input_shapes=(("x", (1, 3, 320, 320)),)),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Material:
    """What the variants of one model are made and judged with."""

    model: Model
    calibration: Feeds
    evaluation: EvaluationSet


def say(text: str) -> None:
    """Tell what is being done; standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


def load(subject: Subject, cache: Cache) -> Material:
    """Import a model and give it with the two halves of its samples."""
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), subject.source),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    imported = import_model(
        Path(fetched.stdout.strip()), options=subject.options, cache=cache, on_progress=say
    )
    # The samples' functions are found in the working folder.
    os.chdir(REPOSITORY / "examples" / subject.example)
    specs = tuple(binding.source for binding in imported.inputs)
    calibration, evaluation = split_samples(load_samples(subject.samples, inputs=specs))
    return Material(
        model=imported.model,
        calibration=model_feeds(imported, calibration),
        evaluation=make_evaluation(imported.model, model_feeds(imported, evaluation)),
    )


def recipes(material: Material, cache: Cache, *, num_float: int) -> Iterator[tuple[str, Recipe]]:
    """Yield the rows' names and recipes, each with one pass more than the last."""
    recipe = stock_recipe(Scheme.INT8)
    yield "stock", recipe
    recipe = replace(
        recipe, activation_ranges=RangeMethod.BEST, weight_ranges=RangeMethod.MSE, name="ranges"
    )
    yield "+ ranges by error", recipe
    recipe = replace(recipe, fuse=True, name="fuse")
    yield "+ fusion", recipe
    recipe = replace(recipe, equalize=True, name="equalize")
    yield "+ equalization", recipe
    recipe = replace(recipe, bias_correction=True, name="bias")
    yield "+ bias correction", recipe
    recipe = replace(recipe, rounding=Rounding.GPTQ, name="gptq")
    yield "+ GPTQ", recipe
    # Beside errors of the weights those of activations hardly show, so it is taken away again.
    yield "the same without equalization", replace(recipe, equalize=False, name="unequal")
    if num_float:
        found = analyze_sensitivity(
            material.model, material.calibration, cache=cache, on_progress=say
        )
        worst = rank_layers(found, recipe.scheme, corrected=True)[:num_float]
        layers = tuple(LayerScheme(layer=name, scheme=Scheme.FLOAT32) for name in sorted(worst))
        yield f"+ {len(layers)} layers in float", replace(recipe, layers=layers, name="mixed")


def time_interleaved(models: list[Model], feeds: Feeds, *, num_rounds: int) -> list[float]:
    """Give each model's median latency in ms, one launch of each a round, there and back."""
    plan = BenchmarkPlan(num_launches=1, max_seconds=LAUNCH_SECONDS, num_threads=1)
    launches: list[list[tuple[int, ...]]] = [[] for _ in models]
    for index in range(num_rounds):
        say(f"round {index + 1} of {num_rounds}")
        order = list(enumerate(models))
        for place, model in order if index % 2 == 0 else reversed(order):
            measured = measure_on_host(model, feeds[:1], plan=plan)
            launches[place].append(tuple(measured.launches[0].samples_ns))
    return [summarize(each).median_ns / 1e6 for each in launches]


def print_table(
    title: str, rows: list[tuple[str, Variant]], material: Material, latencies: list[float] | None
) -> None:
    """Print one row a pass; the float model's bytes are the measure."""
    first = rows[0][1].model.num_bytes
    evaluation = material.evaluation
    print(f"\n{title}: {len(material.calibration)} samples calibrate, ", end="")
    print(f"{len(evaluation.feeds)} others judge; float32 {material.model.num_bytes / 1e6:.2f} MB")
    print(f"\n| static int8 | MB | to stock | SQNR dB | agreement |{' ms |' * bool(latencies)}")
    print(f"|---|---:|---:|---:|---:|{'---:|' * bool(latencies)}")
    for place, (name, variant) in enumerate(rows):
        agreement = variant.fidelity.top1_agreement
        shown = "" if agreement is None else f"{agreement:.1%}"
        size = variant.model.num_bytes
        latency = "" if latencies is None else f" {latencies[place]:.2f} |"
        print(
            f"| {name} | {size / 1e6:.2f} | {size / first:.3f}x "
            f"| {variant.fidelity.sqnr_db:.1f} | {shown} |{latency}"
        )


def main() -> int:
    """Build, judge and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model", action="append", choices=list(SUBJECTS), help="one of them (default: both)"
    )
    parser.add_argument(
        "--float-layers", type=int, default=3, help="in the last row (default: 3, 0 for no row)"
    )
    parser.add_argument("--rounds", type=int, default=0, help="launches a row (default: no times)")
    given = parser.parse_args()
    packages = ("ai-edge-litert", "ai-edge-quantizer", "numpy")
    print("- " + ", ".join(f"{name} {version(name)}" for name in packages))
    cache = Cache(root=cache_directory())
    for title in given.model or SUBJECTS:
        material = load(SUBJECTS[title], cache)
        rows: list[tuple[str, Variant]] = []
        for name, recipe in recipes(material, cache, num_float=given.float_layers):
            say(f"{title}: {name}")
            variant = build_variant(
                material.model,
                recipe,
                calibration=material.calibration,
                evaluation=material.evaluation,
                cache=cache,
            )
            rows.append((name, variant))
        latencies = None
        if given.rounds:
            models = [variant.model for _, variant in rows]
            latencies = time_interleaved(models, material.calibration, num_rounds=given.rounds)
        print_table(title, rows, material, latencies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
