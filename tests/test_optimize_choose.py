from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import UsageError
from edgepack.fidelity import Fidelity, OutputFidelity
from edgepack.optimize.choosing.choose import Candidate, Objective, choose
from edgepack.optimize.judging.floors import Floors, judge
from edgepack.profile import Scheme


def _fidelity(
    sqnr_db: float = 40.0, *, agreement: float | None = None, num_non_finite: int = 0
) -> Fidelity:
    output = OutputFidelity(
        output="y",
        sqnr_db=sqnr_db,
        max_abs_error=0.1,
        cosine=1.0,
        top1_agreement=agreement,
        num_non_finite=num_non_finite,
    )
    return Fidelity(outputs=(output,), num_samples=10, top1_agreement=agreement)


def _candidate(
    name: str,
    sqnr_db: float = 40.0,
    *,
    scheme: Scheme = Scheme.INT8,
    num_bytes: int = 100,
    outside: tuple[str, ...] = (),
    median_ns: float | None = None,
    median_ci95_ns: tuple[float, float] | None = None,
    measured_on: str = "pi",
) -> Candidate:
    return Candidate(
        name=name,
        scheme=scheme,
        num_bytes=num_bytes,
        fidelity=_fidelity(sqnr_db),
        outside=outside,
        median_ns=median_ns,
        median_ci95_ns=median_ci95_ns,
        measured_on=None if median_ns is None else measured_on,
    )


def test_a_variant_above_all_floors_is_inside() -> None:
    assert judge(_fidelity(20.0, agreement=0.9), Floors()) == ()


def test_each_floor_that_is_missed_is_a_reason() -> None:
    assert judge(_fidelity(19.94, agreement=0.875), Floors()) == (
        "output 'y': SQNR 19.9 dB is below 20 dB",
        "output 'y': top-1 agreement 87.5% is below 90%",
    )


def test_a_limit_on_lost_accuracy_stands_in_place_of_the_other_floors() -> None:
    lost = replace(
        _fidelity(3.0, agreement=0.1), accuracy=0.947, drop_points=2.3, drop_points_ci95=(0.4, 4.2)
    )
    assert judge(lost, Floors(max_drop=2.5)) == ()
    assert judge(lost, Floors(max_drop=1.0)) == (
        "accuracy 94.7% is 2.3 points below the float model's (95%: 0.4 to 4.2), above 1",
    )


def test_a_limit_on_lost_accuracy_needs_labels() -> None:
    with pytest.raises(UsageError, match="without labels there is no accuracy"):
        judge(_fidelity(), Floors(max_drop=1.0))


def test_nan_is_outside_whatever_the_floors() -> None:
    broken = replace(_fidelity(-300.0, num_non_finite=3), accuracy=1.0, drop_points=0.0)
    reason = "output 'y' holds 3 NaN or infinite values"
    assert judge(broken, Floors()) == (reason,)
    assert judge(broken, Floors(max_drop=1.0)) == (reason,)


def test_the_quickest_wins_where_no_interval_overlaps() -> None:
    choice = choose(
        [
            _candidate("slow", 90.0, median_ns=20.0, median_ci95_ns=(19.0, 21.0)),
            _candidate("quick", 30.0, median_ns=10.0, median_ci95_ns=(9.0, 11.0)),
        ],
        objective=Objective.LATENCY,
    )
    assert (choice.index, choice.measured_on, choice.tied) == (1, "pi", (1,))
    assert choice.reason == "quick is the quickest of 2 variants inside the floors on pi"


def test_among_overlapping_latencies_fidelity_decides_then_size() -> None:
    choice = choose(
        [
            _candidate("a", 30.0, median_ns=10.0, median_ci95_ns=(9.0, 11.0)),
            _candidate("b", 50.0, median_ns=11.5, median_ci95_ns=(10.9, 12.0), num_bytes=300),
            _candidate("c", 50.0, median_ns=11.6, median_ci95_ns=(10.8, 12.0), num_bytes=200),
            _candidate("d", 99.0, median_ns=30.0, median_ci95_ns=(29.0, 31.0)),
        ],
        objective=Objective.LATENCY,
    )
    assert (choice.index, choice.tied) == (2, (0, 1, 2))
    assert choice.reason == (
        "no difference in latency is shown on pi between a, b, c; c is nearest to the float model"
    )


def test_without_measurement_the_target_s_order_decides_and_says_so() -> None:
    choice = choose(
        [
            _candidate("float16", 60.0, scheme=Scheme.FLOAT16),
            _candidate("int8", 30.0, scheme=Scheme.INT8),
        ],
        objective=Objective.LATENCY,
        schemes=(Scheme.INT8, Scheme.FLOAT16),
    )
    assert (choice.index, choice.measured_on) == (1, None)
    assert choice.reason == (
        "int8 is the first of the target's schemes inside the floors; not measured on the target"
    )


