"""Quantize EfficientNet-Lite0 by each recipe: bytes, latency on this machine, fidelity.

    python benchmarks/quantization.py [--threads N] [--rounds N] [--only float32,int8]

The model comes by scripts/fetch-models, the data are the 144 crops of examples/efficientnet:
72 calibrate, 72 others judge. Launches of the variants are interleaved, each round in the
opposite order of the last, so that a machine that warms up or gets busy favors none. The table
is Markdown. It holds for this machine alone: other processors rank the recipes otherwise.

The rows of 4 bits are ai-edge-quantizer's own recipes and no schemes of ours: with a scale a
channel for all weights, and with one for each 32 weights of the fully connected layer, the only
kind that has blocks.
"""

import argparse
import os
import platform
import subprocess
import sys
import zlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from ai_edge_quantizer import quantizer
from ai_edge_quantizer import recipe as recipes

from edgepack.cache import Cache, cache_directory
from edgepack.data import load_samples, split_samples
from edgepack.evaluate import Feeds
from edgepack.importers import ImportOptions, check_parity, import_model, model_feeds
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import LatencySummary, summarize
from edgepack.model import Model, read_model
from edgepack.optimize.choosing.variant import Variant, build_variant
from edgepack.optimize.judging.evaluation import EvaluationSet, evaluate_candidate, make_evaluation
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme

REPOSITORY = Path(__file__).resolve().parent.parent
SCHEMES = (
    Scheme.FLOAT32,
    Scheme.FLOAT16,
    Scheme.DYNAMIC_RANGE,
    Scheme.WEIGHT_ONLY_INT8,
    Scheme.INT8,
    Scheme.INT16X8,
)
FOUR_BITS = {
    "weight_only_int4": "weight_only_wi4_afp32",
    "dynamic_int4_blocks32": "dynamic_wi4b32_afp32",
}
# For one launch; int16x8 is so slow that its runs are fitted to it.
LAUNCH_SECONDS = 6.0


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def build(path: Path, only: frozenset[str]) -> tuple[list[Variant], Feeds]:
    """Give every variant, judged on the photographs, and the samples it was judged by."""
    cache, options = Cache(root=cache_directory()), ImportOptions()
    imported = import_model(path, options=options, cache=cache, on_progress=say)
    os.chdir(REPOSITORY / "examples" / "efficientnet")
    specs = tuple(binding.source for binding in imported.inputs)
    calibration, evaluation = split_samples(load_samples("photos:crops", inputs=specs))
    parity = check_parity(
        imported, path, samples=calibration, options=options, cache=cache, on_progress=say
    )
    print(
        f"- {calibration.num_samples} crops calibrate, {evaluation.num_samples} others judge; "
        f"float32 against {parity.reference}: {parity.outputs[0].sqnr_db:.1f} dB"
    )
    feeds = model_feeds(imported, calibration)
    judged = make_evaluation(imported.model, model_feeds(imported, evaluation))
    variants: list[Variant] = []
    for scheme in SCHEMES:
        if only and scheme.value not in only:
            continue
        say(f"building {scheme.value}")
        variants.append(
            build_variant(
                imported.model,
                stock_recipe(scheme),
                calibration=feeds,
                evaluation=judged,
                cache=cache,
            )
        )
    for name, recipe in FOUR_BITS.items():
        if not only or name in only:
            say(f"building {name}")
            variants.append(build_four_bits(imported.model, name, recipe, judged))
    return variants, judged.feeds


def build_four_bits(model: Model, name: str, recipe: str, judged: EvaluationSet) -> Variant:
    """Give what one of ai-edge-quantizer's recipes without calibration makes of a model."""
    tool = quantizer.Quantizer(model.data)
    tool.load_quantization_recipe(getattr(recipes, recipe)())
    done = tool.quantize(enable_progress_bar=False, enable_progress_report=False)
    made = read_model(bytes(done.quantized_model))
    # Only the name is told: no recipe of ours says this.
    stated = replace(stock_recipe(Scheme.AS_IS), name=name)
    return Variant(
        recipe=stated,
        model=made,
        fidelity=evaluate_candidate(made, stated, judged),
        compressed_bytes=len(zlib.compress(made.data, 9)),
    )


def time_interleaved(
    variants: list[Variant], feeds: Feeds, *, num_rounds: int, num_threads: int
) -> list[LatencySummary]:
    """Time one launch of each variant a round; give the figures in the variants' order."""
    plan = BenchmarkPlan(num_launches=1, max_seconds=LAUNCH_SECONDS, num_threads=num_threads)
    samples: list[list[tuple[int, ...]]] = [[] for _ in variants]
    for index in range(num_rounds):
        say(f"round {index + 1} of {num_rounds}")
        order = list(enumerate(variants))
        for place, variant in order if index % 2 == 0 else reversed(order):
            measured = measure_on_host(variant.model, feeds[:1], plan=plan)
            samples[place].append(tuple(measured.launches[0].samples_ns))
    return [summarize(launches) for launches in samples]


def cpu_name() -> str:
    """Give the processor's name."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def print_table(variants: list[Variant], summaries: list[LatencySummary]) -> None:
    """Print one row a variant; times of the float model are the measure."""
    print()
    print("| recipe | MB | median ms (95% interval) | to float32 | SQNR dB | top-1 as float |")
    print("|---|---:|---:|---:|---:|---:|")
    for variant, summary in zip(variants, summaries, strict=True):
        fidelity, interval = variant.fidelity, summary.median_ci95_ns
        shown = f" ({interval[0] / 1e6:.2f}-{interval[1] / 1e6:.2f})" if interval else ""
        agreement = ""
        if fidelity.top1_agreement is not None and fidelity.top1_agreement_ci95 is not None:
            low, high = fidelity.top1_agreement_ci95
            agreement = f"{fidelity.top1_agreement:.1%} ({low:.1%}-{high:.1%})"
        quality = "exact" if variant.recipe.scheme is Scheme.FLOAT32 else f"{fidelity.sqnr_db:.1f}"
        print(
            f"| {variant.recipe.name} | {variant.model.num_bytes / 1e6:.2f} "
            f"| {summary.median_ns / 1e6:.2f}{shown} "
            f"| {summary.median_ns / summaries[0].median_ns:.2f}x | {quality} | {agreement} |"
        )


def main() -> int:
    """Build, time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="to infer with (default: 1)")
    parser.add_argument("--rounds", type=int, default=10, help="launches a variant (default: 10)")
    parser.add_argument("--only", default="", help="these rows, by commas (default: all)")
    given = parser.parse_args()
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), "efficientnet-lite0"),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(f"- {cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    packages = ("ai-edge-litert", "ai-edge-quantizer", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"- Python {platform.python_version()}, {versions}")
    variants, feeds = build(
        Path(fetched.stdout.strip()), frozenset(part for part in given.only.split(",") if part)
    )
    load = os.getloadavg()[0]
    summaries = time_interleaved(
        variants, feeds, num_rounds=given.rounds, num_threads=given.threads
    )
    print(
        f"- threads {given.threads}; {given.rounds} launches a variant, interleaved; 1-minute load "
        f"{load:.2f} before and {os.getloadavg()[0]:.2f} after"
    )
    if load > (os.cpu_count() or 1) / 2:
        print("- other programs were running: quote none of these latencies")
    worst = max(summaries, key=lambda summary: summary.spread)
    print(f"- launches' medians of one variant lie at most {worst.spread:.0%} apart")
    print_table(variants, summaries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
