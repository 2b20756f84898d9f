"""A variant and the float model timed in turns, before the one is chosen over the other.

Trials are taken one after the other, minutes apart, and a machine that got busier or cooler
between two of them makes the one look quicker than it is: a variant of 39 µs beside a float
model of 60 µs turned out 1.19 times as slow when both were timed in turns. So what is chosen for
its latency has to show it once more, in launches that alternate with the float model's.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgepack._fields import Fields
from edgepack.cache import Cache, digest_parts
from edgepack.errors import CacheError
from edgepack.evaluate import Feeds
from edgepack.measure.bench import TimedModel
from edgepack.measure.drive import measure_on_host
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.stats import median, order_interval
from edgepack.optimize.choosing.variant import Variant
from edgepack.workflow.benching import bench_in_turns, place_model
from edgepack.workflow.request import StepCallback
from edgepack.workflow.trial import digest_machine, interface_feeds

if TYPE_CHECKING:
    from edgepack.workflow.rig import Rig

# The interval of nine ratios leaves out the least and the greatest: one disturbed launch does
# not decide.
NUM_PAIRS: Final = 9
_MILLIONTHS: Final = 1_000_000
_FILE: Final = "turns.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """What timing in turns gave.

    Attributes:
        ratio: the variant's latency as a share of the float model's, the median of the pairs'.
        ratio_ci95: its 95% interval, order statistics of the pairs' ratios.
    """

    ratio: float
    ratio_ci95: tuple[float, float]

    @property
    def is_quicker(self) -> bool:
        """Whether the variant is shown to be quicker."""
        return self.ratio_ci95[1] < 1.0

    @property
    def text(self) -> str:
        """Say it, such as `0.55x (95%: 0.53 to 0.57)`."""
        low, high = self.ratio_ci95
        return f"{self.ratio:.2f}x (95%: {low:.2f} to {high:.2f})"


def turns_plan(num_threads: int) -> BenchmarkPlan:
    """Give the plan of one launch."""
    return BenchmarkPlan(
        num_launches=1,
        warmup_runs=3,
        warmup_seconds=0.1,
        min_runs=20,
        min_seconds=0.2,
        max_seconds=2.5,
        num_threads=num_threads,
    )


def take_turns_here(
    variant: Variant,
    reference: Variant,
    feeds: Feeds,
    *,
    num_threads: int,
    cache: Cache,
    on_step: StepCallback,
    remeasure: bool = False,
) -> Turns:
    """Time two variants in turns on this machine; kept as the trials are.

    Raises:
        MeasureError: the runner failed.
    """
    plan = turns_plan(num_threads)
    key = digest_parts(
        "turns",
        model=variant.model.sha256,
        reference=reference.model.sha256,
        plan=f"{NUM_PAIRS} {plan!r}",
        machine=digest_machine(sys.modules[__name__]),
    )
    folder = None if remeasure else cache.load(key)
    if folder is not None:
        return _read(json.loads((folder / _FILE).read_bytes()))
    on_step(f"timing {variant.recipe.name} in turns with {reference.recipe.name}")

    def time(each: Variant) -> int:
        inputs = interface_feeds(each.model, feeds[:1])
        measured = measure_on_host(each.model, inputs, plan=plan, on_progress=lambda _: None)
        return measured.summary.median_ns

    turns = alternate(time, variant, reference)
    body = {"ratio": turns.ratio, "ratio_ci95": list(turns.ratio_ci95)}
    cache.store(key, {_FILE: json.dumps(body).encode()})
    return turns


def take_turns_on_rig(
    rig: "Rig",
    variant: Variant,
    reference: Variant,
    *,
    num_threads: int,
    target: str,
    on_step: StepCallback,
) -> Turns:
    """Time two variants in turns on the device; never kept.

    Raises:
        MeasureError: the runner failed there.
        DeviceError: the link failed.
    """
    on_step(f"timing {variant.recipe.name} in turns with {reference.recipe.name}")

    def place(each: Variant) -> TimedModel:
        name = each.recipe.name
        return place_model(
            rig, each.model, name=name, target=target, recipe=name, on_step=lambda _: None
        )

    one = turns_plan(num_threads)
    plan = replace(one, num_launches=NUM_PAIRS, max_seconds=2 * NUM_PAIRS * one.max_seconds)
    models = (place(variant), place(reference))
    measured = bench_in_turns(rig, models, plan=plan, on_step=lambda _: None)
    ours, theirs = ([median(each.samples_ns) for each in side.launches] for side in measured)
    return summarize_turns(ours, theirs)


def alternate(time: Callable[[Variant], int], variant: Variant, reference: Variant) -> Turns:
    """Time two variants one after the other, nine times each.

    Args:
        time: gives a variant's latency in one launch, in nanoseconds.
        variant: what is to be shown to be quicker.
        reference: what it is compared with.
    """
    ours: list[int] = []
    theirs: list[int] = []
    for index in range(NUM_PAIRS):
        # The order changes, so that neither always comes after the other's heat.
        if index % 2 == 0:
            ours.append(time(variant))
            theirs.append(time(reference))
        else:
            theirs.append(time(reference))
            ours.append(time(variant))
    return summarize_turns(ours, theirs)


def summarize_turns(ours: Sequence[int], theirs: Sequence[int]) -> Turns:
    """Give the ratio of two variants' latencies, which were taken in pairs."""
    pairs = zip(ours, theirs, strict=True)
    ratios = [round(_MILLIONTHS * mine / max(other, 1)) for mine, other in pairs]
    low, high = order_interval(ratios) or (min(ratios), max(ratios))
    return Turns(
        ratio=median(ratios) / _MILLIONTHS, ratio_ci95=(low / _MILLIONTHS, high / _MILLIONTHS)
    )


def _read(table: dict[str, object]) -> Turns:
    fields = Fields(table)
    ratio, interval = fields.number("ratio", minimum=0.0), fields.numbers("ratio_ci95")
    if fields.faults or len(interval) != 2:  # noqa: PLR2004 - its ends
        raise CacheError(
            f"the kept result of timing in turns cannot be read: {'; '.join(fields.faults)}",
            remedy="Take it anew with --remeasure.",
        )
    return Turns(ratio=ratio, ratio_ci95=(interval[0], interval[1]))
