"""A fleet file: what it says of each device, and all its faults at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import FleetError
from edgepack.fleet.inventory import FleetDevice, parse_fleet

_FLEET = """
schema = 1

[defaults]
target = "raspberry-pi-4"
tags = ["home"]
facts = { room = 1, arch = "aarch64" }

[[devices]]
address = "pi@kitchen"
tags = ["kitchen", "home"]
facts = { room = 3, outdoors = false }

[[devices]]
address = "ssh://pi@hall:2222"
target = "raspberry-pi-5"
root = "/opt/models"
"""


def test_devices_take_what_they_do_not_say_from_the_defaults() -> None:
    assert parse_fleet(_FLEET, name="fleet.toml") == (
        FleetDevice(
            address="pi@kitchen",
            tags=("home", "kitchen"),
            target="raspberry-pi-4",
            facts={"room": "3", "arch": "aarch64", "outdoors": "false"},
        ),
        FleetDevice(
            address="pi@hall:2222",
            tags=("home",),
            target="raspberry-pi-5",
            root="/opt/models",
            facts={"room": "1", "arch": "aarch64"},
        ),
    )


def test_all_faults_are_told_together() -> None:
    text = """
    schema = 1
    devises = 1
    [defaults]
    address = "pi@a"
    [[devices]]
    address = "pi@a b"
    tags = ["two words"]
    password = "hunter2"
    [[devices]]
    target = 4
    facts = { tag = 1, list = [1] }
    [[devices]]
    address = "pi@a"
    [[devices]]
    address = "ssh://pi@a"
    """
    with pytest.raises(FleetError) as caught:
        parse_fleet(text, name="fleet.toml")
    assert caught.value.message.splitlines() == [
        "fleet.toml: 10 faults",
        "  - defaults.address: belongs to a device, not to the defaults",
        "  - devices[0].address: 'pi@a b' is no device address: ' ' cannot stand in a host.",
        "  - devices[0].tags[0]: expected letters, digits, '.', '_' and '-', not 'two words'",
        "  - devices[0].password: a fleet file holds no secrets; use keys or an agent",
        "  - devices[1].address: missing; expected a text",
        "  - devices[1].target: expected a text, not a whole number (4)",
        "  - devices[1].facts.tag: expected another name for a fact",
        "  - devices[1].facts.list: expected a text, a number, true or false, not a list ([1])",
        "  - devises: unknown key; did you mean 'devices'?",
        "  - devices: 'pi@a' stands twice",
    ]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2", "fleet.toml: schema: expected 1, not 2"),
        ("schema = 1", "fleet.toml: devices: expected from 1 to 100000 devices, not 0"),
        ("devices = []", "fleet.toml: schema: missing; expected a whole number"),
    ],
)
def test_another_schema_and_no_devices_are_refused(text: str, message: str) -> None:
    with pytest.raises(FleetError) as caught:
        parse_fleet(text, name="fleet.toml")
    assert caught.value.message == message


@given(st.text() | st.text("[]={}\"'\n .,#abdeiosvcx1", max_size=60).map("schema = 1\n{}".format))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        devices = parse_fleet(text, name="fleet.toml")
    except FleetError:
        return
    assert devices
