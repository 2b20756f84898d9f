"""Each op's time, as a runner or a file tells it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack._fields import Fields
from edgepack.measure.profile import (
    MAXIMUM_OPS,
    NOT_ASKED,
    OpProfile,
    OpTime,
    num_profile_runs,
    read_profile,
    to_json,
)

_OPS = st.builds(
    OpTime,
    name=st.text(max_size=63),
    xnnpack=st.booleans(),
    total_ns=st.integers(0, 2**62),
)


@given(
    ops=st.lists(_OPS, min_size=1, max_size=8),
    num_runs=st.integers(1, 10**6),
    total_ns=st.integers(0, 2**62),
)
def test_it_is_read_as_it_was_written(ops: list[OpTime], num_runs: int, total_ns: int) -> None:
    profile = OpProfile(num_runs=num_runs, total_ns=total_ns, ops=tuple(ops))
    for each in (profile, NOT_ASKED):
        fields = Fields(to_json(each))
        assert read_profile(fields) == each
        assert fields.faults == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ops": []}, "ops: expected ops, or a reason why there are none"),
        ({"reason": "none"}, "ops: expected ops, or a reason why there are none"),
        ({"ops": [{"name": "A"}] * (MAXIMUM_OPS + 1)}, "ops: expected at most 4096, not 4097"),
        ({"ops": [{"name": "A", "xnnpack": 1, "total_ns": 1}]}, "ops[0].xnnpack: expected true"),
        ({"total_ns": -1}, "total_ns: expected at least 0, not -1"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], fault: str) -> None:
    whole = OpProfile(num_runs=1, total_ns=9, ops=(OpTime(name="A", xnnpack=True, total_ns=8),))
    fields = Fields(to_json(whole) | change)
    read_profile(fields)
    assert fields.faults[0].startswith(fault)


@pytest.mark.parametrize(
    ("run_ns", "runs"), [(0, 200), (1_000, 200), (10_000_000, 100), (3 * 10**9, 1)]
)
def test_about_a_second_of_runs_is_profiled(run_ns: int, runs: int) -> None:
    assert num_profile_runs(run_ns) == runs
