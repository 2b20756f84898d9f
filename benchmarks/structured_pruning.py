"""Prune EfficientNet-Lite0's channels: multiplications, bytes, latency here, and agreement.

    python benchmarks/structured_pruning.py [--shares 0.1,0.3] [--threads N] [--rounds N]

The model comes by scripts/fetch-models, the data are the 144 crops of examples/efficientnet:
72 calibrate, 72 others judge. Each share is pruned twice, of the same channels: with the layers
that remain fitted anew, and without. Launches of the variants are interleaved, each round in
the opposite order of the last. The table is Markdown.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edgepack.cache import Cache, cache_directory
from edgepack.data import load_samples, split_samples
from edgepack.evaluate import Feeds, run_model
from edgepack.fidelity import Fidelity, compare_outputs
from edgepack.importers import ImportOptions, import_model, model_feeds
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import LatencySummary, summarize
from edgepack.model import Model
from edgepack.optimize.pruning.structured import prune_structured

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A model of the table."""

    name: str
    model: Model
    macs_share: float
    fidelity: Fidelity


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
    model: Model, calibration: Feeds, evaluation: Feeds, shares: Sequence[float]
) -> list[Row]:
    """Give the float model and each pruned one, judged."""
    reference = run_model(model, evaluation)
    names = tuple(spec.name for spec in model.signature.outputs)

    def row(name: str, judged: Model, macs_share: float) -> Row:
        fidelity = compare_outputs(reference, run_model(judged, evaluation), names=names)
        return Row(name=name, model=judged, macs_share=macs_share, fidelity=fidelity)

    rows = [row("float32", model, 1.0)]
    for share in shares:
        for reconstruct in (True, False):
            started = time.monotonic()
            pruned, facts = prune_structured(model, share, calibration, reconstruct=reconstruct)
            name = f"structured:{share:g}" + ("" if reconstruct else ", not fitted")
            say(f"{name}: {time.monotonic() - started:.0f} s")
            rows.append(row(name, pruned, facts.num_macs_after / facts.num_macs_before))
    return rows


def time_interleaved(
    rows: Sequence[Row], feeds: Feeds, *, num_rounds: int, num_threads: int
) -> list[LatencySummary]:
    """Time one launch of each model a round; give the figures in the rows' order."""
    plan = BenchmarkPlan(num_launches=1, max_seconds=LAUNCH_SECONDS, num_threads=num_threads)
    samples: list[list[tuple[int, ...]]] = [[] for _ in rows]
    for index in range(num_rounds):
        say(f"round {index + 1} of {num_rounds}")
        order = list(enumerate(rows))
        for place, row in order if index % 2 == 0 else reversed(order):
            measured = measure_on_host(row.model, feeds[:1], plan=plan)
            samples[place].append(tuple(measured.launches[0].samples_ns))
    return [summarize(launches) for launches in samples]


def print_table(rows: Sequence[Row], summaries: Sequence[LatencySummary]) -> None:
    """Print one line a model; times of the float model are the measure."""
    print()
    print(
        "| model | multiplications | MB | median ms (95%) | to float32 | SQNR dB | top-1 as float |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row, summary in zip(rows, summaries, strict=True):
        interval = summary.median_ci95_ns
        shown = f" ({interval[0] / 1e6:.2f}-{interval[1] / 1e6:.2f})" if interval else ""
        agreement = row.fidelity.top1_agreement
        print(
            f"| {row.name} | {row.macs_share:.1%} | {row.model.num_bytes / 1e6:.2f} "
            f"| {summary.median_ns / 1e6:.2f}{shown} "
            f"| {summary.median_ns / summaries[0].median_ns:.2f}x "
            f"| {'exact' if row is rows[0] else format(row.fidelity.sqnr_db, '.1f')} "
            f"| {'' if agreement is None else format(agreement, '.1%')} |"
        )


def main() -> int:
    """Prune, time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shares", default="0.1,0.2,0.3", help="of multiplications, by commas")
    parser.add_argument("--threads", type=int, default=1, help="to infer with (default: 1)")
    parser.add_argument("--rounds", type=int, default=10, help="launches a model (default: 10)")
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
    shares = [float(part) for part in given.shares.split(",")]
    rows = build(model, calibration, evaluation, shares)
    load_before = os.getloadavg()[0]
    summaries = time_interleaved(
        rows, evaluation, num_rounds=given.rounds, num_threads=given.threads
    )
    print(
        f"- threads {given.threads}; {given.rounds} launches a model, interleaved; 1-minute load "
        f"{load_before:.2f} before and {os.getloadavg()[0]:.2f} after"
    )
    print_table(rows, summaries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
