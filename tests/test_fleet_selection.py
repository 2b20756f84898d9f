"""Filters: which devices of a fleet are meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import FleetError
from edgepack.fleet.inventory import FleetDevice
from edgepack.fleet.selection import Filter, parse_filter, select

_DEVICES = (
    FleetDevice(address="pi@kitchen-1", tags=("kitchen", "home"), target="raspberry-pi-4"),
    FleetDevice(address="pi@kitchen-2", tags=("kitchen",), target="raspberry-pi-5"),
    FleetDevice(address="pi@hall", tags=("hall",), facts={"arch": "aarch64"}),
)


def _addresses(*filters: str) -> list[str]:
    chosen = select(_DEVICES, [parse_filter(each) for each in filters])
    return [each.address.removeprefix("pi@") for each in chosen]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["tag=kitchen"], ["kitchen-1", "kitchen-2"]),
        (["tag=kitchen", "tag=home"], ["kitchen-1"]),
        (["tag=home,hall"], ["kitchen-1", "hall"]),
        (["tag!=kitchen"], ["hall"]),
        (["target=raspberry-pi-*"], ["kitchen-1", "kitchen-2"]),
        (["target!=raspberry-pi-5"], ["kitchen-1", "hall"]),
        (["address=pi@kitchen-?"], ["kitchen-1", "kitchen-2"]),
        (["arch=aarch64"], ["hall"]),
    ],
)
def test_devices_meet_all_filters(filters: list[str], expected: list[str]) -> None:
    assert _addresses(*filters) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kitchen", "'kitchen' is no filter"),
        ("tag=", "'tag=' is no filter"),
        ("tag=a,,b", "'tag=a,,b' is no filter"),
        ("tag=attic", "none of 3 devices meets tag=attic"),
        ("arhc=x", "--filter arhc=x: no device has a fact 'arhc'; did you mean 'arch'?"),
    ],
)
def test_what_selects_nothing_is_told(text: str, message: str) -> None:
    with pytest.raises(FleetError) as caught:
        _addresses(text)
    assert caught.value.message == message
    assert caught.value.remedy


_WORDS = st.text("abc", min_size=1, max_size=2)
_ANY_DEVICE = st.builds(
    FleetDevice,
    address=_WORDS,
    tags=st.lists(_WORDS, max_size=3).map(tuple),
    target=st.none() | _WORDS,
    facts=st.dictionaries(_WORDS, _WORDS, max_size=2),
)


@given(
    _ANY_DEVICE,
    st.sampled_from(["tag", "target", "address", "a", "b"]),
    st.lists(_WORDS | st.just("a*"), min_size=1, max_size=3).map(tuple),
)
def test_a_filter_and_its_negation_part_all_devices(
    device: FleetDevice, key: str, patterns: tuple[str, ...]
) -> None:
    one = Filter(key=key, patterns=patterns)
    other = Filter(key=key, patterns=patterns, is_negated=True)
    assert one.takes(device) is not other.takes(device)
    assert parse_filter(str(one)) == one
    assert parse_filter(str(other)) == other
