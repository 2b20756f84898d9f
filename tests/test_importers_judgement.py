from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepack.fidelity import Judgement
from edgepack.importers.figures import find_constant, measure_outputs
from edgepack.importers.judgement import (
    FigureSet,
    OutputParity,
    describe_output,
    find_telling,
    find_telling_samples,
    judge_output,
)

Array = NDArray[Any]


def _judge(
    ours: Sequence[Array],
    theirs: Sequence[Array],
    moved: Sequence[Array] | None = None,
    *,
    scale: float = 0.0,
    zero_scale: float = 1.0,
    minimum_db: float = 60.0,
) -> tuple[OutputParity, float | None]:
    figures = measure_outputs(
        [[array] for array in ours],
        [[array] for array in theirs],
        [[array] for array in moved or []],
        names=("y",),
        scales=(scale,),
        zero_scale=zero_scale,
    )
    constancy = find_constant([[array] for array in ours], scales=(scale,))
    return judge_output([(None, figures[0])], constancy=constancy[0], minimum_db=minimum_db)


def _normal(seed: int, num: int = 4, size: float = 1.0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [(generator.normal(size=(1, 20)) * size).astype(np.float32) for _ in range(num)]


@given(st.integers(0, 10**6), st.floats(-12.0, 4.0), st.floats(-50.0, 50.0))
def test_an_error_of_the_signals_own_size_never_passes(
    seed: int, exponent: float, wanted_db: float
) -> None:
    """Whatever the size of the output, as long as the source tells it from zero."""
    ours = _normal(seed, size=10.0**exponent)
    noise = 10.0 ** (-wanted_db / 20)
    theirs = [
        (array + noise * np.std(array) * other).astype(np.float32)
        for array, other in zip(ours, _normal(seed + 1), strict=True)
    ]
    # The source's own answer moves by a rounding of it: no excuse.
    moved = [np.nextafter(array, np.float32(np.inf)) for array in ours]
    _, missed = _judge(ours, theirs, moved, scale=0.0)
    assert missed is not None
    assert missed == pytest.approx(wanted_db, abs=3) or missed < wanted_db


@given(st.integers(0, 10**6), st.floats(1e-6, 1.0))
def test_a_sigmoids_wrong_answer_is_no_rounding(seed: int, size: float) -> None:
    generator = np.random.default_rng(seed)
    ours = [(generator.uniform(size=(1, 20)) * size).astype(np.float32) for _ in range(4)]
    theirs = [array[:, ::-1].copy() for array in ours]
    parity, missed = _judge(ours, theirs, scale=1.0)
    assert missed is not None or parity.judgement is Judgement.CONSTANT


def test_a_detectors_map_of_zeros_is_within_rounding() -> None:
    # PP-OCRv4's detector on noise, as ONNX Runtime 1.26 and LiteRT 2.3 give it: 22 dB.
    generator = np.random.default_rng(5)
    exact = [np.exp(-generator.uniform(11.5, 22, (1, 400))) for _ in range(3)]
    ours = [(np.round(each * 2**25) / 2**25).astype(np.float32) for each in exact]
    theirs = [each.astype(np.float32) for each in exact]
    parity, missed = _judge(ours, theirs, scale=1.0)
    assert parity.sqnr_db < 60
    assert missed is None
    assert parity.judgement is Judgement.ROUNDING
    assert parity.scale == 1.0
    _, missed = _judge(ours, theirs)
    assert missed is not None
    _, missed = _judge(ours, [4 * array for array in theirs], scale=1.0)
    assert missed is not None


def test_what_the_source_itself_cannot_tell_is_no_fault_of_the_conversion() -> None:
    generator = np.random.default_rng(3)
    large = [(generator.normal(size=(1, 50)) * 1e4).astype(np.float32) for _ in range(4)]
    # The difference of large numbers: 24 bits are used up before the result begins.
    ours = [(each + np.float32(0.7)) - each for each in large]
    ours = [(each + generator.normal(size=each.shape)).astype(np.float32) for each in ours]
    noise = [generator.normal(size=each.shape) * 3e-3 for each in ours]
    moved = [(a + b).astype(np.float32) for a, b in zip(ours, noise, strict=True)]
    theirs = [(a - 2 * b).astype(np.float32) for a, b in zip(ours, noise, strict=True)]
    parity, missed = _judge(ours, theirs, moved)
    assert missed is None
    assert parity.judgement is Judgement.ROUNDING
    assert parity.scale is None
    assert _judge(ours, theirs)[1] is not None
    wrong = [(a + 0.3 * b[:, ::-1]).astype(np.float32) for a, b in zip(ours, ours, strict=True)]
    assert _judge(ours, wrong, moved)[1] is not None


def _set(seed: int, *response_db: float | None, is_finite: bool = True) -> FigureSet:
    ours = [[each] for each in _normal(4)]
    figures = measure_outputs(ours, ours, [], names=("y",), scales=(0.0,), zero_scale=1.0)[0]
    outputs = tuple(replace(figures, response_db=each, is_finite=is_finite) for each in response_db)
    return (seed, 4, outputs)


def test_sets_on_which_a_source_cannot_repeat_itself_tell_nothing() -> None:
    steady, integer = _set(1, 44.0, 90.0), _set(2, None)
    unsteady, infinite = _set(3, 90.0, 43.9), _set(4, None, is_finite=False)
    assert find_telling([steady, infinite, unsteady, integer]) == [steady, integer]
    assert find_telling([infinite, unsteady]) == [unsteady]
    assert find_telling([infinite]) == [infinite]


def test_an_output_is_constant_where_it_is_on_the_sets_that_tell() -> None:
    unsteady, steady = _set(1, 20.0), _set(2, 90.0)
    same = [[np.array([0.0, 1.0], np.float32)]] * 4
    moved = [[each] for each in _normal(6)]
    samples = [*([each] for each in _normal(5)), *same, *moved]
    told = find_telling_samples([unsteady, steady], samples)
    assert told == same
    assert find_constant(told, scales=(1.0,)) == (Judgement.CONSTANT,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_number_that_is_none_never_passes(bad: float, scale: float) -> None:
    ours = [np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)]
    theirs = [array.copy() for array in ours]
    theirs[1][0, 2] = bad
    _, missed = _judge(ours, theirs, ours, scale=scale)
    assert missed == -300
    nothing = [np.full((1, 4), bad, np.float32)] * 2
    parity, missed = _judge(nothing, nothing, nothing, scale=scale)
    assert missed == -300
    line = describe_output(parity, missed=missed, minimum_db=60)
    assert line == "y: no finite value to compare  <- too far"


def test_the_same_infinities_pass_with_the_rest() -> None:
    ours = _normal(1)
    for array in ours:
        array[0, 3] = -np.inf
    parity, missed = _judge(ours, [array.copy() for array in ours])
    assert missed is None
    assert parity.judgement is Judgement.SQNR


def test_an_output_that_depends_on_nothing_is_called_so() -> None:
    constant = [np.array([[0.3, 0.7]], np.float32)] * 3
    parity, missed = _judge(constant, constant)
    assert (parity.judgement, missed) == (Judgement.CONSTANT, None)
    line = describe_output(parity, missed=None, minimum_db=60)
    assert line.endswith("cosine 1.000000, constant on these inputs")
    # A single sample shows nothing of this.
    assert _judge(constant[:1], constant[:1])[0].judgement is Judgement.SQNR
    # And a wrong constant is wrong.
    assert _judge(constant, [array[:, ::-1] for array in constant])[1] is not None


def test_an_output_of_zeros_and_ones_alone_is_saturated() -> None:
    hot = [np.eye(3, dtype=np.float32)[[place]] for place in (0, 2, 1)]
    parity, missed = _judge(hot, hot, scale=1.0)
    assert (parity.judgement, missed) == (Judgement.SATURATED, None)


def test_small_values_are_not_answered_by_zeros() -> None:
    ours = _normal(4, size=1e-7)
    zeros = [np.zeros_like(array) for array in ours]
    moved = [array * np.float32(1 + 2**-22) for array in ours]
    assert _judge(ours, ours, moved)[0].judgement is Judgement.SQNR
    assert _judge(ours, zeros, moved)[1] == pytest.approx(0, abs=0.01)
    assert _judge(ours, zeros)[1] is not None
    # What changes altogether with the inputs' last bits is a zero, and its rounding.
    parity, missed = _judge(ours, zeros, _normal(5, size=1e-7))
    assert (parity.judgement, missed) == (Judgement.ROUNDING, None)
    assert _judge(zeros, ours, zeros)[0].judgement is Judgement.CONSTANT


def test_ids_are_equal_or_not() -> None:
    ours = [np.array([[500, 3, 9, 1]], np.int64)] * 8
    theirs = [array.copy() for array in ours]
    theirs[7][0, 0] = 501
    parity, missed = _judge(ours, theirs)
    assert parity.equal_share == 31 / 32
    assert missed == pytest.approx(15.05, abs=0.01)
    line = describe_output(parity, missed=missed, minimum_db=60)
    assert line == "y: 96.88% of the values are equal  <- too far"
    assert _judge(ours, theirs, minimum_db=15)[1] is None
    # Where the last bit of an input decides, either answer is right.
    moved = [array.copy() for array in ours]
    moved[7][0, 0] = 501
    parity, missed = _judge(ours, theirs, moved)
    assert (parity.judgement, missed) == (Judgement.CONSTANT, None)
    assert parity.equal_share == 1


def test_ids_of_which_hardly_any_hold_still_are_all_compared() -> None:
    ours = [np.arange(100)[None]]
    moved = [np.arange(1, 101)[None]]
    moved[0][0, 0] = 0
    parity, missed = _judge(ours, [np.zeros_like(ours[0])], moved)
    assert missed is not None
    assert parity.equal_share == 0.01


def test_an_output_of_no_ids_is_equal() -> None:
    parity, missed = _judge([np.zeros((1, 0), np.int64)], [np.zeros((1, 0), np.int32)])
    assert (missed, parity.equal_share) == (None, 1.0)


def test_truth_values_are_equal_or_not() -> None:
    ours = [np.array([[True, False]]), np.array([[True, True]])]
    assert _judge(ours, ours)[0].judgement is Judgement.EQUAL
    assert _judge(ours, [~array for array in ours])[1] == 0


def test_the_worst_set_is_reported_and_decides() -> None:
    good, bad = (
        measure_outputs(
            [[array] for array in _normal(1)],
            [[array * np.float32(factor)] for array in _normal(1)],
            [],
            names=("y",),
            scales=(0.0,),
            zero_scale=1.0,
        )[0]
        for factor in (1 + 1e-5, 1 + 1e-2)
    )
    parity, missed = judge_output([(20, good), (21, bad)], constancy=None, minimum_db=60)
    assert parity.seed == 21
    assert missed == pytest.approx(40, abs=0.1)
    line = describe_output(parity, missed=missed, minimum_db=60)
    assert line.startswith("y: SQNR 40.0 dB, max abs error ")
    assert line.endswith("cosine 1.000000 (seed 21)  <- too far")
    parity, missed = judge_output([(20, good), (22, good)], constancy=None, minimum_db=60)
    assert missed is None
    assert parity.seed == 20


def test_classes_that_change_are_counted() -> None:
    ours = [np.array([[1.0, 1.0 + 1e-6, 0.0]], np.float32), np.array([[3.0, 1.0, 0.0]], np.float32)]
    theirs = [np.array([[1.0, 1.0 - 1e-6, 0.0]], np.float32), ours[1]]
    parity, missed = _judge(ours, theirs)
    assert missed is None
    assert parity.top1_agreement == 0.5
    assert ", top-1 50.0%" in describe_output(parity, missed=None, minimum_db=60)


def test_the_sample_that_differs_most_is_told() -> None:
    ours = _normal(5)
    theirs = [array + np.float32(0.01) for array in ours]
    theirs[2] = ours[2] * 2
    assert _judge(ours, theirs)[0].worst_sample == 2
    theirs[3] = np.full_like(ours[3], np.nan)
    assert _judge(ours, theirs)[0].worst_sample == 3
    assert _judge(ours, ours)[0].worst_sample == 0
    ids = [np.array([[1, 2]]), np.array([[3, 4]])]
    assert _judge(ids, [ids[0], ids[1] + 1])[0].worst_sample == 1
