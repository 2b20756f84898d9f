"""Count what finding the layers to leave in float costs, beside a greedy search.

    python benchmarks/search_cost.py [--model NAME] [--min-sqnr DB]

Static int8 falls below a floor, and two searches find layers to leave in float until it does not:
EdgePack's, which ranks the layers by their sensitivity and doubles, and a greedy one, which leaves
each layer in float alone, ranks them by what that gains, and then adds one after the other. Both
build the same recipes, stock ones but for their layers and calibrated on 8 samples, as the greedy
search builds one for each layer, and evaluate them on the same samples. Cost is counted in runs of
a whole model over these, the sensitivity analysis in proportion of its 8 samples. Nothing is taken
from an earlier run. The models come by scripts/fetch-models, the data by the modules of examples/.
The table is Markdown; the counts are the same on every machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack.cache import Cache, cache_directory
from edgepack.data import load_samples, split_samples
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import read_flatbuffer
from edgepack.importers import ImportOptions, import_model, model_feeds
from edgepack.model import Model
from edgepack.optimize.choosing.choose import Objective
from edgepack.optimize.choosing.search import SearchSpace, Trial, search
from edgepack.optimize.choosing.variant import Variant, build_variant
from edgepack.optimize.judging.evaluation import EvaluationSet, make_evaluation
from edgepack.optimize.judging.floors import Floors, judge
from edgepack.optimize.ranking.sensitivity import analyze_sensitivity, rank_layers
from edgepack.optimize.recipes.recipe import LayerScheme, Recipe, stock_recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_CALIBRATION = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model of the benchmark: its samples, and the shape that its source leaves open."""

    folder: str
    data: str
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()


