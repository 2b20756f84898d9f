"""What a pack warns of."""

from dataclasses import replace
from pathlib import Path

from edgepack.fidelity import Fidelity, OutputFidelity
from edgepack.measure.validity import VerdictName
from edgepack.optimize.choosing.choose import Choice
from edgepack.optimize.choosing.variant import Variant
from edgepack.optimize.judging.floors import Floors, judge
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from edgepack.workflow.doubts import agreement_doubts, latency_doubts
from edgepack.workflow.request import Outcome, TrialLatency
from tests.fixtures.commands import DIGITS, FLOAT_MODEL, RunCommand
from tests.fixtures.models import small_model

CHOICE = Choice(index=0, reason="int8 is the quickest", measured_on="host")


def outcome(scheme: Scheme, verdict: VerdictName) -> Outcome:
    latency = TrialLatency(median_ns=1000, median_ci95_ns=(900, 1100), verdict=verdict)
    return Outcome(recipe=stock_recipe(scheme), host=latency, device=latency)


def test_doubtful_latencies_are_named_with_what_to_do() -> None:
    outcomes = [
        outcome(Scheme.INT8, VerdictName.CONTENDED),
        outcome(Scheme.FLOAT16, VerdictName.NOISY),
        outcome(Scheme.FLOAT32, VerdictName.THROTTLED),
    ]
    assert latency_doubts(outcomes, CHOICE, is_device=False) == (
        (
            "the choice rests on doubtful latencies of int8 (contended), float32 (throttled): pack "
            "again with --remeasure when this machine is quiet"
        ),
    )
    assert latency_doubts(outcomes, CHOICE, is_device=True) == (
        (
            "the choice rests on doubtful latencies of int8 (contended), float32 (throttled): pack "
            "again when the device is quiet"
        ),
    )


def test_latencies_that_are_sound_or_did_not_decide_are_no_matter() -> None:
    sound = [outcome(Scheme.INT8, VerdictName.VALID)]
    assert latency_doubts(sound, CHOICE, is_device=False) == ()
    doubtful = [outcome(Scheme.INT8, VerdictName.CONTENDED)]
    by_order = Choice(index=0, reason="the profile's order", measured_on=None)
    assert latency_doubts(doubtful, by_order, is_device=False) == ()


def judged(name: str, sqnr_db: float, agreement: float) -> Outcome:
    """Give an outcome with the figures of one class output, judged by the stock floors."""
    output = OutputFidelity(
        output="y", sqnr_db=sqnr_db, max_abs_error=0.1, cosine=1.0, top1_agreement=agreement
    )
    variant = Variant(
        recipe=replace(stock_recipe(Scheme.INT8), name=name),
        model=small_model("cnn"),
        fidelity=Fidelity(outputs=(output,), num_samples=50),
        compressed_bytes=1,
    )
    outside = judge(variant.fidelity, Floors())
    return Outcome(recipe=variant.recipe, variant=variant, outside=outside)


def test_what_only_agreement_keeps_out_is_named_with_the_way_in() -> None:
    outcomes = [
        judged("good", 30.0, 0.95),
        judged("unlike", 28.0, 0.6),
        judged("bad", 10.0, 0.6),
        judged("other", 25.0, 0.89),
        Outcome(recipe=stock_recipe(Scheme.INT16X8), skipped_reason="no data"),
    ]
    (told,) = agreement_doubts(Floors(), outcomes)
    assert told == (
        "only the top-1 agreement keeps unlike, other outside the floors: if the outputs' largest "
        "values choose no class, as of an embedding, give --min-agreement 0"
    )
    assert agreement_doubts(Floors(), outcomes[:1]) == ()
    # Judged by what is lost, agreement is no floor.
    assert agreement_doubts(Floors(max_drop=1.0), outcomes) == ()


_NONSENSE = (
    "tflite-runtime 2.14.0: it answers nonsense (-0.1 dB where other runtimes give 46 dB), "
    "without a word"
)


def test_what_a_targets_runtime_gets_wrong_is_not_chosen(run: RunCommand, tmp_path: Path) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "generic-armv7", "--data", DIGITS, "--json"),
        *("--recipe", "dynamic_range", "--recipe", "float16", "-o", tmp_path / "d.edgepack"),
    )
    assert ran.code == 0, ran.err
    packed = ran.json()
    reasons = {each["recipe"]: each["skipped_reason"] for each in packed["variants"]}
    assert reasons == {"dynamic_range": _NONSENSE, "float16": None}
    assert packed["chosen"] == "float16"


def test_what_a_targets_runtime_gets_wrong_is_packed_on_demand_and_said(
    run: RunCommand, tmp_path: Path
) -> None:
    options = ("--recipe", "dynamic_range", "-o", tmp_path / "d.edgepack", "--json")
    ran = run("pack", FLOAT_MODEL, "--target", "generic-armv7", "--data", DIGITS, *options)
    assert ran.code == 0, ran.err
    assert any(
        each.startswith(f"dynamic_range for generic-armv7: {_NONSENSE}. Pack with")
        for each in ran.json()["warnings"]
    )
    right = run("pack", FLOAT_MODEL, "--target", "raspberry-pi-4", "--data", DIGITS, *options)
    assert not any("nonsense" in each for each in right.json()["warnings"])


def test_evaluating_on_the_calibration_data_is_said(run: RunCommand, tmp_path: Path) -> None:
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--recipe", "float16"),
        *("--data", DIGITS, "--eval-data", DIGITS, "-o", tmp_path / "d.edgepack", "--json"),
    )
    assert ran.code == 0, ran.err
    assert (
        "calibration and evaluation data are the same: fidelity looks better than on new data"
    ) in ran.json()["warnings"]


def test_kept_latencies_are_taken_anew_when_asked(run: RunCommand, tmp_path: Path) -> None:
    pack = (
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--recipe", "float32"),
        *("--data", DIGITS, "-o", tmp_path / "d.edgepack"),
    )
    run(*pack)
    assert "timing float32 on this machine" not in run(*pack).err
    assert "timing float32 on this machine" in run(*pack, "--remeasure").err


def test_class_names_must_be_as_many_as_classes(run: RunCommand, tmp_path: Path) -> None:
    names = tmp_path / "two.txt"
    names.write_text("cat\ndog\n")
    ran = run(
        *("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--recipe", "float32"),
        *("--class-names", names, "-o", tmp_path / "d.edgepack"),
    )
    assert ran.code == 1
    assert ran.err.endswith(
        f"edgepack: {names}: expected 10 class names, one for each class of the model's output, "
        "but got 2\n"
        "  Give the names of the classes this model was trained on, one a line.\n"
    )
    assert not (tmp_path / "d.edgepack").exists()
