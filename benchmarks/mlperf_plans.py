"""Compare models as `bench --against` does, and by two plans of MLPerf Mobile; time both.

    python benchmarks/mlperf_plans.py [A.tflite B.tflite]... [--rounds N]

A plan of MLPerf Mobile's single stream is one launch of at least 60 seconds and 1,024 samples,
whose figure is p90; a comparison takes one plan of each model, one after the other. Its results
need to be reproduced within 5% (MLPerf Inference rules, audit), so two p90 that are no further
apart show no difference. Ours is `bench A local: --against B` with its default plan.

Bar: the same verdicts, in at most half of the time. Without models: the digits model against
itself, its int8 variant against it, and the tests' convolutional network against itself; each is
one pair. A difference of less than 5% is none by those plans, and may be one by ours: such pairs
are counted as equal when both name the same model as quicker, or theirs names none.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.model import load_model

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "tests" / "data"
PAIRS = (
    ("digits.tflite", "digits.tflite"),
    ("digits_int8.tflite", "digits.tflite"),
    ("models/cnn.tflite", "models/cnn.tflite"),
)
MLPERF = BenchmarkPlan(
    num_launches=1,
    warmup_runs=1,
    warmup_seconds=1.0,
    min_runs=1024,
    min_seconds=60.0,
    max_seconds=3600.0,
    max_samples=1_000_000,
)
REPRODUCED = 1.05
MOST_TIME = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a comparison said of the first model, and how long it took.

    Attributes:
        difference: faster, slower or none.
        speedup: the other's figure as a multiple of its own.
        seconds: of the wall clock, with starting everything.
    """

    difference: str
    speedup: float
    seconds: float


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def compare_by_plans(pair: tuple[Path, Path]) -> Outcome:
    """Run two plans of MLPerf Mobile and compare their p90."""
    start = time.perf_counter()
    figures = []
    for path in pair:
        measured = measure_on_host(load_model(path), (), plan=MLPERF, on_progress=say)
        figures.append(measured.summary.p90_ns)
    speedup = figures[1] / max(figures[0], 1)
    difference = "none"
    if speedup > REPRODUCED:
        difference = "faster"
    elif speedup < 1 / REPRODUCED:
        difference = "slower"
    return Outcome(difference=difference, speedup=speedup, seconds=time.perf_counter() - start)


def compare_in_turns(pair: tuple[Path, Path]) -> Outcome:
    """Compare by the command line."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        argv = ("bench", str(pair[0]), "local:", "--against", str(pair[1]), "--root", root)
        done = subprocess.run(
            (sys.executable, "-m", "edgepack", *argv, "--json"),
            stdout=subprocess.PIPE,
            check=True,
        )
    found = json.loads(done.stdout)["contrast"]
    return Outcome(
        difference=found["difference"],
        speedup=found["speedup"],
        seconds=time.perf_counter() - start,
    )


def agree(ours: Outcome, theirs: Outcome) -> bool:
    """Tell whether two verdicts are the same, as far as the plans can tell a difference."""
    if ours.difference == theirs.difference:
        return True
    is_small = 1 / REPRODUCED <= ours.speedup <= REPRODUCED
    return theirs.difference == "none" and is_small


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each comparison; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="an even number")
    parser.add_argument("--rounds", type=int, default=1, help="comparisons of each pair")
    given = parser.parse_args(arguments)
    if len(given.models) % 2:
        parser.error("expected pairs of models")
    pairs = list(zip(given.models[::2], given.models[1::2], strict=True))
    pairs = pairs or [(DATA / first, DATA / second) for first, second in PAIRS]
    print("| model | against | by two plans | in turns | same | time |")
    print("|---|---|---:|---:|---|---:|")
    met = []
    for pair in pairs:
        for _ in range(given.rounds):
            theirs, ours = compare_by_plans(pair), compare_in_turns(pair)
            share = ours.seconds / theirs.seconds
            is_same = agree(ours, theirs)
            met.append(is_same and share <= MOST_TIME)
            cells = (
                *(each.name for each in pair),
                *(f"{each.difference} ({each.speedup:.3f}x)" for each in (theirs, ours)),
                "yes" if is_same else "NO",
                f"{ours.seconds:.0f} s of {theirs.seconds:.0f} s: {share:.2f}x",
            )
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nsame verdict in at most {MOST_TIME:g}x the time: {sum(met)} of {len(met)}")
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
