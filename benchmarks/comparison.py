"""How often a comparison is wrong: false differences, missed slowdowns, intervals that miss.

    python benchmarks/comparison.py [MODEL.tflite] [--launches N] [--live N]

Launches of one model (the digits model of the tests by default) are recorded once. From them,
comparisons of 10 launches of each side are drawn: launches that stood beside each other in time
are dealt to the sides pair by pair, as `bench --against` takes them in turns.

- A/A: both sides are the same model. Bar: at most 5% claim a difference.
- A slowdown: one side's samples are 5% longer. Bar: at least 90% are found.
- The 95% interval of p90 from 10 launches, against p90 of all. Bar: at least 93% hold it.
- Live: `bench A --against A` itself, N times.

Whoever runs this on a machine that is shared reads what such a machine does: the rates are of the
machine and the method together.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from edgepack.measure.contrast import Difference, contrast
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import P90, bootstrap_interval, quantile
from edgepack.model import load_model

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_PAIRS = 10
NUM_DRAWN = 1000
SLOWDOWN = 1.05
MOST_FALSE, LEAST_FOUND, LEAST_HELD = 0.05, 0.90, 0.93
SECONDS = 0.25

Launches = list[tuple[int, ...]]


def say(text: str) -> None:
    """Tell what is being done; standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)


def record(path: Path, num_launches: int) -> Launches:
    """Record launches, one after the other."""
    plan = BenchmarkPlan(
        num_launches=num_launches,
        warmup_seconds=SECONDS / 2,
        min_seconds=SECONDS,
        max_seconds=8 * SECONDS * num_launches,
        max_samples=256,
    )
    measured = measure_on_host(load_model(path), (), plan=plan, on_progress=say)
    return [launch.samples_ns for launch in measured.launches]


def deal(launches: Launches, generator: random.Random) -> tuple[Launches, Launches]:
    """Deal 20 launches that follow each other to two sides, pair by pair."""
    start = generator.randrange(len(launches) - 2 * NUM_PAIRS + 1)
    ours: Launches = []
    theirs: Launches = []
    for index in range(start, start + 2 * NUM_PAIRS, 2):
        pair = launches[index : index + 2]
        generator.shuffle(pair)
        ours.append(pair[0])
        theirs.append(pair[1])
    return ours, theirs


def slowed(launches: Launches) -> Launches:
    """Give launches whose runs all take 5% longer."""
    return [tuple(round(SLOWDOWN * value) for value in each) for each in launches]


def count_differences(
    launches: Launches, change: Callable[[Launches], Launches], *, seed: int
) -> Counter[Difference]:
    """Count what comparisons say of a side after a change of it."""
    generator = random.Random(seed)  # noqa: S311 - no secret
    found: Counter[Difference] = Counter()
    for _ in range(NUM_DRAWN):
        ours, theirs = deal(launches, generator)
        found[contrast(change(ours), theirs, is_paired=True).difference] += 1
    return found


def count_held(launches: Launches, *, seed: int) -> int:
    """Count how many intervals of p90 hold the p90 of all launches."""
    import numpy as np  # noqa: PLC0415 - beside what needs it

    truth = quantile(np.sort(np.concatenate([np.asarray(each) for each in launches])), P90)
    generator = random.Random(seed)  # noqa: S311 - no secret
    held = 0
    for _ in range(NUM_DRAWN):
        low, high = bootstrap_interval(generator.sample(launches, NUM_PAIRS), P90)
        held += low <= truth <= high
    return held


def compare_live(path: Path, number: int) -> Counter[str]:
    """Compare a model with itself by the command line."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        for index in range(number):
            say(f"live comparison {index + 1} of {number}")
            argv = ("bench", str(path), "local:", "--against", str(path), "--root", root, "--json")
            done = subprocess.run(
                (sys.executable, "-m", "edgepack", *argv, "--max-seconds", "20"),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            found[json.loads(done.stdout)["contrast"]["difference"]] += 1
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the rates; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = REPOSITORY / "tests" / "data" / "digits.tflite"
    parser.add_argument("model", type=Path, nargs="?", default=default)
    parser.add_argument("--launches", type=int, default=400)
    parser.add_argument("--live", type=int, default=10)
    given = parser.parse_args(arguments)
    launches = record(given.model, given.launches)
    same = count_differences(launches, list, seed=1)
    slower = count_differences(launches, slowed, seed=2)
    false = 1 - same[Difference.NONE] / NUM_DRAWN
    found = slower[Difference.SLOWER] / NUM_DRAWN
    held = count_held(launches, seed=3) / NUM_DRAWN
    print(f"{len(launches)} launches recorded, {NUM_DRAWN} comparisons of {NUM_PAIRS} a side drawn")
    print(f"false differences, A/A       {false:6.1%}  at most {MOST_FALSE:.0%}")
    print(f"a slowdown of 5% found       {found:6.1%}  at least {LEAST_FOUND:.0%}")
    print(f"p90 inside its 95% interval  {held:6.1%}  at least {LEAST_HELD:.0%}", flush=True)
    if given.live:
        live = compare_live(given.model, given.live)
        print(f"live A/A                     {live['none']} of {given.live} without a difference")
    return int(false > MOST_FALSE or found < LEAST_FOUND or held < LEAST_HELD)


if __name__ == "__main__":
    sys.exit(main())