def test_without_measurement_a_scheme_with_fewer_layers_in_float_is_quicker() -> None:
    many = replace(_candidate("int8+float8", 30.0), num_exceptions=8)
    few = replace(_candidate("int8+float5", 25.0), num_exceptions=5)
    choice = choose([many, few], objective=Objective.LATENCY, schemes=(Scheme.INT8,))
    assert choice.index == 1
    assert choice.reason == (
        "int8+float5 is the first of the target's schemes inside the floors with the fewest layers "
        "of another; not measured on the target"
    )


def test_without_measurement_fewer_channels_are_quicker_and_then_fidelity_decides() -> None:
    stock, refined = _candidate("int8", 16.0), _candidate("int8+refined", 26.0, num_bytes=101)
    narrow = replace(_candidate("int8+structured0.3", 20.0), channel_share=0.3)
    for candidates, name in (((stock, refined), "int8+refined"), ((refined, narrow), narrow.name)):
        choice = choose(candidates, objective=Objective.LATENCY, schemes=(Scheme.INT8,))
        assert choice.index is not None
        assert candidates[choice.index].name == name
        assert choice.reason == (
            f"{name} is the first of the target's schemes inside the floors; not measured on the "
            "target"
        )


def test_what_could_not_be_measured_there_is_passed_over() -> None:
    choice = choose(
        [_candidate("broken", 90.0), _candidate("works", 30.0, median_ns=10.0)],
        objective=Objective.LATENCY,
    )
    assert choice.index == 1


def test_size_is_by_bytes_and_then_fidelity() -> None:
    choice = choose(
        [
            _candidate("big", 90.0, num_bytes=200, median_ns=1.0),
            _candidate("rough", 30.0, num_bytes=100),
            _candidate("fine", 40.0, num_bytes=100),
        ],
        objective=Objective.SIZE,
    )
    assert choice.index == 2
    assert choice.reason == "fine is the smallest of 3 variants inside the floors"


def test_when_none_is_inside_the_nearest_miss_is_named() -> None:
    choice = choose(
        [
            _candidate("far", 5.0, outside=("SQNR 5 dB is low",)),
            _candidate("near", 19.0, outside=("SQNR 19 dB is low",)),
        ],
        objective=Objective.LATENCY,
    )
    assert (choice.index, choice.nearest) == (None, 1)
    assert choice.reason == (
        "no variant is inside the floors; the nearest is near: SQNR 19 dB is low"
    )


def test_latencies_of_different_devices_are_never_compared() -> None:
    with pytest.raises(ValueError, match="different devices"):
        choose(
            [
                _candidate("a", median_ns=1.0, measured_on="pi"),
                _candidate("b", median_ns=2.0, measured_on="host"),
            ],
            objective=Objective.LATENCY,
        )


@st.composite
def _candidates(draw: st.DrawFn) -> list[Candidate]:
    candidates = []
    for index in range(draw(st.integers(1, 6))):
        median = draw(st.none() | st.integers(1, 20).map(float))
        half = draw(st.integers(0, 5))
        interval = draw(st.booleans())
        candidates.append(
            Candidate(
                name=f"v{index}",
                scheme=draw(st.sampled_from(Scheme)),
                num_bytes=draw(st.integers(1, 5)),
                fidelity=_fidelity(float(draw(st.integers(0, 5)))),
                outside=draw(st.sampled_from(((), (), ("too far",)))),
                median_ns=median,
                median_ci95_ns=(median - half, median + half) if median and interval else None,
                measured_on="pi" if median else None,
            )
        )
    return candidates


@given(_candidates(), st.sampled_from(Objective), st.permutations(list(Scheme)), st.randoms())
def test_the_choice_does_not_depend_on_the_candidates_order(
    candidates: list[Candidate], objective: Objective, schemes: list[Scheme], random: Random
) -> None:
    shuffled = candidates.copy()
    random.shuffle(shuffled)
    first = choose(candidates, objective=objective, schemes=schemes)
    second = choose(shuffled, objective=objective, schemes=schemes)
    assert first.reason == second.reason
    assert (first.index is None) == (second.index is None)
    if first.index is not None and second.index is not None:
        assert candidates[first.index] == shuffled[second.index]


@given(_candidates(), st.sampled_from(Objective))
def test_nothing_outside_the_floors_is_ever_chosen(
    candidates: list[Candidate], objective: Objective
) -> None:
    choice = choose(candidates, objective=objective)
    assert (choice.index is None) == all(candidate.outside for candidate in candidates)
    if choice.index is not None:
        assert not candidates[choice.index].outside


@given(_candidates())
def test_what_is_chosen_by_latency_is_not_shown_to_be_slower_than_the_quickest(
    candidates: list[Candidate],
) -> None:
    choice = choose(candidates, objective=Objective.LATENCY)
    if choice.index is None or choice.measured_on is None:
        return
    measured = [
        (each.median_ns, each.interval_ns)
        for each in candidates
        if not each.outside and each.median_ns is not None and each.interval_ns is not None
    ]
    least = min(median for median, _ in measured)
    chosen = candidates[choice.index].interval_ns
    assert chosen is not None
    assert chosen[0] <= max(interval[1] for median, interval in measured if median == least)


