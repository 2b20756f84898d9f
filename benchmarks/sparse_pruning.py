"""Prune EfficientNet-Lite0's single weights: bytes, agreement, and latency here.

    python benchmarks/sparse_pruning.py [--shares 0.5,0.7] [--schemes float32,float16,int8]
                                        [--threads N] [--rounds N]

The model comes by scripts/fetch-models, the data are the 144 crops of examples/efficientnet:
72 calibrate, 72 others judge. Each share is pruned by magnitude and by SparseGPT. Launches of
the variants are interleaved, each round in the opposite order of the last. The table is
Markdown; below it stands what XNNPACK makes of the zeros.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from edgepack.cache import Cache, cache_directory
from edgepack.data import load_samples, split_samples
from edgepack.evaluate import Feeds
from edgepack.importers import ImportOptions, import_model, model_feeds
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import LatencySummary, summarize
from edgepack.model import Model
from edgepack.optimize.choosing.variant import Variant, build_variant
from edgepack.optimize.judging.evaluation import make_evaluation
from edgepack.optimize.pruning.sparse_facts import describe_sparse
from edgepack.optimize.recipes.recipe import NO_PRUNING, PruneKind, Pruning, stock_recipe
from edgepack.profile import Scheme

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 4.0


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def load(path: Path) -> tuple[Model, Feeds, Feeds]:
    """Give the float model, the samples to calibrate with and those to judge by."""
    cache, options = Cache(root=cache_directory()), ImportOptions()
    imported = import_model(path, options=options, cache=cache, on_progress=say)
    os.chdir(REPOSITORY / "examples" / "efficientnet")
    specs = tuple(binding.source for binding in imported.inputs)
    calibration, evaluation = split_samples(load_samples("photos:crops", inputs=specs))
    return imported.model, model_feeds(imported, calibration), model_feeds(imported, evaluation)


def build(
    model: Model,
    calibration: Feeds,
    evaluation: Feeds,
    prunings: Sequence[Pruning],
    *,
    schemes: Sequence[Scheme],
) -> list[Variant]:
    """Give a variant for each scheme and pruning."""
    judged = make_evaluation(model, evaluation)
    cache = Cache(root=cache_directory())
    variants: list[Variant] = []
    for scheme in schemes:
        for pruning in prunings:
            started = time.monotonic()
            recipe = stock_recipe(scheme, pruning=pruning)
            variants.append(
                build_variant(
                    model, recipe, calibration=calibration, evaluation=judged, cache=cache
                )
            )
            say(f"{recipe.name}: {time.monotonic() - started:.0f} s")
    return variants


def time_interleaved(
    variants: Sequence[Variant], feeds: Feeds, *, num_rounds: int, num_threads: int
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


def print_table(variants: Sequence[Variant], summaries: Sequence[LatencySummary] | None) -> None:
    """Print one line a variant; times of the first are the measure."""
    print()
    print("| variant | MB | stored densely | zlib -9 | SQNR dB | top-1 as float | to float32 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for place, variant in enumerate(variants):
        sparse, agreement = variant.sparse_facts, variant.fidelity.top1_agreement
        dense = variant.model.num_bytes if sparse is None else sparse.bytes_before
        ratio = ""
        if summaries is not None:
            ratio = f"{summaries[place].median_ns / summaries[0].median_ns:.2f}x"
        print(
            f"| {variant.recipe.name} | {variant.model.num_bytes / 1e6:.2f} | {dense / 1e6:.2f} "
            f"| {variant.compressed_bytes / 1e6:.2f} "
            f"| {'exact' if place == 0 else format(variant.fidelity.sqnr_db, '.1f')} "
            f"| {'' if agreement is None else format(agreement, '.1%')} | {ratio} |"
        )
    for variant in variants:
        if variant.sparse_facts is not None:
            print(f"\n{variant.recipe.name}:")
            for sentence in describe_sparse(variant.sparse_facts):
                print(f"- {sentence}")


def main() -> int:
    """Prune, time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shares", default="0.5,0.7", help="of each layer's weights, by commas")
    parser.add_argument("--schemes", default="float32", help="of the weights, by commas")
    parser.add_argument("--threads", type=int, default=1, help="to infer with (default: 1)")
    parser.add_argument("--rounds", type=int, default=10, help="launches a variant (default: 10)")
    given = parser.parse_args()
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), "efficientnet-lite0"),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(
        f"- {platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("ai-edge-litert", "numpy"))
    print(f"- Python {platform.python_version()}, {versions}")
    model, calibration, evaluation = load(Path(fetched.stdout.strip()))
    prunings = [
        NO_PRUNING,
        *(
            Pruning(kind=kind, share=float(share))
            for share in given.shares.split(",")
            for kind in (PruneKind.MAGNITUDE, PruneKind.SPARSEGPT)
        ),
    ]
    schemes = [Scheme(part) for part in given.schemes.split(",")]
    variants = build(model, calibration, evaluation, prunings, schemes=schemes)
    load_before = os.getloadavg()[0]
    summaries = None
    if given.rounds:
        summaries = time_interleaved(
            variants, evaluation, num_rounds=given.rounds, num_threads=given.threads
        )
    print(
        f"- threads {given.threads}; {given.rounds} launches a variant, interleaved; 1-minute load "
        f"{load_before:.2f} before and {os.getloadavg()[0]:.2f} after"
    )
    print_table(variants, summaries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