CASES = {
    "efficientnet-lite0": Case(folder="efficientnet", data="photos:crops"),
    "ppocr-angle-classifier": Case(
        folder="ppocr", data="pages:words", input_shapes=(("x", (1, 3, 48, 192)),)
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Subject:
    """What is searched on."""

    model: Model
    calibration: Feeds
    evaluation: EvaluationSet
    floors: Floors
    cache: Cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search found, and what that took."""

    best: Variant | None
    num_evaluations: float
    seconds: float


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def load(name: str, floors: Floors, cache: Cache) -> Subject:
    """Import a model, and read its samples."""
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), name),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    case = CASES[name]
    imported = import_model(
        Path(fetched.stdout.strip()),
        options=ImportOptions(input_shapes=case.input_shapes),
        cache=Cache(root=cache_directory()),
        on_progress=say,
    )
    os.chdir(REPOSITORY / "examples" / case.folder)
    specs = tuple(binding.source for binding in imported.inputs)
    calibration, evaluation = split_samples(load_samples(case.data, inputs=specs))
    return Subject(
        model=imported.model,
        calibration=model_feeds(imported, calibration)[:NUM_CALIBRATION],
        evaluation=make_evaluation(imported.model, model_feeds(imported, evaluation)),
        floors=floors,
        cache=cache,
    )


def leave_in_float(layers: Sequence[LayerScheme]) -> Recipe:
    """Give stock static int8 with layers in float."""
    stock = stock_recipe(Scheme.INT8)
    return replace(stock, name=f"{stock.name}+float{len(layers)}", layers=tuple(layers))


def build(subject: Subject, recipe: Recipe) -> tuple[Variant, bool]:
    """Build and judge one recipe."""
    started = time.perf_counter()
    variant = build_variant(
        subject.model,
        recipe,
        calibration=subject.calibration,
        evaluation=subject.evaluation,
        cache=subject.cache,
    )
    is_inside = not judge(variant.fidelity, subject.floors, findings=variant.findings)
    say(
        f"{recipe.name} {', '.join(each.layer for each in recipe.layers)[:60]}: "
        f"{variant.fidelity.sqnr_db:.2f} dB in {time.perf_counter() - started:.1f} s"
    )
    return variant, is_inside


def search_as_edgepack(subject: Subject, num_layers: int) -> Found:
    """Answer the proposals of the search that `pack` makes, of static int8 alone."""
    started, best, count = time.perf_counter(), None, 0.0
    num_probed = 0.0

    def rank(scheme: Scheme) -> Sequence[str]:
        found = analyze_sensitivity(
            subject.model, subject.calibration, cache=subject.cache, on_progress=say
        )
        nonlocal num_probed
        num_probed = found.num_evaluations * found.num_samples / len(subject.evaluation.feeds)
        return rank_layers(found, scheme)

    space = SearchSpace(
        base=Scheme.FLOAT32,
        schemes=(Scheme.INT8,),
        objective=Objective.LATENCY,
        can_refine=True,
        can_fuse=False,
        can_prune=False,
        num_layers=num_layers,
    )
    proposals = search(space, rank)
    recipe = next(proposals)
    while True:
        trial = Trial(is_inside=True)  # the float model, which both searches start from
        if recipe.scheme is Scheme.INT8:
            variant, is_inside = build(subject, leave_in_float(recipe.layers))
            count += 1
            best = variant if is_inside else best
            trial = Trial(is_inside=is_inside, num_bytes=variant.model.num_bytes)
        try:
            recipe = proposals.send(trial)
        except StopIteration:
            break
    count += num_probed
    return Found(best=best, num_evaluations=count, seconds=time.perf_counter() - started)


def search_greedily(subject: Subject, layers: Sequence[str]) -> Found:
    """Leave each layer in float alone, then the best ones together, until that is enough."""
    started = time.perf_counter()

    def without(names: Sequence[str]) -> Recipe:
        return leave_in_float([LayerScheme(layer=each, scheme=Scheme.FLOAT32) for each in names])

    build(subject, without(()))
    gains: dict[str, float] = {}
    for name in layers:
        gains[name] = build(subject, without([name]))[0].fidelity.sqnr_db
    ranked = sorted(layers, key=lambda name: gains[name], reverse=True)
    best, count = None, 1 + len(layers)
    for number in range(2, len(ranked) + 1):  # one alone was tried
        variant, is_inside = build(subject, without(ranked[:number]))
        count += 1
        if is_inside:
            best = variant
            break
    return Found(best=best, num_evaluations=count, seconds=time.perf_counter() - started)


def print_row(name: str, found: Found) -> None:
    """Print a line of the table."""
    best = found.best
    shown = "none | | |"
    if best is not None:
        megabytes = best.model.num_bytes / 1e6
        shown = f"{len(best.recipe.layers)} | {best.fidelity.sqnr_db:.1f} | {megabytes:.2f} |"
    print(f"| {name} | {shown} {found.num_evaluations:.1f} | {found.seconds:.0f} |")


def main() -> int:
    """Search twice and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--min-sqnr", type=float, default=18.5, metavar="DB", help="floor (default: 18.5)"
    )
    parser.add_argument("--model", choices=CASES, default="efficientnet-lite0")
    given = parser.parse_args()
    floors = Floors(min_sqnr_db=given.min_sqnr, min_agreement=0.0)
    with tempfile.TemporaryDirectory() as folder:
        subject = load(given.model, floors, Cache(root=Path(folder) / "ours"))
        layers = [each.name for each in find_layers(read_flatbuffer(subject.model.data))]
        ours = search_as_edgepack(subject, len(layers))
        other = Cache(root=Path(folder) / "greedy")
        greedy = search_greedily(replace(subject, cache=other), layers)
    num_samples = len(subject.evaluation.feeds)
    print(
        f"- {given.model}, floor {given.min_sqnr:g} dB, {len(layers)} layers; "
        f"{len(subject.calibration)} samples calibrate, {num_samples} others judge"
    )
    print()
    print("| search | layers in float | SQNR dB | MB | full-model evaluations | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    print_row("EdgePack", ours)
    print_row("greedy, one layer at a time", greedy)
    print()
    print(f"{ours.num_evaluations / greedy.num_evaluations:.2f}x the evaluations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
