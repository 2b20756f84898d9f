"""What is tried again: a busy host often, a refused connection twice, a wrong key never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import (
    AuthError,
    ConnectError,
    DeployError,
    DeviceTimeoutError,
    DroppedError,
    EdgePackError,
    HostKeyError,
    LockedError,
)
from edgepack.fleet.retry import NO_RETRIES, RetryPolicy


def _num_tries(kind: type[EdgePackError], policy: RetryPolicy) -> int:
    error = kind("it failed", remedy="")
    num_tries = 1
    while policy.pause_seconds(error, num_tries=num_tries, draw=lambda: 0.0) is not None:
        num_tries += 1
    return num_tries


@pytest.mark.parametrize(
    ("kind", "num_tries"),
    [
        (DroppedError, 7),
        (ConnectError, 3),
        *((each, 1) for each in (HostKeyError, AuthError, DeviceTimeoutError)),
        *((each, 1) for each in (LockedError, DeployError)),
    ],
)
def test_how_often_a_device_is_tried(kind: type[EdgePackError], num_tries: int) -> None:
    assert _num_tries(kind, RetryPolicy()) == num_tries
    assert _num_tries(kind, NO_RETRIES) == 1


@given(st.integers(1, 6), st.floats(0, 1))
def test_pauses_double_and_are_spread_over_their_second_half(num_tries: int, drawn: float) -> None:
    error = DroppedError("busy", remedy="")
    policy = RetryPolicy(base_seconds=0.4)
    pause = policy.pause_seconds(error, num_tries=num_tries, draw=lambda: drawn)
    whole = min(20.0, 0.4 * 2 ** (num_tries - 1))
    assert pause is not None
    assert whole / 2 <= pause <= whole
