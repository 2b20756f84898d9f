"""What a run on one or more devices gave, as a report shows it: failures stand in it too."""

from typing import TYPE_CHECKING

from edgepack.report.distinction import SETTINGS
from edgepack.report.measured import summarize_measurement
from edgepack.report.summary import BenchmarkSummary, Fact

if TYPE_CHECKING:
    from edgepack.measure.results import StoredResults


def summarize_results(run: "StoredResults", *, model: str) -> tuple[BenchmarkSummary, ...]:
    """Give what a report shows of a run: its measurements, then what was not measured.

    Args:
        run: measurements, and devices that gave none of them.
        model: what was to be measured, where there is no measurement to tell.
    """
    shown = tuple(summarize_measurement(each) for each in run.measured)
    asked = {(each.model, each.recipe, _settings(each)): each for each in shown} or {
        (model, None, ()): BenchmarkSummary(device="", model=model)
    }
    lost = tuple(
        BenchmarkSummary(
            device=failure.device,
            model=each.model,
            recipe=each.recipe,
            is_bundle=each.is_bundle,
            lacks_xnnpack=each.lacks_xnnpack,
            likeness=_settings(each),
            error=failure.reason,
        )
        for failure in run.failed
        for each in asked.values()
    )
    return shown + lost


def _settings(benchmark: BenchmarkSummary) -> tuple[Fact, ...]:
    return tuple(fact for fact in benchmark.likeness if fact.name in SETTINGS)
