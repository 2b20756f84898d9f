"""What `pack` chooses for real models, beside float and the stock quantizer.

    python benchmarks/optimizer.py [--model NAME] [--add NAME=MODEL,FOLDER,SOURCE] [--rounds N]

Each model is packed by the command line as a user would, with its default floors and --objective
latency, and the time that takes is told. Then the float model, ai-edge-quantizer's static int8
as it comes and the chosen variant are timed in interleaved launches, each round in the opposite
order of the last; the ratio to float is the median of the rounds' ratios with its 95% interval
(order statistics). The models come by scripts/fetch-models, the data by the modules of examples/;
`--add` brings a further one, with SOURCE as `--data` takes it in FOLDER. The table is Markdown.
Fidelity is the same on every machine; latency, and so the choice, holds for this one alone.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgepack.bundle.archive import open_bundle
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import median, order_interval
from edgepack.model import Model, read_model

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH_SECONDS = 3.0
# Above it two answers differ by nothing that a variant could do better.
EXACT_DB = 290.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model of the benchmark.

    Attributes:
        model: a path, or what scripts/fetch-models calls it.
        folder: where the samples' module is.
        data: as `--data` takes it.
        options: further ones of pack.
        wheel: what scripts/fetch-models calls the wheel that the model's code reads from beside it.
    """

    model: str
    folder: Path
    data: str
    options: tuple[str, ...] = ()
    wheel: str | None = None


EXAMPLES = REPOSITORY / "examples"
CASES = {
    "efficientnet-lite0": Case(
        model="efficientnet-lite0", folder=EXAMPLES / "efficientnet", data="photos:crops"
    ),
    "ppocr-detector": Case(
        model="ppocr-detector",
        folder=EXAMPLES / "ppocr",
        data="pages:pages",
        options=("--input-shape", "x=1,3,320,320"),
    ),
    "ppocr-recognizer": Case(
        model="ppocr-recognizer",
        folder=EXAMPLES / "ppocr",
        data="pages:lines",
        options=("--input-shape", "x=1,3,48,320"),
    ),
    "ppocr-angle-classifier": Case(
        model="ppocr-angle-classifier",
        folder=EXAMPLES / "ppocr",
        data="pages:words",
        options=("--input-shape", "x=1,3,48,192"),
    ),
    "magika": Case(
        model="magika",
        folder=EXAMPLES / "magika",
        data="files:contents",
        options=("--input-shape", "bytes=1,2048"),
    ),
    "crepe-tiny": Case(
        model="network.py:tiny",
        folder=EXAMPLES / "crepe",
        data="tones:frames",
        wheel="crepe",
    ),
    "crepe-full": Case(
        model="network.py:full",
        folder=EXAMPLES / "crepe",
        data="tones:frames",
        wheel="crepe",
    ),
    "digits": Case(
        model=str(EXAMPLES / "digits" / "digits.keras"),
        folder=EXAMPLES / "digits",
        data="digits.npz",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packed:
    """What came of packing one model.

    Attributes:
        body: pack's own JSON of the search.
        stock: its JSON of the stock quantizer's variant; None where there is none.
        seconds: it took, import included.
        models: float32, stock int8 (None where it cannot be built) and the chosen one.
    """

    body: dict[str, Any]
    stock: dict[str, Any] | None
    seconds: float
    models: tuple[Model | None, ...]


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def fetch(name: str) -> str:
    """Give the path of what scripts/fetch-models calls so."""
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), name),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return fetched.stdout.strip()