def _float(median_ns: float, half: float, *, outside: tuple[str, ...] = ()) -> Candidate:
    return replace(
        _candidate(
            "float32",
            300.0,
            scheme=Scheme.FLOAT32,
            num_bytes=400,
            outside=outside,
            median_ns=median_ns,
            median_ci95_ns=(median_ns - half, median_ns + half),
        ),
        is_reference=True,
    )


def test_a_quicker_median_is_not_chosen_over_float_while_the_intervals_overlap() -> None:
    choice = choose(
        [
            _candidate("int8", 30.0, median_ns=9.0, median_ci95_ns=(8.0, 10.0)),
            _float(11.0, 1.5),
        ],
        objective=Objective.LATENCY,
    )
    assert (choice.index, choice.tied, choice.measured_on) == (1, (0, 1), "pi")
    assert choice.reason == "int8 is not shown to be quicker on pi than float32, which stays"


def test_a_tie_with_the_quickest_does_not_bring_in_what_ties_with_float() -> None:
    choice = choose(
        [
            _candidate("quick", 25.0, median_ns=9.0, median_ci95_ns=(8.0, 10.0)),
            # It overlaps both: nearer to float, but not shown to be quicker than it.
            _candidate("between", 60.0, median_ns=10.5, median_ci95_ns=(9.5, 11.5)),
            _float(12.0, 1.0),
        ],
        objective=Objective.LATENCY,
    )
    assert (choice.index, choice.tied) == (0, (0,))
    assert choice.reason == "quick is the quickest of 3 variants inside the floors on pi"


def test_when_everything_else_is_slower_float_stays_and_the_reason_says_so() -> None:
    choice = choose(
        [
            _float(8.6, 0.1),
            _candidate("int8", 15.0, median_ns=4.0, outside=("SQNR 15 dB is low",)),
            _candidate("dynamic_range", 30.0, median_ns=13.2, median_ci95_ns=(13.0, 13.4)),
            _candidate("float16", 80.0, median_ns=8.7, median_ci95_ns=(8.5, 8.9)),
        ],
        objective=Objective.LATENCY,
    )
    assert (choice.index, choice.tied) == (0, (0, 3))
    assert choice.reason == (
        "none of dynamic_range, float16 is shown to be quicker on pi than float32, which stays"
    )


def test_float_may_be_chosen_whatever_its_floors_say() -> None:
    # With few samples not even float is shown to agree with itself on others.
    for objective in Objective:
        choice = choose(
            [
                _candidate("int8", 15.0, outside=("too few samples",), median_ns=1.0),
                _float(8.6, 0.1, outside=("too few samples",)),
            ],
            objective=objective,
        )
        assert choice.index == 1
        assert "float32" in choice.reason


def test_the_least_memory_wins_and_ranges_that_overlap_are_tied() -> None:
    lean = replace(
        _candidate("lean", 30.0),
        memory_bytes=10,
        memory_range_bytes=(9, 11),
        memory_on="pi",
    )
    near = replace(lean, name="near", fidelity=_fidelity(50.0), memory_range_bytes=(11, 12))
    wide = replace(lean, name="wide", memory_bytes=30, memory_range_bytes=(29, 31))
    unknown = _candidate("unknown", 99.0)
    choice = choose([lean, wide, unknown], objective=Objective.MEMORY)
    assert choice.index == 0
    assert choice.reason == (
        "lean is the leanest of 2 variants inside the floors, by the memory an inference took on pi"
    )
    choice = choose([lean, near, wide], objective=Objective.MEMORY)
    assert (choice.index, choice.tied) == (1, (0, 1))
    assert choice.reason == (
        "no difference in memory is shown on pi between lean, near; near is nearest to the float "
        "model"
    )
    with pytest.raises(ValueError, match="memory of different devices"):
        choose([lean, replace(wide, memory_on="host")], objective=Objective.MEMORY)


def test_without_measured_memory_size_decides() -> None:
    choice = choose(
        [_candidate("big", num_bytes=200), _candidate("small", num_bytes=100)],
        objective=Objective.MEMORY,
    )
    assert choice.index == 1
    assert choice.reason == (
        "memory was not measured: small is the smallest of 2 variants inside the floors"
    )


@given(_candidates(), st.integers(1, 20), st.integers(0, 5))
def test_nothing_is_chosen_over_float_that_may_be_as_slow(
    candidates: list[Candidate], median: int, half: int
) -> None:
    reference = _float(float(median), float(half))
    choice = choose([*candidates, reference], objective=Objective.LATENCY)
    assert choice.index is not None
    chosen = [*candidates, reference][choice.index]
    if chosen is not reference:
        assert chosen.interval_ns is not None
        assert reference.interval_ns is not None
        assert chosen.interval_ns[1] < reference.interval_ns[0]
