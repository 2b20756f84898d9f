"""Time models by our runner and by LiteRT's own `litert-benchmark`, launches interleaved.

    python -m benchmarks.litert_benchmark [MODEL.tflite...] [--rounds N] [--threads N]

Each round launches both once, in the opposite order of the last, with the same model, threads and
timed runs. Rounds are added until the 95% interval of their median difference lies on one side of
the bar, or there are N. Bar: the median of the rounds' differences is within 2% of the tool's
median, or within 5 µs; a model that our runner times as quicker than that shows what the tool's own
call takes, and is no miss. The tool rounds what it writes to 0.01 ms (ai-edge-litert 2.3), where
ours is in nanoseconds; here it is kept from rounding, and nothing else of it is changed. It times
`CompiledModel.run_by_name`, our runner `Interpreter.invoke`: two ways to the same kernels.

Without models: EfficientNet-Lite0, float32, which scripts/fetch-models brings, and the digits model
of the tests, which runs for microseconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.runners import default_models
from edgepack.measure.bench import RUNNER_PATH, own_site, python_command
from edgepack.measure.stats import order_interval

UNROUNDED = """
from ai_edge_litert.tools import benchmark_litert_model as tool

tool.round = lambda value, digits: value
tool.main()
"""
MOST_SHARE, MOST_NS = 0.02, 5_000
SECONDS, FEWEST_RUNS, MOST_RUNS = 1.0, 64, 50_000
LEAST_CORE_SHARE = 0.95
MOST_TRIES = 5
FEWEST_ROUNDS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One launch of each.

    Attributes:
        ours_ns: our median.
        theirs_ns: the tool's.
        is_calm: whether our launch, and so about the tool's, had a core for each thread.
    """

    ours_ns: float
    theirs_ns: float
    is_calm: bool


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def launch_ours(model: Path, *, num_threads: int, num_runs: int) -> tuple[float, bool]:
    """Give our runner's median in ns, and whether nothing else had its core."""
    plan = {
        "warmup_runs": max(5, num_runs // 10),
        "warmup_seconds": 0.0,
        "min_runs": num_runs,
        "min_seconds": 0.0,
        "max_seconds": 300.0,
        "max_samples": num_runs,
    }
    request = {"mode": "latency", "model": str(model), "inputs": [], "threads": num_threads}
    command = python_command(sys.executable, str(RUNNER_PATH), own_site())
    done = subprocess.run(
        [*command, json.dumps({**request, "plan": plan})], check=True, capture_output=True
    )
    events = {each["event"]: each for each in map(json.loads, done.stdout.splitlines())}
    line = events["launch"]
    return median(line["samples_ns"]), line["cpu_ns"] >= LEAST_CORE_SHARE * line["wall_ns"]


def launch_theirs(model: Path, *, num_threads: int, num_runs: int, folder: Path) -> float:
    """Give the tool's median in ns."""
    result = folder / "result.json"
    command = [sys.executable, "-c", UNROUNDED]
    command += [f"--model={model}", f"--num_threads={num_threads}", f"--num_runs={num_runs}"]
    command += [f"--warmup_runs={max(5, num_runs // 10)}", f"--result_json={result}"]
    subprocess.run(command, check=True, capture_output=True)
    return float(json.loads(result.read_text())["latency"]["median_ms"]) * 1e6


def allowed_ns(rounds: Sequence[Round]) -> float:
    """Give how far apart both may be."""
    return max(MOST_NS, MOST_SHARE * median(each.theirs_ns for each in rounds))


def is_decided(rounds: Sequence[Round]) -> bool:
    """Tell whether the interval of the median difference lies on one side of the bar."""
    interval = order_interval([round(each.ours_ns - each.theirs_ns) for each in rounds])
    if len(rounds) < FEWEST_ROUNDS or interval is None:
        return False
    low, high, most = *interval, allowed_ns(rounds)
    return (-most <= low and high <= most) or low > most or high < -most


def take_rounds(model: Path, *, num_threads: int, num_rounds: int, folder: Path) -> list[Round]:
    """Launch both in turns until calm rounds decide it, or there are so many, within a limit."""
    first_ns, _ = launch_ours(model, num_threads=num_threads, num_runs=FEWEST_RUNS)
    num_runs = max(FEWEST_RUNS, min(MOST_RUNS, round(SECONDS * 1e9 / max(first_ns, 1))))
    calm: list[Round] = []
    for index in range(MOST_TRIES * num_rounds):
        if index % 2:
            theirs_ns = launch_theirs(
                model, num_threads=num_threads, num_runs=num_runs, folder=folder
            )
        ours_ns, is_calm = launch_ours(model, num_threads=num_threads, num_runs=num_runs)
        if index % 2 == 0:
            theirs_ns = launch_theirs(
                model, num_threads=num_threads, num_runs=num_runs, folder=folder
            )
        taken = Round(ours_ns=ours_ns, theirs_ns=theirs_ns, is_calm=is_calm)
        calm += [taken] if taken.is_calm else []
        say(f"{model.name}: round {index + 1}, {len(calm)} of {num_rounds} calm, {taken}")
        if len(calm) == num_rounds or is_decided(calm):
            return calm
    sys.exit(f"{len(calm)} of {num_rounds} rounds were calm: the machine is too busy")


def compare(model: Path, *, num_threads: int, num_rounds: int, folder: Path) -> bool:
    """Print a model's row; tell whether the bar is met."""
    rounds = take_rounds(model, num_threads=num_threads, num_rounds=num_rounds, folder=folder)
    ours_ns = median(each.ours_ns for each in rounds)
    theirs_ns = median(each.theirs_ns for each in rounds)
    differences = [round(each.ours_ns - each.theirs_ns) for each in rounds]
    apart_ns = median(differences)
    interval = order_interval(differences)
    ends = f" ({interval[0] / 1e3:+.2f} to {interval[1] / 1e3:+.2f})" if interval else ""
    is_within = abs(apart_ns) <= allowed_ns(rounds)
    verdict = "yes" if is_within else "quicker" if apart_ns < 0 else "NO"
    cells = (
        model.name,
        f"{ours_ns / 1e3:.3f} µs",
        f"{theirs_ns / 1e3:.3f} µs",
        f"{apart_ns / 1e3:+.2f} µs{ends}",
        f"{apart_ns / max(theirs_ns, 1):+.1%}",
        str(len(rounds)),
        verdict,
    )
    print("| " + " | ".join(cells) + " |", flush=True)
    return verdict != "NO"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each model; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=150, help="at most (default: 150)")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    print(
        "| model | ours, median | litert-benchmark | apart (95%) | | rounds | within 2% or 5 µs |"
    )
    print("|---|---:|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [each.resolve() for each in given.models] or default_models(folder)
        met = [
            compare(each, num_threads=given.threads, num_rounds=given.rounds, folder=folder)
            for each in models
        ]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