def run_pack(case: Case, model: str, path: Path, *options: str) -> dict[str, Any]:
    """Pack a model by the command line; give its JSON."""
    done = subprocess.run(
        (
            *(sys.executable, "-m", "edgepack", "pack", model, "--target", "laptop-x86-64"),
            *("--data", case.data, "--json", "-o", str(path), *case.options, *options),
        ),
        cwd=case.folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def pack(case: Case, folder: Path) -> Packed:
    """Pack a model thrice: as float, by the stock quantizer, and by the search."""
    model = case.model
    if case.wheel is not None:
        work = shutil.copytree(case.folder, folder / "code")
        shutil.copy(fetch(case.wheel), work)
        case = replace(case, folder=work)
    elif not Path(model).exists():
        model = fetch(model)
    started = time.perf_counter()
    body = run_pack(case, model, folder / "auto.edgepack")
    seconds = time.perf_counter() - started
    bodies = [
        run_pack(case, model, folder / f"{recipe}.edgepack", "--recipe", recipe)
        for recipe in ("float32", "int8")
    ]
    paths = [folder / f"{name}.edgepack" for name in ("float32", "int8", "auto")]
    models = tuple(
        read_model(open_bundle(path).read("model.tflite")) if path.exists() else None
        for path in paths
    )
    stock = next(iter(bodies[1].get("variants", ())), None)
    return Packed(body=body, stock=stock, seconds=seconds, models=models)


def time_interleaved(models: list[Model], *, num_rounds: int) -> list[list[float]]:
    """Give each model's median of each round, in ms."""
    plan = BenchmarkPlan(num_launches=1, max_seconds=LAUNCH_SECONDS, num_threads=1)
    medians: list[list[float]] = [[] for _ in models]
    for index in range(num_rounds):
        order = list(enumerate(models))
        for place, model in order if index % 2 == 0 else reversed(order):
            samples = sorted(measure_on_host(model, (), plan=plan).launches[0].samples_ns)
            medians[place].append(samples[len(samples) // 2] / 1e6)
    return medians


def compare(ours: list[float], base: list[float]) -> tuple[str, float]:
    """Give the median of the rounds' ratios, in words with its interval, and as a number."""
    scaled = [round(1e6 * mine / theirs) for mine, theirs in zip(ours, base, strict=True)]
    middle, interval = median(scaled) / 1e6, order_interval(scaled)
    shown = "" if interval is None else f" ({interval[0] / 1e6:.2f}-{interval[1] / 1e6:.2f})"
    return f"{middle:.2f}x{shown}", middle


def describe(name: str, packed: Packed, *, num_rounds: int) -> tuple[str, float]:
    """Time a model's variants; give its row, and the chosen one's latency as a share of float's."""
    reference, stock, chosen = packed.models
    if reference is None or chosen is None:
        message = f"{name} was not packed: {packed.body}"
        raise RuntimeError(message)
    present = [each for each in (reference, stock, chosen) if each is not None]
    medians = time_interleaved(present, num_rounds=num_rounds)
    chosen_text, ratio = compare(medians[-1], medians[0])
    stock_text = "" if stock is None else compare(medians[1], medians[0])[0]
    winner = next(v for v in packed.body["variants"] if v["recipe"] == packed.body["chosen"])
    return (
        f"| {name} | {winner['recipe']} "
        f"| {chosen.num_bytes / 1e6:.2f} of {reference.num_bytes / 1e6:.2f} "
        f"| {fidelity_text(winner)} | {fidelity_text(packed.stock)} "
        f"| {stock_text} | {chosen_text} | {packed.seconds:.0f} |"
    ), ratio


def fidelity_text(variant: dict[str, Any] | None) -> str:
    """Give a variant's SQNR and agreement."""
    if variant is None or variant["fidelity"] is None:
        return "cannot be built"
    fidelity = variant["fidelity"]
    agreement = fidelity["top1_agreement"]
    shown = "" if agreement is None else f", {agreement:.0%}"
    sqnr_db = fidelity["sqnr_db"]
    return ("exact" if sqnr_db > EXACT_DB else f"{sqnr_db:.1f}") + shown


def main() -> int:
    """Pack, time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=MODEL,FOLDER,SOURCE")
    parser.add_argument("--rounds", type=int, default=7, help="launches of each (default: 7)")
    given = parser.parse_args()
    cases = {name: CASES[name] for name in given.model or CASES}
    for each in given.add:
        name, _, rest = each.partition("=")
        path, folder, data = rest.split(",")
        cases[name] = Case(model=path, folder=Path(folder), data=data)
    packages = ("ai-edge-litert", "ai-edge-quantizer", "numpy")
    print("- " + ", ".join(f"{name} {version(name)}" for name in packages))
    print("\n| model | chosen | MB of float's | dB, agreement | of stock int8", end="")
    print(" | latency of stock int8 | latency of the chosen | pack, s |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    ratios: list[float] = []
    for name, case in cases.items():
        say(name)
        with tempfile.TemporaryDirectory() as folder:
            packed = pack(case, Path(folder))
        row, ratio = describe(name, packed, num_rounds=given.rounds)
        ratios.append(ratio)
        print(row, flush=True)
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    print(f"\nGeometric mean of the chosen variants' latency: {mean:.2f}x of float.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
